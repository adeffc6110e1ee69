//! `verify` of the mirror: see [`crate::sink::verify`].
//!
//! Both tables are walked in chunks of their key, each chunk one hash per database (`compare`);
//! where hashes differ the rows are. Only `resync` writes, and only into the mirror (`sweep`).

mod compare;
mod sweep;

use async_trait::async_trait;
use cdc_shared::config::{PostgresSinkConfig, SourceConfig};
use cdc_shared::task::TableReport;

use self::compare::Comparison;
use super::{connect, replica};
use crate::sink::name::TableName;
use crate::sink::verify::judge::Judge;
use crate::sink::verify::position::{Own, OwnRecord};
use crate::sink::verify::side::Side;
use crate::sink::verify::upstream::Source;
use crate::sink::verify::{
    Manner, Reach, TaskFailure, not_at, plan, shape, source_name, stream, tables,
};
use crate::task::{TaskContext, Tell};

/// What is compared with what.
#[derive(Clone, Debug)]
pub struct Databases<'c> {
    /// The source, with its password.
    pub source: &'c SourceConfig,
    /// The mirror's database.
    pub sink: &'c PostgresSinkConfig,
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
    let record = Progress {
        mirror: mirror(databases.sink).await?,
        table: replica::progress_table(sink).map_err(TaskFailure::failed)?,
        pipeline_id: context.config.pipeline_id.clone(),
        sink_id: context.sink.sink_id.clone(),
    };
    let mut stream = stream(context, &tables, &source, &record)?;
    let manner = Manner::of(context);
    compare(&databases, &tables, &mut stream, manner, &context.tell, reports).await
}

/// The table of the sink's positions.
struct Progress {
    mirror: Side,
    table: TableName,
    pipeline_id: String,
    sink_id: String,
}

#[async_trait]
impl OwnRecord for Progress {
    async fn own(&self, topic: &str) -> Result<Vec<Own>, TaskFailure> {
        let sql = format!(
            "SELECT \"partition\", next_offset, topic_id FROM {} \
             WHERE pipeline_id = $1 AND sink_id = $2 AND topic = $3",
            self.table
        );
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.pipeline_id, &self.sink_id, &topic];
        let rows = self.mirror.ask("read the sink's position", &sql, &parameters).await?;
        let own = rows.iter().map(|row| Own {
            partition: row.get(0),
            next: row.get(1),
            topic_id: row.get(2),
        });
        Ok(own.collect())
    }
}

/// Connects to the mirror.
async fn mirror(sink: &PostgresSinkConfig) -> Result<Side, TaskFailure> {
    let place = format!("mirror {}:{}/{}", sink.host, sink.port, sink.database);
    let (config, tls) = connect::client(sink, "cdc-worker/verify")?;
    Side::connect(&config, tls, place).await
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
    let mirror = mirror(databases.sink).await?;
    for table in tables {
        let name = source_name(table)?;
        let target = replica::mirror_of(databases.sink, &name.schema, &name.table)
            .map_err(TaskFailure::failed)?;
        tell.step(&format!("{table}: waiting for the sink to reach the source's position"));
        let position = reach.reach(table, tell).await?;
        let Some(found) = source.find(&name).await? else { return Err(not_at(&source, table)) };
        let report = TableReport {
            table: table.clone(),
            mirror: target.to_string(),
            position,
            ..TableReport::default()
        };
        let Some(copy) = shape::find(&mirror.client, &mirror.place, &target).await? else {
            reports.push(source.without_a_mirror(&name, report).await?);
            continue;
        };
        let mut plan = plan::plan(&found.shape, &copy)?;
        let rows = source.rows(&found, &copy, &mut plan)?;
        tell.expect(found.shape.rows);
        tell.step(&format!("{table}: comparing with {target}"));
        let judge = Judge::new(&plan, reach, tell, manner, report);
        let mut comparison = Comparison::new(rows, &mirror, plan, judge);
        let mut outcome = comparison.run().await;
        if outcome.is_ok() {
            outcome = sweep::sweep(&mut comparison).await;
        }
        reports.push(comparison.judge.report);
        outcome?;
    }
    Ok(())
}
