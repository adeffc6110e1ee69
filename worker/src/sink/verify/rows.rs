//! The rows of one table as one of the databases has them.

use std::collections::HashMap;

use async_trait::async_trait;

use super::failure::TaskFailure;
use super::query::{Key, Range};

/// Number of rows, sum of their hashes, and the last key of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Chunk {
    pub(in crate::sink) rows: u64,
    pub(in crate::sink) hash: String,
    pub(in crate::sink) last: Option<Key>,
}

/// A row as it was looked up.
#[expect(clippy::struct_field_names, reason = "a row's version is the word for it")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Version {
    /// Changes whenever the row is written, or at least whenever its content does.
    pub(in crate::sink) version: String,
    /// A hash of each compared column; `None` for NULL.
    pub(in crate::sink) cells: Vec<Option<i64>>,
    /// Rows of this key: more than one where nothing keeps keys apart.
    pub(in crate::sink) copies: u64,
    /// Places of columns whose values it does not say.
    pub(in crate::sink) unknown: Vec<usize>,
}

/// Looks rows of one table up. Keys and hashes are those of `query`, whatever the database.
#[async_trait]
pub(in crate::sink) trait Look: Send + Sync {
    /// The rows of some keys, by their place among them.
    async fn look_up(&self, keys: &[&Key]) -> Result<HashMap<usize, Version>, TaskFailure>;

    /// The texts of some rows, by their key's place, each cut to `longest` characters.
    async fn values(
        &self,
        keys: &[&Key],
        longest: usize,
    ) -> Result<HashMap<usize, Vec<Option<String>>>, TaskFailure>;

    /// Looks in a row at which a row must have been the same to count as unwritten.
    fn looks(&self) -> u8;
}

/// Reads the rows of one table in the order of their keys.
#[async_trait]
pub(in crate::sink) trait Rows: Look {
    /// The rows of a range, at most `limit`, as one.
    async fn chunk(&self, range: &Range<'_>, limit: usize) -> Result<Chunk, TaskFailure>;

    /// Hash of each row of a range, by key, at most `limit`.
    async fn rows(&self, range: &Range<'_>, limit: usize) -> Result<Vec<(Key, i64)>, TaskFailure>;
}
