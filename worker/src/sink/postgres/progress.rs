//! The sink's own record of its progress: one row per (pipeline, sink, topic, partition).

use std::sync::Arc;

use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::config::Options;
use super::name::TableName;
use super::table::{self, Found, Refusal, Wanted};

/// What names a record. Pipelines may share a database, so the pipeline belongs to it.
const IDENTITY: [&str; 4] = ["pipeline_id", "sink_id", "topic", "partition"];

const COLUMNS: [Wanted; 10] = [
    column("pipeline_id", &["text"], "text NOT NULL"),
    column("sink_id", &["text"], "text NOT NULL"),
    column("topic", &["text"], "text NOT NULL"),
    column("partition", &["int4"], "integer NOT NULL"),
    column("next_offset", &["int8"], "bigint NOT NULL"),
    column("incarnation", &["int8"], "bigint NOT NULL"),
    column("topic_id", &["text"], "text NOT NULL"),
    column("key_schema", &["int4"], "integer"),
    column("value_schema", &["int4"], "integer"),
    column("updated_at", &["timestamptz"], "timestamptz NOT NULL DEFAULT now()"),
];

const fn column(
    name: &'static str,
    accepted: &'static [&'static str],
    created: &'static str,
) -> Wanted {
    Wanted { name, accepted, shown: created, created }
}

/// The statement that creates the table.
pub(super) fn create_statement(name: &TableName) -> String {
    table::create_table(
        name,
        &COLUMNS,
        Some(r#"PRIMARY KEY (pipeline_id, sink_id, topic, "partition")"#),
    )
}

/// Whether a table of that name can be the sink's record.
///
/// # Errors
/// The first thing that stands in the way.
pub(super) fn judge(name: &TableName, found: &Found) -> Result<(), Refusal> {
    table::judge_columns(name, found, &COLUMNS)?;
    if table::unique_over(found, &IDENTITY).is_empty() {
        let columns = r#"pipeline_id, sink_id, topic, "partition""#;
        return Err(Refusal {
            why: format!("progress table {name} is not unique over ({columns})"),
            cure: format!("ALTER TABLE {name} ADD UNIQUE ({columns})"),
        });
    }
    Ok(())
}

/// A move of one record from what it is expected to be to what it becomes.
#[derive(Debug)]
pub(super) struct Step<'s> {
    pipeline: &'s str,
    sink: &'s str,
    topic: &'s str,
    partition: i32,
    from: Numbers<'s>,
    to: Numbers<'s>,
}

/// A position as its columns hold it.
#[derive(Debug)]
struct Numbers<'s> {
    next: i64,
    incarnation: i64,
    topic_id: &'s str,
    schemas: SchemaIds,
}

impl<'s> From<&'s Position> for Numbers<'s> {
    fn from(position: &'s Position) -> Self {
        Self {
            next: position.next.get(),
            incarnation: position.incarnation.0 as i64,
            topic_id: &position.topic_id.0,
            schemas: position.schemas,
        }
    }
}

impl<'s> Step<'s> {
    /// A move of the record of `tp`.
    pub(super) fn new(
        options: &'s Options,
        tp: &'s TopicPartition,
        from: &'s Position,
        to: &'s Position,
    ) -> Self {
        Self {
            pipeline: &options.pipeline_id,
            sink: &options.sink_id,
            topic: &tp.topic,
            partition: tp.partition,
            from: from.into(),
            to: to.into(),
        }
    }

    /// `$1` to `$7`: which record, and what it is expected to be.
    pub(super) fn expectation(&self) -> [&(dyn ToSql + Sync); 7] {
        [
            &self.pipeline,
            &self.sink,
            &self.topic,
            &self.partition,
            &self.from.next,
            &self.from.incarnation,
            &self.from.topic_id,
        ]
    }

    /// `$1` to `$12` of the compare-and-set.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 12] {
        [
            &self.pipeline,
            &self.sink,
            &self.topic,
            &self.partition,
            &self.from.next,
            &self.from.incarnation,
            &self.from.topic_id,
            &self.to.next,
            &self.to.incarnation,
            &self.to.topic_id,
            &self.to.schemas.key,
            &self.to.schemas.value,
        ]
    }
}

/// Reads the record of `tp`; the inner `Err` says why the row is none of ours.
pub(super) async fn read(
    client: &ClientWrapper,
    options: &Options,
    tp: &TopicPartition,
) -> Result<Option<Result<Position, String>>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT next_offset, incarnation, topic_id, key_schema, value_schema FROM {} \
         WHERE pipeline_id = $1 AND sink_id = $2 AND topic = $3 AND \"partition\" = $4",
        options.progress
    );
    let statement = client.prepare_cached(&sql).await?;
    let topic: &str = &tp.topic;
    let row = client
        .query_opt(&statement, &[&options.pipeline_id, &options.sink_id, &topic, &tp.partition])
        .await?;
    row.as_ref().map(position).transpose()
}

fn position(row: &Row) -> Result<Result<Position, String>, tokio_postgres::Error> {
    let (next, incarnation): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let topic_id: &str = row.try_get(2)?;
    let schemas = SchemaIds { key: row.try_get(3)?, value: row.try_get(4)? };
    let (Some(next), Ok(incarnation)) = (NextOffset::new(next), u64::try_from(incarnation)) else {
        return Ok(Err(format!(
            "next_offset {next} and incarnation {incarnation} must not be negative"
        )));
    };
    Ok(Ok(Position {
        next,
        incarnation: Incarnation(incarnation),
        topic_id: TopicId(Arc::from(topic_id)),
        schemas,
    }))
}

/// Writes the first record of `tp`; `false` when there is one.
pub(super) async fn insert(
    client: &ClientWrapper,
    options: &Options,
    tp: &TopicPartition,
    new: &Position,
) -> Result<bool, tokio_postgres::Error> {
    let sql = format!(
        "INSERT INTO {} (pipeline_id, sink_id, topic, \"partition\", next_offset, incarnation, \
         topic_id, key_schema, value_schema) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT DO NOTHING",
        options.progress
    );
    let statement = client.prepare_cached(&sql).await?;
    let new = Numbers::from(new);
    let topic: &str = &tp.topic;
    let rows = client
        .execute(
            &statement,
            &[
                &options.pipeline_id,
                &options.sink_id,
                &topic,
                &tp.partition,
                &new.next,
                &new.incarnation,
                &new.topic_id,
                &new.schemas.key,
                &new.schemas.value,
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Whether the sink has a record of any partition.
pub(super) async fn any(
    client: &ClientWrapper,
    options: &Options,
) -> Result<bool, tokio_postgres::Error> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} WHERE pipeline_id = $1 AND sink_id = $2)",
        options.progress
    );
    client.query_one(&sql, &[&options.pipeline_id, &options.sink_id]).await?.try_get(0)
}

/// Whether the sink has a record of another partition of the topic.
pub(super) async fn has_siblings(
    client: &ClientWrapper,
    options: &Options,
    tp: &TopicPartition,
) -> Result<bool, tokio_postgres::Error> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} WHERE pipeline_id = $1 AND sink_id = $2 AND topic = $3 \
         AND \"partition\" <> $4)",
        options.progress
    );
    let topic: &str = &tp.topic;
    client
        .query_one(&sql, &[&options.pipeline_id, &options.sink_id, &topic, &tp.partition])
        .await?
        .try_get(0)
}

/// Asks whether a first record may be written: runs the insert without a row.
pub(super) async fn may_insert(
    client: &ClientWrapper,
    options: &Options,
) -> Result<(), tokio_postgres::Error> {
    let sql = format!(
        "INSERT INTO {table} SELECT * FROM {table} WHERE false ON CONFLICT DO NOTHING",
        table = options.progress
    );
    client.batch_execute(&sql).await
}
