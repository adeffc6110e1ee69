//! The commit of new files in place of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, MAIN_BRANCH, ManifestContentType, Operation,
    SnapshotSummaryCollector, Struct,
};

use super::super::current::{Loaded, discard};
use super::super::entries::Live;
use super::super::offsets::{self, COMMIT_ID};
use super::super::write;
use super::super::{LakeTable, give_way, stage};
use super::TURNS;
use super::compact::{Base, Compacted, Late, Output};
use crate::error::{Kind, LakeError, Result};

/// A manifest with fewer live files than this is joined with others.
const FEW: usize = 200;

/// What one attempt replaces.
struct Attempt<'a> {
    loaded: &'a Loaded,
    live: Live,
    /// Data files and files of deletes that go.
    going: HashSet<Arc<str>>,
    added: Vec<&'a DataFile>,
    /// Sequence number of the added data.
    sequence: i64,
    late: Option<DataFile>,
    /// New files whose rows somebody else has rewritten meanwhile.
    overtaken: Vec<String>,
    /// What comes of it.
    done: Compacted,
}

impl LakeTable {
    /// Commits new files. Those whose rows somebody else has rewritten meanwhile are given up.
    pub(super) async fn replace(&self, base: &Base, outputs: Vec<Output>) -> Result<Compacted> {
        let commit = uuid::Uuid::new_v4().to_string();
        let (mut unsure, mut doubtful) = (None, Vec::new());
        for turn in 0..TURNS {
            let turn_of_this_process = self.turn.lock().await;
            let loaded = self.loaded().await?;
            if let Some(done) = unsure
                && offsets::has_commit(&loaded.metadata, &commit)
            {
                return Ok(done);
            }
            discard(&loaded.io, std::mem::take(&mut doubtful)).await;
            let attempt = match self.plan(base, &outputs, &loaded).await {
                Ok(attempt) => attempt,
                Err(error) => return Err(give_up(&loaded, &outputs, unsure, error).await),
            };
            match self.commit_attempt(&attempt, &commit).await {
                Ok(None) => {
                    discard(&loaded.io, attempt.overtaken).await;
                    return Ok(attempt.done);
                }
                // What sends requests for us may have sent this one twice.
                Ok(Some(files)) => {
                    doubtful = files;
                    unsure = Some(attempt.done);
                }
                Err(error) if error.kind == Kind::Unknown => unsure = Some(attempt.done),
                Err(error) => return Err(give_up(&loaded, &outputs, unsure, error).await),
            }
            drop(turn_of_this_process);
            give_way(turn).await;
        }
        Err(self.contended(TURNS))
    }

    /// What of the new files can be committed to the table as it is.
    async fn plan<'a>(
        &self,
        base: &Base,
        outputs: &'a [Output],
        loaded: &'a Loaded,
    ) -> Result<Attempt<'a>> {
        if loaded.metadata.uuid() != base.loaded.metadata.uuid() {
            let message = format!("table {} is another one than before", self.name);
            return Err(LakeError::new(Kind::Replaced, "table_replaced", message));
        }
        let live = Live::load(loaded, &base.live).await;
        let live = live.map_err(|error| self.unreadable(error))?;
        let paths = live.paths();
        let is_live =
            |output: &&Output| output.inputs.iter().all(|i| paths.contains(&i.entry.path));
        let (taken, overtaken): (Vec<&Output>, Vec<&Output>) = outputs.iter().partition(is_live);
        let inputs = taken.iter().flat_map(|output| &output.inputs);
        let mut going: HashSet<Arc<str>> = inputs.map(|input| input.entry.path.clone()).collect();
        let needless = base.needless(&live, &going);
        let done = Compacted {
            read: going.len(),
            written: taken.iter().filter(|output| output.file.is_some()).count(),
            rows: taken.iter().map(|output| output.rows()).sum(),
            gone: taken.iter().map(|output| output.gone()).sum(),
            deletes: needless.len(),
            overtaken: overtaken.iter().map(|output| output.inputs.len()).sum(),
        };
        going.extend(needless);
        let late = self.late(loaded, base, &live, &taken).await?;
        Ok(Attempt {
            late: self.write_late(loaded, late).await?,
            loaded,
            going,
            added: taken.iter().filter_map(|output| output.file.as_ref()).collect(),
            sequence: base.loaded.metadata.last_sequence_number(),
            // One that is live was taken by an attempt whose answer was lost.
            overtaken: paths_of(overtaken.into_iter().filter(|o| !paths.contains(&o.path))),
            done,
            live,
        })
    }

    /// What was deleted since, from files that are replaced, as deletes from the new ones.
    async fn late(
        &self,
        loaded: &Loaded,
        base: &Base,
        live: &Live,
        taken: &[&Output],
    ) -> Result<Late> {
        let inputs: HashMap<&str, (&Output, &super::compact::Input)> = taken
            .iter()
            .flat_map(|output| output.inputs.iter().map(move |input| (*output, input)))
            .map(|(output, input)| (&*input.entry.path, (output, input)))
            .collect();
        let mut late = Late::new();
        for entry in live.deletes.iter().filter(|entry| !base.about.contains_key(&entry.path)) {
            if entry.file.content_type() == DataContentType::EqualityDeletes {
                // By value: they hold for the new files too, which are as old as the replaced ones.
                continue;
            }
            self.positions(&loaded.io, entry, |path, row| {
                let Some((output, input)) = inputs.get(path) else { return };
                if let Some(row) = input.place(row) {
                    late.entry(output.path.clone()).or_default().push(row);
                }
            })
            .await?;
        }
        for rows in late.values_mut() {
            rows.sort_unstable();
            rows.dedup();
        }
        Ok(late)
    }

    async fn write_late(&self, loaded: &Loaded, late: Late) -> Result<Option<DataFile>> {
        if late.is_empty() {
            return Ok(None);
        }
        if !loaded.metadata.default_partition_spec().is_unpartitioned() {
            let message = format!("somebody deleted rows of table {} meanwhile", self.name);
            return Err(LakeError::new(Kind::Contended, "commit_contended", message));
        }
        let (name, metadata) = (uuid::Uuid::new_v4(), &loaded.metadata);
        let of = (metadata.default_partition_spec_id(), Struct::empty());
        write::deletes(&loaded.io, metadata, name, of, late).await
    }

    /// Files: another commit came first, and they are needless.
    async fn commit_attempt(
        &self,
        attempt: &Attempt<'_>,
        commit: &str,
    ) -> Result<Option<Vec<String>>> {
        let Attempt { loaded, .. } = attempt;
        if attempt.done.read == 0 {
            return Ok(None);
        }
        let mut own = HashMap::from([(COMMIT_ID.to_owned(), commit.to_owned())]);
        // A table that is rolled back to here has the offsets of here.
        if let Some(stored) = offsets::read(&loaded.metadata, &self.lake.owner)? {
            own.insert(self.lake.owner.key().to_owned(), stored.summary()?);
        }
        let staged = attempt.stage(&loaded.io, own).await.map_err(|error| {
            let doing = format!("writing the manifests of table {}", self.name);
            LakeError::warehouse(&doing, error)
        })?;
        let files = staged.files;
        let replaced = loaded.unchanged().change(Some(loaded), |builder| {
            builder.set_branch_snapshot(staged.snapshot, MAIN_BRANCH)
        });
        let replaced = replaced.map_err(|error| LakeError::internal("replacing files", error))?;
        if self.swap(loaded, replaced).await? {
            return Ok(None);
        }
        let late = attempt.late.as_ref().map(|file| file.file_path().to_owned());
        Ok(Some(files.into_iter().chain(late).collect()))
    }
}

/// New files go with an error, unless an attempt may have been taken.
async fn give_up(
    loaded: &Loaded,
    outputs: &[Output],
    unsure: Option<Compacted>,
    error: LakeError,
) -> LakeError {
    if unsure.is_none() {
        discard(&loaded.io, paths_of(outputs)).await;
    }
    error
}

/// Where new files are.
pub(super) fn paths_of<'o>(outputs: impl IntoIterator<Item = &'o Output>) -> Vec<String> {
    outputs.into_iter().map(|output| output.path.to_string()).collect()
}

impl Attempt<'_> {
    async fn stage(
        &self,
        io: &FileIO,
        own: HashMap<String, String>,
    ) -> iceberg::Result<stage::Staged> {
        let metadata = &*self.loaded.metadata;
        let mut draft = stage::Draft::new(metadata);
        for content in [ManifestContentType::Data, ManifestContentType::Deletes] {
            self.manifest(io, &mut draft, content).await?;
        }
        let mut collector = SnapshotSummaryCollector::default();
        let (schema, spec) = (metadata.current_schema(), metadata.default_partition_spec());
        for file in self.added.iter().copied().chain(&self.late) {
            collector.add_file(file, schema.clone(), spec.clone());
        }
        for entry in self.live.data.iter().chain(&self.live.deletes) {
            if self.going.contains(&entry.path) {
                collector.remove_file(&entry.file, schema.clone(), spec.clone());
            }
        }
        let summary = stage::summary(metadata, &collector, Operation::Replace, own);
        draft.finish(io, summary).await
    }

    /// The manifests of a kind: as they are, or with others in one.
    async fn manifest(
        &self,
        io: &FileIO,
        draft: &mut stage::Draft<'_>,
        content: ManifestContentType,
    ) -> iceberg::Result<()> {
        let metadata = draft.metadata;
        let spec = metadata.default_partition_spec_id();
        let is_data = content == ManifestContentType::Data;
        let of_kind = self.live.manifests.iter().filter(|(file, _)| file.content == content);
        let (joined, kept): (Vec<_>, Vec<_>) = of_kind.partition(|(file, entries)| {
            let goes = entries.iter().any(|entry| self.going.contains(&entry.path));
            file.partition_spec_id == spec && (goes || entries.len() < FEW)
        });
        let kept = kept.into_iter().filter(|(_, entries)| !entries.is_empty());
        draft.manifests.extend(kept.map(|(file, _)| file.clone()));
        let added: Vec<&DataFile> =
            if is_data { self.added.clone() } else { self.late.iter().collect() };
        let is_empty = joined.iter().all(|(_, entries)| entries.is_empty());
        if added.is_empty() && is_empty {
            return Ok(());
        }
        let mut writer = draft.writer(io, is_data)?;
        for entry in joined.iter().flat_map(|(_, entries)| entries.iter()) {
            entry.put(&mut writer, &self.going)?;
        }
        for file in added {
            writer.add_file(file.clone(), if is_data { self.sequence } else { -1 })?;
        }
        draft.manifests.push(writer.write_manifest_file().await?);
        Ok(())
    }
}
