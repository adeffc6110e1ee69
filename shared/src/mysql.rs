//! Connecting to MySQL and MariaDB as the connector does.

use std::time::Duration;

use mysql_async::{Conn, DriverError, Error, OptsBuilder, SslOpts};

use crate::config::{SourceConfig, SourceSslMode, SourceType};
use crate::error::innermost;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing came back in time.
    #[error("timed out")]
    TimedOut,
    /// The server, or the way to it.
    #[error("{}", describe(.0))]
    Refused(Error),
}

/// Connects with the connector's own user. The database need not be named: the tables name theirs.
///
/// # Errors
/// What the server says, or that it says nothing within `timeout`.
pub async fn connect(source: &SourceConfig, timeout: Duration) -> Result<Conn, ConnectError> {
    let tls = tls(source);
    let optional = source.ssl.mode == SourceSslMode::Prefer;
    match attempt(source, tls.clone(), timeout).await {
        // Encrypted if the server can, as the connector does it.
        Err(ConnectError::Refused(Error::Driver(DriverError::NoClientSslFlagFromServer)))
            if optional && tls.is_some() =>
        {
            attempt(source, None, timeout).await
        }
        other => other,
    }
}

async fn attempt(
    source: &SourceConfig,
    tls: Option<SslOpts>,
    timeout: Duration,
) -> Result<Conn, ConnectError> {
    let options = OptsBuilder::default()
        .ip_or_hostname(source.host.clone())
        .tcp_port(source.port)
        .user(Some(source.username.clone()))
        .pass(Some(source.password.expose().to_owned()))
        .prefer_socket(false)
        .ssl_opts(tls);
    match tokio::time::timeout(timeout, Conn::new(options)).await {
        Ok(connection) => connection.map_err(ConnectError::Refused),
        Err(_) => Err(ConnectError::TimedOut),
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

/// What an error says to a person: the server's message with its number, or the innermost cause.
pub fn describe(error: &Error) -> String {
    if let Error::Server(server) = error {
        return format!("{} (error {})", server.message, server.code);
    }
    innermost(error).to_string()
}

/// An identifier in the servers' own quotes.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `database.table` in quotes.
pub fn quoted_table(table: &str) -> String {
    let (database, name) = table.split_once('.').unwrap_or(("", table));
    format!("{}.{}", quoted(database), quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_the_servers_do() {
        assert_eq!(quoted_table("shop.a`b.c"), "`shop`.`a``b.c`");
    }
}
