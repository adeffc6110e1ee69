//! Decoded values as JSON text, written straight from the cells.
//!
//! How each type looks is one table, `docs/json-types.md`; every row of it is a test here. The
//! webhook's `value` and the events table's `event_value` share it.

pub mod temporal;
mod text;

#[cfg(test)]
mod table_tests;

use crate::avro::decimal::{DecimalTooLong, write_decimal};
use crate::avro::{Cell, Column, Kind, Row, Semantic, Value};
use crate::envelope::{Envelope, Placeholder};
use text::{push_base64, push_int, push_str};

/// How 64-bit integers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Int64 {
    /// As a number. A reader that keeps numbers as doubles loses digits beyond 2^53.
    #[default]
    Number,
    /// As a string.
    String,
}

/// How dates, times, timestamps and durations that the connector sends as numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temporal {
    /// As the connector sends them.
    #[default]
    AsSent,
    /// As ISO 8601 text, see [`temporal`].
    Iso8601,
}

/// The choices that the table leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonOptions {
    /// 64-bit integers.
    pub int64: Int64,
    /// Temporal values.
    pub temporal: Temporal,
    /// Columns of `before` and `after` that hold it are left out and named to the caller;
    /// `None` writes them like any value.
    pub unavailable_placeholder: Option<Placeholder>,
}

impl Default for JsonOptions {
    /// Numbers, as sent, Debezium's default placeholder.
    fn default() -> Self {
        Self {
            int64: Int64::Number,
            temporal: Temporal::AsSent,
            unavailable_placeholder: Some(Placeholder::default()),
        }
    }
}

/// Columns that were left out because their values were not sent, by image of the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unavailable<'a> {
    /// Columns of `before`.
    pub before: Vec<&'a str>,
    /// Columns of `after`.
    pub after: Vec<&'a str>,
}

impl Unavailable<'_> {
    /// Whether every value was sent.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

/// Longest text of one value, in bytes. The largest datum that is decoded stays below it unless it
/// is made to grow: thousands of decimals with a scale of minus thousands in a few bytes each.
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// Why a decoded value has no JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// A decimal beyond anything that a source holds.
    #[error(transparent)]
    Decimal(#[from] DecimalTooLong),
    /// A text out of all proportion to the datum.
    #[error("JSON text of more than {0} bytes")]
    TooLong(usize),
}

/// Appends the envelope as it was decoded, less the columns that were not sent; their names
/// are added to `unavailable`.
///
/// # Errors
/// When a value has no JSON form. `out` is then as it was.
pub fn write_envelope<'a>(
    envelope: &Envelope<'a, '_>,
    options: &JsonOptions,
    out: &mut Vec<u8>,
    unavailable: &mut Unavailable<'a>,
) -> Result<(), JsonError> {
    let (before, after) = envelope.images();
    whole(out, |out| {
        let writer = Writer::new(options, out, MAX_BYTES);
        let record = envelope.record();
        out.push(b'{');
        for (position, (column, value)) in record.iter().enumerate() {
            out.extend_from_slice(key(column, position == 0));
            match value.record() {
                Some(row) if before == Some(position) => {
                    writer.image(row, out, &mut unavailable.before)?;
                }
                Some(row) if after == Some(position) => {
                    writer.image(row, out, &mut unavailable.after)?;
                }
                _ => writer.value(value, out)?,
            }
        }
        out.push(b'}');
        Ok(())
    })
}

/// Appends a row, such as a key, as an object with all its columns.
///
/// # Errors
/// When a value has no JSON form. `out` is then as it was.
pub fn write_row(
    row: Row<'_, '_>,
    options: &JsonOptions,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    whole(out, |out| Writer::new(options, out, MAX_BYTES).row(row, out))
}

/// Appends any value.
///
/// # Errors
/// When a value has no JSON form. `out` is then as it was.
pub fn write_value(
    value: Value<'_, '_>,
    options: &JsonOptions,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    whole(out, |out| Writer::new(options, out, MAX_BYTES).value(value, out))
}

/// The text before a column's value, with the comma behind the value before it.
#[inline]
fn key(column: &Column, is_first: bool) -> &[u8] {
    &column.json_key[usize::from(is_first)..]
}

/// Half a value is never left behind.
fn whole(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let before = out.len();
    let written = write(out);
    if written.is_err() {
        out.truncate(before);
    }
    written
}

struct Writer<'o> {
    options: &'o JsonOptions,
    /// The text may take that many bytes.
    most: usize,
    /// Length of the buffer that it must not pass.
    end: usize,
}

impl<'o> Writer<'o> {
    fn new(options: &'o JsonOptions, out: &[u8], most: usize) -> Self {
        Self { options, most, end: out.len().saturating_add(most) }
    }

    fn fits(&self, out: &[u8]) -> Result<(), JsonError> {
        if out.len() > self.end { Err(JsonError::TooLong(self.most)) } else { Ok(()) }
    }

    fn row(&self, row: Row<'_, '_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        out.push(b'{');
        for (position, (column, value)) in row.iter().enumerate() {
            out.extend_from_slice(key(column, position == 0));
            self.value(value, out)?;
        }
        out.push(b'}');
        self.fits(out)
    }

    fn image<'a>(
        &self,
        row: Row<'a, '_>,
        out: &mut Vec<u8>,
        left_out: &mut Vec<&'a str>,
    ) -> Result<(), JsonError> {
        let Some(placeholder) = &self.options.unavailable_placeholder else {
            return self.row(row, out);
        };
        out.push(b'{');
        let mut first = true;
        for (column, value) in row.iter() {
            if placeholder.stands_in(column, &value) {
                left_out.push(&column.name);
                continue;
            }
            out.extend_from_slice(key(column, std::mem::take(&mut first)));
            self.value(value, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn value(&self, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        match value.cell() {
            // A union never holds another: the view has resolved it.
            Cell::Null | Cell::Union { .. } => out.extend_from_slice(b"null"),
            Cell::Bool(true) => out.extend_from_slice(b"true"),
            Cell::Bool(false) => out.extend_from_slice(b"false"),
            Cell::Int(number) => self.integer(number.into(), false, value.semantic(), out),
            Cell::Long(number) => self.integer(number, true, value.semantic(), out),
            Cell::Float(number) => text::push_f32(number, out),
            Cell::Double(number) => text::push_f64(number, out),
            Cell::Bytes(bytes) => self.bytes(bytes, value, out)?,
            Cell::Str(text) => push_str(text, out),
            Cell::Enum(_) => push_str(value.symbol().unwrap_or(""), out),
            Cell::Record { .. } => self.record(value, out)?,
            Cell::Array { .. } => self.array(value, out)?,
            Cell::Map { .. } => self.map(value, out)?,
        }
        Ok(())
    }

    fn integer(&self, number: i64, long: bool, semantic: Semantic, out: &mut Vec<u8>) {
        if self.options.temporal == Temporal::Iso8601 && semantic != Semantic::Plain {
            let before = out.len();
            out.push(b'"');
            if temporal::write_iso(number, semantic, out) {
                out.push(b'"');
                return;
            }
            out.truncate(before);
        }
        if long && self.options.int64 == Int64::String {
            out.push(b'"');
            push_int(number, out);
            out.push(b'"');
        } else {
            push_int(number, out);
        }
    }

    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn bytes(
        &self,
        bytes: &[u8],
        value: Value<'_, '_>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        match (value.semantic(), value.kind()) {
            (Semantic::Decimal { scale, .. }, _) => quoted_decimal(bytes, scale, out)?,
            (Semantic::Uuid, Kind::Fixed(16)) => text::push_uuid(bytes, out),
            _ => push_base64(bytes, out),
        }
        Ok(())
    }

    fn record(&self, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some(row) = value.record() else { return Ok(()) };
        if value.semantic() == Semantic::VariableScaleDecimal
            && let [Cell::Int(scale), Cell::Bytes(unscaled)] = row.cells()
        {
            return quoted_decimal(unscaled, *scale, out);
        }
        self.row(row, out)
    }

    fn array(&self, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        out.push(b'[');
        for (position, item) in value.items().into_iter().flatten().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            self.value(item, out)?;
            self.fits(out)?;
        }
        out.push(b']');
        Ok(())
    }

    fn map(&self, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        out.push(b'{');
        for (position, (key, item)) in value.entries().into_iter().flatten().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            push_str(key, out);
            out.push(b':');
            self.value(item, out)?;
            self.fits(out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

fn quoted_decimal(unscaled: &[u8], scale: i32, out: &mut Vec<u8>) -> Result<(), JsonError> {
    out.push(b'"');
    write_decimal(unscaled, scale, out)?;
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{CellBuf, Plan};

    #[test]
    fn a_text_out_of_proportion_is_refused_before_it_takes_the_memory() {
        let schema = r#"{"type":"array","items":{"type":"record","name":"VariableScaleDecimal",
            "namespace":"io.debezium.data","connect.name":"io.debezium.data.VariableScaleDecimal",
            "fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}}"#;
        let plan = Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap();
        // Five items of scale -100 and value 1, then the end.
        let item = [0xc7, 0x01, 2, 1];
        let datum = [&[10][..], &item.repeat(5), &[0]].concat();
        let mut cells = CellBuf::new();
        let root = plan.decode(&datum, &mut cells).unwrap();
        let (value, options) = (plan.view(root, &cells), JsonOptions::default());
        let write = |most| {
            let mut out = b"before".to_vec();
            let written = Writer::new(&options, &out, most).value(value, &mut out);
            (written, out.len())
        };
        assert_eq!(write(5 * 103 + 6), (Ok(()), 6 + 5 * 103 + 6));
        let (refused, length) = write(250);
        assert_eq!(refused, Err(JsonError::TooLong(250)));
        assert!(length < 400, "{length}");
    }
}
