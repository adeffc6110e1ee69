//! What stops a partition by name, what holds the pipeline's offsets, and the ways out.

use std::collections::BTreeSet;
use std::time::Duration;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::record::{Schemas, register_topic};
use cdc_tests::redis::Redis;
use cdc_tests::stack::{Stack, unique};
use cdc_tests::wait::{SOON, check, stays, until};
use serde_json::json;

/// The events at these offsets of one partition.
pub(crate) fn offsets(partition: i32, range: std::ops::Range<i64>) -> BTreeSet<(i32, i64)> {
    range.map(|offset| (partition, offset)).collect()
}

/// One record per offset, each with a key of its own.
pub(crate) fn fill(topic: &str, schemas: Schemas, partition: i32, ids: std::ops::Range<i64>) {
    let producer = Producer::default();
    for id in ids {
        let value = schemas.insert(id, "row");
        producer.send(topic, partition, Some(&schemas.key(id)), Some(&value));
    }
    producer.flush();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_again_stops_by_name_and_a_rewind_accepts_it() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("again");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..5);
    fill(&topic, schemas, 1, 0..5);
    let _coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    pipeline.committed(0, 5).await;
    pipeline.committed(1, 5).await;
    for worker in &mut workers {
        assert!(worker.drain().await.success(), "{}", worker.output());
    }
    kafka::delete_topics(&[&topic]).await;
    kafka::create_topic(&topic, 2).await;
    // Shorter than the stored offset, and longer.
    fill(&topic, schemas, 0, 100..102);
    fill(&topic, schemas, 1, 100..109);
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    for sink in ["wh", "ev"] {
        let hold = pipeline.held(sink, "topic_recreated").await;
        assert!(hold["message"].as_str().unwrap().contains("offset 5"), "{hold}");
    }
    let before = receiver.deliveries().len();
    assert_eq!(pipeline.rows().await.len(), 10);
    for sink in ["wh", "ev"] {
        let line =
            ["rewind", "FILE", "--yes", "--sink", sink, "--topic", &topic, "--to", "beginning"];
        pipeline.command(&[&line[..], &["--accept-new-topic"]].concat()).await;
    }
    until("the webhook has the new topic's records", SOON, async || {
        let new: BTreeSet<_> =
            receiver.deliveries()[before..].iter().map(Delivery::event).collect();
        let expected: BTreeSet<_> = &offsets(0, 0..2) | &offsets(1, 0..9);
        check(new == expected, new)
    })
    .await;
    until("the events table has them beside the old ones", SOON, async || {
        let rows = pipeline.rows().await;
        check(rows.len() == 10 + 11, rows.len())
    })
    .await;
    pipeline.committed(0, 2).await;
    pipeline.committed(1, 9).await;
}

/// The client itself goes on at its old offset in the new topic, and passes what is before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_again_under_a_running_worker_stops_by_name() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("under");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..5);
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    pipeline.committed(0, 5).await;
    kafka::delete_topics(&[&topic]).await;
    kafka::create_topic(&topic, 1).await;
    fill(&topic, schemas, 0, 100..120);
    for sink in ["wh", "ev"] {
        pipeline.held(sink, "topic_recreated").await;
    }
    let before = receiver.deliveries().len();
    for sink in ["wh", "ev"] {
        let line =
            ["rewind", "FILE", "--yes", "--sink", sink, "--topic", &topic, "--to", "beginning"];
        pipeline.command(&[&line[..], &["--accept-new-topic"]].concat()).await;
    }
    until("the webhook has all of the new topic", SOON, async || {
        let new: BTreeSet<_> =
            receiver.deliveries()[before..].iter().map(Delivery::event).collect();
        check(new == offsets(0, 0..20), new)
    })
    .await;
    until("the events table has both topics' records once", SOON, async || {
        let mut expected: Vec<_> = offsets(0, 0..5).into_iter().chain(offsets(0, 0..20)).collect();
        expected.sort_unstable();
        let rows = pipeline.rows().await;
        check(rows == expected, rows)
    })
    .await;
    pipeline.committed(0, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_below_the_log_stops_with_the_numbers() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("gap");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..5);
    let _coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    pipeline.committed(0, 5).await;
    for worker in &mut workers {
        assert!(worker.drain().await.success());
    }
    fill(&topic, schemas, 0, 5..20);
    kafka::delete_records_below(&topic, 0, 12).await;
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    for sink in ["wh", "ev"] {
        let hold = pipeline.held(sink, "offset_gap").await;
        let message = hold["message"].as_str().unwrap();
        assert!(message.contains("5 to 11") && message.contains("begins at 12"), "{message}");
        assert_eq!(hold["offset"], 5);
        let line =
            ["rewind", "FILE", "--yes", "--sink", sink, "--topic", &topic, "--to", "beginning"];
        pipeline.command(&line).await;
    }
    let expected = &offsets(0, 0..5) | &offsets(0, 12..20);
    receiver.has(&expected).await;
    pipeline.has_rows(&expected, SOON).await;
    pipeline.committed(0, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_database_created_anew_is_told_not_filled_from_the_middle() {
    let stack = Stack::get();
    let mut pipeline = Pipeline::new("empty");
    pipeline.events("ev").await;
    let database = unique("e2edb");
    let admin = postgres::admin("postgres").await;
    let owner = stack.value("TARGET_USER").to_owned();
    let create = format!("CREATE DATABASE {database} OWNER {owner}");
    admin.batch_execute(&create).await.unwrap();
    pipeline.sink_mut("ev")["postgres"]["database"] = json!(database);
    pipeline.sink_mut("ev")["postgres"]["target_table"] = json!("public.events");
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..5);
    let _coordinator = pipeline.serve();
    let worker = pipeline.worker("ev");
    pipeline.committed(0, 5).await;
    // While the worker runs.
    let remove = format!("DROP DATABASE {database} WITH (FORCE)");
    admin.batch_execute(&remove).await.unwrap();
    admin.batch_execute(&create).await.unwrap();
    fill(&topic, schemas, 0, 5..8);
    pipeline.held("ev", "position_lost").await;
    drop(worker);
    // And after a restart.
    let worker = pipeline.worker("ev");
    let hold = pipeline.held("ev", "position_lost").await;
    assert!(hold["message"].as_str().unwrap().contains('5'), "{hold}");
    let line = ["rewind", "FILE", "--yes", "--sink", "ev", "--topic", &topic, "--to", "beginning"];
    pipeline.command(&line).await;
    let target = postgres::admin(&database).await;
    until("the new database has everything", SOON, async || {
        let query = "SELECT count(*), count(DISTINCT source_offset) FROM public.events";
        let row = target.query_one(query, &[]).await.map_err(|error| error.to_string())?;
        let counts: (i64, i64) = (row.get(0), row.get(1));
        check(counts == (8, 8), format!("{counts:?}"))
    })
    .await;
    drop(worker);
    admin.batch_execute(&remove).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_expired_is_replaced_by_the_watermark_or_stops_by_name() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("expire");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..5);
    let mut coordinator = pipeline.serve();
    let mut worker = pipeline.worker("wh");
    pipeline.committed(0, 5).await;
    assert!(worker.drain().await.success());
    kafka::delete_group(&pipeline.sink_group("wh")).await;
    fill(&topic, schemas, 0, 5..9);
    let mut worker = pipeline.worker("wh");
    receiver.has(&offsets(0, 0..9)).await;
    assert_eq!(receiver.deliveries().len(), 9, "nothing is sent again: {}", worker.output());
    pipeline.committed(0, 9).await;

    // Both gone: the watermark store is in the coordinator's memory.
    assert!(worker.drain().await.success());
    coordinator.kill();
    kafka::delete_group(&pipeline.sink_group("wh")).await;
    fill(&topic, schemas, 0, 9..11);
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    pipeline.held("wh", "group_expired").await;
    assert_eq!(receiver.deliveries().len(), 9);
    let line = ["rewind", "FILE", "--yes", "--sink", "wh", "--topic", &topic, "--partition", "0"];
    pipeline.command(&[&line[..], &["--to", "9"]].concat()).await;
    receiver.has(&offsets(0, 0..11)).await;
    assert_eq!(receiver.deliveries().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_added_later_takes_p_back_and_a_disabled_one_holds_it() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("later");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..6);
    let coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    pipeline.committed(0, 6).await;
    drop(coordinator);

    // A week later: another sink, whose receiver takes nothing beyond offset 1 yet.
    let slow = Receiver::start().await;
    slow.answer(|delivery| if delivery.offset < 2 { 204 } else { 503 });
    pipeline.webhook("late", &slow.url());
    let coordinator = pipeline.serve();
    let late = pipeline.worker("late");
    pipeline.committed(0, 2).await;
    assert_eq!(slow.acknowledged(), offsets(0, 0..2));

    // Disabled: it still counts, and health says so.
    drop(late);
    drop(coordinator);
    pipeline.sink_mut("late")["enabled"] = json!(false);
    let _coordinator = pipeline.serve();
    fill(&topic, schemas, 0, 6..9);
    receiver.has(&offsets(0, 0..9)).await;
    until("health warns of the parked sink", SOON, async || {
        let health = pipeline.health().await?;
        check(health["reasons"].to_string().contains("sink_parked"), health.to_string())
    })
    .await;
    stays("P waits for the disabled sink", Duration::from_secs(2), async || {
        let found = kafka::committed(&pipeline.group(), &topic, 0);
        check(found == Some(2), found)
    })
    .await;
    pipeline.command(&["sink", "remove", "late", "FILE"]).await;
    pipeline.committed(0, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sink_stays_paused_through_a_restart_without_coordinator_and_redis() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("pause");
    let mut redis = Redis::start(&mut pipeline);
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let mut coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    fill(&topic, schemas, 0, 0..2);
    receiver.has(&offsets(0, 0..2)).await;
    pipeline.committed(0, 2).await;
    pipeline.command(&["pause", "FILE", "--sink", "wh", "--reason", "moving house"]).await;
    pipeline.status("wh", "paused").await;
    for worker in &mut workers {
        worker.kill();
    }
    coordinator.kill();
    redis.kill();
    fill(&topic, schemas, 0, 2..5);
    let [webhook, events] = ["wh", "ev"].map(|sink| pipeline.worker(sink));
    // The other sink needs neither of them.
    pipeline.has_rows(&offsets(0, 0..5), SOON).await;
    until("the worker has its partition", SOON, async || {
        check(webhook.output().contains("pipeline.partitions_assigned"), webhook.output())
    })
    .await;
    stays("the sink stays paused", Duration::from_secs(3), async || {
        let got = receiver.deliveries().len();
        check(got == 2, got)
    })
    .await;
    // An operator needs no Redis; P does, and waits.
    let _coordinator = pipeline.serve();
    pipeline.status("wh", "paused").await;
    pipeline.command(&["resume", "FILE", "--sink", "wh"]).await;
    receiver.has(&offsets(0, 0..5)).await;
    until("health tells of Redis", SOON, async || {
        let health = pipeline.health().await?;
        check(health["redis"]["state"] == "down", health.to_string())
    })
    .await;
    assert_eq!(kafka::committed(&pipeline.group(), &topic, 0), Some(2));
    redis.start_again();
    pipeline.committed(0, 5).await;
    assert_eq!(receiver.deliveries().len(), 5, "nothing came twice");
    assert!(!events.output().contains("partition stopped"), "{}", events.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_or_refuses_us_costs_nothing() {
    let mut receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("away");
    pipeline.config["max_buffered_messages"] = json!(10);
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let worker = pipeline.worker("wh");
    fill(&topic, schemas, 0, 0..5);
    receiver.has(&offsets(0, 0..5)).await;
    let mut next = 5;
    for trouble in [None, Some(401), Some(404), Some(503)] {
        match trouble {
            None => receiver.go_away(),
            Some(status) => receiver.answer(move |_| status),
        }
        fill(&topic, schemas, 0, next..next + 40);
        fill(&topic, schemas, 1, next - 5..next + 35);
        next += 40;
        pipeline.status("wh", "degraded").await;
        match trouble {
            None => receiver.come_back().await,
            Some(_) => receiver.answer(|_| 204),
        }
        receiver.has(&(&offsets(0, 0..next) | &offsets(1, 0..next - 5))).await;
        pipeline.status("wh", "running").await;
    }
    receiver.check_promise();
    pipeline.committed(0, next).await;
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1), BTreeSet::new());
    assert!(!worker.output().contains("pipeline.partitions_revoked"), "no rebalance");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_of_one_topic_do_not_meet() {
    // The schemas of a topic are shared, its offsets are not.
    let receiver = Receiver::start().await;
    let mut first = Pipeline::new("one");
    first.webhook("wh", &receiver.url());
    let (schemas, topic) = (first.topics(1).await, first.topic());
    assert_eq!(register_topic(&topic).await.value, schemas.value);
    fill(&topic, schemas, 0, 0..3);
    let other = Receiver::start().await;
    let mut second = Pipeline::new("two");
    second.config["topic_prefix"] = json!(first.id);
    second.config["source"]["tables"] = json!([format!("{}.t", first.id)]);
    second.webhook("wh", &other.url());
    let _coordinators = [first.serve(), second.serve()];
    let _workers = [first.worker("wh"), second.worker("wh")];
    receiver.has(&offsets(0, 0..3)).await;
    other.has(&offsets(0, 0..3)).await;
    first.committed(0, 3).await;
    let found = until("the other group has its own offset", SOON, async || {
        kafka::committed(&second.group(), &topic, 0).ok_or("none")
    })
    .await;
    assert!(found <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_set_back_to_an_older_state_is_filled_again() {
    let mut pipeline = Pipeline::new("back");
    pipeline.events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..20);
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("ev");
    pipeline.committed(0, 20).await;
    let restore = format!(
        "BEGIN; DELETE FROM {0}.events WHERE source_offset >= 7; \
         UPDATE {0}.cdc_offsets SET next_offset = 7; COMMIT",
        pipeline.id
    );
    // Under a running worker, and while none runs.
    postgres::target().await.batch_execute(&restore).await.unwrap();
    fill(&topic, schemas, 0, 20..25);
    pipeline.has_rows(&offsets(0, 0..25), SOON).await;
    pipeline.committed(0, 25).await;
    assert!(worker.drain().await.success(), "{}", worker.output());
    postgres::target().await.batch_execute(&restore).await.unwrap();
    let worker = pipeline.worker("ev");
    pipeline.has_rows(&offsets(0, 0..25), SOON).await;
    assert!(worker.output().contains("behind itself"), "{}", worker.output());
    pipeline.committed(0, 25).await;
}
