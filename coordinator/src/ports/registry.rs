//! The schema registry: whether it answers.

use cdc_shared::config::{KafkaConfig, seconds};
use cdc_shared::http::{Credentials, cause};

use crate::error::CoordinatorError;

/// Asks the registry.
pub struct Registry {
    client: reqwest::Client,
    credentials: Credentials,
    address: String,
}

impl Registry {
    /// As `kafka.schema_registry_url` says.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, CoordinatorError> {
        let config = &kafka.schema_registry;
        Ok(Self {
            client: cdc_shared::http::client(&config.tls, seconds(config.timeout_seconds))?,
            credentials: Credentials::from_fields(
                config.username.as_deref(),
                config.password.as_ref(),
                config.bearer_token.as_ref(),
            ),
            address: kafka.schema_registry_url.trim_end_matches('/').to_owned(),
        })
    }

    /// Asks for something small. A bare address of Apicurio has it under another path, so that any
    /// answer but a refusal of our credentials or a failure of the server proves it alive.
    ///
    /// # Errors
    /// One line with the address and the cause.
    pub async fn check(&self) -> Result<(), String> {
        let failed = |what: String| format!("schema registry at {}: {what}", self.address);
        let url = format!("{}/schemas/types", self.address);
        let answer = self
            .credentials
            .apply(self.client.get(&url))
            .send()
            .await
            .map_err(|error| failed(cause(&error)))?;
        let status = answer.status();
        if status.is_server_error() || status.as_u16() == 401 || status.as_u16() == 403 {
            return Err(failed(format!("HTTP {status}")));
        }
        Ok(())
    }
}
