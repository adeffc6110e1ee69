//! `verify`: has a sink what the source has? Compared by keys and contents, while both live.
//!
//! What every sink's comparison is made of. First the sink must have applied everything up to a
//! position of the source (`position`). Then the sink compares its rows with the source's, in a way
//! of its own; what seems to differ is read again until it is equal or surely different (`judge`,
//! `settle`). What is equal text is decided in `plan`.
//!
//! Databases are read in short statements; no snapshot is held open.

mod binlog;
pub(in crate::sink) mod failure;
mod given_up;
pub(in crate::sink) mod hash;
pub(in crate::sink) mod judge;
pub(in crate::sink) mod mysql;
pub(in crate::sink) mod plan;
pub(in crate::sink) mod position;
pub(in crate::sink) mod query;
pub(in crate::sink) mod rows;
pub(in crate::sink) mod settle;
pub(in crate::sink) mod shape;
pub(in crate::sink) mod side;
mod slot;
pub(in crate::sink) mod upstream;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;

pub use self::failure::TaskFailure;
use self::position::{OwnRecord, Stream};
use self::upstream::{Source, Way};
use super::name::TableName;
use crate::source::given_up::GivenUp;
use crate::task::{TaskContext, Tell};

/// Waits until the sink has applied what the source had committed.
#[async_trait]
pub trait Reach: Send {
    /// Waits for one table; gives the position that was taken.
    async fn reach(&mut self, table: &str, tell: &Tell) -> Result<String, TaskFailure>;

    /// Keys, as texts of these columns, of records that the sink was let pass.
    async fn given_up(
        &mut self,
        table: &str,
        columns: &[String],
    ) -> Result<HashSet<Vec<String>>, TaskFailure>;
}

/// How tables are compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Whether differing values are told.
    pub show_values: bool,
    /// Whether rows that the source does not have are removed.
    pub sweep: bool,
}

impl Manner {
    /// As a task asks for it.
    pub(in crate::sink) fn of(context: &TaskContext) -> Self {
        Self { show_values: context.options.show_values, sweep: context.sweep }
    }
}

/// The way from the source to a sink that keeps this record.
///
/// # Errors
/// Settings that cannot be used.
pub(in crate::sink) fn stream<'s>(
    context: &'s TaskContext,
    tables: &[String],
    source: &'s Source,
    record: &'s dyn OwnRecord,
) -> Result<Stream<'s>, TaskFailure> {
    let config = &context.config;
    Ok(Stream {
        upstream: source.upstream(Way {
            source: &context.source,
            message_topic: format!("{}.message", config.topic_prefix),
            sink_id: context.sink.sink_id.clone(),
            probe: context.probe.clone(),
            connector: &context.connector,
            connector_name: config.connector_name(),
        })?,
        record,
        topics: tables.iter().map(|table| (table.clone(), config.topic(table))).collect(),
        probe: context.probe.clone(),
        given_up: GivenUp {
            kafka: config.kafka.clone(),
            group: config.sink_group(&context.sink.sink_id),
            dlq: config.dlq.clone(),
            sink_id: context.sink.sink_id.clone(),
            skipped: context.skipped.clone(),
        },
        timeout: Duration::from_secs(context.options.timeout_seconds),
    })
}

/// The tables of the task: those whose topics it names, or all of the sink.
///
/// # Errors
/// A topic that is none of the sink's.
pub(in crate::sink) fn tables(context: &TaskContext) -> Result<Vec<String>, TaskFailure> {
    let config = &context.config;
    let all = config.sink_tables(&context.sink);
    let wanted = &context.options.topics;
    for topic in wanted {
        if !all.iter().any(|table| config.topic(table) == *topic) {
            let message = format!("{topic} is no topic of sink {}", context.sink.sink_id);
            return Err(TaskFailure::failed(message));
        }
    }
    let chosen = all.iter().filter(|t| wanted.is_empty() || wanted.contains(&config.topic(t)));
    Ok(chosen.cloned().collect())
}

/// The table of an entry of `source.tables`, as the catalog has it.
///
/// # Errors
/// It has no schema.
pub(in crate::sink) fn source_name(table: &str) -> Result<TableName, TaskFailure> {
    let (schema, name) = table.split_once('.').ok_or_else(|| {
        TaskFailure::failed(format!("table {table} has no schema: write schema.table"))
    })?;
    Ok(TableName { schema: schema.to_owned(), table: name.to_owned() })
}

/// A table that the source does not have.
pub(in crate::sink) fn not_at(source: &Source, table: &str) -> TaskFailure {
    let message = format!("table {table} is not at {}", source.place());
    TaskFailure::failed(message).hint("check source.tables")
}
