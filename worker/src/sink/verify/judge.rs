//! Judges the keys whose rows seem to differ, and reports them.

use std::collections::{HashMap, HashSet};

use cdc_shared::task::{
    ColumnDifference, Difference, DifferenceKind, Field, TableReport, TwoValues,
};

use super::failure::TaskFailure;
use super::plan::Plan;
use super::query::Key;
use super::rows::Look;
use super::settle::{Seen, Verdict};
use super::{Manner, Reach};
use crate::task::Tell;

/// Suspected keys that are judged together.
pub(in crate::sink) const SUSPECTS: usize = 5_000;
/// Rounds after which a key counts as too restless.
const ROUNDS: usize = 20;
/// Rows that differ for sure after which a table is not compared any further.
const ENOUGH: u64 = 10_000;
/// Differences that are named.
const NAMED: usize = 20;
/// Characters of a key's or a value's text that are shown.
const SHOWN: usize = 200;

/// A key that differs, how, and in which columns.
type Wrong = (Key, DifferenceKind, Vec<usize>);

/// Both sides of one table.
#[derive(Clone, Copy)]
pub(in crate::sink) struct Sides<'r> {
    pub(in crate::sink) source: &'r dyn Look,
    pub(in crate::sink) mirror: &'r dyn Look,
}

/// The judgement of one table's rows.
pub(in crate::sink) struct Judge<'c> {
    /// Names of the key's columns.
    key: Vec<String>,
    /// Names of the compared columns.
    columns: Vec<String>,
    reach: &'c mut dyn Reach,
    pub(in crate::sink) tell: &'c Tell,
    show_values: bool,
    pub(in crate::sink) report: TableReport,
    /// Key and version of the mirror's extra rows, where they are to be removed.
    pub(in crate::sink) ghosts: Option<Vec<(Key, String)>>,
    /// Keys that seem to differ.
    pub(in crate::sink) suspects: Vec<Key>,
    /// Keys of which the mirror has more than one row.
    pub(in crate::sink) doubled: u64,
    /// Keys of given-up records; asked for with the first difference.
    given_up: Option<HashSet<Key>>,
}

impl<'c> Judge<'c> {
    pub(in crate::sink) fn new(
        plan: &Plan,
        reach: &'c mut dyn Reach,
        tell: &'c Tell,
        manner: Manner,
        report: TableReport,
    ) -> Self {
        Self {
            key: plan.key.clone(),
            columns: plan.columns.clone(),
            reach,
            tell,
            show_values: manner.show_values,
            report: TableReport { notes: plan.notes.clone(), ..report },
            ghosts: manner.sweep.then(Vec::new),
            suspects: Vec::new(),
            doubled: 0,
            given_up: None,
        }
    }

    /// Whether so many rows differ that no more are compared, which the report then says.
    pub(in crate::sink) fn has_enough(&mut self) -> bool {
        self.report.cut_short = self.report.different() >= ENOUGH;
        self.report.cut_short
    }

    /// Reads the suspected keys again until each is judged; see `settle`.
    ///
    /// # Errors
    /// A side that does not answer, or a position that is not reached.
    pub(in crate::sink) async fn judge(&mut self, sides: Sides<'_>) -> Result<(), TaskFailure> {
        let keys = std::mem::take(&mut self.suspects);
        for part in keys.chunks(SUSPECTS) {
            self.judge_part(part, sides).await?;
        }
        Ok(())
    }

    async fn judge_part(&mut self, keys: &[Key], sides: Sides<'_>) -> Result<(), TaskFailure> {
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
            open = self.round(open, sides, false).await?;
            if open.is_empty() {
                return Ok(());
            }
            if round + 1 < ROUNDS {
                self.report.position = self.reach.reach(&self.report.table, self.tell).await?;
                open = self.round(open, sides, true).await?;
            }
        }
        self.report.unsettled += open.len() as u64;
        let unsettled = open.into_iter().map(|(key, _)| (key, DifferenceKind::Unsettled));
        let unsettled: Vec<Wrong> =
            unsettled.map(|(key, kind)| (key.clone(), kind, Vec::new())).collect();
        self.name(&unsettled, sides).await
    }

    /// Reads one side of the open keys and takes out those that are judged by it.
    async fn round<'k>(
        &mut self,
        open: Vec<(&'k Key, Seen)>,
        sides: Sides<'_>,
        of_mirror: bool,
    ) -> Result<Vec<(&'k Key, Seen)>, TaskFailure> {
        let keys: Vec<&Key> = open.iter().map(|(key, _)| *key).collect();
        let mut found = if of_mirror {
            sides.mirror.look_up(&keys).await?
        } else {
            sides.source.look_up(&keys).await?
        };
        let (mut still, mut wrong) = (Vec::new(), Vec::new());
        for (place, (key, mut seen)) in open.into_iter().enumerate() {
            let row = found.remove(&place);
            let verdict =
                if of_mirror { seen.mirror(row) } else { seen.source(row, sides.source.looks()) };
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
                    let row = seen.of_mirror();
                    self.doubled += u64::from(row.is_some_and(|row| row.copies > 1));
                    if let (Some(ghosts), Some(row)) = (&mut self.ghosts, row) {
                        ghosts.push((key.clone(), row.version.clone()));
                    }
                    (DifferenceKind::Extra, Vec::new())
                }
                Verdict::Changed(columns) => (DifferenceKind::Changed, columns),
            };
            wrong.push((key.clone(), kind, columns));
        }
        let wrong = self.apart(wrong).await?;
        self.count(&wrong);
        self.name(&wrong, sides).await?;
        Ok(still)
    }

    /// Tells those apart whose records were given up: it is known why they differ.
    async fn apart(&mut self, mut wrong: Vec<Wrong>) -> Result<Vec<Wrong>, TaskFailure> {
        if wrong.is_empty() {
            return Ok(wrong);
        }
        let given_up = match self.given_up.take() {
            Some(keys) => keys,
            None => self.reach.given_up(&self.report.table, &self.key).await?,
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
    async fn name(&mut self, wrong: &[Wrong], sides: Sides<'_>) -> Result<(), TaskFailure> {
        let room = NAMED.saturating_sub(self.report.differences.len());
        let named = &wrong[..room.min(wrong.len())];
        if named.is_empty() {
            return Ok(());
        }
        let keys: Vec<&Key> = named.iter().map(|(key, _, _)| key).collect();
        let values = if self.show_values {
            let (source, mirror) = tokio::try_join!(
                sides.source.values(&keys, SHOWN),
                sides.mirror.values(&keys, SHOWN),
            )?;
            Some((source, mirror))
        } else {
            None
        };
        for (place, (key, kind, columns)) in named.iter().enumerate() {
            let fields = self.key.iter().zip(key);
            let shown = columns.iter().map(|&at| ColumnDifference {
                column: self.columns.get(at).cloned().unwrap_or_default(),
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
