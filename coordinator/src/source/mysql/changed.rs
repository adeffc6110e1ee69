//! Values that the connectors of MySQL and MariaDB send other than they are, or not at all, by the
//! source's columns and the connector's modes; and what the names of a mirror cannot be. Pure;
//! `docs/replica-types.md` has the whole list.

use cdc_shared::config::PipelineConfig;

use super::tables::{Column, Table};
use crate::source::Finding;

/// Longest name that PostgreSQL keeps, in bytes. Here a name may have 64 characters.
const LONGEST_NAME: usize = 63;

/// Digits that a `double` keeps.
const DOUBLE_DIGITS: u32 = 15;

const LEAVE_OUT: &str = "leave the column out (column.exclude.list in \
                         source.connector_properties), or change its type";

/// What is to be said of a column's values.
pub(super) fn column(config: &PipelineConfig, what: &str, column: &Column) -> Option<Finding> {
    let (kind, digits) = parts(&column.type_text);
    let mode = |name: &str| config.source.connector_properties.0.get(name).map(String::as_str);
    let change = |effect: &str, way_out: &str| {
        let message = format!("values of column {what} ({}) {effect}", column.type_text);
        Some(Finding::warning(message).hint(way_out.to_owned()))
    };
    let times = mode("time.precision.mode");
    match kind {
        "float" if digits.is_none() => change(
            "have six digits in a snapshot (changes have all of them)",
            "make it double; or rely on no more than six digits",
        ),
        "decimal"
            if mode("decimal.handling.mode") == Some("double") && digits > Some(DOUBLE_DIGITS) =>
        {
            change("lose what is beyond 15 digits", "set decimal.handling.mode: string")
        }
        "time" if matches!(times, Some("connect" | "isostring")) => change(
            "end the connector's task when one is negative or beyond a day",
            "set time.precision.mode: adaptive_time_microseconds",
        ),
        "datetime" if times == Some("connect") && digits > Some(3) => {
            change("are cut to milliseconds", "set time.precision.mode: adaptive_time_microseconds")
        }
        "bigint"
            if mode("bigint.unsigned.handling.mode") == Some("long")
                && column.type_text.contains("unsigned") =>
        {
            change(
                "wrap to negative numbers from 2^63 on (a mirror turns them back, a webhook gets \
                 them so)",
                "set bigint.unsigned.handling.mode: precise",
            )
        }
        "vector" => change("are not compared by cdc verify", LEAVE_OUT),
        _ => None,
    }
}

/// The type without what stands in brackets, and the first number in them.
fn parts(type_text: &str) -> (&str, Option<u32>) {
    let kind = type_text.split(['(', ' ']).next().unwrap_or(type_text);
    let inside = type_text.split(['(', ',', ')']).nth(1);
    (kind, inside.and_then(|digits| digits.trim().parse().ok()))
}

/// Tables whose definition the connector cannot read. Those that are not ours end it as well.
pub(super) fn unreadable(config: &PipelineConfig, tables: &[String]) -> Vec<Finding> {
    let (ours, others): (Vec<&String>, Vec<&String>) =
        tables.iter().partition(|table| config.source.tables.contains(table));
    let only = "schema.history.internal.store.only.captured.tables.ddl";
    let own = ours.into_iter().map(|table| {
        let message = format!(
            "table {table} has INET4 or INET6 columns: the connector cannot read its definition \
             and ends"
        );
        Finding::error(message).hint("make them varchar(45)")
    });
    let properties = &config.source.connector_properties.0;
    let reads_all = properties.get(only).is_none_or(|value| value != "true");
    let other = others.into_iter().filter(|_| reads_all).take(1).map(|table| {
        let message = format!(
            "table {table}, which is not of this pipeline, has INET4 or INET6 columns: the \
             connector reads the definitions of all tables of the server, and ends at this one"
        );
        Finding::error(message).hint(format!(
            "set {only}: true in source.connector_properties (tables that are added to the \
             pipeline later then need a new connector)"
        ))
    });
    own.chain(other).collect()
}

/// Names of a mirrored table that PostgreSQL would cut.
pub(super) fn names(table: &Table) -> Vec<Finding> {
    let name = table.name.split_once('.').map_or(table.name.as_str(), |(_, name)| name);
    let columns = table.columns.iter().map(|column| ("column", column.name.as_str()));
    let long = std::iter::once(("table", name)).chain(columns);
    long.filter(|(_, name)| name.len() > LONGEST_NAME)
        .map(|(kind, name)| {
            Finding::error(format!(
                "{kind} name {name} of {} has {} bytes, PostgreSQL keeps {LONGEST_NAME}",
                table.name,
                name.len()
            ))
            .hint("rename it, or leave it out of the mirror")
        })
        .collect()
}

/// Zero dates, where the server takes them.
pub(super) fn zero_dates(sql_mode: &str, tables: &[Table]) -> Option<Finding> {
    let refused = ["NO_ZERO_DATE", "NO_ZERO_IN_DATE"].iter().all(|mode| sql_mode.contains(mode));
    let is_date =
        |column: &Column| matches!(parts(&column.type_text).0, "date" | "datetime" | "timestamp");
    let concerned = tables.iter().any(|table| table.columns.iter().any(is_date));
    (!refused && concerned).then(|| {
        Finding::info(
            "the server takes zero dates (sql_mode lacks NO_ZERO_DATE or NO_ZERO_IN_DATE): they \
             arrive as NULL, in a NOT NULL column as 1970-01-01",
        )
    })
}

/// MySQL 8.0.15 and those before it count YEAR among the numbers in the binlog's description of a
/// table, and the connector does not: where the two counts fill another number of bytes, it ends.
pub(super) fn miscounted_years(version: &str, table: &Table) -> Option<Finding> {
    let patch: Vec<u32> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    let is_old = matches!(patch.as_slice(), [8, 0, patch, ..] if *patch < 16);
    let count = |is: fn(&str) -> bool| {
        table.columns.iter().filter(|column| is(parts(&column.type_text).0)).count()
    };
    let years = count(|kind| kind == "year");
    let numbers = count(|kind| {
        matches!(
            kind,
            "tinyint"
                | "smallint"
                | "mediumint"
                | "int"
                | "bigint"
                | "decimal"
                | "float"
                | "double"
        )
    });
    let differs = (numbers + years).div_ceil(8) != numbers.div_ceil(8);
    (is_old && years > 0 && differs).then(|| {
        Finding::error(format!(
            "table {} has {} numbers with its YEAR: the connector ends at its first change on \
             MySQL {version}",
            table.name,
            numbers + years
        ))
        .hint("update the server, make the YEAR a smallint, or add a numeric column")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Level;

    fn typed(name: &str, type_text: &str) -> Column {
        Column { name: name.into(), type_text: type_text.into(), ..Column::default() }
    }

    fn said(mode: Option<(&str, &str)>, type_text: &str) -> Option<Level> {
        let mut config = PipelineConfig::default();
        let mode = mode.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.source.connector_properties.0.extend(mode);
        column(&config, "s.t.c", &typed("c", type_text)).map(|finding| finding.level)
    }

    #[test]
    fn what_a_mode_changes_is_said_with_that_mode() {
        let warned = Some(Level::Warning);
        let decimals = Some(("decimal.handling.mode", "double"));
        assert_eq!(said(decimals, "decimal(20,2)"), warned);
        assert_eq!(said(decimals, "decimal(15,2)"), None);
        assert_eq!(said(None, "decimal(65,30)"), None);
        let times = Some(("time.precision.mode", "connect"));
        assert_eq!(said(times, "time"), warned);
        assert_eq!(said(times, "datetime(6)"), warned);
        assert_eq!(said(times, "datetime(3)"), None);
        assert_eq!(said(None, "time(6)"), None);
        let unsigned = Some(("bigint.unsigned.handling.mode", "long"));
        assert_eq!(said(unsigned, "bigint(20) unsigned"), warned);
        assert_eq!(said(unsigned, "bigint(20)"), None);
    }

    #[test]
    fn what_no_mode_avoids_is_always_said() {
        assert_eq!(said(None, "float"), Some(Level::Warning));
        assert_eq!(said(None, "float unsigned"), Some(Level::Warning));
        assert_eq!(said(None, "float(7,3)"), None, "the server writes its declared digits");
        assert_eq!(said(None, "varchar(20)"), None);
    }

    #[test]
    fn a_table_that_ends_the_connector_is_refused_wherever_it_is() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["s.t".into()];
        let found = unreadable(&config, &["a.x".into(), "s.t".into()]);
        assert!(found.iter().all(|finding| finding.level == Level::Error));
        assert!(found[0].message.starts_with("table s.t has INET4"), "{}", found[0].message);
        assert!(found[1].message.starts_with("table a.x, which is not"), "{}", found[1].message);
        let only = "schema.history.internal.store.only.captured.tables.ddl".to_owned();
        config.source.connector_properties.0.insert(only, "true".to_owned());
        assert_eq!(unreadable(&config, &["a.x".into()]), []);
    }

    #[test]
    fn names_that_a_mirror_cannot_have_are_refused() {
        let long = "ü".repeat(32);
        let columns = vec![typed(&long, "int"), typed("short", "int")];
        let table = Table { name: "s.t".into(), columns, ..Table::default() };
        let found = names(&table);
        assert_eq!((found.len(), found[0].level), (1, Level::Error));
        assert!(found[0].message.contains("has 64 bytes"), "{}", found[0].message);
    }

    #[test]
    fn a_year_that_fills_another_byte_is_refused_on_old_servers() {
        let table = |numbers: usize| {
            let mut columns = vec![typed("born", "year(4)")];
            columns.extend((0..numbers).map(|n| typed(&n.to_string(), "int(11)")));
            Table { name: "s.t".into(), columns, ..Table::default() }
        };
        assert!(miscounted_years("8.0.15", &table(8)).is_some());
        assert!(miscounted_years("8.0.15", &table(7)).is_none());
        assert!(miscounted_years("8.0.15", &table(9)).is_none());
        assert!(miscounted_years("8.0.36", &table(8)).is_none());
        assert!(miscounted_years("10.11.6-MariaDB", &table(8)).is_none());
    }

    #[test]
    fn zero_dates_are_told_where_they_can_be() {
        let tables = [Table { columns: vec![typed("at", "datetime(3)")], ..Table::default() }];
        assert!(zero_dates("STRICT_TRANS_TABLES", &tables).is_some());
        assert!(zero_dates("NO_ZERO_DATE,NO_ZERO_IN_DATE", &tables).is_none());
        assert!(zero_dates("", &[Table::default()]).is_none());
    }
}
