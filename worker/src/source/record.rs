//! A record as it lies in a partition's queue: owned, because the client's buffer is given back at
//! once.

use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Headers, Message};

/// A header's name and value.
pub type Header = (String, Vec<u8>);

/// One Kafka record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Kafka offset.
    pub offset: i64,
    /// Kafka timestamp, Unix ms; 0 when the record has none.
    pub timestamp_ms: i64,
    bytes: Box<[u8]>,
    key_len: Option<u32>,
    has_value: bool,
    headers: Option<Arc<[Header]>>,
}

impl Record {
    /// Copies key and value into one allocation.
    pub fn new(offset: i64, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let key_bytes = key.unwrap_or_default();
        let value_bytes = value.unwrap_or_default();
        let mut bytes = Vec::with_capacity(key_bytes.len() + value_bytes.len());
        bytes.extend_from_slice(key_bytes);
        bytes.extend_from_slice(value_bytes);
        Self {
            offset,
            timestamp_ms,
            bytes: bytes.into_boxed_slice(),
            key_len: key.map(|key| key.len() as u32),
            has_value: value.is_some(),
            headers: None,
        }
    }

    /// With headers; empty ones are not kept.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<Header>) -> Self {
        self.headers = (!headers.is_empty()).then(|| headers.into());
        self
    }

    /// The same record at another offset.
    #[must_use]
    pub fn at(mut self, offset: i64) -> Self {
        self.offset = offset;
        self
    }

    /// Key bytes.
    pub fn key(&self) -> Option<&[u8]> {
        self.key_len.map(|len| &self.bytes[..len as usize])
    }

    /// Value bytes; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.has_value.then(|| &self.bytes[self.key_len.unwrap_or(0) as usize..])
    }

    /// Headers in their order.
    pub fn headers(&self) -> &[Header] {
        self.headers.as_deref().unwrap_or_default()
    }

    /// What this record counts in the byte budget.
    pub fn weight(&self) -> usize {
        let headers: usize =
            self.headers().iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        self.bytes.len() + headers + size_of::<Self>()
    }
}

/// A record of its own, of what the client holds.
pub(crate) fn copy(message: &BorrowedMessage<'_>) -> Record {
    let timestamp = message.timestamp().to_millis().unwrap_or(0);
    let record = Record::new(message.offset(), timestamp, message.key(), message.payload());
    let Some(headers) = message.headers() else { return record };
    let headers = headers
        .iter()
        // Debezium's context headers repeat what the envelope says, on every record.
        .filter(|header| !header.key.starts_with("__debezium.context."))
        .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
        .collect();
    record.with_headers(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_value_come_back_and_absent_is_not_empty() {
        let record = Record::new(7, 1, Some(b"k"), Some(b"value"));
        assert_eq!((record.key(), record.value()), (Some(&b"k"[..]), Some(&b"value"[..])));
        let tombstone = Record::new(7, 1, Some(b""), None);
        assert_eq!((tombstone.key(), tombstone.value()), (Some(&b""[..]), None));
        let keyless = Record::new(7, 1, None, Some(b""));
        assert_eq!((keyless.key(), keyless.value()), (None, Some(&b""[..])));
    }
}
