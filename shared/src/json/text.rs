//! The scalars of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What each byte needs inside a JSON string: 0 nothing, `u` a `\u00XX`, else the letter
/// behind the backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

const HEX: [u8; 16] = *b"0123456789abcdef";

/// Appends a string with its quotes.
pub(super) fn push_str(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut from = 0;
    while let Some(found) = first_escape(&bytes[from..]) {
        let at = from + found;
        out.extend_from_slice(&bytes[from..at]);
        match ESCAPES[bytes[at] as usize] {
            b'u' => {
                let (high, low) = (HEX[(bytes[at] >> 4) as usize], HEX[(bytes[at] & 15) as usize]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Eight bytes at a time while none of them needs an escape, which is nearly always.
fn first_escape(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        if needs_escape(u64::from_le_bytes(*chunk)) {
            break;
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| ESCAPES[*byte as usize] != 0).map(|found| at + found)
}

/// Whether one of eight bytes is a control character, a quote or a backslash. It may say yes
/// of bytes that are none, never the other way round.
fn needs_escape(chunk: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let below_space = chunk.wrapping_sub(ONES * 0x20);
    let quote = (chunk ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
    let backslash = (chunk ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (below_space | quote | backslash) & !chunk & HIGH != 0
}

const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[2 * number] = b'0' + (number / 10) as u8;
        pairs[2 * number + 1] = b'0' + (number % 10) as u8;
        number += 1;
    }
    pairs
};

/// Appends an integer.
pub(super) fn push_int(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    push_digits(number.unsigned_abs(), 1, out);
}

/// Appends a number with at least `least` digits (at most 20).
pub(super) fn push_digits(mut number: u64, least: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number >= 100 {
        let pair = 2 * (number % 100) as usize;
        number /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[2 * number as usize..][..2]);
    } else {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - least)..]);
}

/// Appends a float; what JSON has no number for, as a string.
pub(super) fn push_f64(number: f64, out: &mut Vec<u8>) {
    if !finite(number, out) {
        return;
    }
    // Writing to a vector does not fail.
    let _ = serde_json::to_writer(out, &number);
}

/// Appends a float in its own precision: 0.1 stays 0.1.
pub(super) fn push_f32(number: f32, out: &mut Vec<u8>) {
    if !finite(number.into(), out) {
        return;
    }
    let _ = serde_json::to_writer(out, &number);
}

fn finite(number: f64, out: &mut Vec<u8>) -> bool {
    let text: &[u8] = if number.is_nan() {
        b"\"NaN\""
    } else if number == f64::INFINITY {
        b"\"Infinity\""
    } else if number == f64::NEG_INFINITY {
        b"\"-Infinity\""
    } else {
        return true;
    };
    out.extend_from_slice(text);
    false
}

/// Appends bytes as a base64 string (standard alphabet, padded).
pub(super) fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is exactly what padded base64 takes.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends 16 bytes as a hyphenated UUID.
pub(super) fn push_uuid(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&[HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_character_survives_a_parser() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        let text = format!("{all}\u{2028}\u{10ffff}plain text of some length");
        let json = written(|out| push_str(&text, out));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn digits_are_padded() {
        assert_eq!(written(|out| push_digits(7, 4, out)), "0007");
        assert_eq!(written(|out| push_digits(12345, 4, out)), "12345");
        assert_eq!(written(|out| push_digits(0, 1, out)), "0");
    }

    proptest! {
        #[test]
        fn strings_are_what_serde_json_writes(text in "\\PC*[\\x00-\\x7f]{0,24}\\PC*") {
            let expected = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(written(|out| push_str(&text, out)), expected);
        }

        #[test]
        fn integers_are_what_the_library_writes(number: i64) {
            prop_assert_eq!(written(|out| push_int(number, out)), number.to_string());
        }

        #[test]
        fn floats_come_back(number: f64) {
            prop_assume!(number.is_finite());
            let json = written(|out| push_f64(number, out));
            prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
