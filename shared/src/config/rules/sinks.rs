//! Rules about sinks.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::connections::{certificates, key_pair, url};
use super::{Findings, iceberg, source};
use crate::config::shape::nearest;
use crate::config::sink::RESERVED_HEADERS;
use crate::config::{
    Consistency, OnExhausted, OnIncompatible, OnReject, Operation, PipelineConfig,
    PostgresSinkConfig, PostgresWriteMode, SinkConfig, SinkType, SnapshotDelivery, SslMode,
    TruncateHandling, WebhookConfig,
};

/// Longest identifier that PostgreSQL keeps whole, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 63;

pub(super) fn check(config: &PipelineConfig, findings: &mut Findings<'_>) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, sink) in config.sinks.iter().enumerate() {
        let path = format!("sinks[{index}]");
        if let Some(earlier) = first.get(sink.sink_id.as_str()) {
            let message = format!("`{}` is also the id of sinks[{earlier}]", sink.sink_id);
            findings.error(&format!("{path}.sink_id"), message);
        } else if !sink.sink_id.is_empty() {
            first.insert(&sink.sink_id, index);
        }
        filters(config, sink, &path, findings);
        if sections(sink, &path, findings) {
            match (&sink.webhook, &sink.postgres, &sink.iceberg) {
                (Some(webhook), ..) => webhook_rules(webhook, &format!("{path}.webhook"), findings),
                (_, Some(postgres), _) => postgres_rules(config, sink, postgres, &path, findings),
                (_, _, Some(lake)) => {
                    iceberg::check(config, sink, lake, &format!("{path}.iceberg"), findings);
                }
                _ => {}
            }
        }
    }
}

/// Exactly the section of the sink's type is there; returns whether that is so.
fn sections(sink: &SinkConfig, path: &str, findings: &mut Findings<'_>) -> bool {
    let own = sink.sink_type;
    let mut right = true;
    for (kind, given) in [
        (SinkType::Webhook, sink.webhook.is_some()),
        (SinkType::Postgres, sink.postgres.is_some()),
        (SinkType::Iceberg, sink.iceberg.is_some()),
    ] {
        let section = format!("{path}.{}", kind.name());
        if kind == own && !given {
            findings.error(&section, format!("is required by sink_type: {}", own.name()));
            right = false;
        } else if kind != own && given {
            let message =
                format!("does not belong to sink_type: {}; remove one of the two", own.name());
            findings.error(&section, message);
            right = false;
        }
    }
    right
}

fn filters(config: &PipelineConfig, sink: &SinkConfig, path: &str, findings: &mut Findings<'_>) {
    let tables = format!("{path}.tables");
    source::tables(&sink.tables, &tables, findings);
    let known = &config.source.tables;
    for (index, table) in sink.tables.iter().enumerate() {
        if !known.is_empty() && !known.contains(table) && table.contains('.') {
            let near = nearest(table, known.iter().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let message = format!("`{table}` is not in source.tables{near}");
            findings.error(&format!("{tables}[{index}]"), message);
        }
    }
    let operations: BTreeSet<_> = sink.operations.iter().copied().collect();
    if operations.is_empty() {
        findings.error(&format!("{path}.operations"), "is empty: nothing would be delivered");
    } else if operations.len() < sink.operations.len() {
        findings.error(&format!("{path}.operations"), "has an operation twice");
    }
    let missing = Operation::ALL[..4].iter().any(|operation| !operations.contains(operation));
    if sink.is_keyed() && missing {
        let message = "a sink that keeps rows by key needs c, u, d and r";
        findings.error(&format!("{path}.operations"), message);
    }
    if sink.is_keyed() && sink.snapshot == SnapshotDelivery::Skip {
        let message = "a sink that keeps rows by key needs the snapshot";
        findings.error(&format!("{path}.snapshot"), message);
    }
    let incompatible = format!("{path}.on_incompatible");
    if sink.on_incompatible == OnIncompatible::Dlq && !config.dlq.enabled {
        findings.error(&incompatible, "dlq needs dlq.enabled: true");
    } else if sink.on_incompatible == OnIncompatible::Dlq && sink.is_keyed() {
        findings.warning(&incompatible, "with dlq a change leaves its row as it was");
    }
    if sink.on_incompatible != OnIncompatible::Stop && !config.stop_on_incompatible_schema {
        let message = "has no effect without stop_on_incompatible_schema: true";
        findings.warning(&incompatible, message);
    }
    if sink.reject_policy() == OnReject::Dlq && !config.dlq.enabled {
        findings.warning(path, "with dlq.enabled: false a rejected record holds its partition");
    }
}

fn webhook_rules(webhook: &WebhookConfig, path: &str, findings: &mut Findings<'_>) {
    let schemes: &[&str] = if webhook.allow_http { &["http", "https"] } else { &["https"] };
    findings.check(&format!("{path}.url"), url(&webhook.url, schemes));
    certificates(&format!("{path}.tls"), &webhook.tls, findings);
    let mut seen = BTreeSet::new();
    for (name, value) in &webhook.headers {
        let path = format!("{path}.headers.{name}");
        let lower = name.to_ascii_lowercase();
        if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            findings.error(&path, "is no header name");
        } else if RESERVED_HEADERS.contains(&lower.as_str()) {
            findings.error(&path, "is set by the sink itself");
        } else if reqwest::header::HeaderValue::from_str(value.expose()).is_err() {
            findings.error(&path, "has a character that no header may have");
        }
        if lower == "authorization" && webhook.auth_token.is_some() {
            findings.error(&path, "excludes auth_token, which sets the same header");
        }
        if !seen.insert(lower) {
            findings.error(&path, "is there twice: case does not matter in header names");
        }
    }
    if let Some(token) = &webhook.auth_token
        && reqwest::header::HeaderValue::from_str(token.expose()).is_err()
    {
        let message = "has a character that no header may have";
        findings.error(&format!("{path}.auth_token"), message);
    }
    for (index, secret) in webhook.signing_secrets.iter().enumerate() {
        findings
            .check(&format!("{path}.signing_secrets[{index}]"), signing_secret(secret.expose()));
    }
}

/// A Standard Webhooks secret: `whsec_` and 24 to 64 bytes in base64.
fn signing_secret(secret: &str) -> Result<(), String> {
    let bytes = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    match bytes {
        Some(bytes) if (24..=64).contains(&bytes.len()) => Ok(()),
        Some(bytes) => Err(format!("must hold 24 to 64 bytes, holds {}", bytes.len())),
        None => Err("must be `whsec_` and base64".to_owned()),
    }
}

fn postgres_rules(
    config: &PipelineConfig,
    sink: &SinkConfig,
    postgres: &PostgresSinkConfig,
    sink_path: &str,
    findings: &mut Findings<'_>,
) {
    let path = format!("{sink_path}.postgres");
    let target = format!("{path}.target_table");
    match postgres.write_mode {
        PostgresWriteMode::Events => {
            findings.check(&target, table_identifier(postgres.target_table()));
        }
        PostgresWriteMode::Replica => replica_rules(config, sink, postgres, &path, findings),
    }
    findings.check(&format!("{path}.progress_table"), table_identifier(&postgres.progress_table));
    if postgres.progress_table == postgres.target_table() {
        findings.error(&format!("{path}.progress_table"), "must not be the target table");
    }
    let certificate = ("ssl_cert_file", postgres.ssl_cert_file.is_some());
    let key = ("ssl_key_file", postgres.ssl_key_file.is_some());
    key_pair(&path, certificate, key, findings);
    if postgres.sslmode == SslMode::Disable
        && (postgres.ssl_ca_file.is_some() || postgres.ssl_cert_file.is_some())
    {
        findings.error(&format!("{path}.sslmode"), "disable leaves the ssl files without effect");
    }
}

fn replica_rules(
    config: &PipelineConfig,
    sink: &SinkConfig,
    postgres: &PostgresSinkConfig,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let tables = if sink.tables.is_empty() { &config.source.tables } else { &sink.tables };
    findings.check(
        &format!("{path}.target_table"),
        mirror_name(postgres.target_table(), tables.len() == 1),
    );
    if postgres.consistency == Consistency::Transaction {
        transaction_rules(config, sink, postgres, path, findings);
    }
    let partitions = config.kafka.topics.partitions;
    if postgres.truncate == TruncateHandling::Apply && partitions != 1 {
        let message = format!(
            "apply needs kafka.topics.partitions: 1, which is {partitions}: with more, the order of \
             a truncate and the changes around it is not known; use stop or ignore"
        );
        findings.error(&format!("{path}.truncate"), message);
    }
    if sink.on_reject == Some(OnReject::Dlq) {
        let message = "with dlq a rejected change leaves its row in the mirror as it was";
        findings.warning(&format!("{path}.write_mode"), message);
    }
}

/// What whole transactions exclude.
fn transaction_rules(
    config: &PipelineConfig,
    sink: &SinkConfig,
    postgres: &PostgresSinkConfig,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let setting = format!("{path}.consistency");
    if sink.on_reject == Some(OnReject::Dlq) {
        let message = "transaction excludes on_reject: dlq: without one of its changes a \
                       transaction is not whole";
        findings.error(&setting, message);
    }
    if sink.retry.on_exhausted == OnExhausted::Dlq {
        findings
            .error(&setting, "transaction excludes retry.on_exhausted: dlq, for the same reason");
    }
    if sink.operations.len() < Operation::ALL.len() {
        findings.error(&setting, "transaction needs every operation: each is counted");
    }
    if postgres.truncate == TruncateHandling::Apply {
        let message = "transaction excludes truncate: apply: use stop or ignore";
        findings.error(&setting, message);
    }
    if config.on_incompatible(sink).is_some_and(|policy| policy != OnIncompatible::Continue) {
        let message = "stop_on_incompatible_schema does not hold whole transactions yet: set \
                       on_incompatible: continue for this sink, whose mirrors stop by themselves at \
                       a change that they cannot follow";
        findings.error(&setting, message);
    }
    let metadata = config.source.connector_properties.0.get("provide.transaction.metadata");
    if metadata.is_some_and(|value| value != "true") {
        findings.error(&setting, "transaction needs the connector's provide.transaction.metadata");
    }
    if config.source.connector_properties.0.contains_key("topic.transaction") {
        let message = "transaction needs the connector's own name of the transaction topic";
        findings.error(&setting, message);
    }
    if !config.connector.exactly_once {
        let message = "without connector.exactly_once a restart of the connector sends \
                       transactions again, and the mirror may show older rows for a moment";
        findings.warning(&setting, message);
    }
}

/// A pattern for the names of mirrors.
fn mirror_name(pattern: &str, one_table: bool) -> Result<(), String> {
    let plain = pattern.replace("{schema}", "s").replace("{table}", "t");
    if let Some(brace) = plain.find(['{', '}']) {
        let rest = plain.get(brace..).unwrap_or_default();
        return Err(format!("`{rest}`: only {{schema}} and {{table}} are replaced"));
    }
    if !pattern.contains("{table}") && !one_table {
        return Err(format!(
            "`{pattern}` would be the mirror of every table: write {{table}} into it"
        ));
    }
    table_identifier(&plain)
}

/// `table` or `schema.table`, with identifiers that PostgreSQL does not cut.
fn table_identifier(name: &str) -> Result<(), String> {
    let parts: Vec<_> = name.split('.').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.trim().is_empty()) {
        return Err(format!("`{name}` is no table: write table or schema.table"));
    }
    match parts.iter().find(|part| part.len() > MAX_IDENTIFIER_BYTES) {
        Some(part) => Err(format!(
            "`{part}` has {} bytes; PostgreSQL keeps {MAX_IDENTIFIER_BYTES}",
            part.len()
        )),
        None => Ok(()),
    }
}
