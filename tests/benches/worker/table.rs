//! The table that comes out.

use std::fmt;

use super::replica::Measured;
use super::{Pass, iceberg, live, median};

/// Records/s of the Python platform's events sink on a machine like this.
const PYTHON: f64 = 1570.0;

/// Everything measured.
pub(crate) struct Table {
    records: usize,
    pub(crate) mean_bytes: usize,
    passes: usize,
    load_before: f64,
    pub(crate) load_after: f64,
    pub(crate) idle: f64,
    pub(crate) webhook: Vec<Pass>,
    pub(crate) webhook_bare: Vec<f64>,
    pub(crate) events: Vec<Pass>,
    pub(crate) events_bare: Vec<f64>,
    pub(crate) replica: Vec<Measured>,
    pub(crate) partitions: Vec<(usize, Measured)>,
    pub(crate) live: Option<live::Measured>,
    pub(crate) iceberg: Option<iceberg::Measured>,
}

impl Table {
    pub(crate) fn new(records: usize, passes: usize, load_before: f64) -> Self {
        Self {
            records,
            mean_bytes: 0,
            passes,
            load_before,
            load_after: load_before,
            idle: f64::NAN,
            webhook: Vec::new(),
            webhook_bare: Vec::new(),
            events: Vec::new(),
            events_bare: Vec::new(),
            replica: Vec::new(),
            partitions: Vec::new(),
            live: None,
            iceberg: None,
        }
    }
}

fn rate(passes: &[Pass]) -> f64 {
    median(passes.iter().map(|pass| pass.rate))
}

fn peak(passes: &[Pass]) -> f64 {
    passes.iter().map(|pass| pass.peak).fold(f64::NAN, f64::max)
}

fn first(passes: &[Pass]) -> f64 {
    median(passes.iter().map(|pass| pass.first))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} envelopes of {} B in the mean and the tombstones of their deletes, 4 partitions, \
             max_buffered_messages 1000, 5000 for events, 7500 for the replica, 50000 for Iceberg, medians of {} passes, \
             load average {:.1} before and {:.1} after\n",
            self.records, self.mean_bytes, self.passes, self.load_before, self.load_after
        )?;
        writeln!(f, "| Worker | Measured | Compared with | Ratio | Target |")?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        if !self.webhook.is_empty() {
            self.webhook(f)?;
        }
        if !self.events.is_empty() {
            self.events(f)?;
        }
        self.replica.iter().try_for_each(|measured| replica(measured, f))?;
        self.over_partitions(f)?;
        self.iceberg.iter().try_for_each(|measured| write!(f, "{measured}"))?;
        self.live.iter().try_for_each(|measured| latency(measured, f))
    }
}

impl Table {
    fn webhook(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (webhook, bare) = (rate(&self.webhook), median(self.webhook_bare.iter().copied()));
        writeln!(
            f,
            "| webhook, 64 in flight | {webhook:.0} records/s | bare reqwest loop {bare:.0} | \
             {:.0} % | ≥ 70 % |",
            100.0 * webhook / bare
        )?;
        for (name, value, unit, target) in [
            ("webhook, peak memory", peak(&self.webhook), "MB", "≤ 100 MB"),
            ("idle memory", self.idle, "MB", "≤ 30 MB"),
            ("webhook, start to first record", first(&self.webhook), "s", "≤ 2 s"),
        ] {
            writeln!(f, "| {name} | {value:.2} {unit} | | | {target} |")?;
        }
        Ok(())
    }

    fn events(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, statements) = (rate(&self.events), median(self.events_bare.iter().copied()));
        writeln!(
            f,
            "| postgres events, batches of 2000 | {events:.0} records/s | same statement from \
             memory {statements:.0} | {:.0} % | ≥ 60 % |",
            100.0 * events / statements
        )?;
        writeln!(f, "| | | Python platform {PYTHON:.0} | {:.1}x | ≥ 20x |", events / PYTHON)?;
        for (name, value, unit, target) in [
            ("postgres events, peak memory", peak(&self.events), "MB", "≤ 100 MB"),
            ("postgres events, start to first record", first(&self.events), "s", "≤ 2 s"),
        ] {
            writeln!(f, "| {name} | {value:.2} {unit} | | | {target} |")?;
        }
        Ok(())
    }

    fn over_partitions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (partitions, Measured { worker, ceiling, .. }) in &self.partitions {
            let (ours, ceiling) = (rate(worker), median(ceiling.iter().copied()));
            writeln!(
                f,
                "| postgres replica, mixed, {partitions} partitions | {ours:.0} changes/s, {:.0} MB | \
                 COPY and one statement from memory {ceiling:.0} | {:.0} % | |",
                peak(worker),
                100.0 * ours / ceiling
            )?;
        }
        let rates = || self.partitions.iter().map(|(_, measured)| rate(&measured.worker));
        let (most, least) = (rates().fold(0.0, f64::max), rates().fold(f64::INFINITY, f64::min));
        if self.partitions.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "| most cost of a change over 1 to 64 partitions | {:.1} µs | least {:.1} µs | {:.2}x | ≤ 1.5x |",
            1e6 / least,
            1e6 / most,
            most / least
        )
    }
}

fn replica(measured: &Measured, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Measured { name, changes, mean_bytes, worker, ceiling, peer: others } = measured;
    let (ours, peak) = (rate(worker), peak(worker));
    if !others.is_empty() {
        let (other, others_peak) = (rate(others), self::peak(others));
        writeln!(
            f,
            "| postgres replica, {changes} changes of {mean_bytes} B | {ours:.0} changes/s | Debezium's JDBC sink {other:.0} | {:.1}x | ≥ 12x |",
            ours / other
        )?;
        return writeln!(
            f,
            "| its peak memory | {peak:.0} MB | {others_peak:.0} MB | 1/{:.1} | ≤ 1/15 |",
            others_peak / peak
        );
    }
    if ceiling.is_empty() {
        return writeln!(
            f,
            "| postgres replica, {changes} key changes over partitions | {ours:.0} changes/s | | | |"
        );
    }
    let ceiling = median(ceiling.iter().copied());
    writeln!(
        f,
        "| postgres replica, {name}, {changes} changes of {mean_bytes} B | {ours:.0} changes/s | COPY and one statement from memory \
         {ceiling:.0} | {:.0} % | ≥ 60 % |",
        100.0 * ours / ceiling
    )?;
    writeln!(f, "| postgres replica, {name}, peak memory | {peak:.2} MB | | | |")
}

fn latency(measured: &live::Measured, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let live::Measured { from_kafka, from_commit } = measured;
    for (name, times, target) in
        [("Kafka", from_kafka, "p95 ≤ 150 ms"), ("the source's commit", from_commit, "")]
    {
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            times.get(place).copied().unwrap_or(f64::NAN)
        };
        let (half, most, nearly_all) = (at(0.5), at(0.95), at(0.99));
        writeln!(
            f,
            "| from {name} to the mirror, 2000 changes/s | p50 {half:.0}, p95 {most:.0}, p99 \
             {nearly_all:.0} ms | | | {target} |"
        )?;
    }
    Ok(())
}
