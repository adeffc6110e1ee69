//! The group of a sink by each of Kafka's protocols: workers come, share, go and are killed while
//! records flow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::process::Process;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::{Schemas, register_topic};
use cdc_tests::stack::ClassicBroker;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

const PARTITIONS: i32 = 4;

/// Produces at a pace until it is dropped or told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(topic: String, schemas: Schemas) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let producer = Producer::default();
            for count in 0_i64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = count % 40;
                let partition = (key % i64::from(PARTITIONS)) as i32;
                let value = schemas.insert(key, &format!("change {count}"));
                producer.send(&topic, partition, Some(&schemas.key(key)), Some(&value));
                // The pace, not a wait for anything.
                std::thread::sleep(Duration::from_millis(3));
            }
            producer.flush();
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// How many partitions each live worker of a sink has, by its own word, in descending order.
async fn shares(pipeline: &Pipeline, sink: &str) -> Result<Vec<u64>, String> {
    let health = pipeline.sink_health(sink).await?;
    let workers = health["workers"].as_array().cloned().unwrap_or_default();
    let mut shares: Vec<u64> =
        workers.iter().map(|worker| worker["partitions"].as_u64().unwrap_or(0)).collect();
    shares.sort_unstable_by(|a, b| b.cmp(a));
    Ok(shares)
}

async fn shared_as(pipeline: &Pipeline, sinks: &[&str], expected: &[u64]) {
    for sink in sinks {
        until(&format!("partitions of {sink} are shared as {expected:?}"), SOON, async || {
            let found = shares(pipeline, sink).await?;
            check(found.starts_with(expected), format!("{found:?}"))
        })
        .await;
    }
}

/// A pipeline with both sinks whose workers speak a protocol.
async fn pipeline(name: &str, protocol: &str, properties: Value) -> (Pipeline, Receiver, Schemas) {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new(name);
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    pipeline.config["kafka"]["group_protocol"] = json!(protocol);
    pipeline.config["kafka"]["properties"] = properties;
    let schemas = pipeline.topics(PARTITIONS).await;
    (pipeline, receiver, schemas)
}

/// Everything is there, once in the table, as promised at the webhook, and P is at the end.
async fn all_arrived(pipeline: &Pipeline, receiver: &Receiver) {
    let topic = pipeline.topic();
    let expected = kafka::events(&topic, PARTITIONS);
    assert!(!expected.is_empty());
    pipeline.has_rows(&expected, SOON).await;
    receiver.has(&expected).await;
    receiver.check_promise();
    for partition in 0..PARTITIONS {
        pipeline.committed(partition, kafka::bounds(&topic, partition).1).await;
    }
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1), BTreeSet::new());
}

async fn ends_well(worker: &mut Process) {
    assert!(worker.drain().await.success(), "{}", worker.output());
}

const SINKS: [&str; 2] = ["wh", "ev"];

#[tokio::test(flavor = "multi_thread")]
async fn by_the_classic_protocol_workers_come_and_go_and_are_killed_under_load() {
    let properties = json!({"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"});
    let (pipeline, receiver, schemas) = pipeline("classic", "classic", properties).await;
    let _coordinator = pipeline.serve();
    let load = Load::start(pipeline.topic(), schemas);
    let first = SINKS.map(|sink| pipeline.worker(sink));
    shared_as(&pipeline, &SINKS, &[4]).await;
    for sink in SINKS {
        assert_eq!(kafka::classic_protocol(&pipeline.sink_group(sink)), "cooperative-sticky");
    }
    let mut second = SINKS.map(|sink| pipeline.worker(sink));
    shared_as(&pipeline, &SINKS, &[2, 2]).await;
    for worker in &mut second {
        ends_well(worker).await;
    }
    shared_as(&pipeline, &SINKS, &[4]).await;
    let _third = SINKS.map(|sink| pipeline.worker(sink));
    shared_as(&pipeline, &SINKS, &[2, 2]).await;
    for mut worker in first {
        worker.kill();
    }
    shared_as(&pipeline, &SINKS, &[4]).await;
    load.stop();
    all_arrived(&pipeline, &receiver).await;
}

/// The client may end between giving its partitions up and leaving, in one of three or four ends:
/// then nobody gets the partitions before its session times out, which is 45 s.
#[tokio::test(flavor = "multi_thread")]
async fn by_the_classic_protocol_a_worker_that_ends_has_left_its_group() {
    let properties = json!({"heartbeat.interval.ms": "500"});
    let (pipeline, _receiver, _schemas) = pipeline("leaves", "classic", properties).await;
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("wh");
    shared_as(&pipeline, &["wh"], &[4]).await;
    for _ in 0..8 {
        let next = pipeline.worker("wh");
        shared_as(&pipeline, &["wh"], &[2, 2]).await;
        ends_well(&mut worker).await;
        assert_eq!(kafka::classic_members(&pipeline.sink_group("wh")), 1, "{}", worker.output());
        worker = next;
        shared_as(&pipeline, &["wh"], &[4]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_changes_its_protocol_worker_by_worker() {
    let (mut pipeline, receiver, schemas) = pipeline("mixed", "classic", json!({})).await;
    let _coordinator = pipeline.serve();
    let load = Load::start(pipeline.topic(), schemas);
    let mut old = SINKS.map(|sink| pipeline.worker(sink));
    shared_as(&pipeline, &SINKS, &[4]).await;
    pipeline.config["kafka"]["group_protocol"] = json!("auto");
    let mut new = SINKS.map(|sink| pipeline.worker(sink));
    shared_as(&pipeline, &SINKS, &[2, 2]).await;
    for worker in &mut old {
        ends_well(worker).await;
    }
    shared_as(&pipeline, &SINKS, &[4]).await;
    for sink in SINKS {
        assert_eq!(kafka::classic_protocol(&pipeline.sink_group(sink)), "", "it is KIP-848 now");
    }
    // And back.
    pipeline.config["kafka"]["group_protocol"] = json!("classic");
    let _back = SINKS.map(|sink| pipeline.worker(sink));
    shared_as(&pipeline, &SINKS, &[2, 2]).await;
    for worker in &mut new {
        ends_well(worker).await;
    }
    shared_as(&pipeline, &SINKS, &[4]).await;
    load.stop();
    all_arrived(&pipeline, &receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_newer_protocol_is_served_by_the_classic_one() {
    let broker = tokio::task::block_in_place(ClassicBroker::start);
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("oldkafka");
    pipeline.webhook("wh", &receiver.url());
    assert_eq!(pipeline.config["kafka"].get("group_protocol"), None, "auto is the default");
    pipeline.config["kafka"]["bootstrap_servers"] = json!(broker.address());
    let topic = pipeline.topic();
    kafka::create_topic_at(&broker.address(), &topic, PARTITIONS).await;
    let schemas = register_topic(&topic).await;
    let producer = Producer::at(&broker.address());
    let fill = |ids: std::ops::Range<i64>| {
        for id in ids {
            let (key, value) = (schemas.key(id), schemas.insert(id, "row"));
            (0..PARTITIONS).for_each(|partition| producer.put(&topic, partition, &key, &value));
        }
    };
    let all = |end: i64| -> BTreeSet<(i32, i64)> {
        (0..PARTITIONS).flat_map(|p| (0..end).map(move |offset| (p, offset))).collect()
    };
    fill(0..5);
    let _coordinator = pipeline.serve();
    let mut first = pipeline.worker("wh");
    receiver.has(&all(5)).await;
    assert!(first.output().contains("using the classic protocol"), "{}", first.output());
    let _second = pipeline.worker("wh");
    shared_as(&pipeline, &["wh"], &[2, 2]).await;
    ends_well(&mut first).await;
    fill(5..8);
    receiver.has(&all(8)).await;
    receiver.check_promise();
}
