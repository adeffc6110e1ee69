//! One cell into a column of its type.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use cdc_shared::avro::decimal::write_decimal;
use cdc_shared::avro::{Cell, Value};
use cdc_shared::config::BinaryForm;
use cdc_shared::hex;
use cdc_shared::json::temporal::write_iso;

use crate::column::{ColumnBuilder, push_bytes};
use crate::types::{
    Codec, Fault, NumberForm, Unit, day, decimal, instant, iso_day, iso_stamp, iso_time, shift,
    time_of_day, uuid,
};

/// Appends a value that is not null and has no parts.
pub(crate) fn simple(
    column: &mut ColumnBuilder,
    codec: &Codec,
    value: Value<'_, '_>,
) -> Result<(), Fault> {
    use ColumnBuilder as C;
    let cell = value.cell();
    match (column, codec) {
        (C::Bool(builder), _) => builder.append_value(value.as_bool().ok_or(Fault::OTHER_KIND)?),
        (C::Int(builder), _) => {
            let number = i32::try_from(integer(cell)?).map_err(|_| Fault::OUT_OF_RANGE)?;
            builder.append_value(number);
        }
        (C::Long(builder), _) => builder.append_value(integer(cell)?),
        (C::Float(builder), _) => match cell {
            Cell::Float(number) => builder.append_value(number),
            _ => return Err(Fault::OTHER_KIND),
        },
        (C::Double(builder), _) => {
            builder.append_value(value.as_f64().ok_or(Fault::OTHER_KIND)?);
        }
        (C::Decimal(builder, precision, scale), Codec::Decimal(form, ..)) => {
            builder.append_value(number(*form, value, *scale, *precision)?);
        }
        (C::Date(builder), _) => builder.append_value(match cell {
            Cell::Str(text) => iso_day(text)?,
            cell => day(integer(cell)?)?,
        }),
        (C::Time(builder), Codec::Time(unit)) => builder.append_value(match (unit, cell) {
            (Some(unit), cell) => time_of_day(integer(cell)?, *unit)?,
            (None, Cell::Str(text)) => iso_time(text)?,
            (None, _) => return Err(Fault::OTHER_KIND),
        }),
        (C::Timestamp(builder, zoned), Codec::Timestamp(unit, _)) => {
            builder.append_value(stamp(*unit, *zoned, cell)?);
        }
        (C::Uuid(builder), _) => append_uuid(builder, cell)?,
        (C::Bytes(builder), codec) => match (codec, cell) {
            (Codec::Bytes, Cell::Bytes(bytes)) => push_bytes!(builder, bytes),
            (Codec::Encoded(form), Cell::Str(text)) => push_bytes!(builder, decode(*form, text)?),
            _ => return Err(Fault::OTHER_KIND),
        },
        (C::Text(builder), codec) => match (codec, cell) {
            (Codec::Text, Cell::Str(text)) => push_bytes!(builder, text),
            (Codec::DecimalText(NumberForm::Text), Cell::Str(text)) => {
                push_bytes!(builder, special(text));
            }
            (Codec::Text, Cell::Enum(_)) => {
                push_bytes!(builder, value.symbol().ok_or(Fault::OTHER_KIND)?);
            }
            (codec, _) => {
                let mut text = Vec::new();
                written(codec, value, &mut text)?;
                push_bytes!(builder, std::str::from_utf8(&text).map_err(|_| Fault::MALFORMED)?);
            }
        },
        _ => return Err(Fault::OTHER_KIND),
    }
    Ok(())
}

fn append_uuid(
    builder: &mut arrow_array::builder::FixedSizeBinaryBuilder,
    cell: Cell<'_>,
) -> Result<(), Fault> {
    let appended = match cell {
        Cell::Str(text) => builder.append_value(uuid(text)?),
        Cell::Bytes(bytes) => builder.append_value(bytes),
        _ => return Err(Fault::OTHER_KIND),
    };
    appended.map_err(|_| Fault::MALFORMED)
}

fn integer(cell: Cell<'_>) -> Result<i64, Fault> {
    match cell {
        Cell::Int(number) => Ok(number.into()),
        Cell::Long(number) => Ok(number),
        _ => Err(Fault::OTHER_KIND),
    }
}

fn stamp(unit: Option<Unit>, zoned: bool, cell: Cell<'_>) -> Result<i64, Fault> {
    match (unit, cell) {
        (Some(unit), cell) => instant(integer(cell)?, unit),
        (None, Cell::Str(text)) => iso_stamp(text, zoned),
        (None, _) => Err(Fault::OTHER_KIND),
    }
}

/// The unscaled number of a decimal column.
fn number(
    form: NumberForm,
    value: Value<'_, '_>,
    scale: u32,
    precision: u32,
) -> Result<i128, Fault> {
    match (form, value.cell()) {
        (NumberForm::Text, Cell::Str(text)) => decimal(text, scale, precision),
        (NumberForm::Unscaled(from), Cell::Bytes(bytes)) => {
            shift(unscaled(bytes)?, from, scale, precision)
        }
        (NumberForm::Variable, _) => {
            let (from, bytes) = variable(value)?;
            shift(unscaled(bytes)?, from, scale, precision)
        }
        (NumberForm::Unsigned, cell) => {
            shift(i128::from(integer(cell)?.cast_unsigned()), 0, scale, precision)
        }
        (NumberForm::Integer, cell) => shift(i128::from(integer(cell)?), 0, scale, precision),
        (NumberForm::Double, Cell::Double(number)) => {
            decimal(&number.to_string(), scale, precision)
        }
        _ => Err(Fault::OTHER_KIND),
    }
}

/// PostgreSQL's words for what the connector calls otherwise.
fn special(text: &str) -> &str {
    match text {
        "NAN" => "NaN",
        "POSITIVE_INFINITY" => "Infinity",
        "NEGATIVE_INFINITY" => "-Infinity",
        number => number,
    }
}

/// Two's complement, most significant byte first; empty is 0.
fn unscaled(bytes: &[u8]) -> Result<i128, Fault> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let sign = if negative { 0xff } else { 0 };
    let (lead, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let is_sign = |byte: &u8| *byte == sign;
    let mut whole = [sign; 16];
    let Some(end) = whole.get_mut(16 - kept.len()..) else { return Err(Fault::TOO_MANY_DIGITS) };
    end.copy_from_slice(kept);
    let number = i128::from_be_bytes(whole);
    if lead.iter().all(is_sign) && (number < 0) == negative {
        Ok(number)
    } else {
        Err(Fault::TOO_MANY_DIGITS)
    }
}

/// Scale and unscaled bytes of a `VariableScaleDecimal`.
fn variable<'m>(value: Value<'_, 'm>) -> Result<(i32, &'m [u8]), Fault> {
    let row = value.record().ok_or(Fault::OTHER_KIND)?;
    let field = |name: &str| row.position(name).and_then(|at| row.get(at));
    let scale = field("scale").and_then(|scale| scale.as_i64());
    let scale = scale.and_then(|scale| i32::try_from(scale).ok());
    let bytes = field("value").and_then(|bytes| bytes.as_bytes());
    scale.zip(bytes).ok_or(Fault::OTHER_KIND)
}

/// Values that are written out as text.
fn written(codec: &Codec, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match (codec, value.cell()) {
        (Codec::DecimalText(NumberForm::Unscaled(scale)), Cell::Bytes(bytes)) => {
            write_decimal(bytes, *scale, out).map_err(|_| Fault::TOO_MANY_DIGITS)
        }
        (Codec::DecimalText(NumberForm::Variable), _) => {
            let (scale, bytes) = variable(value)?;
            write_decimal(bytes, scale, out).map_err(|_| Fault::TOO_MANY_DIGITS)
        }
        (Codec::TemporalText(semantic), cell) => {
            if write_iso(integer(cell)?, *semantic, out) {
                Ok(())
            } else {
                Err(Fault::OTHER_KIND)
            }
        }
        (Codec::Bits(length), Cell::Bytes(bytes)) => bits(bytes, *length, out),
        _ => Err(Fault::OTHER_KIND),
    }
}

/// Highest bit first. The connector leaves high bytes of zeros out.
fn bits(bytes: &[u8], length: Option<u32>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let length = length.map_or(bytes.len() * 8, |length| length as usize);
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    if (length..bytes.len() * 8).any(bit) {
        return Err(Fault::OUT_OF_RANGE);
    }
    out.extend((0..length).rev().map(|at| if bit(at) { b'1' } else { b'0' }));
    Ok(())
}

fn decode(form: BinaryForm, text: &str) -> Result<Vec<u8>, Fault> {
    match form {
        BinaryForm::Bytes => Err(Fault::OTHER_KIND),
        BinaryForm::Base64 => STANDARD.decode(text).map_err(|_| Fault::MALFORMED),
        BinaryForm::Base64UrlSafe => URL_SAFE.decode(text).map_err(|_| Fault::MALFORMED),
        BinaryForm::Hex => hex::decode(text).ok_or(Fault::MALFORMED),
    }
}
