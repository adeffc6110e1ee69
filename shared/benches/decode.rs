//! Speed of the record path: envelopes to cells, to JSON text, and apache-avro beside them.
//!
//! 20 000 distinct envelopes, half creates, 40 % updates with both images, 10 % deletes. All
//! paths take turns in each pass, so that a slow moment of the machine hits them alike; the
//! median of the passes counts.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop at the first fault")]
#![expect(clippy::print_stdout, reason = "its output is the result")]

mod envelopes;

use std::hint::black_box;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use cdc_shared::avro::{CellBuf, Plan, frame};
use cdc_shared::envelope::{EnvelopePlan, ValueSchema};
use cdc_shared::json::{JsonOptions, Unavailable, write_envelope};
use envelopes::{SCHEMA, envelope};

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
            writer.write_value(&mut message, envelope(op(n), n, &mut random)).unwrap();
            message
        })
        .collect()
}

fn op(n: usize) -> &'static str {
    match n % 10 {
        0..5 => "c",
        5..9 => "u",
        _ => "d",
    }
}
