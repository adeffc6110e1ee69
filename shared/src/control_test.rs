use super::*;
use crate::dlq::Fate;

fn put(state: &mut ControlState, offset: i64, record: &ControlRecord) {
    let value = serde_json::to_vec(record).unwrap();
    state.apply(offset, &record.key(), Some(&value)).unwrap();
}

fn directive(topic: Option<&str>, state: DirectiveState) -> ControlRecord {
    ControlRecord::Directive {
        sink: "wh".into(),
        topic: topic.map(Into::into),
        directive: Directive { state, reason: String::new() },
        by: "op".into(),
        at_ms: 1,
    }
}

#[test]
fn the_stricter_directive_holds() {
    let mut state = ControlState::default();
    assert_eq!(state.directive("wh", Some("t")).state, DirectiveState::Run);
    put(&mut state, 0, &directive(Some("t"), DirectiveState::Pause));
    assert_eq!(state.directive("wh", Some("t")).state, DirectiveState::Pause);
    assert_eq!(state.directive("wh", Some("u")).state, DirectiveState::Run);
    put(&mut state, 1, &directive(None, DirectiveState::Stop));
    assert_eq!(state.directive("wh", Some("t")).state, DirectiveState::Stop);
    assert_eq!(state.offset(), 2);
}

#[test]
fn a_skip_covers_its_range_of_its_topic_only() {
    let mut state = ControlState::default();
    let tp = TopicPartition::new("t", 0);
    let skip = ControlRecord::Skip {
        sink: "wh".into(),
        tp: tp.clone(),
        topic_id: TopicId("a".into()),
        from: 5,
        to: 8,
        reason: String::new(),
        by: "op".into(),
        at_ms: 1,
    };
    assert!(!state.has_skips());
    put(&mut state, 0, &skip);
    assert!(state.has_skips());
    let at = |topic: &str, offset| state.skip_to("wh", &tp, &TopicId(topic.into()), offset);
    assert_eq!(at("a", 4), None);
    assert_eq!(at("a", 5), Some(8));
    assert_eq!(at("a", 7), Some(8));
    assert_eq!(at("a", 8), None);
    assert_eq!(at("b", 5), None);
}

#[test]
fn a_tombstone_removes_and_garbage_is_passed() {
    let mut state = ControlState::default();
    put(&mut state, 0, &directive(None, DirectiveState::Pause));
    state.apply(1, "directive/wh", None).unwrap();
    assert_eq!(state.directive("wh", None).state, DirectiveState::Run);
    assert!(state.apply(2, "x", Some(b"{")).is_err());
    assert_eq!(state.offset(), 3);
}

#[test]
fn a_letter_is_settled_until_its_record_is_rejected_anew() {
    let mut state = ControlState::default();
    let (tp, id) = (TopicPartition::new("t", 0), TopicId("a".into()));
    let letters = |block, settled| ControlRecord::DeadLetters {
        sink: "wh".into(),
        tp: TopicPartition::new("t", 0),
        topic_id: TopicId("a".into()),
        block,
        settled,
    };
    let settled = |fate, at_ms, offsets: &[i64]| Settled {
        fate,
        at_ms,
        by: "op".into(),
        reason: String::new(),
        offsets: offsets.to_vec(),
    };
    put(&mut state, 0, &letters(0, vec![settled(Fate::Dropped, 50, &[3, 5])]));
    let both =
        vec![settled(Fate::Replayed, 50, &[BLOCK + 1]), settled(Fate::Dropped, 70, &[BLOCK + 1])];
    put(&mut state, 1, &letters(1, both));
    let fate = |at| state.letter_settled("wh", &tp, &id, at).map(|settled| settled.fate);
    assert_eq!(fate((3, 50)), Some(Fate::Dropped));
    assert_eq!(fate((3, 51)), None, "a younger letter is open");
    assert_eq!(fate((4, 0)), None);
    assert_eq!(fate((BLOCK + 1, 0)), Some(Fate::Dropped), "the latest counts");
    assert_eq!(fate((BLOCK + 1, 60)), Some(Fate::Dropped));
    let other = TopicId("b".into());
    assert!(state.letter_settled("wh", &tp, &other, (3, 0)).is_none());
    assert!(state.letter_settled("w", &tp, &id, (3, 0)).is_none());
    assert_eq!(state.count_settled_letters("wh"), 4);
}
