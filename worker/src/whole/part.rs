//! One partition of a session, whether of a table or the transaction topic.

use std::collections::VecDeque;
use std::sync::Arc;

use cdc_shared::api::{HoldReport, PartitionReport, PartitionState};
use cdc_shared::offset::{NextOffset, Position, SchemaIds, TopicPartition};
use tokio::sync::mpsc;

use crate::pipeline::Shared;
use crate::pipeline::hold::{Hold, Wish};
use crate::pipeline::resolve::Question;
use crate::source::consumer::SourceCommand;
use crate::source::flow::Flow;
use crate::source::record::Record;
use crate::source::slots::{Assignment, Chunk};

/// See the module.
pub(super) struct Part {
    /// Who and where.
    pub(super) question: Question,
    /// Records as they come.
    pub(super) chunks: mpsc::Receiver<Chunk>,
    flow: Arc<Flow>,
    /// Number of the latest start: chunks of an earlier one are dropped.
    run: u64,
    /// What was fetched and not yet looked at.
    pub(super) unread: VecDeque<Record>,
    /// The log goes on here, once everything unread was read.
    pub(super) reached: Option<i64>,
    /// Records and bytes that still count against the partition's bound.
    owed: (usize, usize),
    /// Why it does not move.
    pub(super) hold: Option<Hold>,
    /// Offsets from which on the schemas are others.
    schemas: VecDeque<(i64, SchemaIds)>,
    /// Commit times at the source of what is queued: offset and Unix ms.
    times: VecDeque<(i64, i64)>,
    /// Records queued or in flight.
    pub(super) depth: u64,
    pub(super) last_flush_ms: Option<i64>,
}

impl Part {
    pub(super) fn new(assignment: Assignment) -> Self {
        Self {
            question: Question {
                tp: assignment.tp,
                epoch: assignment.epoch,
                last: None,
                partitions: 0,
                seen: 0,
                progress: assignment.progress,
            },
            chunks: assignment.chunks,
            flow: assignment.flow,
            run: 0,
            unread: VecDeque::new(),
            reached: None,
            owed: (0, 0),
            hold: None,
            schemas: VecDeque::new(),
            times: VecDeque::new(),
            depth: 0,
            last_flush_ms: None,
        }
    }

    pub(super) fn tp(&self) -> &TopicPartition {
        &self.question.tp
    }

    /// The watermark, once known.
    pub(super) fn position(&self) -> Option<&Position> {
        self.question.last.as_ref()
    }

    /// Fetches from the watermark.
    pub(super) fn start(&mut self, shared: &Shared) {
        let Some(next) = self.position().map(|position| position.next) else { return };
        self.forget();
        self.run += 1;
        let (tp, epoch, run) = (self.tp().clone(), self.question.epoch, self.run);
        shared.source.send(SourceCommand::Start { tp, epoch, next, run });
    }

    /// Stops fetching.
    pub(super) fn stop(&mut self, shared: &Shared) {
        let (tp, epoch) = (self.tp().clone(), self.question.epoch);
        shared.source.send(SourceCommand::Hold { tp, epoch });
        self.run += 1;
        self.forget();
    }

    fn forget(&mut self) {
        self.settle_debts();
        self.unread.clear();
        self.reached = None;
        self.schemas.clear();
        self.times.clear();
        self.depth = 0;
        while let Ok(chunk) = self.chunks.try_recv() {
            self.discard(&chunk);
        }
    }

    fn discard(&self, chunk: &Chunk) {
        let bytes = chunk.records.iter().map(Record::weight).sum();
        self.flow.leave(chunk.records.len(), bytes);
    }

    /// Takes what came. It counts against the bound until [`Part::settle_debts`].
    pub(super) fn take(&mut self, chunk: Chunk) {
        if chunk.run != self.run {
            return self.discard(&chunk);
        }
        self.owed.0 += chunk.records.len();
        self.owed.1 += chunk.records.iter().map(Record::weight).sum::<usize>();
        self.depth += chunk.records.len() as u64;
        if !chunk.records.is_empty() {
            self.reached = None;
        }
        self.unread.extend(chunk.records);
        if let Some(reached) = chunk.reached {
            self.reached = Some(reached.get());
        }
    }

    /// More may be fetched.
    pub(super) fn settle_debts(&mut self) {
        let (records, bytes) = std::mem::take(&mut self.owed);
        self.flow.leave(records, bytes);
    }

    /// Remembers what a record says of itself, for the moment when it is durable.
    pub(super) fn note(&mut self, offset: i64, schemas: SchemaIds, source_ms: Option<i64>) {
        if self.schemas.back().is_none_or(|(_, known)| *known != schemas) {
            self.schemas.push_back((offset, schemas));
        }
        if let Some(at) = source_ms
            && self.times.back().is_none_or(|(_, known)| *known != at)
        {
            self.times.push_back((offset, at));
        }
    }

    /// The schemas of the key between two offsets.
    pub(super) fn key_schemas(&self, (first, last): (i64, i64)) -> impl Iterator<Item = i32> {
        let starts = self.schemas.iter().map(|(offset, _)| *offset).skip(1).chain([i64::MAX]);
        let spans = self.schemas.iter().zip(starts);
        spans
            .filter(move |((from, _), until)| *from <= last && first < *until)
            .filter_map(|((_, schemas), _)| schemas.key)
    }

    /// The position behind `next`.
    pub(super) fn covers(&self, next: i64) -> Option<Position> {
        let position = self.position()?;
        let next = NextOffset::new(next)?.max(position.next);
        let mut schemas = position.schemas;
        for (_, found) in self.schemas.iter().take_while(|(offset, _)| *offset < next.get()) {
            schemas.key = found.key.or(schemas.key);
            schemas.value = found.value.or(schemas.value);
        }
        Some(Position { next, schemas, ..position.clone() })
    }

    /// The watermark moves.
    pub(super) fn advance(&mut self, position: Position) {
        let next = position.next.get();
        while self.schemas.get(1).is_some_and(|(offset, _)| *offset < next) {
            self.schemas.pop_front();
        }
        while self.times.get(1).is_some_and(|(offset, _)| *offset < next) {
            self.times.pop_front();
        }
        if self.depth == 0 {
            self.times.clear();
        }
        self.question.progress.set(position.clone());
        self.question.last = Some(position);
        self.last_flush_ms = Some(cdc_shared::clock::unix_ms());
    }

    /// What an operator wants of it.
    pub(super) fn is_released(&self, shared: &Shared) -> bool {
        let control = shared.control.borrow().state.clone();
        let wish = self.wish(shared, &control);
        self.hold.as_ref().is_some_and(|hold| hold.is_released(&wish))
    }

    /// Whether a rewind or a restart asks for a new search for the start.
    pub(super) fn starts_anew(&self, shared: &Shared) -> bool {
        let control = shared.control.borrow().state.clone();
        self.wish(shared, &control).starts_anew()
    }

    fn wish<'a>(
        &'a self,
        shared: &'a Shared,
        control: &'a cdc_shared::control::ControlState,
    ) -> Wish<'a> {
        Wish {
            control,
            directive: shared.directive(self.tp()).state,
            sink: &shared.sink_id,
            tp: self.tp(),
            position: self.position(),
            seen: self.question.seen,
        }
    }

    /// Publishes its state.
    pub(super) fn report(&self, shared: &Shared, state: PartitionState, hold: Option<&HoldReport>) {
        let report = PartitionReport {
            topic: self.tp().topic.to_string(),
            partition: self.tp().partition,
            position: self.question.last.clone(),
            state,
            hold: hold.cloned(),
            queue_depth: self.depth,
            last_flush_ms: self.last_flush_ms,
            next_source_ms: self.times.front().map(|(_, at)| *at),
        };
        shared.status.report(self.tp(), report);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.forget();
    }
}
