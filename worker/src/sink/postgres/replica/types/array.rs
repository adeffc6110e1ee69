//! Values with parts: arrays, hstore, vectors, as PostgreSQL reads their text.

use cdc_shared::avro::{Cell, Value};

use super::codec::Codec;
use super::encode;
use super::fault::Fault;

/// `{1,NULL,"a \"b\""}`. Each element is in quotes: no element can then be taken for NULL, and
/// the server reads quoted numbers as well.
pub(super) fn write_array(
    item: &Codec,
    value: Value<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let items = value.items().ok_or(Fault::OTHER_KIND)?;
    write_items(items.map(|item| (!item.is_null()).then_some(item)), out, |value, out| {
        encode::text(item, value, out)
    })
}

/// The same for elements of any kind.
pub(super) fn write_items<T>(
    items: impl Iterator<Item = Option<T>>,
    out: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    out.push(b'{');
    for (position, item) in items.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        match item {
            None => out.extend_from_slice(b"NULL"),
            Some(item) => quoted(out, |out| write(item, out))?,
        }
    }
    out.push(b'}');
    Ok(())
}

/// Puts quotes around what `write` appends, and a backslash before each of its own.
fn quoted(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    out.push(b'"');
    let start = out.len();
    write(out)?;
    if out.iter().skip(start).any(|byte| is_special(*byte)) {
        let inner = out.split_off(start);
        escape(&inner, out);
    }
    out.push(b'"');
    Ok(())
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if is_special(*byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

/// hstore from a map.
pub(super) fn write_hstore_of_map(value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let entries = value.entries().ok_or(Fault::OTHER_KIND)?;
    let entries = entries.map(|(key, value)| match value.cell() {
        Cell::Null => Ok((key, None)),
        Cell::Str(text) => Ok((key, Some(text))),
        _ => Err(Fault::OTHER_KIND),
    });
    for (position, entry) in entries.enumerate() {
        let (key, value) = entry?;
        write_pair(position == 0, key, value, out)?;
    }
    Ok(())
}

/// hstore from JSON text: an object of texts and nulls.
pub(super) fn write_hstore_of_json(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| Fault::MALFORMED)?;
    for (position, (key, value)) in object.iter().enumerate() {
        let value = match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.as_str()),
            _ => return Err(Fault::MALFORMED),
        };
        write_pair(position == 0, key, value, out)?;
    }
    Ok(())
}

fn write_pair(first: bool, key: &str, value: Option<&str>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if !first {
        out.push(b',');
    }
    quoted(out, |out| encode::push_text(key, out))?;
    out.extend_from_slice(b"=>");
    if let Some(text) = value {
        return quoted(out, |out| encode::push_text(text, out));
    }
    out.extend_from_slice(b"NULL");
    Ok(())
}

/// A map as a JSON object, for `jsonb`.
pub(super) fn write_json_of_map(value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    cdc_shared::json::write_value(value, &cdc_shared::json::JsonOptions::default(), out)
        .map_err(|_| Fault::TOO_MANY_DIGITS)?;
    encode::without_nul_escape(out.get(start..).unwrap_or_default())
}

/// `[1,0.5]`, as pgvector reads it.
pub(super) fn write_vector(value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.push(b'[');
    for (position, item) in value.items().ok_or(Fault::OTHER_KIND)?.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        encode::push_float(item.cell(), out)?;
    }
    out.push(b']');
    Ok(())
}

/// `{1:0.5}/3`, as pgvector reads it: from dimensions and entries of (index, number).
pub(super) fn write_sparse_vector(value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let row = value.record().ok_or(Fault::OTHER_KIND)?;
    let (Some(dimensions), Some(entries)) = (row.get(0), row.get(1)) else {
        return Err(Fault::OTHER_KIND);
    };
    out.push(b'{');
    for (position, entry) in entries.items().ok_or(Fault::OTHER_KIND)?.enumerate() {
        let entry = entry.record().ok_or(Fault::OTHER_KIND)?;
        let [index, number] = entry.cells() else { return Err(Fault::OTHER_KIND) };
        if position > 0 {
            out.push(b',');
        }
        encode::push_integer(*index, out)?;
        out.push(b':');
        encode::push_float(*number, out)?;
    }
    out.extend_from_slice(b"}/");
    encode::push_integer(dimensions.cell(), out)
}
