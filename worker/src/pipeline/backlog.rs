//! The records of one partition that are not yet durable, in offset order. They are kept until
//! they are, so that a batch can be offered again, whole or in halves.

use std::collections::VecDeque;
use std::sync::Arc;

use cdc_shared::offset::{NextOffset, SchemaIds};

use crate::source::flow::Flow;
use crate::source::record::Record;

/// How far a record has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Not offered to the sink yet.
    Queued,
    /// With the sink.
    Pushed,
    /// Without effect.
    Passed,
    /// Rejected, and the DLQ has it.
    DeadLettered,
}

/// One record and how far it has come.
#[derive(Debug)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// How far it has come.
    pub stage: Stage,
    /// Its schemas.
    pub schemas: SchemaIds,
    /// When the source committed it, once decoded.
    pub source_ms: Option<i64>,
}

/// What became durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// Taken by the sink.
    pub delivered: u64,
    /// Without effect.
    pub skipped: u64,
    /// The schemas of the last record, where it had any.
    pub schemas: SchemaIds,
}

/// See the module.
#[derive(Debug)]
pub struct Backlog {
    entries: VecDeque<Entry>,
    /// Entries before this index have been offered.
    offered: usize,
    /// Up to here the log holds no more records than those taken.
    reached: Option<NextOffset>,
    flow: Arc<Flow>,
}

impl Backlog {
    /// Empty; what leaves it leaves `flow`.
    pub fn new(flow: Arc<Flow>) -> Self {
        Self { entries: VecDeque::new(), offered: 0, reached: None, flow }
    }

    /// Adds records behind the others.
    pub fn extend(&mut self, records: Vec<Record>) {
        if !records.is_empty() {
            self.reached = None;
        }
        self.entries.extend(records.into_iter().map(|record| Entry {
            record,
            stage: Stage::Queued,
            schemas: SchemaIds::default(),
            source_ms: None,
        }));
    }

    /// The next record to offer.
    pub fn to_offer(&mut self) -> Option<&mut Entry> {
        self.entries.get_mut(self.offered)
    }

    /// The next record has been offered.
    pub fn offered(&mut self) {
        self.offered += 1;
    }

    /// Whether every record has been offered.
    pub fn is_offered(&self) -> bool {
        self.offered >= self.entries.len()
    }

    /// Between the newest record and `next` there is nothing to deliver.
    pub fn reached(&mut self, next: NextOffset) {
        self.reached = Some(next);
    }

    /// The position behind everything offered, when that is anything.
    pub fn covers(&self) -> Option<NextOffset> {
        if self.is_offered() && self.reached.is_some() {
            return self.reached;
        }
        let last = self.offered.checked_sub(1)?;
        self.entries.get(last).map(|entry| NextOffset::after(entry.record.offset))
    }

    /// The schemas of the newest offered record that has any.
    pub fn schemas(&self, before: SchemaIds) -> SchemaIds {
        let newest = self.entries.iter().take(self.offered).rev();
        let mut found = SchemaIds::default();
        for entry in newest {
            found = SchemaIds {
                key: found.key.or(entry.schemas.key),
                value: found.value.or(entry.schemas.value),
            };
            if found.key.is_some() && found.value.is_some() {
                break;
            }
        }
        SchemaIds { key: found.key.or(before.key), value: found.value.or(before.value) }
    }

    /// The first record that is not durable.
    pub fn head(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Offered records that the sink holds.
    pub fn pushed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(self.offered).filter(|entry| entry.stage == Stage::Pushed)
    }

    /// The entry of an offset.
    pub fn find(&mut self, offset: i64) -> Option<&mut Entry> {
        let index = self.entries.binary_search_by_key(&offset, |entry| entry.record.offset).ok()?;
        self.entries.get_mut(index)
    }

    /// Everything below `next` is durable: forget it.
    pub fn settle(&mut self, next: NextOffset) -> Settled {
        let mut settled = Settled::default();
        let (mut count, mut bytes) = (0, 0);
        while let Some(entry) = self.entries.front() {
            if entry.record.offset >= next.get() || self.offered == 0 {
                break;
            }
            match entry.stage {
                Stage::Pushed => settled.delivered += 1,
                Stage::Passed => settled.skipped += 1,
                Stage::DeadLettered | Stage::Queued => {}
            }
            settled.schemas = SchemaIds {
                key: entry.schemas.key.or(settled.schemas.key),
                value: entry.schemas.value.or(settled.schemas.value),
            };
            count += 1;
            bytes += entry.record.weight();
            self.entries.pop_front();
            self.offered -= 1;
        }
        self.flow.leave(count, bytes);
        settled
    }

    /// Everything is to be offered again; what the DLQ has stays settled.
    pub fn rewind(&mut self) {
        self.offered = 0;
        for entry in &mut self.entries {
            if entry.stage == Stage::Pushed {
                entry.stage = Stage::Queued;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let bytes = self.entries.iter().map(|entry| entry.record.weight()).sum();
        self.flow.leave(self.entries.len(), bytes);
        self.entries.clear();
        self.offered = 0;
        self.reached = None;
    }

    /// Counts records out that were queued for a start that is over.
    pub fn discard(&self, records: &[Record]) {
        self.flow.leave(records.len(), records.iter().map(Record::weight).sum());
    }

    /// Whether fetching pauses until some of it is durable.
    pub fn is_full(&self) -> bool {
        self.flow.is_full()
    }

    /// Records held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::flow::Budget;
    use crate::status::SharedStatus;

    fn backlog(offsets: &[i64]) -> Backlog {
        let flow = Flow::new(100, Budget::new(1 << 20, SharedStatus::default()));
        let records: Vec<_> =
            offsets.iter().map(|&offset| Record::new(offset, 0, None, Some(b"v"))).collect();
        for record in &records {
            flow.enter(record.weight());
        }
        let mut backlog = Backlog::new(flow);
        backlog.extend(records);
        backlog
    }

    #[test]
    fn offsets_have_holes_and_the_position_is_behind_the_last_record() {
        let mut backlog = backlog(&[3, 7, 9]);
        assert_eq!(backlog.covers(), None);
        for stage in [Stage::Pushed, Stage::Passed] {
            backlog.to_offer().unwrap().stage = stage;
            backlog.offered();
        }
        assert_eq!(backlog.covers(), Some(NextOffset::after(7)));
        let settled = backlog.settle(NextOffset::after(7));
        assert_eq!((settled.delivered, settled.skipped), (1, 1));
        assert_eq!((backlog.len(), backlog.flow.held()), (1, 1));
        assert_eq!(backlog.head().unwrap().record.offset, 9);
    }

    #[test]
    fn an_end_without_records_counts_once_everything_before_it_was_offered() {
        let mut backlog = backlog(&[3]);
        backlog.reached(NextOffset::after(9));
        assert_eq!(backlog.covers(), None);
        backlog.to_offer().unwrap().stage = Stage::Pushed;
        backlog.offered();
        assert_eq!(backlog.covers(), Some(NextOffset::after(9)));
        backlog.extend(vec![Record::new(12, 0, None, None)]);
        assert_eq!(backlog.covers(), Some(NextOffset::after(3)));
    }

    #[test]
    fn a_dead_lettered_record_is_not_offered_again() {
        let mut backlog = backlog(&[1, 2]);
        for _ in 0..2 {
            backlog.to_offer().unwrap().stage = Stage::Pushed;
            backlog.offered();
        }
        backlog.find(1).unwrap().stage = Stage::DeadLettered;
        backlog.rewind();
        assert_eq!(backlog.to_offer().unwrap().stage, Stage::DeadLettered);
        backlog.offered();
        assert_eq!(backlog.to_offer().unwrap().stage, Stage::Queued);
        drop(backlog);
    }
}
