//! Health: what an operator needs to know, and one word for all of it.
//!
//! Facts are gathered elsewhere (heartbeats, the group's tick, probes of the services around);
//! here they are put together and judged by a pure rule.

mod assemble;
mod probes;
mod report;
mod sink_status;
mod verdict;

pub use assemble::{health, status};
pub(crate) use probes::slot;
pub use probes::{ProbeFacts, Probes};
pub use report::{
    ConnectorHealth, GroupHealth, HealthReport, HoldHealth, LeaderHealth, PartitionStatus, Reason,
    SchemaHealth, ServiceHealth, ServiceState, Severity, SinkHealth, SlotHealth, SourceHealth,
    StallHealth, StatusReport, TableDirectiveHealth, TaskHealth, Verdict, WorkerHealth,
};
pub use sink_status::SinkStatus;
pub use verdict::{judge, overall};

#[cfg(test)]
pub(crate) mod tests;
