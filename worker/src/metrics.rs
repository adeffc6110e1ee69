//! The metrics of a worker: names in one place, values read from [`Status`] when somebody asks.
//!
//! Every series carries the label `sink`. Cardinality is bounded by the assigned partitions: codes
//! and messages of errors are no labels.

use std::fmt;
use std::sync::atomic::Ordering;

use cdc_shared::api::{PartitionReport, PartitionState, WorkerState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::status::{SharedStatus, Status};

/// Records taken by the sink (counter; `_total` is appended to all counters).
pub const DELIVERED: &str = "cdc_worker_delivered_records";
/// Records without effect (counter).
pub const SKIPPED: &str = "cdc_worker_skipped_records";
/// Records acknowledged by the DLQ topic (counter).
pub const DEAD_LETTERED: &str = "cdc_worker_dead_lettered_records";
/// Attempts that failed and were repeated (counter).
pub const RETRIES: &str = "cdc_worker_retries";
/// Records that came from Kafka (counter). What a full partition's pause threw away came again.
pub const FETCHED: &str = "cdc_worker_fetched_records";
/// Bytes of records held in the process (gauge).
pub const BUFFERED_BYTES: &str = "cdc_worker_buffered_bytes";
/// 1 for the state the worker is in (gauge, label `state`).
pub const STATE: &str = "cdc_worker_state";
/// When the consumer thread last took a turn (gauge); absent before the first.
pub const LAST_POLL: &str = "cdc_worker_last_poll_timestamp_seconds";
/// First offset not yet durable (gauge, labels `topic`, `partition`, as all below).
pub const WATERMARK: &str = "cdc_worker_watermark_offset";
/// Records fetched and not yet durable (gauge).
pub const QUEUE_DEPTH: &str = "cdc_worker_queue_depth";
/// 1 for the state a partition is in (gauge, further label `state`).
pub const PARTITION_STATE: &str = "cdc_worker_partition_state";
/// 1 while something keeps a partition from moving (gauge).
pub const PARTITION_HELD: &str = "cdc_worker_partition_held";
/// When the sink last took something (gauge); absent before.
pub const LAST_FLUSH: &str = "cdc_worker_last_flush_timestamp_seconds";
/// Source commit time of the first record not yet durable (gauge); absent when there is none.
pub const NEXT_SOURCE: &str = "cdc_worker_next_source_timestamp_seconds";
/// When this process started (gauge).
pub const PROCESS_START: &str = "process_start_time_seconds";

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics that read `status`. The process counts as started now.
    pub fn new(sink_id: &str, status: SharedStatus) -> Self {
        let sink = ("sink".into(), sink_id.to_owned().into());
        let mut registry = Registry::with_labels(std::iter::once(sink));
        let started_ms = jiff::Timestamp::now().as_millisecond();
        registry.register_collector(Box::new(Reading { status, started_ms }));
        Self { registry }
    }

    /// Everything in the text format of `OpenMetrics`.
    ///
    /// # Errors
    /// Never in practice: writing to a text does not fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[derive(Debug)]
struct Reading {
    status: SharedStatus,
    started_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionStateLabels {
    topic: String,
    partition: i32,
    state: &'static str,
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.process(&mut encoder)?;
        partitions(&mut encoder, &self.status)
    }
}

impl Reading {
    fn process(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let counters = self.status.counters();
        let fetched = self.status.fetched.load(Ordering::Relaxed);
        for (name, help, value) in [
            (DELIVERED, "Records taken by the sink", counters.delivered),
            (SKIPPED, "Records without effect", counters.skipped),
            (DEAD_LETTERED, "Records acknowledged by the DLQ topic", counters.dead_lettered),
            (RETRIES, "Attempts that failed and were repeated", counters.retries),
            (FETCHED, "Records that came from Kafka, repeated ones each time", fetched),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let buffered = self.status.buffered_bytes.load(Ordering::Relaxed) as i64;
        gauge(encoder, BUFFERED_BYTES, "Bytes of records held in the process", buffered)?;
        gauge(encoder, PROCESS_START, "When this process started", seconds(self.started_ms))?;
        let last_poll = self.status.last_poll_ms.load(Ordering::Relaxed);
        if last_poll > 0 {
            gauge(encoder, LAST_POLL, "Last turn of the consumer thread", seconds(last_poll))?;
        }
        let label = StateLabel { state: WorkerState::name(self.status.state()) };
        family(encoder, STATE, "The state the worker is in", [(label, 1_i64)])
    }
}

fn partitions(encoder: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let reports = status.partitions();
    let labels = |report: &PartitionReport| PartitionLabels {
        topic: report.topic.clone(),
        partition: report.partition,
    };
    let each = |value: fn(&PartitionReport) -> Option<i64>| {
        reports.iter().filter_map(move |report| Some((labels(report), value(report)?)))
    };
    family(
        encoder,
        WATERMARK,
        "First offset not yet durable",
        each(|report| report.position.as_ref().map(|position| position.next.get())),
    )?;
    family(
        encoder,
        QUEUE_DEPTH,
        "Records fetched and not yet durable",
        each(|report| Some(report.queue_depth as i64)),
    )?;
    family(
        encoder,
        PARTITION_HELD,
        "1 while something keeps the partition from moving",
        each(|report| Some(i64::from(report.hold.is_some()))),
    )?;
    let times = |time: fn(&PartitionReport) -> Option<i64>| {
        each(time).map(|(labels, ms)| (labels, seconds(ms)))
    };
    family(encoder, LAST_FLUSH, "When the sink last took something", times(|r| r.last_flush_ms))?;
    family(
        encoder,
        NEXT_SOURCE,
        "Source commit time of the first record not yet durable",
        times(|report| report.next_source_ms),
    )?;
    let series = reports.iter().map(|report| {
        let PartitionLabels { topic, partition } = labels(report);
        let state = PartitionState::name(report.state);
        (PartitionStateLabels { topic, partition, state }, 1_i64)
    });
    family(encoder, PARTITION_STATE, "The state the partition is in", series)
}

fn seconds(unix_ms: i64) -> f64 {
    unix_ms as f64 / 1000.0
}

fn gauge<V>(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: V) -> fmt::Result
where
    ConstGauge<V>: EncodeMetric,
{
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn family<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::offset::{
        Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition,
    };
    use std::sync::Arc;

    #[test]
    fn values_are_those_of_the_status_when_asked() {
        let status = Arc::new(Status::default());
        let metrics = Metrics::new("wh", status.clone());
        status.delivered.store(7, Ordering::Relaxed);
        let position = Position {
            next: NextOffset::after(41),
            incarnation: Incarnation(0),
            topic_id: TopicId("id".into()),
            schemas: SchemaIds::default(),
        };
        let report = PartitionReport {
            topic: "cdc.public.orders".into(),
            partition: 3,
            position: Some(position),
            state: PartitionState::Degraded,
            hold: None,
            queue_depth: 5,
            last_flush_ms: Some(1500),
            next_source_ms: None,
        };
        let tp = TopicPartition::new("cdc.public.orders", 3);
        status.report(&tp, report);
        let text = metrics.text().unwrap();
        let labels = r#"sink="wh",topic="cdc.public.orders",partition="3""#;
        for line in [
            r#"cdc_worker_delivered_records_total{sink="wh"} 7"#.to_owned(),
            r#"cdc_worker_state{sink="wh",state="starting"} 1"#.to_owned(),
            format!("cdc_worker_watermark_offset{{{labels}}} 42"),
            format!("cdc_worker_queue_depth{{{labels}}} 5"),
            format!("cdc_worker_partition_held{{{labels}}} 0"),
            format!("cdc_worker_last_flush_timestamp_seconds{{{labels}}} 1.5"),
            format!(r#"cdc_worker_partition_state{{{labels},state="degraded"}} 1"#),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(text.contains("\nprocess_start_time_seconds{"), "{text}");
        status.forget(&tp);
        assert!(!metrics.text().unwrap().contains("orders"), "a partition that left has no series");
    }
}
