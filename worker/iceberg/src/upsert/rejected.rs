//! Records of a table that is kept by key which the sink has rejected and the dead letter queue has: kept
//! with the offsets, so that a letter which is written again never sets a row back. A later row or
//! delete of its key settles it, in the commit that has that.

use std::collections::BTreeMap;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

/// Most records that are remembered of a partition. Beyond, those that are settled go first; what is not
/// remembered counts as settled.
const MOST: usize = 1_000;

/// A key as it came from Kafka, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RawKey(u128);

impl RawKey {
    /// Of its bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(bytes);
        Self(hasher.finish128().as_u128())
    }
}

/// What became of a rejected record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterFate {
    /// Nothing newer of its key has come.
    Stands,
    /// It was written again.
    Replayed,
    /// A part of its row came later, at this offset.
    Partly(i64),
    /// Its whole row, or its delete, came later, at this offset.
    Superseded(i64),
}

/// What a commit has to do with rejected records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// A record is rejected.
    Rejected { offset: i64, key: Option<RawKey> },
    /// A row or delete of a key. `whole`: nothing is left of what the key had before.
    Settled { offset: i64, key: RawKey, whole: bool },
}

impl Note {
    pub(crate) fn offset(&self) -> i64 {
        match self {
            Self::Rejected { offset, .. } | Self::Settled { offset, .. } => *offset,
        }
    }
}

/// Rejected records of a partition, by their offsets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rejected {
    letters: BTreeMap<i64, (Option<RawKey>, LetterFate)>,
}

impl Rejected {
    /// What became of the record at an offset; `None`: it is not remembered.
    pub(crate) fn fate(&self, offset: i64) -> Option<LetterFate> {
        self.letters.get(&offset).map(|(_, fate)| *fate)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Notes in the order of their offsets.
    pub(crate) fn note(&mut self, notes: &[Note]) {
        for note in notes {
            match *note {
                // Rejected again, after the sink was taken back, it stands anew.
                Note::Rejected { offset, key } => {
                    self.letters.insert(offset, (key, LetterFate::Stands));
                }
                Note::Settled { offset, key, whole } => {
                    self.settle(key, offset, (offset, whole));
                }
            }
        }
        while self.letters.len() > MOST {
            let settled = self.letters.iter().find(|(_, (_, fate))| *fate != LetterFate::Stands);
            let Some(first) = settled.or(self.letters.iter().next()).map(|(at, _)| *at) else {
                return;
            };
            self.letters.remove(&first);
        }
    }

    /// Letters of a key up to an offset are settled by what is at another.
    fn settle(&mut self, of: RawKey, up_to: i64, (at, whole): (i64, bool)) {
        for (_, (key, fate)) in self.letters.range_mut(..=up_to) {
            if *key != Some(of) {
                continue;
            }
            match fate {
                LetterFate::Stands | LetterFate::Partly(_) if whole => {
                    *fate = LetterFate::Superseded(at);
                }
                LetterFate::Stands => *fate = LetterFate::Partly(at),
                _ => {}
            }
        }
    }

    /// The record at an offset is written again: what was rejected of its key before would set it back.
    pub(crate) fn replayed(&mut self, offset: i64, whole: bool) {
        let Some((key, fate)) = self.letters.get_mut(&offset) else { return };
        *fate = LetterFate::Replayed;
        if let Some(key) = *key {
            self.settle(key, offset.saturating_sub(1), (offset, whole));
        }
    }
}

/// Their text: offset, key and fate of each.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RejectedDocument(Vec<(i64, Option<String>, LetterFate)>);

impl From<&Rejected> for RejectedDocument {
    fn from(rejected: &Rejected) -> Self {
        let text = |key: &RawKey| format!("{:x}", key.0);
        let letters = rejected.letters.iter();
        Self(letters.map(|(at, (key, fate))| (*at, key.as_ref().map(text), *fate)).collect())
    }
}

impl From<RejectedDocument> for Rejected {
    fn from(document: RejectedDocument) -> Self {
        let key = |text: String| u128::from_str_radix(&text, 16).ok().map(RawKey);
        let letters = document.0.into_iter();
        let letters = letters.map(|(at, text, fate)| (at, (text.and_then(key), fate)));
        Self { letters: letters.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> RawKey {
        RawKey::of(text.as_bytes())
    }

    fn rejected(offset: i64, of: &str) -> Note {
        Note::Rejected { offset, key: Some(key(of)) }
    }

    fn settled(offset: i64, of: &str, whole: bool) -> Note {
        Note::Settled { offset, key: key(of), whole }
    }

    #[test]
    fn a_letter_stands_until_something_newer_of_its_key_comes() {
        let mut letters = Rejected::default();
        letters.note(&[rejected(1, "a"), rejected(2, "b"), rejected(3, "c"), rejected(4, "a")]);
        letters.note(&[settled(5, "b", true), settled(6, "c", false)]);
        assert_eq!(letters.fate(2), Some(LetterFate::Superseded(5)));
        assert_eq!(letters.fate(3), Some(LetterFate::Partly(6)));
        letters.note(&[settled(7, "c", true), settled(8, "b", false)]);
        assert_eq!(letters.fate(3), Some(LetterFate::Superseded(7)));
        assert_eq!(letters.fate(2), Some(LetterFate::Superseded(5)));
        letters.replayed(4, true);
        assert_eq!(letters.fate(4), Some(LetterFate::Replayed));
        assert_eq!(letters.fate(1), Some(LetterFate::Superseded(4)));
        assert_eq!(letters.fate(9), None);
        // Taken back, and rejected again.
        letters.note(&[rejected(4, "a")]);
        assert_eq!(letters.fate(4), Some(LetterFate::Stands));
        let text = serde_json::to_string(&RejectedDocument::from(&letters)).unwrap();
        let document: RejectedDocument = serde_json::from_str(&text).unwrap();
        assert_eq!(Rejected::from(document), letters);
    }

    #[test]
    fn of_too_many_the_settled_go_first() {
        let mut letters = Rejected::default();
        let all: Vec<Note> = (0..MOST as i64).map(|at| rejected(at, &format!("k{at}"))).collect();
        letters.note(&all);
        letters.note(&[settled(5_000, "k7", true), rejected(5_001, "new")]);
        assert_eq!((letters.fate(7), letters.fate(0)), (None, Some(LetterFate::Stands)));
        letters.note(&[rejected(5_002, "newer")]);
        assert_eq!((letters.fate(0), letters.fate(1)), (None, Some(LetterFate::Stands)));
        letters.note(&[Note::Rejected { offset: 5_003, key: None }]);
        letters.note(&[settled(5_004, "none", true)]);
        assert_eq!(
            letters.fate(5_003),
            Some(LetterFate::Stands),
            "what has no key is never settled"
        );
    }
}
