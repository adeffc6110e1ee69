//! Finds a partition's start: gathers the evidence, asks the rule, writes the answer down before
//! the first delivery. Unreadable is not absent: whatever cannot be read is asked again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_shared::config::StartPosition;
use cdc_shared::control::ControlState;
use cdc_shared::offset::{Position, TopicPartition};
use tokio::sync::oneshot;

use super::Shared;
use crate::sink::{Disposition, SinkError};
use crate::source::consumer::SourceCommand;
use crate::source::slots::ProgressCell;
use crate::source::start_position::{Committed, Decision, Evidence, StopCause, decide};

/// Pause between two attempts to read something.
const PAUSE: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Debug)]
pub enum Resolved {
    /// Go on from here, in a topic of so many partitions.
    From(Position, i32),
    /// Stop by name.
    Stop(StopCause),
    /// Not yet: this cannot be read, or is not there yet.
    Wait {
        /// Stable code.
        code: String,
        /// What cannot be read.
        message: String,
        /// What ends it.
        way_out: &'static str,
    },
    /// The process must end.
    Fatal(SinkError),
}

/// Which partition, and what is known of it already.
#[derive(Clone, Debug)]
pub struct Question {
    /// The partition.
    pub tp: TopicPartition,
    /// Of which assignment.
    pub epoch: u64,
    /// What this process last knew to be durable.
    pub last: Option<Position>,
    /// Partitions of its topic, once asked.
    pub partitions: i32,
    /// Offset of the control topic up to which the latest search for the start has seen it.
    pub seen: i64,
    /// Where to publish the answer for group S.
    pub progress: ProgressCell,
}

fn wait(code: &str, message: String, way_out: &'static str) -> Resolved {
    Resolved::Wait { code: code.to_owned(), message, way_out }
}

/// Finds the start. Ends with [`Resolved::Wait`] after one failed attempt; the caller shows it and
/// asks again.
pub async fn resolve(shared: &Shared, question: &Question) -> Resolved {
    let mut proven = shared.proven.clone();
    if !*proven.borrow() {
        let error = shared.status.last_error();
        if tokio::time::timeout(PAUSE, proven.wait_for(|proven| *proven)).await.is_err() {
            let (code, message) = error.map_or(
                ("sink_unproven".to_owned(), "connecting to the sink".to_owned()),
                |error| (error.code, error.message),
            );
            return wait(&code, message, "make the sink reachable; this is tried again");
        }
    }
    let (evidence, partitions) = match gather(shared, question).await {
        Ok(gathered) => gathered,
        Err(resolved) => return resolved,
    };
    match decide(&evidence) {
        Decision::Stop(cause) => Resolved::Stop(cause),
        Decision::AwaitGroup => wait(
            "awaiting_group",
            "start: group needs the coordinator's copy of the pipeline group's position".to_owned(),
            "start the coordinator",
        ),
        Decision::From { position, record, alarm } => {
            match settle(shared, question, &evidence, position, record, alarm).await {
                Ok(position) => Resolved::From(position, partitions),
                Err(resolved) => resolved,
            }
        }
    }
}

async fn gather(shared: &Shared, question: &Question) -> Result<(Evidence, i32), Resolved> {
    let tp = &question.tp;
    let facts = shared.probe.facts(tp).await.map_err(|error| {
        wait("kafka_unreadable", error.to_string(), "make Kafka reachable; this is tried again")
    })?;
    let own = if shared.sink.keeps_position() {
        Some(shared.sink.read_position(tp).await.map_err(sink_error)?)
    } else {
        None
    };
    let committed = match (own.is_some(), &question.last) {
        (true, Some(last)) => newer(facts.committed, last),
        (false, Some(last)) => Committed::Present(last.clone()),
        (_, None) => facts.committed,
    };
    let control = shared.control.borrow().state.clone();
    let shape = control.started(&shared.sink_id, &tp.topic);
    let started = shape
        .is_some_and(|shape| shape.topic_id == facts.topic_id && tp.partition < shape.partitions);
    let mut evidence = Evidence {
        topic_id: facts.topic_id,
        low: facts.low,
        high: facts.high,
        own,
        committed,
        watermark: None,
        rewind: control
            .rewind(&shared.sink_id, tp)
            .map(|(incarnation, topic_id, to)| (incarnation, topic_id.clone(), to)),
        accepts_topic: control.accepts_new_topic(&shared.sink_id, tp),
        started,
        topic_known: shape.is_some(),
        start: shared.start,
        group: None,
    };
    if needs_watermark(&evidence) {
        evidence.watermark = watermark(shared, tp).await?;
    }
    if shared.start == StartPosition::Group {
        evidence.group = group_start(&control, tp);
    }
    Ok((evidence, facts.partitions))
}

fn newer(committed: Committed, last: &Position) -> Committed {
    match committed {
        Committed::Present(s) if (s.incarnation, s.next) >= (last.incarnation, last.next) => {
            Committed::Present(s)
        }
        _ => Committed::Present(last.clone()),
    }
}

/// Redis is asked only when nothing nearer knows: a worker that has a position needs no
/// coordinator. A rewind knows, unless it was for a topic that is gone.
fn needs_watermark(evidence: &Evidence) -> bool {
    let own_present = matches!(&evidence.own, Some(Some(_)));
    let is_rewound =
        evidence.rewind.as_ref().is_some_and(|(_, topic_id, _)| *topic_id == evidence.topic_id);
    !own_present && evidence.committed == Committed::Absent && !is_rewound
}

fn group_start(
    control: &ControlState,
    tp: &TopicPartition,
) -> Option<(cdc_shared::offset::TopicId, Option<cdc_shared::offset::NextOffset>)> {
    control.group_start(tp).map(|(topic_id, offset)| (topic_id.clone(), offset))
}

async fn watermark(shared: &Shared, tp: &TopicPartition) -> Result<Option<Position>, Resolved> {
    let answer = shared.coordinator.watermarks(&shared.sink_id).await.map_err(|error| {
        wait(
            "watermark_unreadable",
            format!(
                "neither the sink nor its consumer group knows a position, and the watermark \
                 cannot be read: {error}"
            ),
            "start the coordinator and Redis; this is tried again",
        )
    })?;
    let entry = answer
        .entries
        .into_iter()
        .find(|entry| *entry.topic == *tp.topic && entry.partition == tp.partition);
    Ok(entry.map(|entry| entry.position))
}

fn sink_error(error: SinkError) -> Resolved {
    if error.disposition == Disposition::Fatal {
        return Resolved::Fatal(error);
    }
    let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    wait(
        &error.code,
        format!("{}{hint}", error.message),
        "make the sink reachable and its position readable; this is tried again",
    )
}

/// Writes the start where it must stand before the first delivery: the sink's own record, or
/// group S for a sink that keeps none.
async fn settle(
    shared: &Shared,
    question: &Question,
    evidence: &Evidence,
    position: Position,
    record: bool,
    alarm: bool,
) -> Result<Position, Resolved> {
    let tp = &question.tp;
    if alarm {
        shared.status.went_back.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%tp, next = position.next.get(), incarnation = position.incarnation.0,
            "the sink was found behind itself (restored from a backup?): delivering again from \
             its own record");
    }
    if record {
        let expected = evidence.own.as_ref().and_then(Option::as_ref);
        match shared.sink.replace_position(tp, expected, &position).await {
            Ok(true) => {}
            Ok(false) => return Err(again()),
            Err(error) => return Err(sink_error(error)),
        }
    }
    question.progress.set(position.clone());
    if !shared.sink.keeps_position() && evidence.committed != Committed::Present(position.clone()) {
        commit_start(shared, question).await?;
    }
    Ok(position)
}

fn again() -> Resolved {
    wait(
        "position_moved",
        "another worker wrote the sink's record; reading it again".to_owned(),
        "",
    )
}

async fn commit_start(shared: &Shared, question: &Question) -> Result<(), Resolved> {
    let (reply, answer) = oneshot::channel();
    let (tp, epoch) = (question.tp.clone(), question.epoch);
    shared.source.send(SourceCommand::Commit { tp, epoch, reply });
    let reason = match answer.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the consumer has ended".to_owned(),
    };
    Err(wait(
        "start_uncommitted",
        format!("the start of {} could not be committed: {reason}", question.tp),
        "make Kafka reachable; this is tried again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::offset::{Incarnation, NextOffset, TopicId};

    #[test]
    fn a_rewind_of_another_topic_does_not_replace_the_watermark() {
        let needs = |rewind: Option<&str>| {
            needs_watermark(&Evidence {
                topic_id: TopicId("new".into()),
                low: 0,
                high: 9,
                own: None,
                committed: Committed::Absent,
                watermark: None,
                rewind: rewind.map(|id| (Incarnation(2), TopicId(id.into()), NextOffset::ZERO)),
                accepts_topic: false,
                started: true,
                topic_known: true,
                start: StartPosition::Beginning,
                group: None,
            })
        };
        assert!(needs(None));
        assert!(!needs(Some("new")), "the rewind says where to go on");
        assert!(needs(Some("old")), "it has no effect on this topic");
    }
}
