//! What is compared, and how it is written in SQL so that both sides say the same of equal rows.
//! Pure.

use std::cmp::Ordering;

use super::failure::TaskFailure;
use super::mysql;
use super::shape::{Column, Shape};
use crate::sink::name::quote;

/// Both sides of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Plan {
    /// The source's.
    pub(in crate::sink) source: SidePlan,
    /// The mirror's.
    pub(in crate::sink) mirror: SidePlan,
    /// Names of the key's columns.
    pub(in crate::sink) key: Vec<String>,
    /// Names of all compared columns.
    pub(in crate::sink) columns: Vec<String>,
    /// Of each of the key's columns, whether both sides order it by its values. If not, it is
    /// ordered by its text's bytes.
    pub(in crate::sink) native: Vec<bool>,
    /// What a person should know.
    pub(in crate::sink) notes: Vec<String>,
    /// Places of MySQL's JSON documents among the columns.
    pub(in crate::sink) documents: Vec<usize>,
}

/// One side of a table in SQL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct SidePlan {
    /// The table, quoted.
    pub(in crate::sink) table: String,
    /// The key's columns.
    pub(in crate::sink) key: Vec<KeyColumn>,
    /// An expression of type text per compared column.
    pub(in crate::sink) texts: Vec<String>,
}

/// A column of the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct KeyColumn {
    /// The column, quoted.
    pub(in crate::sink) column: String,
    /// Expression of type text.
    pub(in crate::sink) text: String,
    /// What the order goes by.
    pub(in crate::sink) order: String,
    /// The type of `order`, to turn a text into a bound.
    pub(in crate::sink) bound: String,
    /// The column's type, to look a key up.
    pub(in crate::sink) lookup: String,
}

/// Decides what is compared of two tables that are both walked in the order of their keys.
///
/// # Errors
/// As [`of_rows`].
pub(in crate::sink) fn plan(source: &Shape, mirror: &Shape) -> Result<Plan, TaskFailure> {
    let mut plan = of_rows(source, mirror)?;
    if !plan.is_indexed() {
        let note = "the two databases order the key's texts differently: each chunk is sorted anew, \
                    which takes long for a large table";
        plan.notes.insert(0, note.to_owned());
    }
    Ok(plan)
}

/// Decides what is compared.
///
/// Columns that the source computes are left out: the mirror may compute them, or lack them. A
/// column that the mirror does not have counts as NULL there.
///
/// # Errors
/// A table that has no key, or a mirror without the key's columns.
pub(in crate::sink) fn of_rows(source: &Shape, mirror: &Shape) -> Result<Plan, TaskFailure> {
    let keys = key_columns(source, mirror)?;
    let native: Vec<bool> = keys.iter().map(|(s, m)| same_order(s, m)).collect();
    let mut notes = Vec::new();
    let (mut columns, mut source_texts, mut mirror_texts) = (Vec::new(), Vec::new(), Vec::new());
    for column in source.columns.iter().filter(|column| !column.generated) {
        let twin = mirror.columns.iter().find(|twin| twin.name == column.name);
        if twin.is_none() {
            notes.push(format!(
                "column {} is not in the mirror (yet), which counts as NULL there",
                column.name
            ));
        }
        let (s, m) = texts(column, twin);
        columns.push(column.name.clone());
        source_texts.push(s);
        mirror_texts.push(m);
    }
    let side = |shape: &Shape, mirror: bool, texts: Vec<String>| SidePlan {
        table: shape.name.to_string(),
        key: keys
            .iter()
            .zip(&native)
            .map(|((s, m), native)| {
                key_column(if mirror { m } else { s }, *native, &texts_of(s, m, mirror))
            })
            .collect(),
        texts,
    };
    Ok(Plan {
        key: keys.iter().map(|(s, _)| s.name.clone()).collect(),
        source: side(source, false, source_texts),
        mirror: side(mirror, true, mirror_texts),
        columns,
        native,
        notes,
        documents: Vec::new(),
    })
}

impl Plan {
    /// Whether the key's order is that of its index on both sides.
    pub(in crate::sink) fn is_indexed(&self) -> bool {
        !self.native.contains(&false)
    }
}

fn texts_of(source: &Column, mirror: &Column, of_mirror: bool) -> String {
    let (s, m) = texts(source, Some(mirror));
    if of_mirror { m } else { s }
}

/// The key's columns on both sides, in the order of the source's primary key.
fn key_columns<'s>(
    source: &'s Shape,
    mirror: &'s Shape,
) -> Result<Vec<(&'s Column, &'s Column)>, TaskFailure> {
    let mut key: Vec<&Column> = source.columns.iter().filter(|c| c.key.is_some()).collect();
    key.sort_by_key(|column| column.key);
    if key.is_empty() {
        let message = format!("table {} has no primary key: its rows have no names", source.name);
        return Err(TaskFailure::failed(message));
    }
    key.into_iter()
        .map(|column| {
            let twin = mirror.columns.iter().find(|twin| twin.name == column.name);
            twin.map(|twin| (column, twin)).ok_or_else(|| {
                let name = &column.name;
                TaskFailure::failed(format!(
                    "{} lacks column {name}, which is in the key of {}: it is no mirror of it",
                    mirror.name, source.name
                ))
                .hint("check target_table")
            })
        })
        .collect()
}

fn key_column(column: &Column, native: bool, text: &str) -> KeyColumn {
    let quoted = quote(&column.name);
    let (order, bound) = if native {
        (format!("t.{quoted}"), column.bare.clone())
    } else {
        (format!("({text}) COLLATE \"C\""), "text".to_owned())
    };
    let lookup = column.bare.clone();
    KeyColumn { column: format!("t.{quoted}"), text: text.to_owned(), order, bound, lookup }
}

/// Whether the values of two columns have one order on both servers.
fn same_order(source: &Column, mirror: &Column) -> bool {
    let family = |column: &Column| match column.base.as_str() {
        "smallint" | "integer" | "bigint" | "numeric" => "number",
        "real" | "double precision" => "float",
        "uuid" => "uuid",
        "date" => "date",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "bytea" => "bytea",
        "interval" => "interval",
        "boolean" => "boolean",
        "text" | "character varying" => "text",
        _ => "",
    };
    let (s, m) = (family(source), family(mirror));
    !s.is_empty() && s == m && source.order == mirror.order
}

/// The text of a column on both sides. Types that differ only in how much they can hold are
/// brought to the wider one, which loses nothing.
fn texts(source: &Column, mirror: Option<&Column>) -> (String, String) {
    let plain = |column: &Column| format!("t.{}::text", quote(&column.name));
    let cast = |column: &Column, to: &str| format!("t.{}::{to}::text", quote(&column.name));
    let Some(mirror) = mirror else { return (plain(source), "NULL::text".to_owned()) };
    match (source.base.as_str(), mirror.base.as_str()) {
        ("money", _) => (cast(source, "numeric"), cast(mirror, "numeric")),
        ("real", "double precision") => (cast(source, "double precision"), plain(mirror)),
        ("json", "jsonb") => (cast(source, "jsonb"), plain(mirror)),
        (mysql::shape::JSON, _) => (plain(source), cast(mirror, "text::jsonb")),
        // A text of fixed length loses its blanks when it becomes text, another keeps them.
        ("bpchar", other) if other != "bpchar" => {
            let trimmed = |column: &Column| format!("rtrim({}, ' ')", plain(column));
            (plain(source), trimmed(mirror))
        }
        ("numeric", "numeric") if holds_more(&source.declared, &mirror.declared) => {
            (cast(source, &mirror.declared), plain(mirror))
        }
        _ => (plain(source), plain(mirror)),
    }
}

/// Whether the second `numeric(p,s)` holds every value of the first with more digits behind the
/// point.
fn holds_more(source: &str, mirror: &str) -> bool {
    let digits = |declared: &str| -> Option<(i32, i32)> {
        let inside = declared.strip_prefix("numeric(")?.strip_suffix(')')?;
        let (precision, scale) = inside.split_once(',')?;
        Some((precision.parse().ok()?, scale.parse().ok()?))
    };
    let (Some(source), Some(mirror)) = (digits(source), digits(mirror)) else { return false };
    source.1.cmp(&mirror.1) == Ordering::Less && mirror.0 - mirror.1 >= source.0 - source.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::name::TableName;

    pub(in crate::sink) fn column(name: &str, declared: &str, key: Option<i16>) -> Column {
        let base = declared.split('(').next().unwrap_or_default().to_owned();
        Column {
            name: name.to_owned(),
            declared: declared.to_owned(),
            bare: base.clone(),
            order: if base == "text" { "C".to_owned() } else { String::new() },
            base,
            generated: false,
            key,
        }
    }

    fn shape(columns: Vec<Column>) -> Shape {
        let name = TableName { schema: "public".into(), table: "t".into() };
        Shape { name, columns, rows: 0 }
    }

    #[test]
    fn the_key_has_the_order_of_the_primary_key_and_needs_its_columns() {
        let columns = || vec![column("a", "bigint", Some(2)), column("b", "text", Some(1))];
        let found = plan(&shape(columns()), &shape(columns())).unwrap();
        assert_eq!(found.key, ["b", "a"]);
        assert!(found.is_indexed() && found.notes.is_empty());
        let keyless = shape(vec![column("a", "bigint", None)]);
        assert!(plan(&keyless, &keyless).unwrap_err().message.contains("no primary key"));
        let poor = shape(vec![column("a", "bigint", None)]);
        assert!(plan(&shape(columns()), &poor).unwrap_err().message.contains("lacks column b"));
    }

    #[test]
    fn texts_under_other_rules_are_ordered_by_their_bytes() {
        let of = |order: &str| Column { order: order.into(), ..column("k", "text", Some(1)) };
        let found = plan(&shape(vec![of("c de_DE 2.31")]), &shape(vec![of("c de_DE 2.36")]));
        let found = found.unwrap();
        assert!(!found.is_indexed());
        assert_eq!(found.source.key[0].order, r#"(t."k"::text) COLLATE "C""#);
        assert_eq!(found.source.key[0].bound, "text");
        assert_eq!(found.notes.len(), 1);
        let enums = plan(
            &shape(vec![column("k", "public.mood", Some(1))]),
            &shape(vec![column("k", "text", Some(1))]),
        );
        assert!(!enums.unwrap().is_indexed());
        let wider = plan(
            &shape(vec![column("k", "integer", Some(1))]),
            &shape(vec![column("k", "bigint", Some(1))]),
        );
        assert!(wider.unwrap().is_indexed());
    }

    #[test]
    fn what_the_mirror_lacks_is_null_and_what_the_source_computes_is_left_out() {
        let mut generated = column("twice", "integer", None);
        generated.generated = true;
        let source =
            shape(vec![column("id", "integer", Some(1)), column("new", "text", None), generated]);
        let found = plan(&source, &shape(vec![column("id", "integer", Some(1))])).unwrap();
        assert_eq!(found.columns, ["id", "new"]);
        assert_eq!(found.mirror.texts, [r#"t."id"::text"#, "NULL::text"]);
        assert!(found.notes[0].contains("column new"));
    }

    #[test]
    fn only_a_wider_number_is_written_alike() {
        let pair = |s: &str, m: &str| texts(&column("c", s, None), Some(&column("c", m, None)));
        let plain = r#"t."c"::text"#.to_owned();
        assert_eq!(pair("numeric", "numeric(12,2)"), (plain.clone(), plain.clone()));
        assert_eq!(pair("numeric(12,4)", "numeric(12,2)"), (plain.clone(), plain.clone()));
        assert_eq!(pair("numeric(12,2)", "numeric(14,4)").0, r#"t."c"::numeric(14,4)::text"#);
        assert_eq!(pair("numeric(12,2)", "numeric(12,4)").0, plain);
        assert_eq!(pair("real", "double precision").0, r#"t."c"::double precision::text"#);
        assert_eq!(pair("bpchar", "text").1, r#"rtrim(t."c"::text, ' ')"#);
    }
}
