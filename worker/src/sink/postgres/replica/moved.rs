//! The handover of values between the two halves of a change of the primary key.
//!
//! Debezium sends a delete of the old key and a create of the new one, possibly into two
//! partitions, and the create lacks large values that did not change. So the delete saves them
//! here, from the row it removes, and the create takes them from here. The create comes first?
//! Then it waits; or, when it lacks nothing, leaves a mark that nothing is needed. Exactly once
//! comes from the compare-and-set that each half's transaction begins with.
//!
//! A segment may wait for others and be waited for. So what its keys leave is saved in a
//! transaction of its own before the one that waits; then two partitions cannot wait for each
//! other, because of every change the delete stands before the create. Until the delete itself is
//! done (`final`), a create that has taken the values leaves a mark in their place, which the
//! delete takes away.

use deadpool_postgres::Transaction;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::param::ColumnParam;
use super::segment::{Move, Segment, State};
use super::statement::Accepted;
use crate::sink::postgres::config::Options;
use crate::sink::postgres::name::TableName;

/// Name of the table, in the schema of the progress table.
const TABLE: &str = "cdc_moved_rows";

/// The table of the handover.
pub(super) fn table(options: &Options) -> TableName {
    TableName { schema: options.progress.schema.clone(), table: TABLE.to_owned() }
}

/// The statement that creates it.
pub(super) fn create_statement(options: &Options) -> String {
    format!(
        "CREATE TABLE {} (pipeline_id text NOT NULL, sink_id text NOT NULL, topic text NOT NULL, \
         lsn bigint NOT NULL, tx bigint NOT NULL, needed boolean NOT NULL, final boolean NOT NULL, \
         saved jsonb,          created_at timestamptz NOT NULL DEFAULT now(), \
         PRIMARY KEY (pipeline_id, sink_id, topic, lsn, tx))",
        table(options)
    )
}

/// What came of a handover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handover {
    /// Done.
    Done,
    /// The partition of the other half is behind: come again.
    TooEarly,
    /// Values that nobody has.
    Lost,
}

/// One segment's part in handovers.
pub(super) struct Handing<'h> {
    pub(super) options: &'h Options,
    pub(super) topic: &'h str,
    pub(super) accepted: &'h Accepted,
    pub(super) segment: &'h Segment,
}

/// Changes as arrays.
#[derive(Debug, Default)]
struct Moves {
    lsn: Vec<i64>,
    tx: Vec<i64>,
    rows: Vec<u32>,
}

impl Moves {
    fn push(&mut self, id: Move, row: u32) {
        self.lsn.push(id.lsn);
        self.tx.push(id.tx);
        self.rows.push(row);
    }
}

impl Handing<'_> {
    fn moves(&self, which: impl Fn(u32) -> Option<Move>) -> Moves {
        let mut moves = Moves::default();
        for row in 0..self.segment.rows().len() as u32 {
            if let Some(id) = which(row) {
                moves.push(id, row);
            }
        }
        moves
    }

    fn is_short(&self, row: u32) -> bool {
        let state = self.segment.rows().get(row as usize).map(|row| row.state);
        state == Some(State::Present) && !self.segment.missing(row).is_empty()
    }

    fn reached(&self, row: u32) -> Option<Move> {
        self.segment.rows().get(row as usize)?.reached_by
    }

    /// Whether the segment may wait for others while others wait for it.
    pub(super) fn is_chained(&self) -> bool {
        let leaves = self.segment.rows().iter().any(|row| row.left_by.is_some());
        let rows = 0..self.segment.rows().len() as u32;
        leaves && rows.into_iter().any(|row| self.reached(row).is_some() && self.is_short(row))
    }

    /// In a transaction of its own before the segment's: keys that are left are saved.
    pub(super) async fn save_early(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let rows = self.segment.rows();
        let moves = self.moves(|row| rows.get(row as usize)?.left_by);
        let sql = self.accepted.save_early(&table(self.options).to_string());
        let statement = transaction.prepare_cached(&sql).await?;
        let columns = self.columns(&moves, &self.accepted.layout.key);
        transaction.execute(&statement, &self.parameters(&moves, &columns)).await?;
        Ok(())
    }

    /// Before the segment is written: keys that are left are saved.
    pub(super) async fn save(&self, transaction: &Transaction<'_>) -> Result<Handover, Error> {
        let rows = self.segment.rows();
        let moves = self.moves(|row| rows.get(row as usize)?.left_by);
        if moves.rows.is_empty() {
            return Ok(Handover::Done);
        }
        let sql = self.accepted.save(&table(self.options).to_string());
        self.settle(transaction, &sql, &moves, &self.accepted.layout.key).await
    }

    /// Creates that lack nothing: what was saved for them goes, or a mark is left.
    pub(super) async fn waive(&self, transaction: &Transaction<'_>) -> Result<Handover, Error> {
        let moves = self.moves(|row| self.reached(row).filter(|_| !self.is_short(row)));
        if moves.rows.is_empty() {
            return Ok(Handover::Done);
        }
        let handover = table(self.options);
        let sql = format!(
            "WITH b AS (SELECT * FROM ROWS FROM (pg_catalog.unnest($4::pg_catalog.int8[]), \
             pg_catalog.unnest($5::pg_catalog.int8[])) AS b(lsn, tx)), \
             taken AS (DELETE FROM {handover} AS m USING b WHERE m.pipeline_id = $1 \
             AND m.sink_id = $2 AND m.topic = $3 AND m.lsn = b.lsn AND m.tx = b.tx \
             AND m.needed AND m.final RETURNING m.lsn, m.tx), \
             marked AS (INSERT INTO {handover} AS m (pipeline_id, sink_id, topic, lsn, tx, needed, \
             final) SELECT $1, $2, $3, b.lsn, b.tx, false, false FROM b \
             WHERE NOT EXISTS (SELECT FROM taken AS t WHERE t.lsn = b.lsn AND t.tx = b.tx) \
             ON CONFLICT (pipeline_id, sink_id, topic, lsn, tx) DO UPDATE SET needed = false, \
             saved = NULL WHERE NOT (m.needed AND m.final) RETURNING 1) \
             SELECT (SELECT pg_catalog.count(*) FROM taken) \
             + (SELECT pg_catalog.count(*) FROM marked)"
        );
        self.settle(transaction, &sql, &moves, &[]).await
    }

    /// Runs a statement that settles each of the changes, or else is to be undone: one that the
    /// other half wrote at the same moment is seen only by the next attempt.
    async fn settle(
        &self,
        transaction: &Transaction<'_>,
        sql: &str,
        moves: &Moves,
        columns: &[usize],
    ) -> Result<Handover, Error> {
        let statement = transaction.prepare_cached(sql).await?;
        let columns = self.columns(moves, columns);
        let parameters = self.parameters(moves, &columns);
        let settled: i64 = transaction.query_one(&statement, &parameters).await?.try_get(0)?;
        let all = settled == moves.rows.len() as i64;
        Ok(if all { Handover::Done } else { Handover::TooEarly })
    }

    fn columns<'p>(&'p self, moves: &'p Moves, columns: &[usize]) -> Vec<ColumnParam<'p>> {
        let param = |column: &usize| ColumnParam {
            segment: self.segment,
            rows: &moves.rows,
            column: *column,
        };
        columns.iter().map(param).collect()
    }

    /// Pipeline, sink, topic, log positions, transactions, columns.
    fn parameters<'p>(
        &'p self,
        moves: &'p Moves,
        columns: &'p [ColumnParam<'p>],
    ) -> Vec<&'p (dyn ToSql + Sync)> {
        let options = self.options;
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&options.pipeline_id, &options.sink_id, &self.topic, &moves.lsn, &moves.tx];
        parameters.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
        parameters
    }

    /// Writes the rows that lack values, with what was saved for them.
    pub(super) async fn take(&self, transaction: &Transaction<'_>) -> Result<Handover, Error> {
        let short = self.moves(|row| self.reached(row).filter(|_| self.is_short(row)));
        if short.rows.is_empty() {
            return Ok(Handover::Done);
        }
        if !self.are_saved(transaction, &short).await? {
            return Ok(Handover::TooEarly);
        }
        let moved = table(self.options).to_string();
        for (missing, moves) in self.by_missing(&short) {
            let columns = self.columns(&moves, &self.accepted.present(&missing));
            let parameters = self.parameters(&moves, &columns);
            let mut written = 0;
            for sql in [
                self.accepted.insert_moved(&missing, &moved),
                self.accepted.update_moved(&missing, &moved),
            ] {
                let statement = transaction.prepare_cached(&sql).await?;
                written += transaction.execute(&statement, &parameters).await?;
            }
            if written != moves.rows.len() as u64 {
                return Ok(Handover::Lost);
            }
        }
        self.remove(transaction, &short).await?;
        Ok(Handover::Done)
    }

    fn by_missing(&self, moves: &Moves) -> Vec<(Vec<usize>, Moves)> {
        let mut groups: Vec<(Vec<usize>, Moves)> = Vec::new();
        for row in &moves.rows {
            let (Some(id), missing) = (self.reached(*row), self.segment.missing(*row)) else {
                continue;
            };
            if let Some((_, moves)) = groups.iter_mut().find(|(group, _)| *group == missing) {
                moves.push(id, *row);
                continue;
            }
            let mut moves = Moves::default();
            moves.push(id, *row);
            groups.push((missing, moves));
        }
        groups
    }

    async fn are_saved(&self, transaction: &Transaction<'_>, moves: &Moves) -> Result<bool, Error> {
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM {} AS m WHERE m.pipeline_id = $1 AND m.sink_id = $2 \
             AND m.topic = $3 AND m.needed AND (m.lsn, m.tx) IN (SELECT * FROM ROWS FROM \
             (pg_catalog.unnest($4::pg_catalog.int8[]), pg_catalog.unnest($5::pg_catalog.int8[])))",
            table(self.options)
        );
        let statement = transaction.prepare_cached(&sql).await?;
        let parameters = self.parameters(moves, &[]);
        let saved: i64 = transaction.query_one(&statement, &parameters).await?.try_get(0)?;
        Ok(saved == moves.rows.len() as i64)
    }

    /// The values were taken: the entries go, or where the delete is still to come become marks.
    async fn remove(&self, transaction: &Transaction<'_>, moves: &Moves) -> Result<(), Error> {
        let handover = table(self.options);
        let which = "ROWS FROM (pg_catalog.unnest($4::pg_catalog.int8[]), \
                     pg_catalog.unnest($5::pg_catalog.int8[])) AS b(lsn, tx) \
                     WHERE m.pipeline_id = $1 AND m.sink_id = $2 AND m.topic = $3 \
                     AND m.lsn = b.lsn AND m.tx = b.tx AND m.needed";
        for sql in [
            format!(
                "UPDATE {handover} AS m SET needed = false, saved = NULL FROM {which} AND NOT m.final"
            ),
            format!("DELETE FROM {handover} AS m USING {which} AND m.final"),
        ] {
            let statement = transaction.prepare_cached(&sql).await?;
            transaction.execute(&statement, &self.parameters(moves, &[])).await?;
        }
        Ok(())
    }
}
