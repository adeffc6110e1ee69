//! Envelopes as Debezium writes them.

use std::sync::Arc;

use apache_avro::types::Value as Avro;

use super::*;
use crate::avro::oracle::encode;
use crate::avro::{CellBuf, Plan};
use crate::json::{JsonOptions, Unavailable, write_envelope};

const ENVELOPE: &str = include_str!("../../benches/envelope.avsc");

fn plan(schema: &str) -> Arc<Plan> {
    Arc::new(Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap())
}

fn some(branch: u32, value: impl Into<Avro>) -> Avro {
    Avro::Union(branch, Box::new(value.into()))
}

fn null(branch: u32) -> Avro {
    Avro::Union(branch, Box::new(Avro::Null))
}

fn record(fields: Vec<(&str, Avro)>) -> Avro {
    Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn row(note: &str) -> Avro {
    record(vec![
        ("id", 42_i64.into()),
        ("customer_id", 7.into()),
        ("status", some(0, "paid")),
        ("amount", some(1, Avro::Decimal(vec![0x02, 0x26].into()))),
        ("note", some(1, note)),
        ("created_at", 1_700_000_000_000_000_i64.into()),
        ("updated_at", null(0)),
        ("active", true.into()),
        ("score", some(1, 0.5)),
        ("quantity", 3.into()),
        ("due", some(1, 19_782)),
        ("extra", null(0)),
    ])
}

fn source(snapshot: Avro) -> Avro {
    record(vec![
        ("version", "3.6.1.Final".into()),
        ("connector", "postgresql".into()),
        ("name", "shop".into()),
        ("ts_ms", 1_700_000_000_123_i64.into()),
        ("snapshot", snapshot),
        ("db", "shopdb".into()),
        ("sequence", null(0)),
        ("ts_us", some(1, 1_700_000_000_123_456_i64)),
        ("ts_ns", null(0)),
        ("schema", "public".into()),
        ("table", "orders".into()),
        ("txId", some(1, 768_i64)),
        ("lsn", some(1, 26_564_224_i64)),
        ("xmin", null(0)),
    ])
}

fn event(op: &str, before: Avro, after: Avro, snapshot: Avro) -> Vec<u8> {
    let transaction = record(vec![
        ("id", "768:26564224".into()),
        ("total_order", 1_i64.into()),
        ("data_collection_order", 1_i64.into()),
    ]);
    let value = record(vec![
        ("before", before),
        ("after", after),
        ("source", source(snapshot)),
        ("transaction", some(1, transaction)),
        ("op", op.into()),
        ("ts_ms", some(1, 1_700_000_000_500_i64)),
        ("ts_us", null(0)),
        ("ts_ns", null(0)),
    ]);
    encode(ENVELOPE, value)
}

fn envelope_plan() -> EnvelopePlan {
    ValueSchema::of(plan(ENVELOPE)).envelope().unwrap().clone()
}

#[test]
fn every_field_is_read() {
    let envelopes = envelope_plan();
    assert_eq!(envelopes.columns().len(), 12);
    let datum = event("u", null(0), some(1, row("a note")), some(0, "last"));
    let mut cells = CellBuf::new();
    let root = envelopes.plan().decode(&datum, &mut cells).unwrap();
    let envelope = envelopes.envelope(root, &cells).unwrap();
    assert_eq!(envelope.op(), Op::Update);
    assert!(envelope.before().is_none());
    let after = envelope.after().unwrap();
    assert_eq!(after.get(0).unwrap().as_i64(), Some(42));
    assert_eq!(after.get(4).unwrap().as_str(), Some("a note"));
    assert_eq!(envelope.ts_ms(), Some(1_700_000_000_500));
    assert_eq!(envelope.source_ts_ms(), Some(1_700_000_000_123));
    assert_eq!(envelope.source_ts_us(), Some(1_700_000_000_123_456));
    assert_eq!(envelope.snapshot(), Snapshot::Last);
    assert_eq!(envelope.database(), Some("shopdb"));
    assert_eq!(envelope.schema(), Some("public"));
    assert_eq!(envelope.table(), Some("orders"));
    assert_eq!(envelope.lsn(), Some(26_564_224));
    assert_eq!(envelope.tx_id(), Some(768));
    assert_eq!(envelope.transaction_id(), Some("768:26564224"));
}

#[test]
fn snapshot_markers() {
    let envelopes = envelope_plan();
    let markers = [
        (null(1), Snapshot::No),
        (some(0, "false"), Snapshot::No),
        (some(0, "true"), Snapshot::Yes),
        (some(0, "first"), Snapshot::First),
        (some(0, "first_in_data_collection"), Snapshot::FirstInTable),
        (some(0, "last_in_data_collection"), Snapshot::LastInTable),
        (some(0, "incremental"), Snapshot::Incremental),
    ];
    for (marker, expected) in markers {
        let datum = event("r", null(0), some(1, row("x")), marker);
        let mut cells = CellBuf::new();
        let root = envelopes.plan().decode(&datum, &mut cells).unwrap();
        assert_eq!(envelopes.envelope(root, &cells).unwrap().snapshot(), expected);
    }
}

#[test]
fn operations() {
    for code in ["c", "u", "d", "r", "t", "m"] {
        assert_eq!(Op::from_code(code).unwrap().code(), code);
    }
    let envelopes = envelope_plan();
    let datum = event("x", null(0), null(0), null(1));
    let mut cells = CellBuf::new();
    let root = envelopes.plan().decode(&datum, &mut cells).unwrap();
    let error = envelopes.envelope(root, &cells).unwrap_err();
    assert_eq!(error, EnvelopeError::Op("x".into()));
}

#[test]
fn a_column_that_was_not_sent_is_left_out_and_named() {
    let envelopes = envelope_plan();
    let placeholder = "__debezium_unavailable_value";
    let datum = event("u", some(1, row("before")), some(1, row(placeholder)), null(1));
    let mut cells = CellBuf::new();
    let root = envelopes.plan().decode(&datum, &mut cells).unwrap();
    let envelope = envelopes.envelope(root, &cells).unwrap();
    let (mut out, mut unavailable) = (Vec::new(), Unavailable::default());
    write_envelope(&envelope, &JsonOptions::default(), &mut out, &mut unavailable).unwrap();
    assert_eq!(unavailable, Unavailable { before: vec![], after: vec!["note"] });
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(json["after"].get("note").is_none());
    assert_eq!(json["before"]["note"], "before");
    assert_eq!(json["after"]["amount"], "5.50");
    assert_eq!(json["source"]["snapshot"], serde_json::Value::Null);
    assert_eq!(json["op"], "u");
    let order = ["\"before\":", "\"after\":", "\"source\":", "\"transaction\":", "\"op\":"];
    let text = String::from_utf8(out).unwrap();
    let places: Vec<_> = order.iter().map(|key| text.find(key).unwrap()).collect();
    assert!(places.is_sorted());
    let found: Vec<_> = Placeholder::default().unavailable(envelope.after().unwrap()).collect();
    assert_eq!(found, [4]);
}

/// Each shape by itself, with a placeholder of its own; and the same value in a column that
/// cannot be toasted, which is a user's.
#[test]
fn nine_shapes() {
    let text = "-gone-";
    let bytes = text.as_bytes();
    let array = |items: &str| format!(r#"{{"type":"array","items":["null",{items}]}}"#);
    let item = |value: Avro| some(1, value);
    let numbers = |long: bool| {
        let number = |byte: &u8| {
            let byte = i64::from(*byte as i8);
            item(if long { Avro::Long(byte) } else { Avro::Int(byte as i32) })
        };
        Avro::Array(bytes.iter().map(number).collect())
    };
    let json_text = r#"{"-gone-":"-gone-"}"#;
    let string = |source: &str| {
        format!(
            r#"{{"type":"string","connect.parameters":{{"__debezium.source.column.type":"{source}"}}}}"#
        )
    };
    let cases = [
        (string("TEXT"), Avro::from(text)),
        (r#""bytes""#.to_owned(), Avro::Bytes(bytes.to_vec())),
        (array(r#""string""#), Avro::Array(vec![item(text.into())])),
        (array(r#""bytes""#), Avro::Array(vec![item(Avro::Bytes(bytes.to_vec()))])),
        (array(r#""int""#), numbers(false)),
        (array(r#""long""#), numbers(true)),
        (
            r#"{"type":"map","values":["null","string"]}"#.to_owned(),
            Avro::Map([(text.to_owned(), item(text.into()))].into()),
        ),
        (string("HSTORE"), json_text.into()),
        (
            array(r#"{"type":"string","connect.name":"io.debezium.data.Uuid"}"#),
            Avro::Array(vec![item("4255b46e-0a57-3586-bada-1cd443327093".into())]),
        ),
        (string("BYTEA"), "LWdvbmUt".into()),
        (string("bytea"), "2d676f6e652d".into()),
    ];
    for (schema, value) in cases {
        assert!(stands_in(text, &schema, value.clone()), "{schema}");
        assert!(!stands_in("-other-", &schema, value), "{schema}");
    }
    let users = [
        (string("TEXT"), Avro::from(json_text)),
        (string("TEXT"), "LWdvbmUt".into()),
        (string("UUID"), text.into()),
        (r#"{"type":"string","connect.name":"io.debezium.data.Enum"}"#.to_owned(), text.into()),
        (array(r#""string""#), Avro::Array(vec![item(text.into()), item(text.into())])),
        (array(r#""string""#), Avro::Array(vec![])),
        (array(r#""string""#), Avro::Array(vec![null(0)])),
    ];
    for (schema, value) in users {
        assert!(!stands_in(text, &schema, value), "{schema}");
    }
    assert!(!stands_in("", r#""string""#, "".into()), "an empty placeholder means none");
}

fn stands_in(placeholder: &str, column: &str, value: Avro) -> bool {
    let schema = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":["null",{column}]}}]}}"#
    );
    let value = record(vec![("a", some(1, value))]);
    let datum = encode(&schema, value);
    let plan = plan(&schema);
    let mut cells = CellBuf::new();
    let root = plan.decode(&datum, &mut cells).unwrap();
    let row = plan.row(root, &cells).unwrap();
    Placeholder::new(placeholder).stands_in(&row.columns()[0], &row.get(0).unwrap())
}

#[test]
fn an_envelope_without_its_source_block_is_known_by_name() {
    let schema = |name: &str| {
        format!(
            r#"{{"type":"record","name":"{name}","fields":[{{"name":"op","type":"string"}},
                {{"name":"after","type":["null",{{"type":"record","name":"Value","fields":[]}}]}}]}}"#
        )
    };
    let envelopes = ValueSchema::of(plan(&schema("shop.Envelope")));
    let datum =
        encode(&schema("shop.Envelope"), record(vec![("op", "d".into()), ("after", null(0))]));
    let envelopes = envelopes.envelope().unwrap();
    let mut cells = CellBuf::new();
    let root = envelopes.plan().decode(&datum, &mut cells).unwrap();
    let envelope = envelopes.envelope(root, &cells).unwrap();
    assert_eq!((envelope.op(), envelope.source_ts_ms()), (Op::Delete, None));
    assert_eq!((envelope.snapshot(), envelope.table()), (Snapshot::No, None));
    assert!(ValueSchema::of(plan(&schema("shop.Order"))).envelope().is_none());
}

#[test]
fn other_records_are_told_apart() {
    let of = |name: &str, fields: &[&str]| {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| format!(r#"{{"name":"{field}","type":["null","string"]}}"#))
            .collect();
        let schema =
            format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","));
        ValueSchema::of(plan(&schema))
    };
    let common = "io.debezium.connector.common";
    assert!(matches!(of(&format!("{common}.Heartbeat"), &["ts_ms"]), ValueSchema::Heartbeat));
    assert!(matches!(of(&format!("{common}.Notification"), &["id"]), ValueSchema::Notification));
    let transaction = of(&format!("{common}.TransactionMetadataValue"), &["status", "id"]);
    assert!(matches!(transaction, ValueSchema::Transaction));
    let by_shape = of("x.Y", &["status", "id", "event_count", "data_collections", "ts_ms"]);
    assert!(matches!(by_shape, ValueSchema::Transaction));
    let ddl = of("io.debezium.connector.mysql.SchemaChangeValue", &["source", "ddl"]);
    assert!(matches!(ddl, ValueSchema::SchemaChange));
    assert!(matches!(of("x.Y", &["ddl", "tableChanges"]), ValueSchema::SchemaChange));
    let message = of("io.debezium.connector.postgresql.MessageValue", &["op", "message"]);
    assert!(matches!(message, ValueSchema::LogicalMessage));
    // A table of the user's may be called Heartbeat, and a flattened row is no envelope.
    assert!(matches!(of("shop.Heartbeat", &["id"]), ValueSchema::Other));
    assert!(matches!(of("shop.Value", &["id", "op", "source"]), ValueSchema::Other));
    assert!(matches!(ValueSchema::of(plan(r#""string""#)), ValueSchema::Other));
}
