//! One commit: the rows of several partitions and their positions, in one snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc_shared::offset::{Position, TopicPartition};
use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, Schema, TableMetadata, TableMetadataBuilder,
};

use super::evolve::Evolving;
use super::offsets::{self, COMMIT_ID, Holder, Stored};
use super::{LakeTable, Loaded, stage, write};
use crate::error::{Kind, LakeError, Result};
use crate::rows::Segment;

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
}

/// What came of a part.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the table, once.
    Durable,
    /// The table holds another position than expected.
    Moved,
    /// The table can never take one of its rows.
    Refused(LakeError),
    /// Nobody waited for it.
    Abandoned,
}

/// How far a part has come.
#[derive(Debug)]
enum State {
    Pending,
    Settled(Outcome),
    Told,
}

/// See the module. Attempts may be repeated until one succeeds.
#[derive(Debug)]
pub struct Commit {
    table: Arc<LakeTable>,
    /// In the snapshot's summary: tells whether an attempt was taken though its answer was lost.
    id: String,
    parts: Vec<Part>,
    states: Vec<State>,
    /// Whether an attempt may have been taken.
    unsure: bool,
    /// Data files of an attempt, for the next.
    written: Option<Written>,
    /// The table that it is for.
    uuid: Option<uuid::Uuid>,
}

/// Data files, and what they hold.
#[derive(Debug)]
struct Written {
    files: Vec<DataFile>,
    parts: Vec<usize>,
    schema: Arc<Schema>,
}

impl Commit {
    pub(super) fn new(table: Arc<LakeTable>, parts: Vec<Part>) -> Self {
        Self {
            table,
            id: uuid::Uuid::new_v4().to_string(),
            states: parts.iter().map(|_| State::Pending).collect(),
            parts,
            unsure: false,
            written: None,
            uuid: None,
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
            if self.attempt_once().await? {
                return Ok(());
            }
            let longest = 10 << turn.min(6);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=longest))).await;
        }
        let message =
            format!("{TURNS} times in a row others committed to table {} first", table.name);
        Err(LakeError::new(Kind::Contended, "commit_contended", message))
    }

    /// `false`: another commit came first.
    async fn attempt_once(&mut self) -> Result<bool> {
        let loaded = self.load().await?;
        if self.unsure && offsets::has_commit(&loaded.metadata, &self.id) {
            self.settle(|_| Some(Outcome::Durable));
            return Ok(true);
        }
        let stored = offsets::read(&loaded.metadata, &self.table.lake.owner)?;
        let stored = stored.unwrap_or_default();
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
        let base = self.evolved(&loaded)?;
        let live = self.pending();
        if live.is_empty() {
            self.drop_files().await;
            return Ok(true);
        }
        self.write_files(&base, &live).await?;
        let new = self.next(&loaded, base, stored, &live).await?;
        match self.table.swap(&loaded, new.metadata).await {
            Ok(true) => {
                self.settle(|_| Some(Outcome::Durable));
                self.written = None;
                Ok(true)
            }
            Ok(false) => {
                self.table.discard(new.files).await;
                Ok(false)
            }
            Err(error) => {
                self.unsure |= error.kind == Kind::Unknown;
                Err(error)
            }
        }
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
        if !loaded.metadata.default_partition_spec().is_unpartitioned() {
            return refuse("is partitioned, which the sink does not write yet");
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

    fn segments(&self, live: &[usize]) -> impl Iterator<Item = &Arc<Segment>> {
        let parts = live.iter().filter_map(|at| self.parts.get(*at));
        parts.flat_map(|part| &part.segments)
    }

    /// The metadata with a schema for the rows. A part whose rows no schema of the table can hold is
    /// refused alone.
    fn evolved(&mut self, loaded: &Loaded) -> Result<TableMetadata> {
        let metadata = TableMetadata::clone(&loaded.metadata);
        let mut evolving = Evolving::new(&metadata);
        for (state, part) in self.states.iter_mut().zip(&self.parts) {
            if !matches!(state, State::Pending) {
                continue;
            }
            let layouts = part.segments.iter().map(|segment| &*segment.layout);
            if let Err(error) = evolving.take(&self.table.name, layouts) {
                *state = State::Settled(Outcome::Refused(error));
            }
        }
        let Some(schema) = evolving.schema(&self.table.name, &metadata)? else {
            return Ok(metadata);
        };
        let builder = metadata.into_builder(None).add_current_schema(schema);
        let built = builder.and_then(TableMetadataBuilder::build);
        built.map(|built| built.metadata).map_err(|error| LakeError::internal("evolving", error))
    }

    /// Writes the rows, unless an earlier attempt has.
    async fn write_files(&mut self, base: &TableMetadata, live: &[usize]) -> Result<()> {
        let schema = base.current_schema();
        let is_same = |written: &Written| {
            written.parts == live && written.schema.as_struct() == schema.as_struct()
        };
        if self.written.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        self.drop_files().await;
        let segments: Vec<_> = self.segments(live).cloned().collect();
        let mut files = Vec::new();
        if !segments.is_empty() {
            let path = format!("{}/data/{}.parquet", base.location(), uuid::Uuid::new_v4());
            let spec = base.default_partition_spec_id();
            let io = self.table.lake.io.clone();
            files.extend(write::write(io, path, schema.clone(), spec, segments).await?);
        }
        self.written = Some(Written { files, parts: live.to_vec(), schema: schema.clone() });
        Ok(())
    }

    /// Files of an attempt that was not taken are needless; where that is not sure they stay.
    async fn drop_files(&mut self) {
        let Some(written) = self.written.take() else { return };
        if !self.unsure {
            let files = written.files.into_iter().map(|file| file.file_path().to_owned());
            self.table.discard(files.collect::<Vec<_>>()).await;
        }
    }

    /// The table's next metadata.
    async fn next(
        &self,
        loaded: &Loaded,
        base: TableMetadata,
        mut stored: Stored,
        live: &[usize],
    ) -> Result<Next> {
        for part in live.iter().filter_map(|at| self.parts.get(*at)) {
            stored.offsets.insert(part.tp.clone(), part.covers.clone());
        }
        let files = self.written.as_ref().map_or(&[][..], |written| &written.files);
        let internal = |error| LakeError::internal("making the next metadata", error);
        let mut staged = None;
        if !files.is_empty() {
            let id = stage::new_id(&base);
            let sequence = base.next_sequence_number();
            stored.holder = Some(Holder { snapshot: id, sequence });
            let own = HashMap::from([
                (self.table.lake.owner.key().to_owned(), stored.summary()?),
                (COMMIT_ID.to_owned(), self.id.clone()),
            ]);
            let io = &self.table.lake.io;
            let append = stage::append(io, loaded, &base, id, files, own).await;
            staged = Some(append.map_err(|error| {
                let doing = format!("writing the manifests of table {}", self.table.name);
                LakeError::warehouse(&doing, error)
            })?);
        }
        let properties = HashMap::from([
            (self.table.lake.owner.key().to_owned(), stored.property()?),
            (COMMIT_ID.to_owned(), self.id.clone()),
        ]);
        let mut builder = base.into_builder(Some(loaded.location.clone()));
        let mut files = Vec::new();
        if let Some(staged) = staged {
            builder =
                builder.set_branch_snapshot(staged.snapshot, MAIN_BRANCH).map_err(internal)?;
            files = staged.files;
        }
        let built = builder.set_properties(properties).and_then(TableMetadataBuilder::build);
        Ok(Next { metadata: built.map_err(internal)?.metadata, files })
    }
}

/// The next metadata and the files that were written for it.
struct Next {
    metadata: TableMetadata,
    files: Vec<String>,
}

/// What the compare-and-set compares.
fn same(found: &Position, expected: &Position) -> bool {
    (found.next, found.incarnation, &found.topic_id)
        == (expected.next, expected.incarnation, &expected.topic_id)
}
