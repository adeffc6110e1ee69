//! MySQL and MariaDB as a source.

mod facts;
mod grants;
mod judge;
mod tables;

use cdc_shared::config::{PipelineConfig, SourceConfig, SourceSslMode, SourceType};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError, OptsBuilder, SslOpts};

use super::{Finding, TIMEOUT, address};
use crate::cli::{Exit, Failure};

const ACCESS_DENIED: u16 = 1045;
const ACCESS_DENIED_BY_PLUGIN: u16 = 1698;
const DATABASE_ACCESS_DENIED: u16 = 1044;
const UNKNOWN_DATABASE: u16 = 1049;

/// Connects with the connector's own user. The database need not be named: the tables name theirs.
async fn connect(source: &SourceConfig) -> Result<Conn, Failure> {
    let tls = tls(source);
    let optional = source.ssl.mode == SourceSslMode::Prefer;
    match attempt(source, tls.clone()).await {
        // Encrypted if the server can, as the connector does it.
        Err(Attempt::Refused(Error::Driver(DriverError::NoClientSslFlagFromServer)))
            if optional && tls.is_some() =>
        {
            attempt(source, None).await.map_err(|error| failure(source, error))
        }
        other => other.map_err(|error| failure(source, error)),
    }
}

enum Attempt {
    Refused(Error),
    TimedOut,
}

async fn attempt(source: &SourceConfig, tls: Option<SslOpts>) -> Result<Conn, Attempt> {
    let options = OptsBuilder::default()
        .ip_or_hostname(source.host.clone())
        .tcp_port(source.port)
        .user(Some(source.username.clone()))
        .pass(Some(source.password.expose().to_owned()))
        .prefer_socket(false)
        .ssl_opts(tls);
    match tokio::time::timeout(TIMEOUT, Conn::new(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Attempt::Refused(error)),
        Err(_) => Err(Attempt::TimedOut),
    }
}

/// As the connector encrypts: MariaDB's driver does not for `prefer`. Trust stores are files of the
/// Connect worker that only Java reads; a PEM file that is here as well is used.
fn tls(source: &SourceConfig) -> Option<SslOpts> {
    let mode = source.ssl.mode;
    if mode == SourceSslMode::Disable
        || (mode == SourceSslMode::Prefer && source.source_type == SourceType::Mariadb)
    {
        return None;
    }
    let authority = source.ssl.ca_file.clone().filter(|file| file.exists());
    let verified = matches!(mode, SourceSslMode::VerifyCa | SourceSslMode::VerifyFull);
    Some(
        SslOpts::default()
            .with_root_certs(authority.into_iter().map(Into::into).collect())
            .with_danger_accept_invalid_certs(!verified)
            .with_danger_skip_domain_validation(mode != SourceSslMode::VerifyFull),
    )
}

fn failure(source: &SourceConfig, attempt: Attempt) -> Failure {
    let (name, at) = (product(source.source_type), address(source));
    let reached = "check source.host, source.port and that the server runs";
    match attempt {
        Attempt::TimedOut => Failure::unreachable(name, &at, "timed out").hint(reached),
        Attempt::Refused(Error::Server(error)) => {
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
        Attempt::Refused(Error::Io(error)) if is_tls(&error) => {
            Failure::unreachable(name, &at, &describe(&Error::Io(error))).hint(
                "check source.ssl; from here a server is verified by the system's authorities or \
                 by source.ssl.ca_file",
            )
        }
        Attempt::Refused(error @ Error::Driver(DriverError::NoClientSslFlagFromServer)) => {
            Failure::new(Exit::Config, format!("{name} at {at}: {}", describe(&error)))
                .hint("set source.ssl.mode: disable, or give the server a certificate")
        }
        Attempt::Refused(error) => Failure::unreachable(name, &at, &describe(&error)).hint(reached),
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

/// What an error says to a person: the server's message with its number, or the innermost cause.
fn describe(error: &Error) -> String {
    if let Error::Server(server) = error {
        return format!("{} (error {})", server.message, server.code);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The name that people know it by.
fn product(kind: SourceType) -> &'static str {
    match kind {
        SourceType::Postgres => "PostgreSQL",
        SourceType::Mysql => "MySQL",
        SourceType::Mariadb => "MariaDB",
    }
}

/// An identifier in the servers' own quotes.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `database.table` in quotes.
fn quoted_table(table: &str) -> String {
    let (database, name) = table.split_once('.').unwrap_or(("", table));
    format!("{}.{}", quoted(database), quoted(name))
}

/// Everything that `validate --connect` can say of the source.
pub(super) async fn inspect(config: &PipelineConfig) -> Result<Vec<Finding>, Failure> {
    let mut connection = connect(&config.source).await?;
    let asked = ask(config, &mut connection);
    let (server, tables) = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| unanswered(&error))?,
        Err(_) => {
            return Err(Failure::new(Exit::Unavailable, "the source does not answer in time"));
        }
    };
    // The answers are here; a server that does not say goodbye is no finding.
    let _ = connection.disconnect().await;
    let mut found = judge::server(config, &server);
    for table in &config.source.tables {
        found.extend(tables::judge(config, table, tables.iter().find(|t| &t.name == table)));
    }
    if let Some(table) = &config.source.signal_table {
        found.extend(tables::judge_signal(config, table, &tables));
    }
    Ok(found)
}

async fn ask(
    config: &PipelineConfig,
    connection: &mut Conn,
) -> Result<(facts::Server, Vec<tables::Table>), Error> {
    let server = facts::server(connection).await?;
    let names = config.source.tables.iter().chain(&config.source.signal_table);
    let tables = tables::tables(connection, names).await?;
    Ok((server, tables))
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

    #[test]
    fn names_are_quoted_as_the_servers_do() {
        assert_eq!(quoted_table("shop.a`b.c"), "`shop`.`a``b.c`");
    }

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
