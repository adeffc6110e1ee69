//! Cells as wire bytes, and as text that PostgreSQL reads.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use cdc_shared::avro::{Cell, Value};
use cdc_shared::config::BinaryForm;

use super::codec::{Clock, Codec, NumberForm};
use super::fault::Fault;
use super::temporal::{self, Interval};
use super::{array, geometry, iso, numeric};
use crate::sink::postgres::batch::has_nul_escape;

/// The version that a `jsonb` begins with on the wire.
const JSONB_VERSION: u8 = 1;

/// Appends a value in its wire format.
#[inline]
pub(super) fn binary(codec: &Codec, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match (codec, value.cell()) {
        (Codec::Text, Cell::Str(text)) => return push_text(text, out),
        (Codec::Int4, Cell::Int(number)) => out.extend_from_slice(&number.to_be_bytes()),
        (Codec::Int8, Cell::Long(number)) => out.extend_from_slice(&number.to_be_bytes()),
        (Codec::Bool, Cell::Bool(bit)) => out.push(u8::from(bit)),
        (Codec::Float8, Cell::Double(number)) => out.extend_from_slice(&number.to_be_bytes()),
        (Codec::Float4, Cell::Float(number)) => out.extend_from_slice(&number.to_be_bytes()),
        (Codec::Numeric(NumberForm::Text, limits), Cell::Str(text)) => {
            return numeric::write(numeric::parse(text)?, *limits, out);
        }
        _ => return less_common(codec, value, out),
    }
    Ok(())
}

fn less_common(codec: &Codec, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let cell = value.cell();
    match (codec, cell) {
        (Codec::Int2, _) => {
            let number = i16::try_from(integer(cell)?).map_err(|_| Fault::OUT_OF_RANGE)?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        (Codec::Int4, _) => {
            let number = i32::try_from(integer(cell)?).map_err(|_| Fault::OUT_OF_RANGE)?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        (Codec::Int8, _) => out.extend_from_slice(&integer(cell)?.to_be_bytes()),
        (Codec::Float8, Cell::Float(number)) => {
            out.extend_from_slice(&f64::from(number).to_be_bytes());
        }
        (Codec::Float4, Cell::Double(number)) => {
            out.extend_from_slice(&narrow(number)?.to_be_bytes());
        }
        (Codec::Numeric(form, limits), _) => {
            return with_number(*form, value, |number| numeric::write(number, *limits, out));
        }
        (Codec::Bytes | Codec::UuidBytes, Cell::Bytes(bytes)) => out.extend_from_slice(bytes),
        (Codec::Encoded(form), Cell::Str(text)) => return decode(*form, text, out),
        (Codec::Ewkb, _) => return geometry::write_ewkb(value, out),
        (Codec::Uuid, Cell::Str(text)) => out.extend_from_slice(&uuid(text)?),
        (Codec::Json, Cell::Str(text)) => return push_text(text, out),
        (Codec::Jsonb, Cell::Str(text)) => {
            out.push(JSONB_VERSION);
            return push_jsonb(text, out);
        }
        (Codec::JsonbOfMap, _) => {
            out.push(JSONB_VERSION);
            return array::write_json_of_map(value, out);
        }
        (Codec::Point, _) => {
            let (x, y) = geometry::point(value)?;
            out.extend_from_slice(&x.to_be_bytes());
            out.extend_from_slice(&y.to_be_bytes());
        }
        _ => return time(codec, cell, out).unwrap_or_else(|| text(codec, value, out)),
    }
    Ok(())
}

/// The times among the types; `None` for any other.
fn time(codec: &Codec, cell: Cell<'_>, out: &mut Vec<u8>) -> Option<Result<(), Fault>> {
    let mut push = |number: Result<i64, Fault>| {
        number.map(|number| out.extend_from_slice(&number.to_be_bytes()))
    };
    Some(match codec {
        Codec::Time(clock) => push(time_of_day(*clock, cell)),
        Codec::Timestamp(clock) => push(stamp(*clock, false, cell)),
        Codec::Timestamptz(clock) => push(stamp(*clock, true, cell)),
        Codec::Days | Codec::IsoDate => {
            day(cell).map(|day| out.extend_from_slice(&day.to_be_bytes()))
        }
        Codec::Timetz => timetz(cell).map(|(micros, west)| {
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&west.to_be_bytes());
        }),
        Codec::IsoInterval | Codec::IsoDuration | Codec::Duration(_) => {
            interval(codec, cell).map(|interval| {
                out.extend_from_slice(&interval.micros.to_be_bytes());
                out.extend_from_slice(&interval.days.to_be_bytes());
                out.extend_from_slice(&interval.months.to_be_bytes());
            })
        }
        _ => return None,
    })
}

/// Appends a value as text: an element of an array, or what goes through a cast.
pub(super) fn text(codec: &Codec, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match (codec, value.cell()) {
        (Codec::Symbol, Cell::Enum(_)) => push_text(value.symbol().ok_or(Fault::OTHER_KIND)?, out),
        (Codec::Numeric(form, _), _) => {
            with_number(*form, value, |number| numeric::write_text(number, out))
        }
        (Codec::Array(item), Cell::Array { .. }) => array::write_array(item, value, out),
        (Codec::HstoreOfMap, Cell::Map { .. }) => array::write_hstore_of_map(value, out),
        (Codec::JsonbOfMap, Cell::Map { .. }) => array::write_json_of_map(value, out),
        (Codec::Vector, Cell::Array { .. }) => array::write_vector(value, out),
        (Codec::SparseVector, Cell::Record { .. }) => array::write_sparse_vector(value, out),
        (Codec::Point, Cell::Record { .. }) => {
            let (x, y) = geometry::point(value)?;
            push_point(x, y, out)
        }
        (Codec::Ewkb, Cell::Record { .. }) => {
            let mut ewkb = Vec::new();
            geometry::write_ewkb(value, &mut ewkb)?;
            push_bytea(&ewkb, out);
            Ok(())
        }
        (codec, cell) => scalar_text(codec, cell, out),
    }
}

/// The same for a cell without parts.
pub(super) fn scalar_text(codec: &Codec, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match (codec, cell) {
        (Codec::Text | Codec::Json | Codec::Symbol, Cell::Str(text)) => {
            return push_text(text, out);
        }
        (Codec::Jsonb, Cell::Str(text)) => return push_jsonb(text, out),
        (Codec::HstoreOfJson, Cell::Str(text)) => return array::write_hstore_of_json(text, out),
        (Codec::Bool | Codec::Bit, Cell::Bool(bit)) => out.push(b'0' + u8::from(bit)),
        (Codec::Int2 | Codec::Int4 | Codec::Int8, cell) => return push_integer(cell, out),
        (Codec::Float4 | Codec::Float8, cell) => return push_float(cell, out),
        (Codec::Bits(length), Cell::Bytes(bytes)) => return push_bits(bytes, *length, out),
        (Codec::Bytes, Cell::Bytes(bytes)) => push_bytea(bytes, out),
        (Codec::Encoded(form), Cell::Str(text)) => {
            let mut bytes = Vec::new();
            decode(*form, text, &mut bytes)?;
            push_bytea(&bytes, out);
        }
        (Codec::Uuid, Cell::Str(text)) => push_hex(&uuid(text)?, out),
        (Codec::UuidBytes, Cell::Bytes(bytes)) => push_hex(bytes, out),
        (Codec::Days | Codec::IsoDate, cell) => temporal::write_date(day(cell)?, out),
        (Codec::Time(clock), cell) => {
            temporal::write_clock(time_of_day(*clock, cell)?.unsigned_abs(), out);
        }
        (Codec::Timetz, cell) => {
            let (micros, west) = timetz(cell)?;
            temporal::write_timetz(micros, west, out);
        }
        (Codec::Timestamp(clock), cell) => {
            temporal::write_timestamp(stamp(*clock, false, cell)?, false, out);
        }
        (Codec::Timestamptz(clock), cell) => {
            temporal::write_timestamp(stamp(*clock, true, cell)?, true, out);
        }
        (Codec::IsoInterval | Codec::IsoDuration | Codec::Duration(_), cell) => {
            temporal::write_interval(interval(codec, cell)?, out);
        }
        _ => return Err(Fault::OTHER_KIND),
    }
    Ok(())
}

pub(super) fn integer(cell: Cell<'_>) -> Result<i64, Fault> {
    match cell {
        Cell::Int(number) => Ok(number.into()),
        Cell::Long(number) => Ok(number),
        _ => Err(Fault::OTHER_KIND),
    }
}

/// A float that was widened on the way.
fn narrow(number: f64) -> Result<f32, Fault> {
    let narrow = number as f32;
    let same = f64::from(narrow).to_bits() == number.to_bits() || number.is_nan();
    if same { Ok(narrow) } else { Err(Fault::TOO_MANY_DIGITS) }
}

/// Appends text. PostgreSQL's texts end where C's do.
pub(super) fn push_text(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    if text.as_bytes().contains(&0) {
        return Err(Fault::NUL_CHARACTER);
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn push_jsonb(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    without_nul_escape(text.as_bytes())?;
    push_text(text, out)
}

pub(super) fn without_nul_escape(json: &[u8]) -> Result<(), Fault> {
    if has_nul_escape(json) { Err(Fault::NUL_ESCAPE) } else { Ok(()) }
}

pub(super) fn push_integer(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let number = integer(cell)?;
    write!(out, "{number}").map_err(|_| Fault::MALFORMED)
}

/// The shortest digits that give the number back.
pub(super) fn push_float(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let written = match cell {
        Cell::Float(number) if number.is_finite() => write!(out, "{number:e}"),
        Cell::Double(number) if number.is_finite() => write!(out, "{number:e}"),
        Cell::Float(number) => {
            push_unreal(number.into(), out);
            return Ok(());
        }
        Cell::Double(number) => {
            push_unreal(number, out);
            return Ok(());
        }
        _ => return Err(Fault::OTHER_KIND),
    };
    written.map_err(|_| Fault::MALFORMED)
}

fn push_unreal(number: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match number {
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ => b"NaN",
    });
}

fn push_point(x: f64, y: f64, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.push(b'(');
    push_float(Cell::Double(x), out)?;
    out.push(b',');
    push_float(Cell::Double(y), out)?;
    out.push(b')');
    Ok(())
}

/// Bits from bytes with the least significant first, written with the most significant first.
fn push_bits(bytes: &[u8], length: u32, out: &mut Vec<u8>) -> Result<(), Fault> {
    let length = length as usize;
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    if (length..bytes.len() * 8).any(bit) {
        return Err(Fault::OUT_OF_RANGE);
    }
    out.extend((0..length).rev().map(|at| b'0' + u8::from(bit(at))));
    Ok(())
}

fn push_bytea(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    push_hex(bytes, out);
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

fn decode(form: BinaryForm, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let decoded = match form {
        BinaryForm::Base64 => STANDARD.decode_vec(text, out).is_ok(),
        BinaryForm::Base64UrlSafe => URL_SAFE.decode_vec(text, out).is_ok(),
        BinaryForm::Hex => unhex(text.as_bytes(), out).is_some(),
        BinaryForm::Bytes => false,
    };
    if decoded { Ok(()) } else { Err(Fault::MALFORMED) }
}

fn unhex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    for pair in text.chunks_exact(2) {
        let [high, low] = *pair else { return None };
        out.push(digit(high)? << 4 | digit(low)?);
    }
    Some(())
}

/// Sixteen bytes from hexadecimal digits, hyphens between them wherever.
fn uuid(text: &str) -> Result<[u8; 16], Fault> {
    let mut bytes = [0_u8; 16];
    let mut count = 0;
    for byte in text.bytes().filter(|byte| *byte != b'-') {
        let digit = char::from(byte).to_digit(16).ok_or(Fault::MALFORMED)? as u8;
        let place = bytes.get_mut(count / 2).ok_or(Fault::MALFORMED)?;
        *place = *place << 4 | digit;
        count += 1;
    }
    if count == 32 { Ok(bytes) } else { Err(Fault::MALFORMED) }
}

fn with_number<T>(
    form: NumberForm,
    value: Value<'_, '_>,
    use_it: impl FnOnce(numeric::Number<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    match (form, value.cell()) {
        (NumberForm::Text, Cell::Str(text)) => use_it(numeric::parse(text)?),
        (NumberForm::Unscaled(scale), Cell::Bytes(bytes)) => {
            numeric::with_unscaled(bytes, scale, use_it)
        }
        (NumberForm::Variable, Cell::Record { .. }) => {
            let row = value.record().ok_or(Fault::OTHER_KIND)?;
            let [Cell::Int(scale), Cell::Bytes(bytes)] = row.cells() else {
                return Err(Fault::OTHER_KIND);
            };
            numeric::with_unscaled(bytes, *scale, use_it)
        }
        (NumberForm::Integer, cell) => numeric::with_integer(integer(cell)?.into(), 0, use_it),
        (NumberForm::Unsigned, cell) => {
            numeric::with_integer(integer(cell)?.cast_unsigned().into(), 0, use_it)
        }
        (NumberForm::Double, Cell::Double(number)) => use_it(numeric::parse(&number.to_string())?),
        _ => Err(Fault::OTHER_KIND),
    }
}

fn day(cell: Cell<'_>) -> Result<i32, Fault> {
    match cell {
        Cell::Str(text) => iso::parse_date(text),
        cell => temporal::date(integer(cell)?),
    }
}

fn time_of_day(clock: Clock, cell: Cell<'_>) -> Result<i64, Fault> {
    match (clock, cell) {
        (Clock::Iso, Cell::Str(text)) => iso::parse_time(text),
        (Clock::Number(unit), cell) => temporal::time(integer(cell)?, unit),
        (Clock::Iso, _) => Err(Fault::OTHER_KIND),
    }
}

fn timetz(cell: Cell<'_>) -> Result<(i64, i32), Fault> {
    match cell {
        Cell::Str(text) => iso::parse_timetz(text),
        _ => Err(Fault::OTHER_KIND),
    }
}

fn stamp(clock: Clock, zoned: bool, cell: Cell<'_>) -> Result<i64, Fault> {
    match (clock, cell) {
        (Clock::Iso, Cell::Str(text)) => iso::parse_timestamp(text, zoned),
        (Clock::Number(unit), cell) => temporal::timestamp(integer(cell)?, unit),
        (Clock::Iso, _) => Err(Fault::OTHER_KIND),
    }
}

fn interval(codec: &Codec, cell: Cell<'_>) -> Result<Interval, Fault> {
    match (codec, cell) {
        (Codec::IsoInterval, Cell::Str(text)) => iso::parse_interval(text),
        (Codec::IsoDuration, Cell::Str(text)) => {
            Ok(Interval { micros: iso::parse_time(text)?, ..Interval::default() })
        }
        (Codec::Duration(unit), cell) => {
            let micros = temporal::micros(integer(cell)?, *unit)?;
            Ok(Interval { micros, ..Interval::default() })
        }
        _ => Err(Fault::OTHER_KIND),
    }
}
