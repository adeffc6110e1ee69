//! The table that comes out.

use std::fmt;

use super::topic::Topic;
use super::{Pass, median};

/// Records/s of the Python platform's events sink on a machine like this.
const PYTHON: f64 = 1570.0;

/// Everything measured.
pub(crate) struct Table {
    records: usize,
    mean_bytes: usize,
    passes: usize,
    load_before: f64,
    pub(crate) load_after: f64,
    pub(crate) idle: f64,
    pub(crate) webhook: Vec<Pass>,
    pub(crate) webhook_bare: Vec<f64>,
    pub(crate) events: Vec<Pass>,
    pub(crate) events_bare: Vec<f64>,
}

impl Table {
    pub(crate) fn new(topic: &Topic, passes: usize, load_before: f64) -> Self {
        Self {
            records: topic.events.len(),
            mean_bytes: topic.mean_bytes,
            passes,
            load_before,
            load_after: load_before,
            idle: f64::NAN,
            webhook: Vec::new(),
            webhook_bare: Vec::new(),
            events: Vec::new(),
            events_bare: Vec::new(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |passes: &[Pass]| median(passes.iter().map(|pass| pass.rate));
        let first = |passes: &[Pass]| median(passes.iter().map(|pass| pass.first));
        let peak = |passes: &[Pass]| passes.iter().map(|pass| pass.peak).fold(f64::NAN, f64::max);
        let (webhook, events) = (rate(&self.webhook), rate(&self.events));
        let bare = median(self.webhook_bare.iter().copied());
        let statements = median(self.events_bare.iter().copied());
        writeln!(
            f,
            "{} envelopes of {} B in the mean and the tombstones of their deletes, 4 partitions, \
             max_buffered_messages 10000 for events, medians of {} passes, load average {:.1} before and {:.1} after\n",
            self.records, self.mean_bytes, self.passes, self.load_before, self.load_after
        )?;
        writeln!(f, "| Worker | Measured | Compared with | Ratio | Target |")?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        writeln!(
            f,
            "| webhook, 64 in flight | {webhook:.0} records/s | bare reqwest loop {bare:.0} | \
             {:.0} % | ≥ 70 % |",
            100.0 * webhook / bare
        )?;
        writeln!(
            f,
            "| postgres events, batches of 2000 | {events:.0} records/s | same statement from \
             memory {statements:.0} | {:.0} % | ≥ 60 % |",
            100.0 * events / statements
        )?;
        writeln!(f, "| | | Python platform {PYTHON:.0} | {:.1}x | ≥ 20x |", events / PYTHON)?;
        for (name, value, unit, target) in [
            ("webhook, peak memory", peak(&self.webhook), "MB", "≤ 100 MB"),
            ("postgres events, peak memory", peak(&self.events), "MB", "≤ 100 MB"),
            ("idle memory", self.idle, "MB", "≤ 30 MB"),
            ("webhook, start to first record", first(&self.webhook), "s", "≤ 2 s"),
            ("postgres events, start to first record", first(&self.events), "s", "≤ 2 s"),
        ] {
            writeln!(f, "| {name} | {value:.2} {unit} | | | {target} |")?;
        }
        Ok(())
    }
}
