//! Change events of an orders table as the connector writes them, about 270 B in the mean.

use apache_avro::types::Value;

/// Their writer schema, as Debezium registers it.
pub(crate) const SCHEMA: &str = include_str!("../envelope.avsc");

/// Event `n`, of the row with the id `n`: both images for an update, else the one it has.
pub(crate) fn envelope(op: &str, n: usize, random: &mut fastrand::Rng) -> Value {
    let (before, after) = match op {
        "u" => (some(row(n, random)), some(row(n, random))),
        "d" => (some(row(n, random)), none()),
        _ => (none(), some(row(n, random))),
    };
    let ms = 1_763_900_000_000 + n as i64;
    record(vec![
        ("before", before),
        ("after", after),
        ("source", source(n, ms)),
        ("transaction", none()),
        ("op", op.into()),
        ("ts_ms", some(ms + 40)),
        ("ts_us", some((ms + 40) * 1_000)),
        ("ts_ns", some((ms + 40) * 1_000_000)),
    ])
}

fn row(n: usize, random: &mut fastrand::Rng) -> Value {
    let cents = random.i32(0..10_000_000).to_be_bytes().to_vec();
    let note: String = (0..random.usize(8..40)).map(|_| random.alphabetic()).collect();
    let updated = format!("2025-11-23T12:{:02}:{:02}.{:06}Z", n / 60 % 60, n % 60, n % 1_000_000);
    record(vec![
        ("id", (n as i64).into()),
        ("customer_id", random.i32(0..1_000_000).into()),
        ("status", Value::Union(0, Box::new(["new", "paid", "shipped"][n % 3].into()))),
        ("amount", some(Value::Decimal(cents.into()))),
        ("note", some(note)),
        ("created_at", (1_763_900_000_000_000 + n as i64).into()),
        ("updated_at", some(updated)),
        ("active", random.bool().into()),
        ("score", some(random.f64())),
        ("quantity", random.i32(0..100).into()),
        ("due", if n.is_multiple_of(4) { none() } else { some(20_000 + (n % 365) as i32) }),
        ("extra", if n.is_multiple_of(2) { none() } else { some(format!(r#"{{"n":{n}}}"#)) }),
    ])
}

fn source(n: usize, ms: i64) -> Value {
    record(vec![
        ("version", "3.6.1.Final".into()),
        ("connector", "postgresql".into()),
        ("name", "shop".into()),
        ("ts_ms", ms.into()),
        ("snapshot", Value::Union(1, Box::new(Value::Null))),
        ("db", "shopdb".into()),
        ("sequence", some(format!(r#"["{}","{}"]"#, 26_564_000 + n, 26_564_224 + n))),
        ("ts_us", some(ms * 1_000)),
        ("ts_ns", some(ms * 1_000_000)),
        ("schema", "public".into()),
        ("table", "orders".into()),
        ("txId", some(768 + n as i64)),
        ("lsn", some(26_564_224 + n as i64)),
        ("xmin", none()),
    ])
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn some(value: impl Into<Value>) -> Value {
    Value::Union(1, Box::new(value.into()))
}

fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}
