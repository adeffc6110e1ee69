//! The index of one Kafka partition's rows: made from the files that hold them, followed from commit
//! to commit, made anew when somebody else has changed what it says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef};
use cdc_shared::offset::TopicPartition;
use iceberg::spec::DataFileFormat;
use roaring::RoaringBitmap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::live::{LiveFile, View};
use super::read::Gone;
use super::{LakeTable, Loaded, read};
use crate::error::{Kind, LakeError, Result};
use crate::upsert::{Builder, Index, Place, hashes};

/// Reserved ids of the columns of position deletes.
pub(super) const DELETED_PATH: i32 = 2_147_483_546;
pub(super) const DELETED_ROW: i32 = 2_147_483_545;

/// Where the rows of one Kafka partition are in its table.
#[derive(Debug, Clone)]
pub struct PartitionIndex {
    tp: TopicPartition,
    state: Arc<Mutex<Option<Indexed>>>,
}

/// An index and what it was made from.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) table: uuid::Uuid,
    /// Names of the key's columns.
    pub(super) key: Vec<String>,
    /// The snapshot that it was last compared with.
    pub(super) snapshot: Option<i64>,
    pub(super) files: Vec<Arc<str>>,
    known: HashSet<Arc<str>>,
    /// Files of deletes that it knows of.
    pub(super) deletes: HashSet<Arc<str>>,
    pub(super) keys: Index,
    /// Rows that have a newer one of their key.
    pub(super) stale: Vec<Place>,
    /// Which index it is: another one knows other numbers of files.
    pub(super) generation: uuid::Uuid,
    /// Rows that came since it was saved.
    pub(super) unsaved: u64,
}

/// What an earlier index of the same table said: rows, by the numbers of their files.
pub(super) struct Former {
    pub(super) files: Vec<Arc<str>>,
    pub(super) rows: Builder,
}

impl PartitionIndex {
    /// An index that is made once it is needed.
    pub fn new(tp: TopicPartition) -> Self {
        Self { tp, state: Arc::default() }
    }

    /// Its partition.
    pub(super) fn partition(&self) -> &TopicPartition {
        &self.tp
    }

    pub(super) async fn lock(&self) -> OwnedMutexGuard<Option<Indexed>> {
        self.state.clone().lock_owned().await
    }
}

impl Indexed {
    /// A file of ours is in the table now.
    pub(super) fn add_file(&mut self, path: &Arc<str>) -> u32 {
        self.files.push(path.clone());
        self.known.insert(path.clone());
        (self.files.len() - 1) as u32
    }

    fn into_former(self) -> Former {
        Former { files: self.files, rows: self.keys.into_builder() }
    }

    fn is_of(&self, table: uuid::Uuid, key: &[String]) -> bool {
        self.table == table && self.key == key
    }

    /// Whether it says what the table is. Deletes of others only take away rows, which a commit of
    /// ours may take away again.
    fn fits(&mut self, table: uuid::Uuid, view: &View, partition: i32, key: &[String]) -> bool {
        if !self.is_of(table, key) {
            return false;
        }
        if self.snapshot == view.snapshot {
            return true;
        }
        let mut held = 0;
        for file in view.data.iter().filter(|file| file.may_hold(partition)) {
            held += 1;
            if !self.known.contains(&file.path) {
                return false;
            }
        }
        let paths: HashSet<&Arc<str>> = view.deletes.iter().map(|file| &file.path).collect();
        let fits = held == self.known.len() && self.deletes.iter().all(|file| paths.contains(file));
        if fits {
            self.snapshot = view.snapshot;
        }
        fits
    }
}

impl LakeTable {
    /// Makes the index of a partition, so that its first commit finds it. What goes wrong is told by
    /// that commit.
    pub async fn prepare(&self, index: &PartitionIndex, key: &[String]) {
        let prepared = async {
            let mut state = index.lock().await;
            if state.is_none()
                && let Some(loaded) = self.load().await?
            {
                self.index(&loaded, &index.tp, key, &mut state).await?;
            }
            Ok::<_, LakeError>(())
        };
        if let Err(error) = prepared.await {
            tracing::debug!(tp = %index.tp, %error, "the index is not made yet");
        }
    }

    /// The index of a partition, as the table is.
    pub(super) async fn index(
        &self,
        loaded: &Loaded,
        tp: &TopicPartition,
        key: &[String],
        state: &mut Option<Indexed>,
    ) -> Result<()> {
        let metadata = &loaded.metadata;
        let view = self.view(loaded).await?;
        if let Some(indexed) = state
            && indexed.fits(metadata.uuid(), &view, tp.partition, key)
        {
            return Ok(());
        }
        let former = match state.take() {
            Some(former) if former.is_of(metadata.uuid(), key) => Some(former.into_former()),
            Some(_) => None,
            None => self.saved_index(loaded, tp, key).await,
        };
        let began = std::time::Instant::now();
        let making = Making { table: self, loaded, view: &view, partition: tp.partition, key };
        let (indexed, read) = making.make(former).await?;
        tracing::info!(
            table = %self.name, %tp, files = indexed.files.len(), read,
            seconds = began.elapsed().as_secs_f32(), "rows indexed"
        );
        *state = Some(indexed);
        Ok(())
    }

    /// The live files.
    pub(super) async fn view(&self, loaded: &Loaded) -> Result<Arc<View>> {
        let mut manifests = self.manifests.lock().await;
        let view = manifests.view(&loaded.io, &loaded.metadata).await;
        view.map_err(|error| self.unreadable(error))
    }
}

struct Making<'m> {
    table: &'m LakeTable,
    loaded: &'m Loaded,
    view: &'m View,
    partition: i32,
    key: &'m [String],
}

impl Making<'_> {
    /// The index, and how many files were read for it: those that the former one does not know.
    async fn make(&self, former: Option<Former>) -> Result<(Indexed, usize)> {
        let data = self.view.data.iter().filter(|file| file.may_hold(self.partition));
        let mut data: Vec<_> = data.cloned().collect();
        data.sort_by_key(|file| file.sequence);
        let known: HashSet<Arc<str>> = data.iter().map(|file| file.path.clone()).collect();
        let deletes = self.view.deletes.iter().map(|file| (&file.path, file.content, file.format));
        // Of a key that was deleted by value, a row that is written again is the newer one.
        let unfit = |path: &str, what: &str| self.unfit(path, what);
        let gone = read::gone(&self.loaded.io, deletes, &known, unfit).await?;
        let (mut builder, kept) = match former {
            Some(former) => self.keep(former, &data, &gone),
            None => (Builder::new(), HashSet::new()),
        };
        let (nothing, mut read, mut unsaved) = (RoaringBitmap::new(), 0, 0);
        for (number, file) in data.iter().enumerate() {
            let number = number as u32;
            if !kept.contains(&number) {
                let gone = gone.get(&file.path).unwrap_or(&nothing);
                self.add(&mut builder, number, file, gone).await?;
                read += 1;
                unsaved += file.rows;
            }
        }
        let (keys, stale) = builder.finish();
        if !stale.is_empty() {
            tracing::warn!(
                table = %self.table.name, partition = self.partition, rows = stale.len(),
                "rows whose key has a newer row: they go with the next commit"
            );
        }
        let indexed = Indexed {
            table: self.loaded.metadata.uuid(),
            key: self.key.to_vec(),
            snapshot: self.view.snapshot,
            files: data.iter().map(|file| file.path.clone()).collect(),
            known,
            deletes: self.view.deletes.iter().map(|file| file.path.clone()).collect(),
            keys,
            stale,
            generation: uuid::Uuid::new_v4(),
            unsaved,
        };
        Ok((indexed, read))
    }

    /// Takes over what a former index says of files that are there still, with the rows in them that
    /// are gone by now left out. A file is read again unless all of its rows are accounted for: each
    /// is either gone or the newest that the former index knows of its key. The numbers of the files.
    fn keep(&self, former: Former, data: &[Arc<LiveFile>], gone: &Gone) -> (Builder, HashSet<u32>) {
        let numbers: HashMap<&Arc<str>, usize> =
            data.iter().enumerate().map(|(number, file)| (&file.path, number)).collect();
        let Former { files, rows: mut builder } = former;
        // By the former numbers.
        let files = files.iter().map(|path| {
            let number = *numbers.get(path)?;
            data.get(number).filter(|file| file.is_of(self.partition))?;
            Some((number as u32, gone.get(path)))
        });
        let files: Vec<_> = files.collect();
        builder.renumber(|place| {
            let (number, gone) = (*files.get(place.file as usize)?)?;
            (!gone.is_some_and(|gone| gone.contains(place.row))).then_some(number)
        });
        let mut rows = vec![0; data.len()];
        for place in builder.places() {
            if let Some(rows) = rows.get_mut(place.file as usize) {
                *rows += 1;
            }
        }
        let is_whole = |&(number, gone): &(u32, Option<&RoaringBitmap>)| {
            let number = number as usize;
            let known = rows.get(number).copied().unwrap_or(0) + gone.map_or(0, RoaringBitmap::len);
            data.get(number).is_some_and(|file| file.rows == known)
        };
        let kept = files.iter().flatten().filter(|file| is_whole(file));
        let kept: HashSet<u32> = kept.map(|(number, _)| *number).collect();
        builder.renumber(|place| kept.contains(&place.file).then_some(place.file));
        (builder, kept)
    }

    fn unfit(&self, path: &str, what: &str) -> LakeError {
        let message = format!("table {}: file {path} {what}", self.table.name);
        LakeError::new(Kind::Unfit, "table_unfit", message)
            .hint("let the sink create a table of its own, under another name")
    }

    async fn add(
        &self,
        builder: &mut Builder,
        number: u32,
        file: &LiveFile,
        gone: &RoaringBitmap,
    ) -> Result<()> {
        if file.format != DataFileFormat::Parquet {
            return Err(self.unfit(&file.path, "is not in the format Parquet"));
        }
        let schema = self.loaded.metadata.current_schema();
        let id = |name: &str| schema.field_by_name(name).map(|field| field.id);
        let key: Vec<i32> = self.key.iter().filter_map(|name| id(name)).collect();
        let partition = id("_cdc_partition");
        let ids: Vec<i32> = key.iter().copied().chain(partition).collect();
        let mut first = 0;
        read::read(&self.loaded.io, &file.path, &ids, None, |columns, rows| {
            let of_key: Vec<ArrayRef> =
                key.iter().filter_map(|id| columns.get(id)).cloned().collect();
            let feeds = partition.and_then(|id| columns.get(&id));
            let feeds = feeds.and_then(|column| column.as_primitive_opt::<Int32Type>());
            // Rows that somebody else has added.
            let Some(feeds) = feeds else { return Ok(()) };
            if of_key.len() != self.key.len() {
                return Err(self.unfit(&file.path, "lacks a column of the key"));
            }
            let hashes =
                hashes(&of_key).map_err(|error| self.unfit(&file.path, &error.to_string()))?;
            for (at, hash) in hashes.iter().enumerate() {
                let row = first + at as u32;
                let is_ours = feeds.is_valid(at) && feeds.value(at) == self.partition;
                if is_ours && !gone.contains(row) {
                    builder.add(*hash, Place { file: number, row });
                }
            }
            first += rows as u32;
            Ok(())
        })
        .await
    }
}
