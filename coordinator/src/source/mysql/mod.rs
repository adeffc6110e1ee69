//! MySQL and MariaDB as a source.

mod changed;
mod facts;
mod grants;
mod judge;
mod tables;

use cdc_shared::config::{PipelineConfig, SourceConfig, SourceType};
use cdc_shared::mysql::{self, ConnectError, describe, quoted_table};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError};

use super::{Finding, TIMEOUT, address};
use crate::cli::{Exit, Failure};

const ACCESS_DENIED: u16 = 1045;
const ACCESS_DENIED_BY_PLUGIN: u16 = 1698;
const DATABASE_ACCESS_DENIED: u16 = 1044;
const UNKNOWN_DATABASE: u16 = 1049;

/// Connects with the connector's own user.
async fn connect(source: &SourceConfig) -> Result<Conn, Failure> {
    mysql::connect(source, TIMEOUT).await.map_err(|error| failure(source, error))
}

fn failure(source: &SourceConfig, attempt: ConnectError) -> Failure {
    let (name, at) = (product(source.source_type), address(source));
    let reached = "check source.host, source.port and that the server runs";
    match attempt {
        ConnectError::TimedOut => Failure::unreachable(name, &at, "timed out").hint(reached),
        ConnectError::Refused(Error::Server(error)) => {
            let said = format!("{} (error {})", error.message, error.code);
            match error.code {
                ACCESS_DENIED | ACCESS_DENIED_BY_PLUGIN => Failure::new(
                    Exit::NoPerm,
                    format!("{name} at {at} refuses user {}: {said}", source.username),
                )
                .hint(
                    "check source.username and source.password, and the user's host on the server",
                ),
                DATABASE_ACCESS_DENIED | UNKNOWN_DATABASE => {
                    Failure::new(Exit::Config, format!("{name} at {at}: {said}"))
                        .hint("check source.database")
                }
                _ => Failure::new(Exit::Unavailable, format!("{name} at {at}: {said}")),
            }
        }
        ConnectError::Refused(Error::Io(error)) if is_tls(&error) => {
            Failure::unreachable(name, &at, &describe(&Error::Io(error))).hint(
                "check source.ssl; from here a server is verified by the system's authorities or \
                 by source.ssl.ca_file",
            )
        }
        ConnectError::Refused(error @ Error::Driver(DriverError::NoClientSslFlagFromServer)) => {
            Failure::new(Exit::Config, format!("{name} at {at}: {}", describe(&error)))
                .hint("set source.ssl.mode: disable, or give the server a certificate")
        }
        ConnectError::Refused(error) => {
            Failure::unreachable(name, &at, &describe(&error)).hint(reached)
        }
    }
}

/// Whether encryption failed rather than the connection: rustls speaks of data that is not valid.
fn is_tls(error: &IoError) -> bool {
    match error {
        IoError::Tls(_) => true,
        IoError::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
    }
}

/// A question that went wrong.
fn unanswered(error: &Error) -> Failure {
    Failure::new(Exit::Software, format!("the source does not answer: {}", describe(error)))
}

/// The name that people know it by.
fn product(kind: SourceType) -> &'static str {
    match kind {
        SourceType::Postgres => "PostgreSQL",
        SourceType::Mysql => "MySQL",
        SourceType::Mariadb => "MariaDB",
    }
}

/// Everything that `validate --connect` can say of the source.
pub(super) async fn inspect(config: &PipelineConfig) -> Result<Vec<Finding>, Failure> {
    let mut connection = connect(&config.source).await?;
    let asked = ask(config, &mut connection);
    let (server, tables, unreadable) = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| unanswered(&error))?,
        Err(_) => {
            return Err(Failure::new(Exit::Unavailable, "the source does not answer in time"));
        }
    };
    // The answers are here; a server that does not say goodbye is no finding.
    let _ = connection.disconnect().await;
    let mut found = judge::server(config, &server);
    for name in &config.source.tables {
        let table = tables.iter().find(|table| &table.name == name);
        found.extend(tables::judge(config, name, table));
        let version = server.setting("version").unwrap_or_default();
        found.extend(table.and_then(|table| changed::miscounted_years(version, table)));
    }
    found.extend(changed::unreadable(config, &unreadable));
    found.extend(changed::zero_dates(server.setting("sql_mode").unwrap_or_default(), &tables));
    if let Some(table) = &config.source.signal_table {
        found.extend(tables::judge_signal(config, table, &tables));
    }
    Ok(found)
}

async fn ask(
    config: &PipelineConfig,
    connection: &mut Conn,
) -> Result<(facts::Server, Vec<tables::Table>, Vec<String>), Error> {
    let server = facts::server(connection).await?;
    let names = config.source.tables.iter().chain(&config.source.signal_table);
    let tables = tables::tables(connection, names).await?;
    let unreadable = match config.source.source_type {
        SourceType::Mariadb => tables::unreadable(connection).await?,
        _ => Vec::new(),
    };
    Ok((server, tables, unreadable))
}

/// See [`super::generated_columns`].
pub(super) async fn generated_columns(
    source: &SourceConfig,
    names: &[String],
) -> Result<Vec<String>, Failure> {
    let mut connection = connect(source).await?;
    let found = tables::generated_columns(&mut connection, names).await;
    let _ = connection.disconnect().await;
    found.map_err(|error| unanswered(&error))
}

/// Writes a row into the signal table.
pub(super) async fn signal(
    source: &SourceConfig,
    table: &str,
    row: [&str; 3],
) -> Result<(), Failure> {
    let mut connection = connect(source).await?;
    let statement = format!("INSERT INTO {} VALUES (?, ?, ?)", quoted_table(table));
    let written = connection.exec_drop(statement, row.to_vec()).await;
    let _ = connection.disconnect().await;
    written.map_err(|error| Failure::new(Exit::Data, describe(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreachable_server_is_named() {
        let source = SourceConfig {
            source_type: SourceType::Mysql,
            host: "127.0.0.1".into(),
            port: 1,
            ..SourceConfig::default()
        };
        let failure = connect(&source).await.map(drop).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.message.starts_with("cannot reach MySQL at 127.0.0.1:1: "), "{failure}");
    }
}
