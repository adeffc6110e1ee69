//! Decimals of any length as exact text.

/// Longest unscaled value that is converted, in bytes. `PostgreSQL`'s longest numeric (131 072
/// digits before the point and 16 383 behind it) takes 61 kB; the conversion costs the square
/// of the length.
pub const MAX_UNSCALED: usize = 65_536;

/// Zeros that are written out on account of the scale. Beyond it the exact value is written
/// with an exponent, so that a scale of two thousand millions costs nothing.
const MAX_ZEROS: u32 = 150_000;

/// A decimal longer than anything a source database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decimal of {0} bytes, at most {MAX_UNSCALED} are converted")]
pub struct DecimalTooLong(pub usize);

/// Appends the decimal `unscaled × 10^-scale` to `out`: all digits, trailing zeros kept.
/// `unscaled` is two's complement, most significant byte first; empty is 0.
///
/// # Errors
/// When `unscaled` has more than [`MAX_UNSCALED`] bytes. Nothing is written then.
pub fn write_decimal(unscaled: &[u8], scale: i32, out: &mut Vec<u8>) -> Result<(), DecimalTooLong> {
    if unscaled.len() > MAX_UNSCALED {
        return Err(DecimalTooLong(unscaled.len()));
    }
    let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    if negative {
        out.push(b'-');
    }
    let start = out.len();
    if unscaled.len() <= 16 {
        small_digits(unscaled, negative, out);
    } else {
        long_digits(unscaled, negative, out);
    }
    place_point(scale, start, out);
    Ok(())
}

fn small_digits(unscaled: &[u8], negative: bool, out: &mut Vec<u8>) {
    let mut bytes = [if negative { 0xff } else { 0 }; 16];
    bytes[16 - unscaled.len()..].copy_from_slice(unscaled);
    let mut rest = i128::from_be_bytes(bytes).unsigned_abs();
    let mut digits = [0_u8; 40];
    let mut at = digits.len();
    while let Some(beyond) = rest.checked_div(CHUNK.into()).filter(|beyond| *beyond > 0) {
        at = chunk_digits((rest % u128::from(CHUNK)) as u64, at, &mut digits, CHUNK_DIGITS);
        rest = beyond;
    }
    at = chunk_digits(rest as u64, at, &mut digits, 1);
    out.extend_from_slice(&digits[at..]);
}

const CHUNK: u64 = 10_u64.pow(18);
const CHUNK_DIGITS: usize = 18;

/// Writes a number backwards, ending before `at`, with at least `least` digits.
fn chunk_digits(mut number: u64, mut at: usize, digits: &mut [u8; 40], least: usize) -> usize {
    let end = at;
    while number > 0 || end - at < least {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    at
}

/// Long division by 10^9, limb by limb.
fn long_digits(unscaled: &[u8], negative: bool, out: &mut Vec<u8>) {
    let mut limbs = magnitude(unscaled, negative);
    let mut chunks = Vec::new();
    while limbs.last().is_some_and(|limb| *limb == 0) {
        limbs.pop();
    }
    while !limbs.is_empty() {
        let mut rest = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let number = rest << 32 | u64::from(*limb);
            *limb = (number / 1_000_000_000) as u32;
            rest = number % 1_000_000_000;
        }
        chunks.push(rest as u32);
        while limbs.last().is_some_and(|limb| *limb == 0) {
            limbs.pop();
        }
    }
    let mut digits = [0; 40];
    for (position, chunk) in chunks.iter().rev().enumerate() {
        let least = if position == 0 { 1 } else { 9 };
        let at = chunk_digits((*chunk).into(), 40, &mut digits, least);
        out.extend_from_slice(&digits[at..]);
    }
    if chunks.is_empty() {
        out.push(b'0');
    }
}

/// Absolute value, least significant limb first.
fn magnitude(unscaled: &[u8], negative: bool) -> Vec<u32> {
    let mut carry = negative;
    let mut limbs = Vec::with_capacity(unscaled.len() / 4 + 1);
    for bytes in unscaled.rchunks(4) {
        let mut limb = [if negative { 0xff } else { 0 }; 4];
        limb[4 - bytes.len()..].copy_from_slice(bytes);
        let mut limb = u32::from_be_bytes(limb);
        if negative {
            (limb, carry) = (!limb).overflowing_add(carry.into());
        }
        limbs.push(limb);
    }
    if negative && carry {
        limbs.push(1);
    }
    limbs
}

/// Puts the point into the digits that start at `start`.
fn place_point(scale: i32, start: usize, out: &mut Vec<u8>) {
    let zero = out[start..] == *b"0";
    let shift = scale.unsigned_abs();
    if scale == 0 || (zero && scale < 0) {
        return;
    }
    if shift > MAX_ZEROS {
        let exponent = format!("E{}", -i64::from(scale));
        out.extend_from_slice(exponent.as_bytes());
    } else if scale < 0 {
        out.resize(out.len() + shift as usize, b'0');
    } else {
        let digits = out.len() - start;
        let missing = (shift as usize + 1).saturating_sub(digits);
        out.splice(start..start, std::iter::repeat_n(b'0', missing));
        let point = out.len() - shift as usize;
        out.insert(point, b'.');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(unscaled: &[u8], scale: i32) -> String {
        let mut out = Vec::new();
        write_decimal(unscaled, scale, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_every_digit() {
        assert_eq!(text(&[], 0), "0");
        assert_eq!(text(&[0], 2), "0.00");
        assert_eq!(text(&[0x02, 0x26], 2), "5.50");
        assert_eq!(text(&[0xff], 2), "-0.01");
        assert_eq!(text(&[0x80], 0), "-128");
        assert_eq!(text(&[0x01], -3), "1000");
        assert_eq!(text(&[0], -3), "0");
        assert_eq!(text(&i128::MIN.to_be_bytes(), 1), "-17014118346046923173168730371588410572.8");
        assert_eq!(text(&1_000_000_000_000_000_000_i64.to_be_bytes(), 0), "1000000000000000000");
    }

    #[test]
    fn writes_more_than_sixteen_bytes() {
        // 2^136 and its negative.
        let mut big = vec![1];
        big.extend([0; 17]);
        assert_eq!(text(&big, 0), "87112285931760246646623899502532662132736");
        let mut negative = vec![0xff];
        negative.extend([0; 17]);
        assert_eq!(text(&negative, 1), "-8711228593176024664662389950253266213273.6");
        assert_eq!(text(&[0; 20], 1), "0.0");
        let mut least = vec![0x80];
        least.extend([0; 19]);
        assert_eq!(text(&least, 0), "-730750818665451459101842416358141509827966271488");
    }

    #[test]
    fn a_scale_from_the_data_cannot_take_the_memory() {
        assert_eq!(text(&[1], i32::MIN), "1E2147483648");
        assert_eq!(text(&[12], i32::MAX), "12E-2147483647");
        let too_long = vec![1; MAX_UNSCALED + 1];
        assert_eq!(
            write_decimal(&too_long, 0, &mut Vec::new()),
            Err(DecimalTooLong(MAX_UNSCALED + 1))
        );
    }

    proptest! {
        #[test]
        fn agrees_with_integers(number: i128, padding in 0_usize..8) {
            let mut bytes = vec![if number < 0 { 0xff } else { 0 }; padding];
            bytes.extend(number.to_be_bytes());
            prop_assert_eq!(text(&bytes, 0), number.to_string());
        }
    }
}
