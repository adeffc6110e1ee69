//! What a record is to the assembler: of which transaction, or nothing, or not to be read.

use std::sync::Arc;

use cdc_shared::avro::{CellBuf, frame};
use cdc_shared::envelope::{Envelope, Mark, TransactionId, ValueSchema};
use cdc_shared::registry::Registry;

use super::assembler::Label;
use crate::pipeline::decode::{Decoder, Filter, Outcome};
use crate::sink::Rejection;
use crate::source::record::Record;

/// See the module.
#[derive(Debug)]
pub(super) enum Read {
    /// A change; without a transaction it is a row of a snapshot.
    Change {
        /// Its transaction.
        label: Option<Label>,
        /// When the source committed it.
        source_ms: Option<i64>,
    },
    /// Without effect.
    Nothing,
    /// The schema is not cached: fetch it and come again.
    NeedsSchema(i32),
    /// It can never be read.
    Rejected(Rejection),
}

/// Reads a record of a table's topic.
pub(super) fn change(
    decoder: &mut Decoder,
    record: &Record,
    registry: &Registry,
    filter: Filter,
) -> Read {
    let mut label = None;
    let outcome = decoder.offer(record, registry, filter, |change| {
        let envelope = change.envelope.as_ref();
        let id = envelope.and_then(Envelope::transaction_id);
        label = id.map(|id| Label {
            transaction: TransactionId::of(id),
            order: envelope.and_then(Envelope::transaction_order).unwrap_or(1),
        });
        Ok(())
    });
    match outcome {
        Outcome::Taken { source_ms } => Read::Change { label, source_ms },
        Outcome::Passed => Read::Nothing,
        Outcome::NeedsSchema(id) => Read::NeedsSchema(id),
        Outcome::Rejected(rejection) => Read::Rejected(rejection),
    }
}

/// Reads a record of the transaction topic; `None`: it is no mark.
///
/// # Errors
/// A schema that is not cached, or a record that cannot be read.
pub(super) fn mark(record: &Record, registry: &Registry) -> Result<Option<Mark>, Read> {
    let Some(value) = record.value() else { return Ok(None) };
    let bad = |why: String| Read::Rejected(Rejection::new("bad_transaction_mark", why));
    let (id, datum) = frame(value).map_err(|error| bad(error.to_string()))?;
    let schema = registry.cached(id).ok_or(Read::NeedsSchema(id))?;
    if !matches!(schema.kind, ValueSchema::Transaction) {
        return Ok(None);
    }
    let plan: &Arc<_> = &schema.plan;
    let mut cells = CellBuf::new();
    let root = plan.decode(datum, &mut cells).map_err(|error| bad(error.to_string()))?;
    let row = plan.row(root, &cells).ok_or_else(|| bad("the mark is null".to_owned()))?;
    Mark::read(row).map(Some).map_err(bad)
}
