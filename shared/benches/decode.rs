//! Speed of the record path: envelopes to cells, to JSON text, and apache-avro beside them.
//!
//! 20 000 distinct envelopes, half creates, 40 % updates with both images, 10 % deletes. All
//! paths take turns in each pass, so that a slow moment of the machine hits them alike; the
//! median of the passes counts.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop at the first fault")]
#![expect(clippy::print_stdout, reason = "its output is the result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use cdc_shared::avro::{CellBuf, Plan, frame};
use cdc_shared::envelope::{EnvelopePlan, ValueSchema};
use cdc_shared::json::{JsonOptions, Unavailable, write_envelope};

const SCHEMA: &str = include_str!("envelope.avsc");
const MESSAGES: usize = 20_000;
const PASSES: usize = 9;

fn main() {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let messages = messages(&schema);
    let bytes: usize = messages.iter().map(Vec::len).sum();
    println!("{MESSAGES} envelopes, {} B mean, median of {PASSES} passes", bytes / MESSAGES);

    let plan = Plan::compile(1, SCHEMA, &[] as &[(&str, &str)]).unwrap();
    let values = ValueSchema::of(plan.into());
    let envelopes = values.envelope().unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();

    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..PASSES {
        times[0].push(timed(|| to_values(&reader, &messages)));
        times[1].push(timed(|| to_cells(envelopes, &messages)));
        times[2].push(timed(|| to_rows(envelopes, &messages)));
        times[3].push(timed(|| to_json(envelopes, &messages)));
    }
    let names = ["apache-avro reused", "cells", "cells, every value read", "cells, JSON text"];
    let base = median(&mut times[0]);
    println!("{:<26} {:>9} {:>12} {:>7}", "path", "ns/rec", "rec/s", "ratio");
    for (name, times) in names.iter().zip(&mut times) {
        let nanos = median(times);
        println!("{name:<26} {nanos:>9.0} {:>12.0} {:>6.1}x", 1e9 / nanos, base / nanos);
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / MESSAGES as f64
}

fn to_values(reader: &GenericDatumReader<'_>, messages: &[Vec<u8>]) {
    for message in messages {
        let (_, mut datum) = frame(message).unwrap();
        black_box(reader.read_value(&mut datum).unwrap());
    }
}

fn to_cells(envelopes: &EnvelopePlan, messages: &[Vec<u8>]) {
    let mut cells = CellBuf::new();
    for message in messages {
        let (_, datum) = frame(message).unwrap();
        cells.clear();
        black_box(envelopes.plan().decode(datum, &mut cells).unwrap());
    }
}

fn to_rows(envelopes: &EnvelopePlan, messages: &[Vec<u8>]) {
    let mut spare = CellBuf::new();
    for message in messages {
        let (_, datum) = frame(message).unwrap();
        let mut cells = spare.recycle();
        let root = envelopes.plan().decode(datum, &mut cells).unwrap();
        let envelope = envelopes.envelope(root, &cells).unwrap();
        black_box((envelope.op(), envelope.source_ts_ms(), envelope.snapshot()));
        for row in [envelope.before(), envelope.after()].into_iter().flatten() {
            for (_, value) in row.iter() {
                black_box(value.cell());
            }
        }
        spare = cells.recycle();
    }
}

fn to_json(envelopes: &EnvelopePlan, messages: &[Vec<u8>]) {
    let options = JsonOptions::default();
    let mut cells = CellBuf::new();
    let mut out = Vec::new();
    for message in messages {
        let (_, datum) = frame(message).unwrap();
        cells.clear();
        out.clear();
        let root = envelopes.plan().decode(datum, &mut cells).unwrap();
        let envelope = envelopes.envelope(root, &cells).unwrap();
        let mut unavailable = Unavailable::default();
        write_envelope(&envelope, &options, &mut out, &mut unavailable).unwrap();
        black_box(&out);
    }
}

fn messages(schema: &Schema) -> Vec<Vec<u8>> {
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    (0..MESSAGES)
        .map(|n| {
            let mut message = vec![0, 0, 0, 0, 1];
            writer.write_value(&mut message, envelope(n, &mut random)).unwrap();
            message
        })
        .collect()
}

fn envelope(n: usize, random: &mut fastrand::Rng) -> Value {
    let (op, before, after) = match n % 10 {
        0..5 => ("c", none(), some(row(n, random))),
        5..9 => ("u", some(row(n, random)), some(row(n, random))),
        _ => ("d", some(row(n, random)), none()),
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
    let updated = format!("2025-11-23T12:{:02}:{:02}.{:06}Z", n / 60 % 60, n % 60, n);
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
