//! Kafka Connect, where the Debezium connector runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Secret, TlsConfig};

/// Kafka Connect and what the connector's task does with values on their way to Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectorConfig {
    /// Address of Kafka Connect's REST interface.
    #[schemars(length(min = 1))]
    pub connect_url: String,
    /// The Avro converter that the Connect worker has.
    pub converter: Converter,
    /// The schema registry as Connect reaches it. Default: `kafka.schema_registry_url`.
    pub registry_url: Option<String>,
    /// Kafka as Connect's own clients for schema history and signals reach it. Default:
    /// `kafka.bootstrap_servers`.
    pub bootstrap_servers: Option<String>,
    /// Use the Connect transform that keeps NULL apart from a column's default. Default: yes with
    /// Apicurio's converter, which would mix them up; Confluent's has a setting for it.
    pub keep_nulls: Option<bool>,
    /// Demand Connect's exactly-once source support (the Connect worker must have it enabled).
    pub exactly_once: bool,
    /// User for basic authentication.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Token for bearer authentication.
    pub bearer_token: Option<Secret>,
    /// Certificates for an `https` address.
    pub tls: TlsConfig,
    /// How long `deploy` waits for the connector's task to run, in seconds.
    #[schemars(range(min = 1.0, max = 3600.0))]
    pub task_start_timeout_seconds: f64,
    /// How often in an hour the coordinator starts the connector or its task again after a failure,
    /// each time after a longer wait; 0: never.
    #[schemars(range(max = 100))]
    pub auto_restart: u32,
    /// Longest time for one request, in seconds.
    #[schemars(range(min = 0.1, max = 600.0))]
    pub timeout_seconds: f64,
}

impl Default for ConnectorConfig {
    fn default() -> Self {
        Self {
            connect_url: "http://localhost:8083".to_owned(),
            converter: Converter::Apicurio,
            registry_url: None,
            bootstrap_servers: None,
            keep_nulls: None,
            exactly_once: false,
            username: None,
            password: None,
            bearer_token: None,
            tls: TlsConfig::default(),
            task_start_timeout_seconds: 60.0,
            auto_restart: 3,
            timeout_seconds: 30.0,
        }
    }
}

impl ConnectorConfig {
    /// Whether the connector uses our transform that keeps NULL apart from a column's default.
    pub fn keeps_nulls(&self) -> bool {
        self.keep_nulls.unwrap_or(matches!(self.converter, Converter::Apicurio))
    }
}

/// Which Avro converter the connector uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Converter {
    /// Apicurio's, set to Confluent's framing.
    #[default]
    Apicurio,
    /// Confluent's.
    Confluent,
}
