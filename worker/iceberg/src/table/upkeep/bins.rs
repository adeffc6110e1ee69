//! Which files are rewritten into which: a pure rule.

use std::collections::BTreeMap;

use super::Compact;

/// A live data file, as far as the choice goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Files of one group may become one: they hold rows of the same Kafka partition, and of the same
    /// partition of the table.
    pub(super) group: usize,
    /// Sequence number: rows stay in the order in which they came.
    pub(super) sequence: i64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// Rows of it that are deleted.
    pub(super) gone: u64,
}

impl Candidate {
    /// Its bytes without the deleted rows, about.
    fn lasting(&self) -> u64 {
        let share = u128::from(self.rows.saturating_sub(self.gone));
        let bytes = u128::from(self.bytes) * share / u128::from(self.rows.max(1));
        u64::try_from(bytes).unwrap_or(self.bytes)
    }

    fn has_many_gone(&self, wanted: &Compact) -> bool {
        self.gone > 0
            && u128::from(self.gone) * 100
                >= u128::from(self.rows) * u128::from(wanted.gone_percent)
    }

    fn is_small(&self, wanted: &Compact) -> bool {
        self.lasting() < wanted.target_bytes / 4 * 3
    }
}

/// The files, by their place, that become one each. A file that is neither small nor has many deleted
/// rows stays as it is, and so do a few small ones that are not worth it yet.
pub(super) fn bins(files: &[Candidate], wanted: &Compact) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<usize, Vec<(usize, &Candidate)>> = BTreeMap::new();
    for (place, file) in files.iter().enumerate() {
        if file.is_small(wanted) || file.has_many_gone(wanted) {
            groups.entry(file.group).or_default().push((place, file));
        }
    }
    let mut bins = Vec::new();
    for mut files in groups.into_values() {
        files.sort_by_key(|(place, file)| (file.sequence, *place));
        let (mut bin, mut bytes) = (Vec::new(), 0);
        for (place, file) in files {
            if !bin.is_empty() && bytes + file.lasting() > wanted.target_bytes {
                bins.push(std::mem::take(&mut bin));
                bytes = 0;
            }
            bytes += file.lasting();
            bin.push(place);
        }
        bins.push(bin);
    }
    let many = |bin: &Vec<usize>| bin.len() >= wanted.min_files.max(2);
    let dirty = |bin: &Vec<usize>| {
        bin.iter().any(|place| files.get(*place).is_some_and(|file| file.has_many_gone(wanted)))
    };
    bins.retain(|bin| many(bin) || dirty(bin));
    bins
}
