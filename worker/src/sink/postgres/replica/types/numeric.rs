//! `numeric` on the wire: digits to the base 10,000, exact.
//!
//! Layout: number of groups, weight of the first group (its power of 10,000), sign, digits behind
//! the point that are shown, then the groups; two bytes each.

use cdc_shared::avro::decimal::write_decimal;

use super::fault::Fault;
use super::pg_type::Digits;

/// Digits before and behind the point that PostgreSQL's numeric holds.
const MOST_BEFORE: usize = 131_072;
const MOST_BEHIND: usize = 16_383;

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const MINUS_INFINITY: u16 = 0xf000;

/// A number, infinite ones and "not a number" among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number<'d> {
    Nan,
    Infinity,
    MinusInfinity,
    Finite(Decimal<'d>),
}

/// A decimal as its ASCII digits: `before.behind × 10^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal<'d> {
    pub(super) negative: bool,
    pub(super) before: &'d [u8],
    pub(super) behind: &'d [u8],
    pub(super) exponent: i32,
}

/// Reads a number as Debezium, Java or PostgreSQL write it.
pub(super) fn parse(text: &str) -> Result<Number<'_>, Fault> {
    let bytes = text.as_bytes();
    let (negative, rest) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, bytes),
    };
    let (before, rest) = split_digits(rest);
    let (behind, rest) = match rest.split_first() {
        Some((b'.', rest)) => split_digits(rest),
        _ => (&[][..], rest),
    };
    if before.is_empty() && behind.is_empty() {
        return special(text).ok_or(Fault::NOT_A_NUMBER);
    }
    let exponent = match rest.split_first() {
        None => 0,
        Some((b'e' | b'E', digits)) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(Fault::NOT_A_NUMBER)?,
        Some(_) => return Err(Fault::NOT_A_NUMBER),
    };
    Ok(Number::Finite(Decimal { negative, before, behind, exponent }))
}

/// Debezium's names (`decimal.handling.mode=string`), and PostgreSQL's.
fn special(text: &str) -> Option<Number<'static>> {
    let is = |names: &[&str]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
    if is(&["NAN"]) {
        Some(Number::Nan)
    } else if is(&["POSITIVE_INFINITY", "Infinity", "inf"]) {
        Some(Number::Infinity)
    } else if is(&["NEGATIVE_INFINITY", "-Infinity", "-inf"]) {
        Some(Number::MinusInfinity)
    } else {
        None
    }
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// Appends a number in the binary form of `numeric`. `limits`: what the source column declares.
pub(super) fn write(
    number: Number<'_>,
    limits: Option<Digits>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let sign = match number {
        Number::Finite(decimal) => return write_finite(decimal, limits, out),
        Number::Nan => NAN,
        Number::Infinity => INFINITY,
        Number::MinusInfinity => MINUS_INFINITY,
    };
    header(0, 0, sign, 0, out);
    Ok(())
}

fn write_finite(
    decimal: Decimal<'_>,
    limits: Option<Digits>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if decimal.exponent == 0 {
        return write_plain(decimal, limits, out);
    }
    let plain = without_exponent(decimal)?;
    let point = plain.1;
    let (before, behind) = plain.0.split_at(point);
    write_plain(Decimal { before, behind, exponent: 0, ..decimal }, limits, out)
}

/// The digits written out, and the position of the point among them.
fn without_exponent(decimal: Decimal<'_>) -> Result<(Vec<u8>, usize), Fault> {
    let Decimal { before, behind, exponent, .. } = decimal;
    let zeros = usize::try_from(exponent.unsigned_abs()).map_err(|_| Fault::TOO_MANY_DIGITS)?;
    if zeros > MOST_BEFORE {
        return Err(Fault::TOO_MANY_DIGITS);
    }
    let mut digits = Vec::with_capacity(before.len() + behind.len() + zeros);
    if exponent > 0 {
        digits.extend_from_slice(before);
        digits.extend_from_slice(behind);
        let point = before.len() + zeros;
        let missing = point.saturating_sub(digits.len());
        digits.resize(digits.len() + missing, b'0');
        return Ok((digits, point));
    }
    digits.resize(zeros.saturating_sub(before.len()), b'0');
    digits.extend_from_slice(before);
    let point = digits.len() - zeros;
    digits.extend_from_slice(behind);
    Ok((digits, point))
}

/// Appends `before.behind`.
fn write_plain(
    decimal: Decimal<'_>,
    limits: Option<Digits>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let zeros = decimal.before.iter().take_while(|digit| **digit == b'0').count();
    let before = decimal.before.get(zeros..).unwrap_or_default();
    let behind = decimal.behind;
    if before.len() > MOST_BEFORE || behind.len() > MOST_BEHIND {
        return Err(Fault::TOO_MANY_DIGITS);
    }
    if let Some(limits) = limits {
        hold(before, behind, limits)?;
    }
    let start = out.len();
    header(0, 0, POSITIVE, behind.len() as u16, out);
    // At most 32 767, and at least −4096.
    let mut weight = before.len().div_ceil(4) as i32 - 1;
    let first = out.len();
    let (head, rest) = before.split_at(before.len() % 4);
    if !head.is_empty() {
        out.extend_from_slice(&group(head).to_be_bytes());
    }
    for four in rest.chunks_exact(4) {
        out.extend_from_slice(&group(four).to_be_bytes());
    }
    for four in behind.chunks(4) {
        let missing = 4 - four.len() as u32;
        let group = group(four) * 10_u16.pow(missing);
        if group == 0 && out.len() == first {
            weight -= 1;
        } else {
            out.extend_from_slice(&group.to_be_bytes());
        }
    }
    while out.len() > first && out.ends_with(&[0, 0]) {
        out.truncate(out.len() - 2);
    }
    let groups = (out.len() - first) / 2;
    let (weight, sign) = match groups {
        0 => (0, POSITIVE),
        _ if decimal.negative => (weight as i16, NEGATIVE),
        _ => (weight as i16, POSITIVE),
    };
    if let Some(place) = out.get_mut(start..start + 6) {
        let [count, weight, sign] = [groups as u16, weight as u16, sign].map(u16::to_be_bytes);
        place.copy_from_slice(&[count[0], count[1], weight[0], weight[1], sign[0], sign[1]]);
    }
    Ok(())
}

fn group(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |group, digit| group * 10 + u16::from(digit - b'0'))
}

fn header(groups: u16, weight: i16, sign: u16, shown: u16, out: &mut Vec<u8>) {
    for part in [groups, weight as u16, sign, shown] {
        out.extend_from_slice(&part.to_be_bytes());
    }
}

/// Refuses what the column would round or not hold. `before` has no leading zeros.
fn hold(before: &[u8], behind: &[u8], limits: Digits) -> Result<(), Fault> {
    let scale = i64::from(limits.scale);
    let most_before = i64::from(limits.precision) - scale;
    let zeros = |digits: &[u8]| digits.iter().all(|digit| *digit == b'0');
    let rounded = if let Ok(scale) = usize::try_from(limits.scale) {
        behind.get(scale..).is_some_and(|beyond| !zeros(beyond))
    } else {
        let kept = before.len().saturating_sub(limits.scale.unsigned_abs() as usize);
        !zeros(behind) || before.get(kept..).is_some_and(|beyond| !zeros(beyond))
    };
    // With a scale above the precision the first digits behind the point must be zeros.
    let leading = usize::try_from(-most_before).unwrap_or(0).min(behind.len());
    let fits =
        before.len() as i64 <= most_before.max(0) && behind.get(..leading).is_some_and(zeros);
    if rounded || !fits { Err(Fault::TOO_MANY_DIGITS) } else { Ok(()) }
}

/// Digits of `unscaled × 10^-scale` with the calling function's hands on them.
pub(super) fn with_unscaled<T>(
    unscaled: &[u8],
    scale: i32,
    use_it: impl FnOnce(Number<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if unscaled.len() <= 16 {
        let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
        let mut bytes = [if negative { 0xff } else { 0 }; 16];
        if let Some(tail) = bytes.get_mut(16 - unscaled.len()..) {
            tail.copy_from_slice(unscaled);
        }
        return with_integer(i128::from_be_bytes(bytes), scale, use_it);
    }
    let mut text = Vec::new();
    write_decimal(unscaled, scale, &mut text).map_err(|_| Fault::TOO_MANY_DIGITS)?;
    let text = std::str::from_utf8(&text).map_err(|_| Fault::NOT_A_NUMBER)?;
    use_it(parse(text)?)
}

/// The same for an integer that is already one.
pub(super) fn with_integer<T>(
    integer: i128,
    scale: i32,
    use_it: impl FnOnce(Number<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    const ROOM: usize = 80;
    let mut digits = [b'0'; ROOM];
    let mut at = ROOM;
    let mut rest = integer.unsigned_abs();
    while rest > 0 {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
    }
    // A scale within the room is a place for the point; any other one is an exponent.
    let (point, exponent) = match usize::try_from(scale) {
        Ok(scale) if scale < ROOM => (ROOM - scale, 0),
        _ => (ROOM, scale.checked_neg().ok_or(Fault::TOO_MANY_DIGITS)?),
    };
    let exponent = if integer == 0 { exponent.min(0) } else { exponent };
    let (before, behind) = digits.split_at(point);
    let before = before.get(at.min(point)..).unwrap_or_default();
    use_it(Number::Finite(Decimal { negative: integer < 0, before, behind, exponent }))
}

/// Appends a number as PostgreSQL reads it.
pub(super) fn write_text(number: Number<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match number {
        Number::Nan => out.extend_from_slice(b"NaN"),
        Number::Infinity => out.extend_from_slice(b"Infinity"),
        Number::MinusInfinity => out.extend_from_slice(b"-Infinity"),
        Number::Finite(decimal) if decimal.exponent != 0 => {
            let (digits, point) = without_exponent(decimal)?;
            let (before, behind) = digits.split_at(point);
            return write_text(
                Number::Finite(Decimal { before, behind, exponent: 0, ..decimal }),
                out,
            );
        }
        Number::Finite(Decimal { negative, before, behind, .. }) => {
            if negative {
                out.push(b'-');
            }
            out.extend_from_slice(if before.is_empty() { b"0" } else { before });
            if !behind.is_empty() {
                out.push(b'.');
                out.extend_from_slice(behind);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads the wire form back as text: an independent, plain decoder.
    fn read(wire: &[u8]) -> String {
        let parts: Vec<u16> =
            wire.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        let (count, weight, sign, shown) = (parts[0], parts[1] as i16, parts[2], parts[3] as usize);
        assert_eq!(parts.len(), 4 + usize::from(count));
        match sign {
            NAN => return "NaN".to_owned(),
            INFINITY => return "Infinity".to_owned(),
            MINUS_INFINITY => return "-Infinity".to_owned(),
            _ => {}
        }
        let group = |power: i32| {
            let at = i32::from(weight) - power;
            usize::try_from(at).ok().and_then(|at| parts[4..].get(at)).copied().unwrap_or(0)
        };
        let digits = |powers: &mut dyn Iterator<Item = i32>| {
            powers.map(|power| format!("{:04}", group(power))).collect::<Vec<_>>().concat()
        };
        let before = digits(&mut (0..=i32::from(weight.max(0))).rev());
        let before = before.trim_start_matches('0');
        let behind = digits(&mut (1..=shown.div_ceil(4)).map(|power| -(power as i32)));
        let sign = if sign == NEGATIVE { "-" } else { "" };
        let before = if before.is_empty() { "0" } else { before };
        let point = if shown > 0 { "." } else { "" };
        format!("{sign}{before}{point}{}", &behind[..shown])
    }

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write(parse(text).unwrap(), None, &mut out).unwrap();
        read(&out)
    }

    #[test]
    fn numbers_in_every_spelling() {
        for (text, expected) in [
            ("0", "0"),
            ("-0.00", "0.00"),
            ("5.50", "5.50"),
            ("-0.001", "-0.001"),
            ("1E+3", "1000"),
            ("1.5e2", "150"),
            ("1.2345E2", "123.45"),
            ("1E-7", "0.0000001"),
            ("0E-10", "0.0000000000"),
            ("12345.678E-2", "123.45678"),
            ("00012345678.9", "12345678.9"),
            ("NAN", "NaN"),
            ("POSITIVE_INFINITY", "Infinity"),
            ("NEGATIVE_INFINITY", "-Infinity"),
            ("10000", "10000"),
            ("0.00010000", "0.00010000"),
        ] {
            assert_eq!(written(text), expected, "{text}");
        }
        for text in ["", "-", ".", "1.2.3", "1e", "1x", "e5", " 1", "NULL"] {
            assert_eq!(parse(text), Err(Fault::NOT_A_NUMBER), "{text}");
        }
        for text in ["1e131073", "1e-16384", "1e2147483647", "1e-2147483648"] {
            let number = parse(text).unwrap();
            assert_eq!(write(number, None, &mut Vec::new()), Err(Fault::TOO_MANY_DIGITS), "{text}");
        }
    }

    #[test]
    fn a_thousand_digits_and_the_longest_of_all() {
        for (before, behind) in [(500, 500), (131_072, 16_383)] {
            let text = format!("{}.{}", "9".repeat(before), "7".repeat(behind));
            assert_eq!(written(&text), text);
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(text in "-?[1-9][0-9]{0,60}(\\.[0-9]{1,40})?") {
            prop_assert_eq!(written(&text), text);
        }

        #[test]
        fn unscaled_bytes_are_the_same_number(number: i128, scale in -90_i32..90, padding in 0_usize..4) {
            let mut bytes = vec![if number < 0 { 0xff } else { 0 }; padding];
            bytes.extend(number.to_be_bytes());
            let mut expected = Vec::new();
            write_decimal(&bytes, scale, &mut expected).unwrap();
            let (mut wire, mut text) = (Vec::new(), Vec::new());
            with_unscaled(&bytes, scale, |number| {
                write(number, None, &mut wire)?;
                write_text(number, &mut text)
            })
            .unwrap();
            let expected = String::from_utf8(expected).unwrap();
            prop_assert_eq!(String::from_utf8(text).unwrap(), expected.clone());
            prop_assert_eq!(read(&wire), expected);
        }
    }
}
