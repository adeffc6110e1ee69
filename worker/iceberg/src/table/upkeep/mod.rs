//! What keeps a table small and quick: small files joined and deleted rows left out ([`compact`]),
//! old snapshots given up ([`expire`]), files that nothing refers to removed ([`clean`]).
//!
//! Writers go on meanwhile. Whatever they commit in between, the upkeep's own commit is a
//! compare-and-set of the table's metadata like theirs, and what it does holds for the table as it
//! is at that moment.

mod bins;
mod clean;
mod compact;
mod expire;
mod files;
mod rewrite;

pub use self::clean::{Clean, Cleaned};
pub use self::compact::{Compact, Compacted};
pub use self::expire::{Expire, Expired};

/// How often a commit is tried that others come before.
const TURNS: u32 = 50;
/// Files that are read or removed at a time.
const AT_ONCE: usize = 16;
