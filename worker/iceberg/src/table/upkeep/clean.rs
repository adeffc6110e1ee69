//! Files in a table's folder that nothing refers to: what killed writers and interrupted upkeep leave.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use iceberg::spec::TableMetadata;

use super::super::LakeTable;
use super::super::current::Loaded;
use super::super::offsets::files_of_moves;
use super::expire::remove;
use super::files::Reader;
use crate::error::{Kind, LakeError, Result};

/// How many files are named.
const NAMED: usize = 10;

/// Which files are removed.
#[derive(Debug, Clone, Copy)]
pub struct Clean {
    /// Not written to for so long: a writer may be about to commit what is younger.
    pub older_than: Duration,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Files that were looked at.
    pub seen: usize,
    /// Files that nothing refers to and that are old enough: removed, unless it was a dry run.
    pub orphans: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that nothing refers to and that are too young.
    pub young: usize,
    /// Orphans that could not be removed.
    pub left: usize,
    /// The first orphans.
    pub first: Vec<String>,
}

/// A file of the table's folder.
struct Found {
    path: String,
    bytes: u64,
    age: Duration,
}

impl LakeTable {
    /// Removes files that nothing refers to.
    ///
    /// # Errors
    /// What cannot be read, or a warehouse whose files cannot be listed.
    pub async fn clean(&self, wanted: &Clean) -> Result<Cleaned> {
        // Listed first: what is referred to later than that was there, or is not listed.
        let location = self.loaded().await?.metadata.location().to_owned();
        let found = self.list(&location).await?;
        let loaded = self.loaded().await?;
        if loaded.metadata.location() != location {
            let message = format!("table {} was moved meanwhile", self.name);
            return Err(LakeError::new(Kind::Contended, "table_moved", message));
        }
        let referred = self.all_files(&loaded).await?;
        let mut cleaned = Cleaned { seen: found.len(), ..Cleaned::default() };
        let mut orphans = Vec::new();
        for file in found.into_iter().filter(|file| !referred.contains(plain(&file.path))) {
            if file.age < wanted.older_than {
                cleaned.young += 1;
                continue;
            }
            cleaned.orphans += 1;
            cleaned.bytes += file.bytes;
            orphans.push(file.path);
        }
        orphans.sort();
        cleaned.first = orphans.iter().take(NAMED).cloned().collect();
        if !wanted.dry_run {
            cleaned.left = remove(&loaded.io, orphans).await.1;
        }
        Ok(cleaned)
    }

    /// All files that the table's metadata refers to, as [`plain`] paths.
    async fn all_files(&self, loaded: &Loaded) -> Result<HashSet<String>> {
        let metadata: &TableMetadata = &loaded.metadata;
        let snapshots = metadata.snapshots();
        let referred = Reader::default().referred(&loaded.io, metadata, snapshots, false).await;
        let mut referred = referred.map_err(|error| self.unreadable(error))?;
        referred.insert(loaded.location.clone());
        referred.extend(files_of_moves(metadata, &self.lake.owner, metadata.snapshots())?);
        referred.extend(metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
        referred.extend(metadata.statistics_iter().map(|s| s.statistics_path.clone()));
        referred.extend(metadata.partition_statistics_iter().map(|s| s.statistics_path.clone()));
        Ok(referred.into_iter().map(|path| plain(&path).to_owned()).collect())
    }

    async fn list(&self, location: &str) -> Result<Vec<Found>> {
        if plain(location).contains("://") {
            let message = format!("table {}: files in {location} cannot be listed", self.name);
            let error = LakeError::new(Kind::Unfit, "listing_unsupported", message);
            return Err(error.hint(
                "orphans are found in local warehouses only; the bucket's own rules, or the engine \
                 that reads the table, remove them elsewhere (Spark's remove_orphan_files)",
            ));
        }
        let folder = PathBuf::from(plain(location));
        let listed = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for part in ["data", "metadata"] {
                walk(&folder.join(part), &mut found)?;
            }
            Ok(found)
        });
        let listed = listed.await.map_err(|error| LakeError::internal("listing files", error))?;
        listed.map_err(|error: std::io::Error| {
            let message = format!("listing the files of table {} in {location}", self.name);
            LakeError::new(Kind::Unavailable, "warehouse_unavailable", message).caused_by(error)
        })
    }
}

/// A local file's path, however it is written.
fn plain(path: &str) -> &str {
    path.strip_prefix("file://").or_else(|| path.strip_prefix("file:")).unwrap_or(path)
}

fn walk(folder: &Path, found: &mut Vec<Found>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let details = match entry.metadata() {
            Ok(details) => details,
            // A writer was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if details.is_dir() {
            walk(&entry.path(), found)?;
            continue;
        }
        let age = SystemTime::now().duration_since(details.modified()?).unwrap_or_default();
        let path = entry.path().display().to_string();
        found.push(Found { path, bytes: details.len(), age });
    }
    Ok(())
}
