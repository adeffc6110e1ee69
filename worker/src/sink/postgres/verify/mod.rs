//! `verify`: is the mirror what the source is? Compared by keys and contents, while both live.
//!
//! First the sink must have applied everything up to a position of the source (`position`). Then
//! both tables are walked in chunks of their key, each chunk one hash per database (`compare`);
//! where hashes differ the rows are, and what differs is read again until it is equal or surely
//! different (`settle`). What is equal text is decided in `plan`. Only `resync` writes, and only
//! into the mirror (`sweep`).
//!
//! Both databases are read in short statements; no snapshot is held open.

mod binlog;
mod compare;
mod failure;
mod given_up;
mod mysql;
mod plan;
mod position;
mod query;
mod rows;
mod settle;
mod shape;
mod side;
mod slot;
mod sweep;
mod upstream;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::{PostgresSinkConfig, SourceConfig};
use cdc_shared::task::TableReport;

use self::compare::Comparison;
pub use self::failure::TaskFailure;
use self::position::Stream;
use self::side::Side;
use self::upstream::{Source, Way};
use super::name::TableName;
use super::replica;
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

/// What is compared with what.
#[derive(Clone, Debug)]
pub struct Databases<'c> {
    /// The source, with its password.
    pub source: &'c SourceConfig,
    /// The mirror's database.
    pub sink: &'c PostgresSinkConfig,
}

/// How tables are compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Whether differing values are told.
    pub show_values: bool,
    /// Whether rows that the source does not have are removed.
    pub sweep: bool,
}

/// Carries a task out. The reports are right as far as they go, also after a failure.
///
/// # Errors
/// Why it came to no end.
pub async fn carry_out(
    context: &TaskContext,
    sink: &PostgresSinkConfig,
    reports: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    let databases = Databases { source: &context.source, sink };
    let tables = tables(context)?;
    let source = Source::connect(databases.source).await?;
    let mirror = Side::mirror(databases.sink).await?;
    let config = &context.config;
    let topics = tables.iter().map(|table| (table.clone(), config.topic(table))).collect();
    let mut stream = Stream {
        upstream: source.upstream(Way {
            source: &context.source,
            message_topic: format!("{}.message", config.topic_prefix),
            sink_id: context.sink.sink_id.clone(),
            probe: context.probe.clone(),
            connector: &context.connector,
            connector_name: config.connector_name(),
        })?,
        mirror: &mirror,
        topics,
        progress: replica::progress_table(sink).map_err(TaskFailure::failed)?,
        pipeline_id: config.pipeline_id.clone(),
        sink_id: context.sink.sink_id.clone(),
        probe: context.probe.clone(),
        given_up: GivenUp {
            kafka: config.kafka.clone(),
            group: config.sink_group(&context.sink.sink_id),
            dlq: config.dlq.clone(),
            sink_id: context.sink.sink_id.clone(),
            skipped: context.skipped.clone(),
        },
        timeout: Duration::from_secs(context.options.timeout_seconds),
    };
    let manner = Manner { show_values: context.options.show_values, sweep: context.sweep };
    compare(&databases, &tables, &mut stream, manner, &context.tell, reports).await
}

/// The tables of the task: those whose topics it names, or all of the sink.
fn tables(context: &TaskContext) -> Result<Vec<String>, TaskFailure> {
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

/// Compares tables one after the other.
///
/// # Errors
/// A database that does not answer, a table that is not there or has no key, or a position that is
/// not reached.
pub async fn compare(
    databases: &Databases<'_>,
    tables: &[String],
    reach: &mut dyn Reach,
    manner: Manner,
    tell: &Tell,
    reports: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    let source = Source::connect(databases.source).await?;
    let mirror = Side::mirror(databases.sink).await?;
    for table in tables {
        let name = source_name(table)?;
        let target = replica::mirror_of(databases.sink, &name.schema, &name.table)
            .map_err(TaskFailure::failed)?;
        tell.step(&format!("{table}: waiting for the sink to reach the source's position"));
        let position = reach.reach(table, tell).await?;
        let Some(found) = source.find(&name).await? else {
            let message = format!("table {table} is not at {}", source.place());
            return Err(TaskFailure::failed(message).hint("check source.tables"));
        };
        let Some(copy) = shape::find(&mirror.client, &mirror.place, &target).await? else {
            reports.push(absent(&source, table, &target, &name, position).await?);
            continue;
        };
        let mut plan = plan::plan(&found.shape, &copy)?;
        let rows = source.rows(&found, &copy, &mut plan)?;
        tell.expect(found.shape.rows);
        tell.step(&format!("{table}: comparing with {target}"));
        let report = TableReport {
            table: table.clone(),
            mirror: target.to_string(),
            position,
            ..TableReport::default()
        };
        let mut comparison = Comparison::new(rows, &mirror, plan, reach, tell, report);
        comparison.show_values = manner.show_values;
        comparison.ghosts = manner.sweep.then(Vec::new);
        let mut outcome = comparison.run().await;
        if outcome.is_ok() {
            outcome = sweep::sweep(&mut comparison).await;
        }
        reports.push(comparison.report);
        outcome?;
    }
    Ok(())
}

/// The table of an entry of `source.tables`, as the catalog has it.
fn source_name(table: &str) -> Result<TableName, TaskFailure> {
    let (schema, name) = table.split_once('.').ok_or_else(|| {
        TaskFailure::failed(format!("table {table} has no schema: write schema.table"))
    })?;
    Ok(TableName { schema: schema.to_owned(), table: name.to_owned() })
}

/// A mirror that is not there: made with the first row, so it lacks what the source has.
async fn absent(
    source: &Source,
    table: &str,
    target: &TableName,
    name: &TableName,
    position: String,
) -> Result<TableReport, TaskFailure> {
    let missing = source.count(name).await?;
    Ok(TableReport {
        table: table.to_owned(),
        mirror: target.to_string(),
        position,
        rows: missing,
        missing,
        notes: vec![format!("the mirror {target} does not exist")],
        ..TableReport::default()
    })
}
