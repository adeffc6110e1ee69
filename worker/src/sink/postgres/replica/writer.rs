//! The writer of one partition: one open batch, one flush under way.
//!
//! A flush is a row of steps. A transaction writes as many of them as need not wait, and moves the
//! sink's record up to where the next one begins: what a step waits for does not hold back the
//! steps before it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use async_trait::async_trait;
use cdc_shared::avro::Value;
use cdc_shared::config::TruncateHandling;
use cdc_shared::envelope::{Envelope, Placeholder};
use cdc_shared::offset::{NextOffset, Position, SchemaIds, TopicPartition};

use super::deliver::{Delivery, MAX_STEPS, Part, Work};
use super::fresh::Fresh;
use super::layout::{Layout, no_key, source_table};
use super::mirror::Mirrors;
use super::naming::SourceTable;
use super::rejected::{self, Again, Note};
use super::segment::{Incoming, Move, Segment, Sizes};
use crate::change::{Change, KeyChange, Operation};
use crate::sink::postgres::error;
use crate::sink::postgres::flight::{Flight, Outcome, answer, repeat};
use crate::sink::retry::TroubleReporter;
use crate::sink::{PartitionWriter, Progress, Rejection, SinkError};

/// Most bytes of cells in one batch, whatever `batch_max_bytes` says: a message of the protocol
/// holds less than 1 GB.
const MAX_BYTES: usize = 256 << 20;

/// A step of a batch.
#[derive(Debug)]
struct Piece {
    work: Work,
    /// Offset of its first record.
    first: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ReplicaWriter {
    mirrors: Arc<Mirrors>,
    placeholder: Arc<Placeholder>,
    tp: TopicPartition,
    /// The record as last read or written, the value of the next compare-and-set.
    expected: Position,
    /// The layout of the latest rows.
    layout: Option<Arc<Layout>>,
    open: Vec<Piece>,
    /// Records in the open batch.
    records: usize,
    /// The sizes of the latest flush, when that was one segment.
    likely: Sizes,
    flight: Option<Flight<Delivery>>,
    /// Steps of the flush that follow those in flight.
    waiting: VecDeque<Part>,
    trouble: TroubleReporter,
    /// See [`Delivery::unswept`]. An owner before us may have left something.
    unswept: Arc<AtomicBool>,
    fresh: Arc<Fresh>,
    /// Partitions of the topic, as far as they are known.
    partitions: i32,
    /// Keys that have rejected records which stand; may have some that no longer do.
    standing: HashSet<Vec<u8>>,
    /// What the open batch has to do with rejected records.
    notes: Vec<Note>,
    /// The one push is a dead letter, below the record.
    is_replay: bool,
    again: Option<Again>,
}

impl ReplicaWriter {
    pub(super) fn new(
        mirrors: Arc<Mirrors>,
        placeholder: Arc<Placeholder>,
        tp: TopicPartition,
        start: Position,
        trouble: TroubleReporter,
    ) -> Self {
        let standing = mirrors.standing(&tp);
        Self {
            mirrors,
            placeholder,
            tp,
            expected: start,
            layout: None,
            open: Vec::new(),
            records: 0,
            likely: Sizes::default(),
            flight: None,
            waiting: VecDeque::new(),
            trouble,
            unswept: Arc::new(AtomicBool::new(true)),
            fresh: Arc::default(),
            partitions: 0,
            standing,
            notes: Vec::new(),
            is_replay: false,
            again: None,
        }
    }

    /// For one dead letter, which the record has passed.
    pub(super) fn for_a_letter(self) -> Self {
        Self { is_replay: true, ..self }
    }

    /// Remembers what a change means for rejected records of its key. `fully`: nothing is left of
    /// what the key had before.
    fn note(&mut self, offset: i64, key: &[u8], fully: bool) {
        if self.is_replay {
            self.again = Some(Again { offset, key: key.to_vec(), fully });
        } else if !self.standing.is_empty() && self.standing.contains(key) {
            self.notes.push(Note::Settled { offset, key: key.to_vec(), fully });
        }
    }

    /// The layout of an event, made when its schemas are new.
    fn layout(
        &mut self,
        envelope: &Envelope<'_, '_>,
        key: Value<'_, '_>,
    ) -> Result<Arc<Layout>, Rejection> {
        let ids = (envelope.record().plan().schema_id(), key.plan().schema_id());
        if let Some(layout) = &self.layout
            && (layout.schema_id, layout.key_schema_id) == ids
        {
            return Ok(layout.clone());
        }
        let layout = Layout::of(&self.mirrors.layouts(), envelope, key.plan())?;
        let layout = Arc::new(layout.keyed_by(ids.1));
        self.layout = Some(layout.clone());
        Ok(layout)
    }

    /// The open segment for rows of a layout; a new one where `takes` says no to it.
    fn segment(
        &mut self,
        layout: &Arc<Layout>,
        offset: i64,
        takes: impl FnOnce(&Segment) -> bool,
    ) -> Option<&mut Segment> {
        let fits = match self.open.last() {
            Some(Piece { work: Work::Rows(segment), .. }) => {
                Arc::ptr_eq(&segment.layout, layout) && takes(segment)
            }
            _ => false,
        };
        if !fits {
            let segment = Segment::new(layout.clone(), self.likely);
            self.open.push(Piece { work: Work::Rows(segment), first: offset });
        }
        match self.open.last_mut() {
            Some(Piece { work: Work::Rows(segment), .. }) => Some(segment),
            _ => None,
        }
    }

    fn truncate(
        &mut self,
        change: &Change<'_>,
        envelope: &Envelope<'_, '_>,
    ) -> Result<(), Rejection> {
        let source = source_table(envelope)?;
        match self.mirrors.truncate {
            TruncateHandling::Ignore => {
                tracing::warn!(tp = %self.tp, offset = change.offset, table = %source,
                    "truncate: ignore, the mirror keeps its rows");
            }
            TruncateHandling::Apply if self.partitions > 1 => {
                return Err(Rejection::stop(
                    "truncate",
                    several_partitions(&source, &self.tp, self.partitions),
                    TRUNCATE_WAY_OUT,
                ));
            }
            TruncateHandling::Apply => {
                let target = self.mirrors.layouts().target(&source)?;
                let work = Work::Truncate(source, target);
                if !self.standing.is_empty() {
                    self.notes.push(Note::Emptied { offset: change.offset });
                }
                self.open.push(Piece { work, first: change.offset });
                self.records += 1;
            }
            TruncateHandling::Stop => {
                return Err(Rejection::stop(
                    "truncate",
                    format!("table {source} was truncated at the source"),
                    "set truncate: ignore or apply, or empty the mirror by hand once every \
                     partition has come as far and cdc skip the record",
                ));
            }
        }
        Ok(())
    }

    fn push_row(
        &mut self,
        change: &Change<'_>,
        envelope: &Envelope<'_, '_>,
    ) -> Result<(), Rejection> {
        let (Some(key), Some(bytes)) = (&change.key, change.key_bytes) else {
            return Err(no_key(&source_table(envelope)?));
        };
        let layout = self.layout(envelope, *key)?;
        let incoming = match (change.operation, envelope.after()) {
            (Operation::Delete, _) => Incoming::Key(key),
            (Operation::Create | Operation::Read, Some(row)) => Incoming::New(row),
            (_, Some(row)) => Incoming::Row(row),
            (_, None) => {
                let message = "the event has no row after the change";
                return Err(Rejection::new("bad_envelope", message));
            }
        };
        let moved = handover(change, envelope, &layout).filter(|_| !self.is_replay);
        let placeholder = self.placeholder.clone();
        let is_whole = match incoming {
            Incoming::Row(row) | Incoming::New(row) => {
                placeholder.unavailable(row).next().is_none()
            }
            Incoming::Key(_) => true,
        };
        if self.is_replay {
            self.judge_letter(change, &layout, is_whole)?;
        }
        let takes =
            |segment: &Segment| moved.is_none_or(|(half, _)| segment.takes(bytes, half, !is_whole));
        let Some(segment) = self.segment(&layout, change.offset, takes) else { return Ok(()) };
        let pushed = segment.push(bytes, incoming, moved, &placeholder);
        let is_empty = segment.rows().is_empty();
        match pushed {
            Ok(()) => {
                self.records += 1;
                self.note(change.offset, bytes, is_whole);
            }
            Err(_) if is_empty => drop(self.open.pop()),
            Err(_) => {}
        }
        pushed
    }

    fn bytes(&self) -> usize {
        let bytes = |piece: &Piece| match &piece.work {
            Work::Rows(segment) => segment.bytes(),
            _ => 0,
        };
        self.open.iter().map(bytes).sum()
    }

    /// The rows and truncates so far, in order.
    pub(super) fn take_open(&mut self) -> Vec<Work> {
        self.records = 0;
        std::mem::take(&mut self.open).into_iter().map(|piece| piece.work).collect()
    }

    /// Starts the next steps of the flush.
    fn start_next(&mut self) {
        let Some(first) = self.waiting.pop_front() else { return };
        let mut parts = vec![first];
        while parts.len() < MAX_STEPS
            && let (Some(last), Some(next)) = (parts.last(), self.waiting.front())
            && next.work.follows(&last.work)
        {
            parts.extend(self.waiting.pop_front());
        }
        let Some(covers) = parts.last().map(|part| part.covers.clone()) else { return };
        let delivery = Delivery {
            mirrors: self.mirrors.clone(),
            tp: self.tp.clone(),
            expected: self.expected.clone(),
            parts,
            is_end: self.waiting.is_empty(),
            trouble: self.trouble.clone(),
            saved: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            unswept: self.unswept.clone(),
            fresh: self.fresh.clone(),
            again: self.again.take(),
        };
        self.flight = Some(Flight::start(covers, async move {
            let outcome = repeat(&delivery.trouble, |unsure| delivery.attempt(unsure)).await;
            (delivery, outcome)
        }));
    }

    /// Steps are done; the others come again.
    fn arrived(&mut self, delivery: Delivery, outcome: Result<Outcome, SinkError>) -> Progress {
        let done = delivery.done.into_inner();
        let mut parts = delivery.parts;
        let rest = parts.split_off(done.min(parts.len()));
        let notes: Vec<Note> =
            parts.iter_mut().flat_map(|part| std::mem::take(&mut part.notes)).collect();
        let covers = parts.pop().map_or_else(|| self.expected.clone(), |part| part.covers);
        let progress = answer(&mut self.expected, covers, outcome);
        match progress {
            Progress::Durable(_) => {
                self.noted(&notes, &rest);
                rest.into_iter().rev().for_each(|part| self.waiting.push_front(part));
                self.start_next();
            }
            _ => self.waiting.clear(),
        }
        progress
    }
}

impl ReplicaWriter {
    /// What was noted is durable.
    fn noted(&mut self, notes: &[Note], rest: &[Part]) {
        if !notes.is_empty() {
            self.mirrors.set_standing(&self.tp, |standing| rejected::keep(standing, notes));
        }
        let is_open = |part: &Part| !part.notes.is_empty();
        let open =
            !self.notes.is_empty() || rest.iter().any(is_open) || self.waiting.iter().any(is_open);
        if !self.standing.is_empty() && !open {
            self.standing = self.mirrors.standing(&self.tp);
        }
    }

    /// What keeps a dead letter from being written again as it is.
    fn judge_letter(
        &self,
        change: &Change<'_>,
        layout: &Layout,
        is_whole: bool,
    ) -> Result<(), Rejection> {
        if self.expected.schemas.key.is_some_and(|key| key != layout.key_schema_id) {
            let message = "the table has another key since: cdc resync puts the row right";
            return Err(Rejection::new("key_schema_changed", message));
        }
        if change.key_change.is_some() && !is_whole {
            let message = "a change of the primary key lacks values that went with its other \
                           half: cdc resync puts the row right";
            return Err(Rejection::new("values_missing", message));
        }
        Ok(())
    }
}

/// What ends a stop at a truncate that cannot be applied.
pub(super) const TRUNCATE_WAY_OUT: &str = "set truncate: ignore (the mirror keeps its rows), or empty the mirror by hand once every \
     partition has come as far, and skip the record";

fn several_partitions(source: &SourceTable, tp: &TopicPartition, partitions: i32) -> String {
    format!(
        "table {source} was truncated, and {} has {partitions} partitions: the order of the \
         truncate and the changes in the others is not known",
        tp.topic
    )
}

/// Which half of a change of the primary key this is, when values can be missing from it.
fn handover(
    change: &Change<'_>,
    envelope: &Envelope<'_, '_>,
    layout: &Layout,
) -> Option<(KeyChange, Move)> {
    let half = change.key_change.filter(|_| layout.may_miss_values)?;
    Some((half, Move { lsn: envelope.lsn()?, tx: envelope.tx_id()? }))
}

#[async_trait]
impl PartitionWriter for ReplicaWriter {
    fn is_one_of(&mut self, partitions: i32) {
        self.partitions = partitions;
    }

    fn has_room(&self) -> bool {
        let limits = self.mirrors.database.options.limits;
        self.records < limits.rows && self.bytes() < limits.bytes.min(MAX_BYTES)
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        // Kafka's own delete marker has no effect; and what lies below the record is in the table.
        let Some(envelope) = &change.envelope else { return Ok(()) };
        if change.offset < self.expected.next.get() && !self.is_replay {
            return Ok(());
        }
        match change.operation {
            Operation::Tombstone => Ok(()),
            Operation::Truncate if self.is_replay => {
                Err(Rejection::new("truncate", "a truncate is not sent again: cdc resync"))
            }
            Operation::Truncate => self.truncate(change, envelope),
            Operation::Create | Operation::Update | Operation::Delete | Operation::Read => {
                self.push_row(change, envelope)
            }
        }
    }

    fn flush(&mut self, covers: Position) {
        let mut pieces = std::mem::take(&mut self.open);
        self.records = 0;
        self.likely = match pieces.as_slice() {
            [Piece { work: Work::Rows(segment), .. }] => segment.sizes(),
            _ => Sizes::default(),
        };
        if pieces.is_empty() {
            pieces.push(Piece { work: Work::Nothing, first: covers.next.get() });
        }
        let ends: Vec<i64> = pieces.iter().skip(1).map(|piece| piece.first).collect();
        let mut before = self.expected.schemas;
        let mut notes = std::mem::take(&mut self.notes).into_iter().peekable();
        for (at, piece) in pieces.into_iter().enumerate() {
            before = schemas(&piece.work, before);
            let reaches = match ends.get(at).and_then(|end| NextOffset::new(*end)) {
                Some(next) => Position { next, schemas: before, ..covers.clone() },
                None => covers.clone(),
            };
            let end = reaches.next.get();
            let of_part =
                std::iter::from_fn(|| notes.next_if(|note| note.offset() < end || self.is_replay));
            let notes = of_part.collect();
            self.waiting.push_back(Part { work: piece.work, covers: reaches, notes });
        }
        self.start_next();
    }

    fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    async fn progress(&mut self) -> Progress {
        let Some(flight) = self.flight.as_mut() else {
            return std::future::pending().await;
        };
        let ended = flight.ended().await;
        self.flight = None;
        match ended {
            Ok((delivery, outcome)) => self.arrived(delivery, outcome),
            Err(why) => {
                let why = format!("the flush of {} ended early: {why}", self.tp);
                Progress::Fatal(error::internal(&self.mirrors.database.options.place, &why))
            }
        }
    }

    fn settle(&mut self, _offset: i64) -> bool {
        false
    }

    fn given_up(&mut self, offset: i64, key: Option<&[u8]>) {
        if offset < self.expected.next.get() {
            return;
        }
        self.standing.extend(key.map(<[u8]>::to_vec));
        self.notes.push(Note::Rejected { offset, key: key.map(<[u8]>::to_vec) });
    }

    fn reset(&mut self, position: Position) {
        self.flight = None;
        self.waiting.clear();
        self.open.clear();
        self.notes.clear();
        self.records = 0;
        self.expected = position;
    }
}

/// The schemas of a step that is not the last of its flush. `before`: those of the step before it.
fn schemas(work: &Work, before: SchemaIds) -> SchemaIds {
    match work {
        Work::Rows(Segment { layout, .. }) => {
            SchemaIds { key: Some(layout.key_schema_id), value: Some(layout.schema_id) }
        }
        Work::Nothing | Work::Truncate(..) => before,
    }
}
