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

mod array;
mod codec;
mod declared;
mod default;
mod encode;
mod enums;
mod fault;
mod fit;
mod geometry;
mod inferred;
mod iso;
mod numeric;
mod options;
mod pg_type;
mod temporal;
mod wire;

#[cfg(test)]
mod tests;

use cdc_shared::avro::{Column, Kind, Plan, Type, Value};
use cdc_shared::config::SourceType as Source;

use self::codec::{Codec, Misfit};
pub use self::default::{NotConstant, SourceDefault, default_sql};
pub use self::enums::EnumType;
use self::fault::Fault;
pub use self::fit::{Fit, fit};
pub use self::options::{EnumHandling, TargetTypes, TypeOptions};
use self::pg_type::PgType;
use self::temporal::Unit;
pub use self::wire::Wire;
use crate::sink::Rejection;

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
    enum_type: Option<EnumType>,
    source: Source,
}

impl ColumnType {
    /// Chooses the type of a column of `plan`: a field of the record that holds the source's row,
    /// or of a key.
    ///
    /// # Errors
    /// When the values that arrive are not those of the source any more, or have no PostgreSQL
    /// type.
    pub fn of(plan: &Plan, column: &Column, options: &TypeOptions) -> Result<Self, Unmappable> {
        let refused = |misfit| unmappable(plan, column, misfit);
        let choose = |pg_type: PgType| {
            let codec = Codec::choose(&pg_type, plan, column.node, options);
            codec.map(|codec| (pg_type, codec))
        };
        let declared = declared::target_type(options.source, &column.source)
            .map(|pg_type| options.target.nearest(adapted(pg_type, plan, column)));
        let is_unknown = declared.is_none();
        let (pg_type, codec) = match declared.map(choose) {
            Some(Ok(chosen)) => chosen,
            Some(Err(misfit @ Misfit::Changed { .. })) => return Err(refused(misfit)),
            // Something between source and topic converts: what it sends is what counts.
            Some(Err(Misfit::Foreign)) | None => {
                let inferred = inferred::target_type(plan, column, options);
                let inferred = inferred.ok_or_else(|| refused(Misfit::Foreign))?;
                choose(options.target.nearest(inferred)).map_err(refused)?
            }
        };
        // The one type whose declared digits the target's type does not have.
        let is_cut = codec == Codec::Duration(Unit::Millis) && column.source.length > Some(3);
        if is_cut {
            return Err(refused(codec::CONNECT_TIME));
        }
        let enum_type = EnumType::of(column, enum_node(plan, column), options)
            .filter(|made| is_of(&pg_type, &made.pg_type()));
        if enum_type.as_ref().is_some_and(|made| !made.can_be_created()) {
            return Err(refused(ENUM_NAME));
        }
        let wire = Wire::of(&pg_type, &codec);
        Ok(Self {
            sql: pg_type.to_string(),
            wire,
            cast: wire.cast(&pg_type),
            column: column.name.clone(),
            is_free_text: is_unknown && codec == Codec::Text && enum_type.is_none(),
            pg_type,
            codec,
            enum_type,
            source: options.source,
        })
    }

    /// The enum type that has to be there before the column.
    pub fn enum_type(&self) -> Option<&EnumType> {
        self.enum_type.as_ref()
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

    /// A value given as PostgreSQL's text, as an SQL expression of the type.
    fn constant(&self, text: &str) -> String {
        format!("{}::{}", enums::literal(text), self.pg_type.cast_name())
    }

    #[cold]
    fn rejection(&self, fault: Fault) -> Rejection {
        let message = format!("column {} ({}): {}", self.column, self.sql, fault.what);
        Rejection::new(fault.code, message)
    }
}

const ENUM_NAME: Misfit = Misfit::Changed {
    what: "the enum's name or one of its labels is empty or longer than the 63 bytes that \
           PostgreSQL keeps",
    way_out: "keep enums as text (enums: text)",
};

fn unmappable(plan: &Plan, column: &Column, misfit: Misfit) -> Unmappable {
    let (what, way_out) = match misfit {
        Misfit::Changed { what, way_out } => (what, way_out),
        Misfit::Foreign => (
            "no PostgreSQL type holds what the connector sends",
            "leave the column out (column.exclude.list)",
        ),
    };
    Unmappable {
        column: column.name.clone(),
        source_type: shown_type(plan, column),
        what: what.to_owned(),
        way_out: way_out.to_owned(),
    }
}

/// The node that says what an enum's labels are: the column's, or that of its array's items.
fn enum_node<'p>(plan: &'p Plan, column: &Column) -> &'p Type {
    plan.ty(match plan.kind(column.node) {
        Kind::Array(item) => inferred::value_node(plan, item),
        _ => column.node,
    })
}

fn is_of(pg_type: &PgType, made: &PgType) -> bool {
    match pg_type {
        PgType::Array(item) => is_of(item, made),
        other => other == made,
    }
}

/// A boolean in a column of numbers: a converter at the source has made it one.
fn adapted(pg_type: PgType, plan: &Plan, column: &Column) -> PgType {
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
