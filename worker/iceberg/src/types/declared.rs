//! What the source's own name of a type (`__debezium.source.column.type`) says beyond what the
//! record says.

use cdc_shared::avro::SourceType as Declared;
use cdc_shared::config::SourceType as Source;

/// Debezium's length of a `numeric` without precision, while streaming.
const UNCONSTRAINED: i64 = 131_089;

/// Types that the record alone does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// A decimal number: precision and scale, where it has any.
    Number(Option<(u32, i32)>),
    /// An amount of money.
    Money,
    /// An integer of 64 bits without sign.
    Unsigned,
    /// Bytes, which may be sent as text.
    Bytes,
    /// So many bits.
    Bits(Option<u32>),
    /// A time of day with so many digits behind the second.
    Clock(u8),
    /// The same with a zone.
    ZonedClock(u8),
    /// A span of time of `MySQL`.
    Span,
    /// PostgreSQL's `bit varying`.
    VarBits,
    /// PostgreSQL's `name`.
    Name,
    /// Another one, or none that is known.
    Other,
}

/// Reads it. The item's type of an array.
pub(super) fn known(source: Source, declared: &Declared) -> Known {
    let Some(name) = declared.type_name.as_deref() else { return Known::Other };
    match source {
        Source::Postgres => postgres(name, declared),
        Source::Mysql | Source::Mariadb => mysql(name, declared),
    }
}

fn postgres(name: &str, declared: &Declared) -> Known {
    let plain = name.rsplit('.').next().unwrap_or(name).trim_matches('"').to_ascii_lowercase();
    let clock = declared.scale.and_then(|scale| u8::try_from(scale).ok()).filter(|n| *n < 6);
    let bits = declared.length.and_then(|length| u32::try_from(length).ok());
    match plain.trim_start_matches('_') {
        "numeric" => Known::Number(postgres_digits(declared)),
        "money" => Known::Money,
        "bytea" => Known::Bytes,
        "bit" => Known::Bits(bits),
        "time" | "timestamp" => Known::Clock(clock.unwrap_or(6)),
        "timetz" => Known::ZonedClock(clock.unwrap_or(6)),
        "varbit" => Known::VarBits,
        "name" => Known::Name,
        "bool" | "int2" | "int4" | "int8" | "smallserial" | "serial" | "bigserial" | "float4"
        | "float8" | "text" | "varchar" | "bpchar" | "date" | "timestamptz" | "interval"
        | "uuid" | "json" | "jsonb" | "xml" | "inet" | "cidr" | "citext" => Known::Other,
        _ => numeric_behind_domain(declared),
    }
}

/// A scale is kept in eleven bits, so that a negative one (PostgreSQL 15) arrives above 1000.
fn postgres_digits(declared: &Declared) -> Option<(u32, i32)> {
    let precision = declared.length.filter(|length| (1..UNCONSTRAINED).contains(length))?;
    let scale = match declared.scale.unwrap_or(0) {
        scale @ 1001..=2047 => scale - 2048,
        scale => scale,
    };
    Some((u32::try_from(precision).ok()?, i32::try_from(scale).ok()?))
}

/// A domain's name hides its type, but not its digits: among the types that are sent as plain text
/// only `numeric` has a scale, or the length that Debezium gives a `numeric` without one.
fn numeric_behind_domain(declared: &Declared) -> Known {
    match (declared.length, declared.scale) {
        (Some(UNCONSTRAINED), _) => Known::Number(None),
        (Some(1..=1000), Some(1..=1000)) => Known::Number(postgres_digits(declared)),
        _ => Known::Other,
    }
}

fn mysql(name: &str, declared: &Declared) -> Known {
    let name = name.to_ascii_uppercase();
    let unsigned = name.contains("UNSIGNED") || name.contains("ZEROFILL") || name == "SERIAL";
    let base = name.replace(" UNSIGNED", "").replace(" ZEROFILL", "").replace(" SIGNED", "");
    let length = declared.length.and_then(|length| u32::try_from(length).ok());
    match base.as_str() {
        "BIGINT" | "INT8" | "SERIAL" if unsigned => Known::Unsigned,
        "DECIMAL" | "NUMERIC" | "DEC" | "FIXED" => {
            let scale = declared.scale.and_then(|scale| i32::try_from(scale).ok()).unwrap_or(0);
            Known::Number(Some((length.unwrap_or(10), scale)))
        }
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => Known::Bytes,
        "BIT" => Known::Bits(length),
        "TIME" => Known::Span,
        "DATETIME" => Known::Clock(length.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)),
        _ => Known::Other,
    }
}
