//! The files that are live in a snapshot. Manifests never change: each is read once.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, ManifestContentType, ManifestFile, ManifestList,
    PrimitiveLiteral, Snapshot, TableMetadata,
};

/// Whose rows a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Feeds {
    /// Those of one Kafka partition.
    One(i32),
    /// Nobody's of ours.
    Nobody,
    /// That is not known without reading it.
    Any,
}

/// A live file.
#[derive(Debug)]
pub(super) struct LiveFile {
    pub(super) path: Arc<str>,
    pub(super) content: DataContentType,
    pub(super) format: DataFileFormat,
    pub(super) sequence: i64,
    /// Rows in it.
    pub(super) rows: u64,
    feeds: Feeds,
}

impl LiveFile {
    /// Whether it can have rows of a Kafka partition.
    pub(super) fn may_hold(&self, partition: i32) -> bool {
        match self.feeds {
            Feeds::One(found) => found == partition,
            Feeds::Nobody => false,
            Feeds::Any => true,
        }
    }

    /// Whether it has rows of this Kafka partition alone.
    pub(super) fn is_of(&self, partition: i32) -> bool {
        matches!(self.feeds, Feeds::One(found) if found == partition)
    }
}

/// The live files of a snapshot.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) snapshot: Option<i64>,
    pub(super) data: Vec<Arc<LiveFile>>,
    pub(super) deletes: Vec<Arc<LiveFile>>,
}

/// Files of the manifests that were read, by their paths.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    known: HashMap<String, Arc<Vec<Arc<LiveFile>>>>,
    view: Arc<View>,
}

impl Manifests {
    /// The files of main's newest snapshot.
    pub(super) async fn view(
        &mut self,
        io: &FileIO,
        metadata: &TableMetadata,
    ) -> iceberg::Result<Arc<View>> {
        let Some(snapshot) = metadata.current_snapshot() else {
            return Ok(Arc::new(View::default()));
        };
        if self.view.snapshot == Some(snapshot.snapshot_id()) {
            return Ok(self.view.clone());
        }
        let manifests = manifests(io, metadata, snapshot).await?;
        let mut known = HashMap::with_capacity(manifests.len());
        let mut view = View { snapshot: Some(snapshot.snapshot_id()), ..View::default() };
        for manifest in manifests {
            let files = match self.known.get(&manifest.manifest_path) {
                Some(files) => files.clone(),
                None => Arc::new(read(io, metadata, &manifest).await?),
            };
            match manifest.content {
                ManifestContentType::Data => view.data.extend(files.iter().cloned()),
                ManifestContentType::Deletes => view.deletes.extend(files.iter().cloned()),
            }
            known.insert(manifest.manifest_path, files);
        }
        self.known = known;
        self.view = Arc::new(view);
        Ok(self.view.clone())
    }
}

/// The manifests of a snapshot.
pub(super) async fn manifests(
    io: &FileIO,
    metadata: &TableMetadata,
    snapshot: &Snapshot,
) -> iceberg::Result<Vec<ManifestFile>> {
    let list = io.new_input(snapshot.manifest_list())?.read().await?;
    let list = ManifestList::parse_with_version(&list, metadata.format_version())?;
    Ok(list.consume_entries().into_iter().collect())
}

async fn read(
    io: &FileIO,
    metadata: &TableMetadata,
    manifest: &ManifestFile,
) -> iceberg::Result<Vec<Arc<LiveFile>>> {
    let schema = metadata.current_schema();
    let partition = schema.field_by_name("_cdc_partition").map(|field| field.id);
    let manifest = manifest.load_manifest(io).await?;
    let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
    let files = alive.map(|entry| {
        let file = entry.data_file();
        Arc::new(LiveFile {
            path: file.file_path().into(),
            content: file.content_type(),
            format: file.file_format(),
            sequence: entry.sequence_number().unwrap_or(0),
            rows: file.record_count(),
            feeds: feeds(file, partition),
        })
    });
    Ok(files.collect())
}

/// By the bounds of the column that says it.
fn feeds(file: &DataFile, column: Option<i32>) -> Feeds {
    let Some(column) = column else { return Feeds::Any };
    let nulls = file.null_value_counts().get(&column).copied();
    if nulls == Some(file.record_count()) {
        return Feeds::Nobody;
    }
    let bound = |bounds: &HashMap<i32, iceberg::spec::Datum>| match bounds.get(&column)?.literal() {
        PrimitiveLiteral::Int(partition) => Some(*partition),
        _ => None,
    };
    match (bound(file.lower_bounds()), bound(file.upper_bounds())) {
        (Some(lower), Some(upper)) if lower == upper && nulls == Some(0) => Feeds::One(lower),
        _ => Feeds::Any,
    }
}

/// Whose rows a file holds, as a number: files of the same may be joined. `column`: id of
/// `_cdc_partition`.
pub(super) fn group(file: &DataFile, column: Option<i32>) -> i64 {
    match feeds(file, column) {
        Feeds::One(partition) => i64::from(partition),
        Feeds::Nobody => -1,
        Feeds::Any => -2,
    }
}
