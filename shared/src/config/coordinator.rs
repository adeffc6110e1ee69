//! The coordinator, the workers' own addresses, Redis, and the dead letter queue.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Secret, TlsConfig};

/// The coordinator: where it listens and who may call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Address and port to listen on. Any host but loopback needs `tokens`.
    #[schemars(length(min = 1))]
    pub bind: String,
    /// Address by which workers and commands reach it. Default: from `bind`.
    pub url: Option<String>,
    /// Address by which workers, commands and other coordinators reach this one while it leads,
    /// where several have one `url`. Default: as `url`.
    pub advertise: Option<String>,
    /// Tokens by role.
    pub tokens: TokenConfig,
    /// Certificates for an `https` address in `url`.
    pub tls: TlsConfig,
    /// Answer by TLS, with these certificates.
    pub server_tls: Option<ServerTlsConfig>,
    /// How often a worker reports, in seconds.
    #[schemars(range(min = 0.05, max = 300.0))]
    pub heartbeat_interval_seconds: f64,
    /// Where watermarks are kept.
    pub watermark_store: WatermarkStore,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8090".to_owned(),
            url: None,
            advertise: None,
            tokens: TokenConfig::default(),
            tls: TlsConfig::default(),
            server_tls: None,
            heartbeat_interval_seconds: 2.0,
            watermark_store: WatermarkStore::Redis,
        }
    }
}

impl CoordinatorConfig {
    /// Address by which workers and commands reach the coordinator: `url`, or the bound address
    /// with the wildcard hosts replaced by loopback.
    pub fn base_url(&self) -> String {
        if let Some(url) = &self.url {
            return url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.server_tls.is_some() { "https" } else { "http" };
        match self.bind.rsplit_once(':') {
            Some(("0.0.0.0" | "", port)) => format!("{scheme}://127.0.0.1:{port}"),
            Some(("[::]", port)) => format!("{scheme}://[::1]:{port}"),
            _ => format!("{scheme}://{}", self.bind),
        }
    }
}

impl CoordinatorConfig {
    /// Address by which this one is reached, whichever others there are.
    pub fn own_url(&self) -> String {
        let own = self.advertise.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        own.unwrap_or_else(|| self.base_url())
    }
}

/// Certificates by which a server of ours answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// PEM file with the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key of `cert_file`.
    pub key_file: PathBuf,
    /// PEM file with authorities: callers must then show a certificate of one of them.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// One token per role; an absent one leaves the role to callers on loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// For workers: reports of their own sink.
    pub worker: Option<Secret>,
    /// For people and scripts that pause, resume, skip, rewind; reads as well.
    pub operator: Option<Secret>,
    /// For status, health and metrics.
    pub reader: Option<Secret>,
    /// Further tokens, each with the name that the audit trail tells.
    pub named: Vec<NamedToken>,
}

impl TokenConfig {
    /// Whether any role has a token.
    pub fn any(&self) -> bool {
        let roles = [&self.worker, &self.operator, &self.reader].into_iter().flatten();
        roles.chain(self.named.iter().map(|named| &named.token)).any(|token| !token.is_empty())
    }
}

/// The token of one person or program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedToken {
    /// Whose it is.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// What it opens.
    pub role: Role,
    /// The token.
    pub token: Secret,
}

/// What a caller of the coordinator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Report progress of a sink.
    Worker,
    /// Change something, and look.
    Operator,
    /// Look.
    Reader,
}

impl Role {
    /// As in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Reader => "reader",
        }
    }

    /// Whether a token of this role opens what demands `wanted`.
    pub fn opens(self, wanted: Self) -> bool {
        self == wanted || (self == Self::Operator && wanted == Self::Reader)
    }
}

/// Where the coordinator keeps watermarks. Both are rebuilt from the workers' reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatermarkStore {
    /// In Redis, shared by several coordinators.
    #[default]
    Redis,
    /// In the process, for a pipeline on one machine.
    Memory,
}

/// Where a worker serves `/livez`, `/readyz` and `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Host to listen on.
    #[schemars(length(min = 1))]
    pub bind: String,
    /// First port; `cdc run` counts up from it, one per sink.
    #[schemars(range(min = 1))]
    pub port_base: u16,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { bind: "127.0.0.1".to_owned(), port_base: 8091 }
    }
}

/// Redis, which holds watermarks and can be emptied at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://host:port/db`, or `rediss://` for TLS. Without credentials: those have own fields.
    #[schemars(length(min = 1))]
    pub url: String,
    /// ACL user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Certificates for a `rediss` address.
    pub tls: TlsConfig,
    /// What all our keys begin with.
    #[schemars(length(min = 1))]
    pub key_prefix: String,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: "redis://localhost:6379".to_owned(),
            username: None,
            password: None,
            tls: TlsConfig::default(),
            key_prefix: "cdc".to_owned(),
        }
    }
}

/// Dead letter topics, one per source topic: `{source_topic}.{suffix}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DlqConfig {
    /// Without it a rejected record holds its partition.
    pub enabled: bool,
    /// Last part of the topic's name.
    #[schemars(length(min = 1), regex(pattern = "^[a-zA-Z0-9_-]+$"))]
    pub suffix: String,
    /// Stops a sink that rejects too much.
    pub breaker: BreakerConfig,
    /// Add the chain of causes as the header `dlq.stacktrace`.
    pub include_stacktrace: bool,
}

impl Default for DlqConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            suffix: "dlq".to_owned(),
            breaker: BreakerConfig::default(),
            include_stacktrace: true,
        }
    }
}

impl DlqConfig {
    /// The dead letter topic of a source topic.
    pub fn topic(&self, source_topic: &str) -> String {
        format!("{source_topic}.{}", self.suffix)
    }
}

/// When a sink that rejects records is paused instead of emptying its topic into the DLQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Rejects in a row on one partition that pause the sink; 0 = no limit.
    pub max_consecutive: u32,
    /// Share of rejects among the last `window` records that pauses the sink, in percent;
    /// 0 = no limit.
    #[schemars(range(max = 100))]
    pub max_share_percent: u32,
    /// Records over which the share is taken; it counts once the window is full.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub window: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { max_consecutive: 100, max_share_percent: 50, window: 1000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_follows_from_the_bound_one() {
        let url = |bind: &str, url: Option<&str>| {
            CoordinatorConfig {
                bind: bind.into(),
                url: url.map(Into::into),
                ..CoordinatorConfig::default()
            }
            .base_url()
        };
        assert_eq!(url("127.0.0.1:8090", None), "http://127.0.0.1:8090");
        assert_eq!(url("0.0.0.0:9", None), "http://127.0.0.1:9");
        assert_eq!(url("[::]:9", None), "http://[::1]:9");
        assert_eq!(url("0.0.0.0:9", Some("https://c.example/")), "https://c.example");
        let server_tls = Some(ServerTlsConfig {
            cert_file: "c".into(),
            key_file: "k".into(),
            client_ca_file: None,
        });
        let config = CoordinatorConfig { server_tls, ..CoordinatorConfig::default() };
        assert_eq!(config.base_url(), "https://127.0.0.1:8090");
    }
}
