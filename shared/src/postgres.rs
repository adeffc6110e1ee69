//! Connecting to PostgreSQL with the meaning of `sslmode` that its own clients have.
//!
//! tokio-postgres knows only whether TLS is used; whether the certificate is checked is decided
//! here.

use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::config::SslMode as WireMode;
/// The TLS half of a connection.
pub use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresSinkConfig, Secret, SourceConfig, SourceSslMode, SslMode, TlsConfig};
use crate::error::innermost;
use crate::tls::{self, TlsError, Verify};

/// What a connection needs beside the address.
#[derive(Clone, Debug)]
pub struct PostgresTls {
    /// As in libpq.
    pub mode: SslMode,
    /// Certificates.
    pub tls: TlsConfig,
}

impl PostgresTls {
    /// What `source.ssl` says. Its certificates are files of the Connect worker; those that are
    /// here as well are used.
    pub fn of_source(source: &SourceConfig) -> Self {
        let mode = match source.ssl.mode {
            SourceSslMode::Disable => SslMode::Disable,
            SourceSslMode::Prefer => SslMode::Prefer,
            SourceSslMode::Require => SslMode::Require,
            SourceSslMode::VerifyCa => SslMode::VerifyCa,
            SourceSslMode::VerifyFull => SslMode::VerifyFull,
        };
        let ca_file = source.ssl.ca_file.clone().filter(|file| file.exists());
        Self { mode, tls: TlsConfig { ca_file, ..TlsConfig::default() } }
    }

    /// The TLS half of a connection, and the mode that goes into [`tokio_postgres::Config`].
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn connector(&self) -> Result<(WireMode, MakeRustlsConnect), TlsError> {
        let (wire, verify) = match self.mode {
            SslMode::Disable => (WireMode::Disable, Verify::Nothing),
            SslMode::Prefer => (WireMode::Prefer, Verify::Nothing),
            SslMode::Require => (WireMode::Require, Verify::Nothing),
            SslMode::VerifyCa => (WireMode::Require, Verify::Chain),
            SslMode::VerifyFull => (WireMode::Require, Verify::Full),
        };
        let config: ClientConfig = tls::client_config(&self.tls, verify)?;
        Ok((wire, MakeRustlsConnect::new(config)))
    }
}

/// Where a database is and who we are there: what a source and a sink have in common.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Host.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: &'a str,
    /// User.
    pub username: &'a str,
    /// The user's password.
    pub password: &'a Secret,
}

impl<'a> From<&'a SourceConfig> for Login<'a> {
    fn from(source: &'a SourceConfig) -> Self {
        let SourceConfig { host, port, database, username, password, .. } = source;
        Self { host, port: *port, database, username, password }
    }
}

impl<'a> From<&'a PostgresSinkConfig> for Login<'a> {
    fn from(sink: &'a PostgresSinkConfig) -> Self {
        let PostgresSinkConfig { host, port, database, username, password, .. } = sink;
        Self { host, port: *port, database, username, password }
    }
}

/// A configuration with the settings every connection of ours has.
pub fn base_config<'a>(
    login: impl Into<Login<'a>>,
    application_name: &str,
    connect_timeout: Duration,
) -> tokio_postgres::Config {
    let login = login.into();
    let mut config = tokio_postgres::Config::new();
    config
        .host(login.host)
        .port(login.port)
        .dbname(login.database)
        .user(login.username)
        .password(login.password.expose())
        .application_name(application_name)
        .connect_timeout(connect_timeout)
        .tcp_user_timeout(Duration::from_secs(60))
        .keepalives_idle(Duration::from_secs(30));
    config
}

/// What a PostgreSQL error says to a person: the server's message with its SQLSTATE, or the
/// innermost cause. Never the statement's parameters.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", server.message(), server.code().code());
    }
    innermost(error).to_string()
}
