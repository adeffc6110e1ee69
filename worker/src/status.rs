//! What this process knows about itself: written by the tasks, read by heartbeat, `/readyz` and
//! `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdc_shared::api::{Counters, ErrorReport, PartitionReport, PartitionState, WorkerState};
use cdc_shared::dlq::ReplayReport;
use cdc_shared::offset::TopicPartition;
use cdc_shared::schema::SchemaQuestion;
use cdc_shared::task::TaskReport;
use tokio::sync::Notify;

/// Facts about the process.
#[derive(Debug, Default)]
pub struct Status {
    partitions: Mutex<BTreeMap<TopicPartition, PartitionReport>>,
    last_error: Mutex<Option<ErrorReport>>,
    tasks: Mutex<BTreeMap<String, TaskReport>>,
    replays: Mutex<BTreeMap<(String, TopicPartition), ReplayReport>>,
    questions: Mutex<BTreeMap<TopicPartition, Vec<SchemaQuestion>>>,
    /// Something is to be told: it need not wait for the next report's time.
    pub asked: Notify,
    /// Records taken by the sink.
    pub delivered: AtomicU64,
    /// Records without effect.
    pub skipped: AtomicU64,
    /// Records acknowledged by the DLQ topic.
    pub dead_lettered: AtomicU64,
    /// Attempts that failed and were repeated.
    pub retries: AtomicU64,
    /// Records that the Kafka client fetched, each time it did.
    pub fetched: AtomicU64,
    /// Writes that found the sink's position moved by another worker.
    pub moved: AtomicU64,
    /// Partitions whose sink was found behind itself.
    pub went_back: AtomicU64,
    /// Bytes of records held in the process.
    pub buffered_bytes: AtomicU64,
    /// The group was joined once.
    pub joined: AtomicBool,
    /// The control topic was read to its end once.
    pub control_read: AtomicBool,
    /// The sink took us once ([`crate::sink::Sink::prove`]).
    pub proven: AtomicBool,
    /// The sink took a record once, or there was none to take.
    pub delivered_once: AtomicBool,
    /// SIGTERM came.
    pub draining: AtomicBool,
    /// By directive outside the group.
    pub stopped: AtomicBool,
    /// Unix ms of the consumer thread's last turn; 0 before the first.
    pub last_poll_ms: AtomicI64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The values behind these locks are replaced whole, so a panic elsewhere leaves them usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    /// Publishes a partition's state.
    pub fn report(&self, tp: &TopicPartition, report: PartitionReport) {
        locked(&self.partitions).insert(tp.clone(), report);
    }

    /// The partition is not ours any more.
    pub fn forget(&self, tp: &TopicPartition) {
        self.ask(tp, Vec::new());
        locked(&self.partitions).remove(tp);
    }

    /// Every assigned partition.
    pub fn partitions(&self) -> Vec<PartitionReport> {
        locked(&self.partitions).values().cloned().collect()
    }

    /// Whether the partition is assigned to this worker.
    pub fn owns(&self, tp: &TopicPartition) -> bool {
        locked(&self.partitions).contains_key(tp)
    }

    /// Publishes the changes of schema that a partition waits for a verdict on.
    pub fn ask(&self, tp: &TopicPartition, questions: Vec<SchemaQuestion>) {
        if questions.is_empty() {
            locked(&self.questions).remove(tp);
        } else {
            locked(&self.questions).insert(tp.clone(), questions);
            self.asked.notify_one();
        }
    }

    /// Every change of schema that a partition waits for a verdict on, each once.
    pub fn questions(&self) -> Vec<SchemaQuestion> {
        let all: BTreeSet<_> = locked(&self.questions).values().flatten().cloned().collect();
        all.into_iter().collect()
    }

    /// Publishes how a task goes.
    pub fn report_task(&self, report: TaskReport) {
        locked(&self.tasks).insert(report.id.clone(), report);
    }

    /// The task needs no more telling.
    pub fn forget_task(&self, id: &str) {
        locked(&self.tasks).remove(id);
    }

    /// Every task that is told of.
    pub fn tasks(&self) -> Vec<TaskReport> {
        locked(&self.tasks).values().cloned().collect()
    }

    /// Publishes what came of letters of a replay.
    pub fn report_replay(
        &self,
        task: &str,
        tp: &TopicPartition,
        add: impl FnOnce(&mut ReplayReport),
    ) {
        let mut replays = locked(&self.replays);
        let report = replays.entry((task.to_owned(), tp.clone())).or_insert_with(|| ReplayReport {
            task: task.to_owned(),
            topic: tp.topic.to_string(),
            partition: tp.partition,
            ..ReplayReport::default()
        });
        add(report);
        self.asked.notify_one();
    }

    /// What this process has done of a replay of a partition.
    pub fn replay(&self, task: &str, tp: &TopicPartition) -> Option<ReplayReport> {
        locked(&self.replays).get(&(task.to_owned(), tp.clone())).cloned()
    }

    /// Every replay that is told of.
    pub fn replays(&self) -> Vec<ReplayReport> {
        locked(&self.replays).values().cloned().collect()
    }

    /// Forgets replays that need no more telling.
    pub fn retain_replays(&self, keep: impl Fn(&str) -> bool) {
        locked(&self.replays).retain(|(task, _), _| keep(task));
    }

    /// Remembers the latest trouble; `None` once something succeeded.
    pub fn set_error(&self, error: Option<ErrorReport>) {
        *locked(&self.last_error) = error;
    }

    /// The latest trouble.
    pub fn last_error(&self) -> Option<ErrorReport> {
        locked(&self.last_error).clone()
    }

    /// Totals so far.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            delivered: read(&self.delivered),
            skipped: read(&self.skipped),
            dead_lettered: read(&self.dead_lettered),
            retries: read(&self.retries),
        }
    }

    /// The process as one word.
    pub fn state(&self) -> WorkerState {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if is(&self.draining) {
            return WorkerState::Draining;
        }
        if is(&self.stopped) {
            return WorkerState::Stopped;
        }
        if !(is(&self.joined) && is(&self.control_read) && is(&self.proven)) {
            return WorkerState::Starting;
        }
        let partitions = locked(&self.partitions);
        let any = |state| partitions.values().any(|partition| partition.state == state);
        if partitions.is_empty() {
            WorkerState::Standby
        } else if any(PartitionState::Degraded) {
            WorkerState::Degraded
        } else if partitions.values().all(|partition| partition.state == PartitionState::Paused) {
            WorkerState::Paused
        } else {
            WorkerState::Running
        }
    }
}

/// Shared by every task of the process.
pub type SharedStatus = Arc<Status>;
