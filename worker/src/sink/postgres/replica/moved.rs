//! The handover of values between the two halves of a change of the primary key.
//!
//! Debezium sends a delete of the old key and a create of the new one, possibly into two
//! partitions, and the create lacks large values that did not change. So the delete saves them
//! here, from the row it removes, and the create takes them from here; if it comes first, it waits.
//! Exactly once comes from the compare-and-set that each half's transaction begins with.
//!
//! A segment may wait for others and be waited for. So what its keys leave is saved in a
//! transaction of its own before it waits; then two partitions cannot wait for each other, because
//! of every change the delete stands before the create. Nothing waits within a transaction. Each
//! half writes only its own entry, so that they do not wait for each other's locks either; once
//! both are there, and the delete is done (`final`), the end of a flush sweeps them away.

use std::collections::HashSet;

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::param::ColumnParam;
use super::segment::{Move, Segment};
use super::statement::Accepted;
use crate::sink::name::TableName;
use crate::sink::postgres::config::Options;
use crate::sink::postgres::progress::Step;
use crate::sink::postgres::statement::EXPECTATION;

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
         lsn bigint NOT NULL, tx bigint NOT NULL, half text NOT NULL, final boolean NOT NULL, \
         saved jsonb, created_at timestamptz NOT NULL DEFAULT now(), \
         PRIMARY KEY (pipeline_id, sink_id, topic, lsn, tx, half))",
        table(options)
    )
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

/// Removes the entries of changes whose halves are both done. Those that another is about to
/// remove are left to it. What a crash of the server brings back is swept another time: so nobody
/// waits for the disk.
pub(super) async fn sweep(options: &Options, topic: &str, client: &Object) -> Result<(), Error> {
    let handover = table(options);
    let same = |a: &str, b: &str| {
        ["pipeline_id", "sink_id", "topic", "lsn", "tx"]
            .map(|column| format!("{a}.{column} = {b}.{column}"))
            .join(" AND ")
    };
    let sql = format!(
        "WITH done AS (SELECT d.pipeline_id, d.sink_id, d.topic, d.lsn, d.tx \
         FROM {handover} AS d JOIN {handover} AS c ON {pair} WHERE d.half = 'd' AND d.final \
         AND c.half = 'c' AND d.pipeline_id = $1 AND d.sink_id = $2 AND d.topic = $3 \
         FOR UPDATE SKIP LOCKED), \
         quick AS (SELECT pg_catalog.set_config('synchronous_commit', 'off', true)) \
         DELETE FROM {handover} AS m USING done, quick WHERE {gone}",
        pair = same("d", "c"),
        gone = same("m", "done"),
    );
    let statement = client.prepare_cached(&sql).await?;
    client.execute(&statement, &[&options.pipeline_id, &options.sink_id, &topic]).await?;
    Ok(())
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
        self.segment.rows().get(row as usize).is_some_and(|row| row.is_short)
    }

    fn reached(&self, row: u32) -> Option<Move> {
        self.segment.rows().get(row as usize)?.reached_by
    }

    /// Whether everything is saved that the segment needs from other partitions. Also when the
    /// sink's record is not what is expected: then there is nothing to wait for.
    pub(super) async fn is_ready(
        &self,
        client: &impl GenericClient,
        step: &Step<'_>,
    ) -> Result<bool, Error> {
        let own: HashSet<Move> = self.segment.rows().iter().filter_map(|row| row.left_by).collect();
        let needed = self
            .moves(|row| self.reached(row).filter(|id| self.is_short(row) && !own.contains(id)));
        if needed.rows.is_empty() {
            return Ok(true);
        }
        // Each is looked up by the whole key, whatever the planner believes of the table.
        let sql = format!(
            "SELECT NOT EXISTS (SELECT FROM {} WHERE {EXPECTATION}) OR NOT EXISTS (SELECT FROM \
             ROWS FROM (pg_catalog.unnest($8::pg_catalog.int8[]), \
             pg_catalog.unnest($9::pg_catalog.int8[])) AS b(lsn, tx) CROSS JOIN LATERAL \
             (SELECT EXISTS (SELECT FROM {} AS m WHERE m.pipeline_id = $1 AND m.sink_id = $2 \
             AND m.topic = $3 AND m.lsn = b.lsn AND m.tx = b.tx AND m.half = 'd') AS is_saved \
             OFFSET 0) AS found WHERE NOT found.is_saved)",
            self.options.progress,
            table(self.options)
        );
        let statement = client.prepare_cached(&sql).await?;
        let needed: [&(dyn ToSql + Sync); 2] = [&needed.lsn, &needed.tx];
        let parameters: Vec<_> = step.expectation().into_iter().chain(needed).collect();
        client.query_one(&statement, &parameters).await?.try_get(0)
    }

    /// Saves what the segment's keys leave: early, in a transaction of its own before the
    /// segment's, and finally in the segment's, before its rows are written.
    pub(super) async fn save(
        &self,
        transaction: &Transaction<'_>,
        is_final: bool,
    ) -> Result<(), Error> {
        let rows = self.segment.rows();
        let moves = self.moves(|row| rows.get(row as usize)?.left_by);
        if moves.rows.is_empty() {
            return Ok(());
        }
        let sql = self.accepted.save(&table(self.options).to_string(), is_final);
        let statement = transaction.prepare_cached(&sql).await?;
        let columns = self.columns(&moves, &self.accepted.layout.key);
        transaction.execute(&statement, &self.parameters(&moves, &columns)).await?;
        Ok(())
    }

    /// Says of every key that was reached that its create is done.
    async fn reach(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let moves = self.moves(|row| self.reached(row));
        if moves.rows.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "INSERT INTO {} (pipeline_id, sink_id, topic, lsn, tx, half, final) \
             SELECT $1, $2, $3, b.lsn, b.tx, 'c', true \
             FROM ROWS FROM (pg_catalog.unnest($4::pg_catalog.int8[]), \
             pg_catalog.unnest($5::pg_catalog.int8[])) AS b(lsn, tx) ON CONFLICT DO NOTHING",
            table(self.options)
        );
        let statement = transaction.prepare_cached(&sql).await?;
        transaction.execute(&statement, &self.parameters(&moves, &[])).await?;
        Ok(())
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

    /// Writes the rows that lack values, with what was saved for them. `false`: nobody has it.
    pub(super) async fn take(&self, transaction: &Transaction<'_>) -> Result<bool, Error> {
        self.reach(transaction).await?;
        let short = self.moves(|row| self.reached(row).filter(|_| self.is_short(row)));
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
                return Ok(false);
            }
        }
        Ok(true)
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
}
