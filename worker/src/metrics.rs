//! The metrics of a worker, read from [`Status`] when somebody asks.
//!
//! Cardinality is bounded by the assigned partitions: codes and messages of errors are no labels.

use std::fmt;
use std::sync::atomic::Ordering;

use cdc_shared::api::{PartitionReport, PartitionState, WorkerState};
use cdc_shared::clock::unix_ms;
use cdc_shared::metrics::{BUILD, Number, PROCESS_START, Page, of_worker as metric};

use crate::status::{SharedStatus, Status};

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    pipeline_id: String,
    sink_id: String,
    status: SharedStatus,
    started_ms: i64,
}

impl Metrics {
    /// Metrics that read `status`. The process counts as started now.
    pub fn new(pipeline_id: &str, sink_id: &str, status: SharedStatus) -> Self {
        let (pipeline_id, sink_id) = (pipeline_id.to_owned(), sink_id.to_owned());
        Self { pipeline_id, sink_id, status, started_ms: unix_ms() }
    }

    /// Everything as Prometheus reads it.
    ///
    /// # Errors
    /// Never in practice: writing to a text does not fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let labels = [("pipeline", self.pipeline_id.clone()), ("sink", self.sink_id.clone())];
        let mut page = Page::new(labels);
        let build = [env!("CARGO_PKG_VERSION"), "worker"].map(ToOwned::to_owned);
        page.family(&BUILD, [(build, true)]);
        page.one(&PROCESS_START, seconds(self.started_ms));
        process(&mut page, &self.status);
        partitions(&mut page, &self.status.partitions());
        page.text()
    }
}

fn process(page: &mut Page, status: &Status) {
    let counters = status.counters();
    for (metric, value) in [
        (&metric::DELIVERED, counters.delivered),
        (&metric::SKIPPED, counters.skipped),
        (&metric::DEAD_LETTERED, counters.dead_lettered),
        (&metric::RETRIES, counters.retries),
        (&metric::FETCHED, status.fetched.load(Ordering::Relaxed)),
        (&metric::MOVED, status.moved.load(Ordering::Relaxed)),
        (&metric::WENT_BACK, status.went_back.load(Ordering::Relaxed)),
        (&metric::BUFFERED_BYTES, status.buffered_bytes.load(Ordering::Relaxed)),
    ] {
        page.one(metric, value);
    }
    let last_poll = status.last_poll_ms.load(Ordering::Relaxed);
    if last_poll > 0 {
        page.one(&metric::LAST_POLL, seconds(last_poll));
    }
    page.family(&metric::STATE, [([WorkerState::name(status.state()).to_owned()], true)]);
}

fn partitions(page: &mut Page, reports: &[PartitionReport]) {
    let each = |value: fn(&PartitionReport) -> Option<Number>| {
        reports.iter().filter_map(move |report| Some((labels(report), value(report)?)))
    };
    let next = |report: &PartitionReport| Some(report.position.as_ref()?.next.get().into());
    page.family(&metric::WATERMARK, each(next));
    page.family(&metric::QUEUE_DEPTH, each(|report| Some(report.queue_depth.into())));
    page.family(&metric::PARTITION_HELD, each(|report| Some(report.hold.is_some().into())));
    page.family(&metric::LAST_FLUSH, each(|report| Some(seconds(report.last_flush_ms?).into())));
    page.family(&metric::NEXT_SOURCE, each(|report| Some(seconds(report.next_source_ms?).into())));
    let states = reports.iter().map(|report| {
        let [topic, partition] = labels(report);
        ([topic, partition, PartitionState::name(report.state).to_owned()], true)
    });
    page.family(&metric::PARTITION_STATE, states);
}

fn labels(report: &PartitionReport) -> [String; 2] {
    [report.topic.clone(), report.partition.to_string()]
}

fn seconds(unix_ms: i64) -> f64 {
    unix_ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::metrics::WORKER;
    use cdc_shared::offset::{
        Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition,
    };
    use std::collections::BTreeSet;
    use std::sync::Arc;

    #[test]
    fn values_are_those_of_the_status_when_asked() {
        let status = Arc::new(Status::default());
        let metrics = Metrics::new("shop", "wh", status.clone());
        status.delivered.store(7, Ordering::Relaxed);
        status.last_poll_ms.store(2500, Ordering::Relaxed);
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
            next_source_ms: Some(1000),
        };
        let tp = TopicPartition::new("cdc.public.orders", 3);
        status.report(&tp, report);
        let text = metrics.text().unwrap();
        let of = r#"pipeline="shop",sink="wh""#;
        let labels = format!(r#"{of},topic="cdc.public.orders",partition="3""#);
        for line in [
            format!("cdc_worker_delivered_records_total{{{of}}} 7"),
            format!(r#"cdc_worker_state{{{of},state="starting"}} 1"#),
            format!("cdc_worker_last_poll_timestamp_seconds{{{of}}} 2.5"),
            format!("cdc_worker_watermark_offset{{{labels}}} 42"),
            format!("cdc_worker_queue_depth{{{labels}}} 5"),
            format!("cdc_worker_partition_held{{{labels}}} 0"),
            format!("cdc_worker_last_flush_timestamp_seconds{{{labels}}} 1.5"),
            format!(r#"cdc_worker_partition_state{{{labels},state="degraded"}} 1"#),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        let names = |text: &str| -> BTreeSet<String> {
            let series = text.lines().filter(|line| !line.starts_with('#'));
            series.filter_map(|line| Some(line.split_once('{')?.0.to_owned())).collect()
        };
        let listed: BTreeSet<String> = WORKER.iter().map(|row| row.name.to_owned()).collect();
        assert_eq!(names(&text), listed, "what is shown is what is listed");
        status.forget(&tp);
        assert!(!metrics.text().unwrap().contains("orders"), "a partition that left has no series");
    }
}
