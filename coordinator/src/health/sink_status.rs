//! One word for a sink, from what its workers say.

use cdc_shared::api::{DirectiveState, PartitionState, WorkerState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::Worker;

/// State of a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkStatus {
    /// Delivers, or has caught up.
    Running,
    /// Its workers are getting ready.
    Starting,
    /// The sink cannot be reached or refuses; its workers retry.
    Degraded,
    /// A partition waits for something that is known to come back.
    Waiting,
    /// A partition is stopped by name: an operator must act.
    Held,
    /// Paused by an operator.
    Paused,
    /// Stopped by an operator.
    Stopped,
    /// Its workers are leaving.
    Draining,
    /// Enabled, and no worker reports.
    NoWorker,
    /// Not enabled; counted for P until it is removed.
    Disabled,
}

impl SinkStatus {
    /// The word in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Degraded => "degraded",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Draining => "draining",
            Self::NoWorker => "no_worker",
            Self::Disabled => "disabled",
        }
    }

    /// By the live `workers` of the sink. What needs an operator wins over what heals by itself,
    /// and what one partition suffers over what the others do.
    pub fn of(enabled: bool, directive: DirectiveState, workers: &[&Worker]) -> Self {
        let partition = |state| {
            workers
                .iter()
                .flat_map(|worker| &worker.heartbeat.partitions)
                .any(|report| report.state == state)
        };
        let worker = |state| workers.iter().any(|worker| worker.heartbeat.state == state);
        let ready = worker(WorkerState::Running) || worker(WorkerState::Standby);
        match directive {
            _ if partition(PartitionState::Stopped) => Self::Held,
            DirectiveState::Stop => Self::Stopped,
            DirectiveState::Pause => Self::Paused,
            _ if workers.is_empty() && !enabled => Self::Disabled,
            _ if workers.is_empty() => Self::NoWorker,
            _ if worker(WorkerState::Degraded) || partition(PartitionState::Degraded) => {
                Self::Degraded
            }
            _ if partition(PartitionState::Waiting) => Self::Waiting,
            _ if ready => Self::Running,
            _ if worker(WorkerState::Starting) => Self::Starting,
            _ if worker(WorkerState::Draining) => Self::Draining,
            // The directive is lifted, the workers have not heard of it yet.
            DirectiveState::Run => Self::Starting,
        }
    }
}
