//! The metrics of a coordinator, read from the latest look when somebody asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cdc_shared::clock::unix_ms;
use cdc_shared::dlq::LetterState;
use cdc_shared::metrics::{BUILD, PROCESS_START, Page, of_coordinator as metric};

use crate::group::Observation;
use crate::health::{HealthReport, ServiceState, SinkHealth};
use crate::scaling::SinkScaling;
use crate::state::Coordinator;

/// What is counted between two looks.
#[derive(Debug)]
pub struct Metrics {
    /// Heartbeats taken.
    pub heartbeats: AtomicU64,
    /// Commands carried out.
    pub commands: AtomicU64,
    started_ms: i64,
}

impl Default for Metrics {
    /// Nothing counted; the process counts as started now.
    fn default() -> Self {
        let (heartbeats, commands) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { heartbeats, commands, started_ms: unix_ms() }
    }
}

/// Everything as Prometheus reads it.
///
/// # Errors
/// When the text cannot be built.
pub(crate) fn encode(
    coordinator: &Coordinator,
    report: &HealthReport,
) -> Result<String, std::fmt::Error> {
    let failures = coordinator.group.commit_failures.load(Ordering::Relaxed);
    let view = coordinator.group.view();
    let scaling = coordinator.scaling.report();
    page(&coordinator.metrics, report, view.seen.as_deref(), failures, &scaling).text()
}

fn page(
    metrics: &Metrics,
    report: &HealthReport,
    seen: Option<&Observation>,
    commit_failures: u64,
    scaling: &[SinkScaling],
) -> Page {
    let mut page = Page::new([("pipeline", report.pipeline_id.clone())]);
    process(&mut page, metrics);
    page.one(&metric::LEADER, report.coordinator.leader);
    around(&mut page, report);
    // A standby does not hear the workers: what it would show of them is wrong.
    if report.coordinator.leader {
        pipeline(&mut page, report);
        page.one(&metric::PIPELINE_COMMIT_FAILURES, commit_failures);
        sinks(&mut page, &report.sinks);
        let wanted = scaling.iter().map(|sink| ([sink.sink_id.clone()], sink.wanted_workers));
        page.family(&metric::SINK_WANTED, wanted);
        if let Some(seen) = seen {
            positions(&mut page, seen);
        }
    }
    page
}

fn process(page: &mut Page, metrics: &Metrics) {
    let build = [env!("CARGO_PKG_VERSION"), "coordinator"].map(ToOwned::to_owned);
    page.family(&BUILD, [(build, true)]);
    page.one(&PROCESS_START, metrics.started_ms as f64 / 1000.0);
    page.one(&metric::HEARTBEATS, metrics.heartbeats.load(Ordering::Relaxed));
    page.one(&metric::COMMANDS, metrics.commands.load(Ordering::Relaxed));
}

/// The services, the connector, the slot, the schemas: what every coordinator sees for itself.
fn around(page: &mut Page, report: &HealthReport) {
    let services = [
        ("kafka", report.kafka.state),
        ("schema_registry", report.schema_registry.state),
        ("connect", report.connect.state),
        ("redis", report.redis.state),
    ];
    let known = services.into_iter().filter_map(|(name, state)| match state {
        ServiceState::Up => Some(([name.to_owned()], true)),
        ServiceState::Down => Some(([name.to_owned()], false)),
        ServiceState::Unknown | ServiceState::Unused => None,
    });
    page.family(&metric::SERVICE_UP, known);
    let source = &report.source;
    if !source.connector.state.is_empty() {
        page.family(&metric::CONNECTOR_STATE, [([source.connector.state.to_lowercase()], true)]);
    }
    let mut tasks = BTreeMap::<String, usize>::new();
    for task in &source.tasks {
        *tasks.entry(task.state.to_lowercase()).or_default() += 1;
    }
    page.family(&metric::CONNECTOR_TASKS, tasks.into_iter().map(|(state, n)| ([state], n)));
    if let Some(seconds) = source.silent_seconds {
        page.one(&metric::CONNECTOR_SILENCE, seconds);
    }
    if let Some(slot) = &source.slot {
        page.one(&metric::SLOT_ACTIVE, slot.active);
        if let Some(bytes) = slot.retained_bytes {
            page.one(&metric::SLOT_RETAINED, bytes);
        }
        let status = slot.wal_status.iter().map(|status| ([status.clone()], true));
        page.family(&metric::SLOT_WAL_STATUS, status);
    }
    page.one(&metric::SCHEMA_CHANGES, report.schemas.unaccepted.len());
}

fn pipeline(page: &mut Page, report: &HealthReport) {
    page.family(&metric::HEALTH, [([report.verdict.name().to_owned()], true)]);
    let known: Vec<i64> = report.consumer_lag.iter().filter_map(|tp| tp.lag).collect();
    if !known.is_empty() {
        page.one(&metric::PIPELINE_LAG, known.iter().sum::<i64>());
    }
    let mut waits: BTreeMap<&str, usize> =
        report.sinks.iter().map(|sink| (sink.sink_id.as_str(), 0)).collect();
    for hold in &report.pipeline_group.holds {
        *waits.entry(&hold.sink_id).or_default() += 1;
    }
    let waits = waits.into_iter().map(|(sink, partitions)| ([sink.to_owned()], partitions));
    page.family(&metric::PIPELINE_WAITS, waits);
    let stalled = report.pipeline_group.stall.as_ref().map_or(0, |stall| stall.partitions);
    page.one(&metric::PIPELINE_STALLED, stalled);
}

fn sinks(page: &mut Page, sinks: &[SinkHealth]) {
    let id = |sink: &SinkHealth| [sink.sink_id.clone()];
    let state = |sink: &SinkHealth| [sink.sink_id.clone(), sink.status.name().to_owned()];
    page.family(&metric::SINK_STATE, sinks.iter().map(|sink| (state(sink), true)));
    page.family(&metric::SINK_WORKERS, sinks.iter().map(|sink| (id(sink), sink.workers.len())));
    let records = sinks.iter().filter_map(|sink| Some((id(sink), sink.lag_records?)));
    page.family(&metric::SINK_LAG_RECORDS, records);
    let seconds = sinks.iter().filter_map(|sink| Some((id(sink), sink.lag_seconds?)));
    page.family(&metric::SINK_LAG_SECONDS, seconds);
    let flushed =
        sinks.iter().filter_map(|sink| Some((id(sink), sink.last_flush_ms? as f64 / 1000.0)));
    page.family(&metric::SINK_LAST_FLUSH, flushed);
    let mut held = BTreeMap::<[String; 2], usize>::new();
    for sink in sinks {
        for hold in &sink.holds {
            let labels = [sink.sink_id.clone(), hold.state.name().to_owned()];
            *held.entry(labels).or_default() += 1;
        }
    }
    page.family(&metric::SINK_HELD, held);
    let letters = sinks.iter().flat_map(|sink| &sink.dead_letters).flat_map(|count| {
        let states = [
            (LetterState::Open, count.open),
            (LetterState::Replayed, count.replayed),
            (LetterState::Superseded, count.superseded),
            (LetterState::Dropped, count.dropped),
        ];
        states.map(|(state, letters)| {
            let labels = [count.sink.as_str(), &count.error_type, state.name()];
            (labels.map(ToOwned::to_owned), letters)
        })
    });
    page.family(&metric::SINK_DEAD_LETTERS, letters);
}

fn positions(page: &mut Page, seen: &Observation) {
    let watermarks = seen.watermarks.iter().flat_map(|(sink, progress)| {
        progress.iter().flatten().map(move |(tp, position)| {
            let labels = [sink.clone(), tp.topic.to_string(), tp.partition.to_string()];
            (labels, position.next.get())
        })
    });
    page.family(&metric::SINK_WATERMARK, watermarks);
    let commits = seen.committed.iter().map(|(tp, committed)| {
        ([tp.topic.to_string(), tp.partition.to_string()], committed.next.get())
    });
    page.family(&metric::PIPELINE_OFFSET, commits);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use cdc_shared::api::PartitionState;
    use cdc_shared::dlq::LetterCount;
    use cdc_shared::metrics::COORDINATOR;
    use cdc_shared::offset::{
        Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition,
    };

    use super::*;
    use crate::group::plan::GroupHold;
    use crate::health::HoldHealth;
    use crate::health::tests::fine;
    use crate::kafka::Committed;
    use crate::monitor::PartitionLag;

    fn lag(partition: i32, lag: Option<i64>) -> PartitionLag {
        PartitionLag { topic: "cdc.t".into(), partition, lag, offset: None }
    }

    /// With a value for everything.
    fn report() -> HealthReport {
        let mut report = fine();
        report.consumer_lag = vec![lag(0, Some(3)), lag(1, Some(4)), lag(2, None)];
        report.sinks[0].last_flush_ms = Some(1500);
        report.sinks[0].holds = vec![HoldHealth {
            topic: "cdc.t".into(),
            partition: 0,
            state: PartitionState::Stopped,
            code: "offset_gap".into(),
            message: String::new(),
            way_out: String::new(),
            offset: None,
        }];
        report.sinks[0].dead_letters = vec![LetterCount {
            sink: "wh".into(),
            error_type: "http_400".into(),
            open: 5,
            ..LetterCount::default()
        }];
        report.pipeline_group.holds = vec![GroupHold {
            topic: "cdc.t".into(),
            partition: 0,
            sink_id: "pg".into(),
            reason: String::new(),
        }];
        report
    }

    fn observation() -> Observation {
        let tp = TopicPartition::new("cdc.t", 0);
        let next = NextOffset::after(41);
        let position = Position {
            next,
            incarnation: Incarnation(0),
            topic_id: TopicId("id".into()),
            schemas: SchemaIds::default(),
        };
        let watermarks = BTreeMap::from([(tp.clone(), position)]);
        let committed = Committed { next, metadata: String::new() };
        Observation {
            begun: Instant::now(),
            topics: BTreeMap::default(),
            ends: BTreeMap::default(),
            committed: std::iter::once((tp, committed)).collect(),
            watermarks: BTreeMap::from([("wh".to_owned(), Ok(watermarks))]),
            rebuilt: Vec::new(),
        }
    }

    fn names(text: &str) -> BTreeSet<&str> {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| Some(line.split_once('{')?.0)).collect()
    }

    #[test]
    fn a_leader_shows_what_is_listed_and_nothing_else() {
        let wanted =
            SinkScaling { sink_id: "wh".into(), wanted_workers: 3, ..SinkScaling::default() };
        let seen = observation();
        let text = page(&Metrics::default(), &report(), Some(&seen), 2, &[wanted]).text().unwrap();
        for line in [
            r#"cdc_coordinator_leader{pipeline="demo"} 1"#,
            r#"cdc_service_up{pipeline="demo",service="kafka"} 1"#,
            r#"cdc_connector_state{pipeline="demo",state="running"} 1"#,
            r#"cdc_connector_tasks{pipeline="demo",state="running"} 1"#,
            r#"cdc_slot_wal_status{pipeline="demo",status="reserved"} 1"#,
            r#"cdc_slot_retained_bytes{pipeline="demo"} 1024"#,
            r#"cdc_pipeline_lag_records{pipeline="demo"} 7"#,
            r#"cdc_pipeline_waiting_partitions{pipeline="demo",sink="pg"} 1"#,
            r#"cdc_pipeline_waiting_partitions{pipeline="demo",sink="wh"} 0"#,
            r#"cdc_pipeline_commit_failures_total{pipeline="demo"} 2"#,
            r#"cdc_sink_state{pipeline="demo",sink="wh",state="running"} 1"#,
            r#"cdc_sink_wanted_workers{pipeline="demo",sink="wh"} 3"#,
            r#"cdc_sink_last_flush_timestamp_seconds{pipeline="demo",sink="wh"} 1.5"#,
            r#"cdc_sink_dead_letters{pipeline="demo",sink="wh",error_type="http_400",state="open"} 5"#,
            r#"cdc_sink_held_partitions{pipeline="demo",sink="wh",state="stopped"} 1"#,
            r#"cdc_sink_watermark_offset{pipeline="demo",sink="wh",topic="cdc.t",partition="0"} 42"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        let listed: BTreeSet<&str> = COORDINATOR.iter().map(|row| row.name).collect();
        assert_eq!(names(&text), listed);
    }

    #[test]
    fn a_standby_says_nothing_of_workers_that_it_does_not_hear() {
        let mut report = report();
        report.coordinator.leader = false;
        report.kafka.state = ServiceState::Down;
        report.redis.state = ServiceState::Unused;
        let seen = observation();
        let text = page(&Metrics::default(), &report, Some(&seen), 0, &[]).text().unwrap();
        let own =
            |name: &&str| !name.starts_with("cdc_sink_") && !name.starts_with("cdc_pipeline_");
        assert!(names(&text).iter().all(own), "{text}");
        assert!(text.contains("cdc_coordinator_leader{pipeline=\"demo\"} 0\n"), "{text}");
        assert!(text.contains(",service=\"kafka\"} 0\n") && !text.contains("\"redis\""), "{text}");
    }
}
