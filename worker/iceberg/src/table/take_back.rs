//! The rows of a change log that come again, taken away in the snapshot that takes the sink back: files
//! that hold nothing else go, of the others the rows are deleted by position. Older snapshots keep them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cdc_shared::offset::{Position, TopicPartition};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, ManifestContentType, ManifestFile, SnapshotSummaryCollector, Struct,
    TableMetadata,
};
use roaring::RoaringTreemap;

use super::entries::{Entry, Live};
use super::read::Gone;
use super::records::{Found, Records};
use super::stage::Draft;
use super::write;
use super::{LakeTable, Loaded};
use crate::error::{Kind, LakeError, Result};

/// What a snapshot takes away.
#[derive(Debug)]
pub(super) struct Taken {
    live: Live,
    /// Data files that go.
    going: HashSet<Arc<str>>,
    /// Deletes of rows of the others, by the partitioning of these.
    deletes: Vec<(i32, DataFile)>,
}

/// Rows that go, by their files.
type Rows = BTreeMap<Arc<str>, Vec<u32>>;

/// Whether rows come again when a sink goes from one position to another.
pub(super) fn goes_back(from: &Position, to: &Position) -> bool {
    from.topic_id == to.topic_id && to.next < from.next
}

impl LakeTable {
    /// What is taken away for a step back of a partition; `None` when there is nothing. `before`: what
    /// was read for an earlier attempt.
    pub(super) async fn take_back(
        &self,
        loaded: &Loaded,
        tp: &TopicPartition,
        (from, to): (&Position, &Position),
        before: &Live,
    ) -> Result<Option<Taken>> {
        let live = Live::load(loaded, before).await.map_err(|error| self.unreadable(error))?;
        let records = Records { tp, offsets: to.next.get()..from.next.get() };
        let mut found = self.rows_of(loaded, &live, &records, &Gone::new()).await?;
        if is_ambiguous(&found) {
            // Of those that are there twice one may be deleted.
            let gone = self.gone(loaded, &live).await?;
            found = self.rows_of(loaded, &live, &records, &gone).await?;
        }
        if is_ambiguous(&found) {
            return Err(self.ambiguous(&records));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let is_whole = |found: &Found| found.rows.len() == found.entry.file.record_count();
        let (whole, some): (Vec<_>, Vec<_>) = found.into_iter().partition(is_whole);
        let deletes = self.write_deletes(loaded, &some, &records).await?;
        tracing::info!(
            table = %self.name, %tp, from = to.next.get(), files = whole.len(),
            files_in_part = some.len(), "rows that come again are taken away"
        );
        let going = whole.into_iter().map(|found| found.entry.path.clone()).collect();
        Ok(Some(Taken { live, going, deletes }))
    }

    fn ambiguous(&self, Records { tp, offsets }: &Records<'_>) -> LakeError {
        let message = format!(
            "table {} has several rows of one offset of {tp} between {} and {}: of a former topic of \
             that name, which nothing brings again?",
            self.name, offsets.start, offsets.end
        );
        LakeError::new(Kind::Unfit, "rows_ambiguous", message).hint(
            "delete those that are to come again, or move the others to another table; then the sink \
             goes back by itself",
        )
    }

    async fn write_deletes(
        &self,
        loaded: &Loaded,
        some: &[Found],
        Records { tp, .. }: &Records<'_>,
    ) -> Result<Vec<(i32, DataFile)>> {
        if !some.is_empty() && loaded.metadata.format_version() != FormatVersion::V2 {
            let message = format!(
                "table {} is of format version {}, and rows of {tp} that come again are in files with \
                 others: the sink does not write such deletes",
                self.name,
                loaded.metadata.format_version()
            );
            let error = LakeError::new(Kind::Unfit, "table_unfit", message);
            return Err(error.hint("roll the table back: that takes the sink back with it"));
        }
        let mut groups: HashMap<(i32, &Struct), Rows> = HashMap::new();
        for Found { entry, rows, .. } in some {
            let group = groups.entry((entry.spec, entry.file.partition())).or_default();
            group.insert(entry.path.clone(), rows.iter().collect());
        }
        let mut written = Vec::new();
        for ((spec_id, values), rows) in groups {
            let (name, of) = (uuid::Uuid::new_v4(), (spec_id, values.clone()));
            let file = write::deletes(&loaded.io, &loaded.metadata, name, of, rows).await?;
            written.extend(file.map(|file| (spec_id, file)));
        }
        Ok(written)
    }
}

/// Whether an offset is there twice.
fn is_ambiguous(found: &[Found]) -> bool {
    let mut all = RoaringTreemap::new();
    let mut count = 0;
    for found in found {
        count += found.offsets.len();
        all |= &found.offsets;
    }
    found.iter().any(|found| found.is_ambiguous) || all.len() != count
}

impl Taken {
    /// Files that were written for it.
    pub(super) fn files(&self) -> impl Iterator<Item = String> {
        self.deletes.iter().map(|(_, file)| file.file_path().to_owned())
    }

    /// For the next attempt.
    pub(super) fn into_live(self) -> Live {
        self.live
    }

    /// The manifests of the snapshot.
    pub(super) async fn manifests(
        &self,
        io: &FileIO,
        draft: &mut Draft<'_>,
    ) -> iceberg::Result<Vec<ManifestFile>> {
        let mut manifests = Vec::with_capacity(self.live.manifests.len());
        for (manifest, entries) in &self.live.manifests {
            if entries.is_empty() {
                continue;
            }
            let is_data = manifest.content == ManifestContentType::Data;
            if !is_data || !entries.iter().any(|entry| self.going.contains(&entry.path)) {
                manifests.push(manifest.clone());
                continue;
            }
            manifests.push(self.without(io, draft, manifest.partition_spec_id, entries).await?);
        }
        let mut by_spec: BTreeMap<i32, Vec<&DataFile>> = BTreeMap::new();
        for (spec, file) in &self.deletes {
            by_spec.entry(*spec).or_default().push(file);
        }
        for (spec, files) in by_spec {
            let mut writer = draft.writer_of(io, false, spec)?;
            for file in files {
                // Its sequence number is that of the snapshot.
                writer.add_file(file.clone(), -1)?;
            }
            manifests.push(writer.write_manifest_file().await?);
        }
        Ok(manifests)
    }

    async fn without(
        &self,
        io: &FileIO,
        draft: &mut Draft<'_>,
        spec: i32,
        entries: &[Arc<Entry>],
    ) -> iceberg::Result<ManifestFile> {
        let mut writer = draft.writer_of(io, true, spec)?;
        for entry in entries {
            entry.put(&mut writer, &self.going)?;
        }
        writer.write_manifest_file().await
    }

    /// What the snapshot's summary says of it.
    pub(super) fn count(&self, metadata: &TableMetadata, collector: &mut SnapshotSummaryCollector) {
        let schema = metadata.current_schema();
        let spec = |id: i32| {
            let default = metadata.default_partition_spec();
            metadata.partition_spec_by_id(id).unwrap_or(default).clone()
        };
        for entry in self.live.data.iter().filter(|entry| self.going.contains(&entry.path)) {
            collector.remove_file(&entry.file, schema.clone(), spec(entry.spec));
        }
        for (of, file) in &self.deletes {
            collector.add_file(file, schema.clone(), spec(*of));
        }
    }
}
