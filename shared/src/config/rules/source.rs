//! Rules about the source and the connector's properties.

use std::collections::BTreeSet;

use super::Findings;
use crate::config::{
    MIN_RETENTION_MS, PipelineConfig, Properties, RESERVED_PROPERTIES, SnapshotMode,
};
use crate::config::{SignalChannel, SourceType};

/// Connector properties that have settings of their own.
const OWN_SETTINGS: &[(&str, &str)] = &[
    ("name", "the connector is named {topic_prefix}-{pipeline_id}"),
    ("connector.class", "set source.source_type"),
    ("tasks.max", "a Debezium connector has one task"),
    ("topic.prefix", "set topic_prefix"),
    ("database.hostname", "set source.host"),
    ("database.port", "set source.port"),
    ("database.user", "set source.username"),
    ("database.password", "set source.password"),
    ("database.dbname", "set source.database"),
    ("database.server.id", "set source.server_id"),
    ("database.sslmode", "set source.ssl.mode"),
    ("database.ssl.mode", "set source.ssl.mode"),
    ("table.include.list", "set source.tables"),
    ("slot.name", "set source.slot_name"),
    ("publication.name", "set source.publication_name"),
    ("snapshot.mode", "set source.snapshot_mode"),
    ("heartbeat.interval.ms", "set source.heartbeat_interval_ms"),
    ("poll.interval.ms", "set source.poll_interval_ms"),
    ("unavailable.value.placeholder", "set source.unavailable_placeholder"),
    ("signal.data.collection", "set source.signal_table"),
    ("exactly.once.support", "set connector.exactly_once"),
    ("key.converter", "set connector.converter"),
    ("value.converter", "set connector.converter"),
];

pub(super) fn check(config: &PipelineConfig, findings: &mut Findings<'_>) {
    let source = &config.source;
    tables(&source.tables, "source.tables", findings);
    if source.signal == SignalChannel::Source && source.signal_table.is_none() {
        findings.error("source.signal", "source needs source.signal_table");
    }
    if let Some(table) = &source.signal_table {
        findings.check("source.signal_table", table_name(table));
    }
    if source.source_type == SourceType::Postgres {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !source.slot_name.chars().all(allowed) {
            let message = format!(
                "`{}` is no slot name: PostgreSQL allows lower case letters, digits and `_`",
                source.slot_name
            );
            findings.error("source.slot_name", message);
        }
    }
    if source.snapshot_mode == SnapshotMode::WhenNeeded {
        findings.warning(
            "source.snapshot_mode",
            "when_needed takes a new snapshot when changes were lost, instead of saying so",
        );
    }
    reserved(&source.connector_properties, OWN_SETTINGS, "source.connector_properties", findings);
    reserved(&config.kafka.properties, RESERVED_PROPERTIES, "kafka.properties", findings);
    let retention = config.kafka.topics.retention_ms;
    if retention != -1 && retention < MIN_RETENTION_MS {
        let message = format!(
            "must be -1 (for ever) or at least {MIN_RETENTION_MS} (seven days), is {retention}: \
             a sink that is away for longer would lose changes"
        );
        findings.error("kafka.topics.retention_ms", message);
    }
}

fn reserved(
    properties: &Properties,
    reserved: &[(&str, &str)],
    path: &str,
    findings: &mut Findings<'_>,
) {
    for (name, instead) in reserved {
        if properties.contains_key(*name) {
            findings.error(&format!("{path}.{name}"), format!("cannot be set here: {instead}"));
        }
    }
}

/// Every table has a schema and is there once.
pub(super) fn tables(tables: &[String], path: &str, findings: &mut Findings<'_>) {
    let mut seen = BTreeSet::new();
    for (index, table) in tables.iter().enumerate() {
        let path = format!("{path}[{index}]");
        findings.check(&path, table_name(table));
        if !seen.insert(table) {
            findings.error(&path, format!("`{table}` is there twice"));
        }
    }
}

fn table_name(table: &str) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == ',';
    match table.split_once('.') {
        Some((schema, name)) if !schema.is_empty() && !name.is_empty() && !table.contains(odd) => {
            Ok(())
        }
        None if !table.is_empty() => {
            Err(format!("`{table}` has no schema: write schema.table, such as public.{table}"))
        }
        _ => Err(format!("`{table}` is no table: write schema.table, such as public.customers")),
    }
}
