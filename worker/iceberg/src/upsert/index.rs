//! Where the row of each key is: 20 bytes per key in sorted runs, and a small map for what is new.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::hash::KeyHash;

/// Runs: one is merged at a time, so that merging takes little memory on top.
const SHARDS: usize = 256;
/// New keys of a run before they are merged into it: so many, and a share of the run.
const FEW: usize = 64;
const SHARE: usize = 16;
/// The file of a row that is gone.
const GONE: u32 = u32::MAX;

/// A row of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    /// Number of the file.
    pub(crate) file: u32,
    /// Row in it.
    pub(crate) row: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: KeyHash,
    place: Place,
}

#[derive(Debug, Default)]
struct Shard {
    /// By hash.
    sorted: Vec<Entry>,
    new: HashMap<KeyHash, Place>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<Shard>,
}

fn shard_of(hash: KeyHash) -> usize {
    (hash.0[0] >> 24) as usize % SHARDS
}

impl Index {
    /// The row of a key.
    pub(crate) fn get(&self, hash: KeyHash) -> Option<Place> {
        let shard = self.shards.get(shard_of(hash))?;
        let found = shard.new.get(&hash).copied();
        let place = found.or_else(|| Some(shard.sorted.get(shard.find(hash).ok()?)?.place))?;
        (place.file != GONE).then_some(place)
    }

    /// The row of a key is here now.
    pub(crate) fn set(&mut self, hash: KeyHash, place: Place) {
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return };
        if let Ok(at) = shard.find(hash)
            && let Some(entry) = shard.sorted.get_mut(at)
        {
            entry.place = place;
            return;
        }
        shard.new.insert(hash, place);
        if shard.new.len() > FEW + shard.sorted.len() / SHARE {
            shard.merge();
        }
    }

    /// The row of a key is gone.
    pub(crate) fn remove(&mut self, hash: KeyHash) {
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return };
        if let Ok(at) = shard.find(hash)
            && let Some(entry) = shard.sorted.get_mut(at)
        {
            entry.place.file = GONE;
            return;
        }
        shard.new.remove(&hash);
    }
}

/// Bytes of a row in a saved index.
const SAVED: usize = 20;

impl Index {
    /// Keys, some that are gone among them.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.sorted.len() + shard.new.len()).sum()
    }

    /// Adds all rows to what is saved.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.len() * SAVED);
        for entry in self.shards.iter().flat_map(Shard::entries) {
            for word in entry.hash.0.into_iter().chain([entry.place.file, entry.place.row]) {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// All rows, to build another index from.
    pub(crate) fn into_builder(self) -> Builder {
        let shards = self.shards.into_iter().map(|shard| {
            let Shard { mut sorted, new } = shard;
            sorted.extend(new.into_iter().map(|(hash, place)| Entry { hash, place }));
            sorted.retain(|entry| entry.place.file != GONE);
            sorted
        });
        Builder { shards: shards.collect() }
    }
}

impl Shard {
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let new = self.new.iter().map(|(hash, place)| Entry { hash: *hash, place: *place });
        self.sorted.iter().copied().chain(new).filter(|entry| entry.place.file != GONE)
    }

    fn find(&self, hash: KeyHash) -> Result<usize, usize> {
        self.sorted.binary_search_by(|entry| entry.hash.cmp(&hash))
    }

    fn merge(&mut self) {
        let new = std::mem::take(&mut self.new);
        self.sorted.retain(|entry| entry.place.file != GONE);
        let mut new: Vec<Entry> =
            new.into_iter().map(|(hash, place)| Entry { hash, place }).collect();
        new.sort_unstable_by_key(|entry| entry.hash);
        self.sorted.reserve_exact(new.len());
        self.sorted.append(&mut new);
        // Two runs that are sorted: this merges them.
        self.sorted.sort_by_key(|entry| entry.hash);
    }
}

/// An index under construction. Files are numbered in the order in which they were written.
#[derive(Debug)]
pub(crate) struct Builder {
    shards: Vec<Vec<Entry>>,
}

impl Builder {
    /// An index of nothing.
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Vec::new()).collect() }
    }

    /// Rows that were saved; `None` when they are no such.
    pub(crate) fn decode(saved: &[u8]) -> Option<Self> {
        let (rows, rest) = saved.as_chunks::<SAVED>();
        let mut builder = Self::new();
        for row in rows {
            let (words, _) = row.as_chunks::<4>();
            let &[a, b, c, file, row] = words else { return None };
            let [a, b, c, file, row] = [a, b, c, file, row].map(u32::from_le_bytes);
            builder.add(KeyHash([a, b, c]), Place { file, row });
        }
        rest.is_empty().then_some(builder)
    }

    /// A row of a key.
    pub(crate) fn add(&mut self, hash: KeyHash, place: Place) {
        if let Some(shard) = self.shards.get_mut(shard_of(hash)) {
            shard.push(Entry { hash, place });
        }
    }

    /// Where all rows are.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.shards.iter().flatten().map(|entry| entry.place)
    }

    /// Leaves out rows, and gives the files of the others other numbers.
    pub(crate) fn renumber(&mut self, number: impl Fn(Place) -> Option<u32>) {
        for shard in &mut self.shards {
            shard.retain_mut(|entry| match number(entry.place) {
                Some(file) => {
                    entry.place.file = file;
                    true
                }
                None => false,
            });
        }
    }

    /// The index, and rows whose key has a later one: there should be none.
    pub(crate) fn finish(self) -> (Index, Vec<Place>) {
        let mut stale = Vec::new();
        let shards = self.shards.into_iter().map(|mut entries| {
            // Of one key the latest comes first, and stays.
            entries.sort_unstable_by_key(|entry| (entry.hash, Reverse(entry.place)));
            let mut last = None;
            entries.retain(|entry| {
                let is_first = last != Some(entry.hash);
                last = Some(entry.hash);
                if !is_first {
                    stale.push(entry.place);
                }
                is_first
            });
            entries.shrink_to_fit();
            Shard { sorted: entries, new: HashMap::new() }
        });
        let shards = shards.collect();
        (Index { shards }, stale)
    }
}
