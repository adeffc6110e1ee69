//! Rebalances as messages: the callback tells the supervisor and waits, with a deadline, for the
//! partition tasks to let go; all state stays with its one owner.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_shared::offset::TopicPartition;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::sync::mpsc;

use super::flow::{Budget, Flow};
use super::slots::{Assignment, Slot, Slots};
use crate::status::SharedStatus;

/// What the supervisor hears from the consumer thread.
#[derive(Debug)]
pub enum SourceEvent {
    /// Partitions are ours; each waits for a start.
    Assigned(Vec<Assignment>),
    /// Partitions are about to be given away. The tasks end within `grace` (at once when `lost`:
    /// somebody else owns them already) and the reply is sent when they have.
    Revoked {
        /// Which, with the epoch of their assignment.
        partitions: Vec<(TopicPartition, u64)>,
        /// Taken away unasked: nothing may be committed.
        lost: bool,
        /// Time to finish what is in flight.
        grace: Duration,
        /// Sent (or dropped) when the tasks have ended.
        reply: std::sync::mpsc::SyncSender<()>,
    },
    /// Some partition asked for an offset that the log does not have.
    OutOfRange,
    /// The client is beyond repair.
    Fatal(KafkaError),
}

/// The callbacks of the one consumer.
pub(crate) struct RebalanceContext {
    pub(crate) slots: Mutex<Slots>,
    pub(crate) events: mpsc::Sender<SourceEvent>,
    pub(crate) status: SharedStatus,
    pub(crate) budget: Arc<Budget>,
    pub(crate) max_records: usize,
    pub(crate) grace: Duration,
    pub(crate) epochs: AtomicU64,
}

impl RebalanceContext {
    pub(crate) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, event: SourceEvent) {
        // A closed channel means that the process is ending; nobody is left to tell.
        let _ = self.events.blocking_send(event);
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        // Paused from the first moment and sought when the start is known: the offset given here
        // is never read from.
        let outcome = partitions
            .set_all_offsets(Offset::Beginning)
            .and_then(|()| consumer.incremental_assign(partitions))
            .and_then(|()| consumer.pause(partitions));
        if let Err(error) = outcome {
            return self.send(SourceEvent::Fatal(error));
        }
        let mut assignments = Vec::with_capacity(partitions.count());
        for element in partitions.elements() {
            let tp = TopicPartition::new(element.topic(), element.partition());
            let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
            let flow = Flow::new(self.max_records, self.budget.clone());
            let (slot, assignment) = Slot::new(tp, epoch, flow);
            self.slots().insert(slot);
            assignments.push(assignment);
        }
        tracing::info!(partitions = %names(partitions), "pipeline.partitions_assigned");
        self.send(SourceEvent::Assigned(assignments));
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let lost = consumer.assignment_lost();
        tracing::info!(partitions = %names(partitions), lost, "pipeline.partitions_revoked");
        let mut epochs = Vec::with_capacity(partitions.count());
        for element in partitions.elements() {
            if let Some(slot) = self.slots().get(element.topic(), element.partition()) {
                slot.hold();
                epochs.push((slot.tp.clone(), slot.epoch));
            }
        }
        let (reply, done) = std::sync::mpsc::sync_channel(1);
        let grace = if lost { Duration::ZERO } else { self.grace };
        self.send(SourceEvent::Revoked { partitions: epochs, lost, grace, reply });
        // The answer may also be that the other side is gone; both mean: go on.
        let _ = done.recv_timeout(grace + Duration::from_secs(2));
        self.release(consumer, partitions, lost);
    }

    /// Commits what the tasks left as durable, then lets go.
    fn release(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList, lost: bool) {
        let mut offsets = TopicPartitionList::new();
        for element in partitions.elements() {
            let Some(slot) = self.slots().remove(element.topic(), element.partition()) else {
                continue;
            };
            if let Some(position) =
                slot.progress.get().filter(|p| slot.committed.as_ref() != Some(p))
            {
                add_commit(&mut offsets, &slot.tp, &position);
            }
        }
        if !lost
            && offsets.count() > 0
            && let Err(error) = consumer.commit(&offsets, CommitMode::Sync)
        {
            tracing::warn!(%error, "commit on revoke");
        }
        if let Err(error) = consumer.incremental_unassign(partitions) {
            tracing::warn!(%error, "unassign");
        }
    }
}

/// Adds a position with its identity to a list to commit.
pub(crate) fn add_commit(
    list: &mut TopicPartitionList,
    tp: &TopicPartition,
    position: &cdc_shared::offset::Position,
) {
    let mut element = list.add_partition(&tp.topic, tp.partition);
    if element.set_offset(Offset::Offset(position.next.get())).is_ok() {
        element.set_metadata(position.commit_metadata());
    }
}

fn names(partitions: &TopicPartitionList) -> String {
    let elements = partitions.elements();
    let names: Vec<_> = elements
        .iter()
        .map(|element| format!("{}[{}]", element.topic(), element.partition()))
        .collect();
    names.join(" ")
}

impl ClientContext for RebalanceContext {
    fn stats(&self, statistics: Statistics) {
        let joined = statistics
            .cgrp
            .is_some_and(|group| group.state == "up" && group.join_state == "steady");
        if joined {
            self.status.joined.store(true, Ordering::Relaxed);
        }
        // Partitions that were given away are not in this sum any more.
        let fetched = u64::try_from(statistics.rxmsgs).unwrap_or(0);
        self.status.fetched.fetch_max(fetched, Ordering::Relaxed);
        let mut slots = self.slots();
        for (topic, statistics) in &statistics.topics {
            for partition in statistics.partitions.values() {
                let at_end = partition.fetchq_cnt == 0
                    && partition.ls_offset >= 0
                    && partition.next_offset >= partition.ls_offset;
                if let Some(slot) = slots.get(topic, partition.partition) {
                    slot.fetched(at_end.then_some(partition.ls_offset));
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for RebalanceContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.status.joined.store(true, Ordering::Relaxed);
                self.assign(consumer, partitions);
            }
            _ => self.revoke(consumer, partitions),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "commit; repeated with the next one");
            let mut slots = self.slots();
            for element in offsets.elements() {
                if let Some(slot) = slots.get(element.topic(), element.partition()) {
                    slot.committed = None;
                }
            }
        }
    }
}
