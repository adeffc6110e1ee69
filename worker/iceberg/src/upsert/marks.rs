//! What is known of the rows of a batch beside their values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hash::KeyHash;

/// Which change of a primary key at the source: delete and create of it share these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Log position.
    pub lsn: i64,
    /// Transaction.
    pub tx: i64,
}

/// A half of a change of a primary key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// The delete of the old key.
    Left,
    /// The create of the new one, from which large values that did not change may be missing.
    Reached,
}

/// See the module; by the number of the row.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Hashes of the keys.
    pub(crate) hashes: Vec<KeyHash>,
    /// Whether the row is gone after the change.
    pub(crate) deleted: Vec<bool>,
    /// Columns of the layout that were not sent.
    pub(crate) missing: BTreeMap<usize, Vec<usize>>,
    /// Halves of changes of the primary key.
    pub(crate) moves: BTreeMap<usize, (Half, Move)>,
}

impl Marks {
    /// Without some rows.
    pub(crate) fn keep(&mut self, alive: &[bool]) {
        let mut number = 0;
        let numbers: Vec<Option<usize>> = alive
            .iter()
            .map(|alive| {
                number += usize::from(*alive);
                alive.then(|| number - 1)
            })
            .collect();
        let new = |row: usize| numbers.get(row).copied().flatten();
        let deleted = self.deleted.iter().zip(alive).filter(|(_, alive)| **alive);
        self.deleted = deleted.map(|(deleted, _)| *deleted).collect();
        let missing = std::mem::take(&mut self.missing).into_iter();
        self.missing = missing.filter_map(|(row, columns)| Some((new(row)?, columns))).collect();
        let moves = std::mem::take(&mut self.moves).into_iter();
        self.moves = moves.filter_map(|(row, half)| Some((new(row)?, half))).collect();
    }
}
