//! Catalogs: who knows which metadata file is a table's current one.

mod sqlite;

use std::fmt;

use async_trait::async_trait;

pub use self::sqlite::SqliteCatalog;
use crate::error::Result;

/// Name of a table in a catalog.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TableName {
    /// Namespace, its levels separated by dots.
    pub namespace: String,
    /// Table.
    pub table: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.table)
    }
}

/// A catalog in which a commit is the compare-and-set of a table's metadata location.
#[async_trait]
pub trait Catalog: fmt::Debug + Send + Sync {
    /// Where it is, for messages. No secrets.
    fn place(&self) -> &str;

    /// Reaches it and makes what it needs. A repetition does no harm.
    async fn prove(&self) -> Result<()>;

    /// Makes a namespace that is not there.
    async fn create_namespace(&self, namespace: &str) -> Result<()>;

    /// Where a table's current metadata is; `None` when there is no such table.
    async fn current(&self, table: &TableName) -> Result<Option<String>>;

    /// Adds a table. `false`: another one of that name is there.
    async fn create(&self, table: &TableName, location: &str) -> Result<bool>;

    /// Moves a table from one metadata location to another. `false`: it was not at `from`.
    async fn swap(&self, table: &TableName, from: &str, to: &str) -> Result<bool>;
}
