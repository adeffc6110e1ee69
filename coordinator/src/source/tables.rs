//! The tables of a PostgreSQL source: what they are, and what of them will not arrive as it is.

use std::collections::BTreeMap;

use cdc_shared::config::{Converter, PipelineConfig};
use tokio_postgres::{Client, Error};

use super::changed::{change, is_dropped_array};
use super::finding::Finding;
use super::types::is_captured;

/// One table as the catalog describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// As in the configuration.
    pub(super) name: String,
    /// `r` table, `p` partitioned table, `v` view, …
    pub(super) kind: char,
    /// `d` default (the primary key), `f` full, `i` index, `n` nothing.
    pub(super) identity: char,
    /// Whether our user owns it, which adding it to a publication needs.
    pub(super) owned: bool,
    /// Whether our user may read it, which the snapshot needs.
    pub(super) readable: bool,
    /// Its primary key.
    pub(super) key: PrimaryKey,
    /// The tables that it is a partition of.
    pub(super) parents: Vec<String>,
    /// Its columns in order.
    pub(super) columns: Vec<Column>,
}

/// A primary key, by when it is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum PrimaryKey {
    /// There is none.
    #[default]
    Absent,
    /// With each row.
    Immediate,
    /// After the statement or the transaction.
    Deferrable,
}

/// One column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As `format_type` writes it.
    pub(super) type_text: String,
    /// The type behind arrays and domains.
    pub(super) base: String,
    /// Its `typtype`.
    pub(super) base_kind: char,
    /// Whether it is an array of a domain.
    pub(super) of_domains: bool,
    /// Declared dimensions of an array.
    pub(super) dimensions: i32,
    pub(super) nullable: bool,
    pub(super) generated: bool,
    /// Text of the default.
    pub(super) default: Option<String>,
}

impl Table {
    fn is_keyed(&self) -> bool {
        self.key != PrimaryKey::Absent
    }
}

/// Reads those of the tables that exist.
pub(super) async fn tables(client: &Client, names: &[String]) -> Result<Vec<Table>, Error> {
    let rows = client
        .query(
            "SELECT n.nspname || '.' || c.relname, c.oid, c.relkind, c.relreplident, \
             pg_has_role(current_user, c.relowner, 'USAGE'), has_table_privilege(c.oid, 'SELECT'), \
             (SELECT i.indimmediate FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
             ARRAY(SELECT pn.nspname || '.' || p.relname FROM pg_partition_ancestors(c.oid) a \
               JOIN pg_class p ON p.oid = a.relid JOIN pg_namespace pn ON pn.oid = p.relnamespace \
               WHERE a.relid <> c.oid) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname || '.' || c.relname = ANY($1) AND c.relkind IN ('r','p','v','m','f')",
            &[&names],
        )
        .await?;
    let mut tables = Vec::new();
    for row in rows {
        let oid: u32 = row.try_get(1)?;
        tables.push(Table {
            name: row.try_get(0)?,
            kind: letter(row.try_get(2)?),
            identity: letter(row.try_get(3)?),
            owned: row.try_get(4)?,
            readable: row.try_get(5)?,
            key: match row.try_get(6)? {
                None => PrimaryKey::Absent,
                Some(true) => PrimaryKey::Immediate,
                Some(false) => PrimaryKey::Deferrable,
            },
            parents: row.try_get(7)?,
            columns: columns(client, oid).await?,
        });
    }
    Ok(tables)
}

async fn columns(client: &Client, oid: u32) -> Result<Vec<Column>, Error> {
    let rows = client
        .query(
            "WITH RECURSIVE behind AS ( \
               SELECT a.attnum, t.oid, t.typname, t.typtype, t.typbasetype, t.typelem, t.typcategory \
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
               WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
               UNION ALL \
               SELECT b.attnum, t.oid, t.typname, t.typtype, t.typbasetype, t.typelem, t.typcategory \
               FROM behind b JOIN pg_type t ON t.oid = CASE WHEN b.typtype = 'd' THEN b.typbasetype \
                                                            ELSE b.typelem END \
               WHERE b.typtype = 'd' OR b.typcategory = 'A') \
             SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), b.typname::text, b.typtype, \
               a.attndims::int, NOT a.attnotnull, a.attgenerated <> '', \
               pg_get_expr(d.adbin, d.adrelid), \
               EXISTS (SELECT FROM pg_type t JOIN pg_type e ON e.oid = t.typelem \
                       WHERE t.oid = a.atttypid AND t.typcategory = 'A' AND e.typtype = 'd') \
             FROM pg_attribute a JOIN behind b ON b.attnum = a.attnum \
               AND b.typtype <> 'd' AND b.typcategory <> 'A' \
             LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attrelid = $1 ORDER BY a.attnum",
            &[&oid],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Column {
                name: row.try_get(0)?,
                type_text: row.try_get(1)?,
                base: row.try_get(2)?,
                base_kind: letter(row.try_get(3)?),
                dimensions: row.try_get(4)?,
                nullable: row.try_get(5)?,
                generated: row.try_get(6)?,
                default: row.try_get(7)?,
                of_domains: row.try_get(8)?,
            })
        })
        .collect()
}

/// The generated columns of tables beside those of a primary key.
pub(super) async fn generated_columns(
    client: &Client,
    names: &[String],
) -> Result<Vec<String>, Error> {
    let rows = client
        .query(
            "SELECT n.nspname || '.' || c.relname || '.' || a.attname \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_attribute a ON a.attrelid = c.oid \
             WHERE n.nspname || '.' || c.relname = ANY($1) AND a.attgenerated <> '' \
               AND NOT a.attisdropped AND NOT EXISTS (SELECT FROM pg_index i \
                 WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)) \
             ORDER BY 1",
            &[&names],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// PostgreSQL's `"char"`.
fn letter(byte: i8) -> char {
    char::from(byte as u8)
}

/// What is to be said of one table of the configuration.
pub(super) fn judge(config: &PipelineConfig, name: &str, table: Option<&Table>) -> Vec<Finding> {
    let Some(table) = table else {
        return vec![
            Finding::error(format!("table {name} does not exist in {}", config.source.database))
                .hint("check source.tables: schema and name, in their exact case"),
        ];
    };
    if !matches!(table.kind, 'r' | 'p') {
        return vec![Finding::error(format!(
            "{name} is no table (a view or foreign table): its changes cannot be captured"
        ))];
    }
    let mut found = identity(config, table);
    if let Some(parent) = table.parents.iter().find(|p| config.source.tables.contains(p)) {
        found.push(
            Finding::error(format!(
                "{name} is a partition of {parent}, which has its rows already"
            ))
            .hint(format!("take {name} out of source.tables")),
        );
    }
    if !table.readable {
        found.push(
            Finding::error(format!("user {} may not read {name}", config.source.username))
                .hint(format!("GRANT SELECT ON {name} TO {}", config.source.username)),
        );
    }
    found.extend(same_in_avro(name, table.columns.iter().map(|column| column.name.as_str())));
    for column in &table.columns {
        found.extend(column_value(config, table, column));
    }
    if found.is_empty() {
        found.push(Finding::ok(format!("table {name}: {} columns", table.columns.len())));
    }
    found
}

fn identity(config: &PipelineConfig, table: &Table) -> Vec<Finding> {
    let name = &table.name;
    let mut found = Vec::new();
    let lost = table.identity == 'n' || (table.identity == 'd' && !table.is_keyed());
    if lost {
        found.push(
            Finding::warning(format!(
                "table {name} has no replica identity: once it is published, PostgreSQL refuses \
                 every UPDATE and DELETE on it"
            ))
            .hint(format!("ALTER TABLE {name} REPLICA IDENTITY FULL, or give it a primary key")),
        );
    }
    if !table.is_keyed() {
        found.push(keyless(config, name));
    }
    if table.key == PrimaryKey::Deferrable {
        found.extend(deferrable(config, name));
    }
    found
}

/// Rows may take each other's keys within a statement then. Their changes come as a delete of the
/// old key and a create of the new one, so that a row's create can come before the delete of the
/// row that had its key: the delete would take the wrong row.
fn deferrable(config: &PipelineConfig, name: &str) -> Option<Finding> {
    let sinks = keyed_sinks(config, name);
    (!sinks.is_empty()).then(|| {
        Finding::error(format!(
            "the primary key of table {name} is DEFERRABLE: rows may swap their keys in one \
             statement, whose changes sink {sinks} cannot put in order"
        ))
        .hint(format!(
            "make the key of {name} NOT DEFERRABLE (drop the constraint and add it anew), or take \
             the table out of the sink's tables"
        ))
    })
}

/// The sinks that need the table's key, by their ids.
fn keyed_sinks(config: &PipelineConfig, name: &str) -> String {
    let sinks = config.keyed_sinks_of(name).map(|sink| sink.sink_id.as_str());
    sinks.collect::<Vec<_>>().join(", ")
}

/// What a table without a key means for the sinks.
pub(super) fn keyless(config: &PipelineConfig, name: &str) -> Finding {
    let sinks = keyed_sinks(config, name);
    let message = format!("table {name} has no primary key: its events have no key");
    if sinks.is_empty() {
        return Finding::warning(format!(
            "{message}, and no order among themselves beyond a partition"
        ));
    }
    Finding::error(format!("{message}, which sink {sinks} needs"))
        .hint("give it a primary key, or set message.key.columns in source.connector_properties")
}

/// Column names that Avro does not take become others, and may meet.
pub(super) fn same_in_avro<'a>(
    table: &str,
    columns: impl Iterator<Item = &'a str>,
) -> Vec<Finding> {
    let mut by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for column in columns {
        by_name.entry(avro_name(column)).or_default().push(column);
    }
    by_name
        .into_iter()
        .filter(|(_, columns)| columns.len() > 1)
        .map(|(name, columns)| {
            Finding::error(format!(
                "table {table}: columns {} would both be named {name} in Avro",
                columns.join(" and ")
            ))
            .hint(
                "rename one, or set field.name.adjustment.mode: avro_unicode in \
                   source.connector_properties",
            )
        })
        .collect()
}

/// What Debezium's adjustment mode `avro` makes of a name.
fn avro_name(name: &str) -> String {
    let mut adjusted: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if adjusted.starts_with(|c: char| c.is_ascii_digit()) {
        adjusted.insert(0, '_');
    }
    adjusted
}

fn column_value(config: &PipelineConfig, table: &Table, column: &Column) -> Vec<Finding> {
    let what = format!("{}.{}", table.name, column.name);
    let mut found = Vec::new();
    if !is_captured(&column.base, column.base_kind) || is_dropped_array(column) {
        found.push(Finding::warning(format!(
            "column {what} has type {}, which the connector leaves out of every record",
            column.type_text
        )));
    }
    if let Some(change) = change(config, column).filter(|_| found.is_empty()) {
        let message = format!("values of column {what} ({}) {}", column.type_text, change.what);
        found.push(Finding::warning(message).hint(change.way_out));
    }
    if column.dimensions > 1 {
        found.push(Finding::warning(format!(
            "column {what} is an array of {} dimensions: the connector does not keep its values",
            column.dimensions
        )));
    }
    if column.generated {
        let told = if config.keyed_sinks_of(&table.name).next().is_some() {
            "deploy has the connector leave it out"
        } else {
            "it is in the snapshot's records only, not in changes"
        };
        found.push(Finding::info(format!("column {what} is generated: {told}")));
    } else if let Some(default) = column.default.as_ref().filter(|_| column.nullable) {
        found.extend(null_becomes_default(config, &what, default));
    }
    found
}

/// What becomes of the NULLs of a column that has a default.
pub(super) fn null_becomes_default(
    config: &PipelineConfig,
    column: &str,
    default: &str,
) -> Option<Finding> {
    let loses =
        config.connector.converter == Converter::Apicurio && !config.connector.keeps_nulls();
    loses.then(|| {
        Finding::warning(format!(
            "column {column} may be NULL and has the default {default}: the converter turns its \
             NULL into that default"
        ))
        .hint("set connector.keep_nulls: true")
    })
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::{PostgresSinkConfig, PostgresWriteMode, SinkConfig, SinkType};

    use super::super::finding::Level;
    use super::*;

    fn column(name: &str, base: &str) -> Column {
        Column {
            name: name.into(),
            type_text: base.into(),
            base: base.into(),
            base_kind: 'b',
            ..Column::default()
        }
    }

    fn table(columns: Vec<Column>) -> Table {
        Table {
            name: "public.a".into(),
            kind: 'r',
            identity: 'd',
            owned: true,
            readable: true,
            key: PrimaryKey::Immediate,
            parents: Vec::new(),
            columns,
        }
    }

    fn mirror() -> SinkConfig {
        SinkConfig {
            sink_id: "mirror".into(),
            sink_type: SinkType::Postgres,
            postgres: Some(PostgresSinkConfig {
                write_mode: PostgresWriteMode::Replica,
                ..PostgresSinkConfig::default()
            }),
            ..SinkConfig::default()
        }
    }

    fn said(config: &PipelineConfig, table: &Table) -> Vec<(Level, String)> {
        let found = judge(config, "public.a", Some(table));
        found.into_iter().map(|f| (f.level, f.message)).collect()
    }

    #[test]
    fn a_plain_table_is_fine_and_an_absent_one_is_not() {
        let config = PipelineConfig::default();
        let plain = table(vec![column("id", "int8")]);
        assert_eq!(said(&config, &plain), [(Level::Ok, "table public.a: 1 columns".to_owned())]);
        assert_eq!(judge(&config, "public.b", None)[0].level, Level::Error);
        let view = Table { kind: 'v', ..plain };
        assert_eq!(said(&config, &view)[0].0, Level::Error);
    }

    #[test]
    fn a_partition_beside_its_table_is_refused() {
        let mut config = PipelineConfig::default();
        let part =
            Table { parents: vec!["public.all".into()], ..table(vec![column("id", "int8")]) };
        assert_eq!(said(&config, &part)[0].0, Level::Ok);
        config.source.tables = vec!["public.all".into(), "public.a".into()];
        let (level, message) = said(&config, &part).remove(0);
        assert_eq!(level, Level::Error);
        assert!(message.starts_with("public.a is a partition of public.all"), "{message}");
    }

    #[test]
    fn null_with_a_default_matters_only_where_the_converter_would_lose_it() {
        let mut config = PipelineConfig::default();
        let note =
            Column { nullable: true, default: Some("'hello'".into()), ..column("note", "text") };
        let table = table(vec![note]);
        assert_eq!(said(&config, &table)[0].0, Level::Ok);
        config.connector.keep_nulls = Some(false);
        let (level, message) = said(&config, &table).remove(0);
        assert_eq!(level, Level::Warning);
        assert!(message.contains("public.a.note may be NULL and has the default 'hello'"));
        config.connector.converter = Converter::Confluent;
        assert_eq!(said(&config, &table)[0].0, Level::Ok);
    }

    #[test]
    fn a_keyless_table_is_said_and_refused_for_a_keyed_sink() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["public.a".into()];
        let keyless = Table { key: PrimaryKey::Absent, ..table(vec![column("x", "text")]) };
        let levels: Vec<Level> = said(&config, &keyless).into_iter().map(|s| s.0).collect();
        assert_eq!(levels, [Level::Warning, Level::Warning]);
        config.sinks.push(mirror());
        let (level, message) = said(&config, &keyless).remove(1);
        assert_eq!(level, Level::Error);
        assert!(message.ends_with("which sink mirror needs"));
    }

    #[test]
    fn a_deferrable_key_is_refused_for_a_keyed_sink_only() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["public.a".into()];
        let deferrable = Table {
            key: PrimaryKey::Deferrable,
            identity: 'f',
            ..table(vec![column("id", "int8")])
        };
        assert_eq!(said(&config, &deferrable)[0].0, Level::Ok);
        config.sinks.push(mirror());
        let (level, message) = said(&config, &deferrable).remove(0);
        assert_eq!(level, Level::Error);
        assert!(message.starts_with("the primary key of table public.a is DEFERRABLE"));
        assert!(message.contains("sink mirror"));
    }

    #[test]
    fn columns_that_do_not_arrive_whole_are_named() {
        let config = PipelineConfig::default();
        let columns = vec![
            column("a-b", "int4"),
            column("a_b", "int4"),
            column("area", "polygon"),
            column("label", "name"),
            Column { dimensions: 2, ..column("grid", "int4") },
            Column { generated: true, default: Some("x".into()), ..column("sum", "int4") },
        ];
        let said = said(&config, &table(columns));
        let levels: Vec<Level> = said.iter().map(|s| s.0).collect();
        assert_eq!(
            levels,
            [Level::Error, Level::Warning, Level::Warning, Level::Warning, Level::Info]
        );
        assert!(said[2].1.contains("public.a.label (name) arrive as NULL"));
        assert!(said[0].1.contains("a-b and a_b would both be named a_b"));
        assert_eq!(avro_name("1 ü"), "_1__");
    }
}
