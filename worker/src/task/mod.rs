//! Tasks: what a worker does with its sink beside delivering (`DESIGN` §1).
//!
//! A task is a record of the control topic. The worker that owns the first partition of the sink's
//! first topic carries it out: at most one in a group, and another one as soon as it is gone, which
//! then begins from the start. Two may overlap for a moment, around a rebalance or when one was
//! frozen; so a task must do no harm when it is done twice.

pub mod direct;
mod runner;
mod tell;
mod upkeep;

use std::fmt::Write as _;
use std::sync::Arc;

use cdc_shared::clock::unix_ms;
use cdc_shared::config::{
    ConnectorConfig, LoadOptions, PipelineConfig, Sections, SinkConfig, SourceConfig, load,
    process_variables,
};
use cdc_shared::task::{TableReport, TaskEnd, TaskKind, TaskStatus, VerifyOptions};

pub use self::runner::TaskRunner;
pub use self::tell::Tell;
use crate::sink::open;
use crate::source::given_up::Skipped;
use crate::source::probe::Probe;

/// Where the configuration came from: a task reads the source's section, which a worker has no
/// other use for, only when it begins.
#[derive(Clone, Debug)]
pub struct ConfigFiles {
    /// The pipeline file.
    pub pipeline: std::path::PathBuf,
    /// The platform file.
    pub platform: Option<std::path::PathBuf>,
}

impl ConfigFiles {
    /// The sections of the source and of Kafka Connect, with their secrets.
    ///
    /// # Errors
    /// What is wrong with the configuration as it is now.
    pub fn upstream(&self, sink_id: &str) -> Result<(SourceConfig, ConnectorConfig), String> {
        let options = LoadOptions {
            pipeline: self.pipeline.clone(),
            platform: self.platform.clone(),
            variables: process_variables(),
            sections: Sections::Task { sink_id: sink_id.to_owned() },
        };
        let loaded = load(&options).map_err(|errors| errors.to_string())?;
        Ok((loaded.config.source, loaded.config.connector))
    }
}

/// Everything that a task needs.
pub struct TaskContext {
    /// The pipeline.
    pub config: Arc<PipelineConfig>,
    /// The sink.
    pub sink: SinkConfig,
    /// The source, with its secrets.
    pub source: SourceConfig,
    /// Kafka Connect, which knows how far the connector of a MySQL or MariaDB source is.
    pub connector: ConnectorConfig,
    /// Questions to Kafka.
    pub probe: Probe,
    /// Arguments.
    pub options: VerifyOptions,
    /// Whether rows that the source does not have are removed.
    pub sweep: bool,
    /// Records that operators let the sink pass.
    pub skipped: Vec<Skipped>,
    /// Where progress is told.
    pub tell: Tell,
}

/// Carries a task out to its end, whatever that is.
pub async fn carry_out(context: &TaskContext) -> TaskEnd {
    let mut tables = Vec::new();
    let ended = open::carry_out(context, &mut tables).await;
    let (status, message, hint) = match ended {
        Ok(()) => {
            let (status, message) = verdict(&tables);
            (status, message, None)
        }
        Err(failure) if failure.not_reached => {
            (TaskStatus::NotReached, failure.message, failure.hint)
        }
        Err(failure) => (TaskStatus::Failed, failure.message, failure.hint),
    };
    TaskEnd { hint, tables, ..TaskEnd::new(unix_ms(), status, message) }
}

/// A task that could not begin.
fn failed(message: String) -> TaskEnd {
    TaskEnd::new(unix_ms(), TaskStatus::Failed, message)
}

fn verdict(tables: &[TableReport]) -> (TaskStatus, String) {
    let sum = |count: fn(&TableReport) -> u64| tables.iter().map(count).sum::<u64>();
    let (rows, removed) = (sum(|table| table.rows), sum(|table| table.removed));
    let different = sum(TableReport::different) - removed;
    let (unsettled, given_up) = (sum(|table| table.unsettled), sum(|table| table.given_up));
    let at_least = if tables.iter().any(|table| table.cut_short) { "at least " } else { "" };
    let plural = if tables.len() == 1 { "" } else { "s" };
    let mut compared = format!("{rows} rows of {} table{plural} compared", tables.len());
    if removed > 0 {
        let _ = write!(compared, ", {removed} removed from the mirror");
    }
    if different > 0 || !at_least.is_empty() {
        return (TaskStatus::Differs, format!("{at_least}{different} rows differ ({compared})"));
    }
    if given_up > 0 {
        let message =
            format!("{given_up} rows differ whose records were rejected or skipped ({compared})");
        return (TaskStatus::Differs, message);
    }
    if unsettled > 0 {
        let message = format!("{unsettled} rows changed too often to be compared ({compared})");
        return (TaskStatus::NotReached, message);
    }
    (TaskStatus::Equal, format!("equal ({compared})"))
}

/// Whether a task of this kind removes rows.
fn sweeps(kind: &TaskKind) -> bool {
    matches!(kind, TaskKind::Resync(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_table_decides() {
        let table = |change: fn(&mut TableReport)| {
            let mut report = TableReport { rows: 10, ..TableReport::default() };
            change(&mut report);
            report
        };
        let of = |tables: &[TableReport]| verdict(tables);
        let equal = table(|_| ());
        assert_eq!(of(std::slice::from_ref(&equal)).1, "equal (10 rows of 1 table compared)");
        assert_eq!(of(&[]).0, TaskStatus::Equal);
        let differs = table(|t| t.missing = 1);
        assert_eq!(of(&[equal.clone(), differs]).0, TaskStatus::Differs);
        assert_eq!(of(&[table(|t| t.given_up = 1)]).0, TaskStatus::Differs);
        assert_eq!(of(&[table(|t| t.unsettled = 1)]).0, TaskStatus::NotReached);
        let swept = |extra| {
            let mut report = table(|t| t.removed = 2);
            report.extra = extra;
            verdict(&[report])
        };
        assert_eq!(swept(2).0, TaskStatus::Equal);
        assert_eq!(swept(2).1, "equal (10 rows of 1 table compared, 2 removed from the mirror)");
        assert_eq!(swept(3).0, TaskStatus::Differs);
        let cut = table(|t| {
            t.extra = 5;
            t.removed = 5;
            t.cut_short = true;
        });
        assert_eq!(of(&[cut]).0, TaskStatus::Differs);
    }
}
