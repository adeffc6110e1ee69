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
    /// Has the sink's workers keep its tables small and quick: small files are joined and deleted
    /// rows left out, old snapshots given up, orphans removed. Absent: nobody does, but for
    /// `cdc lake`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<IcebergMaintenance>,
}

/// How an Iceberg sink keeps its tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IcebergMaintenance {
    /// How often, in seconds. The first time in a process it is no later than after 300.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub interval_seconds: u64,
    /// Snapshots that are older are given up, in seconds. Readers of them, time travel and
    /// rollback need them.
    #[schemars(range(max = 3_153_600_000_u64))]
    pub snapshot_age_seconds: u64,
    /// How many snapshots stay at least.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep_snapshots: u64,
    /// Files that nothing refers to are removed when they were not written to for so long, in
    /// seconds: a writer may be about to commit what is younger.
    #[schemars(range(min = 3600, max = 3_153_600_000_u64))]
    pub orphan_age_seconds: u64,
}

impl Default for IcebergMaintenance {
    fn default() -> Self {
        Self {
            interval_seconds: 3600,
            snapshot_age_seconds: 5 * 86_400,
            keep_snapshots: 10,
            orphan_age_seconds: 3 * 86_400,
        }
    }
}

impl IcebergMaintenance {
    /// [`Self::interval_seconds`] as a duration.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds)
    }
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
            maintenance: None,
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
