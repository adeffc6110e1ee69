//! Values: from what the connector sends to Iceberg's numbers.

use cdc_shared::iso::{IsoFault, IsoReader};

use super::choose::Unit;

/// Why a value is none of its column's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) what: &'static str,
}

const fn fault(code: &'static str, what: &'static str) -> Fault {
    Fault { code, what }
}

impl Fault {
    pub(crate) const OTHER_KIND: Self =
        fault("other_kind", "the value is of another kind than its schema says");
    pub(crate) const MALFORMED: Self =
        fault("malformed_value", "the text has not the form it should");
    pub(crate) const OUT_OF_RANGE: Self =
        fault("value_out_of_range", "the value is beyond what the type holds");
    pub(crate) const INFINITE: Self =
        fault("infinite_value", "the value is infinite, for which the type has none");
    pub(crate) const NOT_A_NUMBER: Self =
        fault("not_a_number", "the value is NaN, or infinite, or no number at all");
    pub(crate) const TOO_MANY_DIGITS: Self =
        fault("too_many_digits", "the number has more digits than its column declares");
    pub(crate) const FINER: Self =
        fault("finer_than_micros", "the value is finer than a microsecond");
    pub(crate) const TOO_LONG: Self =
        fault("value_too_long", "the batch would hold over 2 GB in it");
}

/// The JDBC driver's infinities, in µs.
const MOST: i64 = 9_223_372_036_825_200_000;
const LEAST: i64 = -9_223_372_036_832_400_000;
const DAY_MICROS: i64 = 86_400_000_000;
/// 4714-11-24 BC, before which no source has a date. The connector's numbers of dates beyond what
/// they can count wrap round to before it.
const FIRST_DAY: i64 = -2_440_588;
const FIRST_MICRO: i64 = FIRST_DAY * DAY_MICROS;

/// Microseconds, exactly.
fn micros(number: i64, unit: Unit) -> Result<i64, Fault> {
    match unit {
        Unit::Micros => Ok(number),
        Unit::Millis => number.checked_mul(1000).ok_or(Fault::OUT_OF_RANGE),
        Unit::Nanos if number % 1000 == 0 => Ok(number / 1000),
        Unit::Nanos => Err(Fault::FINER),
    }
}

/// Microseconds since 1970 of a timestamp.
pub(crate) fn instant(number: i64, unit: Unit) -> Result<i64, Fault> {
    let infinite = match unit {
        Unit::Millis => [MOST / 1000, LEAST / 1000],
        Unit::Micros => [MOST, LEAST],
        Unit::Nanos => [i64::MAX, i64::MIN],
    };
    if infinite.contains(&number) {
        return Err(Fault::INFINITE);
    }
    let micros = micros(number, unit)?;
    if micros >= FIRST_MICRO { Ok(micros) } else { Err(Fault::OUT_OF_RANGE) }
}

/// Days since 1970. PostgreSQL's infinite dates come as four days that no date of it is.
pub(crate) fn day(days: i64) -> Result<i32, Fault> {
    match days {
        -2_147_472_692 | -622_191_234 | -2_147_472_691 | -625_821_272 => Err(Fault::INFINITE),
        FIRST_DAY.. => i32::try_from(days).map_err(|_| Fault::OUT_OF_RANGE),
        _ => Err(Fault::OUT_OF_RANGE),
    }
}

/// Microseconds since midnight. 24:00:00 is none.
pub(crate) fn time_of_day(number: i64, unit: Unit) -> Result<i64, Fault> {
    let micros = micros(number, unit)?;
    if (0..DAY_MICROS).contains(&micros) { Ok(micros) } else { Err(Fault::OUT_OF_RANGE) }
}

/// `10^exponent`, as far as it has 38 digits.
fn pow10(exponent: u32) -> Option<i128> {
    (exponent <= 38).then(|| 10_i128.pow(exponent))
}

/// Moves the point of an unscaled number.
pub(crate) fn shift(unscaled: i128, from: i32, to: u32, precision: u32) -> Result<i128, Fault> {
    let places = i64::from(to) - i64::from(from);
    let by = u32::try_from(places.unsigned_abs()).map_err(|_| Fault::TOO_MANY_DIGITS)?;
    let moved = match (unscaled, pow10(by)) {
        (0, _) => 0,
        (number, Some(power)) if places >= 0 => {
            number.checked_mul(power).ok_or(Fault::TOO_MANY_DIGITS)?
        }
        (number, Some(power)) if number % power == 0 => number / power,
        _ => return Err(Fault::TOO_MANY_DIGITS),
    };
    match pow10(precision) {
        Some(limit) if moved.unsigned_abs() < limit.unsigned_abs() => Ok(moved),
        _ => Err(Fault::TOO_MANY_DIGITS),
    }
}

/// The unscaled number of a decimal's text, as Debezium, Java or PostgreSQL write it.
pub(crate) fn decimal(text: &str, scale: u32, precision: u32) -> Result<i128, Fault> {
    let (negative, rest) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    };
    let mut unscaled = 0_i128;
    let (mut behind, mut digits, mut seen_point) = (0_i32, 0_u32, false);
    let mut bytes = rest.iter().enumerate();
    let mut exponent = 0_i32;
    for (at, byte) in bytes.by_ref() {
        match byte {
            b'0'..=b'9' => {
                let grown = unscaled.checked_mul(10);
                let grown = grown.and_then(|n| n.checked_add(i128::from(byte - b'0')));
                unscaled = grown.ok_or(Fault::TOO_MANY_DIGITS)?;
                digits += 1;
                behind += i32::from(seen_point);
            }
            b'.' if !seen_point => seen_point = true,
            b'e' | b'E' if digits > 0 => {
                let rest = rest.get(at + 1..).unwrap_or_default();
                let rest = std::str::from_utf8(rest).map_err(|_| Fault::NOT_A_NUMBER)?;
                exponent = rest.parse().map_err(|_| Fault::NOT_A_NUMBER)?;
                break;
            }
            _ => return Err(Fault::NOT_A_NUMBER),
        }
    }
    if digits == 0 {
        return Err(Fault::NOT_A_NUMBER);
    }
    let unscaled = if negative { -unscaled } else { unscaled };
    shift(unscaled, behind.saturating_sub(exponent), scale, precision)
}

/// A UUID's bytes from its usual text.
pub(crate) fn uuid(text: &str) -> Result<[u8; 16], Fault> {
    uuid::Uuid::try_parse(text).map(uuid::Uuid::into_bytes).map_err(|_| Fault::MALFORMED)
}

/// `2024-02-29`, with `Z` or an offset behind it, which say nothing for a date.
pub(crate) fn iso_day(text: &str) -> Result<i32, Fault> {
    let mut reader = finite(text)?;
    let days = reader.date()?;
    reader.offset()?;
    reader.end()?;
    day(days)
}

/// `13:05:09.5`, with `Z` behind it.
pub(crate) fn iso_time(text: &str) -> Result<i64, Fault> {
    let mut reader = finite(text)?;
    let micros = clock(&mut reader)?;
    reader.offset()?;
    reader.end()?;
    time_of_day(micros, Unit::Micros)
}

/// `2024-02-29T13:05:09.5`; with a zone it is the instant.
pub(crate) fn iso_stamp(text: &str, zoned: bool) -> Result<i64, Fault> {
    let mut reader = finite(text)?;
    let days = reader.date()?;
    if !reader.take(b'T') && !reader.take(b' ') {
        return Err(Fault::MALFORMED);
    }
    let clock = clock(&mut reader)?;
    let offset = reader.offset()?;
    reader.end()?;
    let offset = if zoned { offset.ok_or(Fault::MALFORMED)? } else { 0 };
    let micros = i128::from(days) * i128::from(DAY_MICROS) + i128::from(clock)
        - i128::from(offset) * 1_000_000;
    // The driver's infinities are milliseconds with a zone, and microseconds without.
    let unit = if zoned { 1000 } else { 1 };
    if [MOST, LEAST].iter().any(|end| micros == i128::from(*end) * unit) {
        return Err(Fault::INFINITE);
    }
    match i64::try_from(micros) {
        Ok(micros @ FIRST_MICRO..) => Ok(micros),
        _ => Err(Fault::OUT_OF_RANGE),
    }
}

/// A reader of a text that is no infinity.
fn finite(text: &str) -> Result<IsoReader<'_>, Fault> {
    match text {
        "infinity" | "-infinity" => Err(Fault::INFINITE),
        text => Ok(IsoReader::new(text)),
    }
}

/// A time of a day, whose last hour may be called 24.
fn clock(reader: &mut IsoReader<'_>) -> Result<i64, Fault> {
    match reader.clock()? {
        micros if micros < DAY_MICROS + DAY_MICROS / 24 => Ok(micros),
        _ => Err(Fault::MALFORMED),
    }
}

impl From<IsoFault> for Fault {
    fn from(fault: IsoFault) -> Self {
        match fault {
            IsoFault::Malformed => Self::MALFORMED,
            IsoFault::OutOfRange => Self::OUT_OF_RANGE,
            IsoFault::FinerThanMicros => Self::FINER,
        }
    }
}
