//! What processes show Prometheus. Each metric stands once, in [`WORKER`] or [`COORDINATOR`]: the
//! processes encode by it, and `docs/metrics.md` is made from it.

mod coordinator;
mod page;
mod worker;

pub use coordinator::{COORDINATOR, metric as of_coordinator};
pub use page::{Number, Page};
pub use worker::{WORKER, metric as of_worker};

/// What a value means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// The value of now.
    Gauge,
    /// Always 1: what it says is in its labels.
    Info,
}

/// One metric with `N` labels of its own. Labels that every series of a process has are the page's.
#[derive(Clone, Copy, Debug)]
pub struct Metric<const N: usize> {
    /// As Prometheus shows it.
    pub name: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: [&'static str; N],
    /// One sentence.
    pub help: &'static str,
}

/// A metric as the table shows it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As Prometheus shows it.
    pub name: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

impl<const N: usize> Metric<N> {
    const fn row(&'static self) -> Row {
        Row { name: self.name, kind: self.kind, labels: &self.labels, help: self.help }
    }

    /// The name without what the encoding adds by kind.
    fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

const fn counter(name: &'static str, help: &'static str) -> Metric<0> {
    Metric { name, kind: Kind::Counter, labels: [], help }
}

const fn gauge<const N: usize>(
    name: &'static str,
    labels: [&'static str; N],
    help: &'static str,
) -> Metric<N> {
    Metric { name, kind: Kind::Gauge, labels, help }
}

/// Version of the running binary; of every process.
pub const BUILD: Metric<2> = Metric {
    name: "cdc_build_info",
    kind: Kind::Info,
    labels: ["version", "process"],
    help: "Version of the running binary",
};
/// When a process started; of every process.
pub const PROCESS_START: Metric<0> =
    gauge("process_start_time_seconds", [], "When this process started");

impl Row {
    /// What is counted or measured, by the name.
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        if name.ends_with("_timestamp_seconds") || name.ends_with("_start_time_seconds") {
            return "Unix seconds";
        }
        let units = ["seconds", "bytes", "records", "offset", "partitions", "workers", "tasks"];
        units.into_iter().find(|unit| name.ends_with(unit)).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn table(out: &mut String, title: &str, labels: &str, rows: &[Row]) {
        writeln!(out, "\n## {title}\n\nEvery series also has {labels}.\n").unwrap();
        out.push_str("| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n");
        for row in rows {
            let kind = format!("{:?}", row.kind).to_lowercase();
            let labels: Vec<String> = row.labels.iter().map(|name| format!("`{name}`")).collect();
            let (name, labels, unit) = (row.name, labels.join(", "), row.unit());
            writeln!(out, "| `{name}` | {kind} | {unit} | {labels} | {} |", row.help).unwrap();
        }
    }

    fn document() -> String {
        let mut out = String::from(
            "# Metrics\n\n\
             What `/metrics` of every process shows (`make schema` writes this page from the code). \
             Scraping, alert rules and the dashboard are in \
             [`deploy/observability`](../deploy/observability/README.md).\n\n\
             A series is left out while its value is not known; a partition's series end when the \
             partition leaves the worker. Labels hold names of the configuration and words of a \
             fixed set, never a key, a message or an id of a record.\n",
        );
        table(&mut out, "Worker", "`pipeline` and `sink`", WORKER);
        table(&mut out, "Coordinator", "`pipeline`", COORDINATOR);
        out.push_str(
            "\nOnly the leading coordinator hears the workers: a standby shows no metric that begins \
             with `cdc_sink_` or `cdc_pipeline_`.\n",
        );
        out
    }

    /// `make schema` rewrites the file.
    #[test]
    fn the_metrics_table_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == document(),
            "docs/metrics.md is not current: run `make schema`"
        );
    }

    #[test]
    fn names_keep_the_rules_of_prometheus() {
        for row in WORKER.iter().chain(COORDINATOR) {
            let name = row.name;
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(plain && !name.contains("__"), "{name}");
            assert!(name.starts_with("cdc_") || name == PROCESS_START.name, "{name}");
            assert_eq!(name.ends_with("_total"), row.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), row.kind == Kind::Info, "{name}");
            for taken in ["_count", "_sum", "_bucket", "_created"] {
                assert!(!name.ends_with(taken), "{name}: {taken} has a meaning of its own");
            }
            for label in row.labels {
                assert!(!["pipeline", "job", "instance"].contains(label), "{name}: {label}");
            }
            assert!(!row.help.ends_with('.') && !row.help.contains('\n'), "{name}");
        }
        for rows in [WORKER, COORDINATOR] {
            let names: std::collections::BTreeSet<_> = rows.iter().map(|row| row.name).collect();
            assert_eq!(names.len(), rows.len(), "a name stands twice");
        }
    }
}
