//! Debezium's change events of a table, encoded by hand and decoded by the record path.

use cdc_shared::avro::{CellBuf, Plan};
use cdc_shared::envelope::ValueSchema;
use cdc_shared::json::JsonOptions;
use cdc_worker::change::{Change, KeyChange, Operation};
use cdc_worker::sink::{PartitionWriter, Rejection};
use serde_json::{Value as Json, json};

/// What stands for a value that was not sent.
pub(crate) const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// One column: its name, its Avro type, whether NULL is one of its values.
#[derive(Clone, Debug)]
pub(crate) struct Col {
    name: &'static str,
    ty: Json,
    nullable: bool,
}

/// A column of a source type.
pub(crate) fn col(name: &'static str, avro: &str, source: &str, length: Option<i64>) -> Col {
    let mut parameters = json!({
        "__debezium.source.column.type": source,
        "__debezium.source.column.name": name,
    });
    if let Some(length) = length {
        parameters["__debezium.source.column.length"] = json!(length.to_string());
    }
    Col { name, ty: json!({"type": avro, "connect.parameters": parameters}), nullable: true }
}

impl Col {
    /// An enum with these labels, as the connector tells them.
    pub(crate) fn labels(mut self, labels: &str) -> Self {
        self.ty["connect.name"] = json!("io.debezium.data.Enum");
        self.ty["connect.parameters"]["allowed"] = json!(labels);
        self
    }

    /// NULL is refused.
    pub(crate) fn required(self) -> Self {
        Self { nullable: false, ..self }
    }
}

/// A value of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum V {
    /// NULL.
    Null,
    /// Int or long.
    N(i64),
    /// String.
    T(&'static str),
}

/// A table at one moment: its schemas.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Col>,
    key: usize,
    value_schema: ValueSchema,
    text: String,
    key_plan: Plan,
    key_id: i32,
}

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) offset: i64,
    pub(crate) op: &'static str,
    /// Key columns come first in a row.
    pub(crate) row: Vec<V>,
    pub(crate) half: Option<KeyChange>,
    pub(crate) lsn: i64,
}

fn field(column: &Col) -> Json {
    if column.nullable {
        json!({"name": column.name, "type": ["null", column.ty.clone()], "default": null})
    } else {
        json!({"name": column.name, "type": column.ty.clone()})
    }
}

impl Table {
    /// A table `shop.{name}` whose key is its first `key` columns.
    pub(crate) fn new(name: &str, id: i32, key_id: i32, key: usize, columns: &[Col]) -> Self {
        let row = json!({"type": "record", "name": "Value",
            "fields": columns.iter().map(field).collect::<Vec<_>>()});
        let source = json!({"type": "record", "name": "Source", "fields": [
            {"name": "schema", "type": "string"}, {"name": "table", "type": "string"},
            {"name": "lsn", "type": "long"}, {"name": "txId", "type": "long"}]});
        let envelope = json!({"type": "record", "name": "Envelope", "namespace": format!("t.{name}"),
            "fields": [
                {"name": "before", "type": ["null", row], "default": null},
                {"name": "after", "type": ["null", "Value"], "default": null},
                {"name": "source", "type": source},
                {"name": "op", "type": "string"}]});
        let no_references: [(&str, &str); 0] = [];
        let text = envelope.to_string();
        let plan = Plan::compile(id, &text, &no_references).unwrap();
        let fields: Vec<_> = columns[..key]
            .iter()
            .map(|column| json!({"name": column.name, "type": column.ty["type"]}))
            .collect();
        let key_schema = json!({"type": "record", "name": "Key", "fields": fields});
        Self {
            columns: columns.to_vec(),
            key,
            value_schema: ValueSchema::of(plan.into()),
            text,
            key_plan: Plan::compile(key_id, &key_schema.to_string(), &no_references).unwrap(),
            key_id,
        }
    }

    /// Id and text of the values' schema.
    pub(crate) fn registered(&self) -> (i32, String) {
        let envelope = self.value_schema.envelope().unwrap();
        (envelope.plan().schema_id(), self.text.clone())
    }

    fn value(&self, event: &Event, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        long(&mut out, 0);
        if event.op == "d" || event.op == "t" {
            long(&mut out, 0);
        } else {
            long(&mut out, 1);
            for (value, column) in event.row.iter().zip(&self.columns) {
                put(&mut out, *value, column.nullable);
            }
        }
        for text in ["shop", name] {
            string(&mut out, text);
        }
        long(&mut out, event.lsn);
        long(&mut out, 7);
        string(&mut out, event.op);
        out
    }

    /// The key of an event as Kafka has it.
    pub(crate) fn key_bytes(&self, event: &Event) -> Vec<u8> {
        let mut key = vec![0];
        key.extend_from_slice(&self.key_id.to_be_bytes());
        for value in &event.row[..self.key] {
            put(&mut key, *value, false);
        }
        key
    }

    /// Pushes an event of table `name`.
    pub(crate) fn push(
        &self,
        writer: &mut dyn PartitionWriter,
        event: &Event,
    ) -> Result<(), Rejection> {
        let ValueSchema::Envelope(envelope) = &self.value_schema else { panic!("no envelope") };
        let name = envelope.plan().name().unwrap().split('.').nth(1).unwrap().to_owned();
        let value = self.value(event, &name);
        let key_bytes = self.key_bytes(event);
        let key = &key_bytes[5..];
        let (mut cells, mut key_cells) = (CellBuf::new(), CellBuf::new());
        let root = envelope.plan().decode(&value, &mut cells).unwrap();
        let key_root = self.key_plan.decode(key, &mut key_cells).unwrap();
        let envelope = envelope.envelope(root, &cells).unwrap();
        let is_truncate = event.op == "t";
        writer.push(&Change {
            offset: event.offset,
            timestamp_ms: 0,
            key_bytes: (!is_truncate).then_some(key_bytes.as_slice()),
            operation: Operation::of(envelope.op()).unwrap(),
            key_change: event.half,
            key: (!is_truncate).then(|| self.key_plan.view(key_root, &key_cells)),
            envelope: Some(envelope),
            json: &JsonOptions::default(),
        })
    }
}

/// An event without more.
pub(crate) fn event(offset: i64, op: &'static str, row: &[V]) -> Event {
    Event { offset, op, row: row.to_vec(), half: None, lsn: offset }
}

impl Event {
    /// Half of a change of the primary key.
    pub(crate) fn half(self, half: KeyChange, lsn: i64) -> Self {
        Self { half: Some(half), lsn, ..self }
    }
}

fn put(out: &mut Vec<u8>, value: V, nullable: bool) {
    if nullable {
        long(out, i64::from(!matches!(value, V::Null)));
    }
    match value {
        V::Null => {}
        V::N(number) => long(out, number),
        V::T(text) => string(out, text),
    }
}

fn long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push((zigzag as u8 & 0x7f) | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}
