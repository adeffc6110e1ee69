//! One record as a sink sees it: decoded once, borrowed from the message.

use cdc_shared::avro::Value;
use cdc_shared::envelope::{Envelope, Op};
use cdc_shared::json::{self, JsonError, JsonOptions, Unavailable};

use crate::sink::Rejection;

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

impl Operation {
    /// The operation of an envelope; `None` for a logical message, which is no change of a row.
    pub fn of(op: Op) -> Option<Self> {
        Some(match op {
            Op::Create => Self::Create,
            Op::Update => Self::Update,
            Op::Delete => Self::Delete,
            Op::Read => Self::Read,
            Op::Truncate => Self::Truncate,
            Op::Message => return None,
        })
    }
}

/// Which half of a change of the primary key a record is: Debezium sends a delete and a create,
/// linked by headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyChange {
    /// The delete of the old key; the row goes on under another.
    From,
    /// The create of the new key; values that did not change may be missing.
    To,
}

impl KeyChange {
    /// By a header's name.
    pub fn of_header(name: &str) -> Option<Self> {
        match name {
            "__debezium.newkey" => Some(Self::From),
            "__debezium.oldkey" => Some(Self::To),
            _ => None,
        }
    }
}

/// One change, between its decoding and its encoding for the sink.
#[derive(Debug)]
pub struct Change<'a> {
    /// Kafka offset.
    pub offset: i64,
    /// Kafka timestamp, Unix ms.
    pub timestamp_ms: i64,
    /// The key's bytes as they came: equal bytes are the same row.
    pub key_bytes: Option<&'a [u8]>,
    /// What happened.
    pub operation: Operation,
    /// Set on the two halves of a change of the primary key.
    pub key_change: Option<KeyChange>,
    /// The decoded key.
    pub key: Option<Value<'a, 'a>>,
    /// The decoded value; `None` for a tombstone.
    pub envelope: Option<Envelope<'a, 'a>>,
    /// How the sink wants its JSON.
    pub json: &'a JsonOptions,
}

impl Change<'_> {
    /// Appends the decoded key as JSON text; `null` when the record has no key.
    ///
    /// # Errors
    /// When a value has no JSON form. `out` is then as it was.
    pub fn write_key_json(&self, out: &mut Vec<u8>) -> Result<(), Rejection> {
        let Some(key) = self.key else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        json::write_value(key, self.json, out).map_err(rejected)
    }

    /// Appends the decoded value (the Debezium envelope) as JSON text, `null` for a tombstone, and
    /// puts the names of columns whose value the source did not send (TOAST placeholders) into
    /// `unavailable`, which is cleared first.
    ///
    /// # Errors
    /// When a value has no JSON form. `out` is then as it was.
    pub fn write_value_json(
        &self,
        out: &mut Vec<u8>,
        unavailable: &mut Vec<String>,
    ) -> Result<(), Rejection> {
        unavailable.clear();
        let Some(envelope) = &self.envelope else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        let mut missing = Unavailable::default();
        json::write_envelope(envelope, self.json, out, &mut missing).map_err(rejected)?;
        for name in missing.before.into_iter().chain(missing.after) {
            if !unavailable.iter().any(|known| known == name) {
                unavailable.push(name.to_owned());
            }
        }
        Ok(())
    }
}

fn rejected(error: JsonError) -> Rejection {
    Rejection::new("no_json_form", error.to_string())
}
