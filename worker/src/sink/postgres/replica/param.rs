//! Columns of rows as array parameters, written straight from the cells.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use super::segment::{Cell, Segment};

/// One column of some rows in PostgreSQL's binary array format.
#[derive(Debug)]
pub(super) struct ColumnParam<'s> {
    /// Where the cells are.
    pub(super) segment: &'s Segment,
    /// Which rows.
    pub(super) rows: &'s [u32],
    /// Which column.
    pub(super) column: usize,
}

impl ToSql for ColumnParam<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // One dimension; whether it has NULLs, corrected below; the elements' type.
        out.put_i32(1);
        let flag = out.len();
        out.put_i32(0);
        out.put_u32(self.segment.layout.columns[self.column].ty.wire.element_oid());
        // Its length and its first index.
        out.put_i32(self.rows.len() as i32);
        out.put_i32(1);
        let mut has_null = false;
        for row in self.rows {
            match self.segment.cell(*row, self.column) {
                Cell::Value(bytes) => {
                    out.put_i32(bytes.len() as i32);
                    out.put_slice(bytes);
                }
                Cell::Null | Cell::Missing => {
                    out.put_i32(-1);
                    has_null = true;
                }
            }
        }
        if has_null && let Some(flag) = out.get_mut(flag..flag + 4) {
            flag.copy_from_slice(&1_i32.to_be_bytes());
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // The statement names the array type that the column's wire format is of.
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}
