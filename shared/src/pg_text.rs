//! Values as `PostgreSQL` writes them in a session with ISO dates, in UTC, with exact numbers. Pure.

use std::fmt::Write as _;

use crate::iso::civil_from_days;

const DAY_MICROS: i64 = 86_400_000_000;

/// A `real`.
pub fn float4(number: f32) -> String {
    float(&format!("{number:e}"), 6)
}

/// A `double precision`.
pub fn float8(number: f64) -> String {
    float(&format!("{number:e}"), 15)
}

/// From Rust's shortest scientific notation to PostgreSQL's: plain where the exponent is between −4
/// and `most`, which is exclusive.
fn float(scientific: &str, most: i32) -> String {
    let unreal = match scientific {
        "NaN" => Some("NaN"),
        "inf" => Some("Infinity"),
        "-inf" => Some("-Infinity"),
        _ => None,
    };
    if let Some(unreal) = unreal {
        return unreal.to_owned();
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..most).contains(&exponent) {
        return shifted(mantissa, exponent);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// The number `mantissa` · 10^`exponent`, written out.
pub fn shifted(mantissa: &str, exponent: i32) -> String {
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent.into());
    if point <= 0 {
        digits.insert_str(0, &"0".repeat((1 - point).unsigned_abs() as usize));
        point = 1;
    }
    let point = point as usize;
    if digits.len() <= point {
        digits.push_str(&"0".repeat(point - digits.len()));
        return format!("{sign}{digits}");
    }
    let (whole, fraction) = digits.split_at(point);
    format!("{sign}{whole}.{fraction}")
}

/// A `date`, by its days since 1970-01-01.
pub fn date(days: i64) -> String {
    let (date, is_before_christ) = calendar(days);
    if is_before_christ { date + " BC" } else { date }
}

/// A `timestamp`, or a `timestamptz`, by its microseconds since 1970.
pub fn timestamp(micros: i64, zoned: bool) -> String {
    let (mut text, is_before_christ) = calendar(micros.div_euclid(DAY_MICROS));
    text.push(' ');
    text.push_str(&time(micros.rem_euclid(DAY_MICROS)));
    text.push_str(if zoned { "+00" } else { "" });
    text.push_str(if is_before_christ { " BC" } else { "" });
    text
}

/// A `time`, by its microseconds since midnight.
pub fn time(micros: i64) -> String {
    let (seconds, part) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if part != 0 {
        let _ = write!(text, ".{part:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

/// Year 0 is 1 BC.
fn calendar(days: i64) -> (String, bool) {
    let (year, month, day) = civil_from_days(days);
    let is_before_christ = year <= 0;
    let year = if is_before_christ { 1 - year } else { year };
    (format!("{year:04}-{month:02}-{day:02}"), is_before_christ)
}

/// An array of one dimension. `None` is NULL; elements as the element's type writes them.
pub fn array(elements: impl Iterator<Item = Option<String>>) -> String {
    let mut text = String::from("{");
    for (place, element) in elements.enumerate() {
        text.push_str(if place > 0 { "," } else { "" });
        match element {
            None => text.push_str("NULL"),
            Some(element) if needs_quotes(&element) => {
                text.push('"');
                for c in element.chars() {
                    if matches!(c, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                text.push('"');
            }
            Some(element) => text.push_str(&element),
        }
    }
    text.push('}');
    text
}

fn needs_quotes(element: &str) -> bool {
    let special = |byte| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t'..=b'\r');
    element.is_empty() || element.eq_ignore_ascii_case("null") || element.bytes().any(special)
}

/// An `interval`, from the form in which the connector sends it (`P1Y2M3DT4H5M6.7S`, each part with a
/// sign of its own). `None`: the text has another form.
pub fn interval(iso: &str) -> Option<String> {
    let (days, clock) = iso.strip_prefix('P')?.split_once('T').unwrap_or((iso.get(1..)?, ""));
    let mut parts = [0_i64; 4];
    let mut rest = days;
    while let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let number: i64 = rest.get(..end)?.parse().ok()?;
        let place = match rest.as_bytes().get(end)? {
            b'Y' => 0,
            b'M' => 1,
            b'D' => 2,
            _ => return None,
        };
        parts[place] = number;
        rest = rest.get(end + 1..)?;
    }
    let micros = clock_micros(clock)?;
    let months = parts[0].checked_mul(12)?.checked_add(parts[1])?;
    Some(written_interval(months, parts[2], micros))
}

fn clock_micros(mut rest: &str) -> Option<i128> {
    let mut micros = 0_i128;
    while let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let number = rest.get(..end)?;
        let unit = match rest.as_bytes().get(end)? {
            b'H' => 3_600_000_000,
            b'M' => 60_000_000,
            b'S' => 1_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let is_negative = whole.starts_with('-');
        let whole: i128 = whole.parse().ok()?;
        let part: i128 = match part.trim_end_matches('0') {
            "" => 0,
            part if part.len() <= 6 => format!("{part:0<6}").parse().ok()?,
            _ => return None,
        };
        micros += whole * unit + if is_negative { -part } else { part };
        rest = rest.get(end + 1..)?;
    }
    Some(micros)
}

fn written_interval(months: i64, days: i64, micros: i128) -> String {
    let mut text = String::new();
    let mut is_before_negative = false;
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number == 0 {
            continue;
        }
        let space = if text.is_empty() { "" } else { " " };
        let sign = if is_before_negative && number > 0 { "+" } else { "" };
        let many = if number == 1 { "" } else { "s" };
        let _ = write!(text, "{space}{sign}{number} {unit}{many}");
        is_before_negative = number < 0;
    }
    if micros != 0 || text.is_empty() {
        let space = if text.is_empty() { "" } else { " " };
        let sign = match (micros < 0, is_before_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let clock = time(i64::try_from(micros.unsigned_abs()).unwrap_or(i64::MAX));
        let _ = write!(text, "{space}{sign}{clock}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_dates_are_written_as_postgresql_does() {
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(-2_440_588), "4714-11-24 BC");
        assert_eq!(date(2_145_042_905), "5874897-12-31");
        assert_eq!(date(-719_163), "0001-12-31 BC");
        let at = 1_709_211_909_120_000;
        assert_eq!(timestamp(at, false), "2024-02-29 13:05:09.12");
        assert_eq!(timestamp(at, true), "2024-02-29 13:05:09.12+00");
        assert_eq!(timestamp(-1, false), "1969-12-31 23:59:59.999999");
        assert_eq!(time(0), "00:00:00");
        assert_eq!(float8(0.1), "0.1");
        assert_eq!(float4(1e-45), "1e-45");
    }

    #[test]
    fn arrays_are_written_as_postgresql_does() {
        let of = |texts: &[Option<&str>]| array(texts.iter().map(|t| t.map(str::to_owned)));
        assert_eq!(of(&[]), "{}");
        assert_eq!(of(&[Some("a"), None, Some("null"), Some("")]), r#"{a,NULL,"null",""}"#);
        assert_eq!(of(&[Some("b c"), Some(r#"q"\"#), Some("é{")]), r#"{"b c","q\"\\","é{"}"#);
    }

    #[test]
    fn intervals_are_written_as_postgresql_does() {
        let is = |iso: &str, text: &str| assert_eq!(interval(iso).as_deref(), Some(text), "{iso}");
        is("P0Y0M0DT0H0M0S", "00:00:00");
        is("P1Y2M-3DT4H5M6.789012S", "1 year 2 mons -3 days +04:05:06.789012");
        is("P-1Y-2M3DT-4H-5M-6.000001S", "-1 years -2 mons +3 days -04:05:06.000001");
        is("P0Y0M0DT0H0M-0.000001S", "-00:00:00.000001");
        is("P0Y1M0DT0H0M0.123S", "1 mon 00:00:00.123");
        is("P0Y0M2147483647DT2147483647H0M0S", "2147483647 days 2147483647:00:00");
        assert_eq!(interval("1 year"), None);
        assert_eq!(interval("P1X"), None);
    }
}
