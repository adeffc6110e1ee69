//! The consumer thread's view of its partitions: what each one may do, and the records on their
//! way to the partition's task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::offset::{NextOffset, Position, TopicPartition};
use tokio::sync::mpsc;

use super::flow::Flow;
use super::record::Record;

/// Records handed over at once at the most.
pub(crate) const CHUNK: usize = 256;
/// A partition that got no records for so long is quiet, and misses none.
const RECENT: Duration = Duration::from_secs(1);

/// The durable position of one partition: written by its task, committed by the consumer thread.
#[derive(Clone, Debug, Default)]
pub struct ProgressCell(Arc<Mutex<Option<Position>>>);

impl ProgressCell {
    /// Publishes what may be committed.
    pub fn set(&self, position: Position) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }

    /// The latest; `None` until the start is resolved.
    pub fn get(&self) -> Option<Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A newly assigned partition, as its task gets it.
#[derive(Debug)]
pub struct Assignment {
    /// The partition.
    pub tp: TopicPartition,
    /// Tells this assignment from an earlier one of the same partition.
    pub epoch: u64,
    /// Its bound.
    pub flow: Arc<Flow>,
    /// Its records, once started.
    pub chunks: mpsc::Receiver<Chunk>,
    /// Where its task publishes what may be committed.
    pub progress: ProgressCell,
}

/// Records of one partition in offset order.
#[derive(Debug)]
pub struct Chunk {
    /// Which start these belong to: records from before a hold are told apart by it.
    pub run: u64,
    /// The records.
    pub records: Vec<Record>,
    /// Everything below this offset has been handed over: between the last record and it there is
    /// nothing to deliver (transaction markers, aborted records, compaction).
    pub reached: Option<NextOffset>,
}

/// What a partition may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// Paused until its task gives a start.
    Held,
    /// To be sought to this offset and resumed.
    Starting(NextOffset),
    /// Fetching.
    Open,
    /// Paused because it is full; goes on from this offset.
    Full(NextOffset),
}

/// One assigned partition.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) tp: TopicPartition,
    pub(crate) epoch: u64,
    pub(crate) flow: Arc<Flow>,
    pub(crate) gate: Gate,
    pub(crate) progress: ProgressCell,
    pub(crate) committed: Option<Position>,
    pub(crate) run: u64,
    expected: i64,
    tail: Tail,
    open: Vec<Record>,
    handed_over: Option<Instant>,
    chunks: mpsc::Sender<Chunk>,
}

/// Whether the log ends in offsets without records, which no record would ever move the watermark
/// over.
///
/// The client's statistics say that it has fetched up to the last stable offset and holds nothing.
/// They may overtake records that it has already handed to its queue: so the same is asked of two
/// statistics in a row, with the queue seen empty in between and no record taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Tail {
    /// Nothing of the kind is known.
    #[default]
    Unknown,
    /// Fetched up to here, while the next record was expected at the other offset.
    Fetched { end: i64, expected: i64 },
    /// The same, and the queue was empty since.
    Quiet { end: i64, expected: i64 },
}

/// What became of a record that was offered to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offered {
    /// Taken; more may follow.
    Taken,
    /// Taken and a chunk is full: hand it over.
    ChunkFull,
    /// Not taken: the partition must be paused and later resumed from this record.
    PauseBefore,
    /// Not wanted: repeated by the client, or the partition is not open.
    Dropped,
}

impl Slot {
    pub(crate) fn new(tp: TopicPartition, epoch: u64, flow: Arc<Flow>) -> (Self, Assignment) {
        // A chunk holds at least one record and the flow bounds the records, so this never fills
        // up before the flow does.
        let (sender, receiver) = mpsc::channel(4096);
        let progress = ProgressCell::default();
        let assignment = Assignment {
            tp: tp.clone(),
            epoch,
            flow: flow.clone(),
            chunks: receiver,
            progress: progress.clone(),
        };
        let slot = Self {
            tp,
            epoch,
            flow,
            gate: Gate::Held,
            progress,
            committed: None,
            run: 0,
            expected: 0,
            tail: Tail::default(),
            open: Vec::new(),
            handed_over: None,
            chunks: sender,
        };
        (slot, assignment)
    }

    /// The partition now fetches from `next`.
    pub(crate) fn opened(&mut self, next: NextOffset) {
        self.tail = Tail::Unknown;
        self.expected = next.get();
        self.gate = Gate::Open;
    }

    /// Stops taking records; those not handed over are forgotten.
    pub(crate) fn hold(&mut self) {
        self.gate = Gate::Held;
        self.forget_open();
    }

    fn forget_open(&mut self) {
        let bytes = self.open.iter().map(Record::weight).sum();
        self.flow.leave(self.open.len(), bytes);
        self.open.clear();
    }

    /// Whether its task, which had records a moment ago, has hardly any left.
    pub(crate) fn is_starving(&self, now: Instant) -> bool {
        self.gate == Gate::Open
            && self.flow.is_low()
            && self.handed_over.is_some_and(|at| now.saturating_duration_since(at) < RECENT)
    }

    /// Takes no more until it has drained.
    pub(crate) fn fill(&mut self) {
        self.gate = Gate::Full(NextOffset::after(self.expected - 1));
    }

    /// Whether the record at `offset` would be taken, before anything is copied.
    pub(crate) fn wants(&mut self, offset: i64) -> Offered {
        if self.gate != Gate::Open || offset < self.expected {
            return Offered::Dropped;
        }
        if self.flow.is_full() {
            self.gate = Gate::Full(NextOffset::after(offset - 1));
            return Offered::PauseBefore;
        }
        Offered::Taken
    }

    /// Takes a record that [`Slot::wants`] said is taken.
    pub(crate) fn take(&mut self, record: Record) -> Offered {
        self.expected = record.offset + 1;
        self.tail = Tail::Unknown;
        self.flow.enter(record.weight());
        self.open.push(record);
        if self.open.len() >= CHUNK { Offered::ChunkFull } else { Offered::Taken }
    }

    /// What the client's statistics say: it holds nothing and has fetched up to `end`, which is the
    /// last stable offset (`None`: it has not).
    pub(crate) fn fetched(&mut self, end: Option<i64>) {
        let expected = self.expected;
        let Some(end) = end.filter(|end| self.gate == Gate::Open && *end > expected) else {
            self.tail = Tail::Unknown;
            return;
        };
        if self.tail != (Tail::Quiet { end, expected }) {
            self.tail = Tail::Fetched { end, expected };
            return;
        }
        self.tail = Tail::Unknown;
        let reached = NextOffset::after(end - 1);
        let chunk = Chunk { run: self.run, records: Vec::new(), reached: Some(reached) };
        if self.open.is_empty() && self.chunks.try_send(chunk).is_ok() {
            self.expected = end;
        }
    }

    /// The client's queue was seen empty.
    pub(crate) fn quiet(&mut self) {
        if let Tail::Fetched { end, expected } = self.tail
            && expected == self.expected
        {
            self.tail = Tail::Quiet { end, expected };
        }
    }

    /// Hands over what was taken. `false`: the task's queue is full, so that the partition must be
    /// paused; it goes on from the first record of the chunk.
    pub(crate) fn hand_over(&mut self) -> bool {
        let Some(first) = self.open.first().map(|record| record.offset) else { return true };
        let records = std::mem::take(&mut self.open);
        let chunk = Chunk { run: self.run, records, reached: None };
        match self.chunks.try_send(chunk) {
            Ok(()) => {
                self.handed_over = Some(Instant::now());
                true
            }
            // The task has ended: its partition is about to be revoked.
            Err(mpsc::error::TrySendError::Closed(chunk)) => {
                self.open = chunk.records;
                self.hold();
                true
            }
            Err(mpsc::error::TrySendError::Full(chunk)) => {
                self.open = chunk.records;
                self.forget_open();
                self.gate = Gate::Full(NextOffset::after(first - 1));
                false
            }
        }
    }
}

/// All assigned partitions.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    topics: HashMap<Arc<str>, Vec<Option<Slot>>>,
}

impl Slots {
    pub(crate) fn insert(&mut self, slot: Slot) {
        let partitions = self.topics.entry(slot.tp.topic.clone()).or_default();
        let index = slot.tp.partition as usize;
        if partitions.len() <= index {
            partitions.resize_with(index + 1, || None);
        }
        partitions[index] = Some(slot);
    }

    pub(crate) fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Slot> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.get_mut(index)?.as_mut()
    }

    /// The slot, if it is still the same assignment.
    pub(crate) fn current(&mut self, tp: &TopicPartition, epoch: u64) -> Option<&mut Slot> {
        self.get(&tp.topic, tp.partition).filter(|slot| slot.epoch == epoch)
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: i32) -> Option<Slot> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.get_mut(index)?.take()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.topics.values_mut().flatten().flatten()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.values().all(|partitions| partitions.iter().all(Option::is_none))
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::Budget;
    use super::*;
    use crate::status::SharedStatus;

    fn slot(max: usize) -> (Slot, Assignment) {
        let flow = Flow::new(max, Budget::new(1 << 20, SharedStatus::default()));
        Slot::new(TopicPartition::new("t", 0), 1, flow)
    }

    fn offer(slot: &mut Slot, offset: i64) -> Offered {
        match slot.wants(offset) {
            Offered::Taken => slot.take(Record::new(offset, 0, None, Some(b"v"))),
            other => other,
        }
    }

    #[test]
    fn repeated_and_unwanted_records_are_dropped() {
        let (mut slot, _assignment) = slot(10);
        assert_eq!(offer(&mut slot, 5), Offered::Dropped);
        slot.opened(NextOffset::after(4));
        assert_eq!(offer(&mut slot, 4), Offered::Dropped);
        assert_eq!(offer(&mut slot, 5), Offered::Taken);
        assert_eq!(offer(&mut slot, 5), Offered::Dropped);
        assert_eq!(offer(&mut slot, 9), Offered::Taken);
        slot.hold();
        assert_eq!(offer(&mut slot, 10), Offered::Dropped);
        assert_eq!(slot.flow.held(), 0);
    }

    #[test]
    fn the_end_of_the_log_is_passed_only_when_it_is_sure() {
        let (mut slot, mut assignment) = slot(10);
        slot.opened(NextOffset::ZERO);
        let mut reached = |slot: &mut Slot| {
            let _ = slot.hand_over();
            assignment.chunks.try_recv().ok().and_then(|chunk| chunk.reached)
        };
        slot.fetched(Some(3));
        slot.fetched(Some(3));
        assert_eq!(reached(&mut slot), None, "the queue was not seen empty");
        slot.quiet();
        assert_eq!(offer(&mut slot, 0), Offered::Taken);
        slot.fetched(Some(3));
        assert_eq!(reached(&mut slot), None, "a record came in between");
        slot.quiet();
        slot.fetched(Some(4));
        assert_eq!(reached(&mut slot), None, "the end moved");
        slot.quiet();
        slot.fetched(None);
        slot.fetched(Some(4));
        assert_eq!(reached(&mut slot), None, "the client was not at the end");
        slot.quiet();
        slot.fetched(Some(4));
        assert_eq!(reached(&mut slot), Some(NextOffset::after(3)));
        slot.fetched(Some(4));
        slot.quiet();
        slot.fetched(Some(4));
        assert_eq!(reached(&mut slot), None, "told once");
        assert_eq!(offer(&mut slot, 3), Offered::Dropped);
        assert_eq!(offer(&mut slot, 4), Offered::Taken);
    }

    #[test]
    fn a_full_partition_goes_on_from_the_record_it_refused() {
        let (mut slot, mut assignment) = slot(2);
        slot.opened(NextOffset::ZERO);
        assert_eq!(offer(&mut slot, 0), Offered::Taken);
        assert_eq!(offer(&mut slot, 3), Offered::Taken);
        assert_eq!(offer(&mut slot, 7), Offered::PauseBefore);
        assert_eq!(slot.gate, Gate::Full(NextOffset::after(6)));
        assert!(slot.hand_over());
        let chunk = assignment.chunks.try_recv().unwrap();
        let offsets: Vec<_> = chunk.records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [0, 3]);
    }
}
