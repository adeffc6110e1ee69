//! Types of the mirror: which PostgreSQL type a source column becomes, how its values go over the
//! wire, what its default is, and whether a column that is there already fits. Pure.
//!
//! The type comes from what is known best: the source's own name of it (which
//! `column.propagate.source.type` carries), then the connector's name of the meaning, then Avro's
//! logical type, then the Avro type. Each also works alone. A value is exact in its column or
//! refused by name; nothing is rounded, shifted or cut. `docs/replica-types.md` is the table.
//!
//! Values travel as elements of binary array parameters. The types with a wire of their own cost
//! neither text nor memory per value; all others go as text with a cast to the column's type.

mod codec;
mod declared;
mod default;
mod encode;
mod fault;
mod fit;
mod inferred;
mod numeric;
mod pg_type;
mod temporal;
mod wire;

use cdc_shared::avro::{Column, Plan, Value};
use cdc_shared::config::SourceType as Source;

use self::codec::{Codec, Misfit};
pub use self::default::{NotConstant, default_sql};
use self::fault::Fault;
pub use self::fit::{Fit, fit};
use self::pg_type::PgType;
pub use self::wire::Wire;
use crate::sink::Rejection;

/// What a value of an enum becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EnumHandling {
    /// Text: a new label needs nothing.
    #[default]
    Text,
    /// An enum type of the target.
    Create,
}

/// The connector's `binary.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BinaryForm {
    /// Bytes.
    #[default]
    Bytes,
    /// Base64 text.
    Base64,
    /// Base64 text with the URL-safe alphabet.
    Base64UrlSafe,
    /// Hexadecimal text.
    Hex,
}

/// What the choice of a type depends on beside the schema.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeOptions {
    /// The kind of source: names like TIME mean something else in each.
    pub source: Source,
    /// How enums are kept.
    pub enums: EnumHandling,
    /// How bytes are sent.
    pub binary: BinaryForm,
}

/// A source column whose values cannot be kept exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} ({source_type}): {what}; {way_out}")]
pub struct Unmappable {
    /// The column.
    pub column: String,
    /// Its type as far as the schema tells.
    pub source_type: String,
    /// What is in the way.
    pub what: String,
    /// What to do.
    pub way_out: String,
}

/// The type of a column in the mirror, and the way of its values there.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnType {
    /// The type as `format_type()` spells it.
    pub sql: String,
    /// Format of the parameter array's elements.
    pub wire: Wire,
    cast: String,
    column: String,
    pg_type: PgType,
    codec: Codec,
    /// Text of which the schema does not say what it is at the source.
    is_free_text: bool,
}

impl ColumnType {
    /// Chooses the type of a column of `plan`.
    ///
    /// # Errors
    /// When the values that arrive are not those of the source any more, or have no PostgreSQL
    /// type.
    pub fn of(plan: &Plan, column: &Column, options: &TypeOptions) -> Result<Self, Unmappable> {
        let declared = declared::target_type(options.source, &column.source)
            .map(|pg_type| adapted(pg_type, plan, column));
        let is_unknown = declared.is_none();
        let chosen = declared.map(|pg_type| {
            let codec = Codec::choose(&pg_type, plan, column.node, options);
            codec.map(|codec| (pg_type, codec))
        });
        let refused = |what: &str, way_out: &str| {
            let source_type = shown_type(plan, column);
            let (what, way_out) = (what.to_owned(), way_out.to_owned());
            Unmappable { column: column.name.clone(), source_type, what, way_out }
        };
        let (pg_type, codec) = match chosen {
            Some(Ok(chosen)) => chosen,
            Some(Err(Misfit::Changed { what, way_out })) => return Err(refused(what, way_out)),
            // Something between source and topic converts: what it sends is what counts.
            Some(Err(Misfit::Foreign)) | None => {
                let pg_type = inferred::target_type(plan, column.node, options);
                match pg_type.map(|pg_type| {
                    let codec = Codec::choose(&pg_type, plan, column.node, options);
                    codec.map(|codec| (pg_type, codec))
                }) {
                    Some(Ok(chosen)) => chosen,
                    Some(Err(Misfit::Changed { what, way_out })) => {
                        return Err(refused(what, way_out));
                    }
                    Some(Err(Misfit::Foreign)) | None => {
                        return Err(refused(
                            "no PostgreSQL type holds what the connector sends",
                            "leave the column out (column.exclude.list)",
                        ));
                    }
                }
            }
        };
        let wire = Wire::of(&pg_type, &codec);
        let cast = wire.cast(&pg_type);
        Ok(Self {
            sql: pg_type.to_string(),
            wire,
            cast,
            column: column.name.clone(),
            is_free_text: is_unknown && codec == Codec::Text,
            pg_type,
            codec,
        })
    }

    /// Appends one value that is not null, in the wire format of an array element, without its
    /// length.
    ///
    /// # Errors
    /// A value that the column cannot hold exactly; `out` may hold a part of it then.
    #[inline]
    pub fn encode(&self, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Rejection> {
        encode::binary(&self.codec, value, out).map_err(|fault| self.rejection(fault))
    }

    /// Cast that turns an unnested element into the column's type: empty, or `::pg_catalog.inet`.
    pub fn cast(&self) -> &str {
        &self.cast
    }

    #[cold]
    fn rejection(&self, fault: Fault) -> Rejection {
        let message = format!("column {} ({}): {}", self.column, self.sql, fault.what);
        Rejection::new(fault.code, message)
    }
}

/// A boolean in a column of numbers: a converter at the source has made it one.
fn adapted(pg_type: PgType, plan: &Plan, column: &Column) -> PgType {
    use cdc_shared::avro::Kind;
    match (pg_type, plan.kind(column.node)) {
        (PgType::Int2, Kind::Boolean) => PgType::Bool,
        (pg_type, _) => pg_type,
    }
}

/// The type for a message: the source's name, else the connector's, else Avro's.
fn shown_type(plan: &Plan, column: &Column) -> String {
    let ty = plan.ty(column.node);
    let declared = column.source.type_name.clone().or_else(|| ty.connect_name.clone());
    declared.unwrap_or_else(|| format!("Avro {:?}", plan.kind(column.node)).to_lowercase())
}
