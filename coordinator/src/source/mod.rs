//! The source database, asked before a connector is.

mod changed;
mod facts;
mod finding;
mod judge;
mod tables;
mod types;

use std::time::Duration;

use cdc_shared::config::{
    PipelineConfig, SourceConfig, SourceSslMode, SourceType, SslMode, TlsConfig,
};
use cdc_shared::postgres::{PostgresTls, base_config, describe};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

pub use facts::{Publication, Server, Slot};
pub use finding::{Finding, Level};
pub(crate) use judge::{bytes, foreign_slot};

use crate::cli::{Exit, Failure};

/// Longest time for a connection attempt or one question.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to a PostgreSQL source with the connector's own user.
///
/// # Errors
/// The address, user or database by name, and what the server said.
pub async fn connect(source: &SourceConfig) -> Result<Client, Failure> {
    let (wire, tls) = source_tls(source)
        .connector()
        .map_err(|e| Failure::new(Exit::Config, format!("source.ssl: {e}")))?;
    let mut config = base_config(
        &source.host,
        source.port,
        &source.database,
        &source.username,
        source.password.expose(),
        "cdc",
        TIMEOUT,
    );
    config.ssl_mode(wire).options("-c statement_timeout=10000");
    let attempt = tokio::time::timeout(TIMEOUT, config.connect(tls)).await;
    let (client, connection) = match attempt {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return Err(refused(source, &error)),
        Err(_) => {
            return Err(Failure::unreachable("PostgreSQL", &address(source), "timed out")
                .hint("check source.host and source.port"));
        }
    };
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "source connection ended");
        }
    });
    Ok(client)
}

/// Certificates are files of the Connect worker; those that are here as well are used.
pub(crate) fn source_tls(source: &SourceConfig) -> PostgresTls {
    let mode = match source.ssl.mode {
        SourceSslMode::Disable => SslMode::Disable,
        SourceSslMode::Prefer => SslMode::Prefer,
        SourceSslMode::Require => SslMode::Require,
        SourceSslMode::VerifyCa => SslMode::VerifyCa,
        SourceSslMode::VerifyFull => SslMode::VerifyFull,
    };
    let ca_file = source.ssl.ca_file.clone().filter(|file| file.exists());
    PostgresTls { mode, tls: TlsConfig { ca_file, ..TlsConfig::default() } }
}

fn address(source: &SourceConfig) -> String {
    format!("{}:{}", source.host, source.port)
}

fn refused(source: &SourceConfig, error: &tokio_postgres::Error) -> Failure {
    let at = address(source);
    let said = describe(error);
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            let user = &source.username;
            Failure::new(Exit::NoPerm, format!("PostgreSQL at {at} refuses user {user}: {said}"))
                .hint("check source.username and source.password, and pg_hba.conf of the server")
        }
        Some(&SqlState::INVALID_CATALOG_NAME) => {
            Failure::new(Exit::Config, format!("PostgreSQL at {at}: {said}"))
                .hint("check source.database")
        }
        Some(_) => Failure::new(Exit::Unavailable, format!("PostgreSQL at {at}: {said}")),
        None => Failure::unreachable("PostgreSQL", &at, &said)
            .hint("check source.host, source.port and that the server runs"),
    }
}

/// A question that went wrong.
fn unanswered(error: &tokio_postgres::Error) -> Failure {
    Failure::new(Exit::Software, format!("the source does not answer: {}", describe(error)))
}

/// Everything that `validate --connect` can say of the source.
///
/// # Errors
/// The source cannot be reached, refuses us, or does not answer.
pub async fn inspect(config: &PipelineConfig) -> Result<Vec<Finding>, Failure> {
    if config.source.source_type != SourceType::Postgres {
        return reachable(&config.source).await;
    }
    let client = connect(&config.source).await?;
    let server = facts::server(&client).await.map_err(|e| unanswered(&e))?;
    let slot = facts::slot(&client, &config.source.slot_name).await.map_err(|e| unanswered(&e))?;
    let publication = facts::publication(&client, &config.source.publication(&config.pipeline_id))
        .await
        .map_err(|e| unanswered(&e))?;
    let tables =
        tables::tables(&client, &config.source.tables).await.map_err(|e| unanswered(&e))?;
    let mut found = judge::server(config, &server);
    found.extend(judge::slot(config, &server, slot.as_ref()));
    found.extend(judge::publication(config, &server, publication.as_ref(), &tables));
    for table in &config.source.tables {
        found.extend(tables::judge(config, table, tables.iter().find(|t| &t.name == table)));
    }
    Ok(found)
}

/// State of our slot and publication, for `deploy` and `undeploy`.
///
/// # Errors
/// The source cannot be reached, refuses us, or does not answer.
pub async fn slot_and_publication(
    config: &PipelineConfig,
) -> Result<(Option<Slot>, Option<Publication>), Failure> {
    let client = connect(&config.source).await?;
    let publication = config.source.publication(&config.pipeline_id);
    Ok((
        facts::slot(&client, &config.source.slot_name).await.map_err(|e| unanswered(&e))?,
        facts::publication(&client, &publication).await.map_err(|e| unanswered(&e))?,
    ))
}

/// Drops a slot that nobody uses.
///
/// # Errors
/// The source cannot be reached, or says why it keeps the slot.
pub async fn drop_slot(source: &SourceConfig, name: &str) -> Result<(), Failure> {
    let client = connect(source).await?;
    client
        .execute("SELECT pg_drop_replication_slot($1)", &[&name])
        .await
        .map(drop)
        .map_err(|e| Failure::new(Exit::TempFail, format!("drop slot {name}: {}", describe(&e))))
}

/// For MySQL and MariaDB this program has no client: only the address is tried, the rest is asked
/// of the connector when it is deployed.
async fn reachable(source: &SourceConfig) -> Result<Vec<Finding>, Failure> {
    let name = source.source_type.name();
    let at = address(source);
    let attempt = tokio::time::timeout(TIMEOUT, tokio::net::TcpStream::connect(&at)).await;
    let cause = match attempt {
        Ok(Ok(_)) => {
            return Ok(vec![
                Finding::ok(format!("{name} at {at} accepts connections")),
                Finding::info(format!(
                    "{name}: only the address was tried from here; rights, binlog settings and \
                     tables are checked by the connector when it is deployed"
                )),
            ]);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "timed out".to_owned(),
    };
    Err(Failure::unreachable(name, &at, &cause).hint("check source.host and source.port"))
}
