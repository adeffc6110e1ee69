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
    /// Appends the JSON that `write` appends.
    ///
    /// # Errors
    /// What `write` refuses, and what the column cannot hold; the column is as before then.
    fn push(
        &mut self,
        is_jsonb: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let start = self.wire.len();
        self.wire.extend_from_slice(&[0; 4]);
        let verdict = write(&mut self.wire)
            .and_then(|()| storable(self.wire.get(start + 4..).unwrap_or_default(), is_jsonb));
        if let Err(rejection) = verdict {
            self.wire.truncate(start);
            return Err(rejection);
        }
        let length = (self.wire.len() - start - 4) as i32;
        if let Some(prefix) = self.wire.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
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
        out.reserve(20 + self.wire.len());
        // One dimension; whether it has NULLs; the elements' type.
        out.put_i32(1);
        out.put_i32(i32::from(self.has_null));
        out.put_u32(Type::TEXT.oid());
        // Its length and its first index.
        out.put_i32(self.rows);
        out.put_i32(1);
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

    /// Takes one row: the JSON that the functions append, into columns of the given kinds. `key`:
    /// `None` for SQL's NULL.
    ///
    /// # Errors
    /// The first refusal; the batch is as before then.
    pub(super) fn push<K, V>(
        &mut self,
        offset: i64,
        is_jsonb: IsJsonb,
        key: Option<K>,
        value: V,
    ) -> Result<(), Rejection>
    where
        K: FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
        V: FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
    {
        let (length, had_null) = (self.keys.wire.len(), self.keys.has_null);
        match key {
            Some(write) => self.keys.push(is_jsonb.key, write)?,
            None => self.keys.push_null(),
        }
        if let Err(rejection) = self.values.push(is_jsonb.value, value) {
            self.keys.wire.truncate(length);
            self.keys.rows -= 1;
            self.keys.has_null = had_null;
            return Err(rejection);
        }
        self.offsets.push(offset);
        Ok(())
    }
}

/// Which columns are `jsonb`, as far as known: it refuses what JSON as such allows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct IsJsonb {
    /// `event_key`.
    pub(super) key: bool,
    /// `event_value`.
    pub(super) value: bool,
}

/// Refuses what a column can never hold.
fn storable(json: &[u8], is_jsonb: bool) -> Result<(), Rejection> {
    if json.len() > MAX_FIELD_BYTES {
        let message =
            format!("the event has {} bytes as JSON, a PostgreSQL field holds 1 GB", json.len());
        return Err(Rejection::new("value_too_long", message));
    }
    if is_jsonb && has_nul_escape(json) {
        return Err(Rejection::new(
            "nul_character",
            "a text has a NUL character, which jsonb cannot hold; a column of type text or json \
             takes it",
        ));
    }
    Ok(())
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

    fn text(text: &'static str) -> impl FnOnce(&mut Vec<u8>) -> Result<(), Rejection> {
        move |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
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

        column.push(false, text("{}")).unwrap();
        column.push_null();
        column.push(false, text("")).unwrap();
        let mut expected = BytesMut::new();
        vec![Some("{}"), None, Some("")].to_sql(&Type::TEXT_ARRAY, &mut expected).unwrap();
        assert_eq!(wire(&column), expected.to_vec());
    }

    #[test]
    fn a_refused_row_leaves_no_trace() {
        let mut batch = Batch::default();
        let is_jsonb = IsJsonb { key: false, value: true };
        let nul = r#""\u0000""#;
        batch.push(1, is_jsonb, Some(text(nul)), text("{}")).unwrap();
        let state = |batch: &Batch| {
            (wire(&batch.keys), wire(&batch.values), batch.offsets.clone(), batch.bytes())
        };
        let before = state(&batch);
        let keys = [Some(text("1")), None];
        for key in keys {
            let rejection = batch.push(2, is_jsonb, key, text(nul)).unwrap_err();
            assert_eq!(rejection.code, "nul_character");
        }
        let is_jsonb = IsJsonb { key: true, value: false };
        assert!(batch.push(2, is_jsonb, Some(text(nul)), text("{}")).is_err());
        assert_eq!(state(&batch), before);
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
