//! Settings of a PostgreSQL sink.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// Rows in a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["database"]))]
pub struct PostgresSinkConfig {
    /// Database host.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Database port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Database name.
    #[schemars(length(min = 1))]
    pub database: String,
    /// Database user.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// Table that gets the events, `schema.table`.
    #[schemars(length(min = 1))]
    pub target_table: String,
    /// What is written.
    pub write_mode: PostgresWriteMode,
    /// Most records in one transaction.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: u32,
    /// Most bytes of records in one transaction.
    #[schemars(range(min = 1024))]
    pub batch_max_bytes: u64,
    /// Longest time that the first record of a batch waits for more, in milliseconds.
    #[schemars(range(max = 3_600_000))]
    pub flush_interval_ms: u32,
    /// Write with `ON CONFLICT` on (`source_topic, source_partition, source_offset`).
    pub upsert: bool,
    /// What is demanded of the connection.
    pub sslmode: SslMode,
    /// PEM file with the authorities to trust instead of the system's.
    pub ssl_ca_file: Option<PathBuf>,
    /// PEM file with our certificate.
    pub ssl_cert_file: Option<PathBuf>,
    /// PEM file with our certificate's key.
    pub ssl_key_file: Option<PathBuf>,
    /// Most connections of one worker.
    #[schemars(range(min = 1, max = 1000))]
    pub max_connections: u32,
    /// Longest time for a connection attempt, in milliseconds.
    #[schemars(range(min = 1, max = 600_000))]
    pub connect_timeout_ms: u32,
    /// `statement_timeout` of our sessions, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub statement_timeout_ms: u32,
    /// `lock_timeout` of our sessions, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub lock_timeout_ms: u32,
    /// `idle_in_transaction_session_timeout` of our sessions, in milliseconds: how long a frozen
    /// worker can keep the next one out.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub idle_in_transaction_timeout_ms: u32,
    /// Table for the sink's own record of its progress, in the schema of `target_table` unless it
    /// names one.
    #[schemars(length(min = 1))]
    pub progress_table: String,
}

impl Default for PostgresSinkConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            database: String::new(),
            username: "cdc_user".to_owned(),
            password: Secret::from("cdc_password"),
            target_table: "public.cdc_events".to_owned(),
            write_mode: PostgresWriteMode::Events,
            batch_size: 1000,
            batch_max_bytes: 8 * 1024 * 1024,
            flush_interval_ms: 100,
            upsert: true,
            sslmode: SslMode::Prefer,
            ssl_ca_file: None,
            ssl_cert_file: None,
            ssl_key_file: None,
            max_connections: 4,
            connect_timeout_ms: 10_000,
            statement_timeout_ms: 60_000,
            lock_timeout_ms: 10_000,
            idle_in_transaction_timeout_ms: 30_000,
            progress_table: "cdc_offsets".to_owned(),
        }
    }
}

/// What a PostgreSQL sink writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PostgresWriteMode {
    /// One row per event.
    #[default]
    Events,
    /// A typed mirror of the source's tables. Not built yet.
    Replica,
}

/// What is demanded of a connection, as `libpq` names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can.
    #[default]
    Prefer,
    /// Encrypted, the server is not verified.
    Require,
    /// Encrypted, signed by a trusted authority.
    VerifyCa,
    /// Encrypted, signed by a trusted authority, and for this host name.
    VerifyFull,
}
