//! One event as an HTTP request.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cdc_shared::offset::{TopicId, TopicPartition};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::config::WebhookOptions;
use crate::change::Change;
use crate::sink::Rejection;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What the events of one partition share.
#[derive(Debug)]
pub(super) struct EventForm {
    topic_id: TopicId,
    partition: i32,
    /// Since which incarnation its events have new ids; 0: never.
    generation: u64,
    /// From the comma behind the value up to the offset.
    metadata: Vec<u8>,
    unavailable: Vec<String>,
    /// Length of the last body, to get the next one's room at once.
    room: usize,
}

impl EventForm {
    pub(super) fn new(tp: &TopicPartition, topic_id: TopicId) -> Self {
        let mut metadata = br#","metadata":{"topic":"#.to_vec();
        write_string(&mut metadata, &tp.topic);
        let _ = write!(metadata, r#","partition":{},"offset":"#, tp.partition);
        let partition = tp.partition;
        let unavailable = Vec::new();
        Self { topic_id, partition, generation: 0, metadata, unavailable, room: 256 }
    }

    /// The partition goes on in another topic of the same name.
    pub(super) fn set_topic_id(&mut self, topic_id: TopicId) {
        self.topic_id = topic_id;
    }

    /// Events have the ids of this generation from here on.
    pub(super) fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// The body: `{"key":…,"value":…,"metadata":{"topic":…,"partition":…,"offset":…}}`, with
    /// `unavailable` in the metadata when columns were left out.
    ///
    /// # Errors
    /// When a value has no JSON form.
    pub(super) fn body(&mut self, change: &Change<'_>) -> Result<Bytes, Rejection> {
        let mut body = Vec::with_capacity(self.room);
        body.extend_from_slice(br#"{"key":"#);
        change.write_key_json(&mut body)?;
        body.extend_from_slice(br#","value":"#);
        change.write_value_json(&mut body, &mut self.unavailable)?;
        body.extend_from_slice(&self.metadata);
        let _ = write!(body, "{}", change.offset);
        for (index, column) in self.unavailable.iter().enumerate() {
            let before: &[u8] = if index == 0 { br#","unavailable":["# } else { b"," };
            body.extend_from_slice(before);
            write_string(&mut body, column);
        }
        if !self.unavailable.is_empty() {
            body.push(b']');
        }
        body.extend_from_slice(b"}}");
        self.room = body.len() + body.len() / 8;
        Ok(Bytes::from(body))
    }

    /// The event's id: the same over attempts, restarts and pipelines, until an operator asks for new
    /// ones. A hash, since the id is
    /// signed with a dot behind it and topic names have dots.
    pub(super) fn id(&self, offset: i64) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut hash = Sha256::new();
        hash.update(self.topic_id.0.as_bytes());
        hash.update([0]);
        hash.update(self.partition.to_be_bytes());
        hash.update(offset.to_be_bytes());
        if self.generation > 0 {
            hash.update(self.generation.to_be_bytes());
        }
        let mut id = String::with_capacity(36);
        id.push_str("evt_");
        for byte in &hash.finalize()[..16] {
            id.push(char::from(HEX[usize::from(byte >> 4)]));
            id.push(char::from(HEX[usize::from(byte & 15)]));
        }
        id
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// One attempt: the timestamp and with it the signature are its own.
pub(super) fn request(options: &WebhookOptions, id: &str, body: Bytes) -> Request<Full<Bytes>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = now.as_secs().to_string();
    let mut headers = options.headers.clone();
    let signature = options.signer.sign(id, &timestamp, &body);
    for (name, value) in [
        (WEBHOOK_ID, Some(id.to_owned())),
        (WEBHOOK_TIMESTAMP, Some(timestamp)),
        (WEBHOOK_SIGNATURE, signature),
    ] {
        // Letters, digits and punctuation of ours: always a legal value.
        if let Some(Ok(value)) =
            value.map(|value| HeaderValue::from_maybe_shared(Bytes::from(value)))
        {
            headers.insert(name, value);
        }
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = options.method.clone();
    *request.uri_mut() = options.uri.clone();
    *request.headers_mut() = headers;
    request
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use cdc_shared::avro::{CellBuf, Plan};
    use cdc_shared::config::{Secret, WebhookConfig};
    use cdc_shared::envelope::ValueSchema;
    use cdc_shared::json::JsonOptions;

    use super::*;
    use crate::change::Operation;

    fn form() -> EventForm {
        EventForm::new(&TopicPartition::new("cdc.public.\"x\"", 3), TopicId("dG9waWM".into()))
    }

    static JSON: LazyLock<JsonOptions> = LazyLock::new(JsonOptions::default);

    fn change(offset: i64) -> Change<'static> {
        Change {
            json: &JSON,
            offset,
            timestamp_ms: 0,
            key_bytes: None,
            key_change: None,
            operation: Operation::Create,
            key: None,
            envelope: None,
        }
    }

    const KEY: &str = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"int"}]}"#;
    const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","fields":[
        {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
            {"name":"id","type":"int"},{"name":"note","type":"string"}]}]},
        {"name":"after","type":["null","Value"]},
        {"name":"source","type":{"type":"record","name":"Source","fields":[]}},
        {"name":"op","type":"string"}]}"#;

    /// The body of an update whose `note` is this.
    fn body_with(note: &str) -> String {
        let compiled = |json| Arc::new(Plan::compile(1, json, &[] as &[(&str, &str)]).unwrap());
        let (key_plan, value_plan) = (compiled(KEY), ValueSchema::of(compiled(ENVELOPE)));
        // Avro: zigzag numbers, texts after their length, the branch before a union's value.
        let mut datum = vec![0, 2, 14, 2 * note.len() as u8];
        datum.extend_from_slice(note.as_bytes());
        datum.extend_from_slice(&[2, b'u']);
        let (mut key_cells, mut value_cells) = (CellBuf::default(), CellBuf::default());
        let key = key_plan.decode(&[14], &mut key_cells).unwrap();
        let plan = value_plan.envelope().unwrap();
        let root = plan.plan().decode(&datum, &mut value_cells).unwrap();
        let change = Change {
            key: Some(key_plan.view(key, &key_cells)),
            envelope: Some(plan.envelope(root, &value_cells).unwrap()),
            ..change(41)
        };
        let body = form().body(&change).unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn a_body_holds_key_envelope_and_place() {
        assert_eq!(
            body_with("x\"y"),
            r#"{"key":{"id":7},"value":{"before":null,"after":{"id":7,"note":"x\"y"},"source":{},"op":"u"},"metadata":{"topic":"cdc.public.\"x\"","partition":3,"offset":41}}"#
        );
    }

    #[test]
    fn a_column_that_was_not_sent_is_left_out_and_named() {
        assert_eq!(
            body_with("__debezium_unavailable_value"),
            r#"{"key":{"id":7},"value":{"before":null,"after":{"id":7},"source":{},"op":"u"},"metadata":{"topic":"cdc.public.\"x\"","partition":3,"offset":41,"unavailable":["note"]}}"#
        );
    }

    #[test]
    fn without_key_and_value_both_are_null() {
        let body = form().body(&change(41)).unwrap();
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"key":null,"value":null,"metadata":{"topic":"cdc.public.\"x\"","partition":3,"offset":41}}"#
        );
    }

    #[test]
    fn the_id_belongs_to_the_event_alone() {
        let mut form = form();
        let id = form.id(7);
        assert_eq!(id, form.id(7));
        assert_eq!(id.len(), 36);
        assert!(id.starts_with("evt_") && !id.contains('.'), "{id}");
        assert_ne!(id, form.id(8));
        let other = EventForm::new(&TopicPartition::new("t", 4), TopicId("dG9waWM".into()));
        assert_ne!(id, other.id(7));
        form.set_generation(1);
        let again = form.id(7);
        form.set_generation(2);
        assert!(id != again && again != form.id(7) && id != form.id(7));
        form.set_generation(0);
        assert_eq!(id, form.id(7));
        form.set_topic_id(TopicId("bmV3".into()));
        assert_ne!(id, form.id(7));
    }

    #[test]
    fn a_request_carries_what_the_configuration_says() {
        let mut config = WebhookConfig { url: "http://h/p?q=1".to_owned(), ..Default::default() };
        config.headers.insert("X-Source".to_owned(), Secret::from("cdc"));
        let plain = WebhookOptions::new(&config).unwrap();
        let request = super::request(&plain, "evt_1", Bytes::from_static(b"{}"));
        assert_eq!(request.uri().to_string(), "http://h/p?q=1");
        assert_eq!(request.headers()["x-source"], "cdc");
        assert_eq!(request.headers()["webhook-id"], "evt_1");
        assert!(request.headers().get("webhook-signature").is_none());
        config.signing_secrets = vec![Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let signed = WebhookOptions::new(&config).unwrap();
        let request = super::request(&signed, "evt_1", Bytes::from_static(b"{}"));
        let timestamp = request.headers()["webhook-timestamp"].to_str().unwrap();
        let expected = signed.signer.sign("evt_1", timestamp, b"{}").unwrap();
        assert_eq!(request.headers()["webhook-signature"], expected.as_str());
    }
}
