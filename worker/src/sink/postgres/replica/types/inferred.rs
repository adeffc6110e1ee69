//! The type of a column by what the record says alone: the connector's name of the meaning,
//! Avro's logical type, the Avro type.

use cdc_shared::avro::{Column, Kind, NodeId, Plan, Semantic, SourceType as Declared};
use cdc_shared::config::SourceType as Source;

use super::declared::UNCONSTRAINED;
use super::enums::EnumType;
use super::options::TypeOptions;
use super::pg_type::{Digits, PgType};

/// The target's type; `None` where none holds the value.
pub(super) fn target_type(plan: &Plan, column: &Column, options: &TypeOptions) -> Option<PgType> {
    of_node(plan, column, column.node, options)
}

/// A node with its `Optional` taken off.
pub(super) fn value_node(plan: &Plan, node: NodeId) -> NodeId {
    match plan.kind(node) {
        Kind::Optional { inner, .. } => inner,
        _ => node,
    }
}

/// A type of an extension, as far as the target has it.
fn extension(name: &str) -> PgType {
    PgType::Other { schema: None, name: name.to_owned(), modifier: None }
}

fn of_node(plan: &Plan, column: &Column, node: NodeId, options: &TypeOptions) -> Option<PgType> {
    let ty = plan.ty(node);
    let by_meaning = match ty.semantic {
        Semantic::Decimal { scale, precision } => PgType::Numeric(decimal(scale, precision)),
        Semantic::VariableScaleDecimal => PgType::Numeric(None),
        Semantic::Date | Semantic::IsoDate => PgType::Date,
        Semantic::Time => time_of_day(Some(3), options),
        Semantic::MicroTime | Semantic::NanoTime | Semantic::IsoTime => time_of_day(None, options),
        Semantic::Timestamp => PgType::Timestamp(Some(3)),
        Semantic::MicroTimestamp | Semantic::NanoTimestamp | Semantic::IsoTimestamp => {
            PgType::Timestamp(None)
        }
        Semantic::InstantMillis => PgType::Timestamptz(Some(3)),
        Semantic::InstantMicros | Semantic::InstantNanos | Semantic::ZonedTimestamp => {
            PgType::Timestamptz(None)
        }
        Semantic::ZonedTime => PgType::Timetz(None),
        Semantic::MicroDuration | Semantic::NanoDuration | Semantic::Interval => PgType::Interval,
        Semantic::Year => PgType::Int4,
        Semantic::Bits { length } => PgType::Bit(length?),
        // Which of the two it was is not known; this one keeps the text.
        Semantic::Json => PgType::Json,
        Semantic::Xml => PgType::Plain("xml"),
        Semantic::Uuid => PgType::Uuid,
        Semantic::Tsvector => PgType::Plain("tsvector"),
        Semantic::Enum => match EnumType::of(column, ty, options) {
            Some(created) => created.pg_type(),
            None => PgType::Text,
        },
        Semantic::EnumSet => PgType::Text,
        Semantic::Ltree => extension("ltree"),
        Semantic::DoubleVector => extension("vector"),
        Semantic::FloatVector => PgType::Array(Box::new(PgType::Float4)),
        Semantic::SparseVector => extension("sparsevec"),
        // MySQL's points have a spatial reference, PostgreSQL's do not.
        Semantic::Point if options.source == Source::Postgres => PgType::Point,
        Semantic::Point | Semantic::Geometry => extension("geometry"),
        Semantic::Geography => extension("geography"),
        Semantic::Plain => return by_kind(plan, column, node, options),
    };
    Some(by_meaning)
}

/// Avro says a precision of 64 where nobody has set one.
fn decimal(scale: i32, precision: Option<u32>) -> Option<Digits> {
    let precision = precision.filter(|precision| *precision != 64)?;
    Some(Digits { precision, scale })
}

/// MySQL's TIME is a signed span of up to 838 hours.
fn time_of_day(digits: Option<u8>, options: &TypeOptions) -> PgType {
    match options.source {
        Source::Postgres => PgType::Time(digits),
        Source::Mysql | Source::Mariadb => PgType::Interval,
    }
}

fn by_kind(plan: &Plan, column: &Column, node: NodeId, options: &TypeOptions) -> Option<PgType> {
    Some(match plan.kind(node) {
        Kind::Boolean => PgType::Bool,
        Kind::Int => match plan.ty(node).connect_type.as_deref() {
            Some("int8" | "int16") => PgType::Int2,
            _ => PgType::Int4,
        },
        Kind::Long => PgType::Int8,
        Kind::Float => PgType::Float4,
        Kind::Double if options.source == Source::Postgres => {
            // With `decimal.handling.mode=double`; a domain over a double has a length of 17.
            let numeric = numeric_behind_domain(&column.source);
            numeric.filter(is_no_double).unwrap_or(PgType::Float8)
        }
        Kind::Double => PgType::Float8,
        Kind::Bytes | Kind::Fixed(_) => PgType::Bytea,
        Kind::String if options.source == Source::Postgres => {
            numeric_behind_domain(&column.source).unwrap_or(PgType::Text)
        }
        Kind::String | Kind::Enum(_) => PgType::Text,
        Kind::Array(item) => {
            match of_node(plan, column, value_node(plan, item), options)? {
                // What is an array of arrays at the source does not arrive.
                PgType::Array(_) => return None,
                item => PgType::Array(Box::new(item)),
            }
        }
        Kind::Map(_) => extension("hstore"),
        Kind::Null | Kind::Record { .. } | Kind::Optional { .. } | Kind::Union { .. } => {
            return None;
        }
    })
}

fn is_no_double(numeric: &PgType) -> bool {
    !matches!(numeric, PgType::Numeric(Some(Digits { precision: 17, scale: 17 })))
}

/// A domain's name hides its type, but not its digits: among the types that are sent as plain text
/// only `numeric` has a scale, or the length that Debezium gives a `numeric` without one. A domain
/// over `numeric(n,0)` looks like one over `varchar(n)` and stays text.
fn numeric_behind_domain(declared: &Declared) -> Option<PgType> {
    declared.type_name.as_ref()?;
    let length = declared.length?;
    match (length, declared.scale) {
        (0, None) | (UNCONSTRAINED, _) => Some(PgType::Numeric(None)),
        (1..=1000, Some(scale @ 1..=1000)) => Some(PgType::Numeric(Some(Digits {
            precision: u32::try_from(length).ok()?,
            scale: i32::try_from(scale).ok()?,
        }))),
        _ => None,
    }
}
