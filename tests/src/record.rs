//! Records as Debezium and the registry's converter make them, encoded by hand, so that these
//! tests share no code with what they test.

use serde_json::{Value, json};

use crate::stack::Stack;
use crate::wait::{SOON, until};

/// The registered schemas of one topic.
#[derive(Clone, Copy, Debug)]
pub struct Schemas {
    /// Registry id of the key's schema.
    pub key: i32,
    /// Registry id of the value's schema.
    pub value: i32,
}

/// Registers a schema for a subject and gives its id.
pub async fn register(subject: &str, schema: &Value) -> i32 {
    let url = format!("{}/subjects/{subject}/versions", Stack::get().registry());
    let body = json!({"schema": schema.to_string()});
    let text = until("the schema is registered", SOON, async || {
        let answer = http().post(&url).json(&body).send().await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| e.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{url}: {status}: {text}")) }
    })
    .await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["id"].as_i64().unwrap() as i32
}

/// A client for the services around.
pub fn http() -> reqwest::Client {
    cdc_shared::tls::install_crypto();
    let tls = cdc_shared::config::TlsConfig::default();
    cdc_shared::http::client(&tls, std::time::Duration::from_secs(30)).unwrap()
}

/// The schema of [`envelope`] in a topic's namespace.
pub fn envelope_schema(namespace: &str) -> Value {
    let row = json!({"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": ["null", "string"], "default": null},
    ]});
    json!({"type": "record", "name": "Envelope", "namespace": namespace, "fields": [
        {"name": "before", "type": ["null", row], "default": null},
        {"name": "after", "type": ["null", "Value"], "default": null},
        {"name": "source", "type": {
            "type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql",
            "fields": [
                {"name": "ts_ms", "type": "long"},
                {"name": "db", "type": "string"},
                {"name": "schema", "type": "string"},
                {"name": "table", "type": "string"},
            ],
        }},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": null},
    ]})
}

/// Registers key and value schema of a topic.
pub async fn register_topic(topic: &str) -> Schemas {
    let key = json!({"type": "record", "name": "Key", "namespace": topic, "fields": [
        {"name": "id", "type": "long"},
    ]});
    Schemas {
        key: register(&format!("{topic}-key"), &key).await,
        value: register(&format!("{topic}-value"), &envelope_schema(topic)).await,
    }
}

/// Avro's variable-length integer.
pub fn long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push((zigzag as u8 & 0x7f) | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// Avro's string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// The registry's frame around a datum.
pub fn framed(schema: i32, datum: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&schema.to_be_bytes());
    out.extend_from_slice(datum);
    out
}

impl Schemas {
    /// A key.
    pub fn key(self, id: i64) -> Vec<u8> {
        let mut datum = Vec::new();
        long(&mut datum, id);
        framed(self.key, &datum)
    }

    /// An insert of a row.
    pub fn insert(self, id: i64, name: &str) -> Vec<u8> {
        self.change("c", None, Some((id, name)))
    }

    /// A change event.
    pub fn change(
        self,
        op: &str,
        before: Option<(i64, &str)>,
        after: Option<(i64, &str)>,
    ) -> Vec<u8> {
        framed(self.value, &envelope(op, before, after))
    }
}

/// The datum of a change event.
pub fn envelope(op: &str, before: Option<(i64, &str)>, after: Option<(i64, &str)>) -> Vec<u8> {
    let mut out = Vec::new();
    for row in [before, after] {
        match row {
            None => long(&mut out, 0),
            Some((id, name)) => {
                long(&mut out, 1);
                long(&mut out, id);
                long(&mut out, 1);
                string(&mut out, name);
            }
        }
    }
    long(&mut out, 1_700_000_000_000);
    for text in ["db", "public", "t", op] {
        string(&mut out, text);
    }
    long(&mut out, 1);
    long(&mut out, 1_700_000_000_001);
    out
}
