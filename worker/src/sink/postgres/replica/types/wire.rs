//! Formats of the elements of array parameters.

use super::codec::Codec;
use super::pg_type::PgType;

/// Format of a parameter array's elements: binary, as PostgreSQL's own receive functions read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the type of its name")]
pub enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Point,
}

impl Wire {
    /// The elements' `pg_type.oid`.
    pub fn element_oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Json => 114,
            Self::Point => 600,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Interval => 1186,
            Self::Timetz => 1266,
            Self::Numeric => 1700,
            Self::Uuid => 2950,
            Self::Jsonb => 3802,
        }
    }

    /// The array type for a statement, with its schema.
    pub fn array(self) -> &'static str {
        match self {
            Self::Bool => "pg_catalog.bool[]",
            Self::Bytea => "pg_catalog.bytea[]",
            Self::Int8 => "pg_catalog.int8[]",
            Self::Int2 => "pg_catalog.int2[]",
            Self::Int4 => "pg_catalog.int4[]",
            Self::Text => "pg_catalog.text[]",
            Self::Json => "pg_catalog.json[]",
            Self::Point => "pg_catalog.point[]",
            Self::Float4 => "pg_catalog.float4[]",
            Self::Float8 => "pg_catalog.float8[]",
            Self::Date => "pg_catalog.date[]",
            Self::Time => "pg_catalog.time[]",
            Self::Timestamp => "pg_catalog.timestamp[]",
            Self::Timestamptz => "pg_catalog.timestamptz[]",
            Self::Interval => "pg_catalog.interval[]",
            Self::Timetz => "pg_catalog.timetz[]",
            Self::Numeric => "pg_catalog.numeric[]",
            Self::Uuid => "pg_catalog.uuid[]",
            Self::Jsonb => "pg_catalog.jsonb[]",
        }
    }

    /// The format in which a codec writes.
    pub(super) fn of(pg_type: &PgType, codec: &Codec) -> Self {
        match codec {
            Codec::Bool => Self::Bool,
            Codec::Int2 => Self::Int2,
            Codec::Int4 => Self::Int4,
            Codec::Int8 => Self::Int8,
            Codec::Float4 => Self::Float4,
            Codec::Float8 => Self::Float8,
            Codec::Numeric(..) => Self::Numeric,
            Codec::Bytes | Codec::Encoded(_) | Codec::Ewkb => Self::Bytea,
            Codec::Days | Codec::IsoDate => Self::Date,
            Codec::Time(_) => Self::Time,
            Codec::Timetz => Self::Timetz,
            Codec::Timestamp(_) => Self::Timestamp,
            Codec::Timestamptz(_) => Self::Timestamptz,
            Codec::IsoInterval | Codec::IsoDuration | Codec::Duration(_) => Self::Interval,
            Codec::Uuid | Codec::UuidBytes => Self::Uuid,
            Codec::Json => Self::Json,
            Codec::Jsonb | Codec::JsonbOfMap => Self::Jsonb,
            Codec::HstoreOfJson if *pg_type == PgType::Jsonb => Self::Jsonb,
            Codec::Point => Self::Point,
            _ => Self::Text,
        }
    }

    /// The cast from an element to the type. Without one where the server assigns by itself *and*
    /// compares by the column's own rules: a `character` compared as text would lose its blanks.
    pub(super) fn cast(self, pg_type: &PgType) -> String {
        let is_its_own = match self {
            Self::Text => matches!(pg_type, PgType::Text | PgType::Varchar(_)),
            Self::Numeric => matches!(pg_type, PgType::Numeric(_)),
            Self::Bytea => *pg_type == PgType::Bytea,
            Self::Int8 => *pg_type == PgType::Int8,
            _ => true,
        };
        if is_its_own { String::new() } else { format!("::{}", pg_type.cast_name()) }
    }
}
