//! Walks both tables in chunks of their keys and judges what differs.

use std::collections::{HashMap, HashSet};

use cdc_shared::task::{
    ColumnDifference, Difference, DifferenceKind, Field, TableReport, TwoValues,
};

use super::failure::TaskFailure;
use super::mysql::Documents;
use super::plan::Plan;
use super::query::{Key, Range};
use super::rows::{Chunk, Rows};
use super::settle::{Seen, Verdict};
use super::side::{PostgresRows, Side};
use super::{Reach, Tell};

/// Rows of a chunk, where an index has the key's order.
const CHUNK: usize = 10_000;
/// Rows of a chunk where each costs a sort of the table.
const SORTED_CHUNK: usize = 200_000;
/// Suspected keys that are judged together.
const SUSPECTS: usize = 5_000;
/// Rounds after which a key counts as too restless.
const ROUNDS: usize = 20;
/// Rows that differ for sure after which a table is not compared any further.
const ENOUGH: u64 = 10_000;
/// Differences that are named.
const NAMED: usize = 20;
/// Characters of a key's or a value's text that are shown.
const SHOWN: usize = 200;

/// The rows behind a key.
async fn behind(rows: &dyn Rows, after: Option<&Key>, limit: usize) -> Result<Chunk, TaskFailure> {
    rows.chunk(&Range { after, to: None }, limit).await
}

/// A key that differs, how, and in which columns.
type Wrong = (Key, DifferenceKind, Vec<usize>);

/// The comparison of one table.
pub(super) struct Comparison<'c> {
    source: Box<dyn Rows + 'c>,
    mirror: Box<dyn Rows + 'c>,
    /// The mirror's server.
    pub(super) side: &'c Side,
    pub(super) plan: Plan,
    pub(super) reach: &'c mut dyn Reach,
    pub(super) tell: &'c Tell,
    pub(super) show_values: bool,
    pub(super) report: TableReport,
    /// Key and version of the mirror's extra rows, where they are to be removed.
    pub(super) ghosts: Option<Vec<(Key, String)>>,
    suspects: Vec<Key>,
    /// Keys of given-up records; asked for with the first difference.
    given_up: Option<HashSet<Key>>,
}

impl<'c> Comparison<'c> {
    pub(super) fn new(
        source: Box<dyn Rows + 'c>,
        mirror: &'c Side,
        plan: Plan,
        reach: &'c mut dyn Reach,
        tell: &'c Tell,
        report: TableReport,
    ) -> Self {
        let report = TableReport { notes: plan.notes.clone(), ..report };
        let (side, rows) = (mirror, PostgresRows { side: mirror, plan: plan.mirror.clone() });
        let mirror: Box<dyn Rows + 'c> = if plan.documents.is_empty() {
            Box::new(rows)
        } else {
            Box::new(Documents { rows, columns: plan.documents.clone() })
        };
        let suspects = Vec::new();
        Self {
            source,
            mirror,
            side,
            plan,
            reach,
            tell,
            show_values: false,
            report,
            ghosts: None,
            suspects,
            given_up: None,
        }
    }

    /// Compares the whole table. The report is right as far as it came, also after a failure.
    ///
    /// # Errors
    /// A server that does not answer, or a position that is not reached.
    pub(super) async fn run(&mut self) -> Result<(), TaskFailure> {
        let limit = if self.plan.is_indexed() { CHUNK } else { SORTED_CHUNK };
        let mut after: Option<Key> = None;
        let mut ahead = behind(self.source.as_ref(), None, limit).await?;
        loop {
            let low = after.take();
            let (to, prefetched) = self.chunk(low.as_ref(), ahead, limit).await?;
            if self.suspects.len() >= SUSPECTS || to.is_none() {
                self.judge().await?;
            }
            let Some(to) = to else { return Ok(()) };
            if self.report.different() >= ENOUGH {
                self.report.cut_short = true;
                return Ok(());
            }
            ahead = match prefetched {
                Some(next) => next,
                None => behind(self.source.as_ref(), Some(&to), limit).await?,
            };
            after = Some(to);
        }
    }

    /// Compares one chunk: the next rows of the source, or fewer where the mirror has more in their
    /// range. Gives its last key (`None`: it was the last chunk), and the source's chunk behind it,
    /// which was read meanwhile.
    async fn chunk(
        &mut self,
        after: Option<&Key>,
        ahead: Chunk,
        limit: usize,
    ) -> Result<(Option<Key>, Option<Chunk>), TaskFailure> {
        let mut source = ahead;
        let mut to = source.last.clone().filter(|_| source.rows == limit as u64);
        let range = Range { after, to: to.as_ref() };
        let meanwhile = async {
            match &to {
                Some(to) => behind(self.source.as_ref(), Some(to), limit).await.map(Some),
                None => Ok(None),
            }
        };
        let mirror = self.mirror.chunk(&range, limit);
        let (mirror, mut next) = tokio::try_join!(mirror, meanwhile)?;
        if mirror.rows == limit as u64 && mirror.last != to {
            to = mirror.last;
            next = None;
            let range = Range { after, to: to.as_ref() };
            source = self.source.chunk(&range, limit).await?;
        }
        if (source.rows, &source.hash) != (mirror.rows, &mirror.hash) {
            self.descend(&Range { after, to: to.as_ref() }, limit).await?;
        }
        self.report.rows += source.rows;
        self.tell.rows(source.rows);
        Ok((to, next))
    }

    /// Finds the rows of a chunk that differ.
    async fn descend(&mut self, range: &Range<'_>, limit: usize) -> Result<(), TaskFailure> {
        // Rows that were added since; one that does not fit is suspected and judged like any.
        let limit = 2 * limit;
        let (source, mirror) =
            tokio::try_join!(self.source.rows(range, limit), self.mirror.rows(range, limit),)?;
        let mut left: HashMap<Key, i64> = mirror.into_iter().collect();
        for (key, hash) in source {
            if left.remove(&key) != Some(hash) {
                self.suspects.push(key);
            }
        }
        self.suspects.extend(left.into_keys());
        Ok(())
    }

    /// Reads the suspected keys again until each is judged; see `settle`.
    async fn judge(&mut self) -> Result<(), TaskFailure> {
        let keys = std::mem::take(&mut self.suspects);
        for part in keys.chunks(SUSPECTS) {
            self.judge_part(part).await?;
        }
        Ok(())
    }

    async fn judge_part(&mut self, keys: &[Key]) -> Result<(), TaskFailure> {
        let mut open: Vec<(&Key, Seen)> = keys.iter().map(|key| (key, Seen::default())).collect();
        for round in 0..ROUNDS {
            if open.is_empty() {
                return Ok(());
            }
            self.tell.step(&format!(
                "{}: reading {} differing rows again",
                self.report.table,
                open.len()
            ));
            open = self.round(open, false).await?;
            if open.is_empty() {
                return Ok(());
            }
            if round + 1 < ROUNDS {
                self.report.position = self.reach.reach(&self.report.table, self.tell).await?;
                open = self.round(open, true).await?;
            }
        }
        self.report.unsettled += open.len() as u64;
        let unsettled = open.into_iter().map(|(key, _)| (key, DifferenceKind::Unsettled));
        self.name(&unsettled.map(|(key, kind)| (key.clone(), kind, Vec::new())).collect::<Vec<_>>())
            .await
    }

    /// Reads one side of the open keys and takes out those that are judged by it.
    async fn round<'k>(
        &mut self,
        open: Vec<(&'k Key, Seen)>,
        of_mirror: bool,
    ) -> Result<Vec<(&'k Key, Seen)>, TaskFailure> {
        let keys: Vec<&Key> = open.iter().map(|(key, _)| *key).collect();
        let mut found = if of_mirror {
            self.mirror.look_up(&keys).await?
        } else {
            self.source.look_up(&keys).await?
        };
        let (mut still, mut wrong) = (Vec::new(), Vec::new());
        for (place, (key, mut seen)) in open.into_iter().enumerate() {
            let row = found.remove(&place);
            let verdict =
                if of_mirror { seen.mirror(row) } else { seen.source(row, self.source.looks()) };
            let (kind, columns) = match verdict {
                Verdict::Open => {
                    still.push((key, seen));
                    continue;
                }
                Verdict::Equal => {
                    self.report.settled += 1;
                    continue;
                }
                Verdict::Missing => (DifferenceKind::Missing, Vec::new()),
                Verdict::Extra => {
                    if let (Some(ghosts), Some(version)) = (&mut self.ghosts, seen.of_mirror()) {
                        ghosts.push((key.clone(), version.to_owned()));
                    }
                    (DifferenceKind::Extra, Vec::new())
                }
                Verdict::Changed(columns) => (DifferenceKind::Changed, columns),
            };
            wrong.push((key.clone(), kind, columns));
        }
        let wrong = self.apart(wrong).await?;
        self.count(&wrong);
        self.name(&wrong).await?;
        Ok(still)
    }

    /// Tells those apart whose records were given up: it is known why they differ.
    async fn apart(&mut self, mut wrong: Vec<Wrong>) -> Result<Vec<Wrong>, TaskFailure> {
        if wrong.is_empty() {
            return Ok(wrong);
        }
        let given_up = match self.given_up.take() {
            Some(keys) => keys,
            None => self.reach.given_up(&self.report.table, &self.plan.key).await?,
        };
        for (key, kind, _) in &mut wrong {
            if given_up.contains(key) {
                *kind = DifferenceKind::GivenUp;
            }
        }
        self.given_up = Some(given_up);
        Ok(wrong)
    }

    fn count(&mut self, wrong: &[Wrong]) {
        for (_, kind, _) in wrong {
            match kind {
                DifferenceKind::Missing => self.report.missing += 1,
                DifferenceKind::Extra => self.report.extra += 1,
                DifferenceKind::Changed => self.report.changed += 1,
                DifferenceKind::GivenUp => self.report.given_up += 1,
                DifferenceKind::Unsettled => {}
            }
        }
    }

    /// Names the first differences, with values where they are asked for.
    async fn name(&mut self, wrong: &[Wrong]) -> Result<(), TaskFailure> {
        let room = NAMED.saturating_sub(self.report.differences.len());
        let named = &wrong[..room.min(wrong.len())];
        if named.is_empty() {
            return Ok(());
        }
        let keys: Vec<&Key> = named.iter().map(|(key, _, _)| key).collect();
        let values = if self.show_values {
            let (source, mirror) = tokio::try_join!(
                self.source.values(&keys, SHOWN),
                self.mirror.values(&keys, SHOWN),
            )?;
            Some((source, mirror))
        } else {
            None
        };
        for (place, (key, kind, columns)) in named.iter().enumerate() {
            let fields = self.plan.key.iter().zip(key);
            let shown = columns.iter().map(|&at| ColumnDifference {
                column: self.plan.columns.get(at).cloned().unwrap_or_default(),
                values: values.as_ref().map(|(source, mirror)| {
                    let of = |side: &HashMap<usize, Vec<Option<String>>>| {
                        side.get(&place).and_then(|row| row.get(at).cloned().flatten())
                    };
                    TwoValues { source: of(source), mirror: of(mirror) }
                }),
            });
            self.report.differences.push(Difference {
                kind: *kind,
                key: fields
                    .map(|(column, text)| Field {
                        column: column.clone(),
                        text: Some(text.chars().take(SHOWN).collect()),
                    })
                    .collect(),
                columns: shown.collect(),
            });
        }
        Ok(())
    }
}
