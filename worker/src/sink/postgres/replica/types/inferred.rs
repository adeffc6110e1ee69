//! The type of a column by what the record says alone: the connector's name of the meaning,
//! Avro's logical type, the Avro type.

use cdc_shared::avro::{Kind, NodeId, Plan, Semantic};

use super::TypeOptions;
use super::pg_type::{Digits, PgType};

/// The target's type; `None` where none holds the value.
pub(super) fn target_type(plan: &Plan, node: NodeId, options: &TypeOptions) -> Option<PgType> {
    let ty = plan.ty(node);
    let by_meaning = match ty.semantic {
        Semantic::Decimal { scale, precision } => PgType::Numeric(decimal(scale, precision)),
        Semantic::VariableScaleDecimal => PgType::Numeric(None),
        Semantic::Date | Semantic::IsoDate => PgType::Date,
        Semantic::Time | Semantic::MicroTime | Semantic::NanoTime | Semantic::IsoTime => {
            time_of_day(options)
        }
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
        Semantic::Ltree | Semantic::Enum | Semantic::EnumSet => PgType::Text,
        Semantic::DoubleVector => PgType::Array(Box::new(PgType::Float8)),
        Semantic::FloatVector => PgType::Array(Box::new(PgType::Float4)),
        Semantic::SparseVector => PgType::Jsonb,
        Semantic::Point | Semantic::Geometry | Semantic::Geography => PgType::Bytea,
        Semantic::Plain => return by_kind(plan, node, options),
    };
    Some(by_meaning)
}

/// Avro says a precision of 64 where nobody has set one.
fn decimal(scale: i32, precision: Option<u32>) -> Option<Digits> {
    let precision = precision.filter(|precision| *precision != 64)?;
    Some(Digits { precision, scale })
}

/// MySQL's TIME is a signed span of up to 838 hours.
fn time_of_day(options: &TypeOptions) -> PgType {
    match options.source {
        cdc_shared::config::SourceType::Postgres => PgType::Time(None),
        _ => PgType::Interval,
    }
}

fn by_kind(plan: &Plan, node: NodeId, options: &TypeOptions) -> Option<PgType> {
    Some(match plan.kind(node) {
        Kind::Boolean => PgType::Bool,
        Kind::Int => match plan.ty(node).connect_type.as_deref() {
            Some("int8" | "int16") => PgType::Int2,
            _ => PgType::Int4,
        },
        Kind::Long => PgType::Int8,
        Kind::Float => PgType::Float4,
        Kind::Double => PgType::Float8,
        Kind::Bytes | Kind::Fixed(_) => PgType::Bytea,
        Kind::String | Kind::Enum(_) => PgType::Text,
        Kind::Array(item) => {
            let item = match plan.kind(item) {
                Kind::Optional { inner, .. } => inner,
                _ => item,
            };
            match target_type(plan, item, options)? {
                // What is an array of arrays at the source does not arrive.
                PgType::Array(_) => return None,
                item => PgType::Array(Box::new(item)),
            }
        }
        Kind::Map(_) => PgType::Jsonb,
        Kind::Null | Kind::Record { .. } | Kind::Optional { .. } | Kind::Union { .. } => {
            return None;
        }
    })
}
