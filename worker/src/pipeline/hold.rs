//! Why a partition does not move, and what lets it go on.

use cdc_shared::api::{DirectiveState, HoldReport};
use cdc_shared::control::ControlState;
use cdc_shared::offset::{Position, TopicPartition};
use cdc_shared::schema::{Answer, SchemaQuestion};
use tokio::time::Instant;

use crate::source::start_position::StopCause;

/// What ends a hold.
#[derive(Clone, PartialEq, Debug)]
pub enum Release {
    /// The directive becomes run.
    Directive,
    /// An operator acts: resume, a skip over the offset that waits, a rewind.
    Operator,
    /// Time: the cause is looked at again.
    After(Instant),
    /// A verdict on changes of schema.
    Verdict(Box<Awaited>),
}

/// What a partition waits for that has met a change of schema.
#[derive(Clone, PartialEq, Debug)]
pub struct Awaited {
    /// The changes.
    pub questions: Vec<SchemaQuestion>,
    /// Whether a verdict forbids one of them already: then it waits for its acceptance.
    pub forbidden: bool,
}

/// A partition that does not move.
#[derive(Clone, PartialEq, Debug)]
pub struct Hold {
    /// For health.
    pub report: HoldReport,
    /// What ends it.
    pub release: Release,
    /// Control-topic offset when it began: what was said before does not end it.
    pub since: i64,
    /// Whether the start position must be found anew, because it is the very problem.
    pub resolve: bool,
}

impl Hold {
    /// By directive.
    pub fn directive(state: DirectiveState, reason: &str, since: i64) -> Self {
        let word = if state == DirectiveState::Stop { "stopped" } else { "paused" };
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        Self {
            report: HoldReport {
                code: word.to_owned(),
                message: format!("{word} by an operator{because}"),
                way_out: "cdc resume FILE --sink ID".to_owned(),
                offset: None,
            },
            release: Release::Directive,
            since,
            resolve: false,
        }
    }

    /// A stop by name that the start position met.
    pub fn by_name(cause: StopCause, since: i64) -> Self {
        let way_out = way_out(cause.code).to_owned();
        let report = HoldReport {
            code: cause.code.to_owned(),
            message: cause.message,
            way_out,
            offset: cause.offset,
        };
        Self { report, release: Release::Operator, since, resolve: true }
    }

    /// A stop by name in the middle of delivery.
    pub fn stopped(code: &str, message: String, offset: Option<i64>, since: i64) -> Self {
        let report = HoldReport {
            code: code.to_owned(),
            message,
            way_out: way_out(code).to_owned(),
            offset,
        };
        Self { report, release: Release::Operator, since, resolve: false }
    }

    /// Something that is known to come back.
    pub fn waiting(code: &str, message: String, way_out: &str, until: Instant, since: i64) -> Self {
        let report = HoldReport {
            code: code.to_owned(),
            message,
            way_out: way_out.to_owned(),
            offset: None,
        };
        Self { report, release: Release::After(until), since, resolve: false }
    }

    /// Whether only an operator ends it.
    pub fn needs_operator(&self) -> bool {
        match &self.release {
            Release::Operator => true,
            Release::Verdict(awaited) => awaited.forbidden,
            Release::Directive | Release::After(_) => false,
        }
    }

    /// Whether what an operator wants ends this hold.
    pub fn is_released(&self, wish: &Wish<'_>) -> bool {
        let told = self.is_skipped(wish) || wish.starts_anew();
        match self.release {
            Release::Directive => wish.directive == DirectiveState::Run,
            Release::After(_) => told,
            Release::Verdict(ref awaited) => told || awaited.is_over(wish.control),
            Release::Operator => {
                told || wish.control.resume_offset(wish.sink, &wish.tp.topic) >= self.since
            }
        }
    }

    /// A skip passes a record, and no trouble with the start position itself.
    fn is_skipped(&self, wish: &Wish<'_>) -> bool {
        let (false, Some(offset), Some(position)) =
            (self.resolve, self.report.offset, wish.position)
        else {
            return false;
        };
        wish.control.skip_to(wish.sink, wish.tp, &position.topic_id, offset).is_some()
    }
}

impl Awaited {
    /// A change that is forbidden stays so until it is accepted; those that nobody has judged are
    /// looked at again once one of them is forbidden or all are judged.
    fn is_over(&self, control: &ControlState) -> bool {
        let answers = || self.questions.iter().map(|question| control.schema_answer(question));
        let forbids = |answer| matches!(answer, Answer::Incompatible(_));
        answers().all(|answer| answer == Answer::Passes)
            || (!self.forbidden && answers().any(forbids))
    }
}

/// What an operator wants of a partition, and what is known of it already.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The control topic.
    pub control: &'a ControlState,
    /// The directive in force, which the coordinator may have told before the control topic.
    pub directive: DirectiveState,
    /// The sink.
    pub sink: &'a str,
    /// The partition.
    pub tp: &'a TopicPartition,
    /// Its watermark.
    pub position: Option<&'a Position>,
    /// Offset of the control topic up to which the latest search for the start has seen it.
    pub seen: i64,
}

impl Wish<'_> {
    /// Whether a rewind or a restart asks for a new search for the start, which the last one did
    /// not know.
    pub fn starts_anew(&self) -> bool {
        let restart = self.control.restart_offset(self.sink, Some(&self.tp.topic));
        restart >= self.seen || self.is_rewound()
    }

    fn is_rewound(&self) -> bool {
        let rewind = self.control.rewind(self.sink, self.tp);
        let is_higher = rewind.is_some_and(|(incarnation, _, _)| {
            self.position.is_none_or(|position| incarnation > position.incarnation)
        });
        is_higher && self.control.rewind_offset(self.sink, self.tp) >= self.seen
    }
}

fn way_out(code: &str) -> &'static str {
    match code {
        "topic_recreated" => {
            "cdc rewind FILE --sink ID --topic TOPIC --to beginning --accept-new-topic takes the \
             topic as it is now"
        }
        "log_truncated" => {
            "cdc rewind FILE --sink ID --topic TOPIC --to beginning, or end, goes on in the log as \
             it is now"
        }
        "offset_gap" => {
            "cdc rewind FILE --sink ID --topic TOPIC --partition N --to beginning goes on behind \
             the gap; then take a new snapshot of the table (cdc snapshot FILE --table), or have a \
             mirror put right, which also removes what went in the gap (cdc resync FILE --sink ID \
             --table)"
        }
        "position_lost" | "group_expired" | "commit_without_identity" => {
            "cdc rewind FILE --sink ID --topic TOPIC --to beginning|end|OFFSET says where to go on"
        }
        "breaker" => "mend the cause, then cdc resume FILE --sink ID",
        _ => {
            "mend the cause and cdc resume FILE --sink ID, or cdc skip FILE --sink ID --topic \
             TOPIC --partition N --offset OFFSET gives the record up"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::api::Directive;
    use cdc_shared::control::ControlRecord;
    use cdc_shared::offset::{Incarnation, NextOffset, SchemaIds, TopicId};
    use cdc_shared::schema::{Acceptance, SchemaVerdict};

    fn position() -> Position {
        Position {
            next: NextOffset::after(6),
            incarnation: Incarnation(1),
            topic_id: TopicId("id".into()),
            schemas: SchemaIds::default(),
        }
    }

    fn state(records: &[ControlRecord]) -> ControlState {
        let mut state = ControlState::default();
        for (offset, record) in records.iter().enumerate() {
            let value = serde_json::to_vec(record).unwrap();
            state.apply(offset as i64, &record.key(), Some(&value)).unwrap();
        }
        state
    }

    fn released(hold: &Hold, records: &[ControlRecord]) -> bool {
        let (tp, position, control) = (TopicPartition::new("t", 0), position(), state(records));
        hold.is_released(&Wish {
            control: &control,
            directive: control.directive("wh", Some("t")).state,
            sink: "wh",
            tp: &tp,
            position: Some(&position),
            seen: 0,
        })
    }

    fn skip(from: i64, to: i64) -> ControlRecord {
        ControlRecord::Skip {
            sink: "wh".into(),
            tp: TopicPartition::new("t", 0),
            topic_id: TopicId("id".into()),
            from,
            to,
            reason: String::new(),
            by: "op".into(),
            at_ms: 0,
        }
    }

    #[test]
    fn a_stop_by_name_ends_by_resume_skip_or_rewind_only() {
        let hold = Hold::stopped("rejected_record", String::new(), Some(7), 0);
        let resume = |sink: &str| ControlRecord::Resume {
            sink: sink.into(),
            topic: None,
            by: "op".into(),
            at_ms: 0,
        };
        let rewind = |incarnation| ControlRecord::Rewind {
            sink: "wh".into(),
            tp: TopicPartition::new("t", 0),
            topic_id: TopicId("id".into()),
            incarnation: Incarnation(incarnation),
            to: NextOffset::ZERO,
            id_generation: 0,
            accept_new_topic: false,
            reason: String::new(),
            by: "op".into(),
            at_ms: 0,
        };
        assert!(!released(&hold, &[]));
        assert!(!released(&hold, &[resume("other"), skip(3, 7), rewind(1)]));
        assert!(released(&hold, &[resume("wh")]));
        assert!(released(&hold, &[skip(7, 8)]));
        assert!(released(&hold, &[rewind(2)]));
        let later = Hold { since: 1, ..hold };
        assert!(!released(&later, &[resume("wh")]), "an old resume does not end a new stop");
    }

    #[test]
    fn a_change_of_schema_is_released_by_a_verdict_and_where_it_forbids_by_its_acceptance() {
        let question =
            |subject: &str| SchemaQuestion { subject: subject.into(), previous: Some(1), this: 2 };
        let hold = |forbidden| {
            let questions = vec![question("t-key"), question("t-value")];
            let release = Release::Verdict(Box::new(Awaited { questions, forbidden }));
            Hold { release, ..Hold::stopped("x", String::new(), Some(7), 0) }
        };
        let verdict = |subject: &str, compatible, accepted| {
            let by = Acceptance { by: "op".into(), at_ms: 0, reason: String::new() };
            let verdict = SchemaVerdict {
                subject: subject.into(),
                previous: 1,
                this: 2,
                previous_version: None,
                this_version: None,
                compatible,
                changes: Vec::new(),
                registry_compatible: None,
                at_ms: 0,
                accepted: if accepted { Some(by) } else { None },
            };
            ControlRecord::SchemaVerdict { verdict }
        };
        let (key, value) = (verdict("t-key", true, false), verdict("t-value", true, false));
        let forbids = verdict("t-value", false, false);
        let accepted = verdict("t-value", false, true);
        assert!(!released(&hold(false), &[]));
        assert!(!released(&hold(false), std::slice::from_ref(&key)), "the other is open");
        assert!(released(&hold(false), &[key.clone(), value]));
        assert!(released(&hold(false), std::slice::from_ref(&forbids)), "to be told of it");
        assert!(!released(&hold(true), &[key.clone(), forbids]));
        assert!(released(&hold(true), &[key, accepted]));
        assert!(released(&hold(true), &[skip(7, 8)]));
    }

    #[test]
    fn a_pause_ends_with_its_directive() {
        let hold = Hold::directive(DirectiveState::Pause, "deploy", 0);
        let directive = |state| ControlRecord::Directive {
            sink: "wh".into(),
            topic: None,
            directive: Directive { state, reason: String::new() },
            by: "op".into(),
            at_ms: 0,
        };
        assert!(!released(&hold, &[directive(DirectiveState::Pause)]));
        assert!(released(&hold, &[directive(DirectiveState::Run)]));
    }
}
