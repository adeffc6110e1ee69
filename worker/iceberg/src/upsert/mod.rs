//! What `write_mode: upsert` decides, without a file or a catalog: which rows of a batch are
//! written, which stored ones go, where values that were not sent come from.

mod again;
mod hash;
mod index;
mod marks;
mod moves;
mod plan;
mod rejected;

pub(crate) use self::again::{Again, AgainDocument, Returning};
pub(crate) use self::hash::{KeyHash, hashes};
pub(crate) use self::index::{Builder, Index, Place};
pub(crate) use self::marks::Marks;
pub use self::marks::{Half, Move};
pub(crate) use self::moves::{Moves, MovesDocument};
pub(crate) use self::plan::{Chosen, PartRows, Plan, Short, Source, locate, plan};
pub use self::rejected::{LetterFate, RawKey};
pub(crate) use self::rejected::{Note, Rejected, RejectedDocument};
