//! The coordinator's health report as a person reads it: one word, what is wrong and what ends it,
//! then the services and the sinks.

use std::fmt::Write as _;

use crate::health::{
    HealthReport, PartitionStatus, Reason, ServiceHealth, ServiceState, SinkHealth, SourceHealth,
    StatusReport,
};
use crate::source::bytes;
use cdc_shared::api::PartitionState;

/// The report as text, without a line end.
pub(in crate::cli) fn health(report: &HealthReport) -> String {
    let mut parts = vec![format!("{}: {}", report.pipeline_id, report.verdict.name())];
    if !report.coordinator.leader {
        parts.push("answered by a coordinator that does not lead".to_owned());
    }
    parts.extend(report.reasons.iter().map(reason));
    parts.push(String::new());
    parts.push(columns(&["SERVICE", "STATE", ""], services(report)));
    if !report.sinks.is_empty() {
        let header = ["SINK", "STATUS", "LAG", "BEHIND", "LAST FLUSH", "WORKERS", "DELIVERED"];
        parts.push(String::new());
        parts.push(columns(&header, report.sinks.iter().map(|s| sink(s, report.at_ms)).collect()));
    }
    parts.extend(report.sinks.iter().flat_map(remarks));
    parts.push(String::new());
    parts.push(group(report));
    parts.join("\n")
}

/// The same with every partition of every sink.
pub(in crate::cli) fn status(report: &StatusReport) -> String {
    let mut text = health(&report.health);
    if !report.partitions.is_empty() {
        let header = ["SINK", "PARTITION", "STATE", "WATERMARK", "END", "LAG", "QUEUE", "WORKER"];
        let rows = report.partitions.iter().map(partition).collect();
        let _ = write!(text, "\n\n{}", columns(&header, rows));
    }
    text
}

fn reason(reason: &Reason) -> String {
    let severity = reason.severity.name();
    let way_out = reason.way_out.as_deref().map(|way| format!("\n      way out: {way}"));
    let way_out = way_out.unwrap_or_default();
    format!("  {severity}: {} ({}){way_out}", reason.message, reason.code)
}

fn services(report: &HealthReport) -> Vec<Vec<String>> {
    let brokers = report.kafka.brokers.map(|count| match count {
        1 => "1 broker".to_owned(),
        count => format!("{count} brokers"),
    });
    let mut rows = vec![
        service("kafka", &report.kafka, brokers),
        service("schema registry", &report.schema_registry, None),
        service("connect", &report.connect, None),
        service("redis", &report.redis, None),
    ];
    rows.extend(source(&report.source));
    rows
}

fn service(name: &str, health: &ServiceHealth, detail: Option<String>) -> Vec<String> {
    let state = match health.state {
        ServiceState::Unknown => "unknown",
        ServiceState::Up => "up",
        ServiceState::Down => "DOWN",
        ServiceState::Unused => "unused",
    };
    row([name, state, &health.error.clone().or(detail).unwrap_or_default()])
}

/// The connector with its tasks, and the slot.
fn source(source: &SourceHealth) -> Vec<Vec<String>> {
    let connector = &source.connector;
    let mut rows = Vec::new();
    if !connector.name.is_empty() {
        let tasks = source.tasks.iter().map(|task| {
            let trace = task.trace.as_deref().map(|trace| format!(": {trace}"));
            format!("task {} {}{}", task.id, task.state, trace.unwrap_or_default())
        });
        let said: Vec<String> = connector.trace.iter().cloned().chain(tasks).collect();
        let name = format!("connector {}", connector.name);
        rows.push(row([&name, &connector.state, &said.join("; ")]));
    }
    if let Some(slot) = &source.slot {
        let state = match (slot.exists, slot.active) {
            (false, _) => "ABSENT",
            (_, true) => "active",
            (_, false) => "inactive",
        };
        let kept = slot.retained_bytes.map(|count| format!("{} of WAL kept", bytes(count)));
        let facts: Vec<String> = kept.into_iter().chain(slot.wal_status.clone()).collect();
        rows.push(row([&format!("slot {}", slot.name), state, &facts.join(", ")]));
    }
    if let Some(error) = &source.error {
        rows.push(row(["source database", "unknown", error]));
    }
    rows
}

fn sink(sink: &SinkHealth, now_ms: i64) -> Vec<String> {
    let unknown = || "-".to_owned();
    let delivered: u64 = sink.workers.iter().map(|worker| worker.counters.delivered).sum();
    row([
        &sink.sink_id,
        sink.status.name(),
        &sink.lag_records.map_or_else(unknown, |lag| lag.to_string()),
        &sink.lag_seconds.map_or_else(unknown, duration),
        &sink.last_flush_ms.map_or_else(unknown, |at| {
            format!("{} ago", duration(now_ms.saturating_sub(at).max(0) as f64 / 1000.0))
        }),
        &sink.workers.len().to_string(),
        &delivered.to_string(),
    ])
}

fn partition(partition: &PartitionStatus) -> Vec<String> {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    row([
        &partition.sink_id,
        &format!("{}[{}]", partition.topic, partition.partition),
        partition.state.map_or("-", PartitionState::name),
        &number(partition.watermark),
        &number(partition.end),
        &number(partition.lag),
        &number(partition.queue_depth.and_then(|depth| i64::try_from(depth).ok())),
        partition.worker.as_deref().unwrap_or("-"),
    ])
}

/// What the table has no column for.
fn remarks(sink: &SinkHealth) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |text: String| lines.push(format!("  {}: {text}", sink.sink_id));
    if !sink.directive_reason.is_empty() {
        say(format!("{}: {}", sink.status.name(), sink.directive_reason));
    }
    for table in &sink.tables {
        say(format!("{}: {} ({})", table.topic, table.state.name(), table.reason));
    }
    for topic in &sink.parked {
        say(format!("no longer consumes {topic}, which the pipeline's group still waits for"));
    }
    let dead: u64 = sink.workers.iter().map(|worker| worker.counters.dead_lettered).sum();
    if dead > 0 {
        say(format!("{dead} dead letters since its workers started"));
    }
    if let Some(error) = &sink.last_error {
        say(format!("{} ({})", error.message, error.code));
    }
    lines
}

fn group(report: &HealthReport) -> String {
    let known = report.consumer_lag.iter().filter_map(|partition| partition.lag);
    let lag = if known.clone().next().is_some() {
        format!("{} records behind", known.sum::<i64>())
    } else {
        "position unknown".to_owned()
    };
    let mut text = format!("pipeline group {}: {lag}", report.pipeline_group.group_id);
    for hold in &report.pipeline_group.holds {
        let place = format!("{}[{}]", hold.topic, hold.partition);
        let _ = write!(text, "\n  {place} waits for {}: {}", hold.sink_id, hold.reason);
    }
    for member in &report.pipeline_group.members {
        let _ = write!(text, "\n  a consumer is a member of it, which keeps us out: {member}");
    }
    if let Some(error) = &report.pipeline_group.error {
        let _ = write!(text, "\n  {error}");
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

fn columns(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max()
    };
    let text = lines.iter().map(|line| {
        let cells = line.iter().enumerate().map(|(at, cell)| {
            let width = width(at).unwrap_or_default();
            format!("{cell:<width$}")
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    });
    text.collect::<Vec<_>>().join("\n")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::fine;
    use crate::health::{Severity, SinkStatus, Verdict};

    #[test]
    fn a_healthy_pipeline_reads_at_a_glance() {
        let mut report = HealthReport { verdict: Verdict::Ok, at_ms: 3_000, ..fine() };
        report.sinks[0].last_flush_ms = Some(0);
        report.kafka.brokers = Some(3);
        report.pipeline_group.group_id = "cdc-demo".to_owned();
        assert_eq!(
            health(&report),
            "demo: ok\n\n  \
             SERVICE             STATE\n  \
             kafka               up       3 brokers\n  \
             schema registry     up\n  \
             connect             up\n  \
             redis               up\n  \
             connector cdc-demo  RUNNING  task 0 RUNNING\n  \
             slot cdc_slot       active   1.0 KiB of WAL kept, reserved\n\n  \
             SINK  STATUS   LAG  BEHIND  LAST FLUSH  WORKERS  DELIVERED\n  \
             wh    running  0    0.0 s   3.0 s ago   0        0\n  \
             pg    running  0    0.0 s   -           0        0\n\n\
             pipeline group cdc-demo: position unknown"
        );
    }

    #[test]
    fn trouble_comes_first_with_its_way_out() {
        let mut report = HealthReport { verdict: Verdict::Critical, ..fine() };
        report.reasons = vec![Reason {
            severity: Severity::Critical,
            code: "offset_gap".to_owned(),
            message: "sink wh: records 3 to 9 are gone".to_owned(),
            way_out: Some("cdc rewind".to_owned()),
        }];
        report.sinks[0].status = SinkStatus::Held;
        report.sinks[0].parked = vec!["cdc.public.old".to_owned()];
        report.coordinator.leader = false;
        let text = health(&report);
        let first: Vec<&str> = text.lines().take(4).collect();
        assert_eq!(
            first,
            [
                "demo: critical",
                "answered by a coordinator that does not lead",
                "  critical: sink wh: records 3 to 9 are gone (offset_gap)",
                "      way out: cdc rewind",
            ]
        );
        assert!(text.contains("  wh: no longer consumes cdc.public.old"), "{text}");
    }

    #[test]
    fn each_partition_has_a_line_in_status() {
        let partition = PartitionStatus {
            sink_id: "wh".to_owned(),
            topic: "cdc.public.t".to_owned(),
            partition: 2,
            watermark: Some(7),
            incarnation: None,
            topic_id: None,
            lag: Some(3),
            end: Some(10),
            committed: None,
            worker: None,
            state: Some(PartitionState::Running),
            queue_depth: Some(3),
            last_flush_ms: None,
        };
        let report = StatusReport { health: fine(), partitions: vec![partition] };
        let text = status(&report);
        let line = text.lines().last().unwrap_or_default();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells, ["wh", "cdc.public.t[2]", "running", "7", "10", "3", "3", "-"]);
    }

    #[test]
    fn durations_are_short() {
        let shown = [0.04, 12.6, 119.0, 600.0, 7_300.0, 400_000.0].map(duration);
        assert_eq!(shown, ["0.0 s", "13 s", "119 s", "10 min", "2 h", "5 days"]);
    }
}
