//! The source's own name of a type (`__debezium.source.column.type`) and what it is in PostgreSQL.

use cdc_shared::avro::SourceType as Declared;
use cdc_shared::config::SourceType as Source;

use super::enums::local_name;
use super::pg_type::{Digits, PgType};

/// Debezium's length of a `numeric` without precision, while streaming.
pub(super) const UNCONSTRAINED: i64 = 131_089;

/// The target's type; `None` for a name that says nothing here: domains and types that users made.
pub(super) fn target_type(source: Source, declared: &Declared) -> Option<PgType> {
    let name = declared.type_name.as_deref()?;
    match source {
        Source::Postgres => postgres(name, declared),
        Source::Mysql | Source::Mariadb => mysql(name, declared),
    }
}

fn postgres(name: &str, declared: &Declared) -> Option<PgType> {
    let name = local_name(name);
    if let Some(item) = name.strip_prefix('_') {
        return Some(PgType::Array(Box::new(postgres(item, declared)?)));
    }
    // A text without a length has Java's largest number in a snapshot.
    let length = declared
        .length
        .and_then(|length| u32::try_from(length).ok())
        .filter(|length| (1..=10_485_760).contains(length));
    let clock = declared.scale.and_then(|scale| u8::try_from(scale).ok()).filter(|n| *n < 6);
    Some(match name.as_str() {
        "bool" => PgType::Bool,
        "int2" | "smallserial" => PgType::Int2,
        "int4" | "serial" => PgType::Int4,
        "int8" | "bigserial" => PgType::Int8,
        "float4" => PgType::Float4,
        "float8" => PgType::Float8,
        "numeric" => PgType::Numeric(postgres_digits(declared)),
        "text" => PgType::Text,
        "varchar" => PgType::Varchar(length),
        "bpchar" => PgType::Bpchar(length),
        "bytea" => PgType::Bytea,
        "bit" => PgType::Bit(length.unwrap_or(1)),
        "varbit" => PgType::Varbit(length),
        "date" => PgType::Date,
        "time" => PgType::Time(clock),
        "timetz" => PgType::Timetz(clock),
        "timestamp" => PgType::Timestamp(clock),
        "timestamptz" => PgType::Timestamptz(clock),
        "interval" => PgType::Interval,
        "uuid" => PgType::Uuid,
        "json" => PgType::Json,
        "jsonb" => PgType::Jsonb,
        "money" => PgType::Money,
        "point" => PgType::Point,
        "hstore" | "citext" | "ltree" | "geometry" | "geography" | "vector" | "halfvec"
        | "sparsevec" => PgType::Other { schema: None, name, modifier: None },
        plain => return PgType::plain(plain),
    })
}

/// A scale is kept in eleven bits, so that a negative one (PostgreSQL 15) arrives above 1000.
fn postgres_digits(declared: &Declared) -> Option<Digits> {
    let precision = declared.length.filter(|length| (1..UNCONSTRAINED).contains(length))?;
    let precision = u32::try_from(precision).ok().filter(|precision| *precision <= 1000)?;
    let scale = match declared.scale.unwrap_or(0) {
        scale @ 1001..=2047 => scale - 2048,
        scale => scale,
    };
    Some(Digits { precision, scale: i32::try_from(scale).ok()? })
}

fn mysql(name: &str, declared: &Declared) -> Option<PgType> {
    let name = name.to_ascii_uppercase();
    let unsigned = name.contains("UNSIGNED") || name.contains("ZEROFILL") || name == "SERIAL";
    let base = name.replace(" UNSIGNED", "").replace(" ZEROFILL", "").replace(" SIGNED", "");
    let length = declared.length.and_then(|length| u32::try_from(length).ok());
    let clock = u8::try_from(declared.length.unwrap_or(0)).ok().filter(|digits| *digits < 6);
    Some(match base.as_str() {
        "SMALLINT" | "INT2" if unsigned => PgType::Int4,
        "BOOL" | "BOOLEAN" | "TINYINT" | "INT1" | "SMALLINT" | "INT2" => PgType::Int2,
        "INT" | "INTEGER" | "INT4" if unsigned => PgType::Int8,
        "MEDIUMINT" | "INT3" | "MIDDLEINT" | "INT" | "INTEGER" | "INT4" | "YEAR" => PgType::Int4,
        "BIGINT" | "INT8" | "SERIAL" if unsigned => {
            PgType::Numeric(Some(Digits { precision: 20, scale: 0 }))
        }
        "BIGINT" | "INT8" => PgType::Int8,
        "DECIMAL" | "NUMERIC" | "DEC" | "FIXED" => PgType::Numeric(Some(Digits {
            precision: length.unwrap_or(10),
            scale: declared.scale.and_then(|scale| i32::try_from(scale).ok()).unwrap_or(0),
        })),
        // PostgreSQL would pad a CHAR with blanks, where MySQL takes them off.
        "CHAR" | "VARCHAR" | "NCHAR" | "NVARCHAR" | "CHARACTER" | "NATIONAL CHAR"
        | "NATIONAL VARCHAR" | "CHARACTER VARYING" | "CHAR VARYING" => {
            PgType::Varchar(Some(length.unwrap_or(1)))
        }
        "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "LONG" | "LONG VARCHAR" | "ENUM"
        | "SET" => PgType::Text,
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB"
        | "LONG VARBINARY" => PgType::Bytea,
        "FLOAT" => PgType::Float4,
        "BIT" => match length.unwrap_or(1) {
            1 => PgType::Bool,
            length => PgType::Bit(length),
        },
        "DATE" => PgType::Date,
        "TIME" => PgType::Interval,
        "DATETIME" => PgType::Timestamp(clock),
        "TIMESTAMP" => PgType::Timestamptz(clock),
        // A binary form without text of its own: the connector writes it one way in the snapshot
        // and another while streaming.
        "JSON" => PgType::Jsonb,
        "UUID" => PgType::Uuid,
        "INET4" | "INET6" => PgType::Plain("inet"),
        _ => return None,
    })
}
