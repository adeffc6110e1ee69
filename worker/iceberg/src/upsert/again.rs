//! Records that come again to a table that is kept by key, after its sink was taken back.
//!
//! The table has the rows as of where the sink was. Up to there a record changes only rows that are not
//! newer, so that nothing is lost that no later record brings: a large value that was not sent when its
//! row got its key. Both halves of a change of a key are delete and create then: what others wait for
//! was noted when they came first. A row that lacks values, and is not there to give them, was deleted
//! later: it is left out, and remembered until that comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::hash::KeyHash;

/// A partition on its way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Again {
    /// Where the sink was: the first offset that never came.
    pub(crate) until: i64,
    /// Keys whose rows were left out, each with the offset of its latest record.
    pub(crate) owed: BTreeMap<KeyHash, i64>,
}

impl Again {
    /// Back from one offset to another.
    pub(crate) fn take_back(&mut self, from: i64, to: i64) {
        self.until = self.until.max(from);
        // What is left out from there on is seen again.
        self.owed.retain(|_, offset| *offset < to);
    }
}

/// The same with what is known for some rows of the partition.
#[derive(Debug, Default)]
pub(crate) struct Returning {
    pub(crate) again: Again,
    /// Offsets of the rows that are stored, where they say what is newer.
    pub(crate) stored: HashMap<KeyHash, i64>,
    /// Rows that are left out, by their numbers.
    pub(crate) dropped: BTreeSet<usize>,
}

impl Returning {
    /// Whether the record at an offset is older than the stored row of its key.
    pub(super) fn is_older(&self, offset: i64, key: KeyHash) -> bool {
        self.stored.get(&key).is_some_and(|stored| offset < *stored && *stored < self.again.until)
    }
}

/// Its text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgainDocument {
    until: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owed: Vec<(u32, u32, u32, i64)>,
}

impl From<&Again> for AgainDocument {
    fn from(again: &Again) -> Self {
        let owed = again.owed.iter().map(|(KeyHash([a, b, c]), offset)| (*a, *b, *c, *offset));
        Self { until: again.until, owed: owed.collect() }
    }
}

impl From<AgainDocument> for Again {
    fn from(document: AgainDocument) -> Self {
        let owed = document.owed.into_iter();
        let owed = owed.map(|(a, b, c, offset)| (KeyHash([a, b, c]), offset)).collect();
        Self { until: document.until, owed }
    }
}
