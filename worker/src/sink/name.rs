//! Names of tables: written by a person as SQL would have them, kept as the catalog has them.

use std::fmt;

/// Longest identifier that PostgreSQL keeps (`NAMEDATALEN` less one); it cuts longer ones silently.
pub(super) const MAX_IDENTIFIER_BYTES: usize = 63;

/// A table with its schema. `Display` quotes both, ready for a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TableName {
    /// Schema, as in `pg_namespace.nspname`.
    pub(super) schema: String,
    /// Table, as in `pg_class.relname`.
    pub(super) table: String,
}

impl TableName {
    /// Reads `table`, `schema.table` or either part in double quotes. As in SQL, a part without
    /// quotes is folded to lower case, and a quote inside quotes is doubled.
    ///
    /// # Errors
    /// What is wrong with the name, in words.
    pub(super) fn parse(text: &str, default_schema: &str) -> Result<Self, String> {
        let mut parts = Vec::with_capacity(2);
        let mut rest = text;
        loop {
            let (part, after) =
                identifier(rest).map_err(|why| format!("table name {text}: {why}"))?;
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err(format!("table name {text}: unexpected text after the name")),
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => Ok(Self { schema: default_schema.to_owned(), table }),
            (Some(schema), Some(table), None) => Ok(Self { schema, table }),
            _ => Err(format!(
                "table name {text}: expected schema.table (the database has its own setting)"
            )),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// An identifier in double quotes.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Takes one identifier off the front of `text`.
fn identifier(text: &str) -> Result<(String, &str), String> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_identifier(quoted)?,
        None => plain_identifier(text)?,
    };
    if name.is_empty() {
        return Err("a part of it is empty".to_owned());
    }
    if name.contains('\0') {
        return Err("it contains a NUL character".to_owned());
    }
    if name.len() > MAX_IDENTIFIER_BYTES {
        return Err(format!(
            "\"{name}\" has {} bytes, PostgreSQL keeps only {MAX_IDENTIFIER_BYTES}",
            name.len()
        ));
    }
    Ok((name, rest))
}

fn quoted_identifier(mut text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    loop {
        let (part, rest) = text.split_once('"').ok_or("a double quote is not closed")?;
        name.push_str(part);
        match rest.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                text = next;
            }
            None => return Ok((name, rest)),
        }
    }
}

fn plain_identifier(text: &str) -> Result<(String, &str), String> {
    let end = text.find('.').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.starts_with(|c: char| !starts(c)) {
        return Err(format!("{name} needs double quotes: {}", quote(name)));
    }
    Ok((unquoted(name)?, rest))
}

fn starts(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

/// A part of a name that stands without quotes.
pub(super) fn unquoted(part: &str) -> Result<String, String> {
    if !part.chars().all(|c| starts(c) || c.is_ascii_digit() || c == '$') {
        return Err(format!("{part} needs double quotes: {}", quote(part)));
    }
    Ok(part.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (String, String) {
        let name = TableName::parse(text, "public").unwrap();
        (name.schema, name.table)
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(parsed("cdc_events"), pair("public", "cdc_events"));
        assert_eq!(parsed("Sales.CDC_Events"), pair("sales", "cdc_events"));
        assert_eq!(parsed(r#""Sales"."CDC.Events""#), pair("Sales", "CDC.Events"));
        assert_eq!(parsed(r#"s."a""b""#), pair("s", r#"a"b"#));
        assert_eq!(parsed("größe.t$1"), pair("größe", "t$1"));
    }

    #[test]
    fn a_bad_name_says_why() {
        let why = |text: &str| TableName::parse(text, "public").unwrap_err();
        assert!(why("").contains("empty"));
        assert!(why("a..b").contains("empty"));
        assert!(why("db.s.t").contains("expected schema.table"));
        assert!(why("my-table").contains("\"my-table\""));
        assert!(why("1st").contains("\"1st\""));
        assert!(why("t; drop table x").contains("double quotes"));
        assert!(why(r#""open"#).contains("not closed"));
        assert!(why(r#""a"b"#).contains("after the name"));
        assert!(why(&"x".repeat(64)).contains("64 bytes"));
        assert!(TableName::parse(&"x".repeat(63), "public").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_quoted_is_read_back(schema in "[^\0]{1,15}", table in "[^\0]{1,15}") {
            let name = TableName { schema, table };
            prop_assert_eq!(TableName::parse(&name.to_string(), "public"), Ok(name));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = TableName::parse(&text, "public");
        }
    }
}
