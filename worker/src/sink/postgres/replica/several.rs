//! A transaction of several statements, for as many steps of a flush as can be written now.

use std::sync::atomic::Ordering;

use cdc_shared::offset::Position;
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Error;

use super::deliver::{Delivery, Part, Sorted, Work, Written, finish, params, refs};
use super::moved::Handing;
use super::param::ColumnParam;
use super::segment::Segment;
use super::statement::Accepted;
use crate::sink::SinkError;
use crate::sink::postgres::database::Connection;
use crate::sink::postgres::progress::Step;
use crate::sink::postgres::statement::hold;

impl Delivery {
    /// Writes the first segment, and those after it as far as they need not wait.
    pub(super) async fn several(
        &self,
        connection: &mut Connection<'_>,
        accepted: &Accepted,
    ) -> Result<Written, SinkError> {
        let Some(first) = self.segments().next().map(|(segment, _)| segment) else {
            return Ok(Written::Missed);
        };
        let exchange = async |client: &mut Object| {
            if !self.is_ready(&*client, accepted, first, &self.expected).await? {
                return self.save_early(client, accepted, first).await;
            }
            let transaction = client.transaction().await?;
            let written = self.several_in(&transaction, accepted).await?;
            let written = finish(transaction, written).await?;
            if matches!(written, Written::Hit) && self.segments().any(|(s, _)| s.moves()) {
                self.unswept.store(true, Ordering::Relaxed);
                self.mirrors.saves.send_replace(());
            }
            Ok(written)
        };
        connection.run(&Self::doing(first), exchange).await
    }

    fn segments(&self) -> impl Iterator<Item = (&Segment, &Part)> {
        self.parts.iter().filter_map(|part| match &part.work {
            Work::Rows(segment) => Some((segment, part)),
            Work::Nothing | Work::Truncate(..) => None,
        })
    }

    fn handing<'h>(&'h self, accepted: &'h Accepted, segment: &'h Segment) -> Handing<'h> {
        let options = &self.mirrors.database.options;
        Handing { options, topic: &self.tp.topic, accepted, segment }
    }

    /// Whether the segment has to wait for no other partition. `at`: where the sink's record is.
    async fn is_ready(
        &self,
        client: &impl deadpool_postgres::GenericClient,
        accepted: &Accepted,
        segment: &Segment,
        at: &Position,
    ) -> Result<bool, Error> {
        if !segment.moves() {
            return Ok(true);
        }
        let step = Step::new(&self.mirrors.database.options, &self.tp, at, at);
        self.handing(accepted, segment).is_ready(client, &step).await
    }

    /// Saves what the keys of a segment leave that has to wait, once: others may wait for it.
    async fn save_early(
        &self,
        client: &mut Object,
        accepted: &Accepted,
        segment: &Segment,
    ) -> Result<Written, Error> {
        if !segment.leaves() || self.saved.load(Ordering::Relaxed) {
            return Ok(Written::TooEarly);
        }
        let options = &self.mirrors.database.options;
        let step = Step::new(options, &self.tp, &self.expected, &self.expected);
        let transaction = client.transaction().await?;
        let statement = transaction.prepare_cached(&hold(options)).await?;
        if transaction.execute(&statement, &step.expectation()).await? != 1 {
            return finish(transaction, Written::Missed).await;
        }
        self.handing(accepted, segment).save(&transaction, false).await?;
        transaction.commit().await?;
        self.saved.store(true, Ordering::Relaxed);
        self.mirrors.saves.send_replace(());
        Ok(Written::TooEarly)
    }

    async fn several_in(
        &self,
        transaction: &Transaction<'_>,
        accepted: &Accepted,
    ) -> Result<Written, Error> {
        let (mut at, mut done) = (&self.expected, 0);
        let mut reached = at;
        for (segment, Part { covers, notes, .. }) in self.segments() {
            if done == 0 {
                if !self.advance(transaction, accepted, at, covers).await? {
                    return Ok(Written::Missed);
                }
                at = covers;
            } else if !self.is_ready(transaction, accepted, segment, at).await? {
                break;
            }
            let handing = self.handing(accepted, segment);
            match write_rows(transaction, &handing, &Sorted::of(segment)).await? {
                Written::Hit => {}
                other => return Ok(other),
            }
            if !notes.is_empty() {
                self.place().note(transaction, notes).await?;
            }
            (reached, done) = (covers, done + 1);
        }
        self.done.store(done, Ordering::Relaxed);
        let hit = done < 2 || self.advance(transaction, accepted, at, reached).await?;
        Ok(Written::of(hit))
    }

    async fn advance(
        &self,
        transaction: &Transaction<'_>,
        accepted: &Accepted,
        from: &Position,
        to: &Position,
    ) -> Result<bool, Error> {
        let step = Step::new(&self.mirrors.database.options, &self.tp, from, to);
        let statement = transaction.prepare_cached(&accepted.advance).await?;
        Ok(transaction.execute(&statement, &step.parameters()).await? == 1)
    }
}

/// Writes the rows of a segment, in a transaction that has moved the sink's record, once the
/// segment has to wait for no other partition.
pub(super) async fn write_rows(
    transaction: &Transaction<'_>,
    handing: &Handing<'_>,
    sorted: &Sorted,
) -> Result<Written, Error> {
    let (accepted, segment) = (handing.accepted, handing.segment);
    handing.save(transaction, true).await?;
    let key = &accepted.layout.key;
    execute(transaction, &accepted.delete(), &params(segment, &sorted.deleted, key)).await?;
    let whole = params(segment, &sorted.whole, &accepted.written_columns());
    execute(transaction, &accepted.upsert(), &whole).await?;
    for (missing, rows) in &sorted.partial {
        let params = params(segment, rows, &accepted.present(missing));
        let hit = execute(transaction, &accepted.update(missing), &params).await?;
        if hit != rows.len() as u64 {
            return Ok(Written::RowMissing);
        }
    }
    if sorted.moves && !handing.take(transaction).await? {
        return Ok(Written::RowMissing);
    }
    Ok(Written::Hit)
}

async fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    params: &[ColumnParam<'_>],
) -> Result<u64, Error> {
    if params.first().is_some_and(|param| param.rows.is_empty()) {
        return Ok(0);
    }
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &refs(params)).await
}
