//! Dates and times as ISO 8601 text, read exactly; and the calendar behind them, the proleptic
//! Gregorian one that Debezium and `PostgreSQL` use.

/// Why a text is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsoFault {
    /// It has not the form.
    Malformed,
    /// A number in it is beyond 64 bits.
    OutOfRange,
    /// It is finer than a microsecond.
    FinerThanMicros,
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is the last of its
/// year; 146 097 days are 400 years.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of so many days since 1970-01-01. Year 0 is 1 BC.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Reads fixed forms off the front of a text.
#[derive(Debug)]
pub struct IsoReader<'t>(&'t [u8]);

impl<'t> IsoReader<'t> {
    /// Begins at the front of `text`.
    pub fn new(text: &'t str) -> Self {
        Self(text.as_bytes())
    }

    /// Takes whatever byte is at the front.
    pub fn any(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Takes this byte, if it is at the front.
    pub fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`IsoFault::Malformed`].
    pub fn end(&self) -> Result<(), IsoFault> {
        if self.0.is_empty() { Ok(()) } else { Err(IsoFault::Malformed) }
    }

    /// Digits at the front as a number: at least `least`, at most `most`.
    fn digits(&mut self, least: usize, most: usize) -> Result<i64, IsoFault> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return Err(IsoFault::Malformed);
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits
            .iter()
            .try_fold(0_i64, |number, digit| {
                number.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
            })
            .ok_or(IsoFault::OutOfRange)
    }

    /// Days since 1970-01-01. Year 0 is 1 BC.
    ///
    /// # Errors
    /// [`IsoFault`].
    pub fn date(&mut self) -> Result<i64, IsoFault> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let year = self.digits(4, 10)?;
        let year = if negative { -year } else { year };
        let mut part = |most| {
            let number = if self.take(b'-') { self.digits(2, 2)? } else { 0 };
            if (1..=most).contains(&number) { Ok(number) } else { Err(IsoFault::Malformed) }
        };
        let (month, day) = (part(12)?, part(31)?);
        let days = days_from_civil(year, month, day);
        // The 31st of a shorter month would be another day.
        if civil_from_days(days) == (year, month, day) {
            Ok(days)
        } else {
            Err(IsoFault::Malformed)
        }
    }

    /// Microseconds of `HH:MM[:SS[.fraction]]`.
    ///
    /// # Errors
    /// [`IsoFault`].
    pub fn clock(&mut self) -> Result<i64, IsoFault> {
        let hours = self.digits(2, 2)?;
        let minutes = self.part_of_sixty()?.ok_or(IsoFault::Malformed)?;
        let seconds = self.part_of_sixty()?.unwrap_or(0);
        let fraction = if self.take(b'.') { self.fraction()? } else { 0 };
        Ok((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + fraction)
    }

    /// `:MM`, if it is there.
    fn part_of_sixty(&mut self) -> Result<Option<i64>, IsoFault> {
        if !self.take(b':') {
            return Ok(None);
        }
        let number = self.digits(2, 2)?;
        if number < 60 { Ok(Some(number)) } else { Err(IsoFault::Malformed) }
    }

    /// Microseconds of the digits behind a point; zeros beyond the sixth are none.
    fn fraction(&mut self) -> Result<i64, IsoFault> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = self.digits(1, 6)? * 10_i64.pow(6 - count.min(6) as u32);
        while let Some((digit @ b'0'..=b'9', rest)) = self.0.split_first() {
            if *digit != b'0' {
                return Err(IsoFault::FinerThanMicros);
            }
            self.0 = rest;
        }
        Ok(kept)
    }

    /// Seconds east of UTC, of `Z` or `±HH[[:]MM[[:]SS]]`; `None` if nothing is there.
    ///
    /// # Errors
    /// [`IsoFault`].
    pub fn offset(&mut self) -> Result<Option<i32>, IsoFault> {
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
        let seconds = i32::try_from(seconds).map_err(|_| IsoFault::Malformed)?;
        Ok(Some(if negative { -seconds } else { seconds }))
    }

    /// Whole number, and microseconds of its fraction with the same sign.
    ///
    /// # Errors
    /// [`IsoFault`].
    pub fn signed_decimal(&mut self) -> Result<(i64, i64), IsoFault> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let whole = self.digits(1, 19)?;
        let fraction = if self.take(b'.') { self.fraction()? } else { 0 };
        Ok(if negative { (-whole, -fraction) } else { (whole, fraction) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Result<i64, IsoFault> {
        let mut reader = IsoReader::new(text);
        let days = reader.date()?;
        reader.end().map(|()| days)
    }

    fn time(text: &str) -> Result<i64, IsoFault> {
        let mut reader = IsoReader::new(text);
        let micros = reader.clock()?;
        reader.end().map(|()| micros)
    }

    #[test]
    fn a_text_that_is_no_time_is_not_another_one() {
        assert_eq!(day("2024-02-29"), Ok(19_782));
        for text in ["2024-02-30", "2023-02-29", "2024-13-01", "24-01-01", "2024-01-01x"] {
            assert_eq!(day(text), Err(IsoFault::Malformed), "{text}");
        }
        assert_eq!(time("13:05:09.5"), Ok(47_109_500_000));
        for text in ["1:00", "13:60:00", "13:05:60", "13:05:09."] {
            assert_eq!(time(text), Err(IsoFault::Malformed), "{text}");
        }
        assert_eq!(time("13:05:09.1234567"), Err(IsoFault::FinerThanMicros));
    }
}
