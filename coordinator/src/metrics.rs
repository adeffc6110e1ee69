//! Metric names and their values, read from the latest look when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::health::HealthReport;
use crate::state::Coordinator;

/// What is counted between two looks.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Heartbeats taken.
    pub heartbeats: AtomicU64,
    /// Commands carried out.
    pub commands: AtomicU64,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct SinkLabels {
    pipeline: String,
    sink: String,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct StateLabels {
    pipeline: String,
    sink: String,
    state: &'static str,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct LetterLabels {
    pipeline: String,
    sink: String,
    error_type: String,
    state: &'static str,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct WatermarkLabels {
    pipeline: String,
    sink: String,
    topic: String,
    partition: i32,
}

#[derive(Clone, Hash, PartialEq, Eq, Debug, EncodeLabelSet)]
struct OffsetLabels {
    pipeline: String,
    topic: String,
    partition: i32,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// Everything as Prometheus reads it.
///
/// # Errors
/// When the text cannot be built.
pub(crate) fn encode(
    coordinator: &Coordinator,
    report: &HealthReport,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("cdc");
    process(&mut registry, coordinator);
    sinks(&mut registry, report);
    let unaccepted = Gauge::<i64>::default();
    unaccepted.set(report.schemas.unaccepted.len() as i64);
    let help = "Incompatible changes of schema that nobody has accepted";
    registry.register("schema_changes_unaccepted", help, unaccepted);
    letters(&mut registry, report);
    positions(&mut registry, coordinator);
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn process(registry: &mut Registry, coordinator: &Coordinator) {
    let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("process", "coordinator")]);
    registry.register("build", "Version of the running binary", build);
    let leader = Gauge::<i64>::default();
    leader.set(i64::from(coordinator.leads()));
    registry.register("coordinator_leader", "1 while this coordinator leads", leader);
    let metrics = &coordinator.metrics;
    for (name, help, value) in [
        ("coordinator_heartbeats", "Heartbeats taken", &metrics.heartbeats),
        ("coordinator_commands", "Commands carried out", &metrics.commands),
        (
            "pipeline_commit_failures",
            "Commits of the pipeline's group that failed",
            &coordinator.group.commit_failures,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value.load(Ordering::Relaxed)));
    }
}

fn sinks(registry: &mut Registry, report: &HealthReport) {
    let (records, seconds) =
        (Family::<SinkLabels, Gauge>::default(), Family::<SinkLabels, FloatGauge>::default());
    let (workers, flushed) =
        (Family::<SinkLabels, Gauge>::default(), Family::<SinkLabels, FloatGauge>::default());
    let states = Family::<StateLabels, Gauge>::default();
    for sink in &report.sinks {
        let (pipeline, id) = (report.pipeline_id.clone(), sink.sink_id.clone());
        let labels = SinkLabels { pipeline: pipeline.clone(), sink: id.clone() };
        if let Some(lag) = sink.lag_records {
            records.get_or_create(&labels).set(lag);
        }
        if let Some(lag) = sink.lag_seconds {
            seconds.get_or_create(&labels).set(lag);
        }
        if let Some(at) = sink.last_flush_ms {
            flushed.get_or_create(&labels).set(at as f64 / 1000.0);
        }
        workers.get_or_create(&labels).set(sink.workers.len() as i64);
        let state = StateLabels { pipeline, sink: id, state: sink.status.name() };
        states.get_or_create(&state).set(1);
    }
    registry.register("sink_lag_records", "Records behind the end of the log", records);
    registry.register("sink_lag_seconds", "Age of the next record in the source", seconds);
    registry.register("sink_last_flush_timestamp_seconds", "Latest flush", flushed);
    registry.register("sink_workers", "Live workers", workers);
    registry.register("sink_state", "1 for the state the sink is in", states);
}

fn letters(registry: &mut Registry, report: &HealthReport) {
    let letters = Family::<LetterLabels, Gauge>::default();
    for count in report.sinks.iter().flat_map(|sink| &sink.dead_letters) {
        for (state, number) in [
            ("open", count.open),
            ("replayed", count.replayed),
            ("superseded", count.superseded),
            ("dropped", count.dropped),
        ] {
            let labels = LetterLabels {
                pipeline: report.pipeline_id.clone(),
                sink: count.sink.clone(),
                error_type: count.error_type.clone(),
                state,
            };
            letters.get_or_create(&labels).set(number as i64);
        }
    }
    registry.register("dead_letters", "Dead letters by code and by what became of them", letters);
}

fn positions(registry: &mut Registry, coordinator: &Coordinator) {
    let watermarks = Family::<WatermarkLabels, Gauge>::default();
    let commits = Family::<OffsetLabels, Gauge>::default();
    let pipeline = coordinator.config.pipeline_id.clone();
    if let Some(seen) = &coordinator.group.view().seen {
        for (sink, progress) in &seen.watermarks {
            for (tp, position) in progress.iter().flatten() {
                let labels = WatermarkLabels {
                    pipeline: pipeline.clone(),
                    sink: sink.clone(),
                    topic: tp.topic.to_string(),
                    partition: tp.partition,
                };
                watermarks.get_or_create(&labels).set(position.next.get());
            }
        }
        for (tp, committed) in &seen.committed {
            let labels = OffsetLabels {
                pipeline: pipeline.clone(),
                topic: tp.topic.to_string(),
                partition: tp.partition,
            };
            commits.get_or_create(&labels).set(committed.next.get());
        }
    }
    registry.register("sink_watermark_offset", "First offset not yet durable", watermarks);
    registry.register("pipeline_commit_offset", "Offset of the pipeline's group", commits);
}
