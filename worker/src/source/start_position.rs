//! Where a sink goes on with a partition: a pure rule over everything that is known (`DESIGN`
//! §2.1, §2.2).
//!
//! | own record | committed(S) | watermark W | outcome |
//! |---|---|---|---|
//! | of another topic | any | any | stop: `topic_recreated` |
//! | present | none, same or behind | – | own record |
//! | present | same topic, ahead (offset or incarnation) | – | the sink went back: own record in a new incarnation, alarm |
//! | absent, though S, W or a started mark exists | | | stop: `position_lost` |
//! | absent | absent | absent | `start` of the sink |
//! | not kept | without identity | any | stop: `commit_without_identity` |
//! | not kept | of another topic | any | stop: `topic_recreated` |
//! | not kept | present | – | committed(S) |
//! | not kept | absent | of another topic | stop: `topic_recreated` |
//! | not kept | absent | present | W |
//! | not kept | absent | absent, started | stop: `group_expired` |
//! | not kept | absent | absent, not started | `start` of the sink |
//!
//! A rewind in the control topic stands above all of them: progress of a lower incarnation is
//! ignored, and progress in another topic where the operator has accepted the new one. A position below the log's first offset is a gap,
//! one beyond its end means that the log was cut; both stop by name with the numbers. Unreadable
//! is not absent: the caller waits before it asks this rule.

use cdc_shared::config::StartPosition;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId};

/// What group S holds for a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Committed {
    /// Nothing.
    Absent,
    /// An offset that we did not commit: it says nothing about the topic it counts in.
    WithoutIdentity(i64),
    /// Ours.
    Present(Position),
}

/// Everything the rule looks at, for one partition.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The live topic.
    pub topic_id: TopicId,
    /// First offset in the log.
    pub low: i64,
    /// End of the log (the last stable offset).
    pub high: i64,
    /// The sink's own record; outer `None`: the sink keeps none.
    pub own: Option<Option<Position>>,
    /// Group S.
    pub committed: Committed,
    /// The coordinator's watermark.
    pub watermark: Option<Position>,
    /// A rewind in force: incarnation, topic, where to.
    pub rewind: Option<(Incarnation, TopicId, NextOffset)>,
    /// Whether that rewind passes over progress in another topic of this name.
    pub accepts_topic: bool,
    /// Whether the sink has begun on this very partition before.
    pub started: bool,
    /// Whether the sink has begun on other partitions of the topic before.
    pub topic_known: bool,
    /// `start` of the sink.
    pub start: StartPosition,
    /// For `start: group`: the copied position of P; outer `None`: not copied yet.
    pub group: Option<(TopicId, Option<NextOffset>)>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Go on from here. `record`: write it to the sink's own record first (by compare-and-set
    /// against what was read). `alarm`: the sink was found behind itself.
    From {
        /// The position.
        position: Position,
        /// Whether the sink's own record must be written first.
        record: bool,
        /// Whether an operator must hear of it.
        alarm: bool,
    },
    /// Not yet: the coordinator has not copied P.
    AwaitGroup,
    /// Stop by name.
    Stop(StopCause),
}

/// Why a partition cannot go on without an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StopCause {
    /// Stable code.
    pub code: &'static str,
    /// Exact names and numbers.
    pub message: String,
    /// First offset that waits, if there is one.
    pub offset: Option<i64>,
}

fn stop(code: &'static str, message: String, offset: Option<i64>) -> Decision {
    Decision::Stop(StopCause { code, message, offset })
}

/// Decides; see the table above.
pub fn decide(evidence: &Evidence) -> Decision {
    let floor = evidence
        .rewind
        .as_ref()
        .filter(|(_, topic_id, _)| *topic_id == evidence.topic_id)
        .map(|(incarnation, _, to)| (*incarnation, *to));
    let decision = match &evidence.own {
        Some(own) => decide_kept(evidence, own.as_ref(), floor),
        None => decide_unkept(evidence, floor),
    };
    check_log(evidence, decision)
}

/// Whether progress stands in the way of a rewind, or is passed over by it. The incarnations of
/// another topic say nothing: who lost Kafka lost the count with it.
fn counts(
    evidence: &Evidence,
    position: &Position,
    floor: Option<(Incarnation, NextOffset)>,
) -> bool {
    match floor {
        None => true,
        Some(_) if position.topic_id != evidence.topic_id => !evidence.accepts_topic,
        Some((incarnation, _)) => position.incarnation >= incarnation,
    }
}

/// In an incarnation above all that is known: a new topic's rewind may have a lower one.
fn rewound(evidence: &Evidence, (incarnation, to): (Incarnation, NextOffset)) -> Decision {
    let committed = match &evidence.committed {
        Committed::Present(position) => Some(position),
        Committed::Absent | Committed::WithoutIdentity(_) => None,
    };
    let known = [evidence.own.as_ref().and_then(Option::as_ref), committed];
    let known = known.into_iter().flatten().chain(&evidence.watermark);
    let former = known.filter(|position| position.topic_id != evidence.topic_id);
    let above = former.map(|position| position.incarnation.next()).max();
    let position = Position {
        next: to,
        incarnation: above.map_or(incarnation, |above| above.max(incarnation)),
        topic_id: evidence.topic_id.clone(),
        schemas: SchemaIds::default(),
    };
    Decision::From { position, record: evidence.own.is_some(), alarm: false }
}

fn decide_kept(
    evidence: &Evidence,
    own: Option<&Position>,
    floor: Option<(Incarnation, NextOffset)>,
) -> Decision {
    if let Some(own) = own.filter(|own| counts(evidence, own, floor)) {
        if own.topic_id != evidence.topic_id {
            return recreated(evidence, own);
        }
        return match &evidence.committed {
            Committed::Present(s) if s.topic_id == own.topic_id && ahead(s, own) => {
                let incarnation = own.incarnation.max(s.incarnation).next();
                let position = Position { incarnation, ..own.clone() };
                Decision::From { position, record: true, alarm: true }
            }
            _ => Decision::From { position: own.clone(), record: false, alarm: false },
        };
    }
    if let Some(floor) = floor {
        return rewound(evidence, floor);
    }
    let known = evidence.started
        || evidence.watermark.is_some()
        || !matches!(evidence.committed, Committed::Absent);
    if known {
        let seen = match (&evidence.committed, &evidence.watermark) {
            (Committed::Present(position), _) | (_, Some(position)) => {
                format!(" (it had reached offset {})", position.next)
            }
            _ => String::new(),
        };
        let message = format!("the sink's own record of progress is gone{seen}");
        return stop("position_lost", message, None);
    }
    by_start(evidence, true)
}

/// Whether S proves that the sink once was further than it says now.
fn ahead(s: &Position, own: &Position) -> bool {
    (s.incarnation, s.next) > (own.incarnation, own.next)
}

fn decide_unkept(evidence: &Evidence, floor: Option<(Incarnation, NextOffset)>) -> Decision {
    match &evidence.committed {
        Committed::Present(s) if counts(evidence, s, floor) => from_record(evidence, s),
        Committed::WithoutIdentity(offset) if floor.is_none() => stop(
            "commit_without_identity",
            format!(
                "the sink's consumer group holds offset {offset}, which no worker of ours committed"
            ),
            Some(*offset),
        ),
        _ => match (&evidence.watermark, floor) {
            (Some(w), _) if counts(evidence, w, floor) => from_record(evidence, w),
            (_, Some(floor)) => rewound(evidence, floor),
            (_, None) if evidence.started => stop(
                "group_expired",
                "the sink has delivered from this partition before, but neither its consumer \
                 group nor the watermark store knows how far"
                    .to_owned(),
                None,
            ),
            (_, None) => by_start(evidence, false),
        },
    }
}

fn from_record(evidence: &Evidence, position: &Position) -> Decision {
    if position.topic_id == evidence.topic_id {
        Decision::From { position: position.clone(), record: false, alarm: false }
    } else {
        recreated(evidence, position)
    }
}

fn recreated(evidence: &Evidence, position: &Position) -> Decision {
    let message = format!(
        "the topic was deleted and created again: progress is offset {} of topic id {}, the topic \
         now has id {} and offsets {} to {}",
        position.next, position.topic_id, evidence.topic_id, evidence.low, evidence.high
    );
    stop("topic_recreated", message, Some(position.next.get()))
}

fn by_start(evidence: &Evidence, record: bool) -> Decision {
    let next = if evidence.topic_known {
        evidence.low
    } else {
        match evidence.start {
            StartPosition::Beginning => evidence.low,
            StartPosition::Now => evidence.high,
            StartPosition::Group => match &evidence.group {
                None => return Decision::AwaitGroup,
                Some((topic_id, _)) if *topic_id != evidence.topic_id => {
                    let message = format!(
                        "start: group would take over offsets of topic id {topic_id}, the topic \
                         now has id {}",
                        evidence.topic_id
                    );
                    return stop("topic_recreated", message, None);
                }
                Some((_, offset)) => offset.map_or(evidence.low, NextOffset::get),
            },
        }
    };
    let position = Position {
        next: NextOffset::new(next).unwrap_or(NextOffset::ZERO),
        incarnation: Incarnation::default(),
        topic_id: evidence.topic_id.clone(),
        schemas: SchemaIds::default(),
    };
    Decision::From { position, record, alarm: false }
}

fn check_log(evidence: &Evidence, decision: Decision) -> Decision {
    let Decision::From { position, .. } = &decision else { return decision };
    let next = position.next.get();
    if next < evidence.low {
        let (from, to) = (next, evidence.low - 1);
        let message = format!(
            "offsets {from} to {to} are gone from the log, which now begins at {}",
            evidence.low
        );
        return stop("offset_gap", message, Some(next));
    }
    if next > evidence.high {
        let message =
            format!("progress is offset {next}, but the log ends at {}: it was cut", evidence.high);
        return stop("log_truncated", message, Some(next));
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: i64, incarnation: u64, topic: &str) -> Position {
        Position {
            next: NextOffset::new(next).unwrap(),
            incarnation: Incarnation(incarnation),
            topic_id: TopicId(topic.into()),
            schemas: SchemaIds::default(),
        }
    }

    fn evidence() -> Evidence {
        Evidence {
            topic_id: TopicId("live".into()),
            low: 10,
            high: 100,
            own: None,
            committed: Committed::Absent,
            watermark: None,
            rewind: None,
            accepts_topic: false,
            started: false,
            topic_known: false,
            start: StartPosition::Beginning,
            group: None,
        }
    }

    fn from(position: Position, record: bool, alarm: bool) -> Decision {
        Decision::From { position, record, alarm }
    }

    #[track_caller]
    fn stops(evidence: &Evidence, code: &str) -> StopCause {
        match decide(evidence) {
            Decision::Stop(cause) => {
                assert_eq!(cause.code, code, "{}", cause.message);
                cause
            }
            other => panic!("expected {code}, got {other:?}"),
        }
    }

    #[test]
    fn own_record_stands_above_the_group() {
        let own = at(50, 1, "live");
        for (s, expected) in [
            (Committed::Absent, from(own.clone(), false, false)),
            (Committed::Present(at(50, 1, "live")), from(own.clone(), false, false)),
            (Committed::Present(at(40, 1, "live")), from(own.clone(), false, false)),
            (Committed::Present(at(60, 0, "live")), from(own.clone(), false, false)),
            (Committed::Present(at(60, 1, "live")), from(at(50, 2, "live"), true, true)),
            (Committed::Present(at(20, 4, "live")), from(at(50, 5, "live"), true, true)),
            (Committed::Present(at(60, 1, "other")), from(own.clone(), false, false)),
            (Committed::WithoutIdentity(60), from(own.clone(), false, false)),
        ] {
            let case = Evidence { own: Some(Some(own.clone())), committed: s, ..evidence() };
            assert_eq!(decide(&case), expected, "{case:?}");
        }
    }

    #[test]
    fn a_lost_own_record_never_starts_over() {
        let absent = Evidence { own: Some(None), ..evidence() };
        assert_eq!(decide(&absent), from(at(10, 0, "live"), true, false));
        stops(&Evidence { started: true, ..absent.clone() }, "position_lost");
        let w = Evidence { watermark: Some(at(50, 0, "live")), ..absent.clone() };
        assert!(stops(&w, "position_lost").message.contains("50"));
        let s = Evidence { committed: Committed::Present(at(7, 0, "live")), ..absent.clone() };
        stops(&s, "position_lost");
        stops(&Evidence { committed: Committed::WithoutIdentity(7), ..absent }, "position_lost");
    }

    #[test]
    fn without_an_own_record_the_group_then_the_watermark_then_start() {
        let s = Evidence {
            committed: Committed::Present(at(50, 0, "live")),
            watermark: Some(at(70, 0, "live")),
            ..evidence()
        };
        assert_eq!(decide(&s), from(at(50, 0, "live"), false, false));
        let w = Evidence { committed: Committed::Absent, ..s };
        assert_eq!(decide(&w), from(at(70, 0, "live"), false, false));
        assert_eq!(decide(&evidence()), from(at(10, 0, "live"), false, false));
        stops(&Evidence { started: true, ..evidence() }, "group_expired");
        let foreign = Evidence { committed: Committed::WithoutIdentity(50), ..evidence() };
        stops(&foreign, "commit_without_identity");
    }

    #[test]
    fn start_is_resolved_once_and_new_partitions_begin_at_the_log_start() {
        let now = Evidence { start: StartPosition::Now, ..evidence() };
        assert_eq!(decide(&now), from(at(100, 0, "live"), false, false));
        let added = Evidence { topic_known: true, ..now };
        assert_eq!(decide(&added), from(at(10, 0, "live"), false, false));
        let group = Evidence { start: StartPosition::Group, ..evidence() };
        assert_eq!(decide(&group), Decision::AwaitGroup);
        let with = |id: &str, offset| Evidence {
            group: Some((TopicId(id.into()), offset)),
            ..group.clone()
        };
        let taken = with("live", NextOffset::new(33));
        assert_eq!(decide(&taken), from(at(33, 0, "live"), false, false));
        assert_eq!(decide(&with("live", None)), from(at(10, 0, "live"), false, false));
        stops(&with("other", None), "topic_recreated");
    }

    #[test]
    fn another_topic_is_never_read_with_old_offsets() {
        let s = Committed::Present(at(50, 0, "old"));
        stops(&Evidence { committed: s, ..evidence() }, "topic_recreated");
        stops(&Evidence { watermark: Some(at(50, 0, "old")), ..evidence() }, "topic_recreated");
        stops(&Evidence { own: Some(Some(at(5, 0, "old"))), ..evidence() }, "topic_recreated");
    }

    #[test]
    fn a_rewind_outranks_older_incarnations_only() {
        let rewind = Some((Incarnation(3), TopicId("live".into()), NextOffset::after(29)));
        let base = Evidence { rewind, started: true, ..evidence() };
        let to = at(30, 3, "live");
        assert_eq!(decide(&base), from(to.clone(), false, false));
        let done = Evidence { committed: Committed::Present(at(50, 3, "live")), ..base.clone() };
        assert_eq!(decide(&done), from(at(50, 3, "live"), false, false));
        let kept = Evidence { own: Some(Some(at(50, 2, "live"))), ..base.clone() };
        assert_eq!(decide(&kept), from(to.clone(), true, false));
        let lost = Evidence { own: Some(None), ..base.clone() };
        assert_eq!(decide(&lost), from(to, true, false));
        let foreign = Evidence {
            rewind: Some((Incarnation(3), TopicId("older".into()), NextOffset::after(29))),
            committed: Committed::Present(at(50, 0, "live")),
            ..base
        };
        assert_eq!(decide(&foreign), from(at(50, 0, "live"), false, false));
    }

    #[test]
    fn a_new_topic_is_taken_on_the_operators_word_whatever_was_counted_in_the_old_one() {
        let rewind = Some((Incarnation(1), TopicId("live".into()), NextOffset::after(29)));
        let base = Evidence { rewind, started: true, ..evidence() };
        for incarnation in [0, 1, 7] {
            let old = at(50, incarnation, "old");
            for case in [
                Evidence { committed: Committed::Present(old.clone()), ..base.clone() },
                Evidence { watermark: Some(old.clone()), ..base.clone() },
                Evidence { own: Some(Some(old.clone())), ..base.clone() },
            ] {
                stops(&case, "topic_recreated");
                let accepted = Evidence { accepts_topic: true, ..case };
                let to = at(30, incarnation + 1, "live");
                assert_eq!(decide(&accepted), from(to, accepted.own.is_some(), false));
                // Once done, it is done.
                let done = at(40, incarnation + 1, "live");
                let own = accepted.own.clone().map(|_| Some(done.clone()));
                let committed = Committed::Present(done.clone());
                let again = Evidence { own, committed, watermark: None, ..accepted };
                assert_eq!(decide(&again), from(done, false, false));
            }
        }
    }

    #[test]
    fn gaps_and_cut_logs_stop_with_the_numbers() {
        let gap = Evidence { committed: Committed::Present(at(4, 0, "live")), ..evidence() };
        assert_eq!(
            stops(&gap, "offset_gap").message,
            "offsets 4 to 9 are gone from the log, which now begins at 10"
        );
        let cut = Evidence { committed: Committed::Present(at(101, 0, "live")), ..evidence() };
        stops(&cut, "log_truncated");
        let end = Evidence { committed: Committed::Present(at(100, 0, "live")), ..evidence() };
        assert_eq!(decide(&end), from(at(100, 0, "live"), false, false));
    }
}
