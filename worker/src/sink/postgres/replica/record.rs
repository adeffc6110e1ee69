//! The sink's record of its mirrors: which table is the mirror of a topic's rows, and how far its
//! columns have come.

use std::collections::BTreeMap;

use cdc_shared::offset::TopicPartition;
use deadpool_postgres::Transaction;
use tokio_postgres::Error;

use super::evolve::Recorded;
use crate::sink::name::TableName;
use crate::sink::postgres::config::Options;

/// Name of the table, in the schema of the progress table.
const TABLE: &str = "cdc_mirrors";

/// The table of the records.
pub(super) fn table(options: &Options) -> TableName {
    TableName { schema: options.progress.schema.clone(), table: TABLE.to_owned() }
}

/// The statement that creates it.
pub(super) fn create_statement(options: &Options) -> String {
    format!(
        "CREATE TABLE {} (pipeline_id text NOT NULL, sink_id text NOT NULL, topic text NOT NULL, \
         target_schema text NOT NULL, target_table text NOT NULL, table_oid oid, \
         schema_id integer NOT NULL, columns text[] NOT NULL, dropped_columns text[] NOT NULL, \
         dropped_by integer[] NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), \
         PRIMARY KEY (pipeline_id, sink_id, topic, target_schema, target_table))",
        table(options)
    )
}

/// The record of a mirror.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    options: &Options,
    tp: &TopicPartition,
    target: &TableName,
) -> Result<Option<Recorded>, Error> {
    let sql = format!(
        "SELECT table_oid, schema_id, columns, dropped_columns, dropped_by FROM {} \
         WHERE pipeline_id = $1 AND sink_id = $2 AND topic = $3 AND target_schema = $4 \
         AND target_table = $5",
        table(options)
    );
    let topic: &str = &tp.topic;
    let row = transaction
        .query_opt(
            &sql,
            &[&options.pipeline_id, &options.sink_id, &topic, &target.schema, &target.table],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (names, ids): (Vec<String>, Vec<i32>) = (row.try_get(3)?, row.try_get(4)?);
    Ok(Some(Recorded {
        oid: row.try_get(0)?,
        schema_id: row.try_get(1)?,
        columns: row.try_get(2)?,
        dropped: names.into_iter().zip(ids).collect(),
    }))
}

/// Who else mirrors into the table: pipeline, sink and topic.
pub(super) async fn other(
    transaction: &Transaction<'_>,
    options: &Options,
    tp: &TopicPartition,
    target: &TableName,
) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT pg_catalog.format('topic %s of sink %s of pipeline %s', topic, sink_id, \
         pipeline_id) FROM {} WHERE target_schema = $1 AND target_table = $2 \
         AND (pipeline_id, sink_id, topic) <> ($3, $4, $5) LIMIT 1",
        table(options)
    );
    let topic: &str = &tp.topic;
    let row = transaction
        .query_opt(
            &sql,
            &[&target.schema, &target.table, &options.pipeline_id, &options.sink_id, &topic],
        )
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Writes the record of a mirror.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    options: &Options,
    tp: &TopicPartition,
    target: &TableName,
    new: &Recorded,
) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO {} (pipeline_id, sink_id, topic, target_schema, target_table, table_oid, \
         schema_id, columns, dropped_columns, dropped_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (pipeline_id, sink_id, topic, target_schema, target_table) DO UPDATE SET \
         table_oid = EXCLUDED.table_oid, schema_id = EXCLUDED.schema_id, \
         columns = EXCLUDED.columns, dropped_columns = EXCLUDED.dropped_columns, \
         dropped_by = EXCLUDED.dropped_by, updated_at = pg_catalog.now()",
        table(options)
    );
    let topic: &str = &tp.topic;
    let (names, ids) = apart(&new.dropped);
    transaction
        .execute(
            &sql,
            &[
                &options.pipeline_id,
                &options.sink_id,
                &topic,
                &target.schema,
                &target.table,
                &new.oid,
                &new.schema_id,
                &new.columns,
                &names,
                &ids,
            ],
        )
        .await?;
    Ok(())
}

fn apart(dropped: &BTreeMap<String, i32>) -> (Vec<&str>, Vec<i32>) {
    dropped.iter().map(|(name, id)| (name.as_str(), *id)).unzip()
}
