//! Kafka and the schema registry, as workers and coordinator reach them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Properties, Secret, TlsConfig};

/// Kafka client, topics, and the schema registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port`, separated by commas.
    #[schemars(length(min = 1))]
    pub bootstrap_servers: String,
    /// Address of the schema registry. A bare Apicurio address is completed to its
    /// Confluent-compatible path (see [`super::registry`]).
    #[schemars(length(min = 1))]
    pub schema_registry_url: String,
    /// Credentials for the registry.
    pub schema_registry: RegistryConfig,
    /// Which group protocol the workers speak.
    pub group_protocol: GroupProtocol,
    /// Encryption and authentication of the connection.
    pub security_protocol: SecurityProtocol,
    /// Credentials for the `sasl_*` protocols.
    pub sasl: SaslConfig,
    /// Certificates for the `*ssl` protocols.
    pub tls: TlsConfig,
    /// The topics that `deploy` creates.
    pub topics: TopicConfig,
    /// How often a worker commits its group's offsets, in milliseconds.
    #[schemars(range(min = 10, max = 600_000))]
    pub commit_interval_ms: u32,
    /// Largest message a worker accepts, in bytes.
    #[schemars(range(min = 1024, max = 1_000_000_000))]
    pub max_message_bytes: u32,
    /// Further librdkafka properties, passed on as they are.
    pub properties: Properties,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            schema_registry_url: "http://localhost:8081".to_owned(),
            schema_registry: RegistryConfig::default(),
            group_protocol: GroupProtocol::Auto,
            security_protocol: SecurityProtocol::Plaintext,
            sasl: SaslConfig::default(),
            tls: TlsConfig::default(),
            topics: TopicConfig::default(),
            commit_interval_ms: 1000,
            max_message_bytes: 16 * 1024 * 1024,
            properties: Properties::default(),
        }
    }
}

/// Properties that decide about correctness, which `kafka.properties` may therefore not set, with
/// the setting or the reason that takes their place.
pub const RESERVED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("group.id", "the group is named by group_id and sink_id"),
    ("group.protocol", "set kafka.group_protocol"),
    ("group.remote.assignor", "the platform chooses it"),
    ("partition.assignment.strategy", "the platform chooses it"),
    ("enable.auto.commit", "offsets are committed only for what is durable in the sink"),
    ("auto.commit.interval.ms", "set kafka.commit_interval_ms"),
    ("enable.auto.offset.store", "offsets are committed only for what is durable in the sink"),
    ("auto.offset.reset", "set start of the sink"),
    ("isolation.level", "workers read only what is committed"),
    ("transactional.id", "the platform chooses it"),
    ("enable.idempotence", "the platform's producers are idempotent"),
    ("acks", "the platform's producers wait for all replicas"),
    ("request.required.acks", "the platform's producers wait for all replicas"),
    ("check.crcs", "damaged batches are always found"),
    ("security.protocol", "set kafka.security_protocol"),
    ("sasl.mechanism", "set kafka.sasl.mechanism"),
    ("sasl.mechanisms", "set kafka.sasl.mechanism"),
    ("sasl.username", "set kafka.sasl.username"),
    ("sasl.password", "set kafka.sasl.password"),
    ("ssl.ca.location", "set kafka.tls.ca_file"),
    ("ssl.certificate.location", "set kafka.tls.cert_file"),
    ("ssl.key.location", "set kafka.tls.key_file"),
    ("ssl.key.password", "set kafka.tls.key_password"),
    ("enable.ssl.certificate.verification", "set kafka.tls.allow_insecure"),
    ("plugin.library.paths", "no code is loaded by configuration"),
];

/// Which consumer group protocol the workers speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The newer one (KIP-848) where the broker has it.
    #[default]
    Auto,
    /// The older one, by JoinGroup and SyncGroup.
    Classic,
    /// The newer one (KIP-848).
    Consumer,
}

/// librdkafka's `security.protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// Encrypted; authenticated if `tls.cert_file` is given.
    Ssl,
    /// Authenticated, not encrypted.
    SaslPlaintext,
    /// Encrypted and authenticated.
    SaslSsl,
}

impl SecurityProtocol {
    /// The value of librdkafka's `security.protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether `kafka.sasl` is used.
    pub fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether `kafka.tls` is used.
    pub fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// Credentials for SASL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SaslConfig {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// librdkafka's `sasl.mechanism`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// User and password as they are: use it with `sasl_ssl`.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// The value of librdkafka's `sasl.mechanism`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Credentials for the schema registry; either a user or a bearer token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// User for basic authentication.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Token for bearer authentication.
    pub bearer_token: Option<Secret>,
    /// Certificates for an `https` address.
    pub tls: TlsConfig,
    /// Longest time for one request, in seconds.
    #[schemars(range(min = 0.1, max = 600.0))]
    pub timeout_seconds: f64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            username: None,
            password: None,
            bearer_token: None,
            tls: TlsConfig::default(),
            timeout_seconds: 10.0,
        }
    }
}

/// The topics that `deploy` creates. DLQ and control topics never expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TopicConfig {
    /// Partitions of a table's topic: the most workers of one sink that can share its load.
    #[schemars(range(min = 1, max = 10_000))]
    pub partitions: u32,
    /// Copies of every partition.
    #[schemars(range(min = 1, max = 100))]
    pub replication_factor: u16,
    /// How long changes stay in a table's topic, in milliseconds; at least seven days, the longest
    /// a sink may be away. -1 = for ever.
    #[schemars(range(min = -1))]
    pub retention_ms: i64,
}

/// The shortest retention that [`TopicConfig::retention_ms`] accepts: seven days.
pub const MIN_RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1000;

impl Default for TopicConfig {
    fn default() -> Self {
        Self { partitions: 4, replication_factor: 1, retention_ms: MIN_RETENTION_MS }
    }
}
