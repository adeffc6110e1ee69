//! Which files snapshots refer to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::spec::{ManifestFile, SnapshotRef, TableMetadata};

use super::super::live;
use super::AT_ONCE;

/// Files of a manifest, and whether they are live in it.
type Named = Arc<Vec<(String, bool)>>;

/// Reads manifests, each once.
#[derive(Debug, Default)]
pub(super) struct Reader {
    known: HashMap<String, Named>,
}

impl Reader {
    /// Lists of manifests, manifests and files that snapshots refer to. `gone`: files too that they
    /// only say to be gone.
    pub(super) async fn referred<'s>(
        &mut self,
        io: &FileIO,
        metadata: &TableMetadata,
        snapshots: impl Iterator<Item = &'s SnapshotRef>,
        gone: bool,
    ) -> iceberg::Result<HashSet<String>> {
        let mut referred = HashSet::new();
        for snapshot in snapshots {
            referred.insert(snapshot.manifest_list().to_owned());
            let manifests = live::manifests(io, metadata, snapshot).await?;
            self.read(io, &manifests).await?;
            for manifest in &manifests {
                if !referred.insert(manifest.manifest_path.clone()) {
                    continue;
                }
                let files = self.known.get(&manifest.manifest_path);
                let files = files.into_iter().flat_map(|files| files.iter());
                let files = files.filter(|(_, is_live)| gone || *is_live);
                referred.extend(files.map(|(path, _)| path.clone()));
            }
        }
        Ok(referred)
    }

    async fn read(&mut self, io: &FileIO, manifests: &[ManifestFile]) -> iceberg::Result<()> {
        let new = manifests.iter().filter(|found| !self.known.contains_key(&found.manifest_path));
        let new: Vec<_> = new.map(|manifest| named(io, manifest)).collect();
        let read: Vec<(String, Named)> =
            futures::stream::iter(new).buffer_unordered(AT_ONCE).try_collect().await?;
        self.known.extend(read);
        Ok(())
    }
}

async fn named(io: &FileIO, manifest: &ManifestFile) -> iceberg::Result<(String, Named)> {
    let files = manifest.load_manifest(io).await?;
    let files = files.entries().iter();
    let files = files.map(|entry| (entry.file_path().to_owned(), entry.is_alive()));
    Ok((manifest.manifest_path.clone(), Arc::new(files.collect())))
}
