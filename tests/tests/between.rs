//! Killed or frozen exactly between two steps: the sink has a batch and group S does not know it
//! yet, or nobody knows whether the sink has it. Where chaos (`crash.rs`) hits by chance, the
//! place is held here until the process is gone.

use std::collections::BTreeSet;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::Schemas;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use cdc_tests::wire::{Half, Wire};
use serde_json::json;

fn offsets(range: std::ops::Range<i64>) -> BTreeSet<(i32, i64)> {
    range.map(|offset| (0, offset)).collect()
}

/// One record per offset, each with a key of its own.
fn fill(topic: &str, schemas: Schemas, ids: std::ops::Range<i64>) {
    let producer = Producer::default();
    for id in ids {
        producer.send(topic, 0, Some(&schemas.key(id)), Some(&schemas.insert(id, "row")));
    }
    producer.flush();
}

/// An events table behind a wire, with a worker that has delivered five records and then met a
/// held wire with the next five.
struct Interrupted {
    pipeline: Pipeline,
    topic: String,
    schemas: Schemas,
    wire: Wire,
    worker: Process,
    _coordinator: Process,
}

/// `None`: the worker has its answer, and only the commit of S is still due.
async fn interrupted(name: &str, half: Option<Half>) -> Interrupted {
    let wire = Wire::start(Stack::get().postgres_port()).await;
    let mut pipeline = Pipeline::new(name);
    pipeline.events("ev").await;
    pipeline.sink_mut("ev")["postgres"]["port"] = json!(wire.port);
    if half.is_none() {
        // Longer than the worker lives.
        pipeline.config["kafka"]["commit_interval_ms"] = json!(600_000);
    }
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let coordinator = pipeline.serve();
    let worker = pipeline.worker("ev");
    fill(&topic, schemas, 0..5);
    pipeline.has_rows(&offsets(0..5), SOON).await;
    if half.is_some() {
        pipeline.committed(0, 5).await;
    }
    if let Some(half) = half {
        wire.hold(half);
    }
    fill(&topic, schemas, 5..10);
    if half.is_some() {
        wire.holds_something().await;
    }
    let written = if half == Some(Half::Requests) { 5 } else { 10 };
    pipeline.has_rows(&offsets(0..written), SOON).await;
    own_record(&pipeline, written).await;
    if half.is_none() {
        until("the worker has the answer", SOON, async || {
            let health = pipeline.sink_health("ev").await?;
            check(health["lag_records"] == 0, health.to_string())
        })
        .await;
    }
    let s = kafka::committed(&pipeline.sink_group("ev"), &topic, 0);
    let expected = if half.is_some() { Some(5) } else { None };
    assert_eq!(s, expected, "S does not know the last batch");
    Interrupted { pipeline, topic, schemas, wire, worker, _coordinator: coordinator }
}

/// Waits until the sink's own record says `next`.
async fn own_record(pipeline: &Pipeline, next: i64) {
    let target = postgres::target().await;
    until("the sink's own record", SOON, async || {
        let query = format!("SELECT next_offset FROM {}.cdc_offsets", pipeline.id);
        let row = target.query_one(&query, &[]).await.map_err(|error| error.to_string())?;
        let found: i64 = row.get(0);
        check(found == next, found.to_string())
    })
    .await;
}

impl Interrupted {
    /// Ten records, each once, and five more, and everybody knows.
    async fn goes_on(&self) {
        fill(&self.topic, self.schemas, 10..15);
        self.pipeline.has_rows(&offsets(0..15), SOON).await;
        own_record(&self.pipeline, 15).await;
        self.pipeline.committed(0, 15).await;
    }

    async fn survives_a_kill(mut self) {
        self.worker.kill();
        self.pipeline.config["kafka"]["commit_interval_ms"] = json!(200);
        let worker = self.pipeline.worker("ev");
        self.pipeline.has_rows(&offsets(0..10), SOON).await;
        // What the dead one said last reaches the server now.
        self.wire.release();
        self.goes_on().await;
        assert!(!worker.output().contains("behind itself"), "{}", worker.output());
    }

    async fn survives_a_freeze(self) {
        self.worker.freeze();
        let _other = self.pipeline.worker("ev");
        self.pipeline.has_rows(&offsets(0..10), SOON).await;
        let group = self.pipeline.sink_group("ev");
        until("the other worker commits S", SOON, async || {
            let found = kafka::committed(&group, &self.topic, 0);
            check(found == Some(10), found)
        })
        .await;
        self.wire.release();
        self.wire.is_answered().await;
        self.pipeline.has_rows(&offsets(0..10), SOON).await;
        self.worker.thaw();
        until("the frozen worker learns that it was replaced", SOON, async || {
            let log = self.worker.output();
            check(log.contains("pipeline.partitions_revoked"), log)
        })
        .await;
        self.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_its_statement_on_the_way() {
    interrupted("killreq", Some(Half::Requests)).await.survives_a_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_sink_has_committed_and_the_answer_is_on_the_way() {
    interrupted("killans", Some(Half::Answers)).await.survives_a_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_answer_of_the_sink_and_the_commit_of_its_group() {
    interrupted("killcom", None).await.survives_a_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_between_write_and_commit_and_awake_after_it_was_replaced() {
    // Side by side: most of it is waiting for the group to give the frozen one up.
    tokio::join!(
        async { interrupted("icereq", Some(Half::Requests)).await.survives_a_freeze().await },
        async { interrupted("iceans", Some(Half::Answers)).await.survives_a_freeze().await },
    );
}

/// A webhook that has five requests and has answered none of them.
async fn unanswered(name: &str) -> (Pipeline, Schemas, Receiver, Process, Process) {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new(name);
    pipeline.webhook("wh", &receiver.url());
    // A time-out would be an answer too.
    pipeline.sink_mut("wh")["webhook"]["timeout_seconds"] = json!(120);
    let schemas = pipeline.topics(1).await;
    let coordinator = pipeline.serve();
    let worker = pipeline.worker("wh");
    fill(&pipeline.topic(), schemas, 0..5);
    receiver.has(&offsets(0..5)).await;
    pipeline.committed(0, 5).await;
    receiver.mute(true);
    fill(&pipeline.topic(), schemas, 5..10);
    until("the receiver has the requests", SOON, async || {
        let got = receiver.deliveries().len();
        check(got == 10, got)
    })
    .await;
    assert_eq!(receiver.acknowledged(), offsets(0..5));
    (pipeline, schemas, receiver, worker, coordinator)
}

async fn nothing_is_missing(pipeline: &Pipeline, schemas: Schemas, receiver: &Receiver) {
    receiver.has(&offsets(0..10)).await;
    fill(&pipeline.topic(), schemas, 10..15);
    receiver.has(&offsets(0..15)).await;
    // One id, one body, first deliveries in order.
    receiver.check_promise();
    assert!(receiver.deliveries().len() >= 20, "five came twice");
    pipeline.committed(0, 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_receiver_has_the_request_and_before_its_answer() {
    let (pipeline, schemas, receiver, mut worker, _coordinator) = unanswered("killweb").await;
    worker.kill();
    receiver.mute(false);
    let _worker = pipeline.worker("wh");
    nothing_is_missing(&pipeline, schemas, &receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_when_the_receiver_has_the_request_and_before_its_answer() {
    let (pipeline, schemas, receiver, worker, _coordinator) = unanswered("iceweb").await;
    worker.freeze();
    let _other = pipeline.worker("wh");
    until("the other one sends all of them again", SOON, async || {
        let got = receiver.deliveries().len();
        check(got == 15, got)
    })
    .await;
    receiver.mute(false);
    worker.thaw();
    nothing_is_missing(&pipeline, schemas, &receiver).await;
}
