//! Catalogs: who knows a table's current metadata.

mod auth;
mod postgres;
mod rest;
mod sqlite;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cdc_shared::config::IcebergConfig;

pub use self::postgres::PostgresCatalog;
pub use self::rest::RestCatalog;
pub use self::sqlite::SqliteCatalog;
use crate::error::{Kind, LakeError, Result};

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

/// A catalog of one of two kinds.
#[derive(Debug, Clone)]
pub enum Catalog {
    /// We write a table's metadata, and the catalog knows where the current is.
    Pointers(Arc<dyn Pointers>),
    /// It takes what is to change and under which conditions, and writes the metadata itself.
    Rest(Arc<RestCatalog>),
}

impl Catalog {
    /// The catalog that a configuration names. Nothing is opened yet.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(config: &IcebergConfig) -> Result<Self> {
        let scheme = config.catalog_uri.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "sqlite" => {
                let catalog = SqliteCatalog::new(&config.catalog_uri, &config.catalog_name)?;
                Ok(Self::Pointers(Arc::new(catalog)))
            }
            "http" | "https" => Ok(Self::Rest(Arc::new(RestCatalog::new(config)?))),
            // SQLAlchemy names the driver behind a plus.
            scheme if matches!(scheme.split('+').next(), Some("postgresql" | "postgres")) => {
                Ok(Self::Pointers(Arc::new(PostgresCatalog::new(config)?)))
            }
            _ => {
                let message = format!("catalog_uri: there is no catalog of kind `{scheme}`");
                Err(LakeError::new(Kind::Configuration, "configuration", message).hint(
                    "write sqlite:////path/to/catalog.db, postgresql://user@host/database or the \
                     http(s):// address of a REST catalog",
                ))
            }
        }
    }

    /// Where it is, for messages. No secrets.
    pub fn place(&self) -> &str {
        match self {
            Self::Pointers(pointers) => pointers.place(),
            Self::Rest(rest) => rest.place(),
        }
    }

    pub(crate) async fn prove(&self) -> Result<()> {
        match self {
            Self::Pointers(pointers) => pointers.prove().await,
            Self::Rest(rest) => rest.prove().await,
        }
    }

    pub(crate) async fn create_namespace(&self, namespace: &str) -> Result<()> {
        match self {
            Self::Pointers(pointers) => pointers.create_namespace(namespace).await,
            Self::Rest(rest) => rest.create_namespace(namespace).await,
        }
    }
}

/// A catalog in which a commit is the compare-and-set of a table's metadata location.
#[async_trait]
pub trait Pointers: fmt::Debug + Send + Sync {
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
