//! The whole configuration of one pipeline.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ConnectorConfig, CoordinatorConfig, DlqConfig, KafkaConfig, OnIncompatible, RedisConfig,
    RetryConfig, SinkConfig, SourceConfig, WorkerConfig,
};

/// One pipeline: a source, Kafka, and any number of sinks. The platform file has the same shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pipeline_id", "source"]))]
pub struct PipelineConfig {
    /// Name of the pipeline, without a dot.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"), length(max = 100))]
    pub pipeline_id: String,
    /// First part of every topic's name, unique per pipeline (`cdc` gives `cdc.public.customers`).
    #[schemars(regex(pattern = "^[a-zA-Z0-9][a-zA-Z0-9._-]*$"), length(max = 100))]
    pub topic_prefix: String,
    /// The pipeline's consumer group. Default: `cdc-{pipeline_id}`; after [`super::load()`] it is
    /// never empty.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"), length(max = 100))]
    pub group_id: String,
    /// The database that changes are captured from.
    pub source: SourceConfig,
    /// Kafka and the schema registry.
    pub kafka: KafkaConfig,
    /// Kafka Connect.
    pub connector: ConnectorConfig,
    /// The coordinator.
    pub coordinator: CoordinatorConfig,
    /// The workers' own addresses.
    pub worker: WorkerConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Dead letter topics.
    pub dlq: DlqConfig,
    /// The destinations.
    pub sinks: Vec<SinkConfig>,
    /// Backoff of all sinks, unless a sink has its own.
    pub retry: RetryConfig,
    /// Most records queued per partition before its fetching is paused.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_buffered_messages: u32,
    /// Most bytes of records queued in one worker over all its partitions.
    #[schemars(range(min = 65_536))]
    pub max_buffered_bytes: u64,
    /// 0 = one task per assigned partition, the only value so far.
    #[schemars(range(max = 0))]
    pub partition_concurrency: u32,
    /// How often the schema registry is asked for new versions, in seconds.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub schema_monitor_interval_seconds: f64,
    /// How often lag is measured and logged, in seconds.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub lag_monitor_interval_seconds: f64,
    /// From when on a sink's lag shows in health.
    pub lag: LagConfig,
    /// Hold what follows an incompatible change of schema until it is accepted, instead of logging
    /// it and going on. Each sink has its own `on_incompatible`.
    pub stop_on_incompatible_schema: bool,
    /// How long a worker may take to finish what it holds when it is told to stop, in seconds.
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub drain_seconds: f64,
    /// Level (`ERROR, WARN, INFO, DEBUG, TRACE`) or a filter such as `info,rdkafka=debug`.
    #[schemars(length(min = 1))]
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Thresholds of lag, and of silence. One of a sink's lag is passed when two looks in a row
/// (`lag_monitor_interval_seconds`) are beyond it, and left when two are below 80 % of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LagConfig {
    /// Beyond it health is degraded.
    pub warning: LagThreshold,
    /// Beyond it health is critical.
    pub critical: LagThreshold,
    /// Health is degraded when the connector runs and has written nothing for so many seconds,
    /// neither a heartbeat nor a change; 0: never. A quiet MySQL or MariaDB lets it wait for 48.
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub heartbeat_seconds: f64,
    /// Health is degraded when the pipeline's group has stood still for so many seconds though every
    /// sink has gone on; 0: never.
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub group_seconds: f64,
}

impl Default for LagConfig {
    fn default() -> Self {
        let seconds = |seconds| LagThreshold { records: None, seconds: Some(seconds) };
        Self {
            warning: seconds(300.0),
            critical: seconds(1800.0),
            heartbeat_seconds: 180.0,
            group_seconds: 60.0,
        }
    }
}

/// A lag that is passed by either of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LagThreshold {
    /// Records; absent: any number.
    pub records: Option<u64>,
    /// Age of the oldest record that is not delivered, in seconds; absent: any age.
    #[schemars(range(min = 0.0))]
    pub seconds: Option<f64>,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            pipeline_id: String::new(),
            topic_prefix: "cdc".to_owned(),
            group_id: String::new(),
            source: SourceConfig::default(),
            kafka: KafkaConfig::default(),
            connector: ConnectorConfig::default(),
            coordinator: CoordinatorConfig::default(),
            worker: WorkerConfig::default(),
            redis: RedisConfig::default(),
            dlq: DlqConfig::default(),
            sinks: Vec::new(),
            retry: RetryConfig::default(),
            max_buffered_messages: 1000,
            max_buffered_bytes: 32 * 1024 * 1024,
            partition_concurrency: 0,
            schema_monitor_interval_seconds: 30.0,
            lag_monitor_interval_seconds: 15.0,
            lag: LagConfig::default(),
            stop_on_incompatible_schema: false,
            drain_seconds: 25.0,
            log_level: "INFO".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

impl PipelineConfig {
    /// The consumer group of one sink, `{group_id}.{sink_id}`.
    pub fn sink_group(&self, sink_id: &str) -> String {
        crate::control::sink_group(&self.group_id, sink_id)
    }

    /// The control topic, `{group_id}.control`.
    pub fn control_topic(&self) -> String {
        crate::control::control_topic(&self.group_id)
    }

    /// The topic of a source table (`public.customers` gives `cdc.public.customers`).
    pub fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.topic_prefix)
    }

    /// The topic in which the connector says where transactions begin and end.
    pub fn transaction_topic(&self) -> String {
        format!("{}.transaction", self.topic_prefix)
    }

    /// Whether the connector must say where transactions begin and end.
    pub fn needs_transactions(&self) -> bool {
        self.sinks.iter().any(SinkConfig::keeps_transactions)
    }

    /// Name of the Debezium connector, `{topic_prefix}-{pipeline_id}`.
    pub fn connector_name(&self) -> String {
        format!("{}-{}", self.topic_prefix, self.pipeline_id)
    }

    /// The sink with this id.
    pub fn sink(&self, sink_id: &str) -> Option<&SinkConfig> {
        self.sinks.iter().find(|sink| sink.sink_id == sink_id)
    }

    /// The tables that a sink consumes: its own list, or all of the source's.
    pub fn sink_tables<'a>(&'a self, sink: &'a SinkConfig) -> &'a [String] {
        if sink.tables.is_empty() { &self.source.tables } else { &sink.tables }
    }

    /// The enabled sinks that keep a table's rows by their keys.
    pub fn keyed_sinks_of<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a SinkConfig> {
        let keyed = self.sinks.iter().filter(|sink| sink.enabled && sink.is_keyed());
        keyed.filter(move |sink| self.sink_tables(sink).iter().any(|name| name == table))
    }

    /// What a sink does behind an incompatible change of schema; `None` without
    /// [`Self::stop_on_incompatible_schema`], when nothing is held.
    pub fn on_incompatible(&self, sink: &SinkConfig) -> Option<OnIncompatible> {
        self.stop_on_incompatible_schema.then_some(sink.on_incompatible)
    }

    /// [`Self::drain_seconds`] as a duration.
    pub fn drain(&self) -> Duration {
        super::seconds(self.drain_seconds)
    }

    /// [`CoordinatorConfig::heartbeat_interval_seconds`] as a duration.
    pub fn heartbeat_interval(&self) -> Duration {
        super::seconds(self.coordinator.heartbeat_interval_seconds)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
