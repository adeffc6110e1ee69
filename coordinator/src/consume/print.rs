//! One record as a line for a person, or as one JSON object.

use std::fmt::Write as _;

use cdc_shared::config::PipelineConfig;
use cdc_shared::registry::Registry;
use rdkafka::Message;
use rdkafka::message::OwnedMessage;
use serde_json::{Value, json};

use super::decode::decode;
use crate::cli::{Exit, Failure};

/// A record, decoded.
pub(super) struct Event {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    pub(super) key: Value,
    value: Value,
    /// What happened to the row, for a person.
    what: &'static str,
    unavailable: Vec<String>,
    /// Why the record could not be decoded.
    error: Option<String>,
}

/// Decodes and prints.
pub(super) struct Printer {
    registry: Registry,
    json: bool,
}

impl Printer {
    pub(super) fn new(config: &PipelineConfig, json: bool) -> Result<Self, Failure> {
        let registry = Registry::new(&config.kafka)
            .map_err(|e| Failure::new(Exit::Config, format!("kafka.schema_registry.tls: {e}")))?;
        Ok(Self { registry, json })
    }

    /// A record that cannot be decoded is an event as well, with the reason; only a registry that
    /// does not answer ends the command.
    pub(super) async fn event(&self, record: &OwnedMessage) -> Result<Event, Failure> {
        let mut event = Event {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            timestamp: record.timestamp().to_millis(),
            key: Value::Null,
            value: Value::Null,
            what: "tombstone",
            unavailable: Vec::new(),
            error: None,
        };
        if let Some(bytes) = record.key() {
            match decode(&self.registry, bytes).await? {
                Ok(decoded) => event.key = decoded.json,
                Err(reason) => event.error = Some(format!("key: {reason}")),
            }
        }
        if let Some(bytes) = record.payload() {
            match decode(&self.registry, bytes).await? {
                Ok(decoded) => {
                    event.value = decoded.json;
                    event.what = decoded.what;
                    event.unavailable = decoded.unavailable;
                }
                Err(reason) => {
                    event.what = "unreadable";
                    event.error = Some(format!("value: {reason}"));
                }
            }
        }
        Ok(event)
    }

    pub(super) fn line(&self, event: &Event) -> String {
        if self.json { event.json().to_string() } else { event.text() }
    }
}

impl Event {
    fn json(&self) -> Value {
        let mut metadata = json!({
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp,
        });
        if !self.unavailable.is_empty() {
            metadata["unavailable"] = json!(self.unavailable);
        }
        if let Some(error) = &self.error {
            metadata["error"] = json!(error);
        }
        json!({ "key": self.key, "value": self.value, "metadata": metadata })
    }

    fn text(&self) -> String {
        let place = format!("{}[{}]@{}", self.topic, self.partition, self.offset);
        let mut line = format!("{place} {} {}", self.what, self.key);
        if let Some(error) = &self.error {
            let _ = write!(line, " ({error})");
            return line;
        }
        for image in ["before", "after"] {
            match self.value.get(image) {
                None | Some(Value::Null) => {}
                Some(row) => {
                    let _ = write!(line, "\n  {image} {row}");
                }
            }
        }
        if self.value.get("op").is_none() && !self.value.is_null() {
            let _ = write!(line, "\n  {}", self.value);
        }
        if !self.unavailable.is_empty() {
            let _ = write!(line, "\n  not sent: {}", self.unavailable.join(", "));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value: Value, what: &'static str) -> Event {
        Event {
            topic: "cdc.public.a".into(),
            partition: 1,
            offset: 42,
            timestamp: Some(5),
            key: json!({ "id": 7 }),
            value,
            what,
            unavailable: vec![],
            error: None,
        }
    }

    #[test]
    fn an_event_reads_as_place_key_and_rows() {
        let update = event(json!({ "op": "u", "before": null, "after": { "id": 7 } }), "update");
        assert_eq!(update.text(), "cdc.public.a[1]@42 update {\"id\":7}\n  after {\"id\":7}");
        assert_eq!(
            event(Value::Null, "tombstone").text(),
            "cdc.public.a[1]@42 tombstone {\"id\":7}"
        );
        assert_eq!(update.json()["metadata"]["offset"], 42);
    }

    #[test]
    fn an_unreadable_record_says_why_and_no_more() {
        let mut broken = event(Value::Null, "unreadable");
        broken.error = Some("value: bad magic".into());
        assert_eq!(broken.text(), "cdc.public.a[1]@42 unreadable {\"id\":7} (value: bad magic)");
        assert_eq!(broken.json()["metadata"]["error"], "value: bad magic");
    }
}
