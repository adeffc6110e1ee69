//! MySQL and MariaDB: the binlog, with the history of table definitions in a topic.

use cdc_shared::config::{PipelineConfig, SourceSslConfig, SourceSslMode, SourceType};

use super::common::bootstrap_servers;
use super::postgres::display;
use super::{Properties, map, prefixed};
use crate::deploy::topics;

pub(super) fn properties(config: &PipelineConfig, kafka: &Properties) -> Properties {
    let source = &config.source;
    let mut properties = map([
        ("database.port", &source.port.to_string()),
        ("database.server.id", &source.server_number(&config.pipeline_id).to_string()),
        ("database.include.list", &databases(config).join(",")),
        ("time.precision.mode", "adaptive_time_microseconds"),
        // Debezium's default wraps 2^63 and above to negative numbers.
        ("bigint.unsigned.handling.mode", "precise"),
        ("inconsistent.schema.handling.mode", "fail"),
        ("include.schema.changes", "true"),
        ("snapshot.locking.mode", "minimal"),
        ("connect.keep.alive", "true"),
    ]);
    properties.extend(history(config, kafka));
    properties.extend(ssl(source.source_type, &source.ssl));
    if source.source_type == SourceType::Mysql && !verified(source.ssl.mode) {
        // Without encryption MySQL's default authentication needs the server's public key. Where
        // the server is not verified anyway, asking the server for it gives nothing away.
        properties.extend(map([("driver.allowPublicKeyRetrieval", "true")]));
    }
    properties
}

fn verified(mode: SourceSslMode) -> bool {
    matches!(mode, SourceSslMode::VerifyCa | SourceSslMode::VerifyFull)
}

/// The databases of the tables, each once, in order; the configured one when no table is named.
fn databases(config: &PipelineConfig) -> Vec<&str> {
    let mut names: Vec<&str> =
        config.source.tables.iter().filter_map(|table| table.split('.').next()).collect();
    if names.is_empty() {
        names.push(&config.source.database);
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn history(config: &PipelineConfig, kafka: &Properties) -> Properties {
    let mut properties = map([
        ("schema.history.internal.kafka.topic", &topics::history_topic(&config.topic_prefix)),
        ("schema.history.internal.kafka.bootstrap.servers", bootstrap_servers(config)),
        ("schema.history.internal.skip.unparseable.ddl", "false"),
        ("schema.history.internal.store.only.captured.tables.ddl", "false"),
    ]);
    properties.extend(prefixed("schema.history.internal.producer.", kafka));
    properties.extend(prefixed("schema.history.internal.consumer.", kafka));
    properties
}

/// The two connectors name the modes differently.
fn ssl(kind: SourceType, ssl: &SourceSslConfig) -> Properties {
    let mariadb = kind == SourceType::Mariadb;
    let mode = match (ssl.mode, mariadb) {
        (SourceSslMode::Disable, false) => "disabled",
        (SourceSslMode::Prefer, false) => "preferred",
        (SourceSslMode::Require, false) => "required",
        (SourceSslMode::VerifyCa, false) => "verify_ca",
        (SourceSslMode::VerifyFull, false) => "verify_identity",
        // MariaDB's driver has no "if the server can".
        (SourceSslMode::Disable | SourceSslMode::Prefer, true) => "disable",
        (SourceSslMode::Require, true) => "trust",
        (SourceSslMode::VerifyCa, true) => "verify-ca",
        (SourceSslMode::VerifyFull, true) => "verify-full",
    };
    let mut properties = map([("database.ssl.mode", mode)]);
    let secret = |s: &Option<cdc_shared::config::Secret>| s.as_ref().map(|s| s.expose().to_owned());
    for (name, value) in [
        ("database.ssl.truststore", ssl.truststore.as_deref().map(display)),
        ("database.ssl.truststore.password", secret(&ssl.truststore_password)),
        ("database.ssl.keystore", ssl.keystore.as_deref().map(display)),
        ("database.ssl.keystore.password", secret(&ssl.keystore_password)),
    ] {
        properties.extend(value.map(|value| (name.to_owned(), value)));
    }
    properties
}
