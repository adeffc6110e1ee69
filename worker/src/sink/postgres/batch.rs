//! The rows of one flush, kept as the bytes that go over the wire.
//!
//! JSON is written once, straight from the decoded cells into the buffer that becomes an array
//! parameter: no text per row, no copy per column.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::sink::Rejection;

/// Longest field that PostgreSQL takes (`MaxAllocSize`, 1 GB less one) with room for its header.
const MAX_FIELD_BYTES: usize = 0x3fff_0000;

/// One column of texts in PostgreSQL's binary array format, without the array's header.
#[derive(Debug, Default)]
pub(super) struct TextColumn {
    wire: Vec<u8>,
    rows: i32,
    has_null: bool,
}

impl TextColumn {
    /// Appends what `write` appends.
    ///
    /// # Errors
    /// A text that no field can hold, or that `check` refuses; the column is as before then.
    fn push(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
        check: impl FnOnce(&[u8]) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let start = self.wire.len();
        self.wire.extend_from_slice(&[0; 4]);
        if let Err(rejection) = write(&mut self.wire) {
            self.wire.truncate(start);
            return Err(rejection);
        }
        let text = self.wire.get(start + 4..).unwrap_or_default();
        let length = text.len();
        let verdict = if length > MAX_FIELD_BYTES { Err(too_long(length)) } else { check(text) };
        if let Err(rejection) = verdict {
            self.wire.truncate(start);
            return Err(rejection);
        }
        if let Some(prefix) = self.wire.get_mut(start..start + 4) {
            prefix.copy_from_slice(&(length as i32).to_be_bytes());
        }
        self.rows += 1;
        Ok(())
    }

    /// Appends SQL's NULL.
    fn push_null(&mut self) {
        self.wire.extend_from_slice(&(-1i32).to_be_bytes());
        self.rows += 1;
        self.has_null = true;
    }

    fn clear(&mut self) {
        self.wire.clear();
        self.rows = 0;
        self.has_null = false;
    }
}

impl ToSql for TextColumn {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let one_dimension = [1, i32::from(self.has_null)];
        let from_one = [self.rows, 1];
        out.reserve(20 + self.wire.len());
        one_dimension.into_iter().for_each(|number| out.put_i32(number));
        out.put_u32(Type::TEXT.oid());
        from_one.into_iter().for_each(|number| out.put_i32(number));
        out.put_slice(&self.wire);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

/// Rows in offset order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// `event_key`.
    pub(super) keys: TextColumn,
    /// `event_value`.
    pub(super) values: TextColumn,
    /// `source_offset`, rising.
    pub(super) offsets: Vec<i64>,
}

impl Batch {
    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of the rows as they are sent.
    pub(super) fn bytes(&self) -> usize {
        self.keys.wire.len() + self.values.wire.len()
    }

    /// Empties it and keeps its memory, unless that has grown beyond `keep` bytes.
    pub(super) fn clear(&mut self, keep: usize) {
        for column in [&mut self.keys, &mut self.values] {
            column.clear();
            column.wire.shrink_to(keep);
        }
        self.offsets.clear();
    }

    /// Takes one row: the key and the value that the two functions append, each refused by its
    /// check. `key`: `None` for SQL's NULL.
    ///
    /// # Errors
    /// The first refusal; the batch is as before then.
    pub(super) fn push<K, V, KC, VC>(
        &mut self,
        offset: i64,
        key: Option<(K, KC)>,
        value: (V, VC),
    ) -> Result<(), Rejection>
    where
        K: FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
        V: FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
        KC: FnOnce(&[u8]) -> Result<(), Rejection>,
        VC: FnOnce(&[u8]) -> Result<(), Rejection>,
    {
        let (length, had_null) = (self.keys.wire.len(), self.keys.has_null);
        match key {
            Some((write, check)) => self.keys.push(write, check)?,
            None => self.keys.push_null(),
        }
        if let Err(rejection) = self.values.push(value.0, value.1) {
            self.keys.wire.truncate(length);
            self.keys.rows -= 1;
            self.keys.has_null = had_null;
            return Err(rejection);
        }
        self.offsets.push(offset);
        Ok(())
    }
}

fn too_long(length: usize) -> Rejection {
    Rejection {
        code: "value_too_long",
        message: format!("the event has {length} bytes as JSON, a PostgreSQL field holds 1 GB"),
    }
}

/// Whether JSON text has the escape `\u0000`, which `jsonb` cannot store (its texts end up as
/// PostgreSQL texts, and those cannot hold NUL).
pub(super) fn has_nul_escape(json: &[u8]) -> bool {
    const ESCAPE: &[u8] = b"u0000";
    let mut rest = json;
    while let Some(backslash) = rest.iter().position(|byte| *byte == b'\\') {
        // A backslash takes the next character with it, so an escaped backslash cannot begin
        // another escape.
        let after = rest.get(backslash + 1..).unwrap_or_default();
        if after.starts_with(ESCAPE) {
            return true;
        }
        rest = after.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(column: &mut TextColumn, text: &str) {
        column.push(|out| out.extend_from_slice(text.as_bytes()), |_| Ok(())).unwrap();
    }

    fn wire(column: &TextColumn) -> Vec<u8> {
        let mut out = BytesMut::new();
        column.to_sql(&Type::TEXT_ARRAY, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn a_column_is_the_array_that_the_client_library_would_send() {
        let mut column = TextColumn::default();
        let mut expected = BytesMut::new();
        Vec::<Option<&str>>::new().to_sql(&Type::TEXT_ARRAY, &mut expected).unwrap();
        assert_eq!(wire(&column), expected.to_vec());

        write(&mut column, "{}");
        column.push_null();
        write(&mut column, "");
        let mut expected = BytesMut::new();
        vec![Some("{}"), None, Some("")].to_sql(&Type::TEXT_ARRAY, &mut expected).unwrap();
        assert_eq!(wire(&column), expected.to_vec());
    }

    #[test]
    fn a_refused_text_leaves_no_trace() {
        let mut column = TextColumn::default();
        write(&mut column, "kept");
        let before = wire(&column);
        let refuse = |_: &[u8]| Err(Rejection { code: "x", message: String::new() });
        assert!(column.push(|out| out.extend_from_slice(b"gone"), refuse).is_err());
        assert_eq!(wire(&column), before);
    }

    #[test]
    fn a_refused_value_takes_its_key_with_it() {
        let mut batch = Batch::default();
        let text = |out: &mut Vec<u8>| out.extend_from_slice(b"{}");
        let fine = |_: &[u8]| Ok(());
        let refuse = |_: &[u8]| Err(Rejection { code: "x", message: String::new() });
        batch.push(1, Some((text, fine)), (text, fine)).unwrap();
        let before = (wire(&batch.keys), wire(&batch.values), batch.offsets.clone());
        assert!(batch.push(2, Some((text, fine)), (text, refuse)).is_err());
        let no_key: Option<(fn(&mut Vec<u8>), fn(&[u8]) -> Result<(), Rejection>)> = None;
        assert!(batch.push(2, no_key, (text, refuse)).is_err());
        assert_eq!((wire(&batch.keys), wire(&batch.values), batch.offsets.clone()), before);
    }

    #[test]
    fn only_a_real_nul_escape_counts() {
        assert!(has_nul_escape(br#"{"a":"x\u0000y"}"#));
        assert!(has_nul_escape(br#""\\\u0000""#));
        assert!(!has_nul_escape(br#""\\u0000""#));
        assert!(!has_nul_escape(br#""u0000 \u0001 \n \"""#));
        assert!(!has_nul_escape(br"\"));
    }
}
