//! The JSON of `GET /v1/health` and `GET /v1/status`. The fields `pipeline_id`, `source`, `sinks`
//! and `consumer_lag` have the shape that the Python platform gave them; the others are added.

use cdc_shared::api::{Counters, DirectiveState, ErrorReport, PartitionState, WorkerState};
use cdc_shared::dlq::LetterCount;
use cdc_shared::offset::{Incarnation, TopicId};
use cdc_shared::schema::{OpenQuestion, SchemaVerdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SinkStatus;
use crate::group::plan::GroupHold;
use crate::monitor::{LagLevel, Pace, PartitionLag};

/// One word for everything.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// Not known.
    Unknown,
    /// Works, but somebody should look.
    Degraded,
    /// Something does not move until somebody acts.
    Critical,
}

impl Verdict {
    /// The word in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

/// How bad one finding is.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Cannot be told.
    Unknown,
    /// Somebody should look.
    Degraded,
    /// Somebody must act.
    Critical,
}

impl Severity {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// How bad.
    pub severity: Severity,
    /// Stable code.
    pub code: String,
    /// One sentence with names and numbers.
    pub message: String,
    /// What ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
}

/// Whether a service answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not, or refuses.
    Down,
    /// Not used by this pipeline.
    Unused,
}

/// One service around.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ServiceHealth {
    /// Whether it answers.
    pub state: ServiceState,
    /// Kafka: number of brokers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<usize>,
    /// What came back instead of an answer, or what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The connector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConnectorHealth {
    /// Its name.
    pub name: String,
    /// Connect's word: `RUNNING`, `FAILED`, `PAUSED`, …; `ABSENT` and `UNKNOWN` are ours.
    pub state: String,
    /// What Connect says of a failure, in one line without stack frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// One task of the connector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskHealth {
    /// Its number.
    pub id: i32,
    /// Connect's word.
    pub state: String,
    /// What Connect says of a failure, in one line without stack frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// The replication slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SlotHealth {
    /// Its name.
    pub name: String,
    /// Whether the source has it.
    pub exists: bool,
    /// Whether the connector reads from it.
    pub active: bool,
    /// WAL kept for it, in bytes.
    pub retained_bytes: Option<i64>,
    /// `reserved, extended, unreserved, lost`.
    pub wal_status: Option<String>,
}

/// The source and its connector.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SourceHealth {
    /// The connector.
    pub connector: ConnectorHealth,
    /// Its tasks.
    pub tasks: Vec<TaskHealth>,
    /// PostgreSQL's replication slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotHealth>,
    /// Why the source database could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Times that the coordinator has started the connector again within the last hour.
    #[serde(default)]
    pub restarts: usize,
    /// Seconds since the connector last wrote something, a heartbeat or a change; absent where there
    /// are no heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_seconds: Option<f64>,
    /// Whether that is longer than `lag.heartbeat_seconds`.
    #[serde(default)]
    pub silent: bool,
}

/// One worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorkerHealth {
    /// Its id.
    pub id: String,
    /// Version of its binary.
    pub version: String,
    /// Hash of its configuration.
    pub config_hash: String,
    /// Where its own health answers.
    pub admin_address: String,
    /// What it says of itself.
    pub state: WorkerState,
    /// Seconds since it was last heard.
    pub last_seen_seconds: f64,
    /// Partitions assigned to it.
    pub partitions: usize,
    /// Totals since it started.
    pub counters: Counters,
}

/// A partition that does not move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HoldHealth {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// State of the partition.
    pub state: PartitionState,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What ends it.
    pub way_out: String,
    /// First offset that waits.
    pub offset: Option<i64>,
}

/// What an operator has said of one topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TableDirectiveHealth {
    /// Topic.
    pub topic: String,
    /// What is wanted.
    pub state: DirectiveState,
    /// Why.
    pub reason: String,
}

/// One sink.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SinkHealth {
    /// Its id.
    pub sink_id: String,
    /// One word.
    pub status: SinkStatus,
    /// Enabled in the coordinator's configuration.
    pub enabled: bool,
    /// Counts for P in topics that it no longer consumes.
    pub parked: Vec<String>,
    /// Live workers.
    pub workers: Vec<WorkerHealth>,
    /// Records behind.
    pub lag_records: Option<i64>,
    /// Age of the first record that is not yet durable.
    pub lag_seconds: Option<f64>,
    /// How fast it delivers and its topics grow; absent before the second look.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// Seconds until it has caught up at this pace; absent when it never does.
    #[serde(default)]
    pub catch_up_seconds: Option<f64>,
    /// By the thresholds of `lag`.
    #[serde(default)]
    pub lag_level: LagLevel,
    /// When it last took something, Unix ms.
    pub last_flush_ms: Option<i64>,
    /// The latest trouble.
    pub last_error: Option<ErrorReport>,
    /// What the operator wants.
    pub directive: DirectiveState,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directive_reason: String,
    /// What the operator wants of single topics.
    #[serde(default)]
    pub tables: Vec<TableDirectiveHealth>,
    /// Partitions that do not move.
    pub holds: Vec<HoldHealth>,
    /// Its dead letters by code.
    #[serde(default)]
    pub dead_letters: Vec<LetterCount>,
}

/// The pipeline's group.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct GroupHealth {
    /// Its name.
    pub group_id: String,
    /// What keeps it on which partition.
    pub holds: Vec<GroupHold>,
    /// Live members, who keep the coordinator from committing.
    pub members: Vec<String>,
    /// What went wrong with the latest look or commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where it stands still though every sink has gone on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallHealth>,
}

/// The pipeline's group stands still, longer than `lag.group_seconds`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StallHealth {
    /// On so many partitions.
    pub partitions: usize,
    /// Topic of the one that has stood longest.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// For how long.
    pub seconds: f64,
}

/// The coordinator that answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct LeaderHealth {
    /// Whether it leads.
    pub leader: bool,
    /// Its version.
    pub version: String,
    /// How far it has read the control topic.
    pub control_offset: i64,
    /// Where the coordinator that leads is, when that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_url: Option<String>,
    /// Trouble with the control topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer of `GET /v1/health`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HealthReport {
    /// Grows when a field changes its meaning.
    pub schema_version: u32,
    /// Pipeline.
    pub pipeline_id: String,
    /// When, Unix ms.
    pub at_ms: i64,
    /// One word for everything.
    pub verdict: Verdict,
    /// Why, worst first.
    pub reasons: Vec<Reason>,
    /// The coordinator.
    pub coordinator: LeaderHealth,
    /// The source.
    pub source: SourceHealth,
    /// Each sink.
    pub sinks: Vec<SinkHealth>,
    /// Lag of the pipeline's group.
    pub consumer_lag: Vec<PartitionLag>,
    /// The pipeline's group.
    pub pipeline_group: GroupHealth,
    /// Kafka.
    pub kafka: ServiceHealth,
    /// The schema registry.
    pub schema_registry: ServiceHealth,
    /// Kafka Connect.
    pub connect: ServiceHealth,
    /// Redis.
    pub redis: ServiceHealth,
    /// Changes of schema.
    #[serde(default)]
    pub schemas: SchemaHealth,
}

/// Changes of schema that somebody should look at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SchemaHealth {
    /// Incompatible ones that nobody has accepted.
    pub unaccepted: Vec<SchemaVerdict>,
    /// Those that workers ask for and that cannot be judged.
    pub open: Vec<OpenQuestion>,
    /// Why the registry could not be asked at the latest look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One partition of one sink, in `GET /v1/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartitionStatus {
    /// Sink.
    pub sink_id: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset not yet durable.
    pub watermark: Option<i64>,
    /// Incarnation of that offset.
    pub incarnation: Option<Incarnation>,
    /// Topic id of that offset.
    pub topic_id: Option<TopicId>,
    /// Records behind.
    pub lag: Option<i64>,
    /// End of the log.
    pub end: Option<i64>,
    /// Offset of the pipeline's group.
    pub committed: Option<i64>,
    /// Who has it.
    pub worker: Option<String>,
    /// What that worker says of it.
    pub state: Option<PartitionState>,
    /// Records fetched and not yet durable.
    pub queue_depth: Option<u64>,
    /// When the sink last took something from it, Unix ms.
    pub last_flush_ms: Option<i64>,
}

/// The answer of `GET /v1/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StatusReport {
    /// The same facts as health.
    #[serde(flatten)]
    pub health: HealthReport,
    /// Each partition of each sink.
    pub partitions: Vec<PartitionStatus>,
}
