//! What becomes of the rows of several partitions in one commit: the last state of each key.
//!
//! A batch is taken as far as nothing in it has to wait for the other half of a change of a primary
//! key, which may come in another partition. Of every such change the delete stands before the create
//! at the source, so that two partitions cannot wait for each other for ever.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::again::Returning;
use super::hash::KeyHash;
use super::index::{Index, Place};
use super::marks::{Half, Move};
use super::moves::{Entry, Moves};
use crate::rows::Segment;

/// The rows of one partition, and what the table has of it.
#[derive(Clone, Copy)]
pub(crate) struct PartRows<'a> {
    pub(crate) segments: &'a [Arc<Segment>],
    /// Rows at the front that are in the table already.
    pub(crate) skip: usize,
    pub(crate) index: &'a Index,
    /// Files by their numbers.
    pub(crate) files: &'a [Arc<str>],
    /// The file that is going to be written.
    pub(crate) path: &'a Arc<str>,
    /// Where its records come again.
    pub(crate) returning: Option<&'a Returning>,
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A row of the batch, by its partition.
    Batch { part: usize, row: usize },
    /// A row of a file.
    File(Arc<str>, u32),
}

/// A row that is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    pub(crate) row: usize,
    /// Columns of its layout that were not sent.
    pub(crate) fills: Vec<(usize, Source)>,
}

/// What becomes of one partition's rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PartPlan {
    /// The first row that is not taken yet.
    pub(crate) end: usize,
    /// Rows that are written, in order.
    pub(crate) rows: Vec<Chosen>,
    /// Stored rows that go.
    pub(crate) deletes: Vec<Place>,
    /// Rows that are written for the other half of a change alone, by their place among `rows`: they
    /// go as they come.
    pub(crate) ghosts: Vec<u32>,
    /// Where the rows of keys are then, by the place among `rows`.
    pub(crate) keys: Vec<(KeyHash, Option<u32>)>,
    /// Where its records come again: keys whose rows are left out then.
    pub(crate) owed: BTreeMap<KeyHash, i64>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<PartPlan>,
    pub(crate) moves: Moves,
}

/// A row whose missing values nobody has: its partition and number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Short {
    pub(crate) part: usize,
    pub(crate) row: usize,
}

/// The segment of a row and its number there.
pub(crate) fn locate(segments: &[Arc<Segment>], row: usize) -> Option<(&Arc<Segment>, usize)> {
    let mut row = row;
    for segment in segments {
        if row < segment.rows {
            return Some((segment, row));
        }
        row -= segment.rows;
    }
    None
}

impl PartRows<'_> {
    fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.rows).sum()
    }

    /// Rows up to where the key is of other columns than before.
    fn end(&self) -> usize {
        let mut rows = 0;
        let mut first: Option<&Arc<Segment>> = None;
        for segment in self.segments {
            if rows + segment.rows > self.skip {
                let of = first.get_or_insert(segment);
                if !of.layout.key_names().eq(segment.layout.key_names()) {
                    return rows;
                }
            }
            rows += segment.rows;
        }
        rows
    }

    fn file(&self, place: Place) -> Option<Source> {
        Some(Source::File(self.files.get(place.file as usize)?.clone(), place.row))
    }
}

/// A row at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Now {
    Batch(usize),
    Stored(Place),
    Gone,
}

/// Where a row's missing values are looked for.
#[derive(Clone, Copy, Debug)]
enum Old {
    /// In the row that its key had.
    Same(Now),
    /// In the row that another key had; or else in the one that its key had.
    Moved(Move, Now),
}

/// One partition's batch, key by key.
#[derive(Default)]
struct Fold {
    keys: HashMap<KeyHash, (Option<Place>, Now)>,
    old: BTreeMap<usize, Old>,
    left: Vec<(Move, Now)>,
    reached: BTreeSet<Move>,
    owed: BTreeMap<KeyHash, i64>,
}

impl Fold {
    fn of(rows: &PartRows<'_>, end: usize) -> Self {
        let owed = rows.returning.map(|returning| returning.again.owed.clone());
        let mut fold = Self { owed: owed.unwrap_or_default(), ..Self::default() };
        let mut start = 0;
        for segment in rows.segments {
            let from = rows.skip.saturating_sub(start).min(segment.rows);
            let to = end.saturating_sub(start).min(segment.rows);
            let offsets = segment.offsets();
            for row in from..to {
                let offset = offsets.get(row).copied().unwrap_or(i64::MAX);
                fold.take(rows, segment, (row, start + row), offset);
            }
            start += segment.rows;
        }
        fold
    }

    fn take(
        &mut self,
        rows: &PartRows<'_>,
        segment: &Segment,
        (row, number): (usize, usize),
        offset: i64,
    ) {
        let marks = &segment.marks;
        let returning = rows.returning.filter(|returning| offset < returning.again.until);
        let Some(hash) = marks.hashes.get(row) else { return };
        let (_, now) = self.keys.entry(*hash).or_insert_with(|| {
            let stored = rows.index.get(*hash);
            (stored, stored.map_or(Now::Gone, Now::Stored))
        });
        if matches!(now, Now::Stored(_))
            && returning.is_some_and(|returning| returning.is_older(offset, *hash))
        {
            return;
        }
        if returning.is_some_and(|returning| returning.dropped.contains(&number)) {
            *now = Now::Gone;
            self.owed.insert(*hash, offset);
            return;
        }
        // What is known of a change of a key was noted when it came first.
        let half = marks.moves.get(&row).filter(|_| returning.is_none());
        if marks.deleted.get(row).copied().unwrap_or(false) {
            if let Some((Half::Left, id)) = half {
                self.left.push((*id, *now));
            }
            *now = Now::Gone;
            self.owed.remove(hash);
            return;
        }
        let reached = half.and_then(|(half, id)| (*half == Half::Reached).then_some(*id));
        self.reached.extend(reached);
        if marks.missing.contains_key(&row) {
            let old = reached.map_or(Old::Same(*now), |id| Old::Moved(id, *now));
            self.old.insert(number, old);
        } else {
            self.owed.remove(hash);
        }
        *now = Now::Batch(number);
    }
}

/// Plans a commit.
///
/// # Errors
/// Rows that can never be completed. Without them, or their partitions, there may be a plan.
pub(crate) fn plan(parts: &[PartRows<'_>], moves: &Moves) -> Result<Plan, Vec<Short>> {
    let mut ends: Vec<usize> = parts.iter().map(PartRows::end).collect();
    let mut planner = Planner::new(parts, &ends, moves);
    let early = planner.early();
    loop {
        let mut shorter = false;
        for (end, fold) in ends.iter_mut().zip(&planner.folds) {
            if let Some(row) = planner.first_waiting(fold, &early) {
                *end = row;
                shorter = true;
            }
        }
        if !shorter {
            planner.early = early;
            return planner.finish(&ends);
        }
        planner = Planner::new(parts, &ends, moves);
    }
}

/// Rows that are going to be left, perhaps later than in this commit: their files.
type Early = BTreeMap<Move, (Arc<str>, u32)>;

struct Planner<'p> {
    parts: &'p [PartRows<'p>],
    moves: &'p Moves,
    folds: Vec<Fold>,
    /// Keys that were left in this commit: the partition, and the row that it had.
    left: BTreeMap<Move, (usize, Now)>,
    early: Early,
}

impl<'p> Planner<'p> {
    fn new(parts: &'p [PartRows<'p>], ends: &[usize], moves: &'p Moves) -> Self {
        let folds: Vec<Fold> =
            parts.iter().zip(ends).map(|(rows, end)| Fold::of(rows, *end)).collect();
        let mut left: BTreeMap<Move, (usize, Now)> = BTreeMap::new();
        for (part, fold) in folds.iter().enumerate() {
            for (id, now) in &fold.left {
                // What the connector sends again finds no row to leave behind.
                if *now != Now::Gone || !left.contains_key(id) {
                    left.insert(*id, (part, *now));
                }
            }
        }
        Self { parts, moves, folds, left, early: Early::new() }
    }

    /// Stored rows that are left, and that nothing of the batch has touched before.
    fn early(&self) -> Early {
        let stored = self.left.iter().filter_map(|(id, (part, now))| {
            let Now::Stored(place) = now else { return None };
            let file = self.parts.get(*part)?.files.get(place.file as usize)?;
            Some((*id, (file.clone(), place.row)))
        });
        stored.collect()
    }

    /// The first row that has to wait for another partition. Where its key has a row already, this
    /// is a repetition.
    fn first_waiting(&self, fold: &Fold, early: &Early) -> Option<usize> {
        let waits = |old: &Old| match old {
            Old::Moved(id, Now::Gone) => {
                !self.left.contains_key(id)
                    && !early.contains_key(id)
                    && !matches!(self.moves.get(*id), Some(Entry::Left(_) | Entry::Early(..)))
                    && !self.moves.is_lost(*id)
            }
            _ => false,
        };
        fold.old.iter().find(|(_, old)| waits(old)).map(|(row, _)| *row)
    }

    /// Where a column's value comes from that a row lacks.
    fn source(&self, part: usize, row: usize, column: &str) -> Option<Source> {
        let (mut part, mut row) = (part, row);
        let rows: usize = self.parts.iter().map(PartRows::len).sum();
        // Each step leads to an earlier row; what does not end is no history of a row.
        for _ in 0..=rows {
            let (rows, fold) = self.parts.get(part).zip(self.folds.get(part))?;
            let (now_part, now) = match fold.old.get(&row)? {
                Old::Same(now) => (part, *now),
                Old::Moved(id, own) => match (self.left.get(id), self.moves.get(*id)) {
                    (Some((of, now)), _) if *now != Now::Gone => (*of, *now),
                    (_, Some(Entry::Left(Some((file, row))) | Entry::Early(file, row))) => {
                        return Some(Source::File(file.clone(), *row));
                    }
                    _ => match self.early.get(id) {
                        Some((file, row)) => return Some(Source::File(file.clone(), *row)),
                        None => (part, *own),
                    },
                },
            };
            let at = match now {
                Now::Gone => return None,
                Now::Stored(place) if now_part == part => return rows.file(place),
                Now::Stored(place) => return self.parts.get(now_part)?.file(place),
                Now::Batch(at) => at,
            };
            (part, row) = (now_part, at);
            let (segment, in_segment) = locate(self.parts.get(part)?.segments, row)?;
            let at = segment.layout.columns.iter().position(|known| known.name == column)?;
            let missing = segment.marks.missing.get(&in_segment);
            if missing.is_none_or(|missing| !missing.contains(&at)) {
                return Some(Source::Batch { part, row });
            }
        }
        None
    }

    fn chosen(&self, part: usize, row: usize) -> Result<Chosen, Short> {
        let short = Short { part, row };
        let rows = self.parts.get(part).ok_or(short)?;
        let (segment, in_segment) = locate(rows.segments, row).ok_or(short)?;
        let mut fills = Vec::new();
        for column in segment.marks.missing.get(&in_segment).into_iter().flatten() {
            let name = segment.layout.columns.get(*column).ok_or(short)?;
            fills.push((*column, self.source(part, row, &name.name).ok_or(short)?));
        }
        Ok(Chosen { row, fills })
    }

    /// Rows whose key was left, for a create that is not here.
    fn ghosts(&self, part: usize) -> BTreeSet<usize> {
        let is_open = |id: &Move| {
            !self.folds.iter().any(|fold| fold.reached.contains(id))
                && self.moves.get(*id) != Some(&Entry::Reached)
        };
        let left = self.left.iter().filter(|(id, _)| is_open(id));
        left.filter_map(|(_, (of, now))| match now {
            Now::Batch(row) if *of == part => Some(*row),
            _ => None,
        })
        .collect()
    }

    fn finish(&self, ends: &[usize]) -> Result<Plan, Vec<Short>> {
        let (mut parts, mut short) = (Vec::with_capacity(self.parts.len()), Vec::new());
        for ((part, fold), end) in self.folds.iter().enumerate().zip(ends) {
            parts.push(self.part(part, fold, *end, &mut short));
        }
        if !short.is_empty() {
            return Err(short);
        }
        let moves = self.next_moves(&parts);
        Ok(Plan { parts, moves })
    }

    /// Rows that cannot be completed are added to `short`.
    fn part(&self, part: usize, fold: &Fold, end: usize, short: &mut Vec<Short>) -> PartPlan {
        let ghosts = self.ghosts(part);
        let mut rows: BTreeSet<usize> = ghosts.clone();
        rows.extend(fold.keys.values().filter_map(|(_, now)| match now {
            Now::Batch(row) => Some(*row),
            _ => None,
        }));
        let at: HashMap<usize, u32> = rows.iter().copied().zip(0..).collect();
        let place = |now: &Now| match now {
            Now::Batch(row) => at.get(row).copied(),
            _ => None,
        };
        let mut plan = PartPlan { end, owed: fold.owed.clone(), ..PartPlan::default() };
        for row in &rows {
            match self.chosen(part, *row) {
                Ok(chosen) => plan.rows.push(chosen),
                Err(why) => short.push(why),
            }
        }
        plan.ghosts = ghosts.iter().filter_map(|row| at.get(row).copied()).collect();
        for (hash, (stored, now)) in &fold.keys {
            // Everything that came is older.
            if matches!(now, Now::Stored(_)) {
                continue;
            }
            plan.deletes.extend(*stored);
            plan.keys.push((*hash, place(now)));
        }
        plan.deletes.sort_unstable();
        plan.keys.sort_unstable();
        plan
    }

    fn next_moves(&self, plans: &[PartPlan]) -> Moves {
        let mut moves = self.moves.clone();
        for (id, (file, row)) in self.early.iter().filter(|(id, _)| !self.left.contains_key(id)) {
            moves.put(*id, Entry::Early(file.clone(), *row));
        }
        let reached: BTreeSet<Move> =
            self.folds.iter().flat_map(|fold| fold.reached.iter().copied()).collect();
        for (id, (part, now)) in &self.left {
            if reached.contains(id) {
                moves.settle(*id);
                continue;
            }
            let place = match (now, self.parts.get(*part), plans.get(*part)) {
                (Now::Stored(place), Some(rows), _) => {
                    rows.files.get(place.file as usize).map(|file| (file.clone(), place.row))
                }
                (Now::Batch(row), Some(rows), Some(plan)) => {
                    let at = plan.rows.binary_search_by_key(row, |chosen| chosen.row);
                    at.ok().map(|at| (rows.path.clone(), at as u32))
                }
                _ => None,
            };
            moves.put(*id, Entry::Left(place));
        }
        for id in reached.iter().filter(|id| !self.left.contains_key(id)) {
            moves.put(*id, Entry::Reached);
        }
        moves
    }
}
