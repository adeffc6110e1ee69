//! A JSON document as PostgreSQL writes a `jsonb`, with each number in one form. The connector reads
//! one document in two ways: as the server writes it in a snapshot, and from its binary form while
//! streaming, where 2.5e-7 becomes every digit of the binary number. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cdc_shared::pg_text::shifted;
use serde_json::value::RawValue;

/// The document's text; `None` when it is none.
pub(in crate::sink) fn normal(document: &str) -> Option<String> {
    let mut text = String::with_capacity(document.len() + document.len() / 4);
    write(document.trim(), &mut text)?;
    Some(text)
}

/// Keys in `jsonb`'s order: the shorter one first, then by bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(usize, String);

fn write(value: &str, out: &mut String) -> Option<()> {
    match value.as_bytes().first()? {
        b'{' => {
            let members: std::collections::HashMap<String, &RawValue> =
                serde_json::from_str(value).ok()?;
            let members: BTreeMap<Key, &RawValue> =
                members.into_iter().map(|(key, value)| (Key(key.len(), key), value)).collect();
            out.push('{');
            for (place, (Key(_, key), member)) in members.iter().enumerate() {
                out.push_str(if place > 0 { ", " } else { "" });
                quote(key, out);
                out.push_str(": ");
                write(member.get(), out)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(value).ok()?;
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { ", " } else { "" });
                write(item.get(), out)?;
            }
            out.push(']');
        }
        b'"' => quote(&serde_json::from_str::<String>(value).ok()?, out),
        b't' | b'f' | b'n' => out.push_str(value),
        _ => out.push_str(&number(value)?),
    }
    Some(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Digits of the largest integer that is none by accident: 2^64 − 1.
const INTEGER: usize = 20;

/// A number written out, without zeros at the end of its fraction. One that is no integer of 64 bits
/// has the digits that tell it from other doubles.
fn number(text: &str) -> Option<String> {
    let number = written_out(text)?;
    if !number.contains('.') && number.trim_start_matches('-').len() <= INTEGER {
        return Some(number);
    }
    let double: f64 = number.parse().ok()?;
    written_out(&format!("{double:e}"))
}

fn written_out(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|exponent| (-400..=400).contains(exponent))?;
    let mut number = shifted(mantissa, exponent);
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    // What lies before the point may have begun behind it.
    let (sign, digits) =
        number.strip_prefix('-').map_or(("", number.as_str()), |digits| ("-", digits));
    let whole = digits.find('.').unwrap_or(digits.len());
    let zeros = digits.bytes().take(whole.saturating_sub(1)).take_while(|b| *b == b'0').count();
    let digits = &digits[zeros..];
    let sign = if digits == "0" { "" } else { sign };
    Some(format!("{sign}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_postgresql_does() {
        let is = |document: &str, text: &str| assert_eq!(normal(document).unwrap(), text);
        is(r#"{"bb": 1, "a":[ ],"c":{}}"#, r#"{"a": [], "c": {}, "bb": 1}"#);
        is(r#"["x\"y", "\u00e9\n\u0001", true,null]"#, "[\"x\\\"y\", \"é\\n\\u0001\", true, null]");
        is(" \"1.0\" ", "\"1.0\"");
        for (number, text) in [
            ("1.0", "1"),
            ("-2.50", "-2.5"),
            ("1e20", "100000000000000000000"),
            ("1.0E-5", "0.00001"),
            ("12.5e1", "125"),
            ("0.0012E3", "1.2"),
            ("0.012E3", "12"),
            ("-0.0", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("100", "100"),
            // Every digit of the double that 2.5e-7 is.
            (
                "0.00000024999999999999998868702795647156467140348468092270195484161376953125",
                "0.00000025",
            ),
            ("2.5e-7", "0.00000025"),
        ] {
            is(number, text);
        }
        assert_eq!(normal("{"), None);
        assert_eq!(normal(""), None);
    }
}
