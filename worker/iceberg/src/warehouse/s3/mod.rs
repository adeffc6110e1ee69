//! Files in S3, or in what speaks its protocol.
//!
//! Each operation is one request, tried again where that may help; a large file goes up in parts. An
//! error names bucket, key and operation, and tells apart what a person would mend in another way.

mod client;
mod error;
mod keys;
mod settings;
mod storage;

use std::time::Duration;

use cdc_shared::config::TlsConfig;
use iceberg::io::{FileIO, FileIOBuilder};

use self::client::Client;
pub(crate) use self::error::S3Error;
use self::settings::Settings;
use self::storage::{Factory, S3Storage};
use super::Properties;
use crate::error::{Kind, LakeError, Result};

/// Schemes of its addresses.
pub(super) const SCHEMES: [&str; 3] = ["s3", "s3a", "s3n"];

/// How long one request may take: a part of a file on a slow line.
const TIMEOUT: Duration = Duration::from_mins(2);

/// How long a service that gives keys may take. Where there is none its address does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections of any keys.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    /// To S3.
    files: reqwest::Client,
    /// To what gives keys.
    keys: reqwest::Client,
}

impl Connections {
    /// # Errors
    /// TLS files that cannot be used.
    pub(super) fn new(tls: &TlsConfig) -> Result<Self> {
        let client = |tls, timeout| {
            cdc_shared::http::client(tls, timeout).map_err(|error| {
                LakeError::new(Kind::Configuration, "configuration", "opening the warehouse")
                    .caused_by(error)
            })
        };
        Ok(Self { files: client(tls, TIMEOUT)?, keys: client(&TlsConfig::default(), PATIENCE)? })
    }
}

/// Files in S3, with what properties say of it.
///
/// # Errors
/// Properties that cannot be used.
pub(super) fn open(properties: &Properties, connections: Connections) -> Result<FileIO> {
    let client = Client::new(Settings::read(properties)?, connections);
    Ok(FileIOBuilder::new(std::sync::Arc::new(Factory(S3Storage::new(client)))).build())
}
