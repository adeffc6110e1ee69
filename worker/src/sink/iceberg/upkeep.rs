//! Upkeep of the sink's tables, beside its writers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_iceberg::{Clean, Compact, Expire, Kind, LakeError, LakeTable, SnapshotInfo};
use cdc_shared::clock::unix_ms;
use cdc_shared::task::{LakeAction, LakeReport, LakeSnapshot};

use super::IcebergSink;
use super::error::sink_error;
use crate::sink::SinkError;
use crate::task::Tell;

/// Fewer small files than this are not worth joining.
const MIN_FILES: usize = 5;
/// A file of which so many percent are deleted is written anew.
const GONE_PERCENT: u8 = 20;
/// A writer whose commit is tried again and again may be about to refer to a younger file.
const SAFE_AGE: Duration = Duration::from_secs(3600);

impl IcebergSink {
    /// Does it with the tables of some topics, one after the other.
    ///
    /// # Errors
    /// What is in the way; tables before it are done.
    pub async fn upkeep(
        &self,
        topics: &[String],
        action: &LakeAction,
        tell: &Tell,
        reports: &mut Vec<LakeReport>,
    ) -> Result<(), SinkError> {
        let tables = topics.iter().map(|topic| self.table(topic));
        let tables: BTreeMap<String, Arc<LakeTable>> =
            tables.map(|table| (table.name().to_string(), table)).collect();
        if tables.len() > 1 && matches!(action, LakeAction::Rollback { .. }) {
            let message = "a snapshot is one table's";
            let error = LakeError::new(Kind::Configuration, "configuration", message);
            return Err(sink_error(action.name(), error.hint("name its source table (--table)")));
        }
        for (name, table) in tables {
            tell.step(&format!("{} {name}", action.name()));
            let done = self.one(&table, action).await;
            let done = done.map_err(|error| sink_error(action.name(), error))?;
            reports.push(LakeReport { table: name, ..done });
        }
        Ok(())
    }

    async fn one(&self, table: &LakeTable, action: &LakeAction) -> Result<LakeReport, LakeError> {
        match action {
            LakeAction::Snapshots => Ok(listed(&table.snapshots().await?)),
            LakeAction::Compact { target_file_size } => {
                let target = self.shared.limits.bytes as u64;
                self.join(table, target_file_size.unwrap_or(target)).await
            }
            LakeAction::Expire { older_than_seconds, keep } => {
                expire(table, *older_than_seconds, *keep).await
            }
            LakeAction::Clean { older_than_seconds, dry_run } => {
                let age = Duration::from_secs(*older_than_seconds).max(SAFE_AGE);
                clean(table, &Clean { older_than: age, dry_run: *dry_run }).await
            }
            LakeAction::Rollback { snapshot } => {
                table.roll_back(*snapshot).await?;
                let message = format!("snapshot {snapshot} is the newest again");
                Ok(LakeReport { message, ..LakeReport::default() })
            }
        }
    }

    async fn join(&self, table: &LakeTable, target: u64) -> Result<LakeReport, LakeError> {
        let wanted =
            Compact { target_bytes: target, min_files: MIN_FILES, gone_percent: GONE_PERCENT };
        let done = table.compact(&wanted).await?;
        let message = if done.read == 0 {
            "no files worth joining".to_owned()
        } else {
            format!(
                "{} data files became {} of {} rows; {} deleted rows and {} files of deletes went",
                done.read, done.written, done.rows, done.gone, done.deletes
            )
        };
        let counts = [
            ("read", done.read as u64),
            ("written", done.written as u64),
            ("rows", done.rows),
            ("gone", done.gone),
            ("deletes", done.deletes as u64),
            ("overtaken", done.overtaken as u64),
        ];
        Ok(report(message, counts))
    }
}

async fn expire(table: &LakeTable, age_seconds: u64, keep: u64) -> Result<LakeReport, LakeError> {
    let age = i64::try_from(age_seconds).unwrap_or(i64::MAX).saturating_mul(1000);
    let before_ms = unix_ms().saturating_sub(age);
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let done = table.expire(&Expire { before_ms, keep }).await?;
    let left = match done.left {
        0 => String::new(),
        left => format!("; {left} files could not be removed, cdc lake clean finds them"),
    };
    let message = format!(
        "{} snapshots and {} files went, {} snapshots are kept{left}",
        done.snapshots, done.files, done.kept
    );
    Ok(report(message, [("snapshots", done.snapshots as u64), ("files", done.files as u64)]))
}

async fn clean(table: &LakeTable, wanted: &Clean) -> Result<LakeReport, LakeError> {
    let done = table.clean(wanted).await?;
    let would = if wanted.dry_run { "would go" } else { "went" };
    let left = match done.left {
        0 => String::new(),
        left => format!("; {left} could not be removed"),
    };
    let message = format!(
        "{} of {} files ({} bytes) {would}: nothing refers to them; {} more are too young{left}",
        done.orphans, done.seen, done.bytes, done.young
    );
    let counts = [("orphans", done.orphans as u64), ("bytes", done.bytes)];
    Ok(LakeReport { files: done.first, ..report(message, counts) })
}

fn report<const N: usize>(message: String, counts: [(&str, u64); N]) -> LakeReport {
    let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    LakeReport { message, counts, ..LakeReport::default() }
}

fn listed(snapshots: &[SnapshotInfo]) -> LakeReport {
    let number = |snapshot: &SnapshotInfo, key: &str| {
        snapshot.summary.get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let of = |snapshot: &SnapshotInfo| LakeSnapshot {
        id: snapshot.id,
        at_ms: snapshot.at_ms,
        records: number(snapshot, "total-records"),
        data_files: number(snapshot, "total-data-files"),
        delete_files: number(snapshot, "total-delete-files"),
    };
    let message = format!("{} snapshots", snapshots.len());
    LakeReport { snapshots: snapshots.iter().map(of).collect(), ..report(message, []) }
}
