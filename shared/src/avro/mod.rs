//! The record path: from the bytes of a Kafka record to typed cells that borrow from them.
//!
//! A schema is parsed once and compiled to a [`Plan`]: flat arrays, addressed by number. A
//! datum is then walked once into a [`CellBuf`], one contiguous buffer of small [`Cell`]s that
//! is used again for the next message. Nothing is looked up by name on the way, and no value
//! is allocated: text and bytes are slices of the message, and a nested record, array or map
//! is a range of the same buffer.
//!
//! ```text
//! bytes ─▸ frame() ─▸ schema id, datum
//!                         │
//!            Plan::decode(datum, &mut cells) ─▸ root cell ─▸ Plan::view() ─▸ Value · Row
//! ```
//!
//! Whatever the bytes are, decoding ends with cells or with a [`DecodeError`] of this one
//! record: it never panics, and [`Limits`] bound its depth, its size and its memory.
//!
//! `apache-avro` checks every schema and is the oracle of the tests. Its parsed form drops the
//! attributes of primitive types (`connect.name` above all), so the plan is compiled from the
//! schema's JSON.

mod cell;
mod compile;
pub mod decimal;
mod decode;
mod frame;
mod plan;
mod schema;
mod semantic;
mod source;
mod view;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod plan_tests;

pub use cell::{Cell, CellBuf};
pub use decode::{DecodeError, Fault, Limits};
pub use frame::{FrameError, frame};
pub use plan::{Column, Kind, NodeId, Plan, Type};
pub use schema::SchemaError;
pub use semantic::Semantic;
pub use source::{SourceType, ToastShape};
pub use view::{Row, Value};
