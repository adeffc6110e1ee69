//! Rows in the format of a binary COPY.

use apache_avro::types::Value;

use crate::Error;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Microseconds and days from Unix' epoch to PostgreSQL's.
const EPOCH_US: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// The mirror's columns, in the order of the rows.
pub(crate) const COLUMNS: &str = "id int8 NOT NULL, customer_id int4 NOT NULL, \
    status text, amount numeric(12,2), note text, created_at timestamp NOT NULL, \
    updated_at timestamptz, active bool NOT NULL, score float8, quantity int2 NOT NULL, due date, \
    extra jsonb";

/// A row `n` that is there before, for [`COLUMNS`].
pub(crate) const ROW: &str = "n, n % 1000000, 'new', n % 10000000 / 100.0, \
    'note ' || md5(n::text), timestamp '2025-11-23 12:00' + n * interval '1 us', now(), \
    n % 2 = 0, random(), n % 100, CASE WHEN n % 4 <> 0 THEN date '2025-01-01' + n % 365 END, \
    CASE WHEN n % 2 <> 0 THEN jsonb_build_object('n', n) END";

/// The row after an event.
pub(crate) fn copy_row(event: &Value) -> Result<Vec<u8>, Error> {
    let Value::Record(fields) = field(event, "after")? else { return Err("no row".into()) };
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&(fields.len() as i16).to_be_bytes());
    for (name, value) in fields {
        put(name, inner(value), &mut out)?;
    }
    Ok(out)
}

/// A key.
pub(crate) fn key_row(n: usize) -> Vec<u8> {
    let mut out = 1_i16.to_be_bytes().to_vec();
    sized(&(n as i64).to_be_bytes(), &mut out);
    out
}

/// Rows with what stands around them in a COPY.
pub(crate) fn with_copy_frame<'r>(rows: impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        if out.is_empty() {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[0; 8]);
        }
        out.extend_from_slice(row);
    }
    if !out.is_empty() {
        out.extend_from_slice(&(-1_i16).to_be_bytes());
    }
    out
}

fn field<'v>(record: &'v Value, name: &str) -> Result<&'v Value, Error> {
    let Value::Record(fields) = record else { return Err("no record".into()) };
    let found = fields.iter().find(|(field, _)| field == name);
    found.map(|(_, value)| inner(value)).ok_or_else(|| format!("no field {name}").into())
}

fn inner(value: &Value) -> &Value {
    match value {
        Value::Union(_, inner) => inner,
        value => value,
    }
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put(name: &str, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match (name, value) {
        (_, Value::Null) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        ("created_at", Value::Long(us)) => sized(&(us - EPOCH_US).to_be_bytes(), out),
        ("updated_at", Value::String(text)) => sized(&instant(text)?.to_be_bytes(), out),
        ("due", Value::Int(days)) => sized(&(days - EPOCH_DAYS).to_be_bytes(), out),
        ("quantity", Value::Int(number)) => sized(&i16::try_from(*number)?.to_be_bytes(), out),
        ("amount", Value::Decimal(decimal)) => {
            let bytes = <Vec<u8>>::try_from(decimal)?;
            let cents = bytes.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
            sized(&numeric(cents)?, out);
        }
        ("extra", Value::String(text)) => {
            let mut jsonb = vec![1];
            jsonb.extend_from_slice(text.as_bytes());
            sized(&jsonb, out);
        }
        (_, Value::String(text)) => sized(text.as_bytes(), out),
        (_, Value::Long(number)) => sized(&number.to_be_bytes(), out),
        (_, Value::Int(number)) => sized(&number.to_be_bytes(), out),
        (_, Value::Double(number)) => sized(&number.to_be_bytes(), out),
        (_, Value::Boolean(bit)) => sized(&[u8::from(*bit)], out),
        _ => return Err(format!("column {name} holds {value:?}").into()),
    }
    Ok(())
}

/// `2025-11-23T12:MM:SS.ffffffZ`, the only form there is.
fn instant(text: &str) -> Result<i64, Error> {
    const NOON: i64 = 1_763_899_200_000_000;
    let part = |from: usize, to: usize| -> Result<i64, Error> {
        Ok(text.get(from..to).ok_or("no timestamp")?.parse()?)
    };
    let seconds = part(14, 16)? * 60 + part(17, 19)?;
    Ok(NOON + seconds * 1_000_000 + part(20, text.len() - 1)? - EPOCH_US)
}

/// A number of cents.
fn numeric(cents: i64) -> Result<Vec<u8>, Error> {
    let (mut whole, rest) = (cents / 100, cents % 100 * 100);
    let mut digits = vec![i16::try_from(rest)?];
    while whole > 0 {
        digits.insert(0, i16::try_from(whole % 10_000)?);
        whole /= 10_000;
    }
    let weight = digits.len() as i16 - 2;
    let mut out = Vec::new();
    for number in [digits.len() as i16, weight, 0, 2].into_iter().chain(digits) {
        out.extend_from_slice(&number.to_be_bytes());
    }
    Ok(out)
}
