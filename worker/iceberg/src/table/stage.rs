//! A new snapshot: its manifest, its list of manifests, its summary.

use std::collections::HashMap;

use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, FormatVersion, ManifestFile, ManifestListWriter, ManifestWriter,
    ManifestWriterBuilder, Operation, Snapshot, SnapshotSummaryCollector, Summary, TableMetadata,
};

use super::take_back::Taken;
use super::{Loaded, live};

/// Totals of a summary: what they are called, what adds to them, what takes away.
const TOTALS: [(&str, &str, &str); 6] = [
    ("total-data-files", "added-data-files", "deleted-data-files"),
    ("total-delete-files", "added-delete-files", "removed-delete-files"),
    ("total-records", "added-records", "deleted-records"),
    ("total-files-size", "added-files-size", "removed-files-size"),
    ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
    ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
];

/// A staged snapshot and the files that were written for it alone.
pub(super) struct Staged {
    pub(super) snapshot: Snapshot,
    pub(super) files: Vec<String>,
}

/// What a snapshot changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added<'f> {
    pub(super) data: &'f [DataFile],
    pub(super) deletes: &'f [DataFile],
    /// What is taken away.
    pub(super) taken: Option<&'f Taken>,
}

impl Added<'_> {
    /// None at all.
    pub(super) const NONE: Self = Self { data: &[], deletes: &[], taken: None };

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.deletes.is_empty() && self.taken.is_none()
    }
}

/// A snapshot under construction.
pub(super) struct Draft<'m> {
    pub(super) metadata: &'m TableMetadata,
    /// Manifests that it consists of.
    pub(super) manifests: Vec<ManifestFile>,
    id: i64,
    name: uuid::Uuid,
    files: Vec<String>,
}

impl<'m> Draft<'m> {
    /// A snapshot of nothing, on main's newest.
    pub(super) fn new(metadata: &'m TableMetadata) -> Self {
        Self::with_id(metadata, new_id(metadata))
    }

    fn with_id(metadata: &'m TableMetadata, id: i64) -> Self {
        let name = uuid::Uuid::new_v4();
        Self { metadata, manifests: Vec::new(), id, name, files: Vec::new() }
    }

    /// A writer of a manifest of its own.
    pub(super) fn writer(&mut self, io: &FileIO, is_data: bool) -> iceberg::Result<ManifestWriter> {
        self.writer_of(io, is_data, self.metadata.default_partition_spec_id())
    }

    /// The same of files that were written by another partitioning.
    pub(super) fn writer_of(
        &mut self,
        io: &FileIO,
        is_data: bool,
        spec: i32,
    ) -> iceberg::Result<ManifestWriter> {
        let metadata = self.metadata;
        let spec = metadata.partition_spec_by_id(spec).ok_or_else(|| {
            let message = format!("partition spec {spec} is gone");
            iceberg::Error::new(iceberg::ErrorKind::DataInvalid, message)
        })?;
        let (name, number) = (self.name, self.files.len());
        let path = format!("{}/metadata/{name}-m{number}.avro", metadata.location());
        let builder = ManifestWriterBuilder::new(
            io.new_output(&path)?,
            Some(self.id),
            metadata.current_schema().clone(),
            spec.as_ref().clone(),
        );
        self.files.push(path);
        Ok(match (metadata.format_version(), is_data) {
            (FormatVersion::V3, true) => builder.build_v3_data(),
            (FormatVersion::V3, false) => builder.build_v3_deletes(),
            (_, true) => builder.build_v2_data(),
            (_, false) => builder.build_v2_deletes(),
        })
    }

    /// Writes the list of its manifests.
    pub(super) async fn finish(mut self, io: &FileIO, summary: Summary) -> iceberg::Result<Staged> {
        let (metadata, id, sequence) =
            (self.metadata, self.id, self.metadata.next_sequence_number());
        let list = format!("{}/metadata/snap-{id}-0-{}.avro", metadata.location(), self.name);
        let writer = io.new_output(&list)?.writer().await?;
        let parent = metadata.current_snapshot_id();
        let mut list_writer = match metadata.format_version() {
            FormatVersion::V3 => {
                ManifestListWriter::v3(writer, id, parent, sequence, Some(metadata.next_row_id()))
            }
            _ => ManifestListWriter::v2(writer, id, parent, sequence),
        };
        list_writer.add_manifests(self.manifests.into_iter())?;
        let next_row = list_writer.next_row_id();
        list_writer.close().await?;

        let now = cdc_shared::clock::unix_ms();
        let snapshot = Snapshot::builder()
            .with_manifest_list(list.clone())
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence)
            .with_summary(summary)
            .with_schema_id(metadata.current_schema_id())
            // Clocks of other writers may be ahead.
            .with_timestamp_ms(now.max(metadata.last_updated_ms()));
        let snapshot = match next_row {
            Some(next) => {
                let first = metadata.next_row_id();
                snapshot.with_row_range(first, next.saturating_sub(first)).build()
            }
            None => snapshot.build(),
        };
        self.files.push(list);
        Ok(Staged { snapshot, files: self.files })
    }
}

/// Stages a snapshot on main's newest. `summary`: entries of our own.
pub(super) async fn snapshot(
    loaded: &Loaded,
    metadata: &TableMetadata,
    id: i64,
    added: Added<'_>,
    summary: HashMap<String, String>,
) -> iceberg::Result<Staged> {
    let io = &loaded.io;
    let mut draft = Draft::with_id(metadata, id);
    draft.manifests = match added.taken {
        Some(taken) => taken.manifests(io, &mut draft).await?,
        None => older_manifests(loaded).await?,
    };
    for of in [added.data, added.deletes] {
        if of.is_empty() {
            continue;
        }
        let is_data = of.iter().all(|file| file.content_type() == DataContentType::Data);
        let mut writer = draft.writer(io, is_data)?;
        for file in of {
            // Its sequence number is that of the snapshot.
            writer.add_file(file.clone(), -1)?;
        }
        draft.manifests.push(writer.write_manifest_file().await?);
    }
    let mut collector = SnapshotSummaryCollector::default();
    for file in added.data.iter().chain(added.deletes) {
        let (schema, spec) = (metadata.current_schema(), metadata.default_partition_spec());
        collector.add_file(file, schema.clone(), spec.clone());
    }
    if let Some(taken) = added.taken {
        taken.count(metadata, &mut collector);
    }
    let takes = !added.deletes.is_empty() || added.taken.is_some();
    let operation = match (added.data.is_empty(), takes) {
        (_, false) => Operation::Append,
        (true, true) => Operation::Delete,
        (false, true) => Operation::Overwrite,
    };
    draft.finish(io, self::summary(metadata, &collector, operation, summary)).await
}

async fn older_manifests(loaded: &Loaded) -> iceberg::Result<Vec<ManifestFile>> {
    let (io, metadata) = (&loaded.io, &loaded.metadata);
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(Vec::new()) };
    let entries = live::manifests(io, metadata, snapshot).await?.into_iter();
    Ok(entries.filter(|entry| entry.has_added_files() || entry.has_existing_files()).collect())
}

/// What a snapshot says of itself. `own`: entries of our own.
pub(super) fn summary(
    metadata: &TableMetadata,
    collector: &SnapshotSummaryCollector,
    operation: Operation,
    own: HashMap<String, String>,
) -> Summary {
    let mut properties = collector.build();
    let number = |properties: &HashMap<String, String>, key: &str| {
        properties.get(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let empty = HashMap::new();
    let previous = metadata.current_snapshot().map(|snapshot| snapshot.summary());
    let previous = previous.map_or(&empty, |summary| &summary.additional_properties);
    for (total, added, removed) in TOTALS {
        let before = number(previous, total) + number(&properties, added);
        let now = before.saturating_sub(number(&properties, removed));
        properties.insert(total.to_owned(), now.to_string());
    }
    properties.extend(own);
    Summary { operation, additional_properties: properties }
}

/// An id that no snapshot of the table has.
pub(super) fn new_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        let id = ((high ^ low) & i64::MAX.unsigned_abs()).cast_signed();
        if metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}
