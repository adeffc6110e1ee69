//! One entry of `sinks:`.

mod iceberg;
mod partition;
mod postgres;
mod webhook;

pub use iceberg::{IcebergConfig, IcebergMaintenance, IcebergWriteMode};
pub use partition::{PartitionField, PartitionTransform};
pub use postgres::{
    Consistency, EnumHandling, PostgresSinkConfig, PostgresWriteMode, SslMode, TruncateHandling,
};
pub(super) use webhook::RESERVED_HEADERS;
pub use webhook::{HttpMethod, Int64Json, TemporalJson, WebhookConfig, WebhookJsonConfig};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RetryConfig;

/// One destination of the pipeline's changes, served by its own workers.
///
/// Exactly one of the sections `webhook`, `postgres`, `iceberg` is there: the one that `sink_type`
/// names ([`super::load()`] checks it).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["sink_id", "sink_type"]))]
pub struct SinkConfig {
    /// Name of the sink, unique in the pipeline, without a dot; its consumer group is
    /// `{group_id}.{sink_id}`.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"), length(max = 100))]
    pub sink_id: String,
    /// Kind of destination.
    pub sink_type: SinkType,
    /// A disabled sink is not run, but stays counted until `cdc sink remove`.
    pub enabled: bool,
    /// Tables to deliver, of `source.tables`; empty = all.
    pub tables: Vec<String>,
    /// Operations to deliver.
    pub operations: Vec<Operation>,
    /// Whether the rows of a snapshot are delivered.
    pub snapshot: SnapshotDelivery,
    /// Where a sink without any stored position begins.
    pub start: StartPosition,
    /// What happens to a record that the sink will never take. Default: by the sink's mode, see
    /// [`SinkConfig::reject_policy`].
    pub on_reject: Option<OnReject>,
    /// What happens to records behind an incompatible change of schema that nobody has accepted,
    /// with `stop_on_incompatible_schema: true`.
    pub on_incompatible: OnIncompatible,
    /// Backoff; fields that are not given here are the pipeline's.
    pub retry: RetryConfig,
    /// Settings of a webhook.
    pub webhook: Option<WebhookConfig>,
    /// Settings of a PostgreSQL target.
    pub postgres: Option<PostgresSinkConfig>,
    /// Settings of an Iceberg table.
    pub iceberg: Option<IcebergConfig>,
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self {
            sink_id: String::new(),
            sink_type: SinkType::Webhook,
            enabled: true,
            tables: Vec::new(),
            operations: Operation::ALL.to_vec(),
            snapshot: SnapshotDelivery::Deliver,
            start: StartPosition::Beginning,
            on_reject: None,
            on_incompatible: OnIncompatible::Stop,
            retry: RetryConfig::default(),
            webhook: None,
            postgres: None,
            iceberg: None,
        }
    }
}

impl SinkConfig {
    /// Whether the sink keeps the current state of rows by key, so that a missing record leaves a
    /// row stale for ever.
    pub fn is_keyed(&self) -> bool {
        match self.sink_type {
            SinkType::Webhook => false,
            SinkType::Postgres => {
                self.postgres.as_ref().is_some_and(|p| p.write_mode == PostgresWriteMode::Replica)
            }
            SinkType::Iceberg => {
                self.iceberg.as_ref().is_some_and(|i| i.write_mode == IcebergWriteMode::Upsert)
            }
        }
    }

    /// Whether it delivers whole transactions of the source.
    pub fn keeps_transactions(&self) -> bool {
        self.sink_type == SinkType::Postgres
            && self.is_keyed()
            && self.postgres.as_ref().is_some_and(|p| p.consistency == Consistency::Transaction)
    }

    /// What happens to a record that the sink will never take: `on_reject`, or `stop` for keyed
    /// sinks and `dlq` for the others.
    pub fn reject_policy(&self) -> OnReject {
        self.on_reject.unwrap_or(if self.is_keyed() { OnReject::Stop } else { OnReject::Dlq })
    }
}

/// Kind of destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SinkType {
    /// HTTP requests, one per event.
    #[default]
    Webhook,
    /// Rows in PostgreSQL.
    Postgres,
    /// An Apache Iceberg table.
    Iceberg,
}

impl SinkType {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Postgres => "postgres",
            Self::Iceberg => "iceberg",
        }
    }
}

/// Operation of a change event, by Debezium's letter.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Operation {
    /// A row was created.
    #[serde(rename = "c")]
    Create,
    /// A row was updated.
    #[serde(rename = "u")]
    Update,
    /// A row was deleted.
    #[serde(rename = "d")]
    Delete,
    /// A row was read by a snapshot.
    #[serde(rename = "r")]
    Read,
    /// A table was emptied.
    #[serde(rename = "t")]
    Truncate,
}

impl Operation {
    /// Every operation, which is also the default of a sink.
    pub const ALL: [Self; 5] =
        [Self::Create, Self::Update, Self::Delete, Self::Read, Self::Truncate];
}

/// Whether the rows of a snapshot are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotDelivery {
    /// Like any other change.
    #[default]
    Deliver,
    /// Left out.
    Skip,
}

/// Where a sink without any stored position begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartPosition {
    /// At the oldest record of each topic.
    #[default]
    Beginning,
    /// Behind the newest record of each topic.
    Now,
    /// Where the pipeline's group stood: takes over from a single-process consumer.
    Group,
}

/// What happens to a record that the sink will never take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReject {
    /// It goes to the dead letter queue and the partition goes on.
    Dlq,
    /// Its partition stops and says why.
    Stop,
}

/// What happens to records behind an incompatible change of schema that nobody has accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnIncompatible {
    /// Their partition stops and says why.
    #[default]
    Stop,
    /// They go to the dead letter queue, until the change is accepted.
    Dlq,
    /// They are delivered.
    Continue,
}
