//! In which form a column of the source and its column of the table are compared. Pure.
//!
//! What is compared are texts, those of a PostgreSQL with ISO dates in UTC. Most values have it on
//! both sides; where the table keeps another form, one side is brought to the other's, by the
//! source's own expression (`sql`) or here (`OfTable`). A pair of types that is not in the list is
//! not compared, which the report then says.

use cdc_shared::pg_text;

use crate::sink::verify::mysql;

/// How a text of the table becomes the one that is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfTable {
    /// It is the one.
    AsIs,
    /// A boolean that is a bit at the source.
    Bit,
    /// Without the blanks at its end, which a text of fixed length has.
    Trimmed,
    /// An integer, behind whose point there may be zeros.
    Whole,
    /// A JSON document, its members in one order and its numbers in one form.
    Json,
    /// An ISO duration.
    Interval,
    /// A struct of x, y and more.
    Point,
    /// A struct that ends in well-known binary and an SRID.
    Geometry,
}

/// The form of one column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form {
    /// The source's text, with `{}` for the column; `None`: the type's own text.
    pub sql: Option<&'static str>,
    /// The table's.
    pub of_table: OfTable,
}

impl OfTable {
    /// The text that is compared. One that has not its form stays, and differs.
    pub fn text(self, text: String) -> String {
        match self {
            Self::AsIs => text,
            Self::Bit => if text == "true" { "1" } else { "0" }.to_owned(),
            Self::Trimmed => text.trim_end_matches(' ').to_owned(),
            Self::Whole => match text.split_once('.') {
                Some((whole, part)) if part.bytes().all(|b| b == b'0') => whole.to_owned(),
                _ => text,
            },
            Self::Json => mysql::normal_json(&text).unwrap_or(text),
            Self::Interval => pg_text::interval(&text).unwrap_or(text),
            Self::Point => point(&text).unwrap_or(text),
            Self::Geometry => mysql::geometry(&text).unwrap_or(text),
        }
    }
}

/// The first two fields of a struct.
fn point(text: &str) -> Option<String> {
    let mut fields = text.strip_prefix('(')?.strip_suffix(')')?.split(',');
    Some(format!("({},{})", fields.next()?, fields.next()?))
}

const AS_IS: Form = Form { sql: None, of_table: OfTable::AsIs };

fn here(of_table: OfTable) -> Form {
    Form { sql: None, of_table }
}

fn there(sql: &'static str) -> Form {
    Form { sql: Some(sql), of_table: OfTable::AsIs }
}

/// Of a PostgreSQL source: the type under a domain, without brackets, the type as it is declared, and
/// the table's type as Iceberg writes it. `None`: they cannot be compared.
pub fn of_postgres(source: &str, declared: &str, table: &str) -> Option<Form> {
    if let Some(element) = source.strip_suffix("[]") {
        let inside = table.strip_prefix("list<")?.strip_suffix('>')?;
        // The server writes an array by the types' own texts, which others than these are not.
        let is_written_alike = matches!(element, "inet" | "bpchar" | "character");
        let is_alike = of_postgres(element, "", inside)? == AS_IS;
        return (is_alike || is_written_alike && inside == "string").then_some(AS_IS);
    }
    Some(match (source, table.split('(').next().unwrap_or_default()) {
        ("bit" | "\"bit\"", "boolean") => here(OfTable::Bit),
        ("boolean", "boolean")
        | ("smallint" | "integer", "int" | "long")
        | ("bigint" | "oid", "long")
        | ("real", "float" | "double")
        | ("double precision", "double")
        | ("numeric" | "money", "decimal")
        | ("date", "date")
        | ("timestamp without time zone", "timestamp")
        | ("timestamp with time zone", "timestamptz")
        | ("time without time zone", "time")
        | ("uuid", "uuid")
        | ("bytea", "binary") => AS_IS,
        ("point", table) if table.starts_with("struct<x: double, y: double") => {
            here(OfTable::Point)
        }
        // In these forms the sink keeps none of them as a text.
        (
            "boolean"
            | "smallint"
            | "integer"
            | "bigint"
            | "oid"
            | "real"
            | "double precision"
            | "money"
            | "date"
            | "timestamp without time zone"
            | "timestamp with time zone"
            | "time without time zone"
            | "uuid"
            | "bytea"
            | "point"
            | "name"
            | "bit varying",
            _,
        ) => return None,
        // The connector writes a scale below zero as thousands of zeros.
        ("numeric", "string") if declared.contains(",-") => here(OfTable::Whole),
        ("interval", "string") => here(OfTable::Interval),
        ("time with time zone", "string") => {
            there("replace(({} AT TIME ZONE 'UTC')::text, '+00', 'Z')")
        }
        // Its text has the length of the network always, what the connector reads has not.
        ("inet", "string") => there("abbrev({})"),
        ("bpchar" | "character", "string") => here(OfTable::Trimmed),
        (hstore, "string") if is_one_of(hstore, &["hstore"]) => {
            Form { sql: Some("{}::jsonb::text"), of_table: OfTable::Json }
        }
        (_, "string") => AS_IS,
        _ => return None,
    })
}

/// Whether it is one of these types, in whatever schema.
fn is_one_of(ty: &str, names: &[&str]) -> bool {
    names.iter().any(|name| ty == *name || ty.strip_suffix(name).is_some_and(|s| s.ends_with('.')))
}

/// The same of MySQL and MariaDB, whose values are written by the words that [`in_words`] has for the
/// table's type.
pub fn of_mysql(source: &str, table: &str) -> Option<OfTable> {
    Some(match (source, table.split('(').next().unwrap_or_default()) {
        ("json", "string") => OfTable::Json,
        (_, table) if table.ends_with("wkb: binary, srid: int>") => OfTable::Geometry,
        (
            _,
            "boolean" | "int" | "long" | "float" | "double" | "decimal" | "date" | "timestamp"
            | "timestamptz" | "binary" | "string",
        ) => OfTable::AsIs,
        _ => return None,
    })
}

/// A column type of Iceberg in PostgreSQL's words: with brackets, and without.
pub fn in_words(table: &str) -> (String, &'static str) {
    let base = match table.split('(').next().unwrap_or_default() {
        "boolean" => "boolean",
        "int" => "integer",
        "long" => "bigint",
        "float" => "real",
        "double" => "double precision",
        "decimal" => "numeric",
        "date" => "date",
        "time" => "time without time zone",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "binary" => "bytea",
        "uuid" => "uuid",
        "string" => "text",
        _ => "",
    };
    let declared = match table.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
        Some(digits) => format!("numeric({})", digits.replace(' ', "")),
        None => base.to_owned(),
    };
    (declared, base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_list_is_not_compared() {
        for (source, table) in [
            ("name", "string"),
            ("public.geometry", "struct<wkb: binary, srid: int>"),
            ("interval[]", "list<string>"),
            ("time with time zone[]", "list<string>"),
            ("public.hstore[]", "list<string>"),
            ("integer[]", "string"),
            ("bigint", "string"),
            ("uuid", "binary"),
        ] {
            assert_eq!(of_postgres(source, source, table), None, "{source} {table}");
        }
        assert_eq!(of_postgres("integer[]", "integer[]", "list<int>"), Some(AS_IS));
        assert_eq!(of_postgres("public.hstore", "", "string").unwrap().of_table, OfTable::Json);
        assert_eq!(of_mysql("varchar", "list<string>"), None);
    }

    #[test]
    fn types_have_words() {
        let words = |table: &str| in_words(table);
        assert_eq!(words("decimal(12, 2)"), ("numeric(12,2)".to_owned(), "numeric"));
        assert_eq!(
            words("timestamptz"),
            ("timestamp with time zone".to_owned(), "timestamp with time zone")
        );
        assert_eq!(words("list<int>").1, "");
    }

    #[test]
    fn forms_of_the_table() {
        let is = |of: OfTable, text: &str, wanted: &str| assert_eq!(of.text(text.into()), wanted);
        is(OfTable::Bit, "true", "1");
        is(OfTable::Trimmed, "ab  ", "ab");
        is(OfTable::Whole, "-100.000", "-100");
        is(OfTable::Whole, "-100.5", "-100.5");
        is(OfTable::Interval, "P0Y1M0DT0H0M0S", "1 mon");
        is(OfTable::Interval, "strange", "strange");
        is(OfTable::Point, "(1.5,-2,\\x00,0)", "(1.5,-2)");
        is(OfTable::Json, r#"{"bb":1,"a":2.0}"#, r#"{"a": 2, "bb": 1}"#);
        is(OfTable::Geometry, "(\\x0101000000,0)", "\\x0101000000");
    }
}
