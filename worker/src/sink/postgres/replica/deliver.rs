//! The next steps of a flush, from the first attempt to the answer: one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cdc_shared::offset::{Position, TopicPartition};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::fresh::Fresh;
use super::layout::Layout;
use super::mirror::Mirrors;
use super::moved;
use super::naming::SourceTable;
use super::param::ColumnParam;
use super::record;
use super::rejected::{Again, Note, Place};
use super::segment::{Segment, State, row_missing_text};
use super::statement::Accepted;
use super::writer::TRUNCATE_WAY_OUT;
use crate::sink::name::TableName;
use crate::sink::postgres::database::{Connection, is_same};
use crate::sink::postgres::error;
use crate::sink::postgres::flight::Outcome;
use crate::sink::postgres::progress::{self, Step};
use crate::sink::postgres::statement::compare_and_set;
use crate::sink::retry::TroubleReporter;
use crate::sink::{Disposition, SinkError};

/// Shortest and longest pause before a look whether another process has saved what a change of the
/// primary key left; between them a quarter of the time waited so far.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long a partition waits for another before it says so, and how often then.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Most steps in one transaction.
pub(super) const MAX_STEPS: usize = 64;

/// A step of a flush.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) work: Work,
    /// The position that it reaches.
    pub(super) covers: Position,
    /// What it has to do with rejected records.
    pub(super) notes: Vec<Note>,
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Work {
    /// Nothing but the position.
    Nothing,
    /// Rows.
    Rows(Segment),
    /// The mirror is emptied.
    Truncate(SourceTable, TableName),
}

impl Work {
    /// Whether it can share a transaction with the step before it.
    pub(super) fn follows(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Rows(this), Self::Rows(before)) => Arc::ptr_eq(&this.layout, &before.layout),
            _ => false,
        }
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        match self {
            Self::Rows(segment) => Some(&segment.layout),
            Self::Nothing | Self::Truncate(..) => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) mirrors: Arc<Mirrors>,
    pub(super) tp: TopicPartition,
    pub(super) expected: Position,
    /// What may be written in this transaction: at least the first.
    pub(super) parts: Vec<Part>,
    /// Whether the flush ends with them.
    pub(super) is_end: bool,
    pub(super) trouble: TroubleReporter,
    /// Whether what the keys of the first segment leave was saved early.
    pub(super) saved: AtomicBool,
    /// How many parts the last attempt wrote.
    pub(super) done: AtomicUsize,
    /// Whether there can be entries in `cdc_moved_rows` that are done with.
    pub(super) unswept: Arc<AtomicBool>,
    /// Whether rows that are new need no look for older ones.
    pub(super) fresh: Arc<Fresh>,
    /// The one row is a dead letter.
    pub(super) again: Option<Again>,
}

/// What came of a transaction.
#[derive(Debug)]
pub(super) enum Written {
    Hit,
    Missed,
    /// Rolled back: the other half of a change of the primary key is not there yet.
    TooEarly,
    /// Rolled back: a row that was to be updated in part is not there.
    RowMissing,
}

impl Written {
    pub(super) fn of(hit: bool) -> Self {
        if hit { Self::Hit } else { Self::Missed }
    }
}

/// A segment's rows by what is to be done.
pub(super) struct Sorted {
    pub(super) deleted: Vec<u32>,
    pub(super) whole: Vec<u32>,
    /// Rows that leave the same columns as they are.
    pub(super) partial: Vec<(Vec<usize>, Vec<u32>)>,
    pub(super) moves: bool,
    /// Whether all whole rows are new, as the source says.
    is_new: bool,
}

impl Sorted {
    pub(super) fn of(segment: &Segment) -> Self {
        let mut sorted = Self {
            deleted: Vec::new(),
            whole: Vec::new(),
            partial: Vec::new(),
            moves: false,
            is_new: true,
        };
        for at in segment.sorted() {
            let Some(row) = segment.rows().get(at as usize) else { continue };
            sorted.moves |= row.left_by.is_some() || row.reached_by.is_some();
            if row.state == State::Absent {
                sorted.deleted.push(at);
                continue;
            }
            if !row.is_short {
                sorted.whole.push(at);
                sorted.is_new &= row.is_new;
            } else if row.reached_by.is_none() {
                let missing = segment.missing(at);
                match sorted.partial.iter_mut().find(|(group, _)| *group == missing) {
                    Some((_, rows)) => rows.push(at),
                    None => sorted.partial.push((missing, vec![at])),
                }
            }
        }
        sorted
    }
}

pub(super) fn params<'p>(
    segment: &'p Segment,
    rows: &'p [u32],
    columns: &[usize],
) -> Vec<ColumnParam<'p>> {
    columns.iter().map(|column| ColumnParam { segment, rows, column: *column }).collect()
}

pub(super) fn refs<'p>(params: &'p [ColumnParam<'_>]) -> Vec<&'p (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

fn is_unique_violation(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

impl Delivery {
    /// One attempt. `unsure`: an earlier one may have been taken though its answer was lost.
    pub(super) async fn attempt(&self, unsure: bool) -> Result<Outcome, SinkError> {
        if let Some(again) = &self.again {
            return self.write_again(again).await;
        }
        let (began, mut told) = (Instant::now(), 0);
        let mut saves = self.mirrors.saves.subscribe();
        loop {
            saves.borrow_and_update();
            if let Some(outcome) = self.try_once(unsure).await? {
                return Ok(outcome);
            }
            // A partition of this process wakes us, one of another does not.
            let pause = (began.elapsed() / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            let _ = tokio::time::timeout(pause, saves.changed()).await;
            if began.elapsed() >= TOLD_EVERY * (told + 1) {
                told += 1;
                self.trouble.tell(&self.waiting(), told);
            }
        }
    }

    fn waiting(&self) -> SinkError {
        SinkError {
            code: "waiting_for_moved_row".to_owned(),
            message: format!(
                "{} has a row under its new key, and the partition of its old key is behind",
                self.tp
            ),
            hint: Some("if that partition is held, see there".to_owned()),
            disposition: Disposition::Retry(None),
            source: None,
        }
    }

    /// `None`: too early.
    async fn try_once(&self, unsure: bool) -> Result<Option<Outcome>, SinkError> {
        let Some(Part { work, covers, notes }) = self.parts.first() else {
            return Ok(Some(Outcome::Durable));
        };
        let database = &self.mirrors.database;
        let mut connection = database.connection(&format!("delivering {}", self.tp)).await?;
        self.done.store(1, Ordering::Relaxed);
        let written = match work {
            Work::Nothing if !notes.is_empty() => {
                self.note_only(&mut connection, covers, notes).await
            }
            Work::Nothing => {
                let step = Step::new(&database.options, &self.tp, &self.expected, covers);
                connection.step(&step).await.map(Written::of)
            }
            Work::Rows(segment) => self.write(&mut connection, segment, covers).await,
            Work::Truncate(source, target) => {
                self.empty(&mut connection, source, target, (covers, notes)).await
            }
        };
        match written {
            Ok(Written::Hit) => self.sweep(&mut connection).await.map(Some),
            Ok(Written::TooEarly) => Ok(None),
            Ok(Written::Missed) => self.missed(connection, work, unsure).await.map(Some),
            Ok(Written::RowMissing) => Err(self.row_missing(work)),
            Err(error) => Err(self.explain(connection, error).await),
        }
    }

    /// Once at the end of a flush: removes what is done with of the changes of keys.
    async fn sweep(&self, connection: &mut Connection<'_>) -> Result<Outcome, SinkError> {
        let is_end = self.is_end && self.done.load(Ordering::Relaxed) == self.parts.len();
        if is_end && self.unswept.swap(false, Ordering::Relaxed) {
            let options = &self.mirrors.database.options;
            let doing = format!("sweeping {}", moved::table(options));
            let sweep =
                async |client: &mut Object| moved::sweep(options, &self.tp.topic, client).await;
            connection.run(&doing, sweep).await?;
        }
        Ok(Outcome::Durable)
    }

    async fn write(
        &self,
        connection: &mut Connection<'_>,
        segment: &Segment,
        covers: &Position,
    ) -> Result<Written, SinkError> {
        let layout = &segment.layout;
        self.check_key(connection, layout).await?;
        let previous = self.expected.schemas.value;
        let accepted = self.mirrors.accepted(connection, &self.tp, layout, previous).await?;
        if self.parts.len() > 1 || segment.moves() || self.has_notes() {
            return self.several(connection, &accepted).await;
        }
        let sorted = Sorted::of(segment);
        if sorted.partial.is_empty() {
            self.at_once(connection, &accepted, segment, &sorted, covers).await
        } else {
            self.several(connection, &accepted).await
        }
    }

    pub(super) fn doing(segment: &Segment) -> String {
        format!("writing {} changes to {}", segment.records(), segment.layout.target)
    }

    /// The common case: one statement.
    async fn at_once(
        &self,
        connection: &mut Connection<'_>,
        accepted: &Accepted,
        segment: &Segment,
        sorted: &Sorted,
        covers: &Position,
    ) -> Result<Written, SinkError> {
        let options = &self.mirrors.database.options;
        let step = Step::new(options, &self.tp, &self.expected, covers);
        let deleted = params(segment, &sorted.deleted, &accepted.layout.key);
        let whole = params(segment, &sorted.whole, &accepted.written_columns());
        let parameters: Vec<_> =
            step.parameters().into_iter().chain(refs(&deleted)).chain(refs(&whole)).collect();
        let inserts = sorted.is_new && !sorted.whole.is_empty() && self.fresh.may_insert();
        let exchange = async |client: &mut Object| {
            let write = async |statement: &str| {
                let statement = client.prepare_cached(statement).await?;
                let moved: i64 = client.query_one(&statement, &parameters).await?.try_get(0)?;
                Ok(Written::of(moved == 1))
            };
            if !inserts {
                return write(&accepted.write).await;
            }
            match write(&accepted.insert).await {
                // One of the rows is there already: nothing was done.
                Err(error) if is_unique_violation(&error) => {
                    self.fresh.was_refused();
                    write(&accepted.write).await
                }
                written => {
                    self.fresh.went_well();
                    written
                }
            }
        };
        connection.run(&Self::doing(segment), exchange).await
    }

    async fn empty(
        &self,
        connection: &mut Connection<'_>,
        source: &SourceTable,
        target: &TableName,
        (covers, notes): (&Position, &[Note]),
    ) -> Result<Written, SinkError> {
        let options = &self.mirrors.database.options;
        if self.has_siblings(connection).await? {
            let why = format!(
                "table {source} was truncated, and {} has more than one partition: the order of \
                 the truncate and the changes in the others is not known",
                self.tp.topic
            );
            let cure = TRUNCATE_WAY_OUT.to_owned();
            let error = error::refused(&options.place, "truncate", &why, cure);
            return Err(SinkError { disposition: Disposition::RejectAndStop, ..error });
        }
        let step = Step::new(options, &self.tp, &self.expected, covers);
        let exchange = async |client: &mut Object| {
            let transaction = client.transaction().await?;
            let hit =
                transaction.execute(&compare_and_set(options), &step.parameters()).await? == 1;
            // Without a record there is no mirror yet.
            let is_mirror = record::read(&transaction, options, &self.tp, target).await?.is_some();
            if hit && is_mirror {
                transaction.batch_execute(&format!("TRUNCATE {target}")).await?;
            }
            if hit {
                self.place().note(&transaction, notes).await?;
            }
            finish(transaction, Written::of(hit)).await
        };
        connection.run(&format!("emptying {target}"), exchange).await
    }

    fn has_notes(&self) -> bool {
        self.parts.iter().any(|part| !part.notes.is_empty())
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { options: &self.mirrors.database.options, tp: &self.tp, at: &self.expected }
    }

    /// The record moves past rejected records and nothing else.
    async fn note_only(
        &self,
        connection: &mut Connection<'_>,
        covers: &Position,
        notes: &[Note],
    ) -> Result<Written, SinkError> {
        let options = &self.mirrors.database.options;
        let step = Step::new(options, &self.tp, &self.expected, covers);
        let exchange = async |client: &mut Object| {
            let transaction = client.transaction().await?;
            let sql = compare_and_set(options);
            let hit = transaction.execute(&sql, &step.parameters()).await? == 1;
            if hit {
                self.place().note(&transaction, notes).await?;
            }
            finish(transaction, Written::of(hit)).await
        };
        connection.run(&format!("moving the position in {}", options.progress), exchange).await
    }

    async fn has_siblings(&self, connection: &mut Connection<'_>) -> Result<bool, SinkError> {
        let options = &self.mirrors.database.options;
        let exchange =
            async |client: &mut Object| progress::has_siblings(client, options, &self.tp).await;
        connection.run(&format!("reading {}", options.progress), exchange).await
    }

    /// A new schema of the key moves keys to other partitions: their order is not known then.
    async fn check_key(
        &self,
        connection: &mut Connection<'_>,
        layout: &Layout,
    ) -> Result<(), SinkError> {
        let (new, old) = (layout.key_schema_id, self.expected.schemas.key);
        let Some(old) = old.filter(|old| *old != new) else { return Ok(()) };
        if !self.has_siblings(connection).await? {
            return Ok(());
        }
        let options = &self.mirrors.database.options;
        let why = format!(
            "the key of table {} has a new schema ({old}, now {new}): its rows come in other \
             partitions than before, and those may not have come as far",
            layout.source
        );
        let cure = format!(
            "wait until every partition of the topic is held by this or has nothing left (cdc \
             status), then UPDATE {} SET key_schema = {new} WHERE pipeline_id = '{}' AND sink_id = \
             '{}' AND topic = '{}' AND key_schema = {old}",
            options.progress, options.pipeline_id, options.sink_id, self.tp.topic
        );
        Err(error::refused(&options.place, "key_schema_changed", &why, cure))
    }

    pub(super) fn row_missing(&self, work: &Work) -> SinkError {
        let place = &self.mirrors.database.options.place;
        let (why, cure) = work.layout().map(|layout| row_missing_text(layout)).unwrap_or_default();
        let error = error::refused(place, "row_missing", &why, cure);
        SinkError { disposition: Disposition::RejectAndStop, ..error }
    }

    /// The compare-and-set missed.
    async fn missed(
        &self,
        mut connection: Connection<'_>,
        work: &Work,
        unsure: bool,
    ) -> Result<Outcome, SinkError> {
        // After a lost answer the record may be ours.
        if unsure && let Some(found) = connection.read(&self.tp).await? {
            let ours = |part: &Part| is_same(&found, &part.covers);
            if let Some(last) = self.parts.iter().position(ours) {
                self.done.store(last + 1, Ordering::Relaxed);
                return Ok(Outcome::Durable);
            }
        }
        let Some(layout) = work.layout() else { return Ok(Outcome::Moved) };
        if !connection.has_arrived(&self.tp, &self.expected).await? {
            return Ok(Outcome::Moved);
        }
        // The record is as it was: then the table is another one.
        self.mirrors.forget(&self.tp.topic);
        let previous = self.expected.schemas.value;
        self.mirrors.accepted(&mut connection, &self.tp, layout, previous).await?;
        let place = &self.mirrors.database.options.place;
        Err(error::changed(place, &layout.target.to_string()))
    }

    /// What a server's refusal means when the tables are looked at again.
    pub(super) async fn explain(
        &self,
        mut connection: Connection<'_>,
        error: SinkError,
    ) -> SinkError {
        if error.code.starts_with("sqlstate_42") || error.code.starts_with("sqlstate_0A") {
            // The next attempt, or the one after an operator's resume, judges the table anew.
            self.mirrors.forget(&self.tp.topic);
        }
        if error.code == "sqlstate_42P01" {
            let progress = &self.mirrors.database.options.progress;
            return match connection.find(progress).await {
                // Without its record the sink has no position: the reader of it decides.
                Ok(None) => SinkError { disposition: Disposition::Moved, ..error },
                _ => error,
            };
        }
        error
    }
}

pub(super) async fn finish(
    transaction: Transaction<'_>,
    written: Written,
) -> Result<Written, tokio_postgres::Error> {
    match written {
        Written::Hit => transaction.commit().await?,
        _ => transaction.rollback().await?,
    }
    Ok(written)
}
