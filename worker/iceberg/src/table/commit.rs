//! One commit: the rows of several partitions and their positions, in one snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_shared::config::IcebergWriteMode as WriteMode;
use cdc_shared::offset::{Position, TopicPartition};
use iceberg::spec::{DataFile, FormatVersion, Schema, Struct, TableMetadata};

use super::current::{Changed, Loaded, discard};
use super::evolve::Evolving;
use super::index::PartitionIndex;
use super::merge::{Merged, Planned};
use super::next::Next;
use super::offsets::{self, Keyed, Stored};
use super::partition;
use super::stage::Added;
use super::write::{self, Content};
use super::{LakeTable, give_way};
use crate::error::{Kind, LakeError, Result};
use crate::rows::Segment;
use crate::upsert::RawKey;

/// How often in a row a commit gives way to others before it says so.
const TURNS: u32 = 20;

/// The share of one partition.
#[derive(Debug)]
pub struct Part {
    /// The partition.
    pub tp: TopicPartition,
    /// What the table holds of it, as last read or written.
    pub expected: Position,
    /// What it holds then.
    pub covers: Position,
    /// The rows between the two.
    pub segments: Vec<Arc<Segment>>,
    /// Set when nobody waits for the outcome any more.
    pub abandoned: Arc<AtomicBool>,
    /// For a table whose rows are kept by key.
    pub keyed: Option<KeyedPart>,
    /// Its one row is a dead letter: the record at this offset, below the position.
    pub letter: Option<i64>,
}

/// What a part has beside its rows where these are kept by key.
#[derive(Debug)]
pub struct KeyedPart {
    /// Where the rows of the partition are.
    pub index: PartitionIndex,
    /// Partitions of the topic; 0: not known.
    pub partitions: i32,
    /// Rows of the segments, from the front, that are in the table already.
    pub skip: usize,
    /// Keys of the rows as they came.
    pub keys: Arc<Vec<RawKey>>,
    /// Records between the positions that were given up.
    pub given_up: Arc<Vec<(i64, Option<RawKey>)>>,
}

/// What came of a part.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the table, once, up to this position: all of it, or what need not wait.
    Durable(Position, usize),
    /// Nothing of it could be written yet: the other half of a change of a primary key is missing.
    Waits,
    /// The table holds another position than expected.
    Moved,
    /// The table can never take one of its rows: the one at this offset, where that is known.
    Refused(LakeError, Option<i64>),
    /// The table cannot take it as it is, and an operator has to act.
    Stopped(LakeError),
    /// Nobody waited for it.
    Abandoned,
}

/// How far a part has come.
#[derive(Debug)]
pub(super) enum State {
    Pending,
    Settled(Outcome),
    Told,
}

/// See the module. Attempts may be repeated until one succeeds.
#[derive(Debug)]
pub struct Commit {
    pub(super) table: Arc<LakeTable>,
    /// In the snapshot's summary: tells whether an attempt was taken though its answer was lost.
    id: String,
    pub(super) parts: Vec<Part>,
    pub(super) states: Vec<State>,
    /// Whether an attempt may have been taken.
    unsure: bool,
    /// Files of an attempt that was not taken, which is made sure of before they are removed: what
    /// sends requests for us may have sent this one twice.
    doubtful: Vec<String>,
    /// In the names of files that are kept by key.
    pub(super) files: uuid::Uuid,
    /// Files of an attempt, for the next.
    pub(super) written: Option<Written>,
    /// The table that it is for.
    uuid: Option<uuid::Uuid>,
    /// Where the metadata is that the attempt begins with.
    base: String,
}

/// Files, and what they hold.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) data: Vec<DataFile>,
    pub(super) deletes: Vec<DataFile>,
    pub(super) parts: Vec<usize>,
    pub(super) schema: Arc<Schema>,
    /// For a table whose rows are kept by key: what it was written by.
    pub(super) planned: Option<Planned>,
}

/// How far an attempt brings its parts.
pub(super) type Reached = Vec<(usize, Position, usize)>;

impl Commit {
    pub(super) fn new(table: Arc<LakeTable>, parts: Vec<Part>) -> Self {
        Self {
            table,
            id: uuid::Uuid::new_v4().to_string(),
            states: parts.iter().map(|_| State::Pending).collect(),
            parts,
            unsure: false,
            doubtful: Vec::new(),
            files: uuid::Uuid::new_v4(),
            written: None,
            uuid: None,
            base: String::new(),
        }
    }

    /// Parts whose outcome became known since the last call, by their position.
    pub fn take_settled(&mut self) -> Vec<(usize, Outcome)> {
        let mut settled = Vec::new();
        for (at, state) in self.states.iter_mut().enumerate() {
            if matches!(state, State::Settled(_))
                && let State::Settled(outcome) = std::mem::replace(state, State::Told)
            {
                settled.push((at, outcome));
            }
        }
        settled
    }

    /// Parts whose outcome is not known.
    pub fn pending(&self) -> Vec<usize> {
        let pending = self.states.iter().enumerate();
        pending.filter(|(_, state)| matches!(state, State::Pending)).map(|(at, _)| at).collect()
    }

    /// Takes a part out that is given up.
    pub fn give_up(&mut self, part: usize) {
        if let Some(state) = self.states.get_mut(part) {
            *state = State::Told;
        }
    }

    /// Commits everything whose outcome is not known. After an error it may be tried again: what an
    /// earlier attempt has achieved though its answer was lost is found.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn attempt(&mut self) -> Result<()> {
        let table = self.table.clone();
        let _turn = table.turn.lock().await;
        for turn in 0..TURNS {
            match self.attempt_once().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Files may be gone that a newer snapshot has no need of.
                Err(error) if error.kind == Kind::Unavailable && self.is_overtaken().await => {}
                Err(error) => return Err(error),
            }
            give_way(turn).await;
        }
        Err(table.contended(TURNS))
    }

    /// Whether somebody has committed since the attempt began.
    pub(super) async fn is_overtaken(&self) -> bool {
        matches!(self.table.load().await, Ok(Some(now)) if now.location != self.base)
    }

    /// `false`: another commit came first.
    async fn attempt_once(&mut self) -> Result<bool> {
        let loaded = self.load().await?;
        loaded.location.clone_into(&mut self.base);
        let stored = offsets::read(&loaded.metadata, &self.table.lake.owner)?.unwrap_or_default();
        self.check_mode(&stored)?;
        if (self.unsure || !self.doubtful.is_empty())
            && offsets::has_commit(&loaded.metadata, &self.id)
        {
            self.doubtful.clear();
            self.was_taken(&stored).await;
        }
        discard(&loaded.io, self.doubtful.drain(..)).await;
        self.settle(|part| {
            if part.abandoned.load(Ordering::Acquire) {
                Some(Outcome::Abandoned)
            } else if stored.offsets.get(&part.tp).is_none_or(|found| !same(found, &part.expected))
            {
                Some(Outcome::Moved)
            } else {
                None
            }
        });
        match self.table.lake.mode {
            WriteMode::Append => self.settle_logged(&loaded).await?,
            WriteMode::Upsert => self.settle_known(&stored),
        }
        let base = self.evolved(&loaded)?;
        let (reached, merged) = match self.table.lake.mode {
            WriteMode::Append => (self.append(&loaded, &base.metadata).await?, None),
            WriteMode::Upsert => {
                let (reached, merged) = self.merge(&loaded, &base.metadata, &stored).await?;
                (reached, Some(merged))
            }
        };
        if reached.is_empty() && !merged.as_ref().is_some_and(|merged| merged.is_awaited) {
            self.drop_files(&loaded).await;
            return Ok(true);
        }
        let new = self.next(&loaded, base, stored, &reached, merged.as_ref()).await?;
        let snapshot = new.changed.metadata.current_snapshot_id();
        match self.table.swap(&loaded, new.changed).await {
            Ok(true) => {
                if let Some(merged) = merged {
                    merged.done(self.written.as_ref(), snapshot);
                }
                self.settle_reached(reached);
                self.written = None;
                Ok(true)
            }
            Ok(false) => {
                self.doubtful = new.files;
                Ok(false)
            }
            Err(error) => {
                self.unsure |= error.kind == Kind::Unknown;
                Err(error)
            }
        }
    }

    /// An attempt without an answer was taken. How far it came is in the table.
    async fn was_taken(&mut self, stored: &Stored) {
        for (state, part) in self.states.iter_mut().zip(&self.parts) {
            let Some(found) = stored.offsets.get(&part.tp) else { continue };
            let is_ours = (found.incarnation, &found.topic_id)
                == (part.covers.incarnation, &part.covers.topic_id);
            if !matches!(state, State::Pending) || same(found, &part.expected) || !is_ours {
                continue;
            }
            let (position, rows) = if found.next < part.covers.next {
                (found.clone(), part.rows_below(found))
            } else {
                (part.covers.clone(), part.rows())
            };
            *state = State::Settled(Outcome::Durable(position, rows));
            if let Some(keyed) = &part.keyed {
                *keyed.index.lock().await = None;
            }
        }
        self.written = None;
        self.unsure = false;
        self.id = uuid::Uuid::new_v4().to_string();
    }

    fn settle_reached(&mut self, reached: Reached) {
        for (at, position, rows) in reached {
            self.settle_one(at, Outcome::Durable(position, rows));
        }
    }

    /// The outcome of a part.
    pub(super) fn settle_one(&mut self, part: usize, outcome: Outcome) {
        if let Some(state) = self.states.get_mut(part) {
            *state = State::Settled(outcome);
        }
    }

    /// A table is a change log or is kept by key, from its first row on.
    fn check_mode(&self, stored: &Stored) -> Result<()> {
        let (is, other) = match self.table.lake.mode {
            WriteMode::Append if stored.keyed.is_some() => ("append", "upsert"),
            WriteMode::Upsert if stored.keyed.is_none() && stored.holder.is_some() => {
                ("upsert", "append")
            }
            _ => return Ok(()),
        };
        let message =
            format!("table {} was filled with write_mode: {other}, not {is}", self.table.name);
        let error = LakeError::new(Kind::Unfit, "write_mode_changed", message);
        Err(error.hint(format!(
            "set write_mode: {other}, or give the sink another sink_id and table_name: it fills a \
             table of its own then"
        )))
    }

    async fn load(&mut self) -> Result<Loaded> {
        let Some(loaded) = self.table.load().await? else { return Err(self.table.missing()) };
        let found = loaded.metadata.uuid();
        let expected = *self.table.read().get_or_insert(found);
        if *self.uuid.get_or_insert(expected) != found {
            let message = format!("table {} is another one than before", self.table.name);
            let error = LakeError::new(Kind::Replaced, "table_replaced", message);
            return Err(error.hint("restore the former table, or rewind the topics that feed it"));
        }
        let refuse = |what: &str| {
            let message = format!("table {} {what}", self.table.name);
            let error = LakeError::new(Kind::Unfit, "table_unfit", message);
            Err(error.hint("let the sink create a table of its own, under another name"))
        };
        if loaded.metadata.format_version() == FormatVersion::V1 {
            return refuse("is of format version 1");
        }
        if !partition::is_known(&loaded.metadata) {
            return refuse("is partitioned by what the sink does not know, or has no plain name");
        }
        if self.table.lake.mode == WriteMode::Upsert {
            if !loaded.metadata.default_partition_spec().is_unpartitioned() {
                return refuse("is partitioned, which upsert does not write yet");
            }
            if loaded.metadata.format_version() == FormatVersion::V3 {
                return refuse("is of format version 3, whose deletes the sink does not write yet");
            }
            let own = self.table.lake.owner.key();
            let is_other = |key: &&String| key.starts_with(offsets::OFFSETS) && key.as_str() != own;
            if let Some(other) = loaded.metadata.properties().keys().find(is_other) {
                return refuse(&format!("is filled by another sink, see its property {other}"));
            }
        }
        Ok(loaded)
    }

    fn settle(&mut self, of: impl Fn(&Part) -> Option<Outcome>) {
        for (state, part) in self.states.iter_mut().zip(&self.parts) {
            if matches!(state, State::Pending)
                && let Some(outcome) = of(part)
            {
                *state = State::Settled(outcome);
            }
        }
    }

    /// The metadata with a schema for the rows. A part whose rows no schema of the table can hold is
    /// refused alone.
    fn evolved(&mut self, loaded: &Loaded) -> Result<Changed> {
        let base = loaded.unchanged();
        let mut evolving = Evolving::new(&base.metadata);
        for (state, part) in self.states.iter_mut().zip(&self.parts) {
            if !matches!(state, State::Pending) {
                continue;
            }
            let layouts = part.segments.iter().map(|segment| &*segment.layout);
            if let Err(error) = evolving.take(&self.table.name, layouts) {
                *state = State::Settled(Outcome::Refused(error, None));
            }
        }
        let internal = |error| LakeError::internal("evolving", error);
        let base = match evolving.schema(&self.table.name, &base.metadata)? {
            Some(schema) => {
                base.change(None, |builder| builder.add_current_schema(schema)).map_err(internal)?
            }
            None => base,
        };
        let lake = &self.table.lake;
        let has_rows = self.parts.iter().any(|part| !part.segments.is_empty());
        if lake.partition_by.is_empty() || !has_rows {
            return Ok(base);
        }
        match partition::spec(&self.table.name, &lake.partition_by, &base.metadata)? {
            Some(spec) => base
                .change(None, |builder| builder.add_default_partition_spec(spec))
                .map_err(internal),
            None => Ok(base),
        }
    }

    /// Writes the rows as they come, unless an earlier attempt has.
    async fn append(&mut self, loaded: &Loaded, base: &TableMetadata) -> Result<Reached> {
        let live = self.pending();
        let parts = live.iter().filter_map(|at| Some((*at, self.parts.get(*at)?)));
        let reached: Reached =
            parts.map(|(at, part)| (at, part.covers.clone(), part.rows())).collect();
        let schema = base.current_schema();
        let is_same = |written: &Written| {
            written.parts == live && written.schema.as_struct() == schema.as_struct()
        };
        if reached.is_empty() || self.written.as_ref().is_some_and(is_same) {
            return Ok(reached);
        }
        self.drop_files(loaded).await;
        let parts = live.iter().filter_map(|at| self.parts.get(*at));
        let segments: Vec<_> = parts.flat_map(|part| &part.segments).cloned().collect();
        let mut data = Vec::new();
        if !segments.is_empty() {
            let batches = write::rows_of(segments, write::arrow(schema)?);
            let spec = base.default_partition_spec();
            let parts = if spec.is_unpartitioned() {
                vec![(Struct::empty(), batches)]
            } else {
                let parts = partition::split(schema.clone(), spec.clone(), batches).await?;
                let parts = parts.into_iter();
                parts.map(|(values, rows)| (values, partition::batches(rows))).collect()
            };
            for (values, batches) in parts {
                // Values are not in its name: they may be anything.
                let path = format!("{}/data/{}.parquet", base.location(), uuid::Uuid::new_v4());
                let content = Content { values, ..Content::data(path, base) };
                data.extend(write::write(loaded.io.clone(), content, batches).await?);
            }
        }
        let (schema, deletes) = (schema.clone(), Vec::new());
        self.written = Some(Written { data, deletes, parts: live, schema, planned: None });
        Ok(reached)
    }

    /// Files of an attempt that may have been taken are not written over.
    pub(super) fn rename(&mut self) {
        if self.unsure {
            self.files = uuid::Uuid::new_v4();
            self.written = None;
        }
    }

    /// Files of an attempt that was not taken are needless; where that is not sure they stay.
    pub(super) async fn drop_files(&mut self, loaded: &Loaded) {
        let Some(written) = self.written.take() else { return };
        if !self.unsure {
            let files = written.data.into_iter().chain(written.deletes);
            let files = files.map(|file| file.file_path().to_owned());
            discard(&loaded.io, files.collect::<Vec<_>>()).await;
        }
    }

    /// The table's next metadata.
    async fn next(
        &self,
        loaded: &Loaded,
        base: Changed,
        mut stored: Stored,
        reached: &Reached,
        merged: Option<&Merged>,
    ) -> Result<Next> {
        for (at, position, _) in reached {
            let Some(part) = self.parts.get(*at) else { continue };
            stored.offsets.insert(part.tp.clone(), position.clone());
        }
        if let Some(merged) = merged {
            let told = self.parts.iter().filter_map(|part| Some(part.keyed.as_ref()?.partitions));
            let told = told.max().filter(|told| *told > 0);
            let keyed = stored.keyed.take().unwrap_or_default();
            stored.keyed = Some(Keyed {
                partitions: keyed.partitions.or(told),
                moves: merged.moves().clone(),
                again: merged.ways.clone(),
                ..keyed
            });
        }
        self.note_rejected(&mut stored, reached);
        let added = self.written.as_ref().map_or(Added::NONE, |written| Added {
            data: &written.data,
            deletes: &written.deletes,
            taken: None,
        });
        self.table.next(loaded, base, stored, added, &self.id).await
    }
}

impl Part {
    pub(super) fn rows(&self) -> usize {
        self.segments.iter().map(|segment| segment.rows).sum()
    }

    /// Rows of records below a position.
    fn rows_below(&self, position: &Position) -> usize {
        let offsets = self
            .segments
            .iter()
            .flat_map(|segment| (0..segment.rows).filter_map(|row| segment.offset(row)));
        offsets.take_while(|offset| *offset < position.next.get()).count()
    }
}

/// What the compare-and-set compares.
fn same(found: &Position, expected: &Position) -> bool {
    (found.next, found.incarnation, &found.topic_id)
        == (expected.next, expected.incarnation, &expected.topic_id)
}
