//! The minimum rule and what holds it.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::kafka::{Committed, TopicFacts};
use crate::watermark::SinkWatermarks;
use crate::watermark::rule::tests::position;

fn id(text: &str) -> TopicId {
    TopicId(text.into())
}

fn observation(partitions: i32, end: i64, sinks: &[(&str, &[(i32, Position)])]) -> Observation {
    let topics = [("t".to_owned(), TopicFacts { id: id("a"), partitions })].into();
    let watermarks = sinks
        .iter()
        .map(|(sink, positions)| {
            let positions: SinkWatermarks = positions
                .iter()
                .map(|(p, at)| (TopicPartition::new("t", *p), at.clone()))
                .collect();
            ((*sink).to_owned(), Ok(positions))
        })
        .collect();
    Observation {
        begun: Instant::now(),
        topics,
        ends: (0..partitions).map(|p| (TopicPartition::new("t", p), end)).collect(),
        committed: [].into(),
        watermarks,
        rebuilt: Vec::new(),
    }
}

fn members(pairs: &[&str]) -> Members {
    pairs.iter().map(|sink| ((*sink).to_owned(), "t".to_owned())).collect()
}

fn apply(control: &mut ControlState, changes: &[Change]) {
    for change in changes {
        let offset = control.offset();
        match change {
            Change::Put(record) => {
                let value = serde_json::to_vec(record).unwrap();
                control.apply(offset, &record.key(), Some(&value)).unwrap();
            }
            Change::Remove(key) => control.apply(offset, key, None).unwrap(),
        }
    }
}

#[test]
fn a_position_counts_only_with_the_right_identity() {
    let a = id("a");
    let known = |n| Progress::Known(NextOffset::new(n).unwrap());
    let at = position(1, "a", 10);
    let judge = |rewind, end| judge(Some(&at), rewind, &a, end);
    assert_eq!(judge(None, None), known(10));
    assert_eq!(judge(None, Some(10)), known(10));
    assert!(matches!(judge(None, Some(9)), Progress::Unknown(_)));
    let to = |n| NextOffset::new(n).unwrap();
    let rewind = |n: u64, at| Some((Incarnation(n), &a, to(at)));
    assert_eq!(judge(rewind(1, 3), None), known(10));
    assert_eq!(judge(rewind(2, 3), None), known(3));
    assert_eq!(judge(rewind(2, 30), None), known(10));
    assert!(matches!(super::judge(None, None, &a, None), Progress::Unknown(_)));
    assert!(matches!(super::judge(Some(&at), None, &id("b"), None), Progress::Unknown(_)));
}

#[test]
fn a_commit_older_than_a_rewind_counts_for_nothing() {
    let a = id("a");
    let rewind = Some((Incarnation(2), &a, NextOffset::ZERO));
    assert!(commit_counts(&position(2, "a", 5), rewind, &a));
    assert!(!commit_counts(&position(1, "a", 5), rewind, &a));
    assert!(!commit_counts(&position(2, "b", 5), None, &a));
}

#[test]
fn one_unknown_sink_holds_its_partition_and_no_other() {
    let both = position(0, "a", 7);
    let seen = observation(
        2,
        100,
        &[("wh", &[(0, both.clone()), (1, position(0, "a", 9))]), ("pg", &[(1, both)])],
    );
    let plan = plan(&members(&["wh", "pg"]), &seen, &ControlState::default());
    assert_eq!(plan.offsets.len(), 1);
    assert_eq!(plan.offsets[&TopicPartition::new("t", 1)].get(), 7);
    assert_eq!(plan.holds.len(), 1);
    assert_eq!((plan.holds[0].sink_id.as_str(), plan.holds[0].partition), ("pg", 0));
}

#[test]
fn an_unreadable_store_holds_everything() {
    let mut seen = observation(1, 100, &[("wh", &[(0, position(0, "a", 7))])]);
    seen.watermarks.insert("wh".into(), Err("redis is away".into()));
    let plan = plan(&members(&["wh"]), &seen, &ControlState::default());
    assert!(plan.offsets.is_empty());
    assert_eq!(plan.holds[0].reason, "redis is away");
}

#[test]
fn what_is_missing_is_written_once() {
    let mut control = ControlState::default();
    let mut seen = observation(3, 100, &[("wh", &[])]);
    let committed = Committed { next: NextOffset::new(5).unwrap(), metadata: String::new() };
    seen.committed.insert(TopicPartition::new("t", 1), committed);
    let changes = missing_records(&members(&["wh"]), &seen, &control, 1);
    apply(&mut control, &changes);
    assert_eq!(control.members().collect::<Vec<_>>(), [("wh", "t")]);
    let copied = |p| control.group_start(&TopicPartition::new("t", p)).unwrap().1;
    assert_eq!([copied(0), copied(1), copied(2)], [None, NextOffset::new(5), None]);
    assert!(control.started("wh", "t").is_none());
    assert!(missing_records(&members(&["wh"]), &seen, &control, 2).is_empty());
}

#[test]
fn a_mark_covers_only_what_has_begun_in_this_topic() {
    let mut control = ControlState::default();
    let at = position(0, "a", 0);
    let mut step = |partitions: i32, positions: &[(i32, Position)]| {
        let seen = observation(partitions, 100, &[("wh", positions)]);
        let changes = missing_records(&members(&["wh"]), &seen, &control, 1);
        apply(&mut control, &changes);
        control.started("wh", "t").map(|shape| shape.partitions)
    };
    let all = [(0, at.clone()), (1, at.clone()), (2, at.clone())];
    assert_eq!(step(0, &[]), None);
    assert_eq!(step(2, &[(1, at.clone())]), None);
    assert_eq!(step(2, &[(0, position(0, "old", 4)), (1, at.clone())]), None);
    assert_eq!(step(2, &all[..1]), None, "one that takes longer to begin is not new");
    assert_eq!(step(2, &all[..2]), Some(2));
    assert_eq!(step(2, &all[..1]), Some(2), "a mark does not shrink");
    assert_eq!(step(4, &all[..2]), Some(2), "two are new");
    assert_eq!(step(4, &all), Some(3));
}

proptest! {
    /// P never rests on a record that a counted sink does not have.
    #[test]
    fn p_is_never_above_any_member(
        positions in proptest::collection::vec(
            (0..3usize, 0..3i32, 0..3u64, prop_oneof![Just("a"), Just("b")], 0..60i64), 0..20
        ),
        rewinds in proptest::collection::vec((0..3usize, 0..3i32, 0..3u64, 0..60i64), 0..4),
    ) {
        let names = ["x", "y", "z"];
        let mut sinks = [(); 3].map(|()| Vec::new());
        for (sink, partition, incarnation, topic, next) in positions {
            sinks[sink].push((partition, position(incarnation, topic, next)));
        }
        let sinks: Vec<(&str, &[(i32, Position)])> =
            names.iter().copied().zip(sinks.iter().map(Vec::as_slice)).collect();
        let seen = observation(3, 50, &sinks);
        let mut control = ControlState::default();
        let changes: Vec<Change> = rewinds
            .into_iter()
            .map(|(sink, partition, incarnation, to)| Change::put(ControlRecord::Rewind {
                sink: names[sink].into(),
                tp: TopicPartition::new("t", partition),
                topic_id: id("a"),
                incarnation: Incarnation(incarnation),
                to: NextOffset::new(to).unwrap(),
                id_generation: 0,
                accept_new_topic: false,
                reason: String::new(),
                by: String::new(),
                at_ms: 0,
            }))
            .collect();
        apply(&mut control, &changes);
        let plan = plan(&members(&names), &seen, &control);
        for (tp, next) in &plan.offsets {
            prop_assert!(next.get() <= 50);
            for sink in names {
                let at = seen.position(sink, tp).unwrap();
                prop_assert_eq!(at.topic_id.0.as_ref(), "a");
                prop_assert!(*next <= at.next);
            }
        }
        let held: BTreeSet<i32> = plan.holds.iter().map(|hold| hold.partition).collect();
        prop_assert_eq!(held.len() + plan.offsets.len(), 3);
    }
}

#[test]
fn what_is_committed_differs_or_would_expire_and_a_partition_that_waits_keeps_its_offset() {
    let tp = |partition| TopicPartition::new("t", partition);
    let at = |next| NextOffset::new(next).unwrap();
    let committed = |next, metadata: &str| Committed { next: at(next), metadata: metadata.into() };
    let plan = Plan { offsets: [(tp(0), at(5)), (tp(1), at(6))].into(), holds: Vec::new() };
    let stored = [(tp(0), committed(5, "")), (tp(1), committed(9, "")), (tp(2), committed(7, "x"))];
    let stored: CommittedOffsets = stored.into();
    let due = |copied: bool, stale: bool| due(&plan, &stored, |_| copied, |_| stale);
    assert_eq!(due(true, false), [(tp(1), committed(6, ""))].into());
    assert_eq!(
        due(true, true),
        [(tp(0), committed(5, "")), (tp(1), committed(6, "")), (tp(2), committed(7, "x"))].into()
    );
    assert!(due(false, true).is_empty());
}
