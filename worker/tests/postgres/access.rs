//! Who may connect, over what, and how a refusal reads.

use cdc_shared::config::SslMode;
use cdc_worker::sink::{Disposition, Sink, SinkError};

use super::*;
use crate::support::postgres::free_port;

async fn failure(config: &PostgresSinkConfig) -> SinkError {
    let error = within("the proof", sink(config).prove()).await.unwrap_err();
    let told = format!("{error:?} {error}");
    assert!(!told.contains("wrong-secret") && !told.contains(PASSWORD), "{told}");
    assert_eq!(error.disposition, Disposition::Retry(None), "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_access_is_told_with_the_address() {
    let port = Cluster::shared().port;
    let good = settings(port, "postgres");

    let error =
        failure(&PostgresSinkConfig { password: "wrong-secret".into(), ..good.clone() }).await;
    assert_eq!(error.code, "sqlstate_28P01");
    assert!(error.message.contains(&format!("localhost:{port}/postgres")), "{error}");
    assert!(error.hint.unwrap().contains("password"));

    let error =
        failure(&PostgresSinkConfig { database: "nowhere".to_owned(), ..good.clone() }).await;
    assert_eq!(error.code, "sqlstate_3D000");
    assert!(error.message.contains("nowhere"), "{error}");

    let free = free_port();
    let error = failure(&PostgresSinkConfig { port: free, ..good.clone() }).await;
    assert_eq!(error.code, "connection_refused");
    assert!(error.message.contains(&format!("localhost:{free}")), "{error}");

    let host = "no-such-host.invalid".to_owned();
    let error = failure(&PostgresSinkConfig { host, ..good.clone() }).await;
    assert_eq!(error.code, "dns", "{error}");
    assert!(error.message.contains("no-such-host.invalid"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = PostgresSinkConfig {
        host: "127.0.0.1".to_owned(),
        connect_timeout_ms: 200,
        ..settings(port, "postgres")
    };
    let error = failure(&config).await;
    assert_eq!(error.code, "connection_timeout", "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_and_read_only_servers_are_named() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let mut config = settings(cluster.port, &database);
    sink(&config).prove().await.unwrap();
    let role = format!("writer_{database}");
    let grant = format!("CREATE ROLE {role} LOGIN PASSWORD 'wrong-secret'");
    admin.batch_execute(&grant).await.unwrap();
    config.username.clone_from(&role);
    config.password = Secret::from("wrong-secret");

    let error = failure(&config).await;
    assert_eq!(error.code, "sqlstate_42501");
    admin
        .batch_execute(&format!(
            "GRANT SELECT, INSERT, UPDATE ON cdc_offsets TO {role}; GRANT INSERT ON cdc_events TO {role}"
        ))
        .await
        .unwrap();
    let error = failure(&config).await;
    assert_eq!(error.code, "sqlstate_42501");
    assert!(error.message.contains("cdc_events"), "{error}");
    assert!(error.hint.unwrap().contains("UPDATE"));
    let grant = format!("GRANT SELECT, UPDATE ON cdc_events TO {role}");
    admin.batch_execute(&grant).await.unwrap();
    sink(&config).prove().await.unwrap();

    // A schema where it may not create.
    let other =
        PostgresSinkConfig { target_table: Some("elsewhere.events".to_owned()), ..config.clone() };
    let error = failure(&other).await;
    assert_eq!(error.code, "sqlstate_42501");
    assert!(error.hint.unwrap().contains("CREATE TABLE"));

    let freeze = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    admin.batch_execute(&freeze).await.unwrap();
    let error = failure(&config).await;
    assert_eq!(error.code, "read_only_server");
    assert!(error.hint.unwrap().contains("primary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_carry_their_limits_and_name() {
    let (sink, admin) = proven(|c| c.sslmode = SslMode::Require).await;
    assert_eq!(sink.read_position(&partition()).await.unwrap(), None);
    let sql = "SELECT a.application_name, s.ssl FROM pg_stat_activity a JOIN pg_stat_ssl s \
               USING (pid) WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()";
    let row = admin.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get(1)), ("cdc-worker/analytics-db", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_verified_as_far_as_asked() {
    let cluster = Cluster::shared();
    let over = |host: &str, sslmode: SslMode, trusted: bool| PostgresSinkConfig {
        host: host.to_owned(),
        sslmode,
        ssl_ca_file: trusted.then(|| cluster.ca_file.clone()),
        ..settings(cluster.port, "postgres")
    };
    for mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require] {
        sink(&over("127.0.0.1", mode, false)).prove().await.unwrap();
    }
    sink(&over("localhost", SslMode::VerifyFull, true)).prove().await.unwrap();
    sink(&over("127.0.0.1", SslMode::VerifyCa, true)).prove().await.unwrap();
    // Another name than the certificate's, and an authority nobody trusts.
    for config in [
        over("127.0.0.1", SslMode::VerifyFull, true),
        over("localhost", SslMode::VerifyFull, false),
        over("localhost", SslMode::VerifyCa, false),
    ] {
        let error = failure(&config).await;
        assert_eq!(error.code, "tls", "{error:?}");
        assert!(error.hint.unwrap().contains("ssl_ca_file"));
    }
}
