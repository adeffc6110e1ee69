//! A PostgreSQL server, of the mirror or of the source: a session in which equal values have equal texts.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::SourceConfig;
use cdc_shared::postgres::{MakeRustlsConnect, PostgresTls, base_config, describe};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::failure::{self, TaskFailure};
use super::plan::SidePlan;
use super::query::{Key, Range};
use super::rows::{Chunk, Look, Rows, Version};

/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Oldest server whose texts of floating-point numbers are exact and short.
const OLDEST: i32 = 120_000;

/// Whatever decides how a value is written, and what a session may do.
const SESSION: &str = "\
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; \
SET xmlbinary = 'base64'; SET xmloption = 'content'; SET search_path = pg_catalog; \
SET row_security = off; SET client_min_messages = warning; SET lock_timeout = '10s'; \
SET statement_timeout = '15min'; SET idle_in_transaction_session_timeout = '60s'; \
SET default_transaction_isolation = 'read committed'; SET synchronous_commit = 'local'";

/// A connected side.
#[derive(Debug)]
pub(in crate::sink) struct Side {
    pub(in crate::sink) client: Client,
    /// Server and database, for messages.
    pub(in crate::sink) place: String,
}

impl Drop for Side {
    fn drop(&mut self) {
        // A task that was called off must not leave its statement running.
        let token = self.client.cancel_token();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Without TLS: a server takes a cancel request on any connection.
                let _ = tokio::time::timeout(CONNECT, token.cancel_query(NoTls)).await;
            });
        }
    }
}

impl Side {
    /// Connects to the source.
    ///
    /// # Errors
    /// The address and what it said.
    pub(in crate::sink) async fn source(source: &SourceConfig) -> Result<Self, TaskFailure> {
        let place = format!("source {}:{}/{}", source.host, source.port, source.database);
        let tls = PostgresTls::of_source(source);
        let (mode, tls) =
            tls.connector().map_err(|error| TaskFailure::failed(format!("source.ssl: {error}")))?;
        let mut config = base_config(source, "cdc-worker/verify", CONNECT);
        config.ssl_mode(mode);
        Self::connect(&config, tls, place).await
    }

    /// Connects.
    ///
    /// # Errors
    /// The address and what it said.
    pub(in crate::sink) async fn connect(
        config: &Config,
        tls: MakeRustlsConnect,
        place: String,
    ) -> Result<Self, TaskFailure> {
        let failed = |said: String| TaskFailure::failed(format!("connect to {place}: {said}"));
        let attempt = tokio::time::timeout(CONNECT, config.connect(tls)).await;
        let (client, connection) = attempt
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(describe(&error)))?;
        // It ends with the client; what went wrong shows in the next question.
        tokio::spawn(connection);
        client.batch_execute(SESSION).await.map_err(|error| failed(describe(&error)))?;
        let version = client
            .query_one("SELECT current_setting('server_version_num')::int4", &[])
            .await
            .map_err(|error| failed(describe(&error)))?;
        if version.get::<_, i32>(0) < OLDEST {
            return Err(failed("PostgreSQL 12 or later is needed".to_owned()));
        }
        Ok(Self { client, place })
    }

    /// A question with its rows.
    pub(in crate::sink) async fn ask(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, TaskFailure> {
        let failed = |error| failure::database(&self.place, doing, &error);
        self.client.query(sql, parameters).await.map_err(failed)
    }
}

/// A table of a PostgreSQL server that is compared.
pub(in crate::sink) struct PostgresRows<'s> {
    pub(in crate::sink) side: &'s Side,
    pub(in crate::sink) plan: SidePlan,
}

#[async_trait]
impl Rows for PostgresRows<'_> {
    async fn chunk(&self, range: &Range<'_>, limit: usize) -> Result<Chunk, TaskFailure> {
        let doing = format!("read {}", self.plan.table);
        let sql = self.plan.chunk(range, limit);
        let rows = self.side.ask(&doing, &sql, &range.parameters()).await?;
        let Some(row) = rows.first() else { return Err(TaskFailure::failed(doing)) };
        let count: i64 = row.get(0);
        Ok(Chunk { rows: count as u64, hash: row.get(1), last: row.get(2) })
    }

    async fn rows(&self, range: &Range<'_>, limit: usize) -> Result<Vec<(Key, i64)>, TaskFailure> {
        let doing = format!("read {}", self.plan.table);
        let sql = self.plan.rows(range, limit);
        let rows = self.side.ask(&doing, &sql, &range.parameters()).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

#[async_trait]
impl Look for PostgresRows<'_> {
    async fn look_up(&self, keys: &[&Key]) -> Result<HashMap<usize, Version>, TaskFailure> {
        let doing = format!("read keys of {}", self.plan.table);
        let arrays = columns(keys, self.plan.key.len());
        let rows = self.side.ask(&doing, &self.plan.looked_up(), &borrowed(&arrays)).await?;
        let found = rows.iter().map(|row| {
            let place = row.get::<_, i64>(0) as usize - 1;
            (
                place,
                Version { version: row.get(1), cells: row.get(2), copies: 1, unknown: Vec::new() },
            )
        });
        Ok(found.collect())
    }

    async fn values(
        &self,
        keys: &[&Key],
        longest: usize,
    ) -> Result<HashMap<usize, Vec<Option<String>>>, TaskFailure> {
        let doing = format!("read values of {}", self.plan.table);
        let arrays = columns(keys, self.plan.key.len());
        let rows = self.side.ask(&doing, &self.plan.values(longest), &borrowed(&arrays)).await?;
        Ok(rows.iter().map(|row| (row.get::<_, i64>(0) as usize - 1, row.get(1))).collect())
    }

    /// A row's version tells whether it was written.
    fn looks(&self) -> u8 {
        2
    }
}

/// Keys as one array per column.
pub(in crate::sink) fn columns<'k>(keys: &[&'k Key], width: usize) -> Vec<Vec<&'k str>> {
    (0..width)
        .map(|column| keys.iter().map(|key| key.get(column).map_or("", String::as_str)).collect())
        .collect()
}

/// The arrays as parameters.
pub(in crate::sink) fn borrowed<'a>(arrays: &'a [Vec<&'a str>]) -> Vec<&'a (dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
}
