//! A commit to a table that is kept by key: of each key the last row, and deletes by position of the
//! rows that it replaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_shared::offset::{NextOffset, Position, SchemaIds};
use futures::StreamExt;
use iceberg::io::FileIO;
use iceberg::spec::{DataFile, Struct, TableMetadata};
use tokio::sync::OwnedMutexGuard;

use super::Loaded;
use super::again::returning;
use super::commit::{Commit, Outcome, Part, Reached, Written};
use super::fill::{Filling, Stored as StoredRows};
use super::index::Indexed;
use super::offsets::Stored;
use super::write::{self, Content};
use crate::error::{Kind, LakeError, Result};
use crate::rows::Segment;
use crate::upsert::{Again, KeyHash, Moves, PartRows, Place, Plan, Returning, Short, locate, plan};

/// What files were written by: with the same they are the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Planned {
    plan: Plan,
    generations: Vec<uuid::Uuid>,
}

/// What a commit does to the indexes of its partitions, which nobody else reads until then.
pub(super) struct Merged {
    plan: Option<Plan>,
    paths: Vec<Arc<str>>,
    states: Vec<OwnedMutexGuard<Option<Indexed>>>,
    moves: Moves,
    /// Partitions whose records come again, then.
    pub(super) ways: BTreeMap<i32, Again>,
    /// Whether others wait for what is open then, though nothing else is to be written.
    pub(super) is_awaited: bool,
}

impl Merged {
    /// Changes of keys that are open then.
    pub(super) fn moves(&self) -> &Moves {
        &self.moves
    }

    /// It is done: the table is at this snapshot.
    pub(super) fn done(self, written: Option<&Written>, snapshot: Option<i64>) {
        let Some(plan) = self.plan else { return };
        let deletes: Vec<Arc<str>> = written
            .into_iter()
            .flat_map(|written| &written.deletes)
            .map(|file| file.file_path().into())
            .collect();
        let parts = plan.parts.into_iter().zip(self.states).zip(&self.paths);
        for ((part, mut state), path) in parts {
            let Some(indexed) = state.as_mut() else { continue };
            let file = if part.rows.is_empty() { 0 } else { indexed.add_file(path) };
            indexed.unsaved += part.keys.len() as u64;
            for (hash, row) in part.keys {
                match row {
                    Some(row) => indexed.keys.set(hash, Place { file, row }),
                    None => indexed.keys.remove(hash),
                }
            }
            indexed.deletes.extend(deletes.iter().cloned());
            indexed.stale.clear();
            indexed.snapshot = snapshot;
        }
    }
}

/// The parts that have rows, with their indexes.
#[derive(Default)]
struct Ready {
    parts: Vec<usize>,
    skips: Vec<usize>,
    segments: Vec<Vec<Arc<Segment>>>,
    paths: Vec<Arc<str>>,
    states: Vec<OwnedMutexGuard<Option<Indexed>>>,
    returning: Vec<Option<Returning>>,
}

impl Ready {
    fn plan(&self, moves: &Moves) -> std::result::Result<Plan, Vec<Short>> {
        let parts = self.segments.iter().zip(&self.skips).zip(&self.states).zip(&self.paths);
        let parts = parts.zip(&self.returning);
        let rows = parts.filter_map(|((((segments, skip), state), path), returning)| {
            let indexed = state.as_ref()?;
            let (index, files) = (&indexed.keys, indexed.files.as_slice());
            let returning = returning.as_ref();
            Some(PartRows { segments, skip: *skip, index, files, path, returning })
        });
        plan(&rows.collect::<Vec<_>>(), moves)
    }

    /// Without a part.
    fn leave(&mut self, part: usize) {
        if let Some(at) = self.parts.iter().position(|found| *found == part) {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) -> Option<(usize, Vec<Arc<Segment>>)> {
        if at >= self.parts.len() {
            return None;
        }
        self.skips.remove(at);
        self.paths.remove(at);
        self.returning.remove(at);
        drop(self.states.remove(at));
        Some((self.parts.remove(at), self.segments.remove(at)))
    }

    /// Leaves rows out that nobody can complete, of records that come again; gives the first that
    /// cannot be left out.
    fn leave_out(&mut self, short: &[Short]) -> Option<Short> {
        for short in short {
            let offset = self.segments.get(short.part).and_then(|segments| {
                let (segment, row) = locate(segments, short.row)?;
                segment.offset(row)
            });
            let returning = self.returning.get_mut(short.part).and_then(Option::as_mut);
            match (returning, offset) {
                (Some(returning), Some(offset)) if offset < returning.again.until => {
                    returning.dropped.insert(short.row);
                }
                _ => return Some(*short),
            }
        }
        None
    }

    /// What is owed then, by the parts.
    fn owed(&self, plan: &Plan) -> BTreeMap<usize, BTreeMap<KeyHash, i64>> {
        let parts = self.parts.iter().zip(&plan.parts);
        parts.map(|(part, plan)| (*part, plan.owed.clone())).collect()
    }

    fn generations(&self) -> Vec<uuid::Uuid> {
        self.states.iter().filter_map(|state| Some(state.as_ref()?.generation)).collect()
    }

    /// Stored rows that go, by their files.
    fn deletes(&self, plan: &Plan) -> BTreeMap<Arc<str>, Vec<u32>> {
        let mut deletes: BTreeMap<Arc<str>, Vec<u32>> = BTreeMap::new();
        let parts = plan.parts.iter().zip(&self.states).zip(&self.paths);
        for ((part, state), path) in parts {
            let Some(indexed) = state.as_ref() else { continue };
            for place in part.deletes.iter().chain(&indexed.stale) {
                if let Some(file) = indexed.files.get(place.file as usize) {
                    deletes.entry(file.clone()).or_default().push(place.row);
                }
            }
            if !part.ghosts.is_empty() {
                deletes.entry(path.clone()).or_default().extend(&part.ghosts);
            }
        }
        for rows in deletes.values_mut() {
            rows.sort_unstable();
            rows.dedup();
        }
        deletes
    }
}

impl Commit {
    /// Writes what the parts come to, unless an earlier attempt has. Settles parts that cannot be
    /// written, or not yet.
    pub(super) async fn merge(
        &mut self,
        loaded: &Loaded,
        base: &TableMetadata,
        stored: &Stored,
    ) -> Result<(Reached, Merged)> {
        self.check_partitions(stored)?;
        self.check_column(loaded, stored)?;
        self.rename();
        let moves = stored.keyed.as_ref().map(|keyed| keyed.moves.clone()).unwrap_or_default();
        let mut ready = self.ready(loaded, stored).await?;
        let (plan, rows, reached, ways) = loop {
            let plan = match ready.plan(&moves) {
                Ok(plan) => plan,
                Err(short) => {
                    if let Some(short) = ready.leave_out(&short) {
                        self.refuse(&mut ready, short);
                    }
                    continue;
                }
            };
            let reached = self.reached(&ready, &plan);
            let ways = match self.ways(stored, &reached, &ready.owed(&plan)) {
                Ok(ways) => ways,
                Err(part) => {
                    ready.leave(part);
                    continue;
                }
            };
            let io = &loaded.io;
            let schema = base.current_schema();
            match StoredRows::read(io, &plan, &ready.segments, schema).await? {
                Ok(rows) => break (plan, rows, reached, ways),
                // The row may be in a file that replaces the one that is gone.
                Err(_) if self.is_overtaken().await => {
                    let message = format!("files of table {} were replaced", self.table.name);
                    let code = "warehouse_unavailable";
                    return Err(LakeError::new(Kind::Unavailable, code, message));
                }
                Err(short) => self.refuse(&mut ready, short),
            }
        };
        self.settle_waiting(&ready, &plan);
        let planned = Planned { generations: ready.generations(), plan };
        let is_same = |written: &Written| {
            written.parts == ready.parts
                && written.planned.as_ref() == Some(&planned)
                && written.schema.as_struct() == base.current_schema().as_struct()
        };
        if !self.written.as_ref().is_some_and(is_same) {
            self.drop_files(loaded).await;
            let (data, deletes) =
                self.write(&loaded.io, base, &ready, &planned.plan, &rows).await?;
            let (parts, schema) = (ready.parts.clone(), base.current_schema().clone());
            self.written = Some(Written { data, deletes, parts, schema, planned: None });
        }
        let plan = planned.plan.clone();
        if let Some(written) = &mut self.written {
            written.planned = Some(planned);
        }
        let Ready { paths, states, .. } = ready;
        let is_awaited = plan.moves != moves;
        let moves = plan.moves.clone();
        Ok((reached, Merged { plan: Some(plan), paths, states, moves, ways, is_awaited }))
    }

    /// Another number of partitions sends keys elsewhere than where their rows are.
    fn check_partitions(&self, stored: &Stored) -> Result<()> {
        let Some(known) = stored.keyed.as_ref().and_then(|keyed| keyed.partitions) else {
            return Ok(());
        };
        let used = stored.offsets.keys().map(|tp| tp.partition + 1).filter(|used| *used > known);
        let told = self.parts.iter().filter_map(|part| Some(part.keyed.as_ref()?.partitions));
        let told = told.filter(|told| *told > 0 && *told != known);
        let Some(found) = used.chain(told).max() else { return Ok(()) };
        let message = format!(
            "table {} was filled from a topic of {known} partitions, which has {found} now: the \
             keys of its rows come in other partitions than before",
            self.table.name
        );
        let error = LakeError::new(Kind::Unfit, "partitions_changed", message);
        Err(error.hint(
            "fill a new table: another sink_id and table_name, and a new snapshot of the source's \
             table (cdc snapshot FILE --table)",
        ))
    }

    /// Without the column that says whose they are, rows of ours look like those of others.
    fn check_column(&self, loaded: &Loaded, stored: &Stored) -> Result<()> {
        let schema = loaded.metadata.current_schema();
        if stored.holder.is_none() || schema.field_by_name("_cdc_partition").is_some() {
            return Ok(());
        }
        let message = format!("table {} has lost its column _cdc_partition", self.table.name);
        let error = LakeError::new(Kind::Unfit, "table_unfit", message);
        Err(error.hint("roll the table back to before the column was dropped or renamed"))
    }

    /// The parts that have rows. Their indexes are as the table is.
    async fn ready(&self, loaded: &Loaded, stored: &Stored) -> Result<Ready> {
        let mut ready = Ready::default();
        for at in self.pending() {
            let Some(part) = self.parts.get(at) else { continue };
            let Some(keyed) = &part.keyed else { continue };
            let Some((segment, _)) = locate(&part.segments, keyed.skip) else { continue };
            let key: Vec<String> = segment.layout.key_names().map(str::to_owned).collect();
            let mut state = keyed.index.lock().await;
            self.table.index(loaded, &part.tp, &key, &mut state).await?;
            let (of, segments, indexed) = (part.tp.partition, &part.segments, state.as_ref());
            let of_table = stored.keyed.as_ref();
            ready.returning.push(returning(loaded, of_table, of, segments, indexed).await?);
            let path = format!(
                "{}/data/{}-p{}.parquet",
                loaded.metadata.location(),
                self.files,
                part.tp.partition
            );
            ready.parts.push(at);
            ready.skips.push(keyed.skip);
            ready.segments.push(part.segments.clone());
            ready.paths.push(path.into());
            ready.states.push(state);
        }
        Ok(ready)
    }

    /// A row that can never be completed.
    fn refuse(&mut self, ready: &mut Ready, short: Short) {
        let Some((part, segments)) = ready.remove(short.part) else { return };
        let offset = locate(&segments, short.row).and_then(|(segment, at)| segment.offset(at));
        let outcome = self.row_missing(offset);
        self.settle_one(part, outcome);
    }

    fn row_missing(&self, offset: Option<i64>) -> Outcome {
        let message = format!(
            "a change leaves out large values that did not change, and its row is not in table {}: \
             a row that left the table, or a change of the primary key whose delete was not seen",
            self.table.name
        );
        let error = LakeError::new(Kind::Unfit, "row_missing", message).hint(
            "ALTER TABLE … REPLICA IDENTITY FULL at the source makes every change whole; rows that \
             are missing come with a new snapshot of the table (cdc snapshot FILE --table), and \
             cdc skip passes this record",
        );
        Outcome::Refused(error, offset)
    }

    /// How far the plan brings each part.
    fn reached(&self, ready: &Ready, plan: &Plan) -> Reached {
        let mut reached = Reached::new();
        for at in self.pending() {
            let planned = ready.parts.iter().position(|part| *part == at);
            let planned =
                planned.and_then(|at| Some((plan.parts.get(at)?.end, ready.skips.get(at)?)));
            let Some(part) = self.parts.get(at) else { continue };
            match planned {
                None => reached.push((at, part.covers.clone(), 0)),
                Some((end, skip)) if end == *skip => {}
                Some((end, _)) => reached.push((at, part.position_at(end), end)),
            }
        }
        reached
    }

    /// Parts of which nothing can be written yet.
    fn settle_waiting(&mut self, ready: &Ready, plan: &Plan) {
        let ends = ready.parts.iter().zip(&ready.skips).zip(&plan.parts);
        for ((at, skip), plan) in ends {
            if plan.end == *skip {
                let is_letter = self.parts.get(*at).is_some_and(|part| part.letter.is_some());
                // What it waits for came long ago, or never.
                let outcome = if is_letter { self.row_missing(None) } else { Outcome::Waits };
                self.settle_one(*at, outcome);
            }
        }
    }

    /// Writes data files and, for all parts, one file of deletes.
    async fn write(
        &self,
        io: &FileIO,
        base: &TableMetadata,
        ready: &Ready,
        plan: &Plan,
        stored: &StoredRows,
    ) -> Result<(Vec<DataFile>, Vec<DataFile>)> {
        let (schema, mut data) = (base.current_schema(), Vec::new());
        let arrow = write::arrow(schema)?;
        let filling = Filling { plan, segments: &ready.segments, stored, schema, arrow: &arrow };
        for (part, path) in ready.paths.iter().enumerate() {
            let batches = filling.batches(part);
            let batches = batches.map_err(|error| LakeError::internal("joining rows", error))?;
            if batches.is_empty() {
                continue;
            }
            let content = Content::data(path.to_string(), base);
            let batches = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
            data.extend(write::write(io.clone(), content, batches).await?);
        }
        let (deletes, mut files) = (ready.deletes(plan), Vec::new());
        if !deletes.is_empty() {
            let of = (base.default_partition_spec_id(), Struct::empty());
            files.extend(write::deletes(io, base, self.files, of, deletes).await?);
        }
        Ok((data, files))
    }
}

impl Part {
    /// The position behind so many rows.
    fn position_at(&self, rows: usize) -> Position {
        let next = locate(&self.segments, rows).and_then(|(segment, at)| segment.offset(at));
        let before = rows.checked_sub(1).and_then(|row| locate(&self.segments, row));
        match (next.and_then(NextOffset::new), before) {
            (Some(next), Some((segment, _))) => {
                let (value, key) = segment.layout.ids;
                let schemas = SchemaIds { key, value: Some(value) };
                Position { next, schemas, ..self.covers.clone() }
            }
            _ => self.covers.clone(),
        }
    }
}
