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

use std::time::Duration;

pub use self::clean::{Clean, Cleaned};
pub use self::compact::{Compact, Compacted};
pub use self::expire::{Expire, Expired};
use super::LakeTable;
use crate::error::{Kind, LakeError};

/// How often a commit is tried that others come before.
const TURNS: u32 = 50;
/// Files that are read or removed at a time.
const AT_ONCE: usize = 16;

impl LakeTable {
    /// Before the next of several attempts.
    async fn pause(turn: u32) {
        let longest = 10 << turn.min(6);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=longest))).await;
    }

    fn contended(&self) -> LakeError {
        let message =
            format!("{TURNS} times in a row others committed to table {} first", self.name);
        LakeError::new(Kind::Contended, "commit_contended", message)
    }

    fn unreadable(&self, error: iceberg::Error) -> LakeError {
        LakeError::warehouse(&format!("reading the manifests of table {}", self.name), error)
    }
}
