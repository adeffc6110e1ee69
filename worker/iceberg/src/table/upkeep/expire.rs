//! Old snapshots are given up, and files with them that no other snapshot refers to.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;
use iceberg::io::FileIO;
use iceberg::spec::{SnapshotRef, SnapshotReference, TableMetadata};
use serde::Deserialize;

use super::super::current::Loaded;
use super::super::offsets::{files_of_moves, lineage};
use super::super::{LakeTable, give_way};
use super::files::Reader;
use super::{AT_ONCE, TURNS};
use crate::error::{LakeError, Result};

/// Which snapshots are given up: those that are older, but for the newest of main and whatever tags
/// and other branches name.
#[derive(Debug, Clone, Copy)]
pub struct Expire {
    /// Made before this time, Unix ms.
    pub before_ms: i64,
    /// How many of main stay at least. The newest always does.
    pub keep: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Snapshots that were given up.
    pub snapshots: usize,
    /// Snapshots that the table has still.
    pub kept: usize,
    /// Files that were removed with them.
    pub files: usize,
    /// Files that could not be removed; cleaning finds them.
    pub left: usize,
}

impl LakeTable {
    /// Gives up old snapshots. The sink's offsets stay: they are a property of the table. Files are
    /// removed after the commit; if that is interrupted, cleaning finds them.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub async fn expire(&self, wanted: &Expire) -> Result<Expired> {
        for turn in 0..TURNS {
            let _turn = self.turn.lock().await;
            let loaded = self.loaded().await?;
            let metadata = &loaded.metadata;
            let old = old(metadata, wanted)?;
            let kept = metadata.snapshots().len() - old.len();
            if old.is_empty() {
                return Ok(Expired { kept, ..Expired::default() });
            }
            let needless = self.needless_files(&loaded, &old).await?;
            let ids: Vec<i64> = old.iter().copied().collect();
            let expired = loaded.unchanged().change(Some(&loaded), |builder| {
                let builder = ids.iter().fold(builder, |builder, id| {
                    builder.remove_statistics(*id).remove_partition_statistics(*id)
                });
                Ok(builder.remove_snapshots(&ids))
            });
            let expired =
                expired.map_err(|error| LakeError::internal("expiring snapshots", error))?;
            if !self.swap(&loaded, expired).await? {
                give_way(turn).await;
                continue;
            }
            let (files, left) = remove(&loaded.io, needless).await;
            return Ok(Expired { snapshots: old.len(), kept, files, left });
        }
        Err(self.contended(TURNS))
    }

    /// Files that nothing refers to without some snapshots.
    async fn needless_files(&self, loaded: &Loaded, old: &HashSet<i64>) -> Result<Vec<String>> {
        let (io, metadata) = (&loaded.io, &loaded.metadata);
        let is_old = |snapshot: &&SnapshotRef| old.contains(&snapshot.snapshot_id());
        let (mut reader, snapshots) = (Reader::default(), || metadata.snapshots());
        let theirs = reader.referred(io, metadata, snapshots().filter(is_old), true).await;
        let mut theirs = theirs.map_err(|error| self.unreadable(error))?;
        let lasting = || snapshots().filter(|snapshot| !is_old(snapshot));
        let kept = reader.referred(io, metadata, lasting(), false).await;
        let mut kept = kept.map_err(|error| self.unreadable(error))?;
        kept.extend(files_of_moves(metadata, &self.lake.owner, lasting())?);
        let of = metadata.statistics_iter().map(|s| (s.snapshot_id, &s.statistics_path));
        let of_partitions =
            metadata.partition_statistics_iter().map(|s| (s.snapshot_id, &s.statistics_path));
        let statistics = of.chain(of_partitions).filter(|(id, _)| old.contains(id));
        theirs.extend(statistics.map(|(_, path)| path.clone()));
        Ok(theirs.difference(&kept).cloned().collect())
    }
}

/// Removes files. Gives how many are gone and how many are not.
pub(super) async fn remove(io: &FileIO, files: Vec<String>) -> (usize, usize) {
    let removed: Vec<_> = files.into_iter().map(|file| remove_one(io, file)).collect();
    let removed: Vec<bool> =
        futures::stream::iter(removed).buffer_unordered(AT_ONCE).collect().await;
    let gone = removed.iter().filter(|removed| **removed).count();
    (gone, removed.len() - gone)
}

async fn remove_one(io: &FileIO, file: String) -> bool {
    let removed = io.delete(&file).await;
    if let Err(error) = &removed {
        tracing::warn!(%file, %error, "a needless file is still there");
    }
    removed.is_ok()
}

/// What tags and branches name. `TableMetadata` tells of one by its name only.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    refs: HashMap<String, SnapshotReference>,
}

/// Snapshots that are given up.
fn old(metadata: &TableMetadata, wanted: &Expire) -> Result<HashSet<i64>> {
    let named = serde_json::to_value(metadata).and_then(serde_json::from_value::<Named>);
    let named = named.map_err(|error| LakeError::internal("reading tags and branches", error))?;
    let is_new = |snapshot: &SnapshotRef| snapshot.timestamp_ms() >= wanted.before_ms;
    let main = lineage(metadata).take(wanted.keep.max(1)).map(|snapshot| snapshot.snapshot_id());
    let new = metadata.snapshots().filter(|s| is_new(s)).map(|s| s.snapshot_id());
    let named = named.refs.values().map(|reference| reference.snapshot_id);
    let kept: HashSet<i64> = main.chain(new).chain(named).collect();
    let all = metadata.snapshots().map(|snapshot| snapshot.snapshot_id());
    Ok(all.filter(|id| !kept.contains(id)).collect())
}
