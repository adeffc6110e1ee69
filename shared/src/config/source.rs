//! The database that changes are captured from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Properties, Secret};

/// Source database and its Debezium connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["database"]))]
pub struct SourceConfig {
    /// Kind of database.
    pub source_type: SourceType,
    /// Database host, as Kafka Connect reaches it.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Database port. The template of the source type sets it: 5432, or 3306 for MySQL and MariaDB.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Database name.
    #[schemars(length(min = 1))]
    pub database: String,
    /// Database user with the right to replicate.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Tables with their schema (`public.customers`; for MySQL and MariaDB `database.table`).
    pub tables: Vec<String>,
    /// PostgreSQL replication slot, one per pipeline.
    #[schemars(length(min = 1, max = 63))]
    pub slot_name: String,
    /// PostgreSQL publication. Default: [`SourceConfig::publication`].
    #[schemars(length(min = 1, max = 63))]
    pub publication_name: Option<String>,
    /// Debezium snapshot mode.
    pub snapshot_mode: SnapshotMode,
    /// TLS between Kafka Connect and the database.
    pub ssl: SourceSslConfig,
    /// MySQL and MariaDB: the replication client's number, unique among all replicas of the server.
    /// Default: derived from the pipeline's id.
    #[schemars(range(min = 1))]
    pub server_id: Option<u32>,
    /// How often the connector writes a heartbeat so that quiet tables do not hold back the
    /// replication slot, in milliseconds; 0 = never.
    #[schemars(range(max = 86_400_000))]
    pub heartbeat_interval_ms: u32,
    /// How often the connector looks for new changes, in milliseconds (Debezium's own default of
    /// 500 is half a second of latency).
    #[schemars(range(min = 1, max = 3_600_000))]
    pub poll_interval_ms: u32,
    /// Where snapshot requests for a running connector are sent.
    pub signal: SignalChannel,
    /// Table with the columns `id, type, data` for `signal: source`, with its schema.
    pub signal_table: Option<String>,
    /// Text that the connector puts in place of a large value that did not change.
    #[schemars(length(min = 1))]
    pub unavailable_placeholder: String,
    /// Further Debezium properties, passed on as they are; null takes a default of the template
    /// away.
    pub connector_properties: Properties,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            source_type: SourceType::Postgres,
            host: "localhost".to_owned(),
            port: 5432,
            database: String::new(),
            username: "cdc_user".to_owned(),
            password: Secret::from("cdc_password"),
            tables: Vec::new(),
            slot_name: "cdc_slot".to_owned(),
            publication_name: None,
            snapshot_mode: SnapshotMode::Initial,
            ssl: SourceSslConfig::default(),
            server_id: None,
            heartbeat_interval_ms: 10_000,
            poll_interval_ms: 50,
            signal: SignalChannel::Kafka,
            signal_table: None,
            unavailable_placeholder: "__debezium_unavailable_value".to_owned(),
            connector_properties: Properties::default(),
        }
    }
}

/// Kind of source database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// PostgreSQL, by logical replication (`pgoutput`).
    #[default]
    Postgres,
    /// MySQL, by binlog.
    Mysql,
    /// MariaDB, by binlog.
    Mariadb,
}

impl SourceType {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }
}

/// Debezium's `snapshot.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// Snapshot at the first start, then changes.
    #[default]
    Initial,
    /// Snapshot at every start.
    Always,
    /// Snapshot, then stop.
    InitialOnly,
    /// Changes only.
    NoData,
    /// Changes only, by the older name that PostgreSQL's connector had for it.
    Never,
    /// Schema only, by the older name that MySQL's connector had for `no_data`.
    SchemaOnly,
    /// Snapshot when the connector finds its offsets gone. It hides a loss of changes.
    WhenNeeded,
    /// Decided by the `snapshot.mode.configuration.based.*` properties.
    ConfigurationBased,
    /// MySQL and MariaDB: rebuild a lost schema history topic.
    Recovery,
}

impl SnapshotMode {
    /// The value of Debezium's `snapshot.mode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Always => "always",
            Self::InitialOnly => "initial_only",
            Self::NoData => "no_data",
            Self::Never => "never",
            Self::SchemaOnly => "schema_only",
            Self::WhenNeeded => "when_needed",
            Self::ConfigurationBased => "configuration_based",
            Self::Recovery => "recovery",
        }
    }
}

/// How a running connector is asked for the snapshot of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignalChannel {
    /// By a Kafka topic; the source is only read.
    #[default]
    Kafka,
    /// By a row in `signal_table` of the source.
    Source,
    /// Not at all.
    Off,
}

/// TLS between Kafka Connect and the source. File names are paths on the Connect worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSslConfig {
    /// How much is demanded of the connection.
    pub mode: SourceSslMode,
    /// PostgreSQL: PEM file with the authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// PostgreSQL: PEM file with the client certificate.
    pub cert_file: Option<PathBuf>,
    /// PostgreSQL: file with the client key (PKCS-8 DER).
    pub key_file: Option<PathBuf>,
    /// PostgreSQL: password of `key_file`.
    pub key_password: Option<Secret>,
    /// MySQL and MariaDB: trust store file.
    pub truststore: Option<PathBuf>,
    /// MySQL and MariaDB: password of `truststore`.
    pub truststore_password: Option<Secret>,
    /// MySQL and MariaDB: key store file.
    pub keystore: Option<PathBuf>,
    /// MySQL and MariaDB: password of `keystore`.
    pub keystore_password: Option<Secret>,
}

/// What is demanded of the connection to the source; named as PostgreSQL names them, and mapped to
/// MySQL's `disabled, preferred, required, verify_ca, verify_identity`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceSslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can (Debezium's default).
    #[default]
    Prefer,
    /// Encrypted, the server is not verified.
    Require,
    /// Encrypted, signed by a trusted authority.
    VerifyCa,
    /// Encrypted, signed by a trusted authority, and for this host name.
    VerifyFull,
}

/// The connector's `binary.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BinaryForm {
    /// Bytes.
    #[default]
    Bytes,
    /// Base64 text.
    Base64,
    /// Base64 text with the URL-safe alphabet.
    Base64UrlSafe,
    /// Hexadecimal text.
    Hex,
}

impl SourceConfig {
    /// What `connector_properties` say of `binary.handling.mode`.
    pub fn binary_form(&self) -> BinaryForm {
        match self.connector_properties.0.get("binary.handling.mode").map(String::as_str) {
            Some("base64") => BinaryForm::Base64,
            Some("base64-url-safe") => BinaryForm::Base64UrlSafe,
            Some("hex") => BinaryForm::Hex,
            _ => BinaryForm::Bytes,
        }
    }

    /// Whether the password is a reference that only Kafka Connect can resolve (`$${…}` in the
    /// file): then nobody but the connector can log in.
    pub fn password_is_connects(&self) -> bool {
        self.password.expose().starts_with("${")
    }

    /// The PostgreSQL publication: as configured, or `cdc_` and the pipeline's id.
    pub fn publication(&self, pipeline_id: &str) -> String {
        self.publication_name
            .clone()
            .unwrap_or_else(|| format!("cdc_{}", pipeline_id.replace('-', "_")))
    }

    /// The replication client's number for MySQL and MariaDB: as configured, or one between
    /// 100 000 and 2 100 000 000 that depends on the pipeline's id only.
    pub fn server_number(&self, pipeline_id: &str) -> u32 {
        self.server_id.unwrap_or_else(|| {
            // FNV-1a: the number must not change between versions of this program.
            let hash = pipeline_id
                .bytes()
                .fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
            100_000 + hash % 2_099_900_000
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_derived_from_the_pipeline_are_stable() {
        let source = SourceConfig::default();
        assert_eq!(source.publication("my-shop"), "cdc_my_shop");
        assert_eq!(source.server_number("demo"), source.server_number("demo"));
        assert_ne!(source.server_number("demo"), source.server_number("demo2"));
        assert!((100_000..2_100_000_000).contains(&source.server_number("demo")));
        let own = SourceConfig {
            publication_name: Some("p".into()),
            server_id: Some(7),
            ..SourceConfig::default()
        };
        assert_eq!((own.publication("x").as_str(), own.server_number("x")), ("p", 7));
    }
}
