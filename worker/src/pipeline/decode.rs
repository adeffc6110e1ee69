//! From a record's bytes to a [`Change`], or to the reason why there is none.
//!
//! The filters of the sink apply here, on the effect only: a record without effect still counts
//! for the watermark.

use std::sync::Arc;

use cdc_shared::avro::{CellBuf, Value, frame};
use cdc_shared::config::{Operation as ConfigOperation, SinkConfig, SnapshotDelivery};
use cdc_shared::envelope::ValueSchema;
use cdc_shared::json::JsonOptions;
use cdc_shared::offset::SchemaIds;
use cdc_shared::registry::{Registry, Schema};

use crate::change::{Change, KeyChange, Operation};
use crate::sink::Rejection;
use crate::source::record::Record;

/// Which changes have an effect on a sink.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    operations: [bool; 5],
    snapshot: bool,
    tombstones: bool,
}

impl Filter {
    /// The filters of a sink's configuration.
    pub fn of(sink: &SinkConfig) -> Self {
        let wants = |operation| sink.operations.contains(&operation);
        Self {
            operations: [
                wants(ConfigOperation::Create),
                wants(ConfigOperation::Update),
                wants(ConfigOperation::Delete),
                wants(ConfigOperation::Read),
                wants(ConfigOperation::Truncate),
            ],
            snapshot: sink.snapshot == SnapshotDelivery::Deliver,
            tombstones: sink.webhook.as_ref().is_some_and(|webhook| webhook.send_tombstones),
        }
    }

    fn wants(self, operation: Operation) -> bool {
        match operation {
            Operation::Create => self.operations[0],
            Operation::Update => self.operations[1],
            Operation::Delete => self.operations[2],
            Operation::Read => self.operations[3] && self.snapshot,
            Operation::Truncate => self.operations[4],
            Operation::Tombstone => self.tombstones,
        }
    }
}

/// What became of a record.
#[derive(Debug)]
pub enum Outcome {
    /// The sink took it for delivery. `source_ms`: commit time at the source, Unix ms.
    Taken {
        /// When the source committed it.
        source_ms: Option<i64>,
    },
    /// It has no effect.
    Passed,
    /// The schema is not cached: fetch it and come again.
    NeedsSchema(i32),
    /// It can never be taken.
    Rejected(Rejection),
}

/// Decodes records one after the other, reusing its memory.
#[derive(Debug)]
pub struct Decoder {
    json: Arc<JsonOptions>,
    key_cells: CellBuf<'static>,
    value_cells: CellBuf<'static>,
}

/// The schema ids in a record's frames, as far as they can be read.
pub fn schema_ids(record: &Record) -> SchemaIds {
    let id = |bytes: Option<&[u8]>| bytes.and_then(|b| frame(b).ok()).map(|(id, _)| id);
    SchemaIds { key: id(record.key()), value: id(record.value()) }
}

impl Decoder {
    /// A decoder for a sink that wants its JSON like this.
    pub fn new(json: Arc<JsonOptions>) -> Self {
        Self { json, key_cells: CellBuf::new(), value_cells: CellBuf::new() }
    }

    /// Decodes `record` and hands it to `take` if it has an effect.
    pub fn offer(
        &mut self,
        record: &Record,
        registry: &Registry,
        filter: Filter,
        take: impl FnOnce(&Change<'_>) -> Result<(), Rejection>,
    ) -> Outcome {
        let framed = match Framed::of(record, registry, filter) {
            Ok(framed) => framed,
            Err(outcome) => return outcome,
        };
        let mut key_cells = std::mem::take(&mut self.key_cells).recycle();
        let mut value_cells = std::mem::take(&mut self.value_cells).recycle();
        let cells = (&mut key_cells, &mut value_cells);
        let outcome = decode(record, &framed, filter, &self.json, cells, take)
            .unwrap_or_else(Outcome::Rejected);
        self.key_cells = key_cells.recycle();
        self.value_cells = value_cells.recycle();
        outcome
    }
}

type Datum<'m> = Option<(Arc<Schema>, &'m [u8])>;

/// Key and value with their schemas.
struct Framed<'m> {
    key: Datum<'m>,
    value: Datum<'m>,
}

impl<'m> Framed<'m> {
    fn of(record: &'m Record, registry: &Registry, filter: Filter) -> Result<Self, Outcome> {
        let half = |name: &str, bytes: Option<&'m [u8]>| match bytes {
            None => Ok(None),
            Some(bytes) => {
                let (id, datum) = frame(bytes).map_err(|error| {
                    let message = format!("the {name} is not in the registry's format: {error}");
                    Outcome::Rejected(Rejection::new("bad_frame", message))
                })?;
                let schema = registry.cached(id).ok_or(Outcome::NeedsSchema(id))?;
                Ok(Some((schema, datum)))
            }
        };
        if record.value().is_none() && !filter.wants(Operation::Tombstone) {
            // Without effect, whatever its key.
            return Err(Outcome::Passed);
        }
        Ok(Self { key: half("key", record.key())?, value: half("value", record.value())? })
    }
}

fn decode<'m>(
    record: &'m Record,
    framed: &Framed<'m>,
    filter: Filter,
    json: &JsonOptions,
    (key_cells, value_cells): (&mut CellBuf<'m>, &mut CellBuf<'m>),
    take: impl FnOnce(&Change<'_>) -> Result<(), Rejection>,
) -> Result<Outcome, Rejection> {
    let Some((value_schema, value)) = &framed.value else {
        return tombstone(record, framed, json, key_cells, take);
    };
    let envelope_plan = match &value_schema.kind {
        ValueSchema::Envelope(plan) => plan,
        ValueSchema::Other => {
            let name = value_schema.plan.name().unwrap_or("without a name").to_owned();
            let message = format!("the value's schema ({name}) is no change event of Debezium's");
            return Err(Rejection::new("not_an_envelope", message));
        }
        _ => return Ok(Outcome::Passed),
    };
    let root = value_schema.plan.decode(value, value_cells).map_err(|error| {
        Rejection::new("bad_value", format!("the value cannot be decoded: {error}"))
    })?;
    let envelope = envelope_plan
        .envelope(root, value_cells)
        .map_err(|error| Rejection::new("bad_envelope", error.to_string()))?;
    let Some(operation) = Operation::of(envelope.op()) else { return Ok(Outcome::Passed) };
    let source_ms = envelope.source_ts_ms();
    if !filter.wants(operation) {
        return Ok(Outcome::Passed);
    }
    let key = decode_key(framed, key_cells)?;
    take(&Change {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key_bytes: record.key(),
        operation,
        key_change: record.headers().iter().find_map(|(name, _)| KeyChange::of_header(name)),
        key,
        envelope: Some(envelope),
        json,
    })?;
    Ok(Outcome::Taken { source_ms })
}

fn tombstone<'m>(
    record: &'m Record,
    framed: &Framed<'m>,
    json: &JsonOptions,
    key_cells: &mut CellBuf<'m>,
    take: impl FnOnce(&Change<'_>) -> Result<(), Rejection>,
) -> Result<Outcome, Rejection> {
    let key = decode_key(framed, key_cells)?;
    take(&Change {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key_bytes: record.key(),
        operation: Operation::Tombstone,
        key_change: None,
        key,
        envelope: None,
        json,
    })?;
    Ok(Outcome::Taken { source_ms: None })
}

fn decode_key<'c, 'm>(
    framed: &'c Framed<'m>,
    cells: &'c mut CellBuf<'m>,
) -> Result<Option<Value<'c, 'm>>, Rejection> {
    let Some((schema, datum)) = &framed.key else { return Ok(None) };
    let root = schema.plan.decode(datum, cells).map_err(|error| {
        Rejection::new("bad_key", format!("the key cannot be decoded: {error}"))
    })?;
    Ok(Some(schema.plan.view(root, cells)))
}
