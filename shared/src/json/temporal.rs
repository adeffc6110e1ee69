//! Temporal numbers as ISO 8601 text.
//!
//! | Meaning | Text |
//! |---|---|
//! | date | `2024-02-29` |
//! | time of day | `13:05:09.5`; `MySQL`'s signed hours stay: `-12:34:49`, `838:59:59` |
//! | timestamp without zone | `2024-02-29T13:05:09.5` |
//! | instant | the same with `Z` |
//! | duration | `PT1H2M3.5S`, negative with a sign on each part: `PT-1H-2M` |
//! | year | `2024` |
//!
//! Fractions are written without trailing zeros. Years beyond 9999 have a `+`, years before 0
//! a `-` (year 0 is 1 BC), as Java and ISO 8601 write them. What the connector sends for
//! infinity is `infinity` or `-infinity`, as `PostgreSQL` reads them.

use super::text::push_digits;
use crate::avro::Semantic;
use crate::iso::civil_from_days;

const INFINITY: &[u8] = b"infinity";
const MINUS_INFINITY: &[u8] = b"-infinity";

/// Units of a second, and the digits of its fraction.
#[derive(Clone, Copy)]
struct Unit {
    per_second: i64,
    digits: usize,
}

const MILLIS: Unit = Unit { per_second: 1_000, digits: 3 };
const MICROS: Unit = Unit { per_second: 1_000_000, digits: 6 };
const NANOS: Unit = Unit { per_second: 1_000_000_000, digits: 9 };

const DAY: i64 = 86_400;

/// Appends the text, without quotes; `false` (and nothing written) if the meaning is not a
/// number's.
pub fn write_iso(number: i64, semantic: Semantic, out: &mut Vec<u8>) -> bool {
    match semantic {
        Semantic::Date => date(number, out),
        Semantic::Time => time(number, MILLIS, out),
        Semantic::MicroTime => time(number, MICROS, out),
        Semantic::NanoTime => time(number, NANOS, out),
        Semantic::Timestamp => timestamp(number, MILLIS, b"", out),
        Semantic::MicroTimestamp => timestamp(number, MICROS, b"", out),
        Semantic::NanoTimestamp => timestamp(number, NANOS, b"", out),
        Semantic::InstantMillis => timestamp(number, MILLIS, b"Z", out),
        Semantic::InstantMicros => timestamp(number, MICROS, b"Z", out),
        Semantic::InstantNanos => timestamp(number, NANOS, b"Z", out),
        Semantic::MicroDuration => duration(number, MICROS, out),
        Semantic::NanoDuration => duration(number, NANOS, out),
        Semantic::Year => year(number, out),
        _ => return false,
    }
    true
}

/// Infinite dates as Debezium sends them: `PostgreSQL`'s largest and smallest day number, moved
/// from 2000 to 1970 beyond the range of an int; and what a snapshot makes of them.
/// All four are days that `PostgreSQL`'s dates cannot reach.
fn date(days: i64, out: &mut Vec<u8>) {
    match days {
        -2_147_472_692 | -622_191_234 => out.extend_from_slice(INFINITY),
        -2_147_472_691 | -625_821_272 => out.extend_from_slice(MINUS_INFINITY),
        days => calendar(days, out),
    }
}

fn timestamp(number: i64, unit: Unit, zone: &[u8], out: &mut Vec<u8>) {
    if let Some(infinity) = infinity(number, unit) {
        out.extend_from_slice(infinity);
        return;
    }
    let seconds = number.div_euclid(unit.per_second);
    calendar(seconds.div_euclid(DAY), out);
    out.push(b'T');
    clock(seconds.rem_euclid(DAY) as u64, number.rem_euclid(unit.per_second), unit, out);
    out.extend_from_slice(zone);
}

/// The JDBC driver's infinities are µs here; ms are the same instant, ns do not reach it and
/// stop at the ends of a long.
fn infinity(number: i64, unit: Unit) -> Option<&'static [u8]> {
    const MOST: i64 = 9_223_372_036_825_200_000;
    const LEAST: i64 = -9_223_372_036_832_400_000;
    let (most, least) = match unit.digits {
        3 => (MOST / 1_000, LEAST / 1_000),
        6 => (MOST, LEAST),
        _ => (i64::MAX, i64::MIN),
    };
    if number == most {
        Some(INFINITY)
    } else if number == least {
        Some(MINUS_INFINITY)
    } else {
        None
    }
}

fn time(number: i64, unit: Unit, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    let number = number.unsigned_abs();
    let per_second = unit.per_second as u64;
    clock(number / per_second, (number % per_second) as i64, unit, out);
}

fn duration(number: i64, unit: Unit, out: &mut Vec<u8>) {
    let sign: &[u8] = if number < 0 { b"-" } else { b"" };
    let number = number.unsigned_abs();
    let per_second = unit.per_second as u64;
    let (seconds, part) = (number / per_second, number % per_second);
    out.extend_from_slice(b"PT");
    for (amount, letter) in [(seconds / 3600, b'H'), (seconds / 60 % 60, b'M')] {
        if amount > 0 {
            out.extend_from_slice(sign);
            push_digits(amount, 1, out);
            out.push(letter);
        }
    }
    if seconds % 60 > 0 || part > 0 || number == 0 {
        out.extend_from_slice(sign);
        push_digits(seconds % 60, 1, out);
        fraction(part, unit, out);
        out.push(b'S');
    }
}

fn clock(seconds: u64, part: i64, unit: Unit, out: &mut Vec<u8>) {
    push_digits(seconds / 3600, 2, out);
    out.push(b':');
    push_digits(seconds / 60 % 60, 2, out);
    out.push(b':');
    push_digits(seconds % 60, 2, out);
    fraction(part.unsigned_abs(), unit, out);
}

fn fraction(part: u64, unit: Unit, out: &mut Vec<u8>) {
    if part == 0 {
        return;
    }
    out.push(b'.');
    push_digits(part, unit.digits, out);
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

/// Days since 1970-01-01.
fn calendar(days: i64, out: &mut Vec<u8>) {
    let (of_year, month, day) = civil_from_days(days);
    year(of_year, out);
    out.push(b'-');
    push_digits(month.unsigned_abs(), 2, out);
    out.push(b'-');
    push_digits(day.unsigned_abs(), 2, out);
}

fn year(year: i64, out: &mut Vec<u8>) {
    match year {
        10_000.. => out.push(b'+'),
        ..0 => out.push(b'-'),
        _ => {}
    }
    push_digits(year.unsigned_abs(), 4, out);
}

#[cfg(test)]
mod tests {
    use jiff::civil::Date;
    use proptest::prelude::*;

    use super::*;

    fn iso(number: i64, semantic: Semantic) -> String {
        let mut out = Vec::new();
        assert!(write_iso(number, semantic, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn infinities_and_far_years() {
        assert_eq!(iso(9_223_372_036_825_200_000, Semantic::MicroTimestamp), "infinity");
        assert_eq!(iso(-9_223_372_036_832_400_000, Semantic::MicroTimestamp), "-infinity");
        assert_eq!(iso(9_223_372_036_825_200, Semantic::Timestamp), "infinity");
        assert_eq!(iso(-9_223_372_036_832_400, Semantic::Timestamp), "-infinity");
        assert_eq!(iso(i64::MAX, Semantic::NanoTimestamp), "infinity");
        assert_eq!(iso(i64::MIN, Semantic::NanoTimestamp), "-infinity");
        assert_eq!(iso(-2_147_472_692, Semantic::Date), "infinity");
        assert_eq!(iso(-622_191_234, Semantic::Date), "infinity");
        assert_eq!(iso(-2_147_472_691, Semantic::Date), "-infinity");
        assert_eq!(iso(-625_821_272, Semantic::Date), "-infinity");
        // The ends of PostgreSQL's date and of a long.
        assert_eq!(iso(2_145_042_905, Semantic::Date), "+5874897-12-31");
        assert_eq!(iso(-2_440_588, Semantic::Date), "-4713-11-24");
        assert_eq!(iso(i64::MAX, Semantic::Timestamp), "+292278994-08-17T07:12:55.807");
        assert_eq!(iso(i64::MIN, Semantic::Timestamp), "-292275055-05-16T16:47:04.192");
        assert_eq!(iso(253_402_300_800_000, Semantic::InstantMillis), "+10000-01-01T00:00:00Z");
    }

    #[test]
    fn times_and_durations() {
        assert_eq!(iso(86_400_000_000, Semantic::MicroTime), "24:00:00");
        assert_eq!(iso(-45_296_789_000, Semantic::MicroTime), "-12:34:56.789");
        assert_eq!(iso(3_020_399_000_000, Semantic::MicroTime), "838:59:59");
        assert_eq!(iso(0, Semantic::MicroDuration), "PT0S");
        assert_eq!(iso(-3_723_500_000, Semantic::MicroDuration), "PT-1H-2M-3.5S");
        assert_eq!(iso(60_000_000_000, Semantic::NanoDuration), "PT1M");
        assert_eq!(iso(1, Semantic::NanoDuration), "PT0.000000001S");
        assert_eq!(iso(7, Semantic::Year), "0007");
        assert!(iso(i64::MIN, Semantic::MicroDuration).starts_with("PT-2562047788H"));
    }

    proptest! {
        #[test]
        fn dates_agree_with_a_calendar_library(days in -719_528_i64..=2_932_896) {
            let date = Date::new(1970, 1, 1).unwrap() + jiff::Span::new().days(days);
            prop_assert_eq!(iso(days, Semantic::Date), date.to_string());
        }

        #[test]
        fn instants_agree_with_a_calendar_library(
            micros in -62_135_596_800_000_000_i64..253_402_000_000_000_000,
        ) {
            let instant = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(iso(micros, Semantic::InstantMicros), instant.to_string());
        }

        #[test]
        fn any_number_has_a_text(number: i64) {
            for semantic in [Semantic::Date, Semantic::Timestamp, Semantic::MicroTimestamp,
                Semantic::NanoTimestamp, Semantic::MicroTime, Semantic::NanoDuration,
                Semantic::Year] {
                // Dates and years are ints.
                let number = match semantic {
                    Semantic::Date | Semantic::Year => i64::from(number as i32),
                    _ => number,
                };
                prop_assert!(!iso(number, semantic).is_empty());
            }
        }
    }
}
