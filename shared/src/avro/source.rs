//! What the schema tells about the source column, and how its placeholder would look.

use std::collections::BTreeMap;

use super::{Kind, Semantic};

/// The source column as Debezium describes it when `column.propagate.source.type` is on
/// (`__debezium.source.column.*` in `connect.parameters`).
///
/// Empty where the schema does not carry it. A column whose record type (`Point`,
/// `VariableScaleDecimal`) was defined at an earlier column has none either: Avro can only
/// refer to that type by name, and the parameters on it are the earlier column's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceType {
    /// Type name in the source's spelling, `NUMERIC`, `VARCHAR`, `_INT4`.
    pub type_name: Option<String>,
    /// Length or precision.
    pub length: Option<i64>,
    /// Scale.
    pub scale: Option<i64>,
    /// The column's name before it was adjusted to Avro's rules.
    pub column_name: Option<String>,
}

impl SourceType {
    pub(super) fn from_parameters(parameters: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| parameters.get(&format!("__debezium.source.column.{key}")).cloned();
        let number = |key: &str| text(key).and_then(|text| text.parse().ok());
        Self {
            type_name: text("type"),
            length: number("length"),
            scale: number("scale"),
            column_name: text("name"),
        }
    }
}

/// The shape that Debezium's placeholder for an unchanged TOAST value takes in a column, by
/// the column's type; `Never` where `PostgreSQL` stores no value out of line.
///
/// Source: Debezium's `UnchangedToastedPlaceholder` and the marker each type gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToastShape {
    /// A type of fixed size, or one for which no placeholder exists.
    #[default]
    Never,
    /// string: the placeholder itself; or hstore as JSON text, or bytea as base64 or hex text.
    Text,
    /// bytes of the placeholder.
    Bytes,
    /// Array of one string: the placeholder (text, varchar, json), or its name UUID (uuid).
    TextArray,
    /// Array of one bytes value.
    BytesArray,
    /// Array of int or long: the placeholder's bytes, one by one.
    NumberArray,
    /// hstore as a map: the placeholder as key and as value.
    TextMap,
}

/// Types that are sent as strings and are never stored out of line.
const FIXED_SIZE: [&str; 14] = [
    "BOOL",
    "INT2",
    "INT4",
    "INT8",
    "OID",
    "FLOAT4",
    "FLOAT8",
    "MONEY",
    "DATE",
    "TIME",
    "TIMETZ",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "UUID",
];

impl ToastShape {
    /// Shape for a column. `item` is kind and meaning of an array's items or a map's values.
    pub(super) fn of(
        kind: Kind,
        semantic: Semantic,
        item: Option<(Kind, Semantic)>,
        source: &SourceType,
    ) -> Self {
        let fixed = source
            .type_name
            .as_deref()
            .is_some_and(|name| FIXED_SIZE.iter().any(|fixed| fixed.eq_ignore_ascii_case(name)));
        if fixed {
            return Self::Never;
        }
        match (kind, item) {
            (Kind::String, _) if text_may_be_toasted(semantic) => Self::Text,
            (Kind::Bytes, _) if !matches!(semantic, Semantic::Decimal { .. }) => Self::Bytes,
            (Kind::Array(_), Some((Kind::String, _))) => Self::TextArray,
            (Kind::Array(_), Some((Kind::Bytes, Semantic::Plain))) => Self::BytesArray,
            (Kind::Array(_), Some((Kind::Int | Kind::Long, Semantic::Plain | Semantic::Date))) => {
                Self::NumberArray
            }
            (Kind::Map(_), Some((Kind::String, _))) => Self::TextMap,
            _ => Self::Never,
        }
    }
}

fn text_may_be_toasted(semantic: Semantic) -> bool {
    !matches!(
        semantic,
        Semantic::Uuid
            | Semantic::Enum
            | Semantic::Interval
            | Semantic::ZonedTime
            | Semantic::ZonedTimestamp
            | Semantic::IsoDate
            | Semantic::IsoTime
            | Semantic::IsoTimestamp
    )
}
