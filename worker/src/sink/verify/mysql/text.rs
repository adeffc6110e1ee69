//! A value of MySQL or MariaDB as PostgreSQL would write it. Pure.

use std::fmt::Write as _;

use cdc_shared::hex;
use cdc_shared::pg_text::{float4, float8};
use mysql_async::Value;

use super::json;

/// How the values of a column are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sink) enum Form {
    /// As they are.
    Plain,
    /// A number with so many digits behind the point, or as many as it has.
    Number(Option<usize>),
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `boolean`.
    Bool,
    /// `bit(n)`.
    Bits(usize),
    /// `bytea`.
    Bytes,
    /// `date`.
    Date(Zero),
    /// `timestamp`, or `timestamptz` in UTC.
    Timestamp {
        /// With the zone.
        zoned: bool,
        /// What became of zero dates.
        zero: Zero,
    },
    /// `interval`.
    Interval,
    /// `jsonb`, each number without zeros at its end.
    Json,
    /// EWKB, as `bytea` or as `PostGIS` writes it.
    Geometry {
        /// As `PostGIS` writes it.
        postgis: bool,
    },
    /// `inet`, with so many bits.
    Inet(u8),
}

/// What the connector makes of a date that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sink) enum Zero {
    /// NULL, where the column takes it.
    Null,
    /// 1970-01-01.
    Epoch,
    /// It stays: in a key.
    Stays,
}

/// A value that is not of the form its column has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Strange;

impl Form {
    /// The text; `None` for NULL.
    pub(in crate::sink) fn text(self, value: &Value) -> Result<Option<String>, Strange> {
        match (self, value) {
            (_, Value::NULL) => Ok(None),
            (Self::Date(zero), Value::Date(year, month, day, ..)) => {
                Ok(date((*year, *month, *day), zero))
            }
            (Self::Timestamp { zoned, zero }, Value::Date(..)) => Ok(timestamp(value, zoned, zero)),
            _ => self.present(value).map(Some),
        }
    }

    fn present(self, value: &Value) -> Result<String, Strange> {
        Ok(match (self, value) {
            (Self::Number(scale), _) => number(&written(value)?, scale),
            (Self::Plain, _) => written(value)?,
            (Self::Float4, Value::Float(number)) => float4(*number),
            (Self::Float8, Value::Float(number)) => float8(f64::from(*number)),
            (Self::Float8, Value::Double(number)) => float8(*number),
            (Self::Bool, Value::Bytes(bytes)) => bytes.iter().any(|byte| *byte != 0).to_string(),
            (Self::Bool, Value::Int(number)) => (*number != 0).to_string(),
            (Self::Bits(length), Value::Bytes(bytes)) => bits(bytes, length),
            (Self::Bytes, Value::Bytes(bytes)) => format!("\\x{}", hex::encode(bytes)),
            (Self::Interval, Value::Time(..)) => interval(value),
            (Self::Json, Value::Bytes(bytes)) => {
                json::normal(std::str::from_utf8(bytes).map_err(|_| Strange)?).ok_or(Strange)?
            }
            (Self::Geometry { postgis }, Value::Bytes(bytes)) => {
                let ewkb = hex::encode(&ewkb(bytes).ok_or(Strange)?);
                if postgis { ewkb.to_uppercase() } else { format!("\\x{ewkb}") }
            }
            (Self::Inet(bits), _) => format!("{}/{bits}", written(value)?),
            _ => return Err(Strange),
        })
    }
}

/// Texts and integers as they are.
fn written(value: &Value) -> Result<String, Strange> {
    match value {
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).map_err(|_| Strange),
        Value::Int(number) => Ok(number.to_string()),
        Value::UInt(number) => Ok(number.to_string()),
        _ => Err(Strange),
    }
}

/// The number without the zeros that `ZEROFILL` puts before it, filled up behind its point.
fn number(text: &str, scale: Option<usize>) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let is_zero = whole.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    let mut number = String::from(if is_zero { "" } else { sign });
    number.push_str(if whole.is_empty() { "0" } else { whole });
    let width = scale.map_or(fraction.len(), |scale| scale.max(fraction.len()));
    if width > 0 {
        let _ = write!(number, ".{fraction:0<width$}");
    }
    number
}

fn bits(bytes: &[u8], length: usize) -> String {
    let all = bytes.iter().fold(String::with_capacity(8 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:08b}");
        text
    });
    all[all.len().saturating_sub(length)..].to_owned()
}

fn date((year, month, day): (u16, u8, u8), zero: Zero) -> Option<String> {
    if (year == 0 || month == 0 || day == 0) && zero != Zero::Stays {
        return (zero == Zero::Epoch).then(|| "1970-01-01".to_owned());
    }
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

fn timestamp(value: &Value, zoned: bool, zero: Zero) -> Option<String> {
    let Value::Date(year, month, day, hour, minute, second, micros) = *value else { return None };
    let is_zero = (year == 0 || month == 0 || day == 0) && zero != Zero::Stays;
    let mut text = date((year, month, day), zero)?;
    if is_zero {
        text.push_str(" 00:00:00");
    } else {
        let _ = write!(text, " {hour:02}:{minute:02}:{second:02}{}", fraction(micros));
    }
    if zoned {
        text.push_str("+00");
    }
    Some(text)
}

fn interval(value: &Value) -> String {
    let Value::Time(negative, days, hours, minutes, seconds, micros) = *value else {
        return String::new();
    };
    let hours = 24 * u64::from(days) + u64::from(hours);
    let sign = if negative { "-" } else { "" };
    format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(micros))
}

/// Microseconds, without the zeros at their end.
fn fraction(micros: u32) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

/// Extended well-known binary from a struct's text that ends in well-known binary and an SRID.
#[cfg(feature = "iceberg")]
pub(in crate::sink) fn geometry(text: &str) -> Option<String> {
    let (before, srid) = text.strip_suffix(')')?.rsplit_once(',')?;
    let (_, wkb) = before.rsplit_once("\\x")?;
    let srid: u32 = if srid.is_empty() { 0 } else { srid.parse().ok()? };
    let stored = [srid.to_le_bytes().as_slice(), &hex::decode(wkb)?].concat();
    Some(format!("\\x{}", hex::encode(&ewkb(&stored)?)))
}

/// From the form of storage, an SRID and well-known binary, to extended well-known binary.
fn ewkb(stored: &[u8]) -> Option<Vec<u8>> {
    let (srid, wkb) = stored.split_first_chunk::<4>()?;
    if *srid == [0; 4] {
        return Some(wkb.to_vec());
    }
    let (order, rest) = wkb.split_first()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    // Stored with the least significant byte first; the mark that an SRID follows is in the last.
    let [first, second, third, last] = *kind;
    Some([&[*order, first, second, third, last | 0x20], srid.as_slice(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    fn is(form: Form, value: &Value, text: &str) {
        assert_eq!(form.text(value), Ok(Some(text.to_owned())), "{form:?} {value:?}");
    }

    #[test]
    fn numbers_have_the_digits_of_the_mirror() {
        is(Form::Number(Some(2)), &bytes("12.50"), "12.50");
        is(Form::Number(Some(4)), &bytes("-12.50"), "-12.5000");
        is(Form::Number(Some(2)), &Value::Int(7), "7.00");
        is(Form::Number(None), &bytes("0000012.5"), "12.5");
        is(Form::Number(None), &bytes("-0.00"), "0.00");
        is(Form::Number(None), &Value::UInt(u64::MAX), "18446744073709551615");
        is(Form::Number(Some(0)), &bytes("000"), "0");
    }

    #[test]
    fn floats_are_written_as_postgresql_does() {
        let double = |number: f64, text| is(Form::Float8, &Value::Double(number), text);
        double(0.1, "0.1");
        double(0.0, "0");
        double(-0.0, "-0");
        double(1e14, "100000000000000");
        double(1e15, "1e+15");
        double(123_456.5, "123456.5");
        double(0.0001, "0.0001");
        double(0.000_012, "1.2e-05");
        double(f64::MAX, "1.7976931348623157e+308");
        double(5e-324, "5e-324");
        let single = |number: f32, text| is(Form::Float4, &Value::Float(number), text);
        single(0.1, "0.1");
        single(1_000_000.0, "1e+06");
        single(123_456.7, "123456.7");
        single(-3.4e38, "-3.4e+38");
        is(Form::Float8, &Value::Float(0.1), "0.10000000149011612");
    }

    #[test]
    fn times_are_written_as_postgresql_does() {
        let at = Value::Date(2024, 2, 29, 13, 5, 9, 120_000);
        let form = |zoned| Form::Timestamp { zoned, zero: Zero::Null };
        is(form(false), &at, "2024-02-29 13:05:09.12");
        is(form(true), &at, "2024-02-29 13:05:09.12+00");
        is(Form::Date(Zero::Null), &at, "2024-02-29");
        let nothing = Value::Date(0, 0, 0, 0, 0, 0, 0);
        assert_eq!(form(true).text(&nothing), Ok(None));
        is(Form::Date(Zero::Epoch), &nothing, "1970-01-01");
        is(Form::Timestamp { zoned: true, zero: Zero::Epoch }, &nothing, "1970-01-01 00:00:00+00");
        is(Form::Date(Zero::Stays), &nothing, "0000-00-00");
        is(Form::Interval, &Value::Time(false, 34, 22, 59, 59, 0), "838:59:59");
        is(Form::Interval, &Value::Time(true, 0, 0, 0, 0, 1), "-00:00:00.000001");
    }

    #[test]
    fn bytes_bits_and_places() {
        is(Form::Bits(12), &Value::Bytes(vec![0x0a, 0x01]), "101000000001");
        is(Form::Bool, &Value::Bytes(vec![1]), "true");
        is(Form::Bytes, &Value::Bytes(vec![0, 255]), "\\x00ff");
        is(Form::Inet(32), &bytes("10.0.0.1"), "10.0.0.1/32");
        let point = [&[0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0], [0; 16].as_slice()].concat();
        let zeros = "0".repeat(32);
        let wanted = format!("0101000020e6100000{zeros}");
        let form = |postgis| Form::Geometry { postgis };
        is(form(false), &Value::Bytes(point.clone()), &format!("\\x{wanted}"));
        is(form(true), &Value::Bytes(point.clone()), &wanted.to_uppercase());
        let plain = [&[0, 0, 0, 0], &point[4..]].concat();
        is(form(false), &Value::Bytes(plain), &format!("\\x0101000000{zeros}"));
        assert_eq!(form(false).text(&Value::Bytes(vec![1])), Err(Strange));
        assert_eq!(Form::Float4.text(&bytes("x")), Err(Strange));
    }
}
