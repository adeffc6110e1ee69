//! The Iceberg sink: a worker's CPU beside that of its stages alone, `upsert` beside `append`, and
//! what a change costs in tables of few and of many rows.

mod peer;
mod stages;

use std::fmt;
use std::time::Instant;

use cdc_shared::config::process_variables;

use self::stages::Stages;
use super::pipeline::{Pipeline, SinkLines};
use super::process::{PATIENCE, Process};
use super::replica::load::{Full, Load, Size};
use super::replica::{self, load};
use super::topic::delete;
use super::{Bench, Error, median};

const MAX_BUFFERED: usize = 5_000;
/// How often the worker's metrics are looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// What one worker showed.
pub(crate) struct Shown {
    /// From its start to the last commit, in seconds.
    pub(crate) seconds: f64,
    /// CPU seconds.
    pub(crate) cpu: f64,
    /// `VmHWM`, in MB.
    pub(crate) peak: f64,
}

/// The Iceberg sink on one topic.
pub(crate) struct Measured {
    pub(crate) changes: usize,
    pub(crate) append: Vec<Shown>,
    pub(crate) upsert: Vec<Shown>,
    pub(crate) stages: Vec<Stages>,
    /// Iceberg's sink for Kafka Connect.
    pub(crate) peer: Vec<Shown>,
    /// Rows in the table, changes, and CPU seconds of a worker that wrote them.
    pub(crate) grown: Vec<(usize, usize, f64)>,
}

/// `beside_peer`: `append` alone, beside Iceberg's sink instead of the stages.
pub(crate) async fn measure(
    bench: &Bench,
    records: usize,
    beside_peer: bool,
) -> Result<Measured, Error> {
    let size = Size { records, rows: records / 2, partitions: bench.partitions };
    let full = replica::fill(bench, Load::Mixed, size).await?;
    eprintln!("{} changes of {} B in {}", full.changes, full.mean_bytes, full.topic);
    let mut measured = Measured {
        changes: full.changes,
        append: Vec::new(),
        upsert: Vec::new(),
        stages: Vec::new(),
        peer: Vec::new(),
        grown: Vec::new(),
    };
    let outcome = Box::pin(passes(bench, &full, &mut measured, beside_peer)).await;
    delete(bench, &[&full.topic]).await;
    outcome?;
    if beside_peer {
        return Ok(measured);
    }
    for rows in grown_rows()? {
        let cost = Box::pin(grown(bench, rows, records * 3 / 10)).await?;
        eprintln!(
            "iceberg, upsert, {rows} rows: {:.2} µs of CPU a change",
            1e6 * cost.2 / cost.1 as f64
        );
        measured.grown.push(cost);
    }
    Ok(measured)
}

/// `BENCH_LAKE_ROWS`: rows that a table has before its changes are measured.
fn grown_rows() -> Result<Vec<usize>, Error> {
    let text = process_variables().remove("BENCH_LAKE_ROWS");
    let text = text.unwrap_or_else(|| "100000,2000000".to_owned());
    let numbers = text.split(',').map(str::parse);
    Ok(numbers.collect::<Result<_, std::num::ParseIntError>>()?)
}

async fn passes(
    bench: &Bench,
    full: &Full,
    measured: &mut Measured,
    beside_peer: bool,
) -> Result<(), Error> {
    let modes = if beside_peer { &["append"][..] } else { &["append", "upsert"] };
    let sinks: Vec<_> = (0..bench.passes)
        .flat_map(|pass| modes.iter().map(move |mode| (mode, pass)))
        .map(|(mode, pass)| sink(bench, full.load.name(), mode, pass))
        .collect();
    let pipeline = Pipeline::start(bench, "lake", MAX_BUFFERED, &sinks).await?;
    for pass in 0..bench.passes {
        for mode in modes {
            let (mut process, address) = pipeline.worker(&format!("{mode}_{pass}"))?;
            let shown = until_there(&mut process, &address, full.messages).await?;
            process.stop().await?;
            eprintln!("iceberg, {mode}: {:.1} s, CPU {:.2} s", shown.seconds, shown.cpu);
            if *mode == "append" { &mut measured.append } else { &mut measured.upsert }.push(shown);
        }
        if beside_peer {
            let shown = Box::pin(peer::measure(bench, full, pass)).await?;
            eprintln!("iceberg, Connect: {:.1} s, CPU {:.2} s", shown.seconds, shown.cpu);
            measured.peer.push(shown);
        } else {
            let stages = Box::pin(stages::alone(bench, full, pass)).await?;
            eprintln!("iceberg, stages: read {:.2} s, write {:.2} s", stages.read, stages.write);
            measured.stages.push(stages);
        }
    }
    pipeline.stop().await
}

fn sink(bench: &Bench, table: &str, mode: &str, pass: usize) -> SinkLines {
    let folder = bench.folder.path().display();
    let lines = [
        "sink_type: iceberg".to_owned(),
        format!("tables: [public.{table}]"),
        format!(
            "iceberg: {{ catalog_uri: 'sqlite:///{folder}/{mode}_{pass}.db', write_mode: {mode}, \
             warehouse: 'file://{folder}/{mode}_{pass}', table_name: '{{table}}', \
             auto_create_table: true, batch_size: 100000000, target_file_size: 33554432, flush_interval_seconds: 10 }}"
        ),
    ];
    SinkLines { id: format!("{mode}_{pass}"), lines: lines.into() }
}

/// Waits until so many records are durable.
async fn until_there(process: &mut Process, address: &str, messages: i64) -> Result<Shown, Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let metrics = format!("http://{address}/metrics");
    let deadline = Instant::now() + PATIENCE;
    loop {
        process.check()?;
        let text = match client.get(&metrics).send().await {
            Ok(answer) => answer.text().await?,
            Err(_) => String::new(),
        };
        let durable = text.lines().filter(|line| line.starts_with("cdc_worker_watermark_offset{"));
        let durable = durable.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let durable = durable.sum::<f64>() as i64;
        if durable >= messages {
            return Ok(Shown {
                seconds: process.started.elapsed().as_secs_f64(),
                cpu: process.cpu()?,
                peak: process.memory("VmHWM")?,
            });
        }
        if Instant::now() > deadline {
            return Err(format!("{durable} of {messages} came: {}", process.log_end()).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What changes of random rows cost in a table that has so many already.
async fn grown(bench: &Bench, rows: usize, changes: usize) -> Result<(usize, usize, f64), Error> {
    let size = Size { records: 2 * rows, rows, partitions: bench.partitions };
    let inserts = replica::fill(bench, Load::Inserts, size).await?;
    let sinks = [sink(bench, Load::Inserts.name(), "upsert", rows)];
    let pipeline = Pipeline::start(bench, &format!("grown-{rows}"), MAX_BUFFERED, &sinks).await?;
    let outcome = async {
        let (mut process, address) = pipeline.worker(&format!("upsert_{rows}"))?;
        let before = until_there(&mut process, &address, inserts.messages).await?;
        let size = Size { records: changes * 10 / 3, ..size };
        let updates = load::more(&bench.stack, &inserts, size)?;
        let after = until_there(&mut process, &address, inserts.messages + updates).await?;
        process.stop().await?;
        Ok::<_, Error>((rows, changes, after.cpu - before.cpu))
    };
    let outcome = Box::pin(outcome).await;
    delete(bench, &[&inserts.topic]).await;
    pipeline.stop().await?;
    outcome
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = self.changes as f64;
        let append = cpu(&self.append);
        let each = changes / append;
        if !self.peer.is_empty() {
            let peer = cpu(&self.peer);
            writeln!(
                f,
                "| iceberg append, {changes} changes | {each:.0} changes per CPU second | Iceberg Kafka \
                 Connect {:.0} | {:.1}x | ≥ 15x |",
                changes / peer,
                peer / append
            )?;
            let (ours, theirs) = (peak(&self.append), peak(&self.peer));
            return writeln!(
                f,
                "| its peak memory | {ours:.0} MB | {theirs:.0} MB | 1/{:.1} | ≤ 1/8 |",
                theirs / ours
            );
        }
        let stages = median(self.stages.iter().map(|stages| stages.read + stages.write));
        writeln!(
            f,
            "| iceberg append, {changes} changes | {each:.0} changes per CPU second | reading, and writing \
             from memory {:.0} | {:.2}x its CPU | ≤ 1.3x |",
            changes / stages,
            append / stages
        )?;
        let upsert = cpu(&self.upsert);
        writeln!(
            f,
            "| iceberg upsert | {:.0} changes per CPU second | append | {:.2}x | ≥ 0.5x |",
            changes / upsert,
            append / upsert
        )?;
        for (name, shown) in [("append", &self.append), ("upsert", &self.upsert)] {
            writeln!(
                f,
                "| iceberg {name}, start to the last commit (every 10 s), peak memory | {:.1} s, {:.0} MB | | | |",
                median(shown.iter().map(|shown| shown.seconds)),
                peak(shown)
            )?;
        }
        self.grown(f)
    }
}

impl Measured {
    fn grown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = |(_, changes, cpu): &(usize, usize, f64)| 1e6 * cpu / *changes as f64;
        let Some(first) = self.grown.first() else { return Ok(()) };
        for grown in &self.grown {
            writeln!(
                f,
                "| iceberg upsert, an update among {} rows | {:.1} µs of CPU | among {} rows | {:.2}x | ≤ 1.5x |",
                grown.0,
                cost(grown),
                first.0,
                cost(grown) / cost(first)
            )?;
        }
        Ok(())
    }
}

fn cpu(shown: &[Shown]) -> f64 {
    median(shown.iter().map(|shown| shown.cpu))
}

fn peak(shown: &[Shown]) -> f64 {
    shown.iter().map(|shown| shown.peak).fold(f64::NAN, f64::max)
}
