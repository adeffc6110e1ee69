//! TLS settings of a connection that this platform opens.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;

/// TLS towards one service. Whether TLS is used at all is decided by the address (`https`,
/// `rediss`), by `kafka.security_protocol` or by `sslmode`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate chain, for servers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Password of `key_file` (Kafka only; the other clients take unencrypted keys).
    pub key_password: Option<Secret>,
    /// Accept any certificate. For tests: whoever answers is believed.
    pub allow_insecure: bool,
}
