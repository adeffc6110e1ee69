//! The sink's connections: a small pool, each session with its limits.

use std::time::Duration;

use cdc_shared::config::{PostgresSinkConfig, TlsConfig};
use cdc_shared::postgres::{MakeRustlsConnect, PostgresTls, base_config};
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime,
};
use tokio_postgres::SimpleQueryMessage;

use super::config::{Options, place};
use super::error;
use super::name::quote;
use crate::sink::SinkError;

/// Longest `application_name` that the server keeps.
const MAX_APPLICATION_NAME: usize = 63;

/// A pool; it connects when first asked.
///
/// # Errors
/// TLS files that cannot be used ([`crate::sink::Disposition::Fatal`]).
pub(super) fn pool(options: &Options, config: &PostgresSinkConfig) -> Result<Pool, SinkError> {
    let (client, connector) = client(config, &application_name(&options.sink_id))?;
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let session = session_settings(options);
    Pool::builder(Manager::from_config(client, connector, recycling))
        .max_size(options.max_connections)
        .runtime(Runtime::Tokio1)
        .create_timeout(Some(options.connect_timeout))
        .post_create(Hook::async_fn(move |client, _| {
            let session = session.clone();
            Box::pin(async move { prepare_session(client, &session).await })
        }))
        .build()
        .map_err(|why| error::internal(&options.place, &why.to_string()))
}

/// Where and how the sink's database is reached.
///
/// # Errors
/// TLS files that cannot be used ([`crate::sink::Disposition::Fatal`]).
pub(super) fn client(
    config: &PostgresSinkConfig,
    application_name: &str,
) -> Result<(tokio_postgres::Config, MakeRustlsConnect), SinkError> {
    let tls = PostgresTls {
        mode: config.sslmode,
        tls: TlsConfig {
            ca_file: config.ssl_ca_file.clone(),
            cert_file: config.ssl_cert_file.clone(),
            key_file: config.ssl_key_file.clone(),
            ..TlsConfig::default()
        },
    };
    let (mode, connector) =
        tls.connector().map_err(|why| error::configuration(&place(config), &why.to_string()))?;
    let mut client = base_config(
        config,
        application_name,
        Duration::from_millis(u64::from(config.connect_timeout_ms)),
    );
    client.ssl_mode(mode);
    Ok((client, connector))
}

fn application_name(sink_id: &str) -> String {
    // Sink ids are ASCII, so a character is a byte.
    format!("cdc-worker/{sink_id}").chars().take(MAX_APPLICATION_NAME).collect()
}

/// Settings of each session, in one round trip; the answer says whether the server takes writes.
///
/// `synchronous_commit` is only touched where it is off: then "durable" would be a lie.
fn session_settings(options: &Options) -> String {
    let mut session = String::new();
    for setting in options.session {
        session.push_str("SET ");
        session.push_str(setting);
        session.push_str("; ");
    }
    format!(
        "SET idle_in_transaction_session_timeout = {idle}; SET lock_timeout = {lock}; \
         SET statement_timeout = {statement}; SET search_path = {schema}, public; \
         SET client_min_messages = warning; \
         SET default_transaction_isolation = 'read committed'; {session}\
         SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
         WHERE pg_catalog.current_setting('synchronous_commit') = 'off'; \
         SELECT pg_catalog.current_setting('transaction_read_only')",
        idle = options.idle_timeout.as_millis(),
        lock = options.lock_timeout.as_millis(),
        statement = options.statement_timeout.as_millis(),
        schema = quote(&options.search_schema),
    )
}

async fn prepare_session(client: &mut ClientWrapper, session: &str) -> Result<(), HookError> {
    let answers = client.simple_query(session).await.map_err(HookError::Backend)?;
    let read_only = answers.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(|value| value == "on"),
        _ => None,
    });
    if read_only == Some(true) {
        return Err(HookError::message("the server takes no writes (transaction_read_only is on)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::SslMode;

    use super::*;

    #[test]
    fn a_pool_needs_no_server() {
        let config = PostgresSinkConfig::default();
        let options = Options::new("p", "s", &config, "public").unwrap();
        assert_eq!(pool(&options, &config).unwrap().status().max_size, 4);
    }

    #[test]
    fn a_missing_authority_file_is_named() {
        let config = PostgresSinkConfig {
            sslmode: SslMode::VerifyFull,
            ssl_ca_file: Some("/nowhere/ca.pem".into()),
            ..PostgresSinkConfig::default()
        };
        let options = Options::new("p", "s", &config, "public").unwrap();
        let error = pool(&options, &config).unwrap_err();
        assert!(error.message.contains("/nowhere/ca.pem"), "{}", error.message);
    }
}
