//! Positions of the envelope's fields in a plan.

use crate::avro::{Kind, NodeId, Plan};

#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    pub(super) op: usize,
    pub(super) before: Option<usize>,
    pub(super) after: Option<usize>,
    pub(super) source: Option<usize>,
    pub(super) transaction: Option<usize>,
    pub(super) ts_ms: Option<usize>,
    pub(super) source_ts_ms: Option<usize>,
    pub(super) source_ts_us: Option<usize>,
    pub(super) snapshot: Option<usize>,
    pub(super) database: Option<usize>,
    pub(super) schema: Option<usize>,
    pub(super) table: Option<usize>,
    pub(super) lsn: Option<usize>,
    pub(super) tx_id: Option<usize>,
    pub(super) transaction_id: Option<usize>,
    pub(super) transaction_order: Option<usize>,
}

impl Fields {
    /// `None` if the root is no envelope: it has an `op`, at least one image of a row, and a
    /// `source` record or the name of an envelope.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        let root = plan.root();
        let record = |name: &str| {
            let column = position(plan, root, name)?;
            matches!(plan.kind(plan.columns(root)[column].node), Kind::Record { .. })
                .then_some(column)
        };
        let op = position(plan, root, "op")?;
        if plan.kind(plan.columns(root)[op].node) != Kind::String {
            return None;
        }
        let (before, after) = (record("before"), record("after"));
        before.or(after)?;
        let source = record("source");
        // A transform may have taken the source block out; then only the name tells.
        if source.is_none() && plan.name()?.rsplit('.').next() != Some("Envelope") {
            return None;
        }
        let transaction = record("transaction");
        let source_field = |name: &str| position(plan, plan.columns(root)[source?].node, name);
        let transaction_field =
            |name: &str| position(plan, plan.columns(root)[transaction?].node, name);
        Some(Self {
            op,
            before,
            after,
            source,
            transaction,
            ts_ms: position(plan, root, "ts_ms"),
            source_ts_ms: source_field("ts_ms"),
            source_ts_us: source_field("ts_us"),
            snapshot: source_field("snapshot"),
            database: source_field("db"),
            schema: source_field("schema"),
            table: source_field("table"),
            lsn: source_field("lsn"),
            tx_id: source_field("txId"),
            transaction_id: transaction_field("id"),
            transaction_order: transaction_field("total_order"),
        })
    }
}

/// Position of a record's column.
pub(super) fn position(plan: &Plan, record: NodeId, name: &str) -> Option<usize> {
    plan.columns(record).iter().position(|column| column.name == name)
}
