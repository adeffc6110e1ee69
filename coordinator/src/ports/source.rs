//! The source database, as far as a replication slot can fill its disk.

use std::time::Duration;

use cdc_shared::config::{SourceConfig, SourceType};
use cdc_shared::postgres::{PostgresTls, base_config, describe};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const QUERY: &str = "SELECT active, wal_status, CASE WHEN pg_is_in_recovery() THEN NULL ELSE \
     pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END \
     FROM pg_replication_slots WHERE slot_name = $1";

/// State of the pipeline's replication slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Whether the connector reads from it.
    pub active: bool,
    /// `reserved, extended, unreserved, lost`.
    pub wal_status: Option<String>,
    /// WAL that the source keeps for it.
    pub retained_bytes: Option<i64>,
}

/// The slot of a PostgreSQL source: `None` when there is none by its name.
///
/// # Errors
/// One line with the address and the cause.
pub async fn slot(source: &SourceConfig) -> Result<Option<Slot>, String> {
    let failed = |what: String| format!("source {}:{}: {what}", source.host, source.port);
    let (mode, tls) =
        PostgresTls::of_source(source).connector().map_err(|error| failed(error.to_string()))?;
    let mut config = base_config(
        &source.host,
        source.port,
        &source.database,
        &source.username,
        source.password.expose(),
        "cdc-coordinator",
        CONNECT_TIMEOUT,
    );
    config.ssl_mode(mode);
    let (client, connection) =
        config.connect(tls).await.map_err(|error| failed(describe(&error)))?;
    let driver = tokio::spawn(connection);
    let row = client.query_opt(QUERY, &[&source.slot_name]).await;
    drop(client);
    driver.abort();
    let row = row.map_err(|error| failed(describe(&error)))?;
    Ok(row.map(|row| Slot {
        active: row.get(0),
        wal_status: row.get(1),
        retained_bytes: row.get(2),
    }))
}

/// Whether this kind of source has slots.
pub fn has_slot(source: &SourceConfig) -> bool {
    source.source_type == SourceType::Postgres
}
