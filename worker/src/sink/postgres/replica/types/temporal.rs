//! Dates, times, timestamps and intervals: from the connector's numbers to PostgreSQL's own, and as
//! text. `iso.rs` has what comes as text.
//!
//! PostgreSQL counts from 2000-01-01, Debezium from 1970-01-01. Both use the proleptic Gregorian
//! calendar.

use cdc_shared::iso::civil_from_days;

use super::fault::Fault;

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;

/// PostgreSQL's ends, in its own count: 4714-11-24 BC, and beyond 5874897-12-31 and 294276-12-31.
const FIRST_DAY: i64 = -2_451_545;
const LAST_DAY: i64 = 2_145_031_948;
const FIRST_MICRO: i64 = -211_813_488_000_000_000;
const END_MICROS: i64 = 9_223_371_331_200_000_000;

/// `PGStatement.DATE_POSITIVE_INFINITY` and its negative, the JDBC driver's infinities.
pub(super) const MOST: i64 = 9_223_372_036_825_200_000;
pub(super) const LEAST: i64 = -9_223_372_036_832_400_000;

/// A time unit of the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// Digits behind the second.
    pub(super) fn digits(self) -> u8 {
        match self {
            Self::Millis => 3,
            Self::Micros => 6,
            Self::Nanos => 9,
        }
    }
}

/// Microseconds, exactly.
pub(super) fn micros(number: i64, unit: Unit) -> Result<i64, Fault> {
    match unit {
        Unit::Micros => Ok(number),
        Unit::Millis => number.checked_mul(1000).ok_or(Fault::OUT_OF_RANGE),
        Unit::Nanos if number % 1000 == 0 => Ok(number / 1000),
        Unit::Nanos => Err(Fault::FINER_THAN_MICROS),
    }
}

/// Day number of PostgreSQL. Infinite dates come as its own largest and smallest number moved
/// to 1970 beyond the range of an int, and in a snapshot and in arrays as what JDBC makes of them;
/// all four are days that PostgreSQL's dates cannot reach.
pub(super) fn date(days: i64) -> Result<i32, Fault> {
    match days {
        -2_147_472_692 | -622_191_234 => Ok(i32::MAX),
        -2_147_472_691 | -625_821_272 => Ok(i32::MIN),
        days => {
            let day = days.checked_sub(EPOCH_DAYS).ok_or(Fault::OUT_OF_RANGE)?;
            if (FIRST_DAY..=LAST_DAY).contains(&day) {
                i32::try_from(day).map_err(|_| Fault::OUT_OF_RANGE)
            } else {
                Err(Fault::OUT_OF_RANGE)
            }
        }
    }
}

/// Microseconds of PostgreSQL, with or without zone alike. The infinities are those of the JDBC
/// driver; nanoseconds do not reach them and stop at the ends of a long.
pub(super) fn timestamp(number: i64, unit: Unit) -> Result<i64, Fault> {
    let (most, least) = match unit {
        Unit::Millis => (MOST / 1000, LEAST / 1000),
        Unit::Micros => (MOST, LEAST),
        Unit::Nanos => (i64::MAX, i64::MIN),
    };
    if number == most {
        return Ok(i64::MAX);
    }
    if number == least {
        return Ok(i64::MIN);
    }
    in_range(i128::from(micros(number, unit)?) - i128::from(EPOCH_MICROS))
}

pub(super) fn in_range(micros: i128) -> Result<i64, Fault> {
    if (i128::from(FIRST_MICRO)..i128::from(END_MICROS)).contains(&micros) {
        i64::try_from(micros).map_err(|_| Fault::OUT_OF_RANGE)
    } else {
        Err(Fault::OUT_OF_RANGE)
    }
}

/// Microseconds since midnight, 24:00:00 included.
pub(super) fn time(number: i64, unit: Unit) -> Result<i64, Fault> {
    let micros = micros(number, unit)?;
    if (0..=DAY_MICROS).contains(&micros) { Ok(micros) } else { Err(Fault::OUT_OF_RANGE) }
}

/// An interval as PostgreSQL keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interval {
    pub(super) micros: i64,
    pub(super) days: i32,
    pub(super) months: i32,
}

const INFINITY: &[u8] = b"infinity";
const MINUS_INFINITY: &[u8] = b"-infinity";

/// A date of PostgreSQL's count as text that it reads.
pub(super) fn write_date(day: i32, out: &mut Vec<u8>) {
    match day {
        i32::MAX => out.extend_from_slice(INFINITY),
        i32::MIN => out.extend_from_slice(MINUS_INFINITY),
        day => {
            let bc = calendar(i64::from(day) + EPOCH_DAYS, out);
            out.extend_from_slice(bc);
        }
    }
}

/// A timestamp of PostgreSQL's count as text that it reads; an instant with `+00`.
pub(super) fn write_timestamp(micros: i64, zoned: bool, out: &mut Vec<u8>) {
    match micros {
        i64::MAX => out.extend_from_slice(INFINITY),
        i64::MIN => out.extend_from_slice(MINUS_INFINITY),
        micros => {
            let bc = calendar(micros.div_euclid(DAY_MICROS) + EPOCH_DAYS, out);
            out.push(b' ');
            write_clock(micros.rem_euclid(DAY_MICROS).unsigned_abs(), out);
            out.extend_from_slice(if zoned { b"+00" } else { b"" });
            out.extend_from_slice(bc);
        }
    }
}

/// A time of day with its zone, in seconds west.
pub(super) fn write_timetz(micros: i64, west: i32, out: &mut Vec<u8>) {
    write_clock(micros.unsigned_abs(), out);
    out.push(if west > 0 { b'-' } else { b'+' });
    let seconds = west.unsigned_abs();
    push_number(u64::from(seconds / 3600), 2, out);
    for part in [seconds / 60 % 60, seconds % 60] {
        out.push(b':');
        push_number(u64::from(part), 2, out);
    }
}

/// Microseconds since midnight as a clock shows them.
pub(super) fn write_clock(micros: u64, out: &mut Vec<u8>) {
    let seconds = micros / 1_000_000;
    push_number(seconds / 3600, 2, out);
    for part in [seconds / 60 % 60, seconds % 60] {
        out.push(b':');
        push_number(part, 2, out);
    }
    if !micros.is_multiple_of(1_000_000) {
        out.push(b'.');
        push_number(micros % 1_000_000, 6, out);
    }
}

/// An interval in PostgreSQL's own words, a sign on each part.
pub(super) fn write_interval(interval: Interval, out: &mut Vec<u8>) {
    let Interval { micros, days, months } = interval;
    out.extend_from_slice(format!("{months} mons {days} days ").as_bytes());
    if micros < 0 {
        out.push(b'-');
    }
    write_clock(micros.unsigned_abs(), out);
}

/// Writes the date and gives what goes behind everything: ` BC` or nothing.
fn calendar(days: i64, out: &mut Vec<u8>) -> &'static [u8] {
    let (year, month, day) = civil_from_days(days);
    let (year, bc): (i64, &[u8]) = if year > 0 { (year, b"") } else { (1 - year, b" BC") };
    push_number(year.unsigned_abs(), 4, out);
    for part in [month, day] {
        out.push(b'-');
        push_number(part.unsigned_abs(), 2, out);
    }
    bc
}

fn push_number(number: u64, least: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = number;
    while rest > 0 || out.len() - start < least {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use cdc_shared::iso::days_from_civil;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn infinities_and_the_ends_of_the_range() {
        assert_eq!(date(-2_147_472_692), Ok(i32::MAX));
        assert_eq!(date(-622_191_234), Ok(i32::MAX));
        assert_eq!(date(-2_147_472_691), Ok(i32::MIN));
        assert_eq!(date(-625_821_272), Ok(i32::MIN));
        assert_eq!(date(FIRST_DAY + EPOCH_DAYS - 1), Err(Fault::OUT_OF_RANGE));
        assert_eq!(date(LAST_DAY + EPOCH_DAYS + 1), Err(Fault::OUT_OF_RANGE));
        assert_eq!(timestamp(MOST, Unit::Micros), Ok(i64::MAX));
        assert_eq!(timestamp(LEAST / 1000, Unit::Millis), Ok(i64::MIN));
        assert_eq!(timestamp(i64::MAX, Unit::Nanos), Ok(i64::MAX));
        assert_eq!(timestamp(i64::MIN + 1, Unit::Micros), Err(Fault::OUT_OF_RANGE));
        assert_eq!(time(86_400_000, Unit::Millis), Ok(DAY_MICROS));
        assert_eq!(time(-1, Unit::Micros), Err(Fault::OUT_OF_RANGE));
        assert_eq!(micros(1, Unit::Nanos), Err(Fault::FINER_THAN_MICROS));
    }

    #[test]
    fn texts_are_as_postgresql_writes_them() {
        let ides = days_from_civil(-43, 3, 15) - EPOCH_DAYS;
        assert_eq!(text(|out| write_date(ides as i32, out)), "0044-03-15 BC");
        let noon = ides * DAY_MICROS + DAY_MICROS / 2 + 500_000;
        assert_eq!(
            text(|out| write_timestamp(noon, true, out)),
            "0044-03-15 12:00:00.500000+00 BC"
        );
        assert_eq!(text(|out| write_timestamp(i64::MIN, false, out)), "-infinity");
        assert_eq!(text(|out| write_timetz(47_109_000_000, -7200, out)), "13:05:09+02:00:00");
        let interval = Interval { micros: -14_706_000_001, days: 3, months: -14 };
        assert_eq!(text(|out| write_interval(interval, out)), "-14 mons 3 days -04:05:06.000001");
    }

    proptest! {
        #[test]
        fn days_and_dates_are_one_to_one(days in FIRST_DAY..=LAST_DAY) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
