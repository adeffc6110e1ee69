//! The type of a column, and the way of its cells there: chosen once per schema.

use cdc_shared::avro::{Column, Kind, NodeId, Plan, Semantic};
use cdc_shared::config::{BinaryForm, SourceConfig, SourceType as Source};
use iceberg::spec::PrimitiveType;

use super::declared::{Known, known};
use super::field::FieldType;

/// Most digits of Iceberg's decimals.
const MOST_DIGITS: u32 = 38;

/// What the choice of a type depends on beside the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TypeOptions {
    /// The kind of source: names like TIME mean something else in each.
    pub source: Source,
    /// How bytes are sent.
    pub binary: BinaryForm,
}

impl TypeOptions {
    /// For a source as it is configured.
    pub fn new(source: &SourceConfig) -> Self {
        Self { source: source.source_type, binary: source.binary_form() }
    }
}

/// A source column whose values cannot be kept exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} ({source_type}): {what}")]
pub struct Unmappable {
    /// The column.
    pub column: String,
    /// Its type as far as the schema tells.
    pub source_type: String,
    /// What is in the way.
    pub what: &'static str,
    /// What to do.
    pub way_out: &'static str,
}

/// A time unit of the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// Where the number of a decimal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberForm {
    /// Text.
    Text,
    /// Unscaled bytes with the schema's scale.
    Unscaled(i32),
    /// Record of scale and unscaled bytes.
    Variable,
    /// An integer whose sign bit is its highest one.
    Unsigned,
    /// An integer.
    Integer,
    /// A float that has every digit of the decimal it was.
    Double,
}

/// How cells become values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    /// Boolean.
    Bool,
    /// Integer of 32 bits.
    Int,
    /// Integer of 64 bits.
    Long,
    /// Float of 32 bits.
    Float,
    /// Float of 64 bits.
    Double,
    /// Decimal of so many digits, so many of them behind the point.
    Decimal(NumberForm, u32, u32),
    /// A decimal as exact text.
    DecimalText(NumberForm),
    /// Number of days, or ISO text of a date.
    Date,
    /// Time of day as a number, or (`None`) ISO text.
    Time(Option<Unit>),
    /// Timestamp as a number, or (`None`) ISO text; with a zone or without.
    Timestamp(Option<Unit>, bool),
    /// A temporal number as ISO text.
    TemporalText(Semantic),
    /// UUID as text or 16 bytes.
    Uuid,
    /// Bytes.
    Bytes,
    /// Bytes that come as text.
    Encoded(BinaryForm),
    /// Bits, least significant byte first, as text of so many digits 0 and 1.
    Bits(Option<u32>),
    /// Text, or the symbol of an Avro enum.
    Text,
    /// Array.
    List(Box<Codec>),
    /// Map.
    Map(Box<Codec>),
    /// Record.
    Struct(Vec<Codec>),
}

type Choice = Result<(FieldType, Codec), (&'static str, &'static str)>;

const FOREIGN: (&str, &str) = (
    "no Iceberg type holds what the connector sends",
    "leave the column out (column.exclude.list in source.connector_properties)",
);
const VARBIT: (&str, &str) = (
    "the connector does not send how many bits a value has, so leading zeros are lost",
    "leave the column out (column.exclude.list), or make it bit(n), text or bytea",
);
const NAME: (&str, &str) = (
    "the connector sends NULL for every value of type name while streaming",
    "leave the column out (column.exclude.list), or make it text",
);
const ARRAY_TIME: (&str, &str) = (
    "the connector cuts times in arrays to milliseconds, and with a zone to seconds",
    "leave the column out (column.exclude.list), or declare the digits: time(3)[], timetz(0)[]",
);
const DOUBLE: (&str, &str) = (
    "decimal.handling.mode=double keeps 15 digits only",
    "set decimal.handling.mode=string and snapshot the table again",
);
const CONNECT_TIME: (&str, &str) = (
    "time.precision.mode=connect drops microseconds",
    "set time.precision.mode=microseconds (MySQL, MariaDB: adaptive_time_microseconds) and \
     snapshot the table again",
);
const INTERVAL: (&str, &str) = (
    "interval.handling.mode=numeric makes microseconds of months and days",
    "set interval.handling.mode=string and snapshot the table again",
);
const ENCODED: (&str, &str) = (
    "bytes arrive as text, and nothing says whether it is base64 or hex",
    "set binary.handling.mode in source.connector_properties to what the connector has, or to \
     bytes",
);

/// Chooses for a column of a record.
///
/// # Errors
/// When the values that arrive are not those of the source any more, or have no type.
pub(crate) fn choose(
    plan: &Plan,
    column: &Column,
    options: TypeOptions,
) -> Result<(FieldType, Codec), Unmappable> {
    let known = known(options.source, &column.source);
    Chooser { plan, known, options }.column(column).map_err(|(what, way_out)| {
        let ty = plan.ty(column.node);
        let named = column.source.type_name.clone().or_else(|| ty.connect_name.clone());
        let by_kind = || format!("Avro {:?}", plan.kind(column.node)).to_lowercase();
        let source_type = named.unwrap_or_else(by_kind);
        Unmappable { column: column.name.clone(), source_type, what, way_out }
    })
}

struct Chooser<'p> {
    plan: &'p Plan,
    known: Known,
    options: TypeOptions,
}

#[expect(clippy::unnecessary_wraps, reason = "every branch of the choice ends in it")]
fn primitive(ty: PrimitiveType, codec: Codec) -> Choice {
    Ok((FieldType::Primitive(ty), codec))
}

fn text(codec: Codec) -> Choice {
    primitive(PrimitiveType::String, codec)
}

impl Chooser<'_> {
    fn column(&self, column: &Column) -> Choice {
        match self.known {
            Known::VarBits => return Err(VARBIT),
            Known::Name => return Err(NAME),
            Known::Clock(digits @ 4..) | Known::ZonedClock(digits @ 1..)
                if matches!(self.plan.kind(column.node), Kind::Array(_))
                    && self.is_cut_in_arrays(column.node, digits) =>
            {
                return Err(ARRAY_TIME);
            }
            _ => {}
        }
        self.node(column.node)
    }

    /// Timestamps are whole in arrays, times are not.
    fn is_cut_in_arrays(&self, node: NodeId, digits: u8) -> bool {
        let Kind::Array(item) = self.plan.kind(node) else { return false };
        let item = self.value_node(item);
        match self.plan.ty(item).semantic {
            Semantic::Time | Semantic::MicroTime | Semantic::NanoTime | Semantic::IsoTime => {
                digits > 3
            }
            Semantic::ZonedTime => digits > 0,
            _ => false,
        }
    }

    fn value_node(&self, node: NodeId) -> NodeId {
        match self.plan.kind(node) {
            Kind::Optional { inner, .. } => inner,
            _ => node,
        }
    }

    fn node(&self, node: NodeId) -> Choice {
        let node = self.value_node(node);
        let semantic = self.plan.ty(node).semantic;
        match semantic {
            Semantic::Decimal { scale, precision } => {
                Self::number(NumberForm::Unscaled(scale), self.digits(scale, precision))
            }
            Semantic::VariableScaleDecimal => Self::number(NumberForm::Variable, self.declared()),
            Semantic::Date | Semantic::IsoDate => primitive(PrimitiveType::Date, Codec::Date),
            Semantic::Time | Semantic::MicroTime | Semantic::NanoTime | Semantic::IsoTime => {
                self.time(semantic)
            }
            Semantic::Timestamp
            | Semantic::MicroTimestamp
            | Semantic::NanoTimestamp
            | Semantic::IsoTimestamp => self.timestamp(semantic),
            Semantic::InstantMillis
            | Semantic::InstantMicros
            | Semantic::InstantNanos
            | Semantic::ZonedTimestamp => {
                primitive(PrimitiveType::Timestamptz, Codec::Timestamp(unit(semantic), true))
            }
            Semantic::MicroDuration | Semantic::NanoDuration => self.duration(semantic),
            Semantic::Year => primitive(PrimitiveType::Int, Codec::Int),
            Semantic::Bits { length } => {
                let declared = match self.known {
                    Known::Bits(declared) => declared,
                    _ => None,
                };
                text(Codec::Bits(length.or(declared)))
            }
            Semantic::Uuid => primitive(PrimitiveType::Uuid, Codec::Uuid),
            _ => self.by_kind(node),
        }
    }

    fn by_kind(&self, node: NodeId) -> Choice {
        match self.plan.kind(node) {
            Kind::Boolean => primitive(PrimitiveType::Boolean, Codec::Bool),
            Kind::Int => primitive(PrimitiveType::Int, Codec::Int),
            Kind::Long if self.known == Known::Unsigned => {
                Self::number(NumberForm::Unsigned, Some((20, 0)))
            }
            Kind::Long => primitive(PrimitiveType::Long, Codec::Long),
            Kind::Float => primitive(PrimitiveType::Float, Codec::Float),
            Kind::Double => match self.known {
                // A double gives back every decimal of up to 15 digits.
                Known::Number(Some((..=15, _))) => {
                    Self::number(NumberForm::Double, self.declared())
                }
                Known::Number(_) | Known::Money => Err(DOUBLE),
                _ => primitive(PrimitiveType::Double, Codec::Double),
            },
            Kind::Bytes | Kind::Fixed(_) => primitive(PrimitiveType::Binary, Codec::Bytes),
            Kind::String => self.string(node),
            Kind::Enum(_) => text(Codec::Text),
            Kind::Array(item) => {
                let (ty, codec) = self.node(item)?;
                Ok((FieldType::List(Box::new(ty)), Codec::List(Box::new(codec))))
            }
            Kind::Map(value) => {
                let (ty, codec) = self.node(value)?;
                Ok((FieldType::Map(Box::new(ty)), Codec::Map(Box::new(codec))))
            }
            Kind::Record { .. } => self.record(node),
            Kind::Null | Kind::Optional { .. } | Kind::Union { .. } => Err(FOREIGN),
        }
    }

    fn record(&self, node: NodeId) -> Choice {
        let mut fields = Vec::new();
        let mut codecs = Vec::new();
        for column in self.plan.columns(node) {
            let (ty, codec) = self.node(column.node)?;
            fields.push((column.name.clone(), ty));
            codecs.push(codec);
        }
        if fields.is_empty() {
            return Err(FOREIGN);
        }
        Ok((FieldType::Struct(fields), Codec::Struct(codecs)))
    }

    fn string(&self, node: NodeId) -> Choice {
        let is_plain = self.plan.ty(node).semantic == Semantic::Plain;
        match (self.known, self.options.binary) {
            (Known::Number(_) | Known::Money | Known::Unsigned, _) if is_plain => {
                Self::number(NumberForm::Text, self.declared())
            }
            (Known::Bytes, BinaryForm::Bytes) => Err(ENCODED),
            (Known::Bytes, form) => primitive(PrimitiveType::Binary, Codec::Encoded(form)),
            _ => text(Codec::Text),
        }
    }

    /// Digits as the source declares them.
    fn declared(&self) -> Option<(u32, i32)> {
        match self.known {
            Known::Number(digits) => digits,
            Known::Money => Some((19, 2)),
            Known::Unsigned => Some((20, 0)),
            _ => None,
        }
    }

    /// Avro says a precision of 64 where nobody has set one.
    fn digits(&self, scale: i32, precision: Option<u32>) -> Option<(u32, i32)> {
        if self.known == Known::Money {
            return Some((19, scale));
        }
        let by_record = precision.filter(|precision| *precision != 64);
        self.declared().or_else(|| by_record.map(|precision| (precision, scale)))
    }

    fn number(form: NumberForm, digits: Option<(u32, i32)>) -> Choice {
        match digits {
            Some((precision @ 1..=MOST_DIGITS, scale))
                if (0..=precision as i32).contains(&scale) =>
            {
                let scale = scale.unsigned_abs();
                let ty = PrimitiveType::Decimal { precision, scale };
                primitive(ty, Codec::Decimal(form, precision, scale))
            }
            _ => text(Codec::DecimalText(form)),
        }
    }

    /// Whether the unit has all digits that the column may have.
    fn fine_enough(&self, semantic: Semantic) -> bool {
        let digits = match (self.known, self.options.source) {
            (Known::Clock(digits) | Known::ZonedClock(digits), _) => digits,
            _ => 0,
        };
        digits <= 3 || unit(semantic) != Some(Unit::Millis)
    }

    fn time(&self, semantic: Semantic) -> Choice {
        if self.known == Known::Span || self.options.source != Source::Postgres {
            // A signed span of up to 838 hours, which no type of Iceberg holds.
            return match semantic {
                Semantic::IsoTime => text(Codec::Text),
                semantic => text(Codec::TemporalText(semantic)),
            };
        }
        if !self.fine_enough(semantic) {
            return Err(CONNECT_TIME);
        }
        primitive(PrimitiveType::Time, Codec::Time(unit(semantic)))
    }

    fn timestamp(&self, semantic: Semantic) -> Choice {
        if !self.fine_enough(semantic) {
            return Err(CONNECT_TIME);
        }
        primitive(PrimitiveType::Timestamp, Codec::Timestamp(unit(semantic), false))
    }

    fn duration(&self, semantic: Semantic) -> Choice {
        match self.options.source {
            Source::Postgres => Err(INTERVAL),
            Source::Mysql | Source::Mariadb => text(Codec::TemporalText(semantic)),
        }
    }
}

/// The unit of a number; `None` for text.
fn unit(semantic: Semantic) -> Option<Unit> {
    match semantic {
        Semantic::Time | Semantic::Timestamp | Semantic::InstantMillis => Some(Unit::Millis),
        Semantic::MicroTime | Semantic::MicroTimestamp | Semantic::InstantMicros => {
            Some(Unit::Micros)
        }
        Semantic::NanoTime | Semantic::NanoTimestamp | Semantic::InstantNanos => Some(Unit::Nanos),
        _ => None,
    }
}
