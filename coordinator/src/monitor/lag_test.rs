//! Arithmetic of lag.

use cdc_shared::config::KafkaConfig;
use cdc_shared::offset::NextOffset;

use super::*;
use crate::health::tests::{heartbeat, worker};
use crate::kafka::{Committed, TopicFacts};
use crate::watermark::rule::tests::position;

fn monitor() -> LagMonitor {
    cdc_shared::tls::install_crypto();
    LagMonitor::new(Arc::new(Registry::new(&KafkaConfig::default()).unwrap()))
}

fn view(positions: &[(i32, i64)], ends: &[i64]) -> GroupView {
    let tp = |p| TopicPartition::new("t", p);
    let watermarks = positions.iter().map(|(p, at)| (tp(*p), position(0, "id", *at))).collect();
    let facts =
        TopicFacts { id: cdc_shared::offset::TopicId("id".into()), partitions: ends.len() as i32 };
    let committed = Committed { next: NextOffset::new(3).unwrap(), metadata: String::new() };
    GroupView {
        seen: Some(Arc::new(Observation {
            begun: Instant::now(),
            topics: [("t".to_owned(), facts)].into(),
            ends: (0..).map(tp).zip(ends.iter().copied()).collect(),
            committed: [(tp(0), committed)].into(),
            watermarks: [("wh".to_owned(), Ok(watermarks))].into(),
            rebuilt: Vec::new(),
        })),
        members: Arc::new([("wh".to_owned(), "t".to_owned())].into()),
        ..GroupView::default()
    }
}

#[test]
fn lag_counts_from_the_watermark_to_the_end() {
    let monitor = monitor();
    let report = monitor.report(&view(&[(0, 5), (1, 8)], &[10, 8, 4]), &[], 0);
    let sink = &report.sinks[0];
    assert_eq!(sink.total_lag, Some(5));
    let lags: Vec<_> = sink.partitions.iter().map(|p| (p.lag, p.offset)).collect();
    assert_eq!(lags, [(Some(5), Some(5)), (Some(0), Some(8)), (None, None)]);
    assert_eq!(sink.seconds, None, "nobody has told of the next record");
    assert_eq!(report.pipeline[0].lag, Some(7));
    assert_eq!(report.pipeline[1].lag, None);
}

#[test]
fn caught_up_is_no_second_behind() {
    let report = monitor().report(&view(&[(0, 10)], &[10]), &[], 0);
    assert_eq!((report.sinks[0].total_lag, report.sinks[0].seconds), (Some(0), Some(0.0)));
}

#[test]
fn seconds_are_the_age_of_the_oldest_waiting_record() {
    let mut beat = heartbeat("wh", "w", &[("t", 0, 5), ("t", 1, 5)]);
    beat.partitions[0].next_source_ms = Some(7_000);
    beat.partitions[1].next_source_ms = Some(4_000);
    let workers = [worker(beat)];
    let view = view(&[(0, 5), (1, 5)], &[10, 10]);
    let seconds = |now| monitor().report(&view, &workers, now).sinks[0].seconds;
    assert_eq!(seconds(10_000), Some(6.0));
    assert_eq!(seconds(1_000), Some(0.0), "clocks differ, lag is never negative");
}

#[test]
fn only_marks_of_transactions_are_no_lag() {
    let monitor = monitor();
    let found = Found { position: 5, end: 10, made_ms: None, sure: true };
    *monitor.found.lock().unwrap() = Arc::new([(TopicPartition::new("t", 0), vec![found])].into());
    let lag = |end| monitor.report(&view(&[(0, 5)], &[end]), &[], 0).sinks[0].total_lag;
    assert_eq!(lag(10), Some(0));
    assert_eq!(lag(11), Some(6), "the log has grown since");
}
