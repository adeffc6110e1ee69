//! Which records may become visible together: from records per partition and the marks of the
//! transaction topic to whole transactions, in the order in which the source committed them.
//!
//! Pure: it owns what is queued and decides; it reads no clock and asks nobody.
//!
//! The source's log is one row of transactions. So each partition has its records of them in that
//! order, and the marks say where each transaction ends and how many records of each topic it has.
//! A transaction is complete when its end was read and each of its topics has as many different
//! records of it at the heads of its partitions. Records are told apart by their place in the
//! transaction (`total_order`): a connector that was restarted may send some twice.
//!
//! Records without a transaction (of snapshots) go alone, as soon as nothing stands before them.
//!
//! A session may begin where the positions of the partitions do not belong together: at its first
//! start, after a rewind, after `consistency: eventual`. Then a transaction may lack records that
//! were delivered before, and records may lack an end that was passed before. What the log held
//! when the session began ([`Horizon`]) says when nothing more can come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cdc_shared::envelope::TransactionId;

/// How many transactions that were delivered are remembered, so that a repetition is known.
const REMEMBERED: usize = 65_536;

/// A record as the assembler sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Its transaction.
    pub transaction: TransactionId,
    /// Its place in it, from 1.
    pub order: i64,
}

/// Neighbouring records of one partition and one transaction (or of none).
#[derive(Debug)]
pub struct Run<T> {
    transaction: Option<TransactionId>,
    /// Different records of the transaction.
    counted: u64,
    /// The highest place that was seen.
    highest: i64,
    /// What is to be delivered, in offset order.
    pub records: Vec<T>,
    /// Offset of the first record, effect or not.
    pub first: i64,
    /// Offset of the last one.
    pub last: i64,
}

/// The end of a transaction.
#[derive(Clone, Debug)]
struct End {
    transaction: TransactionId,
    /// Offset of its mark.
    offset: i64,
    /// Topics and how many records of each; topics that the sink does not have are left out.
    counts: Vec<(usize, u64)>,
}

/// What becomes visible together.
#[derive(Debug)]
pub struct Group<T> {
    /// Partitions with what is delivered of them.
    pub runs: Vec<(usize, Run<T>)>,
    /// Offset of the mark that ends it; `None`: records without transaction.
    pub end: Option<i64>,
}

/// What the log held when the session began. Offsets are exclusive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Horizon {
    /// End of the transaction topic before the partitions were asked, and after.
    pub marks: (i64, i64),
    /// End of each partition.
    pub partitions: Vec<i64>,
}

/// What the head of the line waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Records of a transaction whose end was read.
    Records {
        /// Which.
        transaction: TransactionId,
        /// Of which topic.
        topic: usize,
        /// How many there are, and how many there should be.
        counts: (u64, u64),
    },
    /// The end of a transaction, in front of which a partition has come.
    End {
        /// Which.
        transaction: TransactionId,
        /// Which partition.
        partition: usize,
    },
}

#[derive(Debug)]
struct Queue<T> {
    topic: usize,
    runs: VecDeque<Run<T>>,
    /// Everything below was read.
    read: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Assembler<T> {
    queues: Vec<Queue<T>>,
    ends: VecDeque<End>,
    /// Transactions whose begin was read, and where.
    begun: HashMap<TransactionId, i64>,
    /// The transaction topic was read up to here.
    marks_read: i64,
    done: Recent<()>,
    /// Of those, which ended though records may still have been on their way.
    short: Recent<()>,
    /// Records of each topic that went alone, of transactions whose end was not read yet.
    alone: Recent<Vec<(usize, u64)>>,
    horizon: Horizon,
}

impl<T> Assembler<T> {
    /// `topics`: the topic of each partition.
    pub fn new(topics: &[usize], horizon: Horizon) -> Self {
        let queue = |&topic: &usize| Queue { topic, runs: VecDeque::new(), read: 0 };
        Self {
            queues: topics.iter().map(queue).collect(),
            ends: VecDeque::new(),
            begun: HashMap::new(),
            marks_read: 0,
            done: Recent::default(),
            short: Recent::default(),
            alone: Recent::default(),
            horizon,
        }
    }

    /// A record with effect; `put` adds it to those of its run.
    pub fn record(
        &mut self,
        partition: usize,
        offset: i64,
        label: Option<&Label>,
        put: impl FnOnce(&mut Vec<T>),
    ) {
        let Some(queue) = self.queues.get_mut(partition) else { return };
        queue.read = queue.read.max(offset + 1);
        let transaction = label.map(|label| label.transaction.clone());
        let joins = queue.runs.back().is_some_and(|run| run.transaction == transaction);
        if !joins {
            queue.runs.push_back(Run {
                transaction,
                counted: 0,
                highest: 0,
                records: Vec::new(),
                first: offset,
                last: offset,
            });
        }
        let Some(run) = queue.runs.back_mut() else { return };
        run.last = offset;
        if let Some(label) = label
            && label.order > run.highest
        {
            run.highest = label.order;
            run.counted += 1;
        }
        put(&mut run.records);
    }

    /// A record without effect: the position passes it with what stands before it.
    pub fn nothing(&mut self, partition: usize, offset: i64) {
        let Some(queue) = self.queues.get_mut(partition) else { return };
        queue.read = queue.read.max(offset + 1);
        match queue.runs.back_mut() {
            Some(run) => run.last = offset,
            None => queue.runs.push_back(Run {
                transaction: None,
                counted: 0,
                highest: 0,
                records: Vec::new(),
                first: offset,
                last: offset,
            }),
        }
    }

    /// A record that was given up unread: it may have been of the transaction that waits for one.
    pub fn given_up(&mut self, partition: usize, offset: i64) {
        self.nothing(partition, offset);
        let Some(topic) = self.queues.get(partition).map(|queue| queue.topic) else { return };
        let short = self.ends.iter_mut().find_map(|end| {
            let counts = end.counts.iter_mut();
            counts.map(|(of, count)| (*of, count)).find(|(of, _)| *of == topic)
        });
        if let Some((_, count)) = short {
            *count = count.saturating_sub(1);
        }
    }

    /// Everything of a partition below `next` was read.
    pub fn reached(&mut self, partition: usize, next: i64) {
        if let Some(queue) = self.queues.get_mut(partition) {
            queue.read = queue.read.max(next);
        }
    }

    /// A transaction begins.
    pub fn begin(&mut self, offset: i64, transaction: TransactionId) {
        self.marks_read = self.marks_read.max(offset + 1);
        self.begun.insert(transaction, offset);
    }

    /// A transaction ends, with so many records of each topic.
    pub fn end(&mut self, offset: i64, transaction: TransactionId, counts: Vec<(usize, u64)>) {
        self.marks_read = self.marks_read.max(offset + 1);
        self.ends.push_back(End { transaction, offset, counts });
    }

    /// Everything of the transaction topic below `next` was read.
    pub fn marks_reached(&mut self, next: i64) {
        self.marks_read = self.marks_read.max(next);
    }

    /// Ends that wait.
    pub fn pending(&self) -> usize {
        self.ends.len()
    }

    /// Up to where the transaction topic was read, when no transaction in it is open.
    pub fn closed_at(&self) -> Option<i64> {
        (self.ends.is_empty() && self.begun.is_empty()).then_some(self.marks_read)
    }

    /// Up to where a partition was read.
    pub fn read(&self, partition: usize) -> i64 {
        self.queues.get(partition).map_or(0, |queue| queue.read)
    }

    /// Whether nothing of a partition is queued.
    pub fn is_empty(&self, partition: usize) -> bool {
        self.queues.get(partition).is_none_or(|queue| queue.runs.is_empty())
    }

    /// The next records that may become visible. `patient` no longer: nothing more came for a
    /// while, though every log was read to its end; then what may have been passed before the
    /// session is not waited for.
    pub fn next(&mut self, patient: bool) -> Option<Group<T>> {
        for partition in 0..self.queues.len() {
            if self.goes_alone(partition, patient) {
                let queue = self.queues.get_mut(partition)?;
                let (topic, run) = (queue.topic, queue.runs.pop_front()?);
                let is_new = |transaction: &&TransactionId| !self.done.contains(transaction);
                if let Some(transaction) = run.transaction.as_ref().filter(is_new) {
                    self.alone.entry(transaction).push((topic, run.counted));
                }
                return Some(Group { runs: vec![(partition, run)], end: None });
            }
        }
        let end = self.ends.front()?.clone();
        let is_repeated = self.done.contains(&end.transaction);
        if !(is_repeated || self.is_complete(&end, patient)) {
            return None;
        }
        // What followed a repetition is in the sink.
        let is_dropped = is_repeated && !self.short.contains(&end.transaction);
        if !is_repeated && self.lacking(&end).is_some() {
            self.short.entry(&end.transaction);
        }
        self.ends.pop_front();
        self.begun.remove(&end.transaction);
        let mut runs = Vec::new();
        for (partition, queue) in self.queues.iter_mut().enumerate() {
            let is_of = |run: &Run<T>| run.transaction.as_ref() == Some(&end.transaction);
            if queue.runs.front().is_some_and(is_of)
                && let Some(mut run) = queue.runs.pop_front()
            {
                if is_dropped {
                    run.records.clear();
                }
                runs.push((partition, run));
            }
        }
        self.alone.remove(&end.transaction);
        self.done.entry(&end.transaction);
        Some(Group { runs, end: Some(end.offset) })
    }

    /// Whether the head of a partition waits for no transaction.
    fn goes_alone(&mut self, partition: usize, patient: bool) -> bool {
        let Some(queue) = self.queues.get_mut(partition) else { return false };
        let Some(run) = queue.runs.front_mut() else { return false };
        let Some(transaction) = run.transaction.clone() else { return true };
        let is_awaited = || self.ends.iter().any(|end| end.transaction == transaction);
        if self.done.contains(&transaction) && !is_awaited() {
            if !self.short.contains(&transaction) {
                // Sent again by a connector that was restarted. What followed it is in the sink.
                run.records.clear();
            }
            return true;
        }
        // Its end was passed before the session began.
        if self.begun.contains_key(&transaction) || self.marks_read < self.horizon.marks.1 {
            return false;
        }
        let is_old = self.horizon.partitions.get(partition).is_some_and(|end| run.last < *end);
        (is_old || !patient) && !is_awaited()
    }

    fn is_complete(&self, end: &End, patient: bool) -> bool {
        end.counts.iter().all(|(topic, count)| {
            self.counted(end, *topic) >= *count || !self.may_still_come(end, *topic, patient)
        })
    }

    /// The first topic that lacks records: with their number as it is and as it should be.
    fn lacking(&self, end: &End) -> Option<(usize, u64, u64)> {
        let counts =
            end.counts.iter().map(|(topic, count)| (*topic, self.counted(end, *topic), *count));
        counts.into_iter().find(|(_, found, count)| found < count)
    }

    fn counted(&self, end: &End, topic: usize) -> u64 {
        let heads = self.queues.iter().filter(|queue| queue.topic == topic);
        let heads = heads
            .filter_map(|queue| queue.runs.front())
            .filter(|run| run.transaction.as_ref() == Some(&end.transaction));
        let alone = self.alone.get(&end.transaction).into_iter().flatten();
        let alone = alone.filter(|(of, _)| *of == topic).map(|(_, count)| *count);
        heads.map(|run| run.counted).chain(alone).sum()
    }

    /// Whether records of a transaction may still be on their way. What began within the session
    /// is whole in the log.
    fn may_still_come(&self, end: &End, topic: usize, patient: bool) -> bool {
        let began = self.begun.get(&end.transaction);
        if began.is_some_and(|offset| *offset >= self.horizon.marks.0) {
            return true;
        }
        if end.offset >= self.horizon.marks.0 {
            return patient;
        }
        let horizon = self.horizon.partitions.iter().zip(&self.queues);
        horizon.filter(|(_, queue)| queue.topic == topic).any(|(end_of_log, queue)| {
            let is_past = queue
                .runs
                .front()
                .is_some_and(|run| run.transaction.as_ref() != Some(&end.transaction));
            !is_past && queue.read < *end_of_log
        })
    }

    /// What the head of the line waits for, if for anything.
    pub fn waiting(&self) -> Option<Waiting> {
        if let Some(end) = self.ends.front() {
            let (topic, found, count) = self.lacking(end)?;
            let transaction = end.transaction.clone();
            return Some(Waiting::Records { transaction, topic, counts: (found, count) });
        }
        let mut heads = self.queues.iter().enumerate();
        heads.find_map(|(partition, queue)| {
            let transaction = queue.runs.front()?.transaction.clone()?;
            Some(Waiting::End { transaction, partition })
        })
    }

    /// Whether the session has passed everything that the log held when it began: from here on
    /// every transaction is whole. `positions`: how far each partition is delivered, and the
    /// transaction topic.
    pub fn is_whole(&self, positions: &[i64], marks: i64) -> bool {
        let mut partitions = positions.iter().zip(&self.horizon.partitions);
        partitions.all(|(position, end)| position >= end)
            && (marks >= self.horizon.marks.1 || self.marks_read >= self.horizon.marks.1)
    }
}

/// Something about the latest transactions.
#[derive(Debug)]
struct Recent<V> {
    known: HashMap<Arc<TransactionId>, V>,
    order: VecDeque<Arc<TransactionId>>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V: Default> Recent<V> {
    /// What is known of a transaction; of a new one the default.
    fn entry(&mut self, transaction: &TransactionId) -> &mut V {
        if !self.known.contains_key(transaction) {
            let new = Arc::new(transaction.clone());
            self.order.push_back(new.clone());
            self.known.insert(new, V::default());
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        self.known.entry(Arc::new(transaction.clone())).or_default()
    }

    fn get(&self, transaction: &TransactionId) -> Option<&V> {
        self.known.get(transaction)
    }

    fn contains(&self, transaction: &TransactionId) -> bool {
        self.known.contains_key(transaction)
    }

    /// Its place among the latest is kept: it ages with the others.
    fn remove(&mut self, transaction: &TransactionId) {
        self.known.remove(transaction);
    }
}

#[cfg(test)]
#[path = "assembler_test.rs"]
mod tests;
