//! What a table is, as the server's catalog has it, in PostgreSQL's words where those decide how it
//! is compared.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::super::shape::{Column, Shape};
use crate::sink::name::TableName;

/// The type of a column.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::sink) struct Type {
    /// Without what stands in brackets, in small letters: `bigint`.
    pub(in crate::sink) name: String,
    /// As it was declared: `bigint(20) unsigned`.
    pub(in crate::sink) declared: String,
    /// Digits, bits.
    pub(in crate::sink) length: usize,
    /// Digits behind the point.
    pub(in crate::sink) scale: usize,
    /// Whether it is text.
    pub(in crate::sink) is_text: bool,
    /// Whether the column takes NULL.
    pub(in crate::sink) nullable: bool,
}

/// The base of a JSON document of MySQL; see [`super::json`].
pub(in crate::sink) const JSON: &str = "mysql's json";

/// Reads a table. `None`: there is none of this name. The types are those of the shape's columns.
pub(in crate::sink) async fn find(
    connection: &mut Conn,
    name: &TableName,
) -> Result<Option<(Shape, Vec<Type>)>, Error> {
    // BINARY: names are compared as they are written, on every server.
    let found: Option<(Option<u64>,)> = connection
        .exec_first(
            "SELECT TABLE_ROWS FROM information_schema.TABLES \
             WHERE BINARY TABLE_SCHEMA = ? AND BINARY TABLE_NAME = ? AND TABLE_TYPE <> 'VIEW'",
            (&name.schema, &name.table),
        )
        .await?;
    let Some((rows,)) = found else { return Ok(None) };
    let key = key(connection, name).await?;
    let described: Vec<Row> = connection
        .exec(
            "SELECT COLUMN_NAME, DATA_TYPE, CAST(COLUMN_TYPE AS CHAR), \
             CAST(coalesce(NUMERIC_PRECISION, 0) AS SIGNED), \
             CAST(coalesce(NUMERIC_SCALE, 0) AS SIGNED), CHARACTER_SET_NAME IS NOT NULL, \
             IS_NULLABLE = 'YES', coalesce(CAST(GENERATION_EXPRESSION AS CHAR), '') <> '' \
             FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            (&name.schema, &name.table),
        )
        .await?;
    let (mut columns, mut types) = (Vec::new(), Vec::new());
    for row in &described {
        let ty = read_type(row);
        let name = row.get::<String, _>(0).unwrap_or_default();
        let base = base(&ty);
        columns.push(Column {
            key: key.iter().position(|column| *column == name).map(|at| at as i16 + 1),
            generated: flag(row, 7),
            declared: declared(&ty, base),
            bare: base.to_owned(),
            base: base.to_owned(),
            // No other server orders texts like this one does.
            order: if base == "text" { ty.declared.clone() } else { String::new() },
            name,
        });
        types.push(ty);
    }
    let shape = Shape { name: name.clone(), columns, rows: rows.unwrap_or(0) };
    Ok(Some((shape, types)))
}

fn read_type(row: &Row) -> Type {
    let number = |at| row.get::<i64, usize>(at).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    Type {
        name: row.get::<String, _>(1).unwrap_or_default().to_lowercase(),
        declared: row.get::<String, _>(2).unwrap_or_default().to_lowercase(),
        length: number(3),
        scale: number(4),
        is_text: flag(row, 5),
        nullable: flag(row, 6),
    }
}

fn flag(row: &Row, at: usize) -> bool {
    row.get::<i64, usize>(at) == Some(1)
}

/// The primary key, or the unique index without NULL that the connector takes for one.
async fn key(connection: &mut Conn, name: &TableName) -> Result<Vec<String>, Error> {
    let indexed: Vec<(String, String, i64)> = connection
        .exec(
            "SELECT INDEX_NAME, COLUMN_NAME, NULLABLE = 'YES' FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 \
             AND COLUMN_NAME IS NOT NULL \
             ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX",
            (&name.schema, &name.table),
        )
        .await?;
    let nullable = |index: &str| indexed.iter().any(|(name, _, null)| name == index && *null == 1);
    let first = indexed.iter().map(|(index, ..)| index).find(|index| !nullable(index));
    let Some(first) = first else { return Ok(Vec::new()) };
    let columns = indexed.iter().filter(|(index, ..)| index == first);
    Ok(columns.map(|(_, column, _)| column.clone()).collect())
}

/// PostgreSQL's word for the type; empty for one that it has none for.
fn base(ty: &Type) -> &'static str {
    match ty.name.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => "bigint",
        "decimal" => "numeric",
        "float" => "real",
        "double" => "double precision",
        "date" => "date",
        "datetime" => "timestamp without time zone",
        "timestamp" => "timestamp with time zone",
        "time" => "interval",
        "bit" if ty.length == 1 => "boolean",
        "bit" => "bit",
        "json" => JSON,
        "uuid" | "inet4" | "inet6" => "text",
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => "bytea",
        "point" | "geometry" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => "geometry",
        _ if ty.is_text => "text",
        _ => "",
    }
}

fn declared(ty: &Type, base: &str) -> String {
    match base {
        "numeric" => format!("numeric({},{})", ty.length, ty.scale),
        other => other.to_owned(),
    }
}
