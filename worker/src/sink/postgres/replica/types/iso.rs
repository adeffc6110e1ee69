//! Dates, times, timestamps and intervals that come as ISO 8601 text.

use cdc_shared::iso::IsoReader;

use super::fault::Fault;
use super::temporal::{
    DAY_MICROS, EPOCH_MICROS, Interval, LEAST, MOST, Unit, date, in_range, time,
};

/// Java's dates of the JDBC driver's infinities lie beyond these: in the year 292278994, and in 292275055 BC, which is
/// 292269055 BC in the Julian calendar, and may have lost its BC.
const JAVA_INFINITY_DAYS: i64 = 106_750_000_000;
const JAVA_MINUS_INFINITY_DAYS: i64 = 100_000_000_000;

/// `2024-02-29`, with `Z` or an offset behind it, which say nothing for a date.
pub(super) fn parse_date(text: &str) -> Result<i32, Fault> {
    match text {
        "infinity" => return Ok(i32::MAX),
        "-infinity" => return Ok(i32::MIN),
        _ => {}
    }
    let mut reader = IsoReader::new(text);
    let days = reader.date()?;
    reader.offset()?;
    reader.end()?;
    match days {
        JAVA_INFINITY_DAYS.. => Ok(i32::MAX),
        days if days.abs() >= JAVA_MINUS_INFINITY_DAYS => Ok(i32::MIN),
        days => date(days),
    }
}

/// `13:05:09.5`, with `Z` behind it (`IsoTime`).
pub(super) fn parse_time(text: &str) -> Result<i64, Fault> {
    let (micros, _) = parse_timetz(text)?;
    Ok(micros)
}

/// Microseconds since midnight and seconds *west* of UTC, as PostgreSQL keeps them.
pub(super) fn parse_timetz(text: &str) -> Result<(i64, i32), Fault> {
    let mut reader = IsoReader::new(text);
    let micros = reader.clock()?;
    let offset = reader.offset()?.unwrap_or(0);
    reader.end()?;
    Ok((time(micros, Unit::Micros)?, -offset))
}

/// `2024-02-29T13:05:09.5`; with a zone it is the instant, moved to UTC.
pub(super) fn parse_timestamp(text: &str, zoned: bool) -> Result<i64, Fault> {
    match text {
        "infinity" => return Ok(i64::MAX),
        "-infinity" => return Ok(i64::MIN),
        _ => {}
    }
    let mut reader = IsoReader::new(text);
    let days = reader.date()?;
    if !reader.take(b'T') && !reader.take(b' ') {
        return Err(Fault::MALFORMED);
    }
    let clock = reader.clock()?;
    let offset = reader.offset()?;
    reader.end()?;
    let offset = if zoned { offset.ok_or(Fault::MALFORMED)? } else { 0 };
    let since_1970 = i128::from(days) * i128::from(DAY_MICROS) + i128::from(clock)
        - i128::from(offset) * 1_000_000;
    // The driver's infinities are milliseconds with a zone, and microseconds without.
    let unit = if zoned { 1000 } else { 1 };
    if since_1970 == i128::from(MOST) * unit {
        return Ok(i64::MAX);
    }
    if since_1970 == i128::from(LEAST) * unit {
        return Ok(i64::MIN);
    }
    in_range(since_1970 - i128::from(EPOCH_MICROS))
}

/// ISO 8601 with a sign on each part: `P1Y2M-3DT-4H5M6.5S`.
pub(super) fn parse_interval(text: &str) -> Result<Interval, Fault> {
    let mut reader = IsoReader::new(text);
    if !reader.take(b'P') {
        return Err(Fault::MALFORMED);
    }
    let (mut months, mut days, mut micros) = (0_i64, 0_i64, 0_i64);
    let mut in_time = false;
    while !reader.is_empty() {
        if !in_time && reader.take(b'T') {
            in_time = true;
            continue;
        }
        let (whole, fraction) = reader.signed_decimal()?;
        let unit = reader.any().ok_or(Fault::MALFORMED)?;
        let (sum, factor) = match (in_time, unit) {
            (false, b'Y') => (&mut months, 12),
            (false, b'M') => (&mut months, 1),
            (false, b'W') => (&mut days, 7),
            (false, b'D') => (&mut days, 1),
            (true, b'H') => (&mut micros, 3_600_000_000),
            (true, b'M') => (&mut micros, 60_000_000),
            (true, b'S') => (&mut micros, 1_000_000),
            _ => return Err(Fault::MALFORMED),
        };
        if fraction != 0 && unit != b'S' {
            return Err(Fault::MALFORMED);
        }
        let part = whole.checked_mul(factor).and_then(|part| part.checked_add(fraction));
        *sum = part.and_then(|part| sum.checked_add(part)).ok_or(Fault::OUT_OF_RANGE)?;
    }
    Ok(Interval {
        micros,
        days: i32::try_from(days).map_err(|_| Fault::OUT_OF_RANGE)?,
        months: i32::try_from(months).map_err(|_| Fault::OUT_OF_RANGE)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::temporal::timestamp;
    use super::*;

    /// The ends of PostgreSQL's dates and timestamps, in its own count.
    const FIRST_DAY: i32 = -2_451_545;
    const LAST_DAY: i32 = 2_145_031_948;
    const LAST_MICRO: i64 = 9_223_371_331_199_999_999;

    #[test]
    fn infinities_and_the_ends_of_the_range() {
        assert_eq!(parse_timestamp("infinity", true), Ok(i64::MAX));
        assert_eq!(parse_timestamp("-infinity", true), Ok(i64::MIN));
        assert_eq!(parse_timestamp("+292278994-08-16T23:00:00Z", true), Ok(i64::MAX));
        assert_eq!(parse_date("+292278994-08-17Z"), Ok(i32::MAX));
        assert_eq!(parse_date("-292269054-12-02Z"), Ok(i32::MIN));
        assert_eq!(parse_date("+292269055-12-02Z"), Ok(i32::MIN));
        assert_eq!(parse_date("-292275055-05-16Z"), Ok(i32::MIN));
        assert_eq!(parse_date("5874897-12-31"), Ok(LAST_DAY));
        assert_eq!(parse_date("5874898-01-01"), Err(Fault::OUT_OF_RANGE));
        assert_eq!(parse_date("-4713-11-24Z"), Ok(FIRST_DAY));
        assert_eq!(parse_date("-4713-11-23"), Err(Fault::OUT_OF_RANGE));
        assert_eq!(parse_timestamp("294276-12-31T23:59:59.999999Z", true), Ok(LAST_MICRO));
        assert_eq!(parse_timestamp("294277-01-01T00:00:00Z", true), Err(Fault::OUT_OF_RANGE));
    }

    #[test]
    fn texts_that_are_no_times() {
        for text in ["", "2024-02-30", "2024-13-01", "24-01-01", "2024-1-1", "2024-01-01x"] {
            assert_eq!(parse_date(text), Err(Fault::MALFORMED), "{text}");
        }
        for text in
            ["2024-01-01", "2024-01-01T1:00:00Z", "2024-01-01T00:61:00Z", "2024-01-01T00:00"]
        {
            assert_eq!(parse_timestamp(text, true), Err(Fault::MALFORMED), "{text}");
        }
        assert_eq!(parse_timetz("13:05:09.1234567Z"), Err(Fault::FINER_THAN_MICROS));
        assert_eq!(parse_timetz("13:05:09.123456000Z"), Ok((47_109_123_456, 0)));
        assert_eq!(parse_timetz("13:05:09.5-05:30"), Ok((47_109_500_000, 19_800)));
        for text in ["", "1D", "P1H", "PT1D", "PT1.5H", "P1"] {
            assert_eq!(parse_interval(text), Err(Fault::MALFORMED), "{text}");
        }
    }

    #[test]
    fn intervals_keep_their_parts() {
        let interval = parse_interval("P-1Y-2M3DT-4H-5M-6.000001S").unwrap();
        assert_eq!(interval, Interval { micros: -14_706_000_001, days: 3, months: -14 });
        assert_eq!(parse_interval("P99999999999D"), Err(Fault::OUT_OF_RANGE));
        let hours = parse_interval("PT2147483647H").unwrap();
        assert_eq!(hours.micros, 2_147_483_647 * 3_600_000_000);
    }

    proptest! {
        #[test]
        fn dates_agree_with_a_calendar_library(days in -719_528_i64..=2_932_896) {
            let expected = jiff::civil::Date::new(1970, 1, 1).unwrap() + jiff::Span::new().days(days);
            prop_assert_eq!(parse_date(&expected.to_string()), date(days));
        }

        #[test]
        fn instants_agree_with_a_calendar_library(
            micros in -62_135_596_800_000_000_i64..253_402_000_000_000_000,
        ) {
            let instant = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(parse_timestamp(&instant, true), timestamp(micros, Unit::Micros));
        }
    }
}
