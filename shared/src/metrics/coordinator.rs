//! The metrics of a coordinator.

use super::{BUILD, PROCESS_START, Row};

/// Each metric of a coordinator.
pub const COORDINATOR: &[Row] = &[
    BUILD.row(),
    PROCESS_START.row(),
    metric::LEADER.row(),
    metric::HEARTBEATS.row(),
    metric::COMMANDS.row(),
    metric::SERVICE_UP.row(),
    metric::CONNECTOR_STATE.row(),
    metric::CONNECTOR_TASKS.row(),
    metric::CONNECTOR_SILENCE.row(),
    metric::SLOT_ACTIVE.row(),
    metric::SLOT_RETAINED.row(),
    metric::SLOT_WAL_STATUS.row(),
    metric::SCHEMA_CHANGES.row(),
    metric::HEALTH.row(),
    metric::PIPELINE_LAG.row(),
    metric::PIPELINE_OFFSET.row(),
    metric::PIPELINE_WAITS.row(),
    metric::PIPELINE_COMMIT_FAILURES.row(),
    metric::PIPELINE_STALLED.row(),
    metric::SINK_STATE.row(),
    metric::SINK_WORKERS.row(),
    metric::SINK_WANTED.row(),
    metric::SINK_LAG_RECORDS.row(),
    metric::SINK_LAG_SECONDS.row(),
    metric::SINK_LAST_FLUSH.row(),
    metric::SINK_HELD.row(),
    metric::SINK_DEAD_LETTERS.row(),
    metric::SINK_WATERMARK.row(),
];

/// By name.
pub mod metric {
    use super::super::{Metric, counter, gauge};

    /// Leads.
    pub const LEADER: Metric<0> =
        gauge("cdc_coordinator_leader", [], "1 while this coordinator leads, 0 while it stands by");
    /// Reports of workers.
    pub const HEARTBEATS: Metric<0> =
        counter("cdc_coordinator_heartbeats_total", "Heartbeats of workers taken");
    /// Commands of operators.
    pub const COMMANDS: Metric<0> =
        counter("cdc_coordinator_commands_total", "Commands of operators carried out");
    /// The services around.
    pub const SERVICE_UP: Metric<1> = gauge(
        "cdc_service_up",
        ["service"],
        "1 while the service answers this coordinator: kafka, schema_registry, connect, redis",
    );
    /// One series, of the state of now.
    pub const CONNECTOR_STATE: Metric<1> = gauge(
        "cdc_connector_state",
        ["state"],
        "1 for the state Kafka Connect gives the connector: running, failed, paused, stopped, \
         unassigned, restarting; absent when Connect has none, unknown when it does not answer",
    );
    /// By state.
    pub const CONNECTOR_TASKS: Metric<1> =
        gauge("cdc_connector_tasks", ["state"], "Tasks of the connector in each state");
    /// Since its last sign of life.
    pub const CONNECTOR_SILENCE: Metric<0> = gauge(
        "cdc_connector_silent_seconds",
        [],
        "Time since the connector last wrote something, a heartbeat or a change, as far as this \
         coordinator has seen",
    );
    /// Somebody reads.
    pub const SLOT_ACTIVE: Metric<0> = gauge(
        "cdc_slot_active",
        [],
        "1 while the connector reads from the source's replication slot; 0 also when there is none",
    );
    /// Disk at the source.
    pub const SLOT_RETAINED: Metric<0> = gauge(
        "cdc_slot_retained_bytes",
        [],
        "Log that the source keeps on its disk for the replication slot",
    );
    /// One series, of the status of now.
    pub const SLOT_WAL_STATUS: Metric<1> = gauge(
        "cdc_slot_wal_status",
        ["status"],
        "1 for PostgreSQL's word for the slot's log: reserved, extended, unreserved, lost",
    );
    /// Unaccepted.
    pub const SCHEMA_CHANGES: Metric<0> = gauge(
        "cdc_schema_changes_unaccepted",
        [],
        "Incompatible changes of schema that nobody has accepted",
    );
    /// One series, of the verdict of now.
    pub const HEALTH: Metric<1> = gauge(
        "cdc_pipeline_health",
        ["verdict"],
        "1 for the verdict of `cdc health`: ok, degraded, critical, unknown",
    );
    /// Lag of P.
    pub const PIPELINE_LAG: Metric<0> = gauge(
        "cdc_pipeline_lag_records",
        [],
        "Records between the pipeline's group and the end of the log",
    );
    /// P.
    pub const PIPELINE_OFFSET: Metric<2> = gauge(
        "cdc_pipeline_commit_offset",
        ["topic", "partition"],
        "Offset of the pipeline's group: the smallest of all sinks",
    );
    /// What P waits for.
    pub const PIPELINE_WAITS: Metric<1> = gauge(
        "cdc_pipeline_waiting_partitions",
        ["sink"],
        "Partitions on which the pipeline's group waits because the sink's position is not known",
    );
    /// Of P.
    pub const PIPELINE_COMMIT_FAILURES: Metric<0> = counter(
        "cdc_pipeline_commit_failures_total",
        "Commits of the pipeline's group that failed",
    );
    /// Behind all sinks.
    pub const PIPELINE_STALLED: Metric<0> = gauge(
        "cdc_pipeline_stalled_partitions",
        [],
        "Partitions on which the pipeline's group has stood still for longer than lag.group_seconds \
         though every sink has gone on",
    );
    /// One series for each sink, of its state of now.
    pub const SINK_STATE: Metric<2> = gauge(
        "cdc_sink_state",
        ["sink", "state"],
        "1 for the state the sink is in: running, starting, degraded, waiting, held, paused, \
         stopped, draining, no_worker, disabled",
    );
    /// Live ones.
    pub const SINK_WORKERS: Metric<1> = gauge("cdc_sink_workers", ["sink"], "Live workers");
    /// For autoscalers.
    pub const SINK_WANTED: Metric<1> = gauge(
        "cdc_sink_wanted_workers",
        ["sink"],
        "Workers that the sink should have, by what arrives, what waits and what a worker delivers",
    );
    /// Behind the log's end.
    pub const SINK_LAG_RECORDS: Metric<1> =
        gauge("cdc_sink_lag_records", ["sink"], "Records that are not yet durable in the sink");
    /// Behind the source.
    pub const SINK_LAG_SECONDS: Metric<1> = gauge(
        "cdc_sink_lag_seconds",
        ["sink"],
        "Time since the source committed the first record that is not yet durable; 0 when there \
         is none",
    );
    /// Last success.
    pub const SINK_LAST_FLUSH: Metric<1> = gauge(
        "cdc_sink_last_flush_timestamp_seconds",
        ["sink"],
        "When the sink last took something",
    );
    /// What does not move.
    pub const SINK_HELD: Metric<2> = gauge(
        "cdc_sink_held_partitions",
        ["sink", "state"],
        "Partitions that something keeps from moving, by their state: degraded, waiting, paused, \
         stopped",
    );
    /// By code and by what became of them.
    pub const SINK_DEAD_LETTERS: Metric<3> = gauge(
        "cdc_sink_dead_letters",
        ["sink", "error_type", "state"],
        "Dead letters by the code of their rejection: open, replayed, superseded, dropped",
    );
    /// W.
    pub const SINK_WATERMARK: Metric<3> = gauge(
        "cdc_sink_watermark_offset",
        ["sink", "topic", "partition"],
        "First offset not yet durable in the sink, as the coordinator knows it",
    );
}
