//! Names of mirrors: a pattern, and the names of a table at the source.

use std::fmt;

use crate::sink::name::{MAX_IDENTIFIER_BYTES, TableName, unquoted};

/// A table at the source, by the names in its events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SourceTable {
    /// Schema; of MySQL and MariaDB the database.
    pub(super) schema: String,
    /// Table.
    pub(super) table: String,
}

impl fmt::Display for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// `target_table`, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NamePattern {
    schema: Vec<Piece>,
    table: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Schema,
    Table,
}

impl NamePattern {
    /// Reads `table`, `schema.table`, with `{schema}` and `{table}` anywhere and either part in
    /// double quotes. As in SQL, text without quotes is folded to lower case; the source's names
    /// are taken exactly as they are.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str, default_schema: &str) -> Result<Self, String> {
        let parts = split(text);
        let (schema, table) = match parts.as_slice() {
            [table] => (default_schema, *table),
            [schema, table] => (*schema, *table),
            _ => return Err(format!("{text}: expected schema.table")),
        };
        Ok(Self {
            schema: pieces(schema).map_err(|why| format!("{text}: {why}"))?,
            table: pieces(table).map_err(|why| format!("{text}: {why}"))?,
        })
    }

    /// The schema, when it is the same for every table.
    pub(super) fn fixed_schema(&self) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.schema.iter().map(text).collect()
    }

    /// The mirror of a table.
    ///
    /// # Errors
    /// A name that PostgreSQL would cut, or that is empty.
    pub(super) fn of(&self, source: &SourceTable) -> Result<TableName, String> {
        let build = |pieces: &[Piece]| {
            let name: String = pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.as_str(),
                    Piece::Schema => &source.schema,
                    Piece::Table => &source.table,
                })
                .collect();
            match name.len() {
                0 => Err("a part of the name is empty".to_owned()),
                1..=MAX_IDENTIFIER_BYTES => Ok(name),
                bytes => Err(format!(
                    "\"{name}\" has {bytes} bytes, PostgreSQL keeps only {MAX_IDENTIFIER_BYTES}"
                )),
            }
        };
        Ok(TableName { schema: build(&self.schema)?, table: build(&self.table)? })
    }
}

/// Splits at the dots outside of quotes.
fn split(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c: char| {
        quoted ^= c == '"';
        c == '.' && !quoted
    })
    .collect()
}

fn pieces(part: &str) -> Result<Vec<Piece>, String> {
    let quoted = part.strip_prefix('"').map(|rest| rest.strip_suffix('"').ok_or(rest));
    let (mut rest, fold) = match quoted {
        Some(Ok(inside)) => (inside, false),
        Some(Err(_)) => return Err("a double quote is not closed".to_owned()),
        None => (part, true),
    };
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (text, after) = match rest.find('{') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if !text.is_empty() {
            let text = if fold { unquoted(text)? } else { text.replace("\"\"", "\"") };
            pieces.push(Piece::Text(text));
        }
        rest = after;
        if let Some(after) = rest.strip_prefix("{schema}") {
            pieces.push(Piece::Schema);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{table}") {
            pieces.push(Piece::Table);
            rest = after;
        } else if !rest.is_empty() {
            return Err(format!("`{rest}`: only {{schema}} and {{table}} are replaced"));
        }
    }
    if pieces.is_empty() { Err("a part of it is empty".to_owned()) } else { Ok(pieces) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pattern: &str, schema: &str, table: &str) -> Result<String, String> {
        let source = SourceTable { schema: schema.to_owned(), table: table.to_owned() };
        NamePattern::parse(pattern, "public")?.of(&source).map(|name| name.to_string())
    }

    #[test]
    fn the_sources_names_are_kept_as_they_are() {
        let is = |pattern, name: &str| {
            assert_eq!(named(pattern, "My Shop", "Order\"s").unwrap(), name, "{pattern}");
        };
        is("{schema}.{table}", r#""My Shop"."Order""s""#);
        is("{table}", r#""public"."Order""s""#);
        is("Mirror_{schema}.{table}_v2", r#""mirror_My Shop"."Order""s_v2""#);
        is(r#""Mirror.{schema}"."T ""{table}""#, r#""Mirror.My Shop"."T ""Order""s""#);
        is("lake.orders", r#""lake"."orders""#);
    }

    #[test]
    fn what_postgresql_would_cut_is_refused() {
        let long = "x".repeat(60);
        assert!(named("{schema}.{table}", "s", &"x".repeat(63)).is_ok());
        let why = named("{schema}.{table}_copy", "s", &long).unwrap_err();
        assert!(why.contains("65 bytes"), "{why}");
        assert!(named("{schema}.{table}", "", "t").unwrap_err().contains("empty"));
    }

    #[test]
    fn a_pattern_that_says_nothing_is_refused() {
        for pattern in ["", "a..b", "a.b.c", "{topic}.x", "\"a.b", "a-b.{table}", "{schema"] {
            assert!(NamePattern::parse(pattern, "public").is_err(), "{pattern}");
        }
        let fixed = |pattern| NamePattern::parse(pattern, "public").unwrap().fixed_schema();
        assert_eq!(fixed("lake.{table}"), Some("lake".to_owned()));
        assert_eq!(fixed("{schema}.{table}"), None);
    }
}
