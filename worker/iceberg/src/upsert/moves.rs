//! Changes of primary keys of which one half is in the table and the other is not yet: kept with the
//! offsets, so that a create finds the row that its delete has removed, whoever wrote which.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::marks::Move;

/// Most changes that are kept: more than partitions of one table are apart, but for a change of
/// nearly every key at once.
const MOST: usize = 10_000;

/// The half that is in the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// The delete: a file and the row in it that was removed; `None` when there was none.
    Left(Option<(Arc<str>, u32)>),
    /// None yet, but the delete is going to remove this row: its partition waits for others, which
    /// need not wait for it therefore.
    Early(Arc<str>, u32),
    /// The create.
    Reached,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Moves {
    entries: BTreeMap<Move, Entry>,
    /// Changes up to this log position may have been forgotten.
    lost: Option<i64>,
}

impl Moves {
    /// What is known of a change.
    pub(crate) fn get(&self, id: Move) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Whether a change that is not known is one that was forgotten.
    pub(crate) fn is_lost(&self, id: Move) -> bool {
        self.lost.is_some_and(|lost| id.lsn <= lost)
    }

    /// A half is in the table now. Once both are, nothing is kept.
    pub(crate) fn put(&mut self, id: Move, entry: Entry) {
        match (self.entries.get(&id), &entry) {
            (Some(Entry::Left(_)), Entry::Reached) | (Some(Entry::Reached), Entry::Left(_)) => {
                self.entries.remove(&id);
                return;
            }
            // What the connector sends again finds no row to leave behind.
            (Some(Entry::Left(_)), Entry::Left(None)) | (Some(_), Entry::Early(..)) => return,
            _ => {}
        }
        // What waits can be noted again; what was done cannot.
        if matches!(entry, Entry::Early(..)) && self.entries.len() >= MOST / 2 {
            return;
        }
        self.entries.insert(id, entry);
        while self.entries.len() > MOST {
            let Some((oldest, _)) = self.entries.pop_first() else { return };
            self.lost = self.lost.max(Some(oldest.lsn));
        }
    }

    /// Files that hold rows which a create may yet ask for.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Left(Some((file, _))) | Entry::Early(file, _) => Some(file),
            Entry::Left(None) | Entry::Reached => None,
        })
    }

    /// Both halves are in the table now.
    pub(crate) fn settle(&mut self, id: Move) {
        self.entries.remove(&id);
    }
}

/// Their text.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct MovesDocument {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    left: BTreeMap<Arc<str>, Vec<(i64, i64, u32)>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    early: BTreeMap<Arc<str>, Vec<(i64, i64, u32)>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    empty: Vec<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reached: Vec<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<i64>,
}

impl From<&Moves> for MovesDocument {
    fn from(moves: &Moves) -> Self {
        let mut document = Self { lost: moves.lost, ..Self::default() };
        for (Move { lsn, tx }, entry) in &moves.entries {
            match entry {
                Entry::Left(Some((file, row))) => {
                    document.left.entry(file.clone()).or_default().push((*lsn, *tx, *row));
                }
                Entry::Early(file, row) => {
                    document.early.entry(file.clone()).or_default().push((*lsn, *tx, *row));
                }
                Entry::Left(None) => document.empty.push((*lsn, *tx)),
                Entry::Reached => document.reached.push((*lsn, *tx)),
            }
        }
        document
    }
}

impl From<MovesDocument> for Moves {
    fn from(document: MovesDocument) -> Self {
        let mut entries = BTreeMap::new();
        for (file, rows) in document.left {
            for (lsn, tx, row) in rows {
                entries.insert(Move { lsn, tx }, Entry::Left(Some((file.clone(), row))));
            }
        }
        for (file, rows) in document.early {
            for (lsn, tx, row) in rows {
                entries.insert(Move { lsn, tx }, Entry::Early(file.clone(), row));
            }
        }
        let empty = document.empty.into_iter().map(|id| (id, Entry::Left(None)));
        let reached = document.reached.into_iter().map(|id| (id, Entry::Reached));
        entries.extend(empty.chain(reached).map(|((lsn, tx), entry)| (Move { lsn, tx }, entry)));
        Self { entries, lost: document.lost }
    }
}
