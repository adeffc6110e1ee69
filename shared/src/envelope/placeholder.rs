//! The placeholder for values that `PostgreSQL` stored out of line and did not send.
//!
//! Shapes: Debezium's `UnchangedToastedPlaceholder`. A column is only compared where its type
//! can be toasted at all ([`ToastShape`](crate::avro::ToastShape)), so that text of a user is
//! not taken for it by accident.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::md5::md5;
use crate::avro::{Column, Row, ToastShape, Value};
use crate::hex;

/// Debezium's `unavailable.value.placeholder`, in every shape that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    bytes: Vec<u8>,
    text: String,
    /// Java's `UUID.nameUUIDFromBytes`, for `uuid[]`.
    uuid: String,
    /// hstore as JSON text.
    hstore: String,
    /// bytea where `binary.handling.mode` is not `bytes`: base64, the same URL-safe, hex.
    encoded: [String; 3],
}

impl Default for Placeholder {
    /// Debezium's default, `__debezium_unavailable_value`.
    fn default() -> Self {
        Self::new("__debezium_unavailable_value")
    }
}

impl Placeholder {
    /// As the connector's property has it: text, or bytes as `hex:…`.
    pub fn new(property: &str) -> Self {
        let bytes = property.strip_prefix("hex:").and_then(unhex);
        let bytes = bytes.unwrap_or_else(|| property.as_bytes().to_vec());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::Value::from(text.as_str());
        Self {
            uuid: name_uuid(&bytes),
            hstore: format!("{{{json}:{json}}}"),
            encoded: [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes), hex::encode(&bytes)],
            text,
            bytes,
        }
    }

    /// Whether the value stands for one that did not change and was not sent.
    pub fn stands_in(&self, column: &Column, value: &Value<'_, '_>) -> bool {
        match column.toast {
            // An empty placeholder would take every empty text for one.
            _ if self.bytes.is_empty() => false,
            ToastShape::Never => false,
            ToastShape::Text => value.as_str().is_some_and(|text| self.is_text(text, column)),
            ToastShape::Bytes => value.as_bytes() == Some(&self.bytes),
            ToastShape::TextArray => one_item(value, |item| {
                item.as_str().is_some_and(|text| text == self.text || text == self.uuid)
            }),
            ToastShape::BytesArray => one_item(value, |item| item.as_bytes() == Some(&self.bytes)),
            ToastShape::NumberArray => value.items().is_some_and(|items| {
                // Java's bytes are signed.
                items.len() == self.bytes.len()
                    && items
                        .zip(&self.bytes)
                        .all(|(item, byte)| item.as_i64() == Some(i64::from(*byte as i8)))
            }),
            ToastShape::TextMap => value.entries().is_some_and(|mut entries| {
                entries.len() == 1
                    && entries
                        .all(|(key, value)| key == self.text && value.as_str() == Some(&self.text))
            }),
        }
    }

    /// Positions of the columns of a row that were not sent.
    pub fn unavailable<'a>(&'a self, row: Row<'a, '_>) -> impl Iterator<Item = usize> {
        row.iter()
            .enumerate()
            .filter(|(_, (column, value))| self.stands_in(column, value))
            .map(|(position, _)| position)
    }

    fn is_text(&self, text: &str, column: &Column) -> bool {
        let source = |name: &str| {
            column
                .source
                .type_name
                .as_deref()
                .is_none_or(|source| source.eq_ignore_ascii_case(name))
        };
        // The encoded forms are looked at only in a column that is known to be binary.
        let binary = column.source.type_name.is_some() && source("BYTEA");
        text == self.text
            || (source("HSTORE") && text == self.hstore)
            || (binary && self.encoded.iter().any(|encoded| text == encoded))
    }
}

fn one_item(value: &Value<'_, '_>, is: impl Fn(Value<'_, '_>) -> bool) -> bool {
    value.items().is_some_and(|mut items| items.len() == 1 && items.all(is))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

fn name_uuid(bytes: &[u8]) -> String {
    let mut digest = md5(bytes);
    digest[6] = digest[6] & 0x0f | 0x30;
    digest[8] = digest[8] & 0x3f | 0x80;
    let hex = hex::encode(&digest);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_uuid_is_javas() {
        // Version 3, IETF variant, over the same digest as RFC 1321's "abc".
        assert_eq!(name_uuid(b"abc"), "90015098-3cd2-3fb0-9696-3f7d28e17f72");
    }

    #[test]
    fn hex_prefix_gives_bytes() {
        assert_eq!(
            Placeholder::new("hex:00ff"),
            Placeholder { bytes: vec![0, 255], ..Placeholder::new("hex:00ff") }
        );
        assert_eq!(Placeholder::new("hex:0g").bytes, b"hex:0g");
    }
}
