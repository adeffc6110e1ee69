//! Upkeep of Iceberg tables: as a task, and on the sink's own schedule.

use std::time::{Duration, Instant};

use cdc_shared::clock::unix_ms;
use cdc_shared::config::{IcebergMaintenance, PipelineConfig, SinkConfig};
use cdc_shared::task::{LakeAction, LakeOptions, LakeReport, TaskEnd, TaskStatus};

use super::Tell;
use crate::sink::open;

/// The first upkeep of a process comes no later than this, so that restarts do not put it off for
/// ever.
const FIRST: Duration = Duration::from_secs(300);

/// Does what is asked for, table by table.
pub(super) async fn carry_out(
    config: &PipelineConfig,
    sink: &SinkConfig,
    options: &LakeOptions,
    tell: &Tell,
) -> TaskEnd {
    let mut lake = Vec::new();
    let ended = open::upkeep(config, sink, options, tell, &mut lake).await;
    let (status, message, hint) = match ended {
        Ok(()) => {
            let plural = if lake.len() == 1 { "" } else { "s" };
            let message = format!("{} done, {} table{plural}", options.action.name(), lake.len());
            (TaskStatus::Done, message, None)
        }
        Err(failure) => (TaskStatus::Failed, failure.message, failure.hint),
    };
    TaskEnd { hint, lake, ..TaskEnd::new(unix_ms(), status, message) }
}

/// When the sink's own upkeep is due.
#[derive(Debug)]
pub(super) struct Schedule {
    wanted: Option<IcebergMaintenance>,
    /// Whether its files can be listed.
    is_local: bool,
    next: Instant,
}

impl Schedule {
    pub(super) fn new(sink: &SinkConfig, now: Instant) -> Self {
        let iceberg = sink.iceberg.as_ref();
        let wanted = iceberg.and_then(|iceberg| iceberg.maintenance.clone());
        let warehouse = iceberg.map_or("", |iceberg| &iceberg.warehouse);
        let is_local = warehouse.starts_with("file:") || warehouse.starts_with('/');
        let first = wanted.as_ref().map_or(FIRST, |wanted| wanted.interval().min(FIRST));
        Self { wanted, is_local, next: now + first }
    }

    /// What is due, if something is. It is not due again before the next interval.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<LakeAction>> {
        let wanted = self.wanted.as_ref().filter(|_| now >= self.next)?;
        self.next = now + wanted.interval();
        let mut actions = vec![
            LakeAction::Compact { target_file_size: None },
            LakeAction::Expire {
                older_than_seconds: wanted.snapshot_age_seconds,
                keep: wanted.keep_snapshots,
            },
        ];
        if self.is_local {
            let older_than_seconds = wanted.orphan_age_seconds;
            actions.push(LakeAction::Clean { older_than_seconds, dry_run: false });
        }
        Some(actions)
    }
}

/// Does what is due, with all tables of the sink. What goes wrong is tried again next time.
pub(super) async fn scheduled(
    config: &PipelineConfig,
    sink: &SinkConfig,
    actions: Vec<LakeAction>,
) {
    let tell = Tell::new("maintenance", |_| ());
    for action in actions {
        let options = LakeOptions { topics: Vec::new(), action };
        let mut done: Vec<LakeReport> = Vec::new();
        let ended = open::upkeep(config, sink, &options, &tell, &mut done).await;
        let name = options.action.name();
        for report in done.iter().filter(|report| report.counts.values().any(|n| *n > 0)) {
            tracing::info!(event = "sink.maintained", action = name, "{report}");
        }
        if let Err(failure) = ended {
            tracing::warn!(
                event = "sink.maintenance_failed",
                action = name,
                hint = failure.hint,
                "maintenance: {}",
                failure.message
            );
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::IcebergConfig;

    use super::*;

    fn sink(maintenance: Option<IcebergMaintenance>) -> SinkConfig {
        let warehouse = "file:///lake".to_owned();
        let iceberg = IcebergConfig { maintenance, warehouse, ..IcebergConfig::default() };
        SinkConfig { iceberg: Some(iceberg), ..SinkConfig::default() }
    }

    #[test]
    fn upkeep_is_due_soon_after_the_start_and_then_at_its_interval() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut none = Schedule::new(&sink(None), now);
        assert_eq!(none.due(now + 10_000_000 * second), None);
        let wanted = IcebergMaintenance { interval_seconds: 3600, ..Default::default() };
        let mut hourly = Schedule::new(&sink(Some(wanted)), now);
        assert_eq!(hourly.due(now + 299 * second), None);
        let names: Vec<_> =
            hourly.due(now + 300 * second).unwrap().iter().map(LakeAction::name).collect();
        assert_eq!(names, ["compact", "expire", "clean"]);
        assert_eq!(hourly.due(now + 3899 * second), None);
        assert!(hourly.due(now + 3900 * second).is_some());
        let often = IcebergMaintenance { interval_seconds: 60, ..Default::default() };
        assert!(Schedule::new(&sink(Some(often)), now).due(now + 60 * second).is_some());
    }
}
