//! What is kept of a table's rows while the source is read: 16 bytes of each. Pure.

/// Keys that are compared in one go: their hashes fall to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) of: u64,
}

impl Part {
    /// Whether a key with this hash belongs to it.
    pub(super) fn has(self, key: i64) -> bool {
        key.cast_unsigned() % self.of == self.number
    }
}

/// Hashes of key and content of each row, and which of them the source has said.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rows: Vec<(i64, i64)>,
    seen: Vec<u64>,
}

impl Kept {
    /// Adds a row.
    pub(super) fn add(&mut self, key: i64, content: i64) {
        self.rows.push((key, content));
    }

    /// Adds a row that is equal to nothing, so that it is looked at.
    pub(super) fn add_unknown(&mut self, key: i64) {
        self.rows.extend([(key, 0), (key, 0)]);
    }

    /// After the last row, before the first is asked for.
    pub(super) fn sort(&mut self) {
        self.rows.sort_unstable();
        self.seen = vec![0; self.rows.len().div_ceil(64)];
    }

    /// Whether the rows with this key are one, of this content. They are not left from then on.
    pub(super) fn take(&mut self, key: i64, content: i64) -> bool {
        let first = self.rows.partition_point(|(found, _)| *found < key);
        let mut last = first;
        while self.rows.get(last).is_some_and(|(found, _)| *found == key) {
            if let Some(word) = self.seen.get_mut(last / 64) {
                *word |= 1 << (last % 64);
            }
            last += 1;
        }
        last - first == 1 && self.rows.get(first).is_some_and(|(_, found)| *found == content)
    }

    /// Keys that were never taken, sorted.
    pub(super) fn left(self) -> Vec<i64> {
        let Self { rows, seen } = self;
        let is_left = |at: &usize| seen.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 0);
        let mut left: Vec<i64> = (0..rows.len())
            .filter(is_left)
            .filter_map(|at| rows.get(at).map(|(key, _)| *key))
            .collect();
        left.dedup();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_equal_once_and_what_is_left_is_told() {
        let mut kept = Kept::default();
        for (key, content) in [(5, 50), (-1, 10), (7, 70), (7, 70), (9, 90), (9, 91), (3, 30)] {
            kept.add(key, content);
        }
        kept.add_unknown(4);
        kept.sort();
        assert!(kept.take(5, 50));
        assert!(!kept.take(-1, 11), "another content");
        assert!(!kept.take(7, 70), "twice the same");
        assert!(!kept.take(4, 0), "unknown");
        assert!(!kept.take(6, 60), "not there");
        assert_eq!(kept.left(), [3, 9]);
    }

    #[test]
    fn each_key_is_in_one_part() {
        for key in [i64::MIN, -3, 0, 1, 2, i64::MAX] {
            let parts = (0..3).filter(|number| Part { number: *number, of: 3 }.has(key));
            assert_eq!(parts.count(), 1, "{key}");
        }
    }
}
