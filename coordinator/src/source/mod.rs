//! The source database, asked before a connector is.

mod changed;
mod facts;
mod finding;
mod judge;
mod mysql;
mod tables;
mod types;

use std::time::Duration;

use cdc_shared::config::{PipelineConfig, SourceConfig, SourceType};
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
    let (wire, tls) = PostgresTls::of_source(source)
        .connector()
        .map_err(|e| Failure::new(Exit::Config, format!("source.ssl: {e}")))?;
    let mut config = base_config(source, "cdc", TIMEOUT);
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
        return mysql::inspect(config).await;
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

/// The generated columns of tables, as `schema.table.column`. Those of a key are not among them: a
/// record without its key would be none.
///
/// # Errors
/// The source cannot be reached, refuses us, or does not answer.
pub async fn generated_columns(
    config: &PipelineConfig,
    tables: &[String],
) -> Result<Vec<String>, Failure> {
    if config.source.source_type != SourceType::Postgres {
        return mysql::generated_columns(&config.source, tables).await;
    }
    let client = connect(&config.source).await?;
    tables::generated_columns(&client, tables).await.map_err(|e| unanswered(&e))
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

/// Writes a row into the signal table, which asks the connector for something.
///
/// # Errors
/// The source cannot be reached, refuses us, or does not take the row.
pub async fn signal(source: &SourceConfig, table: &str, row: [&str; 3]) -> Result<(), Failure> {
    let written = if source.source_type == SourceType::Postgres {
        signal_by_postgres(source, table, row).await
    } else {
        mysql::signal(source, table, row).await
    };
    written.map_err(|failure| match failure.exit {
        Exit::Data => {
            Failure::new(Exit::Config, format!("write a signal to {table}: {}", failure.message))
                .hint(
                    "the table needs the columns id, type, data, all text, and our right to insert",
                )
        }
        _ => failure,
    })
}

async fn signal_by_postgres(
    source: &SourceConfig,
    table: &str,
    [id, kind, data]: [&str; 3],
) -> Result<(), Failure> {
    let client = connect(source).await?;
    let quoted: Vec<String> =
        table.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    let statement = format!("INSERT INTO {} VALUES ($1, $2, $3)", quoted.join("."));
    let written = client.execute(&statement, &[&id, &kind, &data]).await;
    written.map(drop).map_err(|error| Failure::new(Exit::Data, describe(&error)))
}
