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
    /// Where it is written, `schema.table`: with `write_mode: events` the table of the events
    /// (default `public.cdc_events`), with `replica` the pattern of the mirrors' names (default
    /// `{schema}.{table}`, the names at the source; MySQL's schema is the database).
    #[schemars(length(min = 1))]
    pub target_table: Option<String>,
    /// What is written.
    pub write_mode: PostgresWriteMode,
    /// What a TRUNCATE at the source does (`replica`).
    pub truncate: TruncateHandling,
    /// Whether a schema that is missing in the target is created (`replica`).
    pub create_schema: bool,
    /// What the source's enums become (`replica`).
    pub enums: EnumHandling,
    /// What becomes visible together (`replica`).
    pub consistency: Consistency,
    /// Where transactions that do not fit into memory wait for their end (`consistency:
    /// transaction`); default: the system's folder for temporary files.
    pub spill_directory: Option<PathBuf>,
    /// Most records in one transaction.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: u32,
    /// Most bytes of records in one transaction.
    #[schemars(range(min = 1024))]
    pub batch_max_bytes: u64,
    /// Longest time that the first record of a batch waits for more, in milliseconds: 100, and 20
    /// for `replica`, unless it is set.
    #[schemars(range(max = 3_600_000))]
    pub flush_interval_ms: Option<u32>,
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
    /// names one (in `public` where that schema is the source's).
    #[schemars(length(min = 1))]
    pub progress_table: String,
}

impl PostgresSinkConfig {
    /// `target_table`, or the mode's default.
    pub fn target_table(&self) -> &str {
        self.target_table.as_deref().unwrap_or(match self.write_mode {
            PostgresWriteMode::Events => "public.cdc_events",
            PostgresWriteMode::Replica => "{schema}.{table}",
        })
    }

    /// `spill_directory`, or the system's.
    pub fn spill_directory(&self) -> PathBuf {
        self.spill_directory.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl PostgresSinkConfig {
    /// [`Self::flush_interval_ms`], or what it is when it is not set: a mirror is looked at like
    /// its source, so it waits less.
    pub fn flush_interval(&self) -> std::time::Duration {
        let default = match self.write_mode {
            PostgresWriteMode::Events => 100,
            PostgresWriteMode::Replica => 20,
        };
        std::time::Duration::from_millis(self.flush_interval_ms.unwrap_or(default).into())
    }
}

impl Default for PostgresSinkConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            database: String::new(),
            username: "cdc_user".to_owned(),
            password: Secret::from("cdc_password"),
            target_table: None,
            write_mode: PostgresWriteMode::Events,
            truncate: TruncateHandling::Stop,
            create_schema: true,
            enums: EnumHandling::Text,
            consistency: Consistency::Eventual,
            spill_directory: None,
            batch_size: 1000,
            batch_max_bytes: 8 * 1024 * 1024,
            flush_interval_ms: None,
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
    /// A typed mirror of the source's tables.
    Replica,
}

/// What a TRUNCATE at the source does to the mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TruncateHandling {
    /// The partition stops by name.
    #[default]
    Stop,
    /// Nothing: the mirror keeps its rows.
    Ignore,
    /// The mirror is emptied; only for topics of one partition, where the order is known.
    Apply,
}

/// What the source's enums become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnumHandling {
    /// Columns of type text.
    #[default]
    Text,
    /// Enum types of the same name, created in the target.
    Create,
}

/// What becomes visible together in the mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// The batches of each partition.
    #[default]
    Eventual,
    /// Whole transactions of the source, in the order of their commits. One worker delivers all
    /// partitions; further ones stand by.
    Transaction,
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
