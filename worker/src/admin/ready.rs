//! Whether the worker is ready: a pure rule over a snapshot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::api::{PartitionReport, PartitionState, WorkerState};
use cdc_shared::config::SinkType;
use cdc_shared::offset::{NextOffset, TopicPartition};
use serde::Serialize;

use super::POLL_LIMIT_MS;
use crate::status::Status;

/// Records that nothing holds and nothing tries for so long make a worker not ready. Longer than
/// any batch stays open.
pub const STALL_LIMIT: Duration = Duration::from_secs(300);

/// One reason against.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reason {
    /// Stable code.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}

/// What the rule looks at.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own in the rule's table")]
pub struct Snapshot {
    /// The process as one word.
    pub state: WorkerState,
    /// The group was joined once.
    pub joined: bool,
    /// The control topic was read to its end once.
    pub control_read: bool,
    /// The sink took us once.
    pub proven: bool,
    /// Only a first delivery proves this sink, there was none, and records wait that nothing
    /// holds.
    pub first_delivery_due: bool,
    /// Since the consumer thread's last turn, in milliseconds; `None` before its first.
    pub since_poll_ms: Option<i64>,
    /// Partitions whose records wait though nothing holds them, and for how long.
    pub stalled: Vec<(TopicPartition, Duration)>,
}

impl Snapshot {
    /// The facts as they are now.
    pub fn take(status: &Status, sink_type: SinkType, stalls: &StallWatch) -> Self {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let partitions = status.partitions();
        let last_poll = status.last_poll_ms.load(Ordering::Relaxed);
        let now_ms = jiff::Timestamp::now().as_millisecond();
        Self {
            state: status.state(),
            joined: is(&status.joined),
            control_read: is(&status.control_read),
            proven: is(&status.proven),
            first_delivery_due: sink_type == SinkType::Webhook
                && !is(&status.delivered_once)
                && partitions.iter().any(waits_freely),
            since_poll_ms: (last_poll > 0).then(|| now_ms - last_poll),
            stalled: stalls.observe(&partitions, Instant::now()),
        }
    }
}

/// Records wait, and neither a hold nor a directive keeps them.
fn waits_freely(partition: &PartitionReport) -> bool {
    partition.queue_depth > 0
        && partition.hold.is_none()
        && matches!(partition.state, PartitionState::Running | PartitionState::Degraded)
}

/// The reason against being alive: the consumer thread takes no turns.
pub(super) fn polling(snapshot: &Snapshot) -> Option<Reason> {
    let since = snapshot.since_poll_ms.filter(|since| *since > POLL_LIMIT_MS)?;
    Some(Reason {
        code: "polling_dead",
        message: format!("the consumer thread took no turn for {} s", since / 1000),
    })
}

/// Every reason against being ready; ready when there is none.
///
/// | once since the start          | later                                         | ready |
/// |-------------------------------|-----------------------------------------------|-------|
/// | joined, control read, proven  | running, degraded, standby, paused, held      | yes   |
/// | control read, proven          | stopped by directive (it may not join)        | yes   |
/// | one of them missing           | any                                           | no    |
/// | webhook without a first 2xx   | records wait that nothing holds               | no    |
/// | any                           | draining, polling dead, records wait untried  | no    |
pub fn reasons_against(snapshot: &Snapshot) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut against = |is: bool, code, message: &str| {
        if is {
            reasons.push(Reason { code, message: message.to_owned() });
        }
    };
    let stopped = snapshot.state == WorkerState::Stopped;
    against(snapshot.state == WorkerState::Draining, "draining", "leaving after a signal");
    against(!snapshot.control_read, "control_unread", "the control topic was not read to its end");
    against(!snapshot.joined && !stopped, "not_joined", "the consumer group was not joined");
    against(!snapshot.proven, "sink_unproven", "the sink did not take us yet");
    against(
        snapshot.first_delivery_due,
        "first_delivery_due",
        "records wait and the receiver has not answered any with 2xx",
    );
    reasons.extend(polling(snapshot));
    reasons.extend(snapshot.stalled.iter().filter(|(_, time)| *time > STALL_LIMIT).map(
        |(tp, time)| Reason {
            code: "records_untried",
            message: format!(
                "{tp}: records wait for {} s though nothing holds them",
                time.as_secs()
            ),
        },
    ));
    reasons
}

/// Remembers since when a partition's records wait without moving.
#[derive(Debug, Default)]
pub struct StallWatch {
    since: Mutex<HashMap<TopicPartition, (Option<NextOffset>, Instant)>>,
}

impl StallWatch {
    /// Takes the reports at `now`; answers the partitions that wait and for how long the same
    /// record has been the first to wait.
    pub fn observe(
        &self,
        partitions: &[PartitionReport],
        now: Instant,
    ) -> Vec<(TopicPartition, Duration)> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut *since);
        let mut stalled = Vec::new();
        for report in partitions {
            // A degraded partition is being tried.
            if !waits_freely(report) || report.state == PartitionState::Degraded {
                continue;
            }
            let tp = TopicPartition::new(report.topic.as_str(), report.partition);
            let next = report.position.as_ref().map(|position| position.next);
            let (_, start) =
                known.remove(&tp).filter(|(was, _)| *was == next).unwrap_or((next, now));
            stalled.push((tp.clone(), now.saturating_duration_since(start)));
            since.insert(tp, (next, start));
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::api::HoldReport;
    use cdc_shared::offset::{Incarnation, Position, SchemaIds, TopicId};

    fn ready() -> Snapshot {
        Snapshot {
            state: WorkerState::Running,
            joined: true,
            control_read: true,
            proven: true,
            first_delivery_due: false,
            since_poll_ms: Some(100),
            stalled: Vec::new(),
        }
    }

    fn codes(snapshot: &Snapshot) -> Vec<&'static str> {
        reasons_against(snapshot).into_iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn once_proven_only_leaving_stalling_and_a_dead_poll_count() {
        use WorkerState::{Degraded, Draining, Paused, Running, Standby, Stopped};
        for state in [Running, Standby, Degraded, Paused, Stopped] {
            assert_eq!(codes(&Snapshot { state, ..ready() }), [""; 0], "{state:?}");
        }
        let tp = TopicPartition::new("t", 0);
        let table = [
            (Snapshot { state: Draining, ..ready() }, vec!["draining"]),
            (Snapshot { since_poll_ms: Some(POLL_LIMIT_MS), ..ready() }, vec![]),
            (Snapshot { since_poll_ms: Some(POLL_LIMIT_MS + 1), ..ready() }, vec!["polling_dead"]),
            (Snapshot { stalled: vec![(tp.clone(), STALL_LIMIT)], ..ready() }, vec![]),
            (Snapshot { stalled: vec![(tp, STALL_LIMIT * 2)], ..ready() }, vec!["records_untried"]),
        ];
        for (snapshot, expected) in table {
            assert_eq!(codes(&snapshot), expected, "{snapshot:?}");
        }
    }

    #[test]
    fn before_that_each_missing_proof_is_named() {
        let state = WorkerState::Starting;
        let fresh = Snapshot {
            state,
            joined: false,
            control_read: false,
            proven: false,
            since_poll_ms: None,
            ..ready()
        };
        assert_eq!(codes(&fresh), ["control_unread", "not_joined", "sink_unproven"]);
        assert_eq!(codes(&Snapshot { state, proven: false, ..ready() }), ["sink_unproven"]);
        assert_eq!(
            codes(&Snapshot { first_delivery_due: true, ..ready() }),
            ["first_delivery_due"]
        );
        let stopped = Snapshot { state: WorkerState::Stopped, joined: false, ..ready() };
        assert_eq!(codes(&stopped), [""; 0], "a stopped sink may not join");
        let unproven = Snapshot { proven: false, ..stopped };
        assert_eq!(codes(&unproven), ["sink_unproven"]);
    }

    fn report(state: PartitionState, next: i64, queue_depth: u64) -> PartitionReport {
        PartitionReport {
            topic: "t".into(),
            partition: 0,
            position: Some(Position {
                next: NextOffset::new(next).unwrap(),
                incarnation: Incarnation(0),
                topic_id: TopicId("id".into()),
                schemas: SchemaIds::default(),
            }),
            state,
            hold: None,
            queue_depth,
            last_flush_ms: None,
            next_source_ms: None,
        }
    }

    #[test]
    fn a_webhook_must_deliver_once_if_records_wait_freely() {
        let status = Status::default();
        let tp = TopicPartition::new("t", 0);
        let due = |report, sink_type| {
            status.report(&tp, report);
            Snapshot::take(&status, sink_type, &StallWatch::default()).first_delivery_due
        };
        let webhook = SinkType::Webhook;
        assert!(due(report(PartitionState::Running, 0, 1), webhook));
        assert!(due(report(PartitionState::Degraded, 0, 1), webhook));
        assert!(!due(report(PartitionState::Running, 0, 0), webhook), "caught up");
        assert!(!due(report(PartitionState::Paused, 0, 1), webhook), "held");
        assert!(!due(report(PartitionState::Running, 0, 1), SinkType::Postgres));
        let hold = HoldReport {
            code: "dlq_topic_missing".into(),
            message: String::new(),
            way_out: String::new(),
            offset: None,
        };
        let stuck = PartitionReport { hold: Some(hold), ..report(PartitionState::Running, 0, 1) };
        assert!(!due(stuck, webhook), "held");
        status.delivered_once.store(true, Ordering::Relaxed);
        assert!(!due(report(PartitionState::Running, 0, 1), webhook), "once is enough");
    }

    #[test]
    fn waiting_is_counted_from_the_last_move() {
        let watch = StallWatch::default();
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let at = |minutes: u32, report| {
            let seen = watch.observe(&[report], start + minute * minutes);
            seen.first().map(|(_, time)| time.as_secs() / 60)
        };
        let running = PartitionState::Running;
        assert_eq!(at(0, report(running, 5, 3)), Some(0));
        assert_eq!(at(2, report(running, 5, 9)), Some(2), "more records do not help");
        assert_eq!(at(3, report(running, 6, 9)), Some(0), "it moved");
        assert_eq!(at(9, report(PartitionState::Degraded, 6, 9)), None, "it is being tried");
        assert_eq!(at(10, report(running, 6, 9)), Some(0));
        assert_eq!(at(11, report(running, 6, 0)), None, "nothing waits");
    }
}
