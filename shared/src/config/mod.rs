//! Configuration: types with their defaults, and [`load()`], which reads them.
//!
//! A configuration is put together from layers, later ones winning key by key: the built-in
//! template of the source type, the platform file, the pipeline file, and `CDC_` variables of the
//! environment. Each value remembers the file and line it came from, so that every error, and all
//! of them at once, can name the place. References (`${VAR}`) are resolved after parsing and only
//! in the sections that the process uses.

mod connector;
mod coordinator;
mod environment;
mod error;
mod kafka;
mod load;
mod pipeline;
mod properties;
mod references;
pub mod registry;
mod retry;
mod rules;
mod schema;
mod secret;
mod sections;
mod shape;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod tree;

use std::time::Duration;

pub use connector::{ConnectorConfig, Converter};
pub use coordinator::{
    BreakerConfig, CoordinatorConfig, DlqConfig, NamedToken, RedisConfig, Role, ServerTlsConfig,
    TokenConfig, WatermarkStore, WorkerConfig,
};
pub use environment::names as variable_names;
pub use error::{ConfigError, ConfigErrors, Place};
pub use kafka::{
    GroupProtocol, KafkaConfig, MIN_RETENTION_MS, RESERVED_PROPERTIES, RegistryConfig, SaslConfig,
    SaslMechanism, SecurityProtocol, TopicConfig,
};
pub use load::{LoadOptions, Loaded, Sections, Variables, load, load_platform, process_variables};
pub use pipeline::{LagConfig, LagThreshold, LogFormat, PipelineConfig};
pub use properties::{Properties, is_sensitive};
pub use retry::{OnExhausted, RetryConfig};
pub use schema::editor_schema;
pub use secret::{HIDDEN, Secret};
pub use sink::{
    Consistency, EnumHandling, HttpMethod, IcebergConfig, IcebergMaintenance, IcebergWriteMode,
    Int64Json, OnIncompatible, OnReject, Operation, PartitionField, PartitionTransform,
    PostgresSinkConfig, PostgresWriteMode, SinkConfig, SinkType, SnapshotDelivery, SslMode,
    StartPosition, TemporalJson, TruncateHandling, WebhookConfig, WebhookJsonConfig,
};
pub use source::{
    BinaryForm, SignalChannel, SnapshotMode, SourceConfig, SourceSslConfig, SourceSslMode,
    SourceType,
};
pub use tls::TlsConfig;

/// Seconds of a setting as a duration. Settings are checked to be finite and not negative; a value
/// that was set by code and is neither becomes zero.
pub fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}
