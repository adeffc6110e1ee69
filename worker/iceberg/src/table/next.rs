//! The next metadata of a table: its new snapshot, and what the table holds of the sink then.

use std::collections::HashMap;

use iceberg::spec::MAIN_BRANCH;

use super::LakeTable;
use super::current::{Changed, Loaded};
use super::offsets::{COMMIT_ID, Holder, Stored};
use super::stage::{self, Added};
use crate::catalog::Catalog;
use crate::error::{LakeError, Result};

/// The next metadata and the files that were written for it.
pub(super) struct Next {
    pub(super) changed: Changed,
    pub(super) files: Vec<String>,
}

impl LakeTable {
    /// The next metadata, with files and what is held of the sink then.
    pub(super) async fn next(
        &self,
        loaded: &Loaded,
        base: Changed,
        mut stored: Stored,
        added: Added<'_>,
        commit: &str,
    ) -> Result<Next> {
        let mut staged = None;
        // A REST catalog guards main and not properties: what changes these moves main too.
        if !added.is_empty() || matches!(self.lake.catalog, Catalog::Rest(_)) {
            let id = stage::new_id(&base.metadata);
            let sequence = base.metadata.next_sequence_number();
            stored.holder = Some(Holder { snapshot: id, sequence });
            let own = HashMap::from([
                (self.lake.owner.key().to_owned(), stored.summary()?),
                (COMMIT_ID.to_owned(), commit.to_owned()),
            ]);
            let snapshot = stage::snapshot(loaded, &base.metadata, id, added, own).await;
            staged = Some(snapshot.map_err(|error| {
                let doing = format!("writing the manifests of table {}", self.name);
                LakeError::warehouse(&doing, error)
            })?);
        }
        let properties = HashMap::from([
            (self.lake.owner.key().to_owned(), stored.property()?),
            (COMMIT_ID.to_owned(), commit.to_owned()),
        ]);
        let (snapshot, files) =
            staged.map_or((None, Vec::new()), |staged| (Some(staged.snapshot), staged.files));
        let changed = base.change(Some(loaded), |builder| {
            let builder = match snapshot {
                Some(snapshot) => builder.set_branch_snapshot(snapshot, MAIN_BRANCH)?,
                None => builder,
            };
            builder.set_properties(properties)
        });
        let internal = |error| LakeError::internal("making the next metadata", error);
        Ok(Next { changed: changed.map_err(internal)?, files })
    }
}
