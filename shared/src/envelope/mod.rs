//! Debezium's envelope on top of a decoded datum, and what else lands in its topics.
//!
//! The positions of the fields are resolved once per schema ([`EnvelopePlan`]); reading one is
//! an index into the cells.

mod class;
mod fields;
mod md5;
mod placeholder;
mod transaction;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use class::ValueSchema;
pub use placeholder::Placeholder;
pub use transaction::{Mark, TransactionId};

use crate::avro::{Cell, CellBuf, Column, NodeId, Plan, Row, Value};
use fields::Fields;

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `c`: inserted.
    Create,
    /// `u`: updated.
    Update,
    /// `d`: deleted.
    Delete,
    /// `r`: read by a snapshot.
    Read,
    /// `t`: the table was truncated.
    Truncate,
    /// `m`: a logical message.
    Message,
}

impl Op {
    /// By Debezium's letter.
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "c" => Self::Create,
            "u" => Self::Update,
            "d" => Self::Delete,
            "r" => Self::Read,
            "t" => Self::Truncate,
            "m" => Self::Message,
            _ => return None,
        })
    }

    /// Debezium's letter.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Truncate => "t",
            Self::Message => "m",
        }
    }
}

/// `source.snapshot`: whether the event comes from a snapshot, and from where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snapshot {
    /// Streaming (`false`, or unset).
    #[default]
    No,
    /// `true`, or a marker that is not known here.
    Yes,
    /// The first row of the snapshot.
    First,
    /// The first row of a table.
    FirstInTable,
    /// The last row of a table.
    LastInTable,
    /// The last row of the snapshot.
    Last,
    /// An incremental snapshot.
    Incremental,
}

impl Snapshot {
    fn from_marker(marker: &str) -> Self {
        match marker {
            "false" => Self::No,
            "first" => Self::First,
            "first_in_data_collection" => Self::FirstInTable,
            "last_in_data_collection" => Self::LastInTable,
            "last" => Self::Last,
            "incremental" => Self::Incremental,
            _ => Self::Yes,
        }
    }
}

/// Why a decoded record is no usable envelope though its schema is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The datum is null where a record was expected.
    #[error("the envelope is null")]
    Null,
    /// No letter of Debezium's.
    #[error("unknown operation `{0}`, expected one of c, u, d, r, t, m")]
    Op(String),
}

/// A plan whose root is an envelope, with the positions of its fields.
#[derive(Debug, Clone)]
pub struct EnvelopePlan {
    plan: Arc<Plan>,
    fields: Fields,
}

impl EnvelopePlan {
    /// The plan itself.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The columns of the table: of `after`, or of `before` where there is no `after`.
    pub fn columns(&self) -> &[Column] {
        self.row_node().map_or(&[], |node| self.plan.columns(node))
    }

    /// The record of the table's rows.
    pub fn row_node(&self) -> Option<NodeId> {
        let column = self.fields.after.or(self.fields.before)?;
        Some(self.plan.columns(self.plan.root()).get(column)?.node)
    }

    /// Looks at a decoded root as an envelope.
    ///
    /// # Errors
    /// When the root is null, or its operation is not known.
    pub fn envelope<'a, 'm>(
        &'a self,
        root: Cell<'m>,
        cells: &'a CellBuf<'m>,
    ) -> Result<Envelope<'a, 'm>, EnvelopeError> {
        let record = self.plan.row(root, cells).ok_or(EnvelopeError::Null)?;
        let code = record.get(self.fields.op).and_then(|op| op.as_str()).unwrap_or("");
        let op = Op::from_code(code).ok_or_else(|| {
            // It comes from the data and ends in logs: no more of it than a glance.
            EnvelopeError::Op(code.chars().take(16).collect())
        })?;
        Ok(Envelope { plan: self, record, op })
    }
}

/// One change event.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a, 'm> {
    plan: &'a EnvelopePlan,
    record: Row<'a, 'm>,
    op: Op,
}

impl<'a, 'm> Envelope<'a, 'm> {
    /// What happened.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The whole envelope as it was decoded.
    pub fn record(&self) -> Row<'a, 'm> {
        self.record
    }

    /// The row before the change. With the default replica identity only its key columns are
    /// real, the others are null.
    pub fn before(&self) -> Option<Row<'a, 'm>> {
        self.field(self.plan.fields.before)?.record()
    }

    /// The row after the change.
    pub fn after(&self) -> Option<Row<'a, 'm>> {
        self.field(self.plan.fields.after)?.record()
    }

    /// When the connector processed the event, in ms since the epoch.
    pub fn ts_ms(&self) -> Option<i64> {
        self.field(self.plan.fields.ts_ms)?.as_i64()
    }

    /// The source block.
    pub fn source(&self) -> Option<Row<'a, 'm>> {
        self.field(self.plan.fields.source)?.record()
    }

    /// When the change was made at the source, in ms since the epoch.
    pub fn source_ts_ms(&self) -> Option<i64> {
        self.source_field(self.plan.fields.source_ts_ms)?.as_i64()
    }

    /// The same in µs, where the connector says it.
    pub fn source_ts_us(&self) -> Option<i64> {
        self.source_field(self.plan.fields.source_ts_us)?.as_i64()
    }

    /// Whether the event comes from a snapshot.
    pub fn snapshot(&self) -> Snapshot {
        let Some(marker) = self.source_field(self.plan.fields.snapshot) else {
            return Snapshot::No;
        };
        match (marker.as_str().or_else(|| marker.symbol()), marker.as_bool()) {
            (Some(text), _) => Snapshot::from_marker(text),
            (None, Some(true)) => Snapshot::Yes,
            _ => Snapshot::No,
        }
    }

    /// Source database.
    pub fn database(&self) -> Option<&'m str> {
        self.source_field(self.plan.fields.database)?.as_str()
    }

    /// Source schema (`PostgreSQL`).
    pub fn schema(&self) -> Option<&'m str> {
        self.source_field(self.plan.fields.schema)?.as_str()
    }

    /// Source table.
    pub fn table(&self) -> Option<&'m str> {
        self.source_field(self.plan.fields.table)?.as_str()
    }

    /// Log position (`PostgreSQL`); absent in incremental snapshots. It does not identify an
    /// event: many share one.
    pub fn lsn(&self) -> Option<i64> {
        self.source_field(self.plan.fields.lsn)?.as_i64()
    }

    /// Transaction number at the source (`PostgreSQL`).
    pub fn tx_id(&self) -> Option<i64> {
        self.source_field(self.plan.fields.tx_id)?.as_i64()
    }

    /// `transaction.id`, where transaction metadata is on; [`TransactionId`] is what to match by.
    pub fn transaction_id(&self) -> Option<&'m str> {
        let transaction = self.field(self.plan.fields.transaction)?.record()?;
        transaction.get(self.plan.fields.transaction_id?)?.as_str()
    }

    /// `transaction.total_order`: the event's place in its transaction, from 1.
    pub fn transaction_order(&self) -> Option<i64> {
        let transaction = self.field(self.plan.fields.transaction)?.record()?;
        transaction.get(self.plan.fields.transaction_order?)?.as_i64()
    }

    /// The columns of the table, as [`EnvelopePlan::columns`].
    pub fn table_columns(&self) -> &'a [Column] {
        self.plan.columns()
    }

    /// Positions of `before` and `after` in the envelope.
    pub(crate) fn images(&self) -> (Option<usize>, Option<usize>) {
        (self.plan.fields.before, self.plan.fields.after)
    }

    fn field(&self, column: Option<usize>) -> Option<Value<'a, 'm>> {
        self.record.get(column?)
    }

    fn source_field(&self, column: Option<usize>) -> Option<Value<'a, 'm>> {
        self.source()?.get(column?)
    }
}
