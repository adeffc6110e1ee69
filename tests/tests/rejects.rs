//! A record that a sink refuses: the stop at it, and the ways past it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc_tests::kafka;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::proxy::Proxy;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::register_topic;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

use super::holds::{fill, offsets};

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_record_stops_its_partition_and_skip_passes_exactly_it() {
    let receiver = Receiver::start().await;
    receiver.answer(|delivery| if [3, 5].contains(&delivery.offset) { 422 } else { 204 });
    let mut pipeline = Pipeline::new("skip");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    pipeline.sink_mut("wh")["on_reject"] = json!("stop");
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    // One key, so that nothing behind the record is tried before it.
    for _ in 0..8 {
        fill(&topic, schemas, 0, 0..1);
    }
    fill(&topic, schemas, 1, 0..3);
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    let hold = pipeline.held("wh", "rejected_record").await;
    assert_eq!(hold["offset"], 3, "{hold}");
    let others = offsets(1, 0..3);
    pipeline.committed(1, 3).await;
    assert!(receiver.acknowledged().is_superset(&others));
    let all = offsets(0, 0..8).union(&others).copied().collect();
    pipeline.has_rows(&all, SOON).await;
    pipeline.committed(0, 3).await;
    let output = pipeline.cdc(&["health", "FILE"]).await;
    assert_eq!(output.status.code(), Some(2), "a stop is critical");

    // Resumed with the cause still there, it stops again at the same record.
    pipeline.command(&["resume", "FILE", "--sink", "wh"]).await;
    pipeline.held("wh", "rejected_record").await;
    let skip = ["skip", "FILE", "--sink", "wh", "--topic", &topic, "--partition", "0"];
    pipeline.command(&[&skip[..], &["--offset", "3"]].concat()).await;
    until("it stops at the next one", SOON, async || {
        let hold = pipeline.held("wh", "rejected_record").await;
        check(hold["offset"] == 5, hold)
    })
    .await;
    assert_eq!(kafka::committed(&pipeline.group(), &topic, 0).map(|p| p <= 5), Some(true));
    receiver.answer(|_| 204);
    pipeline.command(&["resume", "FILE", "--sink", "wh"]).await;
    let mut expected: BTreeSet<(i32, i64)> = all;
    expected.remove(&(0, 3));
    receiver.has(&expected).await;
    pipeline.committed(0, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_rejected_records_the_first_one_stops_the_partition() {
    let receiver = Receiver::start().await;
    // 4 is refused at once, 2 only at its third attempt.
    let attempts = AtomicU32::new(0);
    receiver.answer(move |delivery| match delivery.offset {
        2 if attempts.fetch_add(1, Ordering::Relaxed) < 2 => 503,
        2 | 4 => 422,
        _ => 204,
    });
    let mut pipeline = Pipeline::new("first");
    pipeline.webhook("wh", &receiver.url());
    pipeline.sink_mut("wh")["on_reject"] = json!("stop");
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..6);
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let hold = pipeline.held("wh", "rejected_record").await;
    assert_eq!(hold["offset"], 2, "{hold}");
    pipeline.committed(0, 2).await;
    let skip = ["skip", "FILE", "--sink", "wh", "--topic", &topic, "--partition", "0"];
    pipeline.command(&[&skip[..], &["--offset", "2"]].concat()).await;
    until("it stops at the next one", SOON, async || {
        let hold = pipeline.held("wh", "rejected_record").await;
        check(hold["offset"] == 4, hold)
    })
    .await;
    pipeline.command(&[&skip[..], &["--offset", "4"]].concat()).await;
    pipeline.committed(0, 6).await;
    receiver.check_promise();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_rejected_while_a_schema_is_fetched_is_dead_lettered_all_the_same() {
    let stack = Stack::get();
    let (base, path) = stack.registry().split_once("/apis/").unwrap();
    let registry = Proxy::start(base, None).await;
    let receiver = Receiver::start().await;
    receiver.answer(|delivery| if delivery.offset == 1 { 422 } else { 204 });
    let mut pipeline = Pipeline::new("slowreg");
    pipeline.webhook("wh", &receiver.url());
    pipeline.config["kafka"]["schema_registry_url"] =
        json!(format!("{}/apis/{path}", registry.address()));
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let other = register_topic(&format!("{topic}2")).await;
    assert_ne!(other.value, schemas.value);
    let _coordinator = pipeline.serve();
    let worker = pipeline.worker("wh");
    fill(&topic, schemas, 0, 0..1);
    receiver.has(&offsets(0, 0..1)).await;
    receiver.mute(true);
    registry.hide(Some(("/schemas/ids/", 503)));
    fill(&topic, schemas, 0, 1..2);
    fill(&topic, other, 0, 2..3);
    until("one is under way and the schema of the next is waited for", SOON, async || {
        let log = worker.output();
        check(receiver.deliveries().len() == 2 && log.contains("registry_unavailable"), log)
    })
    .await;
    receiver.mute(false);
    until("the first one is refused", SOON, async || {
        let got = receiver.deliveries()[1].status;
        check(got == 422, got)
    })
    .await;
    registry.hide(None);
    pipeline.committed(0, 3).await;
    receiver.has(&BTreeSet::from([(0, 0), (0, 2)])).await;
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1).len(), 1);
}
