//! PostgreSQL's own hash of a text (`hashtextextended(…, 0)`) and its own text of a row
//! (`ROW(…)::text`), so that the rows of another database are hashed here as the mirror's are there.
//! The same on every server from PostgreSQL 11 on. Pure.

/// 64 bits of a text.
pub(in crate::sink) fn hash(text: &[u8]) -> i64 {
    let start = 0x9e37_79b9_u32.wrapping_add(text.len() as u32).wrapping_add(3_923_095);
    let mut state = [start; 3];
    let (blocks, rest) = text.as_chunks::<12>();
    for block in blocks {
        for (word, at) in state.iter_mut().zip([0, 4, 8]) {
            *word = word.wrapping_add(little_endian(&block[at..at + 4]));
        }
        mix(&mut state);
    }
    // The last word's lowest byte stands for the length.
    let [a, b, c] = &mut state;
    for (at, byte) in rest.iter().enumerate() {
        let (word, place) = match at {
            0..4 => (&mut *a, at),
            4..8 => (&mut *b, at - 4),
            _ => (&mut *c, at - 7),
        };
        *word = word.wrapping_add(u32::from(*byte) << (8 * place));
    }
    finish(&mut state);
    let [_, b, c] = state;
    (u64::from(b) << 32 | u64::from(c)).cast_signed()
}

fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn mix([a, b, c]: &mut [u32; 3]) {
    for turns in [[4, 6, 8], [16, 19, 4]] {
        *a = a.wrapping_sub(*c) ^ c.rotate_left(turns[0]);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(turns[1]);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(turns[2]);
        *b = b.wrapping_add(*a);
    }
}

fn finish([a, b, c]: &mut [u32; 3]) {
    let step = |word: &mut u32, other: u32, turn: u32| {
        *word = (*word ^ other).wrapping_sub(other.rotate_left(turn));
    };
    step(c, *b, 14);
    step(a, *c, 11);
    step(b, *a, 25);
    step(c, *b, 16);
    step(a, *c, 4);
    step(b, *a, 14);
    step(c, *b, 24);
}

/// The text of a row: texts in quotes where they need them, nothing for NULL.
pub(in crate::sink) fn row_text(cells: &[Option<String>]) -> String {
    let mut text = String::from("(");
    for (place, cell) in cells.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let Some(cell) = cell else { continue };
        if !needs_quotes(cell) {
            text.push_str(cell);
            continue;
        }
        text.push('"');
        for c in cell.chars() {
            if matches!(c, '"' | '\\') {
                text.push(c);
            }
            text.push(c);
        }
        text.push('"');
    }
    text.push(')');
    text
}

fn needs_quotes(cell: &str) -> bool {
    let special = |byte| matches!(byte, b'"' | b'\\' | b'(' | b')' | b',' | b' ' | b'\t'..=b'\r');
    cell.is_empty() || cell.bytes().any(special)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL 15 answers.
    #[test]
    fn it_is_postgresqls_hash() {
        for (text, wanted) in [
            ("", -6_939_563_903_564_495_251),
            ("a", 3_591_986_179_850_072_241),
            ("abc", -6_747_756_470_228_489_321),
            ("abcd", -1_038_429_303_365_892_052),
            ("abcdefg", -6_158_032_784_613_548_338),
            ("abcdefgh", -8_882_191_227_074_733_005),
            ("abcdefghijk", 3_112_909_444_737_856_467),
            ("abcdefghijkl", -7_556_637_188_122_330_412),
            ("(1,\"größe 🦀\",,2024-02-29)", -5_726_208_926_668_421_301),
            ("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", 3_322_093_159_090_499_136),
        ] {
            assert_eq!(hash(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn it_is_postgresqls_text_of_a_row() {
        let row = |cells: &[Option<&str>]| {
            row_text(&cells.iter().map(|cell| cell.map(str::to_owned)).collect::<Vec<_>>())
        };
        assert_eq!(row(&[Some("a"), None, Some("")]), r#"(a,,"")"#);
        assert_eq!(row(&[Some("a b"), Some("c\"\\d"), Some("é,")]), r#"("a b","c""\\d","é,")"#);
        assert_eq!(row(&[None]), "()");
    }
}
