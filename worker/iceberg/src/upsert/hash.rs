//! Keys as hashes of 96 bits: of a billion keys, two are the same with a probability of 10⁻¹¹. They
//! are of the values, not of their types, so that a promoted column has the same.

use std::hash::Hasher;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use siphasher::sip128::{Hasher128, SipHasher13};

/// Hash of the key of a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct KeyHash(pub(super) [u32; 3]);

/// A column that can be no part of a key.
#[derive(Debug, thiserror::Error)]
#[error("a column of type {0} can be no part of a key")]
pub(crate) struct NoKey(DataType);

/// Hashes of all rows of the key's columns.
pub(crate) fn hashes(columns: &[ArrayRef]) -> Result<Vec<KeyHash>, NoKey> {
    let rows = columns.first().map_or(0, Array::len);
    let mut hashers = vec![SipHasher13::new(); rows];
    for column in columns {
        add(&mut hashers, column)?;
    }
    Ok(hashers.iter().map(finish).collect())
}

fn finish(hasher: &SipHasher13) -> KeyHash {
    let hash = hasher.finish128();
    let (low, high) = ((hash.h1 & 0xffff_ffff) as u32, (hash.h1 >> 32) as u32);
    KeyHash([low, high, (hash.h2 & 0xffff_ffff) as u32])
}

fn add(hashers: &mut [SipHasher13], column: &ArrayRef) -> Result<(), NoKey> {
    let mut each = |value: &dyn Fn(usize, &mut SipHasher13)| {
        for (row, hasher) in hashers.iter_mut().enumerate() {
            if column.is_null(row) {
                hasher.write_u8(0);
            } else {
                hasher.write_u8(1);
                value(row, hasher);
            }
        }
    };
    macro_rules! number {
        ($ty:ty) => {{
            let values = column.as_primitive::<$ty>();
            each(&|row, hasher| hasher.write_i64(i64::from(values.value(row))));
        }};
    }
    macro_rules! bytes {
        ($values:expr) => {{
            let values = $values;
            each(&|row, hasher| {
                let bytes: &[u8] = values.value(row).as_ref();
                hasher.write_u64(bytes.len() as u64);
                hasher.write(bytes);
            });
        }};
    }
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            each(&|row, hasher| hasher.write_u8(values.value(row).into()));
        }
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::Date32 => number!(Date32Type),
        DataType::Time64(TimeUnit::Microsecond) => number!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => number!(TimestampMicrosecondType),
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            each(&|row, hasher| hasher.write_u64(f64::from(values.value(row)).to_bits()));
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            each(&|row, hasher| hasher.write_u64(values.value(row).to_bits()));
        }
        DataType::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>();
            each(&|row, hasher| hasher.write_i128(values.value(row)));
        }
        DataType::FixedSizeBinary(_) => bytes!(column.as_fixed_size_binary()),
        DataType::Binary => bytes!(column.as_binary::<i32>()),
        DataType::LargeBinary => bytes!(column.as_binary::<i64>()),
        DataType::Utf8 => bytes!(column.as_string::<i32>()),
        DataType::LargeUtf8 => bytes!(column.as_string::<i64>()),
        other => return Err(NoKey(other.clone())),
    }
    Ok(())
}
