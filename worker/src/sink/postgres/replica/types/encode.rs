//! Cells as wire bytes and as text.

use std::io::Write as _;

use cdc_shared::avro::{Cell, Value};

use super::codec::{Clock, Codec, NumberForm};
use super::fault::Fault;
use super::numeric;
use super::pg_type::Digits;
use super::temporal::{self, Interval, Unit};

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
        (Codec::Numeric(form, limits), _) => return number(*form, *limits, value, out),
        (Codec::Symbol, Cell::Enum(_)) => {
            return push_text(value.symbol().ok_or(Fault::OTHER_KIND)?, out);
        }
        (Codec::Bytes | Codec::UuidBytes, Cell::Bytes(bytes)) => out.extend_from_slice(bytes),
        (Codec::Days | Codec::IsoDate, _) => out.extend_from_slice(&day(cell)?.to_be_bytes()),
        (Codec::Time(clock), _) => out.extend_from_slice(&time(*clock, cell)?.to_be_bytes()),
        (Codec::Timetz, Cell::Str(text)) => {
            let (micros, west) = temporal::parse_timetz(text)?;
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&west.to_be_bytes());
        }
        (Codec::Timestamp(clock), _) => {
            out.extend_from_slice(&stamp(*clock, false, cell)?.to_be_bytes());
        }
        (Codec::Timestamptz(clock), _) => {
            out.extend_from_slice(&stamp(*clock, true, cell)?.to_be_bytes());
        }
        (Codec::IsoInterval | Codec::Duration(_), _) => {
            let Interval { micros, days, months } = interval(codec, cell)?;
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&months.to_be_bytes());
        }
        _ => return Err(Fault::OTHER_KIND),
    }
    Ok(())
}

fn integer(cell: Cell<'_>) -> Result<i64, Fault> {
    match cell {
        Cell::Int(number) => Ok(number.into()),
        Cell::Long(number) => Ok(number),
        _ => Err(Fault::OTHER_KIND),
    }
}

/// PostgreSQL's texts end where C's do.
fn push_text(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    if text.as_bytes().contains(&0) {
        return Err(Fault::NUL_CHARACTER);
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn number(
    form: NumberForm,
    limits: Option<Digits>,
    value: Value<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    with_number(form, value, |number| numeric::write(number, limits, out))
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
        (NumberForm::Double, Cell::Double(number)) => {
            let mut text = [0; 400];
            let mut rest = text.as_mut_slice();
            write!(rest, "{number}").map_err(|_| Fault::TOO_MANY_DIGITS)?;
            let length = 400 - rest.len();
            let text = text.get(..length).unwrap_or_default();
            use_it(numeric::parse(std::str::from_utf8(text).map_err(|_| Fault::NOT_A_NUMBER)?)?)
        }
        _ => Err(Fault::OTHER_KIND),
    }
}

fn day(cell: Cell<'_>) -> Result<i32, Fault> {
    match cell {
        Cell::Str(text) => temporal::parse_date(text),
        cell => temporal::date(integer(cell)?),
    }
}

fn time(clock: Clock, cell: Cell<'_>) -> Result<i64, Fault> {
    match (clock, cell) {
        (Clock::Iso, Cell::Str(text)) => temporal::parse_time(text),
        (Clock::Number(unit), cell) => temporal::time(integer(cell)?, unit),
        _ => Err(Fault::OTHER_KIND),
    }
}

fn stamp(clock: Clock, zoned: bool, cell: Cell<'_>) -> Result<i64, Fault> {
    match (clock, cell) {
        (Clock::Iso, Cell::Str(text)) => temporal::parse_timestamp(text, zoned),
        (Clock::Number(unit), cell) => temporal::timestamp(integer(cell)?, unit),
        _ => Err(Fault::OTHER_KIND),
    }
}

fn interval(codec: &Codec, cell: Cell<'_>) -> Result<Interval, Fault> {
    match (codec, cell) {
        (Codec::IsoInterval, Cell::Str(text)) => temporal::parse_interval(text),
        (Codec::Duration(unit), cell) => {
            let micros = temporal::micros(integer(cell)?, *unit)?;
            Ok(Interval { micros, ..Interval::default() })
        }
        _ => Err(Fault::OTHER_KIND),
    }
}
