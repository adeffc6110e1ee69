//! Types: which Iceberg type a source column becomes, and how its cells become values of it. Pure.
//!
//! The type comes from what is known best: the source's own name of it (which
//! `column.propagate.source.type` carries), then the connector's name of the meaning, then Avro's
//! logical type, then the Avro type. A value is exact in its column, or refused by name. What has
//! no exact type is kept as its exact text. `docs/iceberg-types.md` is the table.

mod choose;
mod declared;
mod field;
mod value;

pub(crate) use self::choose::choose;
pub use self::choose::{Codec, NumberForm, TypeOptions, Unit, Unmappable};
pub use self::field::{FieldType, Fit};
pub(crate) use self::value::{
    Fault, day, decimal, instant, iso_day, iso_stamp, iso_time, shift, time_of_day, uuid,
};
