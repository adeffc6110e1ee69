//! Where a sink begins: `start: now`, `start: group`; and what clients of other make see of the
//! offsets that we leave.

use std::collections::BTreeSet;
use std::process::Command;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::Schemas;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

const PARTITIONS: i32 = 3;

/// Records with these numbers in each partition.
fn fill(topic: &str, schemas: Schemas, ids: std::ops::Range<i64>) {
    let producer = Producer::default();
    for id in ids {
        for partition in 0..PARTITIONS {
            let value = schemas.insert(id, "row");
            producer.send(topic, partition, Some(&schemas.key(id)), Some(&value));
        }
    }
    producer.flush();
}

/// From `from` of each partition up to `to`.
fn tail(from: [i64; PARTITIONS as usize], to: i64) -> BTreeSet<(i32, i64)> {
    (0..).zip(from).flat_map(|(partition, from)| (from..to).map(move |o| (partition, o))).collect()
}

async fn all_committed(pipeline: &Pipeline, offset: i64) {
    for partition in 0..PARTITIONS {
        pipeline.committed(partition, offset).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_starts_now_gets_what_comes_and_keeps_its_place() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("now");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    for sink in ["wh", "ev"] {
        pipeline.sink_mut(sink)["start"] = json!("now");
    }
    let (schemas, topic) = (pipeline.topics(PARTITIONS).await, pipeline.topic());
    fill(&topic, schemas, 0..5);
    let _coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    // Known, stored and at the end, before anything was delivered.
    all_committed(&pipeline, 5).await;
    fill(&topic, schemas, 5..8);
    receiver.has(&tail([5; 3], 8)).await;
    pipeline.has_rows(&tail([5; 3], 8), SOON).await;
    for worker in &mut workers {
        worker.kill();
    }
    // While nobody is there: "now" was the first start, not each.
    fill(&topic, schemas, 8..10);
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    receiver.has(&tail([5; 3], 10)).await;
    pipeline.has_rows(&tail([5; 3], 10), SOON).await;
    all_committed(&pipeline, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_takes_over_where_a_single_process_consumer_stood() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("group");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    for sink in ["wh", "ev"] {
        pipeline.sink_mut(sink)["start"] = json!("group");
    }
    let (schemas, topic) = (pipeline.topics(PARTITIONS).await, pipeline.topic());
    fill(&topic, schemas, 0..6);
    // It had the pipeline's group, and had not come to the last partition yet.
    kafka::commit(&pipeline.group(), &topic, &[(0, 4), (1, 6)]);
    let workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    until("the workers wait for the control topic", SOON, async || {
        let logs = [workers[0].output(), workers[1].output()];
        let all = logs.iter().all(|log| log.contains("control topic cannot be read"));
        check(all, logs)
    })
    .await;
    // Only the coordinator can copy it.
    assert_eq!(receiver.deliveries().len(), 0);
    let coordinator = pipeline.serve();
    let from = [4, 6, 0];
    receiver.has(&tail(from, 6)).await;
    pipeline.has_rows(&tail(from, 6), SOON).await;
    all_committed(&pipeline, 6).await;
    assert_eq!(receiver.deliveries().len(), tail(from, 6).len());

    // P has moved on, and another sink that comes later still takes over from where it stood.
    drop(coordinator);
    let late = Receiver::start().await;
    pipeline.webhook("late", &late.url());
    pipeline.sink_mut("late")["start"] = json!("group");
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("late");
    late.has(&tail(from, 6)).await;
    fill(&topic, schemas, 6..8);
    for receiver in [&receiver, &late] {
        receiver.has(&tail(from, 8)).await;
    }
    pipeline.has_rows(&tail(from, 8), SOON).await;
    all_committed(&pipeline, 8).await;
}

/// What Kafka's own tool says of the offsets of some groups: group, partition, offset, log end.
fn described(groups: &[&str], topic: &str) -> BTreeSet<(String, i32, i64, i64)> {
    let stack = Stack::get();
    let mut command = Command::new("java");
    command
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
        .arg(format!("{}/*", stack.value("KAFKA_JARS")))
        .arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
        .args(["--bootstrap-server", stack.kafka(), "--describe", "--offsets"]);
    for group in groups {
        command.args(["--group", group]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{said}");
    // GROUP TOPIC PARTITION [LEADER-EPOCH] CURRENT-OFFSET LOG-END-OFFSET LAG ...
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [group, of, partition, offset, end, ..] = words[..] else { continue };
        if of == topic {
            let number = |word: &str| word.parse::<i64>().unwrap_or(-1);
            let partition = number(partition) as i32;
            found.insert((group.to_owned(), partition, number(offset), number(end)));
        }
    }
    assert!(!found.is_empty(), "{text}\n{said}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_another_make_read_the_same_offsets_and_can_take_over() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("other");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(PARTITIONS).await, pipeline.topic());
    fill(&topic, schemas, 0..4);
    let coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    all_committed(&pipeline, 4).await;
    let groups = [pipeline.group(), pipeline.sink_group("wh"), pipeline.sink_group("ev")];
    let names = groups.each_ref().map(String::as_str);
    let expected: BTreeSet<_> = names
        .iter()
        .flat_map(|group| (0..PARTITIONS).map(|p| ((*group).to_owned(), p, 4, 4)))
        .collect();
    until("Kafka's own tool shows the same offsets of all groups", SOON, async || {
        let found = tokio::task::block_in_place(|| described(&names, &topic));
        check(found == expected, found)
    })
    .await;

    // The way back: a consumer that knows only the pipeline's group goes on from there.
    for worker in &mut workers {
        assert!(worker.drain().await.success(), "{}", worker.output());
    }
    drop(coordinator);
    fill(&topic, schemas, 4..6);
    let kcat = tokio::process::Command::new("kcat")
        .args(["-b", Stack::get().kafka(), "-X", "auto.offset.reset=error", "-q", "-c", "6"])
        .args(["-f", "%p %o\\n", "-G", &pipeline.group(), &topic])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SOON, kcat).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let read: BTreeSet<(i32, i64)> = printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(partition, offset)| (partition.parse().unwrap(), offset.parse().unwrap()))
        .collect();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(read, tail([4; 3], 6), "{said}");
}
