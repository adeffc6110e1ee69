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
