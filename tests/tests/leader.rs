//! Coordinators: one leads, it freezes, another takes over, the first wakes up; and what the one
//! that leads tells of sinks that have no worker.

use std::time::{Duration, Instant};

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::process::Process;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::{Schemas, http};
use cdc_tests::stack::free_port;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

/// Longest time without a leader.
const TAKEOVER: Duration = Duration::from_secs(15);

fn fill(topic: &str, schemas: Schemas, ids: std::ops::Range<i64>) {
    let producer = Producer::default();
    for id in ids {
        producer.send(topic, 0, Some(&schemas.key(id)), Some(&schemas.insert(id, "row")));
    }
    producer.flush();
}

async fn says(process: &Process, what: &str, times: usize) {
    until(&format!("a coordinator says {what:?}"), SOON, async || {
        let log = process.output();
        check(log.matches(what).count() == times, log)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_up_after_it_was_replaced_neither_writes_nor_moves_p() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("lead");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let first_bind = pipeline.config["coordinator"]["bind"].clone();
    let first = pipeline.serve();
    says(&first, "leading the pipeline", 1).await;
    let worker = pipeline.worker("wh");
    fill(&topic, schemas, 0..5);
    pipeline.committed(0, 5).await;
    let second_bind = json!(format!("127.0.0.1:{}", free_port()));
    pipeline.config["coordinator"]["bind"] = second_bind.clone();
    let second = pipeline.serve();
    says(&second, "coordinator listens", 1).await;

    let frozen = Instant::now();
    first.freeze();
    says(&second, "leading the pipeline", 1).await;
    let took = frozen.elapsed();
    println!("another one leads after {took:.1?}");
    assert!(took <= TAKEOVER, "it took {took:?}");
    fill(&topic, schemas, 5..9);
    pipeline.committed(0, 9).await;
    // The worker knows the address of the first one, and finds the one that leads.
    until("the worker reports to the second one", SOON, async || {
        let health = pipeline.sink_health("wh").await?;
        let workers = health["workers"].as_array().map_or(0, Vec::len);
        check(workers == 1, health.to_string())
    })
    .await;
    first.thaw();
    says(&first, "no longer leading the pipeline", 1).await;
    // It can be asked, takes nothing, and says who does.
    let command = json!({"by": "me", "command": {"type": "stop", "sink": "wh", "reason": ""}});
    let url = format!("http://{}/v1/commands", first_bind.as_str().unwrap());
    let second_url = json!(format!("http://{}", second_bind.as_str().unwrap()));
    until("the first one knows who leads", SOON, async || {
        let refused = http().post(&url).json(&command).send().await.map_err(|e| e.to_string())?;
        let status = refused.status().as_u16();
        let said: serde_json::Value = refused.json().await.map_err(|e| e.to_string())?;
        let is_refusal = (status, &said["code"]) == (409, &json!("not_leader"));
        check(is_refusal && said["leader"] == second_url, said.to_string())
    })
    .await;
    pipeline.config["coordinator"]["bind"] = first_bind;
    let status = pipeline.cdc_ok(&["status", "FILE", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["coordinator"]["leader"], true, "{status:#}");
    pipeline.cdc_ok(&["pause", "FILE", "--sink", "wh"]).await;
    says(&worker, "paused by an operator", 1).await;
    pipeline.config["coordinator"]["bind"] = second_bind;

    // The commit of P that a frozen leader had sent off just before, or that anybody else makes:
    // Kafka takes it, and the leader mends it.
    for stale in [5, 9 + 100] {
        kafka::commit(&pipeline.group(), &topic, &[(0, stale)]);
        pipeline.committed(0, 9).await;
    }
    assert!(!worker.output().contains("pipeline.partitions_revoked"));
    assert_eq!(receiver.deliveries().len(), 9);
}

/// A webhook that has taken two records, and was stopped by an operator before three more came;
/// its worker is killed.
async fn stopped(name: &str) -> (Pipeline, Receiver, Process) {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new(name);
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let coordinator = pipeline.serve();
    let mut worker = pipeline.worker("wh");
    fill(&topic, schemas, 0..2);
    pipeline.committed(0, 2).await;
    pipeline.command(&["stop", "FILE", "--sink", "wh", "--reason", "moving house"]).await;
    pipeline.status("wh", "stopped").await;
    worker.kill();
    fill(&topic, schemas, 2..5);
    (pipeline, receiver, coordinator)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_sink_without_workers_is_told_in_the_time_of_the_source() {
    let (pipeline, _receiver, _coordinator) = stopped("oldlag").await;
    // The age of the first that waits: these records were made in 2023, and written just now.
    until("the lag is in years", SOON, async || {
        let health = pipeline.sink_health("wh").await?;
        let years = health["lag_seconds"].as_f64().unwrap_or(0.0) / (365.0 * 86_400.0);
        check(health["lag_records"] == 3 && years > 1.0, health.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_a_stopped_sink_never_joins_its_group() {
    let (mut pipeline, receiver, _coordinator) = stopped("parked").await;
    let worker = pipeline.worker("wh");
    until("the worker is there, and parked", SOON, async || {
        let health = pipeline.sink_health("wh").await?;
        let states = health["workers"].to_string();
        check(states.contains("stopped"), health.to_string())
    })
    .await;
    let log = worker.output();
    assert!(!log.contains("pipeline.partitions_assigned"), "it joined: {log}");
    pipeline.command(&["resume", "FILE", "--sink", "wh"]).await;
    pipeline.committed(0, 5).await;
    assert_eq!(receiver.deliveries().len(), 5);
}
