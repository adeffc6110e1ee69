//! The SQL catalog in a SQLite file, with the tables and rows of PyIceberg's `SqlCatalog` and
//! Iceberg's `JdbcCatalog`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{Pointers, TableName};
use crate::error::{Kind, LakeError, Result};

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// The tables, as every SQL catalog has them.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS iceberg_tables (
        catalog_name VARCHAR(255) NOT NULL,
        table_namespace VARCHAR(255) NOT NULL,
        table_name VARCHAR(255) NOT NULL,
        metadata_location VARCHAR(1000),
        previous_metadata_location VARCHAR(1000),
        iceberg_type VARCHAR(5),
        PRIMARY KEY (catalog_name, table_namespace, table_name)
    );
    CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
        catalog_name VARCHAR(255) NOT NULL,
        namespace VARCHAR(255) NOT NULL,
        property_key VARCHAR(255) NOT NULL,
        property_value VARCHAR(1000) NOT NULL,
        PRIMARY KEY (catalog_name, namespace, property_key)
    );";

/// See the module.
#[derive(Debug, Clone)]
pub struct SqliteCatalog {
    name: String,
    file: PathBuf,
    place: String,
}

impl SqliteCatalog {
    /// The catalog of that name in a file, by SQLAlchemy's form of it: `sqlite:///relative.db`,
    /// `sqlite:////absolute.db`.
    ///
    /// # Errors
    /// A URI that names no file.
    pub fn new(uri: &str, name: &str) -> Result<Self> {
        let file = uri
            .strip_prefix("sqlite:///")
            .filter(|file| !file.is_empty() && *file != ":memory:" && !file.contains('?'));
        let Some(file) = file else {
            let message = format!("catalog_uri: `{uri}` names no file of SQLite");
            let error = LakeError::new(Kind::Configuration, "configuration", message);
            return Err(error.hint("write sqlite:////path/to/catalog.db"));
        };
        Ok(Self { name: name.to_owned(), file: PathBuf::from(file), place: uri.to_owned() })
    }

    /// Runs statements on a connection of their own. `changes`: what `work` does may be done though
    /// the answer is an error.
    async fn run<T: Send + 'static>(
        &self,
        create: bool,
        changes: bool,
        work: impl FnOnce(&Connection, &str) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let catalog = self.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let connection = catalog.open(create)?;
            work(&connection, &catalog.name).map_err(|error| catalog.failed(changes, error))
        });
        ran.await.map_err(|error| LakeError::internal("a statement of the catalog", error))?
    }

    fn open(&self, create: bool) -> Result<Connection> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            if let Some(folder) = self.file.parent() {
                std::fs::create_dir_all(folder).map_err(|error| {
                    let message = format!("making the folder of catalog {}", self.place);
                    Self::unavailable(message).caused_by(error)
                })?;
            }
        }
        let opened = Connection::open_with_flags(&self.file, flags).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            Ok(connection)
        });
        opened.map_err(|error| self.failed(false, error))
    }

    fn unavailable(message: String) -> LakeError {
        LakeError::new(Kind::Unavailable, "catalog_unavailable", message)
            .hint("make the catalog's file readable and writable for the worker")
    }

    /// What is known for sure to have changed nothing is no unknown outcome.
    fn failed(&self, changes: bool, error: rusqlite::Error) -> LakeError {
        use rusqlite::ErrorCode as Code;
        let message = format!("catalog {}", self.place);
        let refused = matches!(
            error.sqlite_error_code(),
            Some(
                Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::CannotOpen
                    | Code::ReadOnly
                    | Code::PermissionDenied
                    | Code::NotADatabase
                    | Code::AuthorizationForStatementDenied
            )
        );
        if changes && !refused {
            let unknown = LakeError::new(Kind::Unknown, "commit_unknown", message);
            return unknown.caused_by(error);
        }
        Self::unavailable(message).caused_by(error)
    }
}

#[async_trait]
impl Pointers for SqliteCatalog {
    fn place(&self) -> &str {
        &self.place
    }

    async fn prove(&self) -> Result<()> {
        self.run(true, false, |connection, _| {
            connection.execute_batch(TABLES)?;
            // A catalog of the first version has no types of tables, and needs none.
            Ok(())
        })
        .await
    }

    async fn create_namespace(&self, namespace: &str) -> Result<()> {
        let namespace = namespace.to_owned();
        self.run(false, false, move |connection, catalog| {
            let sql = "INSERT OR IGNORE INTO iceberg_namespace_properties \
                       (catalog_name, namespace, property_key, property_value) \
                       VALUES (?1, ?2, 'exists', 'true')";
            connection.execute(sql, params![catalog, namespace]).map(|_| ())
        })
        .await
    }

    async fn current(&self, table: &TableName) -> Result<Option<String>> {
        let table = table.clone();
        self.run(false, false, move |connection, catalog| {
            let sql = "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ?1 \
                       AND table_namespace = ?2 AND table_name = ?3";
            connection
                .query_row(sql, params![catalog, table.namespace, table.table], |row| row.get(0))
                .optional()
                .map(Option::flatten)
        })
        .await
    }

    async fn create(&self, table: &TableName, location: &str) -> Result<bool> {
        let (table, location) = (table.clone(), location.to_owned());
        self.run(false, true, move |connection, catalog| {
            let sql = "INSERT OR IGNORE INTO iceberg_tables \
                       (catalog_name, table_namespace, table_name, metadata_location) \
                       VALUES (?1, ?2, ?3, ?4)";
            let values = params![catalog, table.namespace, table.table, location];
            let added = connection.execute(sql, values)? == 1;
            let typed = connection.prepare("SELECT iceberg_type FROM iceberg_tables LIMIT 0");
            if added && typed.is_ok() {
                let sql = "UPDATE iceberg_tables SET iceberg_type = 'TABLE' WHERE \
                           catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3";
                connection.execute(sql, params![catalog, table.namespace, table.table])?;
            }
            Ok(added)
        })
        .await
    }

    async fn swap(&self, table: &TableName, from: &str, to: &str) -> Result<bool> {
        let (table, from, to) = (table.clone(), from.to_owned(), to.to_owned());
        self.run(false, true, move |connection, catalog| {
            let sql = "UPDATE iceberg_tables SET metadata_location = ?1, \
                       previous_metadata_location = ?2 WHERE catalog_name = ?3 \
                       AND table_namespace = ?4 AND table_name = ?5 AND metadata_location = ?2";
            let values = params![to, from, catalog, table.namespace, table.table];
            connection.execute(sql, values).map(|rows| rows == 1)
        })
        .await
    }
}
