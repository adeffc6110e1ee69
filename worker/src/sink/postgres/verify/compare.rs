//! Walks both tables in chunks of their keys.

use std::collections::HashMap;

use crate::sink::verify::failure::TaskFailure;
use crate::sink::verify::judge::{Judge, SUSPECTS, Sides};
use crate::sink::verify::mysql::Documents;
use crate::sink::verify::plan::Plan;
use crate::sink::verify::query::{Key, Range};
use crate::sink::verify::rows::{Chunk, Rows};
use crate::sink::verify::side::{PostgresRows, Side};

/// Rows of a chunk, where an index has the key's order.
const CHUNK: usize = 10_000;
/// Rows of a chunk where each costs a sort of the table.
const SORTED_CHUNK: usize = 200_000;

/// The rows behind a key.
async fn behind(rows: &dyn Rows, after: Option<&Key>, limit: usize) -> Result<Chunk, TaskFailure> {
    rows.chunk(&Range { after, to: None }, limit).await
}

/// The comparison of one table.
pub(super) struct Comparison<'c> {
    source: Box<dyn Rows + 'c>,
    mirror: Box<dyn Rows + 'c>,
    /// The mirror's server.
    pub(super) side: &'c Side,
    pub(super) plan: Plan,
    pub(super) judge: Judge<'c>,
}

impl<'c> Comparison<'c> {
    pub(super) fn new(
        source: Box<dyn Rows + 'c>,
        mirror: &'c Side,
        plan: Plan,
        judge: Judge<'c>,
    ) -> Self {
        let (side, rows) = (mirror, PostgresRows { side: mirror, plan: plan.mirror.clone() });
        let mirror: Box<dyn Rows + 'c> = if plan.documents.is_empty() {
            Box::new(rows)
        } else {
            Box::new(Documents { rows, columns: plan.documents.clone() })
        };
        Self { source, mirror, side, plan, judge }
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
            if self.judge.suspects.len() >= SUSPECTS || to.is_none() {
                self.judge().await?;
            }
            let Some(to) = to else { return Ok(()) };
            if self.judge.has_enough() {
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
        self.judge.report.rows += source.rows;
        self.judge.tell.rows(source.rows);
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
                self.judge.suspects.push(key);
            }
        }
        self.judge.suspects.extend(left.into_keys());
        Ok(())
    }

    async fn judge(&mut self) -> Result<(), TaskFailure> {
        let Self { source, mirror, judge, .. } = self;
        let source: &dyn Rows = source.as_ref();
        let mirror: &dyn Rows = mirror.as_ref();
        judge.judge(Sides { source, mirror }).await
    }
}
