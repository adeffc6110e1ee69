//! Whether the services that a pipeline needs answer, and take our credentials.

use std::time::Duration;

use cdc_shared::config::{KafkaConfig, PipelineConfig};
use cdc_shared::registry::{Registry, RegistryError};

use super::{Exit, Failure};
use crate::connect::{Connect, ConnectorStatus};
use crate::deploy::broker::Broker;
use crate::watermark::{RedisStore, StoreError, WatermarkStore as _};

/// What Kafka answers: the number of its topics, or within `limit` why there is no answer.
pub(super) async fn kafka(config: &KafkaConfig, limit: Duration) -> Result<String, Failure> {
    let topics = Broker::new(config)?.metadata_within(limit).await?;
    Ok(format!("{} topics", topics.len()))
}

/// Whether Redis answers and takes writes.
pub(super) async fn redis(config: &PipelineConfig) -> Result<String, Failure> {
    let unavailable = |error: StoreError| {
        Failure::new(Exit::Unavailable, error.to_string())
            .hint("check redis.url; cdc run without coordinator.watermark_store does not use it")
    };
    let store = RedisStore::new(&config.redis, &config.pipeline_id).map_err(unavailable)?;
    let found = store.check().await.map_err(unavailable)?;
    Ok(found.eviction.unwrap_or_else(|| "takes watermarks".to_owned()))
}

/// What the schema registry answers: the kinds of schemas that it takes.
pub(super) async fn registry(config: &KafkaConfig) -> Result<String, Failure> {
    let registry = Registry::new(config)
        .map_err(|e| Failure::new(Exit::Config, format!("kafka.schema_registry.tls: {e}")))?;
    match registry.check().await {
        Ok(kinds) => Ok(format!("takes {}", kinds.join(", "))),
        Err(error @ RegistryError::Unavailable { refused: true, .. }) => {
            Err(Failure::new(Exit::NoPerm, error.to_string())
                .hint("check kafka.schema_registry.username, password, bearer_token"))
        }
        Err(error) => Err(Failure::new(Exit::Unavailable, error.to_string())
            .hint("check kafka.schema_registry_url and that the registry runs")),
    }
}

/// The pipeline's connector, as far as Connect was asked for it.
#[derive(Debug, Default)]
pub(super) enum Connector {
    /// Not asked for: there is no pipeline, or Connect does not answer.
    #[default]
    Unknown,
    /// Connect has none of this name.
    Absent,
    /// There it is.
    Found(ConnectorStatus),
}

/// What Kafka Connect answers.
pub(super) struct Connected {
    /// Its version.
    pub(super) version: String,
    /// The pipeline's connector.
    pub(super) connector: Connector,
}

/// What Kafka Connect answers of itself, and of the pipeline's connector if there is a pipeline.
pub(super) async fn connect(config: &PipelineConfig) -> Result<Connected, Failure> {
    let connect = Connect::new(&config.connector)?.impatient();
    let version = connect.version().await?;
    let connector = match config.pipeline_id.as_str() {
        "" => Connector::Unknown,
        _ => match connect.status(&config.connector_name()).await? {
            Some(status) => Connector::Found(status),
            None => Connector::Absent,
        },
    };
    Ok(Connected { version, connector })
}
