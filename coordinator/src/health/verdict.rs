//! What is wrong, how bad it is, and the way out: a pure rule over a report.

use std::collections::BTreeMap;

use cdc_shared::api::PartitionState;
use cdc_shared::schema::{SchemaVerdict, topic_of};

use super::SinkStatus;
use super::report::{
    HealthReport, Reason, SchemaHealth, ServiceHealth, ServiceState, Severity, SinkHealth,
    SlotHealth, TaskHealth, Verdict,
};
use crate::group::plan::GroupHold;
use crate::monitor::LagLevel;

/// WAL kept for the slot from which on somebody should look.
const RETAINED_BYTES: i64 = 5 * 1024 * 1024 * 1024;

/// Every finding of a report, worst first.
pub fn judge(report: &HealthReport) -> Vec<Reason> {
    let mut reasons = Vec::new();
    coordinator(report, &mut reasons);
    services(report, &mut reasons);
    source(report, &mut reasons);
    // Only the leader hears the workers.
    if report.coordinator.leader {
        for sink in &report.sinks {
            self::sink(sink, &mut reasons);
        }
    }
    schemas(&report.schemas, &mut reasons);
    group(report, &mut reasons);
    if report.coordinator.leader {
        group_holds(report, &mut reasons);
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
    reasons
}

/// The worst of all findings.
pub fn overall(reasons: &[Reason]) -> Verdict {
    match reasons.iter().map(|reason| reason.severity).max() {
        None => Verdict::Ok,
        Some(Severity::Unknown) => Verdict::Unknown,
        Some(Severity::Degraded) => Verdict::Degraded,
        Some(Severity::Critical) => Verdict::Critical,
    }
}

fn add(
    reasons: &mut Vec<Reason>,
    severity: Severity,
    code: &str,
    message: impl Into<String>,
    way_out: Option<&str>,
) {
    reasons.push(Reason {
        severity,
        code: code.to_owned(),
        message: message.into(),
        way_out: way_out.map(ToOwned::to_owned),
    });
}

fn coordinator(report: &HealthReport, reasons: &mut Vec<Reason>) {
    if let Some(error) = &report.coordinator.error {
        add(reasons, Severity::Critical, "control_topic", format!("control topic: {error}"), None);
    } else if !report.coordinator.leader {
        let way_out = match &report.coordinator.leader_url {
            Some(url) => format!("ask {url}, which led last, or again in a few seconds"),
            None => "ask the leading coordinator, or again in a few seconds".to_owned(),
        };
        add(
            reasons,
            Severity::Unknown,
            "not_leader",
            "this coordinator does not lead (yet): it does not hear the workers",
            Some(&way_out),
        );
    }
}

fn services(report: &HealthReport, reasons: &mut Vec<Reason>) {
    for (name, code, service, severity) in [
        ("Kafka", "kafka_down", &report.kafka, Severity::Critical),
        ("schema registry", "registry_down", &report.schema_registry, Severity::Degraded),
        ("Kafka Connect", "connect_down", &report.connect, Severity::Degraded),
        ("Redis", "redis_down", &report.redis, Severity::Degraded),
    ] {
        service_reason(name, code, service, severity, reasons);
    }
}

fn service_reason(
    name: &str,
    code: &str,
    service: &ServiceHealth,
    severity: Severity,
    reasons: &mut Vec<Reason>,
) {
    match (service.state, &service.error) {
        (ServiceState::Unknown, _) => {
            add(reasons, Severity::Unknown, code, format!("{name} was not asked yet"), None);
        }
        (ServiceState::Down, error) => {
            let cause = error.as_deref().unwrap_or("no answer");
            add(reasons, severity, code, format!("{name} does not answer: {cause}"), None);
        }
        (ServiceState::Up, Some(error)) => {
            add(reasons, Severity::Degraded, code, format!("{name}: {error}"), None);
        }
        (ServiceState::Up | ServiceState::Unused, _) => {}
    }
}

fn source(report: &HealthReport, reasons: &mut Vec<Reason>) {
    if report.connect.state == ServiceState::Up {
        connector(report, reasons);
    }
    silence(report, reasons);
    if let Some(error) = &report.source.error {
        add(reasons, Severity::Degraded, "source_unreadable", error.clone(), None);
    }
    if let Some(slot) = &report.source.slot {
        self::slot(slot, reasons);
    }
}

/// One that does not run has its own word.
fn silence(report: &HealthReport, reasons: &mut Vec<Reason>) {
    let source = &report.source;
    let connector = &source.connector;
    let Some(seconds) = source.silent_seconds.filter(|_| source.silent) else { return };
    if connector.state != "RUNNING" {
        return;
    }
    let message = format!(
        "connector {:?} runs and has written nothing for {seconds:.0} s, neither a heartbeat nor a \
         change",
        connector.name
    );
    let way_out = "see its log, and whether the source answers it; restart it in Kafka Connect; if its \
                   settings were changed by hand, cdc deploy FILE; lag.heartbeat_seconds is the \
                   threshold";
    add(reasons, Severity::Degraded, "heartbeats_missing", message, Some(way_out));
}

fn connector(report: &HealthReport, reasons: &mut Vec<Reason>) {
    let connector = &report.source.connector;
    let name = &connector.name;
    match connector.state.as_str() {
        "RUNNING" => {}
        "ABSENT" => add(
            reasons,
            Severity::Critical,
            "connector_absent",
            format!("Kafka Connect has no connector {name:?}"),
            Some("cdc deploy FILE"),
        ),
        "FAILED" => add(
            reasons,
            Severity::Critical,
            "connector_failed",
            format!("connector {name:?} has failed: {}", trace(connector.trace.as_ref())),
            Some("remove the cause, then cdc deploy FILE"),
        ),
        state => add(
            reasons,
            Severity::Degraded,
            "connector_not_running",
            format!("connector {name:?} is {state}"),
            None,
        ),
    }
    for task in &report.source.tasks {
        self::task(name, task, reasons);
    }
    if connector.state == "RUNNING" && report.source.tasks.is_empty() {
        let message = format!("connector {name:?} has no task");
        add(reasons, Severity::Degraded, "connector_without_task", message, None);
    }
}

fn task(connector: &str, task: &TaskHealth, reasons: &mut Vec<Reason>) {
    let (id, state) = (task.id, &task.state);
    match state.as_str() {
        "RUNNING" => {}
        "FAILED" => add(
            reasons,
            Severity::Critical,
            "task_failed",
            format!("task {id} of {connector:?} has failed: {}", trace(task.trace.as_ref())),
            Some("remove the cause, then cdc deploy FILE"),
        ),
        _ => {
            let message = format!("task {id} of {connector:?} is {state}");
            add(reasons, Severity::Degraded, "task_not_running", message, None);
        }
    }
}

fn trace(trace: Option<&String>) -> &str {
    trace.map_or("Connect gives no trace", String::as_str)
}

fn slot(slot: &SlotHealth, reasons: &mut Vec<Reason>) {
    let name = &slot.name;
    if !slot.exists {
        let message = format!("the source has no replication slot {name:?}");
        let way_out = Some("cdc deploy FILE; changes made meanwhile need a snapshot");
        add(reasons, Severity::Critical, "slot_absent", message, way_out);
        return;
    }
    match slot.wal_status.as_deref() {
        Some("lost") => add(
            reasons,
            Severity::Critical,
            "slot_lost",
            format!("the source has removed WAL that slot {name:?} needs"),
            Some(&format!(
                "cdc undeploy FILE --drop-slot {name}, cdc deploy FILE: a new snapshot is needed"
            )),
        ),
        Some("unreserved") => add(
            reasons,
            Severity::Critical,
            "slot_unreserved",
            format!("the source is about to remove WAL that slot {name:?} needs"),
            Some("get the connector to read, or raise max_slot_wal_keep_size at the source"),
        ),
        _ => {}
    }
    if !slot.active {
        let message = format!("nobody reads from replication slot {name:?}: WAL piles up");
        let way_out = format!("get the connector to run, or cdc undeploy FILE --drop-slot {name}");
        add(reasons, Severity::Degraded, "slot_inactive", message, Some(&way_out));
    }
    if let Some(bytes) = slot.retained_bytes.filter(|bytes| *bytes > RETAINED_BYTES) {
        let gigabytes = bytes / (1024 * 1024 * 1024);
        let message = format!("the source keeps {gigabytes} GiB of WAL for slot {name:?}");
        add(reasons, Severity::Degraded, "slot_retains", message, None);
    }
}

/// What is held by them says so itself, and worse.
fn schemas(schemas: &SchemaHealth, reasons: &mut Vec<Reason>) {
    for verdict in &schemas.unaccepted {
        let SchemaVerdict { subject, previous, this, .. } = verdict;
        let summary = verdict.summary();
        let message =
            format!("{subject}: incompatible change from schema {previous} to {this}: {summary}");
        let topic = topic_of(subject).map_or(subject.as_str(), |(topic, _)| topic);
        let way_out = format!("see cdc schema list FILE; cdc schema accept FILE --table {topic}");
        add(reasons, Severity::Degraded, "schema_change", message, Some(&way_out));
    }
    for open in &schemas.open {
        let (subject, id) = (&open.question.subject, open.question.this);
        let message = format!("{subject}: schema {id} cannot be judged: {}", open.reason);
        add(reasons, Severity::Degraded, "schema_unjudged", message, None);
    }
}

fn sink(sink: &SinkHealth, reasons: &mut Vec<Reason>) {
    let id = &sink.sink_id;
    for hold in &sink.holds {
        let severity = match hold.state {
            PartitionState::Stopped => Severity::Critical,
            _ => Severity::Degraded,
        };
        let message = format!("sink {id}: {}[{}]: {}", hold.topic, hold.partition, hold.message);
        add(reasons, severity, &hold.code, message, Some(&hold.way_out));
    }
    let why = &sink.directive_reason;
    match sink.status {
        SinkStatus::NoWorker => add(
            reasons,
            Severity::Critical,
            "no_worker",
            format!("sink {id} is enabled and no worker reports for it"),
            Some(&format!("cdc-worker run FILE --sink {id}")),
        ),
        SinkStatus::Degraded => {
            let cause = sink.last_error.as_ref().map_or("no error told", |error| &error.message);
            let message = format!("sink {id} is retrying: {cause}");
            add(reasons, Severity::Degraded, "sink_degraded", message, None);
        }
        SinkStatus::Paused | SinkStatus::Stopped => add(
            reasons,
            Severity::Degraded,
            "sink_paused",
            format!("sink {id} is {} by an operator: {why}", sink.status.name()),
            Some(&format!("cdc resume FILE --sink {id}")),
        ),
        SinkStatus::Starting | SinkStatus::Draining => {
            let message = format!("sink {id} is {}", sink.status.name());
            add(reasons, Severity::Degraded, "sink_not_ready", message, None);
        }
        // Of the first two, their holds say it.
        SinkStatus::Held | SinkStatus::Waiting | SinkStatus::Running | SinkStatus::Disabled => {}
    }
    lag(sink, reasons);
    dead_letters(sink, reasons);
    for table in &sink.tables {
        let (topic, why) = (&table.topic, &table.reason);
        let message = format!("sink {id}: {topic} is paused by an operator: {why}");
        let way_out = format!("cdc resume FILE --sink {id} --table {topic}");
        add(reasons, Severity::Degraded, "table_paused", message, Some(&way_out));
    }
    if !sink.parked.is_empty() {
        let topics = sink.parked.join(", ");
        let message = format!("sink {id} no longer consumes {topics}, which still holds back P");
        // Of an enabled sink only the tables that it has left: its workers live.
        let way_out = if sink.enabled || !sink.workers.is_empty() {
            format!("cdc sink remove {id} FILE --table TOPIC for each, or add them again")
        } else {
            format!("enable it again, or cdc sink remove {id} FILE")
        };
        add(reasons, Severity::Degraded, "sink_parked", message, Some(&way_out));
    }
}

fn lag(sink: &SinkHealth, reasons: &mut Vec<Reason>) {
    let (severity, code) = match sink.lag_level {
        LagLevel::Ok => return,
        LagLevel::Warning => (Severity::Degraded, "lag_warning"),
        LagLevel::Critical => (Severity::Critical, "lag_critical"),
    };
    let id = &sink.sink_id;
    let age = sink.lag_seconds.map(|s| format!(" and {s:.0} s")).unwrap_or_default();
    let pace = match (sink.pace, sink.catch_up_seconds) {
        (Some(pace), Some(seconds)) => format!(
            "; at {:.0} records/s it has caught up in {seconds:.0} s",
            pace.records_per_second
        ),
        (Some(pace), None) => format!(
            "; it delivers {:.0} records/s while {:.0} come, and never catches up so",
            pace.records_per_second, pace.incoming_per_second
        ),
        (None, _) => String::new(),
    };
    let records = sink.lag_records.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let message = format!("sink {id} is {records} records{age} behind{pace}");
    let way_out = "see what holds or slows it; more workers share its partitions; lag.warning and \
                   lag.critical are the thresholds";
    add(reasons, severity, code, message, Some(way_out));
}

/// A queue that grows: letters that lie there are no trouble of the moment.
fn dead_letters(sink: &SinkHealth, reasons: &mut Vec<Reason>) {
    let recent: u64 = sink.dead_letters.iter().map(|count| count.recent).sum();
    if recent == 0 {
        return;
    }
    let codes: Vec<String> = sink
        .dead_letters
        .iter()
        .filter(|count| count.recent > 0)
        .map(|count| format!("{} {}", count.recent, count.error_type))
        .collect();
    let open: u64 = sink.dead_letters.iter().map(|count| count.open).sum();
    let id = &sink.sink_id;
    let message = format!(
        "sink {id} rejected {recent} records within ten minutes ({}); {open} dead letters are open",
        codes.join(", ")
    );
    let way_out = format!("cdc dlq list FILE --sink {id}; mend the cause, then cdc dlq replay");
    add(reasons, Severity::Degraded, "dlq_grows", message, Some(&way_out));
}

/// For whom P waits, one finding for each sink.
fn group_holds(report: &HealthReport, reasons: &mut Vec<Reason>) {
    let group = &report.pipeline_group;
    let mut by_sink: BTreeMap<&str, Vec<&GroupHold>> = BTreeMap::new();
    for hold in &group.holds {
        by_sink.entry(&hold.sink_id).or_default().push(hold);
    }
    for (sink, holds) in by_sink {
        let Some(first) = holds.first() else { continue };
        let more = match holds.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let message = format!(
            "group {:?} waits for sink {sink} at {}[{}]{more}: {}",
            group.group_id, first.topic, first.partition, first.reason
        );
        let way_out = format!(
            "run a worker of the sink with this configuration; if it will not come back: cdc sink \
             remove {sink} FILE"
        );
        add(reasons, Severity::Degraded, "group_waits", message, Some(&way_out));
    }
}

fn group(report: &HealthReport, reasons: &mut Vec<Reason>) {
    let group = &report.pipeline_group;
    if let Some(stall) = report.pipeline_group.stall.as_ref().filter(|_| report.coordinator.leader)
    {
        let message = format!(
            "group {:?} has stood still for {:.0} s though every sink that is known has gone on: \
             {}[{}], {} partitions in all",
            group.group_id, stall.seconds, stall.topic, stall.partition, stall.partitions
        );
        let way_out = "what keeps it is told beside this (group_waits, group_in_use, its error); \
                       lag.group_seconds is the threshold";
        add(reasons, Severity::Degraded, "group_stalled", message, Some(way_out));
    }
    if !group.members.is_empty() {
        let members = group.members.join("; ");
        let message = format!(
            "group {:?} has live members, so its offsets cannot be kept: {members}",
            group.group_id
        );
        let way_out = Some("end that consumer: this group belongs to the coordinator");
        add(reasons, Severity::Degraded, "group_in_use", message, way_out);
    } else if let Some(error) = &group.error {
        add(reasons, Severity::Degraded, "group_not_kept", error.clone(), None);
    }
}
