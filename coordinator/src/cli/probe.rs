//! Whether the services that a pipeline needs answer, and take our credentials.

use cdc_shared::config::{KafkaConfig, PipelineConfig, seconds};
use cdc_shared::http::{self, Credentials};
use cdc_shared::registry::Registry;
use reqwest::StatusCode;

use super::{Exit, Failure};
use crate::connect::{Connect, Settled};
use crate::deploy::broker::Broker;

/// What Kafka answers: the number of its topics.
pub(super) async fn kafka(config: &KafkaConfig) -> Result<String, Failure> {
    let topics = Broker::new(config)?.metadata().await?;
    Ok(format!("{} topics", topics.len()))
}

/// What the schema registry answers: the number of its subjects.
pub(super) async fn registry(config: &KafkaConfig) -> Result<String, Failure> {
    let settings = &config.schema_registry;
    let address = config.schema_registry_url.trim_end_matches('/');
    let wrong = |e: cdc_shared::tls::TlsError| {
        Failure::new(Exit::Config, format!("kafka.schema_registry.tls: {e}"))
    };
    let unreachable = |cause: &str| {
        Failure::unreachable("the schema registry", address, cause)
            .hint("check kafka.schema_registry_url and that the registry runs")
    };
    let registry = Registry::new(config).map_err(wrong)?;
    let base = match registry.base().await {
        Ok(base) => base.to_owned(),
        Err(cdc_shared::registry::RegistryError::Unavailable { reason, .. }) => {
            return Err(unreachable(&reason));
        }
        Err(error) => return Err(unreachable(&error.to_string())),
    };
    let client = http::client(&settings.tls, seconds(settings.timeout_seconds)).map_err(wrong)?;
    let credentials = Credentials::from_fields(
        settings.username.as_deref(),
        settings.password.as_ref(),
        settings.bearer_token.as_ref(),
    );
    let answer = credentials
        .apply(client.get(format!("{base}/subjects")))
        .send()
        .await
        .map_err(|e| unreachable(&http::cause(&e)))?;
    let status = answer.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let message = format!("the schema registry at {base} refuses our credentials ({status})");
        return Err(Failure::new(Exit::NoPerm, message).hint("check kafka.schema_registry"));
    }
    let subjects: Option<Vec<String>> =
        if status.is_success() { answer.json().await.ok() } else { None };
    if let Some(subjects) = subjects {
        return Ok(format!("{} subjects", subjects.len()));
    }
    let message = format!("{base} does not answer as a schema registry ({status})");
    Err(Failure::new(Exit::Unavailable, message).hint("check kafka.schema_registry_url"))
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
