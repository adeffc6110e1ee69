//! The tables of a MySQL or MariaDB source: what they are, and what of them will not arrive as it
//! is.

use cdc_shared::config::{PipelineConfig, SignalChannel};
use cdc_shared::mysql::quoted_table;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::changed;
use crate::source::Finding;
use crate::source::tables::{keyless, null_becomes_default, same_in_avro};

/// One table as the server describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// As in the configuration, `database.table`.
    pub(super) name: String,
    /// `BASE TABLE`, `VIEW`, …
    pub(super) kind: String,
    /// Why our user may not read it.
    pub(super) refused: Option<String>,
    /// Its unique indexes, the primary key first.
    pub(super) keys: Vec<Key>,
    /// Its columns in order.
    pub(super) columns: Vec<Column>,
}

/// A unique index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Key {
    /// `PRIMARY` is the primary key.
    pub(super) name: String,
    /// Whether one of its columns may be NULL.
    pub(super) nullable: bool,
}

/// One column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As the server writes it, such as `bigint(20) unsigned`.
    pub(super) type_text: String,
    pub(super) nullable: bool,
    pub(super) generated: bool,
    /// Text of the default.
    pub(super) default: Option<String>,
}

/// Reads those of the tables that exist and of which our user sees anything.
pub(super) async fn tables(
    connection: &mut Conn,
    names: impl Iterator<Item = &String>,
) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    for name in names {
        let Some((database, table)) = name.split_once('.') else { continue };
        // BINARY: names are compared as they are written, on every server.
        let found: Option<String> = connection
            .exec_first(
                "SELECT TABLE_TYPE FROM information_schema.TABLES \
                 WHERE BINARY TABLE_SCHEMA = ? AND BINARY TABLE_NAME = ?",
                (database, table),
            )
            .await?;
        let Some(kind) = found else { continue };
        tables.push(Table {
            name: name.clone(),
            kind,
            refused: refused(connection, name).await?,
            keys: keys(connection, database, table).await?,
            columns: columns(connection, database, table).await?,
        });
    }
    Ok(tables)
}

/// Asks for no row of the table: the server checks our right to read every column.
async fn refused(connection: &mut Conn, name: &str) -> Result<Option<String>, Error> {
    match connection.query_drop(format!("SELECT * FROM {} LIMIT 0", quoted_table(name))).await {
        Ok(()) => Ok(None),
        Err(Error::Server(error)) => Ok(Some(error.message)),
        Err(error) => Err(error),
    }
}

async fn keys(connection: &mut Conn, database: &str, table: &str) -> Result<Vec<Key>, Error> {
    let keys: Vec<(String, i64)> = connection
        .exec(
            "SELECT INDEX_NAME, MAX(NULLABLE = 'YES') FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 GROUP BY INDEX_NAME \
             ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME",
            (database, table),
        )
        .await?;
    Ok(keys.into_iter().map(|(name, nullable)| Key { name, nullable: nullable != 0 }).collect())
}

async fn columns(connection: &mut Conn, database: &str, table: &str) -> Result<Vec<Column>, Error> {
    let rows: Vec<Row> = connection
        .exec(
            "SELECT COLUMN_NAME, CAST(COLUMN_TYPE AS CHAR), IS_NULLABLE, CAST(COLUMN_DEFAULT AS CHAR), \
             CAST(GENERATION_EXPRESSION AS CHAR) FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            (database, table),
        )
        .await?;
    let text = |row: &Row, index| row.get::<Option<String>, usize>(index).flatten();
    Ok(rows
        .iter()
        .map(|row| Column {
            name: text(row, 0).unwrap_or_default(),
            type_text: text(row, 1).unwrap_or_default(),
            nullable: text(row, 2).as_deref() == Some("YES"),
            generated: text(row, 4).is_some_and(|expression| !expression.is_empty()),
            // MariaDB writes a default of NULL as the word.
            default: text(row, 3).filter(|default| !default.eq_ignore_ascii_case("null")),
        })
        .collect())
}

/// Tables of the whole server, as far as our user sees them, with types that MariaDB's connector
/// cannot read: it reads the definition of every table, not only of ours.
pub(super) async fn unreadable(connection: &mut Conn) -> Result<Vec<String>, Error> {
    connection
        .query(
            "SELECT DISTINCT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.COLUMNS \
             WHERE DATA_TYPE IN ('inet4', 'inet6') ORDER BY 1",
        )
        .await
}

/// The generated columns of tables beside those of a key.
pub(super) async fn generated_columns(
    connection: &mut Conn,
    names: &[String],
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for name in names {
        let Some((database, table)) = name.split_once('.') else { continue };
        let columns: Vec<String> = connection
            .exec(
                "SELECT COLUMN_NAME FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND COLUMN_KEY <> 'PRI' \
                 AND coalesce(CAST(GENERATION_EXPRESSION AS CHAR), '') <> '' \
                 ORDER BY ORDINAL_POSITION",
                (database, table),
            )
            .await?;
        found.extend(columns.into_iter().map(|column| format!("{name}.{column}")));
    }
    Ok(found)
}

/// What is to be said of one table of the configuration.
pub(super) fn judge(config: &PipelineConfig, name: &str, table: Option<&Table>) -> Vec<Finding> {
    let user = &config.source.username;
    let Some(table) = table else {
        return vec![
            Finding::error(format!(
                "table {name} does not exist, or user {user} sees nothing of it"
            ))
            .hint("check source.tables: database and table, in their exact case; GRANT SELECT"),
        ];
    };
    if table.kind != "BASE TABLE" && table.kind != "SYSTEM VERSIONED" {
        let kind = table.kind.to_lowercase();
        return vec![Finding::error(format!(
            "{name} is no table ({kind}): its changes cannot be captured"
        ))];
    }
    let mut found = key(config, table);
    if let Some(reason) = &table.refused {
        found.push(
            Finding::error(format!("user {user} may not read {name}: {reason}"))
                .hint(format!("GRANT SELECT ON {} TO the user", quoted_table(name))),
        );
    }
    found.extend(same_in_avro(name, table.columns.iter().map(|column| column.name.as_str())));
    if config.keyed_sinks_of(&table.name).next().is_some() {
        found.extend(changed::names(table));
    }
    for column in &table.columns {
        found.extend(column_value(config, table, column));
    }
    if found.is_empty() {
        found.push(Finding::ok(format!("table {name}: {} columns", table.columns.len())));
    }
    found
}

fn key(config: &PipelineConfig, table: &Table) -> Vec<Finding> {
    if table.keys.first().is_some_and(|key| key.name == "PRIMARY") {
        return Vec::new();
    }
    match table.keys.iter().find(|key| !key.nullable) {
        Some(key) => vec![Finding::info(format!(
            "table {} has no primary key: the connector takes the unique index {} for one",
            table.name, key.name
        ))],
        None => vec![keyless(config, &table.name)],
    }
}

fn column_value(config: &PipelineConfig, table: &Table, column: &Column) -> Vec<Finding> {
    let what = format!("{}.{}", table.name, column.name);
    if column.generated {
        let told = if config.keyed_sinks_of(&table.name).next().is_some() {
            "deploy has the connector leave it out"
        } else {
            "the server computes it, and so must whoever copies the table"
        };
        return vec![Finding::info(format!("column {what} is generated: {told}"))];
    }
    let default = column.default.as_ref().filter(|_| column.nullable);
    let lost = default.and_then(|default| null_becomes_default(config, &what, default));
    lost.into_iter().chain(changed::column(config, &what, column)).collect()
}

/// What is to be said of the signal table.
pub(super) fn judge_signal(
    config: &PipelineConfig,
    name: &str,
    tables: &[Table],
) -> Option<Finding> {
    if config.source.signal != SignalChannel::Source {
        return None;
    }
    let make = format!(
        "CREATE TABLE {} (id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data text), and \
         GRANT SELECT, INSERT, DELETE on it to the user",
        quoted_table(name)
    );
    Some(match tables.iter().find(|table| table.name == name) {
        Some(table) if table.columns.len() == 3 => Finding::ok(format!("signal table {name}")),
        Some(table) => Finding::error(format!(
            "signal table {name} has {} columns, it must have id, type and data",
            table.columns.len()
        ))
        .hint(make),
        None => Finding::error(format!("signal table {name} does not exist")).hint(make),
    })
}
