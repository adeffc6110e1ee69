//! Small files are joined, and deleted rows left out, while writers go on.
//!
//! Files of rows of one Kafka partition stay such files: its owner finds them by that. What writers
//! delete from a file while it is rewritten is deleted from the new one by the same commit: where its
//! rows are there is known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow_array::{RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Schema as ArrowSchema};
use cdc_shared::config::IcebergWriteMode as WriteMode;
use futures::{StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::spec::{DataContentType, DataFile, DataFileFormat};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use roaring::RoaringBitmap;
use tokio::sync::mpsc;

use super::super::current::{Loaded, discard};
use super::super::entries::{Entry, Live};
use super::super::write::{self, Content};
use super::super::{LakeTable, read};
use super::bins::{Candidate, bins};
use super::rewrite::paths_of;
use crate::error::{Kind, LakeError, Result};

/// Which files are rewritten.
#[derive(Debug, Clone, Copy)]
pub struct Compact {
    /// Size that files are brought to, in bytes.
    pub target_bytes: u64,
    /// Fewer small files than this are left for later.
    pub min_files: usize,
    /// A file of which so many percent of the rows are deleted is rewritten, whatever its size.
    pub gone_percent: u8,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Data files that were rewritten.
    pub read: usize,
    /// Data files that they became.
    pub written: usize,
    /// Rows of those.
    pub rows: u64,
    /// Deleted rows that are in no file any more.
    pub gone: u64,
    /// Files of deletes that were needed no more.
    pub deletes: usize,
    /// Data files that somebody else rewrote first.
    pub overtaken: usize,
}

/// The table as it was when files were chosen.
pub(super) struct Base {
    pub(super) loaded: Loaded,
    pub(super) live: Live,
    /// Deleted rows of each data file.
    gone: read::Gone,
    /// The data files that each file of deletes is about.
    pub(super) about: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

/// A file that was rewritten: where its rows are in the new one.
pub(super) struct Input {
    pub(super) entry: Arc<Entry>,
    first: u32,
    gone: RoaringBitmap,
}

impl Input {
    /// The place of a row in the new file.
    pub(super) fn place(&self, row: u32) -> Option<u32> {
        let before = u32::try_from(self.gone.rank(row)).unwrap_or(u32::MAX);
        (!self.gone.contains(row)).then(|| self.first + row - before)
    }

    fn rows(&self) -> u64 {
        self.entry.file.record_count().saturating_sub(self.gone.len())
    }
}

/// A new file; none where all rows were deleted.
pub(super) struct Output {
    pub(super) path: Arc<str>,
    pub(super) file: Option<DataFile>,
    pub(super) inputs: Vec<Input>,
}

impl Output {
    pub(super) fn rows(&self) -> u64 {
        self.inputs.iter().map(Input::rows).sum()
    }

    pub(super) fn gone(&self) -> u64 {
        self.inputs.iter().map(|input| input.gone.len()).sum()
    }
}

impl LakeTable {
    /// Joins small files and leaves deleted rows out.
    ///
    /// # Errors
    /// What cannot be read or written; a table that needs the engine that wrote it (deletes by value,
    /// deletion vectors).
    pub async fn compact(&self, wanted: &Compact) -> Result<Compacted> {
        let base = self.base().await?;
        let spec = base.loaded.metadata.default_partition_spec_id();
        let files: Vec<&Arc<Entry>> =
            base.live.data.iter().filter(|entry| entry.spec == spec).collect();
        let mut groups = HashMap::new();
        let candidates = files.iter().map(|entry| {
            // A change log has no owners of files.
            let feeds = if self.lake.mode == WriteMode::Append { 0 } else { entry.group };
            let number = groups.len();
            let group = *groups.entry((feeds, entry.file.partition())).or_insert(number);
            base.candidate(entry, group)
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let mut outputs = Vec::new();
        for bin in bins(&candidates, wanted) {
            let bin = bin.iter().filter_map(|place| files.get(*place).map(|file| (*file).clone()));
            match self.rewrite(&base, bin.collect()).await {
                Ok(output) => outputs.push(output),
                Err(error) => {
                    discard(&base.loaded.io, paths_of(&outputs)).await;
                    return Err(error);
                }
            }
        }
        if outputs.is_empty() {
            return Ok(Compacted::default());
        }
        self.replace(&base, outputs).await
    }

    async fn base(&self) -> Result<Base> {
        let loaded = self.loaded().await?;
        let live = Live::load(&loaded, &Live::default()).await;
        let live = live.map_err(|error| self.unreadable(error))?;
        let known: HashSet<Arc<str>> = live.data.iter().map(|entry| entry.path.clone()).collect();
        let mut base = Base { loaded, live, gone: read::Gone::new(), about: HashMap::new() };
        for entry in base.live.deletes.clone() {
            let about = base.about.entry(entry.path.clone()).or_default();
            let gone = &mut base.gone;
            self.positions(&base.loaded.io, &entry, |path, row| {
                let Some(path) = known.get(path) else { return };
                if !about.contains(path) {
                    about.insert(path.clone());
                }
                gone.entry(path.clone()).or_default().insert(row);
            })
            .await?;
        }
        Ok(base)
    }

    fn needs_engine(&self, why: &str) -> LakeError {
        let message = format!("table {} {why}, which the sink cannot compact", self.name);
        LakeError::new(Kind::Unfit, "table_unfit", message)
            .hint("let the engine that wrote it rewrite its files")
    }

    /// Deletes by position in a file.
    pub(super) async fn positions(
        &self,
        io: &FileIO,
        deletes: &Entry,
        take: impl FnMut(&str, u32),
    ) -> Result<()> {
        let file = &deletes.file;
        if file.content_type() != DataContentType::PositionDeletes {
            return Err(self.needs_engine("has deletes by value"));
        }
        if file.file_format() != DataFileFormat::Parquet {
            return Err(self.needs_engine("has deletes in another format than Parquet"));
        }
        if read::positions(io, &deletes.path, take).await? {
            return Ok(());
        }
        Err(self.needs_engine("has a file of deletes with other columns than deletes have"))
    }

    /// Writes the rows of some files into one.
    async fn rewrite(&self, base: &Base, files: Vec<Arc<Entry>>) -> Result<Output> {
        let metadata = &base.loaded.metadata;
        let (mut inputs, mut first) = (Vec::new(), 0);
        for entry in files {
            let gone = base.gone.get(&entry.path).cloned().unwrap_or_default();
            let input = Input { entry, first, gone };
            first += u32::try_from(input.rows())
                .map_err(|error| LakeError::internal("joining files", error))?;
            inputs.push(input);
        }
        let name = uuid::Uuid::new_v4();
        let path: Arc<str> = format!("{}/data/{name}-joined.parquet", metadata.location()).into();
        let arrow = write::arrow(metadata.current_schema())?;
        let (sender, receiver) = mpsc::channel(2);
        let batches = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|batch| (Ok(batch), receiver))
        });
        let mut content = Content::data(path.to_string(), metadata);
        if let Some(input) = inputs.first() {
            content.values = input.entry.file.partition().clone();
        }
        let io = base.loaded.io.clone();
        let (read, written) = tokio::join!(
            self.send(&base.loaded.io, &inputs, &arrow, sender),
            write::write(io, content, batches.boxed())
        );
        let output = Output { path: path.clone(), file: written?, inputs };
        let rows = output.file.as_ref().map_or(0, DataFile::record_count);
        if read.is_err() || rows != output.rows() {
            discard(&base.loaded.io, [path.to_string()]).await;
        }
        read?;
        if rows == output.rows() {
            return Ok(output);
        }
        let message = format!("{rows} of {} rows of table {} came", output.rows(), self.name);
        Err(LakeError::new(Kind::Internal, "internal", message))
    }

    /// Reads the rows that last, in the table's columns.
    async fn send(
        &self,
        io: &FileIO,
        inputs: &[Input],
        arrow: &Arc<ArrowSchema>,
        sender: mpsc::Sender<RecordBatch>,
    ) -> Result<()> {
        let ids: Vec<i32> = arrow.fields().iter().filter_map(|field| id(field)).collect();
        for input in inputs {
            let rows = u32::try_from(input.entry.file.record_count()).unwrap_or(u32::MAX);
            let lasting = (!input.gone.is_empty())
                .then(|| (0..rows).filter(|row| !input.gone.contains(*row)).collect::<Vec<_>>());
            let path = &input.entry.path;
            let mut batches = read::open(io, path, &ids, lasting.as_deref()).await?;
            while let Some(batch) =
                batches.try_next().await.map_err(|error| read::failed(path, error))?
            {
                let batch = in_table(&batch, arrow);
                let batch = batch.map_err(|error| LakeError::internal("joining files", error))?;
                if sender.send(batch).await.is_err() {
                    // The writer has failed, and says why.
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Base {
    fn candidate(&self, entry: &Entry, group: usize) -> Candidate {
        Candidate {
            group,
            sequence: entry.sequence,
            bytes: entry.file.file_size_in_bytes(),
            rows: entry.file.record_count(),
            gone: self.gone.get(&entry.path).map_or(0, RoaringBitmap::len),
        }
    }

    /// Files of deletes that are about nothing but some data files that go, or that are gone.
    pub(super) fn needless(&self, live: &Live, going: &HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        let lasting: HashSet<&Arc<str>> = live.data.iter().map(|entry| &entry.path).collect();
        let is_needless = |about: &HashSet<Arc<str>>| {
            about.iter().all(|path| going.contains(path) || !lasting.contains(path))
        };
        let about = live.deletes.iter().filter_map(|entry| self.about.get_key_value(&entry.path));
        about.filter(|(_, about)| is_needless(about)).map(|(path, _)| path.clone()).collect()
    }
}

/// Deletes in new files, by file.
pub(super) type Late = BTreeMap<Arc<str>, Vec<u32>>;

fn id(field: &arrow_schema::Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// Rows of a file in the columns that the table has now.
fn in_table(
    batch: &RecordBatch,
    arrow: &Arc<ArrowSchema>,
) -> std::result::Result<RecordBatch, ArrowError> {
    let found = read::by_id(batch);
    let columns =
        arrow.fields().iter().map(|field| match id(field).and_then(|id| found.get(&id)) {
            Some(column) => write::as_type(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
    let columns: std::result::Result<Vec<_>, _> = columns.collect();
    RecordBatch::try_new(arrow.clone(), columns?)
}
