//! Kafka Connect: the state of our connector.

use cdc_shared::config::{ConnectorConfig, seconds};
use cdc_shared::http::{Credentials, cause};
use serde::Deserialize;

use crate::error::CoordinatorError;

/// State of the connector and its tasks, in Connect's words.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ConnectorStatus {
    /// The connector itself.
    pub connector: Part,
    /// Its tasks.
    #[serde(default)]
    pub tasks: Vec<Part>,
}

/// State of one part.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Part {
    /// Number of the task; the connector has none.
    pub id: Option<i32>,
    /// `RUNNING, PAUSED, STOPPED, FAILED, UNASSIGNED, RESTARTING`.
    pub state: String,
    /// Java's words for a failure.
    pub trace: Option<String>,
}

/// What came of the question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// There it is.
    Connector(ConnectorStatus),
    /// Connect answers, but has no such connector.
    Absent,
}

/// Asks Connect.
pub struct Connect {
    client: reqwest::Client,
    credentials: Credentials,
    address: String,
    connector: String,
}

impl Connect {
    /// For the connector of this name.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn new(config: &ConnectorConfig, connector: String) -> Result<Self, CoordinatorError> {
        Ok(Self {
            client: cdc_shared::http::client(&config.tls, seconds(config.timeout_seconds))?,
            credentials: Credentials::from_fields(
                config.username.as_deref(),
                config.password.as_ref(),
                config.bearer_token.as_ref(),
            ),
            address: config.connect_url.trim_end_matches('/').to_owned(),
            connector,
        })
    }

    /// The connector's status.
    ///
    /// # Errors
    /// One line with the address and the cause.
    pub async fn status(&self) -> Result<Found, String> {
        let url = format!("{}/connectors/{}/status", self.address, self.connector);
        let failed = |what: String| format!("Kafka Connect at {}: {what}", self.address);
        let answer = self
            .credentials
            .apply(self.client.get(&url))
            .send()
            .await
            .map_err(|error| failed(cause(&error)))?;
        match answer.status() {
            reqwest::StatusCode::NOT_FOUND => Ok(Found::Absent),
            status if !status.is_success() => Err(failed(format!("HTTP {status}"))),
            _ => answer.json().await.map(Found::Connector).map_err(|error| failed(cause(&error))),
        }
    }
}
