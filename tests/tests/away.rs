//! Receivers that are away or refuse us for a long time: time alone costs no event, no dead letter
//! and no rebalance.
//!
//! `CDC_TEST_AWAY_SECONDS` says how long (default 15). Whatever it says, it is longer than the
//! group's session and than the client's `max.poll.interval.ms`: a poll that is blocked by the
//! sink, or a heartbeat that is missed, would cost the partitions.

use std::collections::BTreeSet;
use std::time::Duration;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::process::Process;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::Schemas;
use cdc_tests::wait::{check, stays};
use serde_json::json;

/// Of the local broker, for groups that speak KIP-848.
const SESSION: Duration = Duration::from_secs(10);
const PARTITIONS: i32 = 2;

fn how_long() -> Duration {
    let given = cdc_shared::config::process_variables().remove("CDC_TEST_AWAY_SECONDS");
    let seconds = given.map_or(15, |text| text.parse().unwrap());
    let time = Duration::from_secs(seconds);
    assert!(time > SESSION, "CDC_TEST_AWAY_SECONDS must be longer than a session, {SESSION:?}");
    time
}

/// Records `ids` in each partition.
fn fill(topic: &str, schemas: Schemas, ids: std::ops::Range<i64>) -> BTreeSet<(i32, i64)> {
    let producer = Producer::default();
    for id in ids.clone() {
        for partition in 0..PARTITIONS {
            let value = schemas.insert(id, "row");
            producer.send(topic, partition, Some(&schemas.key(id)), Some(&value));
        }
    }
    producer.flush();
    (0..PARTITIONS).flat_map(|partition| ids.clone().map(move |id| (partition, id))).collect()
}

/// How often the client was given partitions, and how often it lost some.
fn rebalances(worker: &Process) -> (usize, usize) {
    let log = worker.output();
    let count = |event: &str| log.matches(event).count();
    (count("pipeline.partitions_assigned"), count("pipeline.partitions_revoked"))
}

async fn long_trouble(protocol: &str, properties: serde_json::Value) {
    let time = how_long();
    let mut pipeline = Pipeline::new("long");
    pipeline.config["kafka"]["group_protocol"] = json!(protocol);
    pipeline.config["kafka"]["properties"] = properties;
    // Less than what waits, so that the partitions are full and paused meanwhile.
    pipeline.config["max_buffered_messages"] = json!(10);
    let mut receivers = Vec::new();
    for sink in ["gone", "locked", "lost"] {
        let receiver = Receiver::start().await;
        pipeline.webhook(sink, &receiver.url());
        receivers.push((sink, receiver));
    }
    let (schemas, topic) = (pipeline.topics(PARTITIONS).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let workers: Vec<Process> = receivers.iter().map(|(sink, _)| pipeline.worker(sink)).collect();
    let mut expected = fill(&topic, schemas, 0..5);
    for (_, receiver) in &receivers {
        receiver.has(&expected).await;
    }
    let before: Vec<_> = workers.iter().map(rebalances).collect();

    receivers[0].1.go_away();
    receivers[1].1.answer(|_| 401);
    receivers[2].1.answer(|_| 404);
    let waiting = fill(&topic, schemas, 5..45);
    for (sink, _) in &receivers {
        pipeline.status(sink, "degraded").await;
    }
    stays("degraded, with the partitions where they are", time, async || {
        for ((sink, receiver), worker) in receivers.iter().zip(&workers) {
            let health = pipeline.sink_health(sink).await?;
            let is_degraded = health["status"] == "degraded";
            let took = receiver.acknowledged().len();
            check(is_degraded && took == expected.len(), format!("{took} taken; {health}"))?;
            check(rebalances(worker).1 == 0, worker.output())?;
        }
        Ok::<_, String>(())
    })
    .await;

    receivers[0].1.come_back().await;
    receivers[1].1.answer(|_| 204);
    receivers[2].1.answer(|_| 204);
    expected.extend(waiting);
    expected.extend(fill(&topic, schemas, 45..50));
    for (sink, receiver) in &receivers {
        receiver.has(&expected).await;
        receiver.check_promise();
        pipeline.status(sink, "running").await;
    }
    for partition in 0..PARTITIONS {
        pipeline.committed(partition, 50).await;
    }
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1), BTreeSet::new(), "no dead letter");
    let after: Vec<_> = workers.iter().map(rebalances).collect();
    assert_eq!(after, before, "no rebalance (assigned, revoked)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_or_refuses_us_for_long_costs_nothing() {
    // Both protocols side by side. What only the classic one takes is no harm to the other.
    let properties = json!({
        "max.poll.interval.ms": "6000",
        "session.timeout.ms": "6000",
        "heartbeat.interval.ms": "1000",
    });
    tokio::join!(
        long_trouble("auto", properties.clone()),
        long_trouble("classic", properties.clone()),
    );
}
