//! Upkeep of Iceberg tables, as a task.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::moment;

/// Upkeep of some tables of an `iceberg` sink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LakeOptions {
    /// Topics whose tables are meant; empty: all of the sink.
    #[serde(default)]
    pub topics: Vec<String>,
    /// What is to be done.
    pub action: LakeAction,
}

/// What is done with a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum LakeAction {
    /// List the snapshots that are kept.
    Snapshots,
    /// Join small files, leave deleted rows out.
    Compact {
        /// Size that files are brought to, in bytes; absent: the sink's `target_file_size`.
        #[serde(default)]
        target_file_size: Option<u64>,
    },
    /// Give old snapshots up, and files with them that no other refers to.
    Expire {
        /// Those that are older, in seconds.
        older_than_seconds: u64,
        /// How many stay at least.
        keep: u64,
    },
    /// Remove files that nothing refers to.
    Clean {
        /// Those that were not written to for so long, in seconds.
        older_than_seconds: u64,
        /// Only say which.
        #[serde(default)]
        dry_run: bool,
    },
    /// Make a snapshot the newest again. The sink goes back with its table.
    Rollback {
        /// Its id.
        snapshot: i64,
    },
}

impl LakeAction {
    /// The word in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::Compact { .. } => "compact",
            Self::Expire { .. } => "expire",
            Self::Clean { .. } => "clean",
            Self::Rollback { .. } => "rollback",
        }
    }
}

/// What came of it with one table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct LakeReport {
    /// The table.
    pub table: String,
    /// In one sentence.
    pub message: String,
    /// How many of what.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// Files that are meant, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Snapshots, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<LakeSnapshot>,
}

/// A snapshot of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LakeSnapshot {
    /// Its id.
    pub id: i64,
    /// When it was made, Unix ms.
    pub at_ms: i64,
    /// Rows of its data files, deleted ones included.
    pub records: u64,
    /// Its data files.
    pub data_files: u64,
    /// Its files of deletes.
    pub delete_files: u64,
}

impl fmt::Display for LakeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.message)?;
        for file in &self.files {
            write!(f, "\n    {file}")?;
        }
        for snapshot in &self.snapshots {
            let LakeSnapshot { id, records, data_files, delete_files, .. } = snapshot;
            let at = moment(snapshot.at_ms);
            write!(
                f,
                "\n    {id:<20} {at}  {records} records, {data_files} data files, {delete_files} of \
                 deletes"
            )?;
        }
        Ok(())
    }
}
