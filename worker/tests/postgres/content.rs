//! What is stored of a change: JSON of its key and of its envelope.

use std::sync::Arc;

use cdc_shared::avro::{CellBuf, Plan};
use cdc_shared::envelope::ValueSchema;
use cdc_worker::sink::{Rejection, Sink};

use super::*;

const KEY: &str = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}"#;

const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","namespace":"cdc.public.customers",
    "fields":[
    {"name":"before","default":null,"type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"long"},{"name":"name","type":"string"},
        {"name":"balance","type":"string"}]}]},
    {"name":"after","default":null,"type":["null","Value"]},
    {"name":"source","type":{"type":"record","name":"Source","fields":[
        {"name":"table","type":"string"}]}},
    {"name":"op","type":"string"}]}"#;

/// Avro's variable-length integer.
fn long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn text(text: &str, out: &mut Vec<u8>) {
    long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Pushes a row that was created, with or without a key.
fn push_row(
    writer: &mut dyn PartitionWriter,
    offset: i64,
    with_key: bool,
    name: &str,
) -> Result<(), Rejection> {
    let none: &[(&str, &str)] = &[];
    let key_plan = Plan::compile(1, KEY, none).unwrap();
    let schema = ValueSchema::of(Arc::new(Plan::compile(2, ENVELOPE, none).unwrap()));
    let envelope_plan = schema.envelope().unwrap();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    long(i64::MAX, &mut key);
    long(0, &mut value);
    long(1, &mut value);
    long(i64::MAX, &mut value);
    text(name, &mut value);
    text("12345678901234567890.10", &mut value);
    text("customers", &mut value);
    text("c", &mut value);
    let (mut key_cells, mut value_cells) = (CellBuf::default(), CellBuf::default());
    let key_root = key_plan.decode(&key, &mut key_cells).unwrap();
    let root = envelope_plan.plan().decode(&value, &mut value_cells).unwrap();
    writer.push(&Change {
        offset,
        timestamp_ms: 0,
        key_bytes: with_key.then_some(&key),
        key_change: None,
        operation: Operation::Create,
        key: with_key.then(|| key_plan.view(key_root, &key_cells)),
        envelope: Some(envelope_plan.envelope(root, &value_cells).unwrap()),
        json: json(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn key_and_envelope_are_stored_with_every_digit() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    push_row(&mut *writer, 0, true, "Ann \"q\" \\ ü 🦀\n").unwrap();
    push_row(&mut *writer, 1, false, "").unwrap();
    writer.flush(position(2));
    assert_eq!(durable(&within("an answer", writer.progress()).await), 2);
    let sql = "SELECT event_key, event_value->>'op', event_value#>>'{after,id}', \
        event_value#>>'{after,name}', event_value#>>'{after,balance}', \
        event_value->'before' = 'null' FROM cdc_events ORDER BY source_offset";
    let rows = admin.query(sql, &[]).await.unwrap();
    let texts = |row: usize| -> Vec<Option<&str>> { (0..5).map(|i| rows[row].get(i)).collect() };
    let (id, balance) = (Some("9223372036854775807"), Some("12345678901234567890.10"));
    let key = Some(r#"{"id":9223372036854775807}"#);
    assert_eq!(texts(0), [key, Some("c"), id, Some("Ann \"q\" \\ ü 🦀\n"), balance]);
    assert_eq!(texts(1), [None, Some("c"), id, Some(""), balance]);
    assert!(rows[0].get::<_, bool>(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_character_is_rejected_by_jsonb_and_kept_by_text() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let rejection = push_row(&mut *writer, 0, true, "a\0b").unwrap_err();
    assert_eq!(rejection.code, "nul_character");
    // The writer is as it was, and the records around it go on.
    push_row(&mut *writer, 1, true, r"a\u0000b").unwrap();
    writer.flush(position(2));
    assert_eq!(durable(&within("an answer", writer.progress()).await), 2);
    assert_eq!(offsets(&admin, "cdc_events").await, [1]);

    for kind in ["text", "json"] {
        let retype = format!(
            "ALTER TABLE cdc_events ALTER event_value TYPE {kind} USING event_value::{kind}"
        );
        admin.batch_execute(&retype).await.unwrap();
        sink.prove().await.unwrap();
        let from = sink.read_position(&partition()).await.unwrap().unwrap();
        writer.reset(from.clone());
        push_row(&mut *writer, from.next.get(), true, "a\0b").unwrap();
        writer.flush(position(from.next.get() + 1));
        durable(&within("an answer", writer.progress()).await);
    }
    assert_eq!(offsets(&admin, "cdc_events").await, [1, 2, 3]);
}
