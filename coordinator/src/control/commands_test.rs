//! What commands write, and what they refuse.

use cdc_shared::api::RewindTarget;
use cdc_shared::offset::{Incarnation, NextOffset, SchemaIds};

use super::*;

fn position(incarnation: u64, next: i64) -> Position {
    Position {
        next: NextOffset::new(next).unwrap(),
        incarnation: Incarnation(incarnation),
        topic_id: TopicId("a".into()),
        schemas: SchemaIds::default(),
    }
}

fn known() -> Known {
    Known {
        sinks: [("wh".to_owned(), vec!["cdc.public.orders".to_owned()])].into(),
        topic_prefix: "cdc".into(),
        topic: Some(TopicNow { id: TopicId("a".into()), ranges: vec![(0, 100), (10, 50)] }),
        positions: [(1, position(4, 20))].into(),
        live: BTreeMap::new(),
        now_ms: 7,
        ..Known::default()
    }
}

fn run(
    control: &mut ControlState,
    known: &Known,
    command: impl std::borrow::Borrow<Command>,
) -> Result<(usize, String), Refusal> {
    let command = known.resolve(command.borrow())?;
    let effect = decide(&CommandRequest { by: "me".into(), command }, known, control)?;
    for change in &effect.changes {
        let value = match change {
            Change::Put(record) => Some(serde_json::to_vec(record).unwrap()),
            Change::Remove(_) => None,
        };
        control.apply(control.offset(), &change.key(), value.as_deref()).unwrap();
    }
    Ok((effect.changes.len(), effect.message))
}

fn pause(topic: Option<&str>) -> Command {
    Command::Pause { sink: "wh".into(), topic: topic.map(Into::into), reason: "upgrade".into() }
}

fn rewind(partition: Option<i32>, to: RewindTarget) -> Command {
    Command::Rewind {
        sink: "wh".into(),
        topic: "public.orders".into(),
        partition,
        to,
        reason: "again".into(),
        dry_run: false,
        new_ids: false,
        accept_new_topic: false,
    }
}

fn skip(from: i64, to: i64) -> Command {
    Command::Skip {
        sink: "wh".into(),
        topic: "cdc.public.orders".into(),
        partition: 1,
        from,
        to,
        reason: "bad row".into(),
    }
}

#[test]
fn pause_and_resume_are_idempotent_and_audited() {
    let (mut control, known) = (ControlState::default(), known());
    let state = |control: &ControlState| control.directive("wh", None).state;
    assert_eq!(run(&mut control, &known, pause(None)).unwrap().0, 2);
    assert_eq!(state(&control), DirectiveState::Pause);
    let (changes, message) = run(&mut control, &known, pause(None)).unwrap();
    assert_eq!((changes, message.as_str()), (0, "sink wh is paused already"));
    assert!(control.records().any(|record| matches!(record,
        ControlRecord::Audit { by, action, .. } if by == "me" && action.contains("paused"))));
    let resume = Command::Resume { sink: "wh".into(), topic: None };
    assert_eq!(run(&mut control, &known, resume.clone()).unwrap().0, 3);
    assert_eq!(state(&control), DirectiveState::Run);
    let first = control.resume_offset("wh", "cdc.public.orders");
    assert_eq!(run(&mut control, &known, resume).unwrap().0, 2);
    assert!(control.resume_offset("wh", "cdc.public.orders") > first, "one more try each time");
}

#[test]
fn a_paused_table_stays_paused_when_its_sink_resumes() {
    let (mut control, known) = (ControlState::default(), known());
    run(&mut control, &known, pause(Some("public.orders"))).unwrap();
    let resume = Command::Resume { sink: "wh".into(), topic: None };
    let (_, message) = run(&mut control, &known, resume).unwrap();
    assert_eq!(message, "sink wh resumed; still held: cdc.public.orders");
}

#[test]
fn unknown_names_are_told_with_the_nearest() {
    let known = known();
    let mut control = ControlState::default();
    let sink = Command::Stop { sink: "wb".into(), reason: String::new() };
    let refusal = run(&mut control, &known, sink).unwrap_err();
    assert_eq!(refusal.code, "unknown_sink");
    assert_eq!(refusal.hint.as_deref(), Some("did you mean \"wh\"?"));
    let refusal = run(&mut control, &known, pause(Some("public.order"))).unwrap_err();
    assert_eq!(refusal.code, "unknown_topic");
    assert_eq!(refusal.hint.as_deref(), Some("did you mean \"cdc.public.orders\"?"));
}

#[test]
fn a_rewind_takes_the_next_incarnation_of_each_partition() {
    let (mut control, mut known) = (ControlState::default(), known());
    let at = |control: &ControlState, p| {
        let tp = TopicPartition::new("cdc.public.orders", p);
        control.rewind("wh", &tp).map(|(incarnation, _, to)| (incarnation.0, to.get()))
    };
    let all = rewind(None, RewindTarget::Beginning);
    assert_eq!(run(&mut control, &known, all.clone()).unwrap().0, 3);
    assert_eq!([at(&control, 0), at(&control, 1)], [Some((1, 0)), Some((5, 10))]);
    assert_eq!(run(&mut control, &known, all).unwrap().0, 0, "asked twice is asked once");
    run(&mut control, &known, rewind(Some(1), RewindTarget::End)).unwrap();
    assert_eq!(at(&control, 1), Some((6, 50)));
    // Taken over by the sink, the same rewind is a new one.
    known.positions.insert(1, position(6, 50));
    run(&mut control, &known, rewind(Some(1), RewindTarget::End)).unwrap();
    assert_eq!(at(&control, 1), Some((7, 50)));
    let offset = RewindTarget::Offset(NextOffset::new(51).unwrap());
    let refusal = run(&mut control, &known, rewind(Some(1), offset)).unwrap_err();
    assert_eq!(refusal.code, "invalid_offset");
    let refusal = run(&mut control, &known, rewind(Some(2), RewindTarget::End)).unwrap_err();
    assert_eq!(refusal.hint.as_deref(), Some("it has partitions 0 to 1"));
}

#[test]
fn a_rewind_says_what_comes_again_and_a_dry_run_writes_nothing() {
    let (mut control, mut known) = (ControlState::default(), known());
    let command = |to, dry_run| Command::Rewind {
        sink: "wh".into(),
        topic: "public.orders".into(),
        partition: Some(1),
        to,
        reason: "test".into(),
        dry_run,
        new_ids: false,
        accept_new_topic: false,
    };
    let (changes, said) =
        run(&mut control, &known, command(RewindTarget::Beginning, true)).unwrap();
    assert_eq!(changes, 0);
    assert_eq!(
        said,
        "sink wh would go on with cdc.public.orders: 1 from 20 to 10 (10 offsets come again)"
    );
    let (_, said) = run(&mut control, &known, command(RewindTarget::End, true)).unwrap();
    assert!(said.ends_with("1 from 20 to 50 (30 offsets are passed without delivery)"), "{said}");
    known.first_at = [(1, 15)].into();
    let (changes, said) =
        run(&mut control, &known, command(RewindTarget::Timestamp(7), false)).unwrap();
    assert_eq!(changes, 2);
    assert!(said.contains("1 from 20 to 15 (5 offsets come again): test"), "{said}");

    known.types.insert("wh".into(), SinkType::Iceberg);
    let other = Position { topic_id: TopicId("former".into()), ..position(6, 20) };
    known.positions.insert(1, other);
    let back = command(RewindTarget::Beginning, false);
    assert_eq!(run(&mut control, &known, back.clone()).unwrap_err().code, "topic_recreated");
    let Command::Rewind { sink, topic, partition, to, reason, .. } = back else { panic!() };
    let accepts = |dry_run, new_ids| Command::Rewind {
        sink: sink.clone(),
        topic: topic.clone(),
        partition,
        to: to.clone(),
        reason: reason.clone(),
        dry_run,
        new_ids,
        accept_new_topic: true,
    };
    let accepted = run(&mut control, &known, accepts(false, false));
    assert!(accepted.is_ok(), "of another topic nothing comes twice");
    assert_eq!(run(&mut control, &known, accepts(false, true)).unwrap_err().code, "no_ids");
    known.positions.clear();
    known.recreated.insert(1);
    known.types.insert("wh".into(), SinkType::Webhook);
    let plain = rewind(Some(1), RewindTarget::End);
    assert_eq!(run(&mut control, &known, plain).unwrap_err().code, "topic_recreated");
}

#[test]
fn new_ids_are_kept_by_later_rewinds() {
    let (mut control, mut known) = (ControlState::default(), known());
    let tp = TopicPartition::new("cdc.public.orders", 1);
    let mut back = |new_ids, incarnation| {
        known.positions.insert(1, position(incarnation, 20));
        let Command::Rewind { sink, topic, partition, to, reason, .. } =
            rewind(Some(1), RewindTarget::Beginning)
        else {
            panic!()
        };
        let (dry_run, accept_new_topic) = (false, false);
        let command = Command::Rewind {
            sink,
            topic,
            partition,
            to,
            reason,
            dry_run,
            new_ids,
            accept_new_topic,
        };
        run(&mut control, &known, command).unwrap();
        let of = |id: &str| control.id_generation("wh", &tp, &TopicId(id.into()));
        (of("a"), of("another"))
    };
    assert_eq!(back(false, 4), (0, 0));
    assert_eq!(back(true, 4), (6, 0), "though the same without new ids waits to be taken");
    assert_eq!(back(true, 4), (6, 0), "asked twice is asked once");
    assert_eq!(back(false, 6), (6, 0));
    assert_eq!(back(true, 7), (8, 0));
}

#[test]
fn a_rewind_of_a_topic_that_is_gone_is_refused() {
    let mut control = ControlState::default();
    let known = Known { topic: None, ..known() };
    let refusal = run(&mut control, &known, rewind(None, RewindTarget::Beginning)).unwrap_err();
    assert_eq!(refusal.code, "unknown_topic");
}

#[test]
fn a_skip_carries_the_topic_id_and_stays_in_the_log() {
    let (mut control, known) = (ControlState::default(), known());
    assert_eq!(run(&mut control, &known, skip(12, 13)).unwrap().0, 2);
    assert_eq!(run(&mut control, &known, skip(12, 13)).unwrap().0, 0);
    let tp = TopicPartition::new("cdc.public.orders", 1);
    assert_eq!(control.skip_to("wh", &tp, &TopicId("a".into()), 12), Some(13));
    for (from, to) in [(13, 13), (-1, 3), (40, 51)] {
        let refusal = run(&mut control, &known, skip(from, to)).unwrap_err();
        assert_eq!(refusal.code, "invalid_range");
    }
}

fn decide_only(control: &ControlState, known: &Known, command: Command) -> Result<Effect, Refusal> {
    decide(&CommandRequest { by: "me".into(), command }, known, control)
}

#[test]
fn removing_a_sink_forgets_all_but_its_incarnations() {
    let (mut control, mut known) = (ControlState::default(), known());
    let member =
        ControlRecord::Member { sink: "wh".into(), topic: "cdc.public.orders".into(), since_ms: 1 };
    let value = serde_json::to_vec(&member).unwrap();
    control.apply(0, &member.key(), Some(&value)).unwrap();
    run(&mut control, &known, pause(None)).unwrap();
    run(&mut control, &known, rewind(Some(0), RewindTarget::End)).unwrap();
    let remove = Command::RemoveSink { sink: "wh".into(), topic: None };
    known.live = [("wh".into(), ["cdc.public.orders".into()].into())].into();
    assert_eq!(run(&mut control, &known, remove.clone()).unwrap_err().code, "sink_live");
    let table = Command::RemoveSink { sink: "wh".into(), topic: Some("cdc.public.orders".into()) };
    let refusal = run(&mut control, &known, table.clone()).unwrap_err();
    assert_eq!(refusal.message, "live workers of sink wh still consume cdc.public.orders");
    known.live.insert("wh".into(), BTreeSet::new());
    assert!(decide_only(&control, &known, table).is_ok());
    known.live.clear();
    run(&mut control, &known, remove.clone()).unwrap();
    assert_eq!(control.members().count(), 0);
    assert_eq!(control.directive("wh", None).state, DirectiveState::Run);
    assert!(control.rewind("wh", &TopicPartition::new("cdc.public.orders", 0)).is_some());
    assert_eq!(run(&mut control, &known, remove).unwrap().1, "sink wh is removed already");
}

#[test]
fn the_audit_trail_tells_from_what_to_what_and_stays_small() {
    let record =
        |sink: String| Change::put(ControlRecord::Member { sink, topic: "t".into(), since_ms: 1 });
    let mut control = ControlState::default();
    let old = ControlRecord::Member { sink: "s0".into(), topic: "t".into(), since_ms: 0 };
    control.apply(0, &old.key(), Some(&serde_json::to_vec(&old).unwrap())).unwrap();
    let mut changes = vec![Change::Remove(old.key()), record("x".repeat(100_000))];
    changes.extend((0..200).map(|n| record(format!("s{n}"))));
    let audited = audited(&changes, &control);
    assert_eq!(audited.len(), MOST_AUDITED + 1);
    assert_eq!(audited[0].before.as_ref().unwrap()["since_ms"], 0);
    assert_eq!(audited[0].after, None);
    assert!(audited[1].after.as_ref().unwrap().as_str().unwrap().ends_with("bytes, left out"));
    assert_eq!(audited[50].key, "and 152 more records, left out");
}
