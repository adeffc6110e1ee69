//! What `write_mode: upsert` decides, without a file or a catalog: which rows of a batch are
//! written, which stored ones go, where values that were not sent come from.

mod hash;
mod index;
mod marks;
mod moves;
mod plan;

pub(crate) use self::hash::hashes;
pub(crate) use self::index::{Builder, Index, Place};
pub(crate) use self::marks::Marks;
pub use self::marks::{Half, Move};
pub(crate) use self::moves::{Moves, MovesDocument};
pub(crate) use self::plan::{Chosen, PartRows, Plan, Short, Source, locate, plan};
