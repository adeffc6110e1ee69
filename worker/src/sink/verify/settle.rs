//! When a difference is one. Pure.
//!
//! Both sides live while they are read, so a first look proves nothing: the change may be on its
//! way. Each suspected key is read again in rounds: the source, then (after the sink has passed the
//! position that the source then had) the mirror. A verdict needs a row that nobody wrote
//! meanwhile, which its version shows:
//!
//! - **The source's row is the same version in two rounds.** The mirror was read in between, with
//!   everything applied up to the first of them, so it stood at a state of the source in which the
//!   row was exactly this. If the mirror differs, it is wrong.
//! - **The mirror's row is the same version in two rounds**, and the source, read in between, says
//!   otherwise. The mirror then stands at or behind that read; had the row been changed in the
//!   source since the mirror was first read, the mirror's row would have been written.
//!
//! MySQL and MariaDB tell no version of a row; there its content stands for it, which a row that is
//! written back and forth has again. So three looks in a row must agree before such a row counts as
//! unwritten.
//!
//! Whatever is equal at one moment is settled. A key that is written between all rounds stays
//! unsettled, and is told as such.

use super::rows::Version;

/// What was last seen of one key.
#[derive(Clone, Debug, Default)]
pub(in crate::sink) struct Seen {
    source: Look,
    mirror: Look,
    /// Looks in a row at which the source's row was the same, less one.
    steady: u8,
}

/// One side of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Look {
    /// Nobody looked yet.
    #[default]
    Never,
    /// There was no row.
    Absent,
    /// There was this one.
    Row(Version),
}

impl Look {
    fn at(row: Option<Version>) -> Self {
        row.map_or(Self::Absent, Self::Row)
    }

    fn row(&self) -> Option<&Version> {
        match self {
            Self::Row(row) => Some(row),
            Self::Never | Self::Absent => None,
        }
    }
}

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) enum Verdict {
    /// Look again.
    Open,
    /// Equal at one moment.
    Equal,
    /// The mirror lacks the row.
    Missing,
    /// The source does not have the row.
    Extra,
    /// These columns differ.
    Changed(Vec<usize>),
}

impl Seen {
    /// The source as it is now; a row counts as unwritten when it was the same at so many looks.
    pub(in crate::sink) fn source(&mut self, now: Option<Version>, looks: u8) -> Verdict {
        let before = std::mem::replace(&mut self.source, Look::at(now));
        self.steady = if before == self.source { self.steady.saturating_add(1) } else { 0 };
        let unwritten = self.steady >= looks.saturating_sub(1).max(1);
        self.judged(unwritten && self.source.row().is_some())
    }

    /// The mirror's row when it was last read.
    pub(in crate::sink) fn of_mirror(&self) -> Option<&Version> {
        self.mirror.row()
    }

    /// The mirror, after the sink passed the position taken behind the latest [`Seen::source`].
    pub(in crate::sink) fn mirror(&mut self, now: Option<Version>) -> Verdict {
        let before = std::mem::replace(&mut self.mirror, Look::at(now));
        let unwritten = before == self.mirror;
        self.judged(unwritten && self.mirror.row().is_some())
    }

    fn judged(&self, unwritten: bool) -> Verdict {
        if self.source == Look::Never || self.mirror == Look::Never {
            return Verdict::Open;
        }
        let (source, mirror) = (self.source.row(), self.mirror.row());
        if same_content(source, mirror) {
            return Verdict::Equal;
        }
        if unwritten { difference(source, mirror) } else { Verdict::Open }
    }
}

fn same_content(source: Option<&Version>, mirror: Option<&Version>) -> bool {
    match (source, mirror) {
        (None, None) => true,
        (Some(source), Some(mirror)) => {
            mirror.copies == 1
                && source.cells.len() == mirror.cells.len()
                && differing(source, mirror).next().is_none()
        }
        _ => false,
    }
}

/// Places of the columns that differ, as far as the mirror says them.
fn differing<'r>(source: &'r Version, mirror: &'r Version) -> impl Iterator<Item = usize> + 'r {
    let pairs = source.cells.iter().zip(&mirror.cells).enumerate();
    let differ = pairs.filter(|(at, (s, m))| s != m && !mirror.unknown.contains(at));
    differ.map(|(at, _)| at)
}

fn difference(source: Option<&Version>, mirror: Option<&Version>) -> Verdict {
    match (source, mirror) {
        (Some(_), None) => Verdict::Missing,
        (None, Some(_)) => Verdict::Extra,
        // One of them is the source's at most.
        (Some(_), Some(mirror)) if mirror.copies > 1 => Verdict::Extra,
        (None, None) => Verdict::Equal,
        (Some(source), Some(mirror)) => Verdict::Changed(differing(source, mirror).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "stands beside None as what was read")]
    fn row(version: &str, cells: &[i64]) -> Option<Version> {
        let cells = cells.iter().map(|cell| Some(*cell)).collect();
        Some(Version { version: version.to_owned(), cells, copies: 1, unknown: Vec::new() })
    }

    #[test]
    fn a_row_that_nobody_writes_is_judged_in_one_round() {
        let mut missing = Seen::default();
        assert_eq!(missing.source(row("s1", &[1, 2]), 2), Verdict::Open);
        assert_eq!(missing.mirror(None), Verdict::Open);
        assert_eq!(missing.source(row("s1", &[1, 2]), 2), Verdict::Missing);

        let mut changed = Seen::default();
        changed.source(row("s1", &[1, 2]), 2);
        changed.mirror(row("m1", &[1, 3]));
        assert_eq!(changed.source(row("s1", &[1, 2]), 2), Verdict::Changed(vec![1]));

        let mut extra = Seen::default();
        extra.source(None, 2);
        assert_eq!(extra.mirror(row("m1", &[1])), Verdict::Open);
        assert_eq!(extra.source(None, 2), Verdict::Open, "it may have been there in between");
        assert_eq!(extra.mirror(row("m1", &[1])), Verdict::Extra);
    }

    #[test]
    fn a_change_on_its_way_is_no_difference() {
        let mut late = Seen::default();
        late.source(row("s1", &[1]), 2);
        assert_eq!(late.mirror(row("m1", &[0])), Verdict::Open);
        // Changed at the source meanwhile: the mirror may have stood before or after it.
        assert_eq!(late.source(row("s2", &[2]), 2), Verdict::Open);
        assert_eq!(late.mirror(row("m2", &[2])), Verdict::Equal);

        let mut ahead = Seen::default();
        ahead.source(row("s1", &[1]), 2);
        ahead.mirror(row("m1", &[2]));
        assert_eq!(ahead.source(row("s2", &[2]), 2), Verdict::Equal, "the mirror was ahead");
    }

    #[test]
    fn a_row_written_back_and_forth_stays_open() {
        let mut restless = Seen::default();
        for round in 0..10 {
            let verdict = restless.source(row(&format!("s{round}"), &[2 * round]), 2);
            assert_eq!(verdict, Verdict::Open);
            let verdict = restless.mirror(row(&format!("m{round}"), &[2 * round + 1]));
            assert_eq!(verdict, Verdict::Open);
        }
        // The same content in another version was written, too.
        let mut toggled = Seen::default();
        toggled.source(row("s1", &[1]), 2);
        toggled.mirror(row("m1", &[2]));
        assert_eq!(toggled.source(row("s2", &[1]), 2), Verdict::Open);
        assert_eq!(toggled.mirror(row("m1", &[2])), Verdict::Changed(vec![0]));
    }

    #[test]
    fn content_alone_proves_less_than_a_version() {
        let mut row_without_version = Seen::default();
        for verdict in [Verdict::Open, Verdict::Open, Verdict::Missing] {
            assert_eq!(row_without_version.source(row("1", &[1]), 3), verdict);
            if verdict == Verdict::Open {
                assert_eq!(row_without_version.mirror(None), Verdict::Open);
            }
        }
        let mut toggled = Seen::default();
        for content in [1, 2, 2, 1, 1] {
            assert_eq!(toggled.source(row("1", &[content]), 3), Verdict::Open);
            assert_eq!(toggled.mirror(None), Verdict::Open);
        }
    }

    #[test]
    fn what_the_mirror_does_not_say_is_not_compared() {
        let unknown = |row: Option<Version>| row.map(|row| Version { unknown: vec![0], ..row });
        let mut seen = Seen::default();
        seen.source(row("s1", &[1, 2]), 2);
        assert_eq!(seen.mirror(unknown(row("m1", &[0, 3]))), Verdict::Open);
        assert_eq!(seen.source(row("s1", &[1, 2]), 2), Verdict::Changed(vec![1]));
        assert_eq!(seen.mirror(unknown(row("m2", &[0, 2]))), Verdict::Equal);
    }

    #[test]
    fn a_key_with_two_rows_is_not_equal() {
        let twice = |row: Option<Version>| row.map(|row| Version { copies: 2, ..row });
        let mut seen = Seen::default();
        seen.source(row("s1", &[1]), 2);
        assert_eq!(seen.mirror(twice(row("m1", &[1]))), Verdict::Open);
        assert_eq!(seen.source(row("s1", &[1]), 2), Verdict::Extra);
        assert_eq!(seen.mirror(row("m2", &[1])), Verdict::Equal, "one of them went");
    }

    #[test]
    fn gone_from_both_is_equal() {
        let mut gone = Seen::default();
        gone.source(row("s1", &[1]), 2);
        assert_eq!(gone.mirror(None), Verdict::Open);
        assert_eq!(gone.source(None, 2), Verdict::Equal);
    }
}
