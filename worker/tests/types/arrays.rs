//! Array parameters made of encoded elements.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use cdc_worker::sink::postgres::replica::types::Wire;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// A column of elements in wire format; `None` for NULL.
#[derive(Debug)]
pub(crate) struct ArrayParameter {
    pub(crate) wire: Wire,
    pub(crate) elements: Vec<Option<Vec<u8>>>,
}

impl ToSql for ArrayParameter {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i32(1);
        out.put_i32(1);
        out.put_u32(self.wire.element_oid());
        out.put_i32(self.elements.len() as i32);
        out.put_i32(1);
        for element in &self.elements {
            match element {
                None => out.put_i32(-1),
                Some(bytes) => {
                    out.put_i32(bytes.len() as i32);
                    out.put_slice(bytes);
                }
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}
