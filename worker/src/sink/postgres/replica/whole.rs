//! Whole transactions of the source: the changes of all partitions in one transaction.
//!
//! The records of the partitions are moved first, in one order for everybody, so that a second
//! live copy of this worker waits at the first of them. Then each partition's rows are written
//! piece by piece. Where a primary key went from one partition to another, the piece that needs a
//! value waits for the one that saves it: it is tried again when the others have come further, each
//! time from a savepoint.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use cdc_shared::backoff::RetryPolicy;
use cdc_shared::envelope::Placeholder;
use cdc_shared::offset::TopicPartition;
use deadpool_postgres::{Object, Transaction};

use super::deliver::{Sorted, Work, Written};
use super::layout::Layout;
use super::mirror::Mirrors;
use super::moved::{self, Handing};
use super::segment::{Segment, row_missing_text};
use super::several::write_rows;
use super::statement::Accepted;
use super::writer::ReplicaWriter;
use crate::change::Change;
use crate::sink::postgres::database::Connection;
use crate::sink::postgres::error;
use crate::sink::postgres::progress::Step;
use crate::sink::postgres::statement::compare_and_set;
use crate::sink::retry::TroubleReporter;
use crate::sink::whole::{ChangeReader, Delivered, Portion, Unread, WholeSink};
use crate::sink::{Disposition, PartitionWriter, Rejection, SinkError};

/// See the module.
pub(super) struct WholeWriter {
    mirrors: Arc<Mirrors>,
    placeholder: Arc<Placeholder>,
}

/// Mirrors that are ready for this delivery, by topic, value schema and key schema.
type Ready = HashMap<(Arc<str>, i32, i32), Arc<Accepted>>;

/// What a delivery is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// To deliver.
    Commit,
    /// To find the record that the server refuses; all of it is rolled back.
    OneByOne,
}

/// Why an attempt ended without a commit.
enum Halt {
    Error(SinkError),
    /// A compare-and-set missed.
    Missed,
    Rejected {
        tp: TopicPartition,
        offset: i64,
        rejection: Rejection,
    },
    /// A mirror must be brought up to a layout first, which is a transaction of its own.
    Prepare {
        tp: TopicPartition,
        layout: Arc<Layout>,
        previous: Option<i32>,
    },
}

impl From<SinkError> for Halt {
    fn from(error: SinkError) -> Self {
        Self::Error(error)
    }
}

/// One partition's way through a delivery.
struct Lane<'p> {
    portion: &'p Portion,
    reader: Option<Box<dyn ChangeReader + 'p>>,
    encoder: ReplicaWriter,
    pieces: VecDeque<Segment>,
    /// Schema of the latest rows that were written or are about to be.
    schema: Option<i32>,
    /// Whether what the keys of the first piece leave was saved early.
    saved: bool,
    /// Offset of the last change that was encoded.
    offset: i64,
    /// Whether each piece is one change.
    single: bool,
}

impl WholeWriter {
    pub(super) fn new(mirrors: Arc<Mirrors>, placeholder: Arc<Placeholder>) -> Self {
        Self { mirrors, placeholder }
    }

    async fn run(
        &self,
        portions: &[Portion],
        unsure: bool,
        mode: Mode,
    ) -> Result<Delivered, SinkError> {
        let mut ready = Ready::new();
        loop {
            let doing = "delivering transactions";
            let mut connection = self.mirrors.database.connection(doing).await?;
            let mut lanes = self.lanes(portions, mode);
            let ended = match self.prepare(&mut connection, &mut lanes, &mut ready).await {
                Ok(()) => connection
                    .long(async |client| self.attempt(client, &mut lanes, &ready, mode).await)
                    .await
                    .unwrap_or(Err(Halt::Missed)),
                Err(halt) => Err(halt),
            };
            drop(lanes);
            match ended {
                Ok(()) => return Ok(Delivered::Durable),
                Err(Halt::Error(error)) => return Err(self.explain(portions, error)),
                Err(Halt::Missed) => return self.missed(portions, unsure).await,
                Err(Halt::Rejected { tp, offset, rejection }) => {
                    return Ok(Delivered::Rejected { tp, offset, rejection });
                }
                Err(Halt::Prepare { tp, layout, previous }) => {
                    // The connection before went with its transaction.
                    drop(connection);
                    let mut connection = self.mirrors.database.connection(doing).await?;
                    self.accept(&mut connection, &tp, &layout, previous, &mut ready).await?;
                }
            }
        }
    }

    /// What can be known before the transaction begins is not found out within it.
    async fn prepare(
        &self,
        connection: &mut Connection<'_>,
        lanes: &mut [Lane<'_>],
        ready: &mut Ready,
    ) -> Result<(), Halt> {
        for lane in lanes {
            lane.fill()?;
            if let Err(Halt::Prepare { tp, layout, previous }) = lane.is_ready(ready) {
                self.accept(connection, &tp, &layout, previous, ready).await?;
            }
        }
        Ok(())
    }

    async fn accept(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        layout: &Arc<Layout>,
        previous: Option<i32>,
        ready: &mut Ready,
    ) -> Result<(), SinkError> {
        let accepted = self.mirrors.accepted(connection, tp, layout, previous).await?;
        ready.insert(key(tp, layout), accepted);
        Ok(())
    }

    fn lanes<'p>(&self, portions: &'p [Portion], mode: Mode) -> Vec<Lane<'p>> {
        let mut lanes: Vec<_> = portions
            .iter()
            .map(|portion| {
                // The encoder sends nothing and has no trouble.
                let (trouble, _) = TroubleReporter::new(RetryPolicy::default(), false);
                let (mirrors, placeholder) = (self.mirrors.clone(), self.placeholder.clone());
                let (tp, expected) = (portion.tp.clone(), portion.expected.clone());
                Lane {
                    portion,
                    reader: portion.changes.as_ref().map(|changes| changes.reader()),
                    encoder: ReplicaWriter::new(mirrors, placeholder, tp, expected, trouble),
                    pieces: VecDeque::new(),
                    schema: portion.expected.schemas.value,
                    saved: false,
                    offset: 0,
                    single: mode == Mode::OneByOne,
                }
            })
            .collect();
        lanes.sort_by(|a, b| a.portion.tp.cmp(&b.portion.tp));
        lanes
    }

    async fn attempt(
        &self,
        client: &mut Object,
        lanes: &mut [Lane<'_>],
        ready: &Ready,
        mode: Mode,
    ) -> Result<(), Halt> {
        let database = &self.mirrors.database;
        let doing = "delivering transactions";
        let mut transaction = database.in_time(doing, client.transaction()).await?;
        for lane in lanes.iter() {
            self.advance(&transaction, lane, ready).await?;
        }
        let mut touched = Vec::new();
        loop {
            let mut progressed = false;
            self.save_early(&transaction, lanes, ready).await?;
            for lane in lanes.iter_mut() {
                progressed |= self.write(&mut transaction, lane, ready, &mut touched).await?;
            }
            if lanes.iter().all(Lane::is_done) {
                break;
            }
            if !progressed {
                return Err(Halt::Error(self.row_missing(lanes)));
            }
        }
        if mode == Mode::Commit {
            database.in_time("committing transactions", transaction.commit()).await?;
            self.sweep(client, &touched).await
        } else {
            Ok(database.in_time(doing, transaction.rollback()).await?)
        }
    }

    /// Moves the record of a partition; its mirror must be the table that was accepted.
    async fn advance(
        &self,
        transaction: &Transaction<'_>,
        lane: &Lane<'_>,
        ready: &Ready,
    ) -> Result<(), Halt> {
        let database = &self.mirrors.database;
        let Portion { tp, expected, covers, .. } = lane.portion;
        let step = Step::new(&database.options, tp, expected, covers);
        let first = lane.pieces.front().and_then(|piece| ready.get(&key(tp, &piece.layout)));
        let sql = match first {
            Some(accepted) => accepted.advance.clone(),
            None => compare_and_set(&database.options),
        };
        let moved = async {
            let statement = transaction.prepare_cached(&sql).await?;
            transaction.execute(&statement, &step.parameters()).await
        };
        match database.in_time(&format!("moving the position of {tp}"), moved).await? {
            1 => Ok(()),
            _ => Err(Halt::Missed),
        }
    }

    /// Saves what keys leave, where a piece both waits and is waited for.
    async fn save_early(
        &self,
        transaction: &Transaction<'_>,
        lanes: &mut [Lane<'_>],
        ready: &Ready,
    ) -> Result<(), Halt> {
        for lane in lanes {
            let Some(piece) = lane.pieces.front().filter(|_| !lane.saved) else { continue };
            let Some(accepted) = ready.get(&key(&lane.portion.tp, &piece.layout)) else { continue };
            let handing = self.handing(&lane.portion.tp, accepted, piece);
            if piece.leaves() {
                let doing = format!("saving moved rows of {}", piece.layout.target);
                self.mirrors.database.in_time(&doing, handing.save(transaction, false)).await?;
            }
            lane.saved = true;
        }
        Ok(())
    }

    fn handing<'h>(
        &'h self,
        tp: &'h TopicPartition,
        accepted: &'h Accepted,
        segment: &'h Segment,
    ) -> Handing<'h> {
        Handing { options: &self.mirrors.database.options, topic: &tp.topic, accepted, segment }
    }

    /// Writes pieces of a partition until one has to wait. `true`: some were written.
    async fn write(
        &self,
        transaction: &mut Transaction<'_>,
        lane: &mut Lane<'_>,
        ready: &Ready,
        touched: &mut Vec<(TopicPartition, Arc<Accepted>)>,
    ) -> Result<bool, Halt> {
        let mut progressed = false;
        loop {
            lane.fill()?;
            lane.is_ready(ready)?;
            let Some(piece) = lane.pieces.front() else { return Ok(progressed) };
            let tp = &lane.portion.tp;
            let Some(accepted) = ready.get(&key(tp, &piece.layout)) else { return Ok(progressed) };
            let doing = format!("writing {} changes to {}", piece.records(), piece.layout.target);
            let handing = self.handing(tp, accepted, piece);
            let written = async {
                let sorted = Sorted::of(piece);
                if !sorted.moves {
                    return write_rows(transaction, &handing, &sorted).await;
                }
                // The record has been moved, so it is there that it is expected.
                let Portion { tp, covers, .. } = lane.portion;
                let options = &self.mirrors.database.options;
                let step = Step::new(options, tp, covers, covers);
                if !handing.is_ready(&*transaction, &step).await? {
                    return Ok(Written::TooEarly);
                }
                let attempt = transaction.transaction().await?;
                let written = write_rows(&attempt, &handing, &sorted).await?;
                match written {
                    Written::Hit => attempt.commit().await?,
                    _ => attempt.rollback().await?,
                }
                Ok(written)
            };
            let written = self.mirrors.database.in_time(&doing, written).await;
            match written.map_err(|error| lane.blame(error))? {
                Written::Hit => {}
                Written::TooEarly => return Ok(progressed),
                Written::RowMissing => return Err(lane.blame(self.missing(&piece.layout))),
                Written::Missed => return Err(Halt::Missed),
            }
            if !touched.iter().any(|(of, _)| of.topic == tp.topic) {
                touched.push((tp.clone(), accepted.clone()));
            }
            lane.schema = Some(piece.layout.schema_id);
            lane.pieces.pop_front();
            lane.saved = false;
            progressed = true;
        }
    }

    /// Removes the handovers that are complete.
    async fn sweep(
        &self,
        client: &Object,
        touched: &[(TopicPartition, Arc<Accepted>)],
    ) -> Result<(), Halt> {
        for (tp, _) in touched.iter().filter(|(_, a)| a.layout.may_miss_values) {
            let swept = moved::sweep(&self.mirrors.database.options, &tp.topic, client);
            // The rows are in: what is left over is swept with the next ones.
            if let Err(error) = self.mirrors.database.in_time("sweeping moved rows", swept).await {
                tracing::debug!(%error, "sweep");
            }
        }
        Ok(())
    }

    fn missing(&self, layout: &Layout) -> SinkError {
        let (why, cure) = row_missing_text(layout);
        let error = error::refused(&self.mirrors.database.options.place, "row_missing", &why, cure);
        SinkError { disposition: Disposition::RejectAndStop, ..error }
    }

    fn row_missing(&self, lanes: &[Lane<'_>]) -> SinkError {
        let piece = lanes.iter().find_map(|lane| lane.pieces.front());
        piece.map_or_else(
            || error::internal(&self.mirrors.database.options.place, "a delivery without end"),
            |piece| self.missing(&piece.layout),
        )
    }

    /// A compare-and-set missed: another wrote, it was us, or the table is another one.
    async fn missed(&self, portions: &[Portion], unsure: bool) -> Result<Delivered, SinkError> {
        let database = &self.mirrors.database;
        let mut connection: Connection<'_> = database.connection("reading positions").await?;
        let (mut arrived, mut unmoved) = (true, true);
        for Portion { tp, expected, covers, .. } in portions {
            arrived &= connection.has_arrived(tp, covers).await?;
            unmoved &= connection.has_arrived(tp, expected).await?;
        }
        if unsure && arrived {
            return Ok(Delivered::Durable);
        }
        if !unmoved {
            return Ok(Delivered::Moved);
        }
        self.forget(portions);
        Err(error::changed(&database.options.place, "the mirrors"))
    }

    fn explain(&self, portions: &[Portion], error: SinkError) -> SinkError {
        if error.code.starts_with("sqlstate_42") || error.code.starts_with("sqlstate_0A") {
            self.forget(portions);
        }
        error
    }

    /// The next attempt judges the tables anew.
    fn forget(&self, portions: &[Portion]) {
        for portion in portions {
            self.mirrors.forget(&portion.tp.topic);
        }
    }
}

#[async_trait]
impl WholeSink for WholeWriter {
    async fn deliver(&self, portions: &[Portion], unsure: bool) -> Result<Delivered, SinkError> {
        self.run(portions, unsure, Mode::Commit).await
    }

    async fn culprit(
        &self,
        portions: &[Portion],
    ) -> Result<Option<(TopicPartition, i64)>, SinkError> {
        match self.run(portions, false, Mode::OneByOne).await? {
            Delivered::Rejected { tp, offset, .. } => Ok(Some((tp, offset))),
            Delivered::Durable | Delivered::Moved => Ok(None),
        }
    }
}

fn key(tp: &TopicPartition, layout: &Layout) -> (Arc<str>, i32, i32) {
    (tp.topic.clone(), layout.schema_id, layout.key_schema_id)
}

impl Lane<'_> {
    /// Encodes as much as fits into a batch, once all before it is written.
    fn fill(&mut self) -> Result<(), Halt> {
        if !self.pieces.is_empty() {
            return Ok(());
        }
        let Some(reader) = self.reader.as_mut() else { return Ok(()) };
        let (encoder, last) = (&mut self.encoder, &mut self.offset);
        let mut more = true;
        let mut taken = 0;
        while more && encoder.has_room() && !(self.single && taken > 0) {
            let mut take = |change: &Change<'_>| {
                *last = change.offset;
                taken += 1;
                encoder.push(change)
            };
            more = reader.next(&mut take).map_err(|why| match why {
                Unread::Rejected { offset, rejection } => {
                    Halt::Rejected { tp: self.portion.tp.clone(), offset, rejection }
                }
                Unread::Lost(why) => Halt::Error(SinkError {
                    code: "spill_unreadable".to_owned(),
                    message: format!("reading a spilled transaction: {why}"),
                    hint: Some("look after the disk of the worker's spill_directory".to_owned()),
                    disposition: Disposition::Moved,
                    source: None,
                }),
            })?;
        }
        if !more {
            self.reader = None;
        }
        for work in encoder.take_open() {
            match work {
                Work::Rows(segment) => self.pieces.push_back(segment),
                // `truncate: apply` and this mode exclude each other.
                Work::Nothing | Work::Truncate(..) => {}
            }
        }
        Ok(())
    }

    /// A piece of one change names it.
    fn blame(&self, error: SinkError) -> Halt {
        let rejects = matches!(error.disposition, Disposition::Reject | Disposition::RejectAndStop);
        if !(self.single && rejects) {
            return Halt::Error(error);
        }
        let rejection = Rejection::new("refused", error.message);
        Halt::Rejected { tp: self.portion.tp.clone(), offset: self.offset, rejection }
    }

    fn is_done(&self) -> bool {
        self.pieces.is_empty() && self.reader.is_none()
    }

    /// Whether the mirror is ready for the first piece.
    fn is_ready(&self, ready: &Ready) -> Result<(), Halt> {
        let Some(piece) = self.pieces.front() else { return Ok(()) };
        let tp = &self.portion.tp;
        if ready.contains_key(&key(tp, &piece.layout)) {
            return Ok(());
        }
        let (tp, layout, previous) = (tp.clone(), piece.layout.clone(), self.schema);
        Err(Halt::Prepare { tp, layout, previous })
    }
}
