//! The SQL catalog in a PostgreSQL database, with the tables and rows of PyIceberg's `SqlCatalog` and
//! Iceberg's `JdbcCatalog`.

use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::{IcebergConfig, Secret, SslMode, TlsConfig};
use cdc_shared::postgres::{MakeRustlsConnect, PostgresTls, describe};
use reqwest::Url;
use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::sqlite::TABLES;
use super::{Pointers, TableName};
use crate::error::{Kind, LakeError, Result};

/// How long a statement may take, its connection included.
const PATIENCE: Duration = Duration::from_secs(30);

/// "Durable" would be a lie with it off.
const SESSION: &str = "SELECT set_config('synchronous_commit', 'on', false) \
                       WHERE current_setting('synchronous_commit') = 'off'";

/// See the module.
pub struct PostgresCatalog {
    name: String,
    config: tokio_postgres::Config,
    connector: MakeRustlsConnect,
    place: String,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for PostgresCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresCatalog").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Texts that go into a statement.
type Values<'v> = &'v [&'v str];

impl PostgresCatalog {
    /// The catalog of a configuration: `postgresql://user:password@host:port/database`, with
    /// `sslmode`, `sslrootcert`, `sslcert` and `sslkey` as libpq has them; user and password may
    /// stand in the properties instead.
    ///
    /// # Errors
    /// An address or TLS files that cannot be used.
    pub fn new(config: &IcebergConfig) -> Result<Self> {
        let refused = |message: String| {
            let message = format!("catalog_uri: {message}");
            LakeError::new(Kind::Configuration, "configuration", message)
                .hint("write postgresql://user@host:5432/database?sslmode=verify-full")
        };
        let (_, rest) = config.catalog_uri.split_once("://").unwrap_or_default();
        let url = Url::parse(&format!("postgresql://{rest}"));
        let mut url = url.map_err(|_| refused("is no address".to_owned()))?;
        let tls = tls(&mut url, &config.tls).map_err(refused)?;
        let client = client(&url, config).map_err(refused)?;
        let (mode, connector) = tls.connector().map_err(|error| refused(error.to_string()))?;
        let mut client = client;
        client.ssl_mode(mode);
        let port = url.port().unwrap_or(5432);
        let host = url.host_str().unwrap_or_default();
        Ok(Self {
            name: config.catalog_name.clone(),
            config: client,
            connector,
            place: format!("postgresql://{host}:{port}{}", url.path()),
            client: Mutex::default(),
        })
    }

    /// Runs a statement. `changes`: it may be done though the answer is an error.
    async fn run(&self, changes: bool, sql: &str, values: Values<'_>) -> Result<Vec<Row>> {
        let mut held = self.client.lock().await;
        let ran = tokio::time::timeout(PATIENCE, async {
            let client = match held.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let values: Vec<(&(dyn ToSql + Sync), Type)> =
                values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::VARCHAR)).collect();
            match client.query_typed(sql, &values).await {
                Ok(rows) => {
                    *held = Some(client);
                    Ok(rows)
                }
                Err(error) => Err(self.failed(changes, error)),
            }
        });
        ran.await.unwrap_or_else(|_| {
            let message = format!("catalog {}: no answer within {PATIENCE:?}", self.place);
            Err(if changes {
                LakeError::new(Kind::Unknown, "commit_unknown", message)
            } else {
                LakeError::new(Kind::Unavailable, "catalog_unavailable", message)
            })
        })
    }

    async fn connect(&self) -> Result<Client> {
        let connected = self.config.connect(self.connector.clone()).await;
        let (client, connection) = connected.map_err(|error| self.failed(false, error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the catalog's connection ended");
            }
        });
        client.batch_execute(SESSION).await.map_err(|error| self.failed(false, error))?;
        Ok(client)
    }

    /// What the server itself refuses has changed nothing, unless it was about to end.
    fn failed(&self, changes: bool, error: tokio_postgres::Error) -> LakeError {
        let message = format!("catalog {}: {}", self.place, describe(&error));
        let state = error.code().map(|state| state.code().to_owned()).unwrap_or_default();
        let is_sure =
            error.as_db_error().is_some() && ![Some("08"), Some("57")].contains(&state.get(..2));
        if changes && !is_sure {
            let unknown = LakeError::new(Kind::Unknown, "commit_unknown", message);
            return LakeError { source: Some(Box::new(error)), ..unknown };
        }
        let (code, hint) = match state.as_str() {
            "28P01" | "28000" => {
                ("catalog_unauthorized", "correct user and password of catalog_uri".to_owned())
            }
            "3D000" => {
                ("catalog_database_missing", "create the database, or correct catalog_uri".into())
            }
            "42501" => (
                "catalog_denied",
                "let the catalog's user create tables once, or create iceberg_tables and \
                 iceberg_namespace_properties for it and grant SELECT, INSERT and UPDATE on them"
                    .to_owned(),
            ),
            _ => ("catalog_unavailable", format!("see whether {} answers", self.place)),
        };
        let told = LakeError::new(Kind::Unavailable, code, message).hint(hint);
        LakeError { source: Some(Box::new(error)), ..told }
    }

    /// Whether a relation has a column.
    async fn has_types(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('iceberg_tables') \
                   AND attname = 'iceberg_type' AND NOT attisdropped";
        Ok(!self.run(false, sql, &[]).await?.is_empty())
    }
}

/// Takes the settings of TLS out of the address.
fn tls(url: &mut Url, usual: &TlsConfig) -> std::result::Result<PostgresTls, String> {
    let mut mode = SslMode::default();
    let mut tls = usual.clone();
    let mut others = Vec::new();
    for (name, value) in url.query_pairs() {
        match (&*name, &*value) {
            ("sslmode", "disable") => mode = SslMode::Disable,
            ("sslmode", "prefer" | "allow") => mode = SslMode::Prefer,
            ("sslmode", "require") => mode = SslMode::Require,
            ("sslmode", "verify-ca") => mode = SslMode::VerifyCa,
            ("sslmode", "verify-full") => mode = SslMode::VerifyFull,
            ("sslmode", other) => return Err(format!("there is no sslmode `{other}`")),
            ("sslrootcert", file) => tls.ca_file = Some(file.into()),
            ("sslcert", file) => tls.cert_file = Some(file.into()),
            ("sslkey", file) => tls.key_file = Some(file.into()),
            _ => others.push((name.into_owned(), value.into_owned())),
        }
    }
    url.set_query(None);
    if !others.is_empty() {
        url.query_pairs_mut().extend_pairs(others);
    }
    Ok(PostgresTls { mode, tls })
}

fn client(
    url: &Url,
    config: &IcebergConfig,
) -> std::result::Result<tokio_postgres::Config, String> {
    let mut client: tokio_postgres::Config = url
        .as_str()
        .parse()
        .map_err(|error: tokio_postgres::Error| cdc_shared::error::innermost(&error).to_string())?;
    let property = |name: &str| config.catalog_properties.get(name).map(Secret::expose);
    if let Some(user) = property("user") {
        client.user(user);
    }
    if let Some(password) = property("password") {
        client.password(password);
    }
    if client.get_application_name().is_none() {
        client.application_name("cdc-worker");
    }
    if client.get_dbname().is_none() || client.get_hosts().is_empty() {
        return Err("names no host or no database".to_owned());
    }
    if client.get_user().is_none() {
        return Err("names no user".to_owned());
    }
    client.connect_timeout(Duration::from_secs(10)).tcp_user_timeout(PATIENCE);
    Ok(client)
}

#[async_trait]
impl Pointers for PostgresCatalog {
    fn place(&self) -> &str {
        &self.place
    }

    async fn prove(&self) -> Result<()> {
        let sql = "SELECT 1 WHERE to_regclass('iceberg_tables') IS NOT NULL \
                   AND to_regclass('iceberg_namespace_properties') IS NOT NULL";
        if !self.run(false, sql, &[]).await?.is_empty() {
            return Ok(());
        }
        for table in TABLES.split_inclusive(';').filter(|table| table.contains("CREATE")) {
            // Two that make it at the same time get in each other's way once.
            if self.run(false, table, &[]).await.is_err() {
                self.run(false, table, &[]).await?;
            }
        }
        Ok(())
    }

    async fn create_namespace(&self, namespace: &str) -> Result<()> {
        let sql = "INSERT INTO iceberg_namespace_properties \
                   (catalog_name, namespace, property_key, property_value) \
                   VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING";
        self.run(false, sql, &[&self.name, namespace]).await.map(drop)
    }

    async fn current(&self, table: &TableName) -> Result<Option<String>> {
        let sql = "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 \
                   AND table_namespace = $2 AND table_name = $3";
        let rows = self.run(false, sql, &[&self.name, &table.namespace, &table.table]).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    async fn create(&self, table: &TableName, location: &str) -> Result<bool> {
        let values: Values<'_> = &[&self.name, &table.namespace, &table.table, location];
        let (column, value) =
            if self.has_types().await? { (", iceberg_type", ", 'TABLE'") } else { ("", "") };
        let sql = format!(
            "INSERT INTO iceberg_tables \
             (catalog_name, table_namespace, table_name, metadata_location{column}) \
             VALUES ($1, $2, $3, $4{value}) ON CONFLICT DO NOTHING RETURNING 1"
        );
        Ok(!self.run(true, &sql, values).await?.is_empty())
    }

    async fn swap(&self, table: &TableName, from: &str, to: &str) -> Result<bool> {
        let sql = "UPDATE iceberg_tables SET metadata_location = $1, \
                   previous_metadata_location = $2 WHERE catalog_name = $3 \
                   AND table_namespace = $4 AND table_name = $5 AND metadata_location = $2 \
                   RETURNING 1";
        let values: Values<'_> = &[to, from, &self.name, &table.namespace, &table.table];
        Ok(!self.run(true, sql, values).await?.is_empty())
    }
}
