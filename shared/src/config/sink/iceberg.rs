//! Settings of an Iceberg sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// An Apache Iceberg table. Checked always; refused by name when the sink is enabled, because it is
/// not built yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["catalog_uri", "warehouse", "table_name"]))]
pub struct IcebergConfig {
    /// Catalog: `sqlite:///file`, `postgresql://…`, or a REST catalog's `http(s)://…`.
    #[schemars(length(min = 1))]
    pub catalog_uri: String,
    /// Name of the catalog.
    #[schemars(length(min = 1))]
    pub catalog_name: String,
    /// Further catalog and storage properties, such as `s3.endpoint`. Values are treated as
    /// secrets, since many hold one.
    pub catalog_properties: BTreeMap<String, Secret>,
    /// Where the files go: `file:///…` or `s3://…`.
    #[schemars(length(min = 1))]
    pub warehouse: String,
    /// Namespace of the table in the catalog.
    #[schemars(length(min = 1))]
    pub table_namespace: String,
    /// Name of the table; `{schema}` and `{table}` stand for the source table's.
    #[schemars(length(min = 1))]
    pub table_name: String,
    /// What is written.
    pub write_mode: IcebergWriteMode,
    /// Most records in one snapshot.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub batch_size: u32,
    /// Longest time between two snapshots, in seconds.
    #[schemars(range(min = 0.1, max = 86400.0))]
    pub flush_interval_seconds: f64,
    /// Create the table when it is absent.
    pub auto_create_table: bool,
    /// Partition fields, a column or a transform of one (`day(created_at)`, `bucket(16, id)`).
    pub partition_by: Vec<String>,
}

impl Default for IcebergConfig {
    fn default() -> Self {
        Self {
            catalog_uri: String::new(),
            catalog_name: "default".to_owned(),
            catalog_properties: BTreeMap::new(),
            warehouse: String::new(),
            table_namespace: "default".to_owned(),
            table_name: String::new(),
            write_mode: IcebergWriteMode::Append,
            batch_size: 1000,
            flush_interval_seconds: 10.0,
            auto_create_table: false,
            partition_by: Vec::new(),
        }
    }
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
