//! Settings of an Iceberg sink.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::TruncateHandling;
use crate::config::{HIDDEN, Secret, TlsConfig};

/// Apache Iceberg tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["catalog_uri", "warehouse", "table_name"]))]
pub struct IcebergConfig {
    /// Catalog: a file of SQLite, `sqlite:////path/to/catalog.db` (`sqlite:///` and a relative
    /// path); a database, `postgresql://user@host:5432/database?sslmode=verify-full`; a REST catalog,
    /// `https://host/path`.
    #[serde(serialize_with = "without_password")]
    #[schemars(length(min = 1))]
    pub catalog_uri: String,
    /// Name of the catalog.
    #[schemars(length(min = 1))]
    pub catalog_name: String,
    /// Further catalog and storage properties, by the names that PyIceberg and Iceberg's Java give
    /// them, such as `credential` and `s3.endpoint`. Values are treated as secrets, since many hold
    /// one.
    pub catalog_properties: BTreeMap<String, Secret>,
    /// Where the files go: `file:///…` or `s3://bucket/path`; with a REST catalog the name, or the
    /// location, by which that knows the warehouse.
    #[schemars(length(min = 1))]
    pub warehouse: String,
    /// TLS towards the catalog, what gives its tokens, and an endpoint of S3.
    pub tls: TlsConfig,
    /// Namespace of the table in the catalog.
    #[schemars(length(min = 1))]
    pub table_namespace: String,
    /// Name of the table; `{schema}` and `{table}` stand for the source table's. A name without
    /// them is one table for all, with the columns of all.
    #[schemars(length(min = 1))]
    pub table_name: String,
    /// What is written.
    pub write_mode: IcebergWriteMode,
    /// What a TRUNCATE at the source does with `write_mode: upsert`. `apply` is not built yet.
    pub truncate: TruncateHandling,
    /// A snapshot is made as soon as so many records are open. Small values make small files.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub batch_size: u32,
    /// A snapshot is made as soon as one partition has so many bytes open, as they come from Kafka.
    #[schemars(range(min = 1_048_576, max = 1_073_741_824))]
    pub target_file_size: u64,
    /// A snapshot is made as soon as a record is open for so long, in seconds.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub flush_interval_seconds: f64,
    /// Create namespace and table when they are absent.
    pub auto_create_table: bool,
    /// How tables that the sink makes are partitioned: columns, or transforms of them
    /// (`day(created_at)`, `bucket(16, id)`). `write_mode: append` only.
    pub partition_by: Vec<String>,
}

impl Default for IcebergConfig {
    fn default() -> Self {
        Self {
            catalog_uri: String::new(),
            catalog_name: "default".to_owned(),
            catalog_properties: BTreeMap::new(),
            warehouse: String::new(),
            tls: TlsConfig::default(),
            table_namespace: "default".to_owned(),
            table_name: String::new(),
            write_mode: IcebergWriteMode::Append,
            truncate: TruncateHandling::Stop,
            batch_size: 1000,
            target_file_size: 128 << 20,
            flush_interval_seconds: 10.0,
            auto_create_table: false,
            partition_by: Vec::new(),
        }
    }
}

impl IcebergConfig {
    /// [`Self::flush_interval_seconds`] as a duration.
    pub fn flush_interval(&self) -> Duration {
        crate::config::seconds(self.flush_interval_seconds)
    }
}

/// An address that may have a password in it is printed without.
fn without_password<S: Serializer>(uri: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let hidden = uri.split_once("://").and_then(|(scheme, rest)| {
        let (login, place) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:{HIDDEN}@{place}"))
    });
    serializer.serialize_str(hidden.as_deref().unwrap_or(uri))
}

/// What an Iceberg sink writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IcebergWriteMode {
    /// The change log.
    #[default]
    Append,
    /// The current state of the source's rows.
    Upsert,
}
