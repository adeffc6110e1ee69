//! Whether the services that a pipeline needs answer, and take our credentials.

use cdc_shared::config::{KafkaConfig, PipelineConfig};
use cdc_shared::registry::{Registry, RegistryError};

use super::{Exit, Failure};
use crate::connect::{Connect, Settled};
use crate::deploy::broker::Broker;

/// What Kafka answers: the number of its topics.
pub(super) async fn kafka(config: &KafkaConfig) -> Result<String, Failure> {
    let topics = Broker::new(config)?.metadata().await?;
    Ok(format!("{} topics", topics.len()))
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

/// What Kafka Connect answers: its version, and the state of the pipeline's connector if it has a
/// pipeline.
pub(super) async fn connect(config: &PipelineConfig) -> Result<String, Failure> {
    let connect = Connect::new(&config.connector)?;
    let version = connect.version().await?;
    if config.pipeline_id.is_empty() {
        return Ok(format!("version {version}"));
    }
    let name = config.connector_name();
    let Some(status) = connect.status(&name).await? else {
        return Err(Failure::new(Exit::Config, format!("connector {name} does not exist"))
            .hint("run deploy"));
    };
    match status.settled() {
        Settled::Running => Ok(format!("version {version}, connector {name} and its task run")),
        Settled::Failed(reason) => {
            Err(Failure::new(Exit::Software, format!("connector {name} failed: {reason}"))
                .hint("deploy starts it again once the cause is mended"))
        }
        Settled::Held(_) | Settled::NotYet(_) => {
            Err(Failure::new(Exit::TempFail, format!("{name}: {}", status.describe())))
        }
    }
}
