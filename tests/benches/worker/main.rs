//! Speed and memory of a whole worker, on the real stack: `cdc serve` and `cdc-worker run` as
//! processes of their own, a topic that is already full, and beside each sink a bare client that
//! does the same work without a platform. Prints one table; only what cannot be measured is a
//! failure.
//!
//! `BENCH_RECORDS` (200000) envelopes, `BENCH_PASSES` (3) passes of which the median counts,
//! `BENCH_SINKS` (`webhook,events,replica,partitions,iceberg`) what is measured, `partitions` being
//! the replica sink over 1, 4, 16 and 64 of them; beside these `live` (the replica sink
//! behind a live source, for `BENCH_SECONDS` (20), with `BENCH_FLUSH_MS` (20)) and `peers` (beside
//! Debezium's JDBC sink), `lake-peers` (the Iceberg sink beside Iceberg's own for Kafka Connect).
//! Of the replica sink: `BENCH_LOADS` (`mixed,inserts,updates,deletes,moves`), `BENCH_PARTITIONS`
//! (4), `BENCH_ROWS` (half of the records), the rows that updates and deletes find in the table.
//! Of the Iceberg sink: `BENCH_LAKE_ROWS` (`100000,2000000`), the rows that changes find in it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is the result")]

mod connect;
#[path = "../../../shared/benches/envelopes/mod.rs"]
mod envelopes;
mod events;
mod iceberg;
mod live;
mod pipeline;
mod process;
mod receiver;
mod replica;
mod stack;
mod table;
mod topic;
mod webhook;

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cdc_shared::config::process_variables;
use process::Process;
use stack::Stack;
use table::Table;
use topic::Topic;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What one pass of a worker showed.
struct Pass {
    /// Records per second, from the first that was seen delivered to the last.
    rate: f64,
    /// From the start of the process to the first delivered record, in seconds.
    first: f64,
    /// `VmHWM` at the end, in MB.
    peak: f64,
}

/// How far something was seen to have come, and when.
type Sight = (Instant, i64);

impl Pass {
    /// Ends a process that was seen at two places of its topic; `share` of the messages count.
    async fn between(
        process: Process,
        (first, before): Sight,
        (last, after): Sight,
        share: f64,
    ) -> Result<Self, Error> {
        let pass = Self {
            rate: (after - before) as f64 * share / (last - first).as_secs_f64(),
            first: (first - process.started).as_secs_f64(),
            peak: process.memory("VmHWM")?,
        };
        process.stop().await?;
        Ok(pass)
    }
}

/// What is measured, and where.
struct Bench {
    stack: Stack,
    /// Part of every name that this run makes.
    run: String,
    passes: usize,
    /// Of the replica sink's topics.
    partitions: usize,
    folder: tempfile::TempDir,
}

fn main() -> ExitCode {
    match measured() {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measured() -> Result<Table, Error> {
    cdc_shared::tls::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(measure()))
}

async fn measure() -> Result<Table, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut bench = Bench {
        stack: Stack::find()?,
        run: format!("bench-{seconds}"),
        passes: number("BENCH_PASSES", 3)?,
        partitions: number("BENCH_PARTITIONS", 4)?,
        folder: tempfile::tempdir()?,
    };
    let records = number("BENCH_RECORDS", 200_000)?;
    let sinks = process_variables().remove("BENCH_SINKS");
    let sinks = sinks.unwrap_or_else(|| "webhook,events,replica,partitions,iceberg".to_owned());
    let has = |sink: &str| sinks.split(',').any(|name| name == sink);
    let mut table = Table::new(records, bench.passes, load_average()?);
    if has("webhook") || has("events") {
        let topic = Topic::fill(&bench, records).await?;
        eprintln!("{} envelopes of {} B in {}", topic.events.len(), topic.mean_bytes, topic.name);
        table.mean_bytes = topic.mean_bytes;
        let outcome = async {
            if has("webhook") {
                webhook::measure(&bench, &topic, &mut table).await?;
            }
            if has("events") {
                events::measure(&bench, &topic, &mut table).await?;
            }
            Ok::<_, Error>(())
        };
        let outcome = Box::pin(outcome).await;
        topic.delete(&bench).await;
        outcome?;
    }
    if has("replica") || has("peers") {
        table.replica = Box::pin(replica::measure(&bench, records, has("peers"))).await?;
    }
    if has("lake-peers") {
        table.iceberg = Some(Box::pin(iceberg::measure(&bench, records, true)).await?);
    }
    if has("iceberg") {
        table.iceberg = Some(Box::pin(iceberg::measure(&bench, records, false)).await?);
    }
    if has("partitions") {
        table.partitions = Box::pin(replica::over_partitions(&mut bench, records)).await?;
    }
    if has("live") {
        table.live = Some(Box::pin(live::measure()).await?);
    }
    table.load_after = load_average()?;
    Ok(table)
}

fn number(name: &str, default: usize) -> Result<usize, Error> {
    match process_variables().get(name) {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{name} must be a number above 0, not '{text}'").into()),
        },
    }
}

/// Over the last minute.
fn load_average() -> Result<f64, Error> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
