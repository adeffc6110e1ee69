//! Settings of a webhook sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Secret, TlsConfig};

/// One HTTP request per event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct WebhookConfig {
    /// Address that gets the requests, `http` or `https`, without user and password.
    #[schemars(length(min = 1))]
    pub url: String,
    /// HTTP method.
    pub method: HttpMethod,
    /// Further headers. Values are treated as secrets, since many hold one.
    pub headers: BTreeMap<String, Secret>,
    /// Longest time for one request with its answer, in seconds.
    #[schemars(range(min = 0.01, max = 3600.0))]
    pub timeout_seconds: f64,
    /// Sent as `Authorization: Bearer …`.
    pub auth_token: Option<Secret>,
    /// Standard Webhooks secrets (`whsec_…`); several during a rotation, each signs.
    pub signing_secrets: Vec<Secret>,
    /// Requests under way at once in this worker; per key never more than one.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_in_flight: u32,
    /// Also send a request for the tombstone that follows a delete.
    pub send_tombstones: bool,
    /// How values look in JSON.
    pub json: WebhookJsonConfig,
    /// Certificates for an `https` address.
    pub tls: TlsConfig,
    /// Accept an address in a private or local network.
    pub allow_private: bool,
    /// Accept an address without TLS.
    pub allow_http: bool,
    /// Most bytes read of an answer; the rest is left unread.
    #[schemars(range(max = 16_777_216))]
    pub max_response_bytes: u32,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: HttpMethod::Post,
            headers: BTreeMap::new(),
            timeout_seconds: 30.0,
            auth_token: None,
            signing_secrets: Vec::new(),
            max_in_flight: 64,
            send_tombstones: false,
            json: WebhookJsonConfig::default(),
            tls: TlsConfig::default(),
            allow_private: true,
            allow_http: true,
            max_response_bytes: 64 * 1024,
        }
    }
}

/// Headers that the sink sets itself, so that `headers` may not.
pub(in crate::config) const RESERVED_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// HTTP method of a webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// How values look in JSON where there is a choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookJsonConfig {
    /// 64-bit integers.
    pub int64: Int64Json,
    /// Dates, times and timestamps.
    pub temporal: TemporalJson,
}

/// How 64-bit integers look in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Int64Json {
    /// As numbers.
    #[default]
    Number,
    /// As strings, for receivers that read numbers as doubles.
    String,
}

/// How dates, times and timestamps look in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TemporalJson {
    /// As the connector sends them, mostly integers.
    #[default]
    AsSent,
    /// As ISO 8601 text.
    Iso8601,
}
