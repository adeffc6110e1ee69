//! The statements that write a segment.
//!
//! Rows come as one array for each column. That costs the server no more than COPY into a temporary
//! table and a statement over it (`make bench` has both), and needs no table of the session's own.
//!
//! The common case is one statement, one round trip, one transaction of its own: the
//! compare-and-set of the sink's own record, and deletes and rows only if it hit. Under READ
//! COMMITTED a second writer waits for the row of the record, sees what the first made of it,
//! misses, and writes nothing.

use std::sync::Arc;

use super::layout::Layout;
use super::types::{Fit, fit};
use crate::sink::name::quote;
use crate::sink::postgres::config::Options;
use crate::sink::postgres::statement::compare_and_set;
use crate::sink::postgres::table::{self, Computed, Found};

/// Parameters of the compare-and-set.
pub(super) const STEP_PARAMETERS: usize = 12;

/// A mirror that rows of a layout can go into.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The rows.
    pub(super) layout: Arc<Layout>,
    /// Columns that are written: all but those that the server computes.
    pub(super) written: Vec<Written>,
    /// Compare-and-set alone, for a transaction of several statements.
    pub(super) advance: String,
    /// Compare-and-set, deletes and rows in one.
    pub(super) write: String,
    /// The same, refused by the server where one of the rows is there already.
    pub(super) insert: String,
}

/// A column that is written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Its position in the layout.
    pub(super) column: usize,
    /// The cast of an element to the column.
    cast: String,
}

impl Accepted {
    /// A mirror as it was found.
    pub(super) fn new(options: &Options, layout: Arc<Layout>, found: &Found) -> Self {
        let mut accepted = Self {
            written: written(&layout, found),
            layout,
            advance: String::new(),
            write: String::new(),
            insert: String::new(),
        };
        // The table is found by name; should another one have taken the name, nothing is written.
        accepted.advance = format!(
            "{} AND {}::pg_catalog.oid = {}::pg_catalog.regclass",
            compare_and_set(options),
            found.oid,
            literal(&accepted.layout.target.to_string())
        );
        accepted.write = accepted.write_statement(&accepted.on_conflict());
        accepted.insert = accepted.write_statement("");
        accepted
    }

    fn column(&self, column: usize) -> String {
        self.layout.columns.get(column).map(|c| quote(&c.name)).unwrap_or_default()
    }

    fn key_columns(&self) -> String {
        let key: Vec<_> = self.layout.key.iter().map(|column| self.column(*column)).collect();
        key.join(", ")
    }

    /// `ROWS FROM (unnest($n::type[]), …) AS b(c0, …)` over the columns, the first parameter being
    /// `$from`.
    fn rows_from(&self, columns: &[usize], from: usize) -> String {
        self.rows_from_with(&[], columns, from)
    }

    /// The same with other arrays before the columns: name and element type of each.
    fn rows_from_with(&self, others: &[(&str, &str)], columns: &[usize], from: usize) -> String {
        let arrays = columns.iter().map(|column| {
            let array = self.layout.columns.get(*column).map_or("", |c| c.ty.wire.array());
            (format!("c{column}"), array.to_owned())
        });
        let others = others.iter().map(|(name, ty)| ((*name).to_owned(), format!("{ty}[]")));
        let (mut unnests, mut names) = (Vec::new(), Vec::new());
        for (place, (name, array)) in others.chain(arrays).enumerate() {
            unnests.push(format!("pg_catalog.unnest(${}::{array})", from + place));
            names.push(name);
        }
        format!("ROWS FROM ({}) AS b({})", unnests.join(", "), names.join(", "))
    }

    fn cast(&self, column: usize) -> String {
        let written = self.written.iter().find(|written| written.column == column);
        format!("b.c{column}{}", written.map_or("", |written| &written.cast))
    }

    /// `t."id" = b.c0 AND …`
    fn same_key(&self) -> String {
        let key = self.layout.key.iter();
        let parts: Vec<_> =
            key.map(|c| format!("t.{} = {}", self.column(*c), self.cast(*c))).collect();
        parts.join(" AND ")
    }

    fn on_conflict(&self) -> String {
        let sets: Vec<_> = self
            .written
            .iter()
            .filter(|written| !self.layout.key.contains(&written.column))
            .map(|written| {
                let name = self.column(written.column);
                format!("{name} = EXCLUDED.{name}")
            })
            .collect();
        let action = if sets.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", sets.join(", "))
        };
        format!("ON CONFLICT ({}) DO {action}", self.key_columns())
    }

    /// Positions of the columns that are written.
    pub(super) fn written_columns(&self) -> Vec<usize> {
        self.written.iter().map(|written| written.column).collect()
    }

    /// Deletes keys. Parameters: the keys' columns.
    pub(super) fn delete(&self) -> String {
        format!(
            "DELETE FROM {} AS t USING {} WHERE {}",
            self.layout.target,
            self.rows_from(&self.layout.key, 1),
            self.same_key()
        )
    }

    /// Writes whole rows. Parameters: the columns that are written.
    pub(super) fn upsert(&self) -> String {
        format!(
            "{} FROM {} {}",
            self.insert(|column| self.cast(column)),
            self.rows_from(&self.written_columns(), 1),
            self.on_conflict()
        )
    }

    /// The one statement of the common case. Parameters: the step's, the deleted keys' columns,
    /// the rows' columns. Answers with the number of records moved: 1, or 0 for a miss.
    ///
    /// Deletes come first, so that a unique value of a row that is gone is free again. `conflict`:
    /// what becomes of a row whose key is there.
    fn write_statement(&self, conflict: &str) -> String {
        let (keys, columns) = (STEP_PARAMETERS + 1, self.written_columns());
        let rows = keys + self.layout.key.len();
        format!(
            "WITH moved AS ({cas} RETURNING 1), \
             deleted AS (DELETE FROM {table} AS t USING {gone} WHERE {same_key} \
             AND EXISTS (SELECT FROM moved) RETURNING 1), \
             written AS ({insert} FROM {new} WHERE EXISTS (SELECT FROM moved) \
             AND (SELECT pg_catalog.count(*) FROM deleted) >= 0 {conflict}) \
             SELECT pg_catalog.count(*) FROM moved",
            cas = self.advance,
            table = self.layout.target,
            gone = self.rows_from(&self.layout.key, keys),
            same_key = self.same_key(),
            insert = self.insert(|column| self.cast(column)),
            new = self.rows_from(&columns, rows),
        )
    }

    /// `INSERT INTO t (…) SELECT …` with the value that is given for each column.
    fn insert(&self, value: impl Fn(usize) -> String) -> String {
        let columns = self.written_columns();
        let names: Vec<_> = columns.iter().map(|column| self.column(*column)).collect();
        let values: Vec<_> = columns.iter().map(|column| value(*column)).collect();
        format!(
            "INSERT INTO {} ({}) SELECT {}",
            self.layout.target,
            names.join(", "),
            values.join(", ")
        )
    }

    /// Columns that a row without these ones sends.
    pub(super) fn present(&self, missing: &[usize]) -> Vec<usize> {
        self.written_columns().into_iter().filter(|column| !missing.contains(column)).collect()
    }

    /// Updates rows, leaving some columns as they are. Parameters: the columns that are not
    /// missing.
    pub(super) fn update(&self, missing: &[usize]) -> String {
        format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {}",
            self.layout.target,
            self.assignments(missing),
            self.rows_from(&self.present(missing), 1),
            self.same_key(),
        )
    }

    fn assignments(&self, missing: &[usize]) -> String {
        let present = self.present(missing).into_iter();
        let sets: Vec<_> = present
            .filter(|column| !self.layout.key.contains(column))
            .map(|column| format!("{} = {}", self.column(column), self.cast(column)))
            .collect();
        if sets.is_empty() {
            // Nothing but large values: the row must be there all the same.
            let key = self.layout.key.first().map(|column| self.column(*column));
            let key = key.unwrap_or_default();
            return format!("{key} = t.{key}");
        }
        sets.join(", ")
    }

    /// Saves what can be missing of rows whose keys are left (or that there was no row).
    /// `is_final`: in the transaction that deletes them. Parameters: pipeline, sink, topic, log
    /// positions, transactions, the keys' columns.
    pub(super) fn save(&self, moved_rows: &str, is_final: bool) -> String {
        let missing = self.layout.columns.iter().filter(|column| column.may_be_missing);
        let (names, values): (Vec<_>, Vec<_>) = missing
            .map(|c| (literal(&c.name), format!("t.{}::pg_catalog.text", quote(&c.name))))
            .unzip();
        let key = self.layout.key.first().map(|column| self.column(*column)).unwrap_or_default();
        format!(
            "INSERT INTO {moved_rows} AS m (pipeline_id, sink_id, topic, lsn, tx, half, final, \
             saved) SELECT $1, $2, $3, b.lsn, b.tx, 'd', {is_final}, \
             CASE WHEN t.{key} IS NOT NULL THEN pg_catalog.jsonb_object( \
             ARRAY[{names}]::pg_catalog.text[], ARRAY[{values}]::pg_catalog.text[]) END \
             FROM {rows} LEFT JOIN {table} AS t ON {same_key} \
             ON CONFLICT (pipeline_id, sink_id, topic, lsn, tx, half) DO UPDATE \
             SET saved = COALESCE(EXCLUDED.saved, m.saved), final = m.final OR EXCLUDED.final",
            rows = self.rows_from_with(&MOVE, &self.layout.key, 4),
            names = names.join(", "),
            values = values.join(", "),
            table = self.layout.target,
            same_key = self.same_key(),
        )
    }

    /// Writes rows with the values that were saved for them. Parameters: pipeline, sink, topic,
    /// log positions, transactions, the columns that are not missing.
    pub(super) fn insert_moved(&self, missing: &[usize], moved_rows: &str) -> String {
        let present = self.present(missing);
        let value = |column: usize| {
            if !missing.contains(&column) {
                return self.cast(column);
            }
            let found = self.layout.columns.get(column);
            let name = found.map(|c| literal(&c.name)).unwrap_or_default();
            let sql = found.map(|c| c.ty.sql.as_str()).unwrap_or_default();
            format!("(m.saved ->> {name})::{sql}")
        };
        format!(
            "{insert} FROM {rows} {join} WHERE m.saved IS NOT NULL {conflict}",
            insert = self.insert(value),
            rows = self.rows_from_with(&MOVE, &present, 4),
            join = join_moved(moved_rows),
            conflict = self.on_conflict(),
        )
    }

    /// Updates rows for which nothing could be saved, because an earlier delivery already moved
    /// them. Parameters as [`Self::insert_moved`].
    pub(super) fn update_moved(&self, missing: &[usize], moved_rows: &str) -> String {
        format!(
            "UPDATE {table} AS t SET {sets} FROM {rows} {join} WHERE m.saved IS NULL AND {same_key}",
            table = self.layout.target,
            sets = self.assignments(missing),
            rows = self.rows_from_with(&MOVE, &self.present(missing), 4),
            join = join_moved(moved_rows),
            same_key = self.same_key(),
        )
    }
}

/// What names a change of a primary key, as arrays.
const MOVE: [(&str, &str); 2] = [("lsn", "pg_catalog.int8"), ("tx", "pg_catalog.int8")];

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Looks each up by the whole key: a plan that goes through the table for every row of the batch
/// would look as cheap as long as the statistics say that the table is empty.
fn join_moved(moved_rows: &str) -> String {
    format!(
        "CROSS JOIN LATERAL (SELECT h.saved FROM {moved_rows} AS h WHERE h.pipeline_id = $1 \
         AND h.sink_id = $2 AND h.topic = $3 AND h.lsn = b.lsn AND h.tx = b.tx AND h.half = 'd' \
         LIMIT 1) AS m"
    )
}

fn written(layout: &Layout, found: &Found) -> Vec<Written> {
    let mut written = Vec::with_capacity(layout.columns.len());
    for (position, column) in layout.columns.iter().enumerate() {
        let Some(there) = table::column_of(found, &column.name) else { continue };
        if there.computed == Some(Computed::Expression) {
            continue;
        }
        let cast = match fit(&there.underlying, &column.ty) {
            Fit::Holds => held_cast(column, &there.underlying),
            _ => column.ty.cast().to_owned(),
        };
        written.push(Written { column: position, cast });
    }
    written
}

/// The cast into a column of another type that holds every value.
fn held_cast(column: &super::layout::LayoutColumn, underlying: &str) -> String {
    match column.ty.in_column(underlying) {
        Some(held) if held.wire == column.ty.wire => held.cast().to_owned(),
        Some(held) => format!("{}::{}", column.ty.cast(), held.sql),
        None => column.ty.cast().to_owned(),
    }
}
