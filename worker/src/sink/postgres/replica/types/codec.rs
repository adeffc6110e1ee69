//! How the cells of a column become values of its type: chosen once, from the type, the Avro type
//! and its meaning.

use cdc_shared::avro::{Kind, NodeId, Plan, Semantic};
use cdc_shared::config::{BinaryForm, SourceType as Source};

use super::inferred::value_node;
use super::options::TypeOptions;
use super::pg_type::{Digits, PgType};
use super::temporal::Unit;

/// Where the number of a `numeric` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberForm {
    /// Text.
    Text,
    /// Unscaled bytes with the schema's scale.
    Unscaled(i32),
    /// Record of scale and unscaled bytes.
    Variable,
    /// An integer.
    Integer,
    /// An integer whose sign bit is its highest one.
    Unsigned,
    /// A float that has every digit of the decimal it was.
    Double,
}

/// How a time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// As a number.
    Number(Unit),
    /// As ISO 8601 text.
    Iso,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Codec {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric(NumberForm, Option<Digits>),
    /// A string, passed on.
    Text,
    /// The symbol of an Avro enum.
    Symbol,
    Bytes,
    /// Bytes written as text.
    Encoded(BinaryForm),
    /// Bytes, least significant first, as so many bits.
    Bits(u32),
    /// One bit.
    Bit,
    /// A number of days.
    Days,
    IsoDate,
    Time(Clock),
    Timetz,
    Timestamp(Clock),
    Timestamptz(Clock),
    IsoInterval,
    /// A signed time as an interval.
    Duration(Unit),
    /// A time of day as an interval.
    IsoDuration,
    Uuid,
    UuidBytes,
    Json,
    Jsonb,
    Point,
    /// Well-known binary with its SRID.
    Ewkb,
    /// hstore: JSON text, or a map.
    HstoreOfJson,
    HstoreOfMap,
    /// A map as JSON.
    JsonbOfMap,
    /// Numbers as `[1,2]`.
    Vector,
    /// Dimensions and entries as `{1:0.5}/3`.
    SparseVector,
    Array(Box<Codec>),
}

/// Why a column's values cannot become its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The source's type and the Avro type have nothing to do with each other: something between
    /// source and topic converts.
    Foreign,
    /// The connector has changed the values beyond repair: what happened, and the setting that
    /// avoids it.
    Changed { what: &'static str, way_out: &'static str },
}

impl Codec {
    /// Chooses for a node (its `Optional` taken off).
    pub(super) fn choose(
        pg_type: &PgType,
        plan: &Plan,
        node: NodeId,
        options: &TypeOptions,
    ) -> Result<Self, Misfit> {
        let (kind, semantic) = (plan.kind(node), plan.ty(node).semantic);
        let integer = matches!(kind, Kind::Int | Kind::Long);
        Ok(match (pg_type, kind, semantic) {
            (PgType::Bool, Kind::Boolean, _) => Self::Bool,
            (PgType::Int2, _, _) if integer => Self::Int2,
            (PgType::Int4, _, _) if integer => Self::Int4,
            (PgType::Int8 | PgType::Plain("oid"), _, _) if integer => Self::Int8,
            // MySQL's FLOAT(7,3) comes as a double.
            (PgType::Float4, Kind::Float | Kind::Double, _) => Self::Float4,
            (PgType::Float8, Kind::Float | Kind::Double, _) => Self::Float8,
            (PgType::Numeric(digits), _, _) => {
                Self::Numeric(number_form(*digits, kind, semantic, options)?, *digits)
            }
            (PgType::Money, _, _) => Self::Numeric(money_form(kind, semantic)?, None),
            (PgType::Date, _, Semantic::Date) => Self::Days,
            (PgType::Date, _, Semantic::IsoDate) => Self::IsoDate,
            (PgType::Time(digits), _, _) => Self::Time(time_form(*digits, semantic)?),
            (PgType::Timetz(_), _, Semantic::ZonedTime) => Self::Timetz,
            (PgType::Timestamp(digits), _, _) => Self::Timestamp(stamp_form(*digits, semantic)?),
            (PgType::Timestamptz(_), _, _) => Self::Timestamptz(instant_form(semantic)?),
            (PgType::Interval, _, _) => interval(semantic, options)?,
            (PgType::Uuid, Kind::String, _) => Self::Uuid,
            (PgType::Uuid, Kind::Fixed(16), _) => Self::UuidBytes,
            (PgType::Json, Kind::String, _) => Self::Json,
            (PgType::Jsonb, Kind::String, _) => Self::Jsonb,
            (PgType::Jsonb, Kind::Map(_), _) => Self::JsonbOfMap,
            (PgType::Bytea, _, _) => bytes(kind, semantic, options)?,
            (PgType::Bit(1), Kind::Boolean, _) => Self::Bit,
            (PgType::Bit(length), Kind::Bytes, Semantic::Bits { .. }) => Self::Bits(*length),
            (PgType::Varbit(_), _, _) => return Err(VARBIT),
            (PgType::Point, Kind::Record { .. }, Semantic::Point) => Self::Point,
            (PgType::Plain("name"), ..) => return Err(NAME),
            (PgType::Array(item), Kind::Array(_), _) if is_cut_in_arrays(item) => {
                return Err(ARRAY_TIME);
            }
            (PgType::Array(item), Kind::Array(node), _) => {
                let node = value_node(plan, node);
                Self::Array(Box::new(Self::choose(item, plan, node, options)?))
            }
            (
                PgType::Other { .. },
                _,
                Semantic::Geometry | Semantic::Geography | Semantic::Point,
            ) => Self::Ewkb,
            (PgType::Other { .. }, Kind::Map(_), _) => Self::HstoreOfMap,
            (PgType::Other { name, .. }, Kind::String, _) if name == "hstore" => Self::HstoreOfJson,
            (PgType::Other { .. }, _, Semantic::SparseVector) => Self::SparseVector,
            (PgType::Other { .. }, Kind::Array(_), _) => Self::Vector,
            (PgType::Text | PgType::Other { .. }, Kind::Enum(_), _) => Self::Symbol,
            (
                PgType::Text
                | PgType::Varchar(_)
                | PgType::Bpchar(_)
                | PgType::Plain(_)
                | PgType::Other { .. },
                Kind::String,
                _,
            ) => Self::Text,
            _ => return Err(Misfit::Foreign),
        })
    }
}

const VARBIT: Misfit = Misfit::Changed {
    what: "the connector does not send how many bits a value has, so leading zeros are lost",
    way_out: "leave the column out (column.exclude.list), or make it bit(n), text or bytea",
};

const NAME: Misfit = Misfit::Changed {
    what: "the connector sends NULL for every value of type name while streaming",
    way_out: "leave the column out (column.exclude.list), or make it text",
};

const ARRAY_TIME: Misfit = Misfit::Changed {
    what: "the connector cuts times in arrays to milliseconds, and with a zone to seconds",
    way_out: "leave the column out (column.exclude.list), or declare the digits: time(3)[], \
              timetz(0)[]",
};

fn is_cut_in_arrays(item: &PgType) -> bool {
    match item {
        PgType::Time(digits) => digits.is_none_or(|digits| digits > 3),
        PgType::Timetz(digits) => digits.is_none_or(|digits| digits > 0),
        _ => false,
    }
}

const DOUBLE: Misfit = Misfit::Changed {
    what: "decimal.handling.mode=double keeps 15 digits only",
    way_out: "set decimal.handling.mode=string and snapshot the table again",
};

fn number_form(
    digits: Option<Digits>,
    kind: Kind,
    semantic: Semantic,
    options: &TypeOptions,
) -> Result<NumberForm, Misfit> {
    let unsigned_long =
        options.source != Source::Postgres && digits == Some(Digits { precision: 20, scale: 0 });
    Ok(match (kind, semantic) {
        (_, Semantic::Decimal { scale, .. }) => NumberForm::Unscaled(scale),
        (_, Semantic::VariableScaleDecimal) => NumberForm::Variable,
        (Kind::String, _) => NumberForm::Text,
        (Kind::Long, Semantic::Plain) if unsigned_long => NumberForm::Unsigned,
        (Kind::Int | Kind::Long, Semantic::Plain) => NumberForm::Integer,
        // A double gives back every decimal of up to 15 digits.
        (Kind::Double, _) if digits.is_some_and(|digits| digits.precision <= 15) => {
            NumberForm::Double
        }
        (Kind::Double, _) => return Err(DOUBLE),
        _ => return Err(Misfit::Foreign),
    })
}

fn money_form(kind: Kind, semantic: Semantic) -> Result<NumberForm, Misfit> {
    match (kind, semantic) {
        (_, Semantic::Decimal { scale, .. }) => Ok(NumberForm::Unscaled(scale)),
        (Kind::String, _) => Ok(NumberForm::Text),
        (Kind::Double, _) => Err(DOUBLE),
        _ => Err(Misfit::Foreign),
    }
}

pub(super) const CONNECT_TIME: Misfit = Misfit::Changed {
    what: "time.precision.mode=connect drops microseconds",
    way_out: "set time.precision.mode=microseconds (MySQL, MariaDB: adaptive_time_microseconds) \
              and snapshot the table again",
};

/// Whether the unit has all digits that the column may have.
fn fine_enough(digits: Option<u8>, unit: Unit) -> Result<Clock, Misfit> {
    if digits.unwrap_or(6) <= unit.digits() { Ok(Clock::Number(unit)) } else { Err(CONNECT_TIME) }
}

fn time_form(digits: Option<u8>, semantic: Semantic) -> Result<Clock, Misfit> {
    match semantic {
        Semantic::Time => fine_enough(digits, Unit::Millis),
        Semantic::MicroTime => Ok(Clock::Number(Unit::Micros)),
        Semantic::NanoTime => Ok(Clock::Number(Unit::Nanos)),
        Semantic::IsoTime => Ok(Clock::Iso),
        _ => Err(Misfit::Foreign),
    }
}

fn stamp_form(digits: Option<u8>, semantic: Semantic) -> Result<Clock, Misfit> {
    match semantic {
        Semantic::Timestamp => fine_enough(digits, Unit::Millis),
        Semantic::MicroTimestamp => Ok(Clock::Number(Unit::Micros)),
        Semantic::NanoTimestamp => Ok(Clock::Number(Unit::Nanos)),
        Semantic::IsoTimestamp => Ok(Clock::Iso),
        _ => Err(Misfit::Foreign),
    }
}

fn instant_form(semantic: Semantic) -> Result<Clock, Misfit> {
    match semantic {
        Semantic::ZonedTimestamp => Ok(Clock::Iso),
        Semantic::InstantMillis => Ok(Clock::Number(Unit::Millis)),
        Semantic::InstantMicros => Ok(Clock::Number(Unit::Micros)),
        Semantic::InstantNanos => Ok(Clock::Number(Unit::Nanos)),
        _ => Err(Misfit::Foreign),
    }
}

fn interval(semantic: Semantic, options: &TypeOptions) -> Result<Codec, Misfit> {
    match semantic {
        Semantic::Interval => Ok(Codec::IsoInterval),
        Semantic::MicroDuration | Semantic::NanoDuration if options.source == Source::Postgres => {
            Err(Misfit::Changed {
                what: "interval.handling.mode=numeric makes microseconds of months and days",
                way_out: "set interval.handling.mode=string and snapshot the table again",
            })
        }
        Semantic::Time => Ok(Codec::Duration(Unit::Millis)),
        Semantic::IsoTime => Ok(Codec::IsoDuration),
        Semantic::MicroTime | Semantic::MicroDuration => Ok(Codec::Duration(Unit::Micros)),
        Semantic::NanoTime | Semantic::NanoDuration => Ok(Codec::Duration(Unit::Nanos)),
        _ => Err(Misfit::Foreign),
    }
}

fn bytes(kind: Kind, semantic: Semantic, options: &TypeOptions) -> Result<Codec, Misfit> {
    match (kind, options.binary) {
        (Kind::Record { .. }, _)
            if matches!(semantic, Semantic::Geometry | Semantic::Geography | Semantic::Point) =>
        {
            Ok(Codec::Ewkb)
        }
        (Kind::Bytes | Kind::Fixed(_), _) => Ok(Codec::Bytes),
        (Kind::String, BinaryForm::Bytes) => Err(Misfit::Changed {
            what: "bytes arrive as text, and nothing says whether it is base64 or hex",
            way_out: "set binary.handling.mode in source.connector_properties to what the \
                      connector has, or to bytes",
        }),
        (Kind::String, form) => Ok(Codec::Encoded(form)),
        _ => Err(Misfit::Foreign),
    }
}
