//! PostgreSQL types as the sink knows them: written and read in the spelling of `format_type()`.

use std::fmt;

/// `numeric(precision, scale)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digits {
    /// Digits in all.
    pub(super) precision: u32,
    /// Digits behind the point; negative rounds before it (PostgreSQL 15 and later).
    pub(super) scale: i32,
}

/// A type of the target. A time's precision is `None` where it is PostgreSQL's own, 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PgType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric(Option<Digits>),
    Text,
    Varchar(Option<u32>),
    Bpchar(Option<u32>),
    Bytea,
    Bit(u32),
    Varbit(Option<u32>),
    Date,
    Time(Option<u8>),
    Timetz(Option<u8>),
    Timestamp(Option<u8>),
    Timestamptz(Option<u8>),
    Interval,
    Uuid,
    Json,
    Jsonb,
    Money,
    Point,
    /// A type of `pg_catalog` whose values travel as text, by its name.
    Plain(&'static str),
    /// A type of an extension, or one that users made.
    Other {
        /// Where it lives; `None` as far as unknown.
        schema: Option<String>,
        /// `pg_type.typname`.
        name: String,
        /// What stands in its brackets: `(3)`.
        modifier: Option<String>,
    },
    Array(Box<PgType>),
}

/// Types of `pg_catalog` that travel as text, as `format_type()` spells them and as `typname`.
const PLAIN: &[(&str, &str)] = &[
    ("inet", "inet"),
    ("cidr", "cidr"),
    ("macaddr", "macaddr"),
    ("macaddr8", "macaddr8"),
    ("xml", "xml"),
    ("oid", "oid"),
    ("name", "name"),
    ("\"char\"", "char"),
    ("int4range", "int4range"),
    ("int8range", "int8range"),
    ("numrange", "numrange"),
    ("tsrange", "tsrange"),
    ("tstzrange", "tstzrange"),
    ("daterange", "daterange"),
    ("tsvector", "tsvector"),
];

impl PgType {
    /// One of the types that travel as text, by `typname`.
    pub(super) fn plain(typname: &str) -> Option<Self> {
        PLAIN.iter().find(|(_, name)| *name == typname).map(|(_, name)| Self::Plain(name))
    }

    /// The name for a cast, with its schema and without a modifier: a modifier in an explicit
    /// cast cuts and rounds in silence.
    pub(super) fn cast_name(&self) -> String {
        let name = match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric(_) => "numeric",
            Self::Text => "text",
            Self::Varchar(_) => "varchar",
            Self::Bpchar(_) => "bpchar",
            Self::Bytea => "bytea",
            // Without a length it would mean bit(1).
            Self::Bit(length) => return format!("pg_catalog.bit({length})"),
            Self::Varbit(_) => "varbit",
            Self::Date => "date",
            Self::Time(_) => "time",
            Self::Timetz(_) => "timetz",
            Self::Timestamp(_) => "timestamp",
            Self::Timestamptz(_) => "timestamptz",
            Self::Interval => "interval",
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Money => "money",
            Self::Point => "point",
            Self::Plain("char") => "\"char\"",
            Self::Plain(name) => name,
            Self::Other { schema: Some(schema), name, .. } => {
                return format!("{}.{}", quoted(schema), quoted(name));
            }
            Self::Other { schema: None, name, .. } => return quoted(name),
            Self::Array(item) => return format!("{}[]", item.cast_name()),
        };
        format!("pg_catalog.{name}")
    }

    /// Reads a type in the spelling of `format_type()`.
    pub(super) fn parse(text: &str) -> Self {
        if let Some(item) = text.strip_suffix("[]") {
            return Self::Array(Box::new(Self::parse(item)));
        }
        let (name, modifier) = split_modifier(text);
        let numbers: Vec<i64> = modifier
            .iter()
            .flat_map(|modifier| modifier.split(','))
            .filter_map(|part| part.trim().parse().ok())
            .collect();
        let first = numbers.first().copied();
        let length = first.and_then(|n| u32::try_from(n).ok());
        let precision = first.and_then(|n| u8::try_from(n).ok()).filter(|digits| *digits < 6);
        match name.as_str() {
            "boolean" => Self::Bool,
            "smallint" => Self::Int2,
            "integer" => Self::Int4,
            "bigint" => Self::Int8,
            "real" => Self::Float4,
            "double precision" => Self::Float8,
            "numeric" => Self::Numeric(digits(&numbers)),
            "text" => Self::Text,
            "character varying" => Self::Varchar(length),
            // format_type() spells the type without a length `bpchar`.
            "character" => Self::Bpchar(Some(length.unwrap_or(1))),
            "bpchar" => Self::Bpchar(length),
            "bytea" => Self::Bytea,
            "bit" => Self::Bit(length.unwrap_or(1)),
            "bit varying" => Self::Varbit(length),
            "date" => Self::Date,
            "time without time zone" => Self::Time(precision),
            "time with time zone" => Self::Timetz(precision),
            "timestamp without time zone" => Self::Timestamp(precision),
            "timestamp with time zone" => Self::Timestamptz(precision),
            "interval" => Self::Interval,
            "uuid" => Self::Uuid,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "money" => Self::Money,
            "point" => Self::Point,
            other => match PLAIN.iter().find(|(shown, _)| *shown == other) {
                Some((_, name)) => Self::Plain(name),
                None => other_type(other, modifier),
            },
        }
    }
}

/// `time(3) without time zone` is `time without time zone` with the modifier `3`.
fn split_modifier(text: &str) -> (String, Option<String>) {
    let Some((before, rest)) = text.split_once('(') else { return (text.to_owned(), None) };
    let Some((modifier, after)) = rest.split_once(')') else { return (text.to_owned(), None) };
    (format!("{before}{after}"), Some(modifier.to_owned()))
}

fn digits(numbers: &[i64]) -> Option<Digits> {
    let precision = u32::try_from(*numbers.first()?).ok()?;
    let scale = i32::try_from(numbers.get(1).copied().unwrap_or(0)).ok()?;
    Some(Digits { precision, scale })
}

fn other_type(name: &str, modifier: Option<String>) -> PgType {
    let (schema, name) = match split_schema(name) {
        Some((schema, name)) => (Some(unquoted(schema)), name),
        None => (None, name),
    };
    PgType::Other { schema, name: unquoted(name), modifier }
}

/// The point between schema and name, past a quoted schema.
fn split_schema(name: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let point = name.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b'.' && !quoted
    })?;
    Some((name.get(..point)?, name.get(point + 1..)?))
}

fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// An identifier in double quotes, always.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for PgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |f: &mut fmt::Formatter<'_>, name: &str, length: &Option<u32>| match length {
            Some(length) => write!(f, "{name}({length})"),
            None => f.write_str(name),
        };
        let clock = |f: &mut fmt::Formatter<'_>, name: &str, digits: &Option<u8>, zone: &str| {
            match digits {
                Some(digits) => write!(f, "{name}({digits}) {zone} time zone"),
                None => write!(f, "{name} {zone} time zone"),
            }
        };
        match self {
            Self::Bool => f.write_str("boolean"),
            Self::Int2 => f.write_str("smallint"),
            Self::Int4 => f.write_str("integer"),
            Self::Int8 => f.write_str("bigint"),
            Self::Float4 => f.write_str("real"),
            Self::Float8 => f.write_str("double precision"),
            Self::Numeric(None) => f.write_str("numeric"),
            Self::Numeric(Some(digits)) => {
                write!(f, "numeric({},{})", digits.precision, digits.scale)
            }
            Self::Text => f.write_str("text"),
            Self::Varchar(digits) => length(f, "character varying", digits),
            Self::Bpchar(None) => f.write_str("bpchar"),
            Self::Bpchar(digits) => length(f, "character", digits),
            Self::Bytea => f.write_str("bytea"),
            Self::Bit(digits) => write!(f, "bit({digits})"),
            Self::Varbit(digits) => length(f, "bit varying", digits),
            Self::Date => f.write_str("date"),
            Self::Time(digits) => clock(f, "time", digits, "without"),
            Self::Timetz(digits) => clock(f, "time", digits, "with"),
            Self::Timestamp(digits) => clock(f, "timestamp", digits, "without"),
            Self::Timestamptz(digits) => clock(f, "timestamp", digits, "with"),
            Self::Interval => f.write_str("interval"),
            Self::Uuid => f.write_str("uuid"),
            Self::Json => f.write_str("json"),
            Self::Jsonb => f.write_str("jsonb"),
            Self::Money => f.write_str("money"),
            Self::Point => f.write_str("point"),
            Self::Plain("char") => f.write_str("\"char\""),
            Self::Plain(name) => f.write_str(name),
            Self::Other { schema, name, modifier } => {
                if let Some(schema) = schema {
                    write!(f, "{}.", quoted(schema))?;
                }
                f.write_str(&quoted(name))?;
                modifier.iter().try_for_each(|modifier| write!(f, "({modifier})"))
            }
            Self::Array(item) => write!(f, "{item}[]"),
        }
    }
}
