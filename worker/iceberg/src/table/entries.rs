//! The live files of a table as its manifests have them: what a commit that takes files away needs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::spec::{DataFile, ManifestContentType, ManifestFile, ManifestWriter, TableMetadata};

use super::{Loaded, live};

/// Manifests that are read at a time.
const AT_ONCE: usize = 16;

/// A live file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Arc<str>,
    pub(super) file: DataFile,
    pub(super) sequence: i64,
    /// Whose rows it holds.
    pub(super) group: i64,
    /// The partitioning that it was written by.
    pub(super) spec: i32,
    pub(super) snapshot: i64,
    pub(super) file_sequence: Option<i64>,
}

impl Entry {
    /// Puts it into a manifest: as a file that stays, or as one that goes.
    pub(super) fn put(
        &self,
        writer: &mut ManifestWriter,
        going: &HashSet<Arc<str>>,
    ) -> iceberg::Result<()> {
        let (file, sequence) = (self.file.clone(), self.sequence);
        if going.contains(&self.path) {
            writer.add_delete_file(file, sequence, self.file_sequence)
        } else {
            writer.add_existing_file(file, self.snapshot, sequence, self.file_sequence)
        }
    }
}

/// The live files of a table.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) data: Vec<Arc<Entry>>,
    pub(super) deletes: Vec<Arc<Entry>>,
    pub(super) manifests: Vec<(ManifestFile, Arc<Vec<Arc<Entry>>>)>,
}

impl Live {
    /// Reads them. `before`: manifests that were read already.
    pub(super) async fn load(loaded: &Loaded, before: &Self) -> iceberg::Result<Self> {
        let (io, metadata) = (&loaded.io, &*loaded.metadata);
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(Self::default()) };
        let listed = live::manifests(io, metadata, snapshot).await?;
        let known: HashMap<&str, &Arc<Vec<Arc<Entry>>>> =
            before.manifests.iter().map(|(file, of)| (file.manifest_path.as_str(), of)).collect();
        let mut read = Vec::with_capacity(listed.len());
        for manifest in listed {
            let known = known.get(manifest.manifest_path.as_str()).map(|of| Arc::clone(of));
            read.push(listed_in(io, metadata, manifest, known));
        }
        let manifests: Vec<_> = futures::stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        let mut live = Self { manifests, ..Self::default() };
        for (manifest, entries) in &live.manifests {
            match manifest.content {
                ManifestContentType::Data => live.data.extend(entries.iter().cloned()),
                ManifestContentType::Deletes => live.deletes.extend(entries.iter().cloned()),
            }
        }
        Ok(live)
    }

    pub(super) fn paths(&self) -> HashSet<&Arc<str>> {
        self.data.iter().map(|entry| &entry.path).collect()
    }
}

/// A manifest and its live files.
async fn listed_in(
    io: &FileIO,
    metadata: &TableMetadata,
    manifest: ManifestFile,
    known: Option<Arc<Vec<Arc<Entry>>>>,
) -> iceberg::Result<(ManifestFile, Arc<Vec<Arc<Entry>>>)> {
    let entries = match known {
        Some(entries) => entries,
        None => Arc::new(entries(io, metadata, &manifest).await?),
    };
    Ok((manifest, entries))
}

async fn entries(
    io: &FileIO,
    metadata: &TableMetadata,
    manifest: &ManifestFile,
) -> iceberg::Result<Vec<Arc<Entry>>> {
    let column = metadata.current_schema().field_by_name("_cdc_partition").map(|field| field.id);
    let loaded = manifest.load_manifest(io).await?;
    let alive = loaded.entries().iter().filter(|entry| entry.is_alive());
    let entries = alive.map(|entry| {
        Arc::new(Entry {
            path: entry.file_path().into(),
            file: entry.data_file().clone(),
            sequence: entry.sequence_number().unwrap_or(0),
            group: live::group(entry.data_file(), column),
            spec: manifest.partition_spec_id,
            snapshot: entry.snapshot_id().unwrap_or(manifest.added_snapshot_id),
            file_sequence: entry.file_sequence_number.or(Some(manifest.sequence_number)),
        })
    });
    Ok(entries.collect())
}
