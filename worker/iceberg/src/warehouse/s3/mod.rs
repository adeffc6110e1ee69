//! Files in S3, or in what speaks its protocol.
//!
//! Each operation is one request, tried again where that may help; a large file goes up in parts. An
//! error names bucket, key and operation, and tells apart what a person would mend in another way.

mod client;
mod error;
mod keys;
mod settings;
mod storage;

use cdc_shared::config::TlsConfig;
use iceberg::io::{FileIO, FileIOBuilder};

use self::client::Client;
pub(crate) use self::error::S3Error;
use self::settings::Settings;
use self::storage::{Factory, S3Storage};
use super::Properties;
use crate::error::Result;

/// Schemes of its addresses.
pub(super) const SCHEMES: [&str; 3] = ["s3", "s3a", "s3n"];

/// Files in S3, with what properties say of it.
///
/// # Errors
/// Properties or TLS files that cannot be used.
pub(super) fn open(properties: &Properties, tls: &TlsConfig) -> Result<FileIO> {
    let client = Client::new(Settings::read(properties)?, tls)?;
    Ok(FileIOBuilder::new(std::sync::Arc::new(Factory(S3Storage::new(client)))).build())
}
