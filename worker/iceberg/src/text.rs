//! A value of a table as PostgreSQL writes the value that it came from.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use cdc_shared::{hex, pg_text};

/// The text of one value; `None` for NULL. A struct is `(a,b)`, without any quotes.
///
/// # Errors
/// The type, when it is none of those that the sink writes.
pub(crate) fn text(column: &ArrayRef, row: usize) -> Result<Option<String>, String> {
    if column.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => pg_text::float4(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => pg_text::float8(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => pg_text::date(column.as_primitive::<Date32Type>().value(row).into()),
        DataType::Time64(TimeUnit::Microsecond) => {
            pg_text::time(column.as_primitive::<Time64MicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            pg_text::timestamp(micros, zone.is_some())
        }
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
        DataType::Binary => bytes(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(column.as_binary::<i64>().value(row)),
        DataType::FixedSizeBinary(16) => {
            let value = column.as_fixed_size_binary().value(row);
            uuid::Uuid::from_slice(value).map_err(|error| error.to_string())?.to_string()
        }
        DataType::List(_) => elements(&column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => elements(&column.as_list::<i64>().value(row))?,
        DataType::Struct(_) => {
            let fields = column.as_struct().columns().iter();
            let fields: Vec<_> = fields.map(|field| text(field, row)).collect::<Result<_, _>>()?;
            let fields: Vec<String> = fields.into_iter().map(Option::unwrap_or_default).collect();
            format!("({})", fields.join(","))
        }
        other => return Err(other.to_string()),
    }))
}

fn bytes(bytes: &[u8]) -> String {
    format!("\\x{}", hex::encode(bytes))
}

/// In an array a boolean has one letter only.
fn elements(list: &ArrayRef) -> Result<String, String> {
    let flag = |text: String| text.chars().take(1).collect();
    let is_flag = *list.data_type() == DataType::Boolean;
    let texts = (0..list.len()).map(|at| {
        let text = text(list, at)?;
        Ok(if is_flag { text.map(flag) } else { text })
    });
    let texts: Vec<Option<String>> = texts.collect::<Result<_, String>>()?;
    Ok(pg_text::array(texts.into_iter()))
}
