//! The coordinator's HTTP API: the only place where worker and coordinator meet.
//!
//! Everything here is level-triggered and idempotent: a heartbeat repeats the whole state of a
//! worker, an answer repeats the whole will of the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dlq::{LetterFilter, ReplayReport};
use crate::offset::{NextOffset, Position, TopicId};
use crate::schema::SchemaQuestion;
use crate::source_position::SourcePosition;
use crate::task::{TaskKind, TaskReport};

/// Path of [`Heartbeat`] (POST).
pub const HEARTBEAT_PATH: &str = "/v1/heartbeat";
/// Path of [`Watermarks`] of one sink (GET); `{sink}` is the sink id.
pub const WATERMARKS_PATH: &str = "/v1/sinks/{sink}/watermarks";
/// Path of the operator's commands (POST), see [`Command`].
pub const COMMAND_PATH: &str = "/v1/commands";
/// Path of the health report (GET).
pub const HEALTH_PATH: &str = "/v1/health";
/// Path of the tasks (GET).
pub const TASKS_PATH: &str = "/v1/tasks";
/// Path of the schemas and their changes (GET).
pub const SCHEMAS_PATH: &str = "/v1/schemas";
/// Path of the audit trail (GET).
pub const AUDIT_PATH: &str = "/v1/audit";
/// Path of the dead letters (GET), chosen by the fields of [`LetterFilter`] and `limit`.
pub const DLQ_PATH: &str = "/v1/dlq";
/// Path of one dead letter (GET).
pub const LETTER_PATH: &str = "/v1/dlq/{sink}/{topic}/{partition}/{offset}";
/// Path of the wanted numbers of workers (GET).
pub const SCALING_PATH: &str = "/v1/scaling";
/// Path of the status report (GET).
pub const STATUS_PATH: &str = "/v1/status";

/// What a worker tells every two seconds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// Pipeline this worker belongs to; the coordinator refuses another's.
    pub pipeline_id: String,
    /// Who speaks.
    pub worker: WorkerIdentity,
    /// The one sink it serves.
    pub sink_id: String,
    /// The process as a whole.
    pub state: WorkerState,
    /// Every assigned partition.
    pub partitions: Vec<PartitionReport>,
    /// Since the process started.
    pub counters: Counters,
    /// The latest trouble of the sink, kept until something succeeds.
    #[serde(default)]
    pub last_error: Option<ErrorReport>,
    /// Offset in the control topic this worker has read up to (exclusive).
    pub control_offset: i64,
    /// Grows with each report of one process, so that one that was delayed on its way does not
    /// replace a later one. 0 = not told.
    #[serde(default)]
    pub sequence: u64,
    /// Tasks that this worker carries out, or has ended and not yet seen ended in the control
    /// topic.
    #[serde(default)]
    pub tasks: Vec<TaskReport>,
    /// Changes of schema that this worker has no verdict on.
    #[serde(default)]
    pub schema_questions: Vec<SchemaQuestion>,
    /// What this worker has done of replays that have not ended.
    #[serde(default)]
    pub replays: Vec<ReplayReport>,
}

/// Who a worker is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorkerIdentity {
    /// Unique per process: host, pid and start time.
    pub id: String,
    /// Version of the binary.
    pub version: String,
    /// Hash of the effective configuration, without secrets.
    pub config_hash: String,
    /// Where its `/livez`, `/readyz`, `/metrics` answer.
    pub admin_address: String,
}

/// State of a worker process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Before the sink is proven and Kafka joined.
    Starting,
    /// Delivering, or caught up.
    Running,
    /// Proven, member of the group, no partition assigned.
    Standby,
    /// The sink cannot be reached or refuses us; retrying.
    Degraded,
    /// By directive, inside the group.
    Paused,
    /// By directive, outside the group; resumable.
    Stopped,
    /// Leaving after SIGTERM.
    Draining,
}

impl WorkerState {
    /// The word in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Standby => "standby",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Draining => "draining",
        }
    }
}

/// State of one partition in a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// Finding its start position.
    Resolving,
    /// Delivering, or caught up.
    Running,
    /// Retrying the sink.
    Degraded,
    /// Held by a directive.
    Paused,
    /// Waiting for something that is known to come back (registry, coordinator, DLQ).
    Waiting,
    /// Stopped by name: an operator must act.
    Stopped,
}

impl PartitionState {
    /// The word in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a partition does not move, and the way out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HoldReport {
    /// Stable code, e.g. `topic_recreated`, `offset_gap`, `rejected_record`.
    pub code: String,
    /// One sentence with the exact names and numbers.
    pub message: String,
    /// The command or action that ends it.
    pub way_out: String,
    /// First offset that waits.
    pub offset: Option<i64>,
}

/// One partition of one worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartitionReport {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The watermark with its identity; absent while unresolved.
    pub position: Option<Position>,
    /// See [`PartitionState`].
    pub state: PartitionState,
    /// Present while the partition does not move.
    #[serde(default)]
    pub hold: Option<HoldReport>,
    /// Records fetched and not yet durable.
    pub queue_depth: u64,
    /// When the sink last took something, Unix ms.
    #[serde(default)]
    pub last_flush_ms: Option<i64>,
    /// Source commit time of the first record not yet durable, Unix ms.
    #[serde(default)]
    pub next_source_ms: Option<i64>,
}

/// Totals since the process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Records taken by the sink.
    pub delivered: u64,
    /// Records without effect (filtered, tombstones, heartbeats).
    pub skipped: u64,
    /// Records acknowledged by the DLQ topic.
    pub dead_lettered: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
}

/// An error as an operator sees it; never row data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReport {
    /// Stable code.
    pub code: String,
    /// What was tried, on what, and what came back.
    pub message: String,
    /// When, Unix ms.
    pub at_ms: i64,
}

/// The answer to a heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatReply {
    /// For the whole sink.
    pub directive: Directive,
    /// For single tables: topic and its directive. The stricter of both holds.
    #[serde(default)]
    pub tables: Vec<TableDirective>,
    /// Offset of the control topic (exclusive) this answer reflects: a worker that has read
    /// further itself ignores the answer.
    pub control_offset: i64,
}

/// What an operator wants of a sink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Directive {
    /// See [`DirectiveState`].
    pub state: DirectiveState,
    /// Why, in the operator's or the monitor's words.
    #[serde(default)]
    pub reason: String,
}

impl Directive {
    /// The directive of a sink nobody has spoken of.
    pub fn run() -> Self {
        Self { state: DirectiveState::Run, reason: String::new() }
    }
}

/// Run, pause inside the group, or stop and leave it. Ordered by strictness.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DirectiveState {
    /// Deliver.
    Run,
    /// Hold the partitions, stay in the group.
    Pause,
    /// Leave the group, stay up, resumable.
    Stop,
}

impl DirectiveState {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Stop => "stop",
        }
    }
}

/// A directive for one topic of a sink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TableDirective {
    /// Topic.
    pub topic: String,
    /// What to do with it.
    pub directive: Directive,
}

/// The watermarks of one sink, as the store has them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Watermarks {
    /// One entry per partition that has one.
    pub entries: Vec<WatermarkEntry>,
}

/// One watermark.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WatermarkEntry {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Watermark with identity.
    pub position: Position,
}

/// What an operator asks for. Every command names who asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommandRequest {
    /// Free text for the audit line: user and host.
    pub by: String,
    /// The command.
    pub command: Command,
}

/// Commands of the API and of the command line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Hold the sink, or one topic of it, inside its group.
    Pause {
        /// Sink.
        sink: String,
        /// Only this topic.
        topic: Option<String>,
        /// Shown in health.
        reason: String,
    },
    /// Stop the sink: its workers leave the group and stay up.
    Stop {
        /// Sink.
        sink: String,
        /// Shown in health.
        reason: String,
    },
    /// End a pause, a stop, or a stop by name (which is then met again if its cause lasts).
    Resume {
        /// Sink.
        sink: String,
        /// Only this topic.
        topic: Option<String>,
    },
    /// Have the sink's workers leave their group and join it again, or let go of one topic and take
    /// it up again. It ends a pause and a stop, as [`Command::Resume`] does.
    Restart {
        /// Sink.
        sink: String,
        /// Only this topic.
        topic: Option<String>,
        /// Why, for the audit line.
        #[serde(default)]
        reason: String,
    },
    /// Let a sink pass records it is held at: `from` inclusive, `to` exclusive.
    Skip {
        /// Sink.
        sink: String,
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// First offset to skip.
        from: i64,
        /// First offset not to skip.
        to: i64,
        /// Why, for the audit line.
        reason: String,
    },
    /// Set a sink's progress on a partition, in a new incarnation.
    Rewind {
        /// Sink.
        sink: String,
        /// Topic.
        topic: String,
        /// Only this partition; all of the topic's otherwise.
        partition: Option<i32>,
        /// Where to.
        to: RewindTarget,
        /// Why, for the audit line.
        reason: String,
        /// Only say what would be done.
        #[serde(default)]
        dry_run: bool,
        /// Webhook: what comes again has other ids than before, so that receivers take it anew.
        #[serde(default)]
        new_ids: bool,
        /// The topic is another one than the sink's progress counts in (Kafka was lost, or the topic
        /// created again): take it as it is now.
        #[serde(default)]
        accept_new_topic: bool,
    },
    /// Have a worker of the sink do something beside delivering.
    StartTask {
        /// Sink.
        sink: String,
        /// What.
        kind: TaskKind,
    },
    /// Call a task off.
    CancelTask {
        /// Sink.
        sink: String,
        /// The task's id.
        id: String,
    },
    /// Send dead letters of a sink again, by its workers.
    Replay {
        /// Which; its sink must be set.
        filter: LetterFilter,
        /// Only say what would be done.
        dry_run: bool,
        /// Most letters in a second.
        rate: Option<u32>,
    },
    /// Give dead letters up.
    DropLetters {
        /// Which; its sink must be set.
        filter: LetterFilter,
        /// Why, for the audit line.
        reason: String,
    },
    /// Take the incompatible changes of a topic's schemas as they are: what they hold goes on.
    AcceptSchema {
        /// Topic.
        topic: String,
        /// Only changes to this schema id.
        id: Option<i32>,
        /// Why, for the audit line.
        reason: String,
    },
    /// Forget a sink: it no longer counts for P.
    RemoveSink {
        /// Sink.
        sink: String,
        /// Only this topic (the table left the sink for good).
        topic: Option<String>,
    },
}

/// Where a rewind goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewindTarget {
    /// The log's first offset.
    Beginning,
    /// The log's end: everything now in it is skipped.
    End,
    /// An exact offset.
    Offset(NextOffset),
    /// The first record at or after this time, Unix ms.
    Timestamp(i64),
    /// The first record of each partition at or after this place in the source's log: `0/16B3748`,
    /// `binlog.000003:1234`, or the id of a transaction.
    SourcePosition(SourcePosition),
}

/// The answer to an accepted command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommandReply {
    /// One line for the person who asked.
    pub message: String,
    /// Offset of the control topic (exclusive) that holds it.
    pub control_offset: i64,
    /// Id of the task that was posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// The one shape of an error answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Stable code, e.g. `not_leader`, `unknown_sink`, `store_unreadable`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// With `not_leader`: where the coordinator that leads is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// A topic with its id and partition count, as monitors and marks keep it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TopicShape {
    /// Kafka's id.
    pub topic_id: TopicId,
    /// How many partitions.
    pub partitions: i32,
}
