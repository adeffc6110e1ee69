//! What a table is, as the catalog of its server has it.

use tokio_postgres::Client;

use super::failure::{self, TaskFailure};
use crate::sink::name::TableName;

/// A table on one side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Shape {
    /// Its name.
    pub(in crate::sink) name: TableName,
    /// Its columns, in the table's order.
    pub(in crate::sink) columns: Vec<Column>,
    /// Rows, as the server's statistics have it; 0 when unknown.
    pub(in crate::sink) rows: u64,
}

/// A column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Column {
    /// Its name.
    pub(in crate::sink) name: String,
    /// Its type with what stands in brackets, as `format_type()` spells it.
    pub(in crate::sink) declared: String,
    /// Its type without, which a cast may name without cutting anything.
    pub(in crate::sink) bare: String,
    /// The type under the domain it may have, without brackets.
    pub(in crate::sink) base: String,
    /// Whether the server computes it.
    pub(in crate::sink) generated: bool,
    /// Place in the primary key, from 1.
    pub(in crate::sink) key: Option<i16>,
    /// Which order its texts have: provider, locale and the version of its rules; empty for other
    /// types.
    pub(in crate::sink) order: String,
}

/// The default collation is the database's; to tell two orders apart, its rules' version counts.
const COLUMNS: &str = "\
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1), \
  format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, -1), \
  a.attgenerated <> '', \
  (SELECT k.place::int2 FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
    WHERE i.indrelid = a.attrelid AND i.indisprimary AND k.attnum = a.attnum \
      AND k.place <= i.indnkeyatts), \
  CASE WHEN a.attcollation = 0 THEN '' \
    WHEN coalesce(l.collcollate, '') IN ('C', 'POSIX') THEN 'C' \
    WHEN l.collname <> 'default' THEN concat_ws(' ', l.collprovider, l.collcollate, \
      to_jsonb(l) ->> 'colliculocale', to_jsonb(l) ->> 'colllocale', \
      coalesce(pg_collation_actual_version(l.oid), random()::text)) \
    WHEN d.datcollate IN ('C', 'POSIX') \
      AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' THEN 'C' \
    ELSE concat_ws(' ', coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), d.datcollate, \
      to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale', \
      coalesce((SELECT pg_collation_actual_version(p.oid) FROM pg_collation p \
        WHERE p.collprovider = 'c' AND p.collcollate = d.datcollate \
        ORDER BY p.oid LIMIT 1), random()::text)) END \
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
LEFT JOIN pg_collation l ON l.oid = a.attcollation \
JOIN pg_database d ON d.datname = current_database() \
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// A partitioned table has no statistics of its own before PostgreSQL 14: its leaves have them.
const TABLE: &str = "\
SELECT c.oid, c.relkind::text, (SELECT sum(greatest(l.reltuples, 0))::int8 FROM pg_class l \
  WHERE l.oid = c.oid AND c.relkind = 'r' OR c.relkind = 'p' AND l.relkind = 'r' \
    AND l.oid IN (SELECT relid FROM pg_partition_tree(c.oid))) \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
WHERE n.nspname = $1 AND c.relname = $2";

/// Looks a table up. `None`: there is none of this name.
///
/// # Errors
/// It is no table, or the server does not answer.
pub(in crate::sink) async fn find(
    client: &Client,
    place: &str,
    name: &TableName,
) -> Result<Option<Shape>, TaskFailure> {
    let failed = |error| failure::database(place, &format!("look up table {name}"), &error);
    let row = client.query_opt(TABLE, &[&name.schema, &name.table]).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let (oid, kind, rows): (u32, String, Option<i64>) = (row.get(0), row.get(1), row.get(2));
    if kind != "r" && kind != "p" {
        let message = format!("{name} at {place} is no table");
        return Err(TaskFailure::failed(message));
    }
    let rows = u64::try_from(rows.unwrap_or(0)).unwrap_or(0);
    let columns = client.query(COLUMNS, &[&oid]).await.map_err(failed)?;
    let columns = columns
        .iter()
        .map(|row| Column {
            name: row.get(0),
            declared: row.get(1),
            bare: row.get(2),
            base: row.get(3),
            generated: row.get(4),
            key: row.get(5),
            order: row.get(6),
        })
        .collect();
    Ok(Some(Shape { name: name.clone(), columns, rows }))
}
