//! Dates, times, timestamps and intervals: from what the connector sends to PostgreSQL's own
//! numbers, and as text.
//!
//! PostgreSQL counts from 2000-01-01, Debezium from 1970-01-01. Both use the proleptic Gregorian
//! calendar.

use super::fault::Fault;

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;

/// PostgreSQL's ends, in its own count: 4714-11-24 BC, and beyond 5874897-12-31 and 294276-12-31.
const FIRST_DAY: i64 = -2_451_545;
const LAST_DAY: i64 = 2_145_031_948;
const FIRST_MICRO: i64 = -211_813_488_000_000_000;
const END_MICROS: i64 = 9_223_371_331_200_000_000;

/// `PGStatement.DATE_POSITIVE_INFINITY` and its negative, the JDBC driver's infinities.
const MOST: i64 = 9_223_372_036_825_200_000;
const LEAST: i64 = -9_223_372_036_832_400_000;

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
/// to 1970 beyond the range of an int, and in a snapshot as what JDBC makes of the former.
pub(super) fn date(days: i64) -> Result<i32, Fault> {
    match days {
        -2_147_472_692 | -622_191_234 => Ok(i32::MAX),
        -2_147_472_691 => Ok(i32::MIN),
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

fn in_range(micros: i128) -> Result<i64, Fault> {
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

/// `2024-02-29`, with `Z` or an offset behind it, which say nothing for a date.
pub(super) fn parse_date(text: &str) -> Result<i32, Fault> {
    match text {
        "infinity" => return Ok(i32::MAX),
        "-infinity" => return Ok(i32::MIN),
        _ => {}
    }
    let mut reader = Reader(text.as_bytes());
    let days = reader.date()?;
    reader.offset()?;
    reader.end()?;
    date(days)
}

/// `13:05:09.5`, with `Z` behind it (`IsoTime`).
pub(super) fn parse_time(text: &str) -> Result<i64, Fault> {
    let (micros, _) = parse_timetz(text)?;
    Ok(micros)
}

/// Microseconds since midnight and seconds *west* of UTC, as PostgreSQL keeps them.
pub(super) fn parse_timetz(text: &str) -> Result<(i64, i32), Fault> {
    let mut reader = Reader(text.as_bytes());
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
    let mut reader = Reader(text.as_bytes());
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

/// An interval as PostgreSQL keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interval {
    pub(super) micros: i64,
    pub(super) days: i32,
    pub(super) months: i32,
}

/// ISO 8601 with a sign on each part: `P1Y2M-3DT-4H5M6.5S`.
pub(super) fn parse_interval(text: &str) -> Result<Interval, Fault> {
    let mut reader = Reader(text.as_bytes());
    if !reader.take(b'P') {
        return Err(Fault::MALFORMED);
    }
    let (mut months, mut days, mut micros) = (0_i64, 0_i64, 0_i64);
    let mut in_time = false;
    while !reader.0.is_empty() {
        if !in_time && reader.take(b'T') {
            in_time = true;
            continue;
        }
        let (whole, fraction) = reader.signed_decimal()?;
        let Some((unit, rest)) = reader.0.split_first() else { return Err(Fault::MALFORMED) };
        reader.0 = rest;
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
        if fraction != 0 && *unit != b'S' {
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

/// Reads fixed forms off the front of a text.
struct Reader<'t>(&'t [u8]);

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn end(&self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::MALFORMED) }
    }

    /// Digits at the front as a number: at least `least`, at most `most`.
    fn digits(&mut self, least: usize, most: usize) -> Result<i64, Fault> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return Err(Fault::MALFORMED);
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits
            .iter()
            .try_fold(0_i64, |number, digit| {
                number.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
            })
            .ok_or(Fault::OUT_OF_RANGE)
    }

    /// Days since 1970-01-01. Year 0 is 1 BC.
    fn date(&mut self) -> Result<i64, Fault> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let year = self.digits(4, 10)?;
        let year = if negative { -year } else { year };
        let mut part = |most| {
            let number = if self.take(b'-') { self.digits(2, 2)? } else { 0 };
            if (1..=most).contains(&number) { Ok(number) } else { Err(Fault::MALFORMED) }
        };
        let (month, day) = (part(12)?, part(31)?);
        let days = days_from_civil(year, month, day);
        // The 31st of a shorter month would be another day.
        if civil_from_days(days) == (year, month, day) { Ok(days) } else { Err(Fault::MALFORMED) }
    }

    /// Microseconds of `HH:MM[:SS[.fraction]]`.
    fn clock(&mut self) -> Result<i64, Fault> {
        let hours = self.digits(2, 2)?;
        let minutes = self.part_of_sixty()?.ok_or(Fault::MALFORMED)?;
        let seconds = self.part_of_sixty()?.unwrap_or(0);
        let fraction = if self.take(b'.') { self.fraction()? } else { 0 };
        Ok((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + fraction)
    }

    /// `:MM`, if it is there.
    fn part_of_sixty(&mut self) -> Result<Option<i64>, Fault> {
        if !self.take(b':') {
            return Ok(None);
        }
        let number = self.digits(2, 2)?;
        if number < 60 { Ok(Some(number)) } else { Err(Fault::MALFORMED) }
    }

    /// Microseconds of the digits behind a point; zeros beyond the sixth are none.
    fn fraction(&mut self) -> Result<i64, Fault> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = self.digits(1, 6)? * 10_i64.pow(6 - count.min(6) as u32);
        while let Some((digit @ b'0'..=b'9', rest)) = self.0.split_first() {
            if *digit != b'0' {
                return Err(Fault::FINER_THAN_MICROS);
            }
            self.0 = rest;
        }
        Ok(kept)
    }

    /// Seconds east of UTC, of `Z` or `±HH[[:]MM[[:]SS]]`; `None` if nothing is there.
    fn offset(&mut self) -> Result<Option<i32>, Fault> {
        if self.take(b'Z') {
            return Ok(Some(0));
        }
        let negative = self.take(b'-');
        if !negative && !self.take(b'+') {
            return Ok(None);
        }
        let mut seconds = self.digits(2, 2)? * 3600;
        for unit in [60, 1] {
            if self.take(b':') || self.0.first().is_some_and(u8::is_ascii_digit) {
                seconds += self.digits(2, 2)? * unit;
            }
        }
        let seconds = i32::try_from(seconds).map_err(|_| Fault::MALFORMED)?;
        Ok(Some(if negative { -seconds } else { seconds }))
    }

    /// Whole number, and microseconds of its fraction with the same sign.
    fn signed_decimal(&mut self) -> Result<(i64, i64), Fault> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let whole = self.digits(1, 19)?;
        let fraction = if self.take(b'.') { self.fraction()? } else { 0 };
        Ok(if negative { (-whole, -fraction) } else { (whole, fraction) })
    }
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is the last of its
/// year; 146 097 days are 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
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
