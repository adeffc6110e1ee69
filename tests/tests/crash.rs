//! Processes are killed and frozen at random moments while rows flow. What must hold afterwards:
//! every record is once in the events table, and at the webhook at least once, with one id, first
//! deliveries in order per key; and at no moment is P on a record that a sink does not have.
//!
//! The seed is printed; `CDC_TEST_SEED` repeats the choices (not the timing of the machine).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdc_tests::chaos::seed;
use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::Schemas;
use cdc_tests::redis::Redis;
use cdc_tests::wait::{check, until};

const PARTITIONS: i32 = 4;
const KEYS: i64 = 40;
/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(30);
/// How long the rest may take then.
const RECOVERY: Duration = Duration::from_secs(90);

/// Produces until it is told to stop: every key in the same partition each time.
fn produce(topic: String, schemas: Schemas, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<i64> {
    std::thread::spawn(move || {
        let producer = Producer::default();
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..10 {
                let key = count % KEYS;
                let value = schemas.insert(key, &format!("change {count}"));
                let partition = (key % i64::from(PARTITIONS)) as i32;
                producer.send(&topic, partition, Some(&schemas.key(key)), Some(&value));
                count += 1;
            }
            // The pace, not a wait for anything.
            std::thread::sleep(Duration::from_millis(50));
        }
        producer.flush();
        count
    })
}

/// Where P stands must be behind what both sinks have. P is read first.
async fn check_p(pipeline: &Pipeline, receiver: &Receiver) {
    let (group, topic) = (pipeline.group(), pipeline.topic());
    let committed =
        tokio::task::spawn_blocking(move || kafka::committed_all(&group, &topic, PARTITIONS))
            .await
            .unwrap();
    let rows: BTreeSet<(i32, i64)> = pipeline.rows().await.into_iter().collect();
    let sent = receiver.acknowledged();
    for (partition, p) in committed {
        for offset in 0..p {
            let event = (partition, offset);
            assert!(
                rows.contains(&event),
                "P[{partition}] is {p}, the events table lacks {offset}"
            );
            assert!(sent.contains(&event), "P[{partition}] is {p}, the webhook lacks {offset}");
        }
    }
}

/// What runs, and can be made to fail.
struct Fleet<'p> {
    pipeline: &'p Pipeline,
    coordinator: Process,
    redis: Redis,
    /// Two workers of each sink; `Some` while frozen: until when.
    workers: Vec<(&'static str, Process, Option<Instant>)>,
}

impl Fleet<'_> {
    fn kill_worker(&mut self, place: usize) {
        let (sink, process, frozen) = &mut self.workers[place];
        process.kill();
        *process = self.pipeline.worker(sink);
        *frozen = None;
    }

    fn freeze(&mut self, place: usize, during: Duration) {
        let (_, process, frozen) = &mut self.workers[place];
        process.freeze();
        *frozen = Some(Instant::now() + during);
    }

    fn thaw(&mut self, all: bool) {
        for (_, process, frozen) in &mut self.workers {
            if frozen.is_some_and(|until| all || until <= Instant::now()) {
                process.thaw();
                *frozen = None;
            }
        }
    }

    /// One thing goes wrong.
    fn fail(&mut self, random: &mut fastrand::Rng) -> String {
        let place = random.usize(..self.workers.len());
        match random.u32(..10) {
            0..=3 => {
                self.kill_worker(place);
                format!("kill -9 of worker {place}")
            }
            // Longer than a session, so that its partitions go to the other.
            4 => {
                self.freeze(place, Duration::from_secs(12));
                format!("worker {place} frozen for 12 s")
            }
            5 | 6 => {
                let during = Duration::from_millis(random.u64(100..3000));
                self.freeze(place, during);
                format!("worker {place} frozen for {during:?}")
            }
            7 => {
                let first = place / 2 * 2;
                self.kill_worker(first);
                self.kill_worker(first + 1);
                format!("kill -9 of workers {first} and {}", first + 1)
            }
            8 => {
                self.coordinator.kill();
                self.coordinator = self.pipeline.serve();
                "kill -9 of the coordinator".to_owned()
            }
            _ => {
                self.redis.start_again();
                "kill -9 of Redis with its data".to_owned()
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whatever_is_killed() {
    let mut random = fastrand::Rng::with_seed(seed());
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("crash");
    let redis = Redis::start(&mut pipeline);
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(PARTITIONS).await, pipeline.topic());
    let sinks = ["wh", "wh", "ev", "ev"];
    let mut fleet = Fleet {
        redis,
        coordinator: pipeline.serve(),
        workers: sinks.map(|sink| (sink, pipeline.worker(sink), None)).into(),
        pipeline: &pipeline,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let producing = produce(topic.clone(), schemas, Arc::clone(&stop));
    until("both sinks take something", RECOVERY, async || {
        let counts = (receiver.acknowledged().len(), pipeline.rows().await.len());
        check(counts.0 > 0 && counts.1 > 0, counts)
    })
    .await;

    let end = Instant::now() + CHAOS;
    while Instant::now() < end {
        println!("{}", fleet.fail(&mut random));
        let pause = Instant::now() + Duration::from_millis(random.u64(200..2500));
        while Instant::now() < pause {
            check_p(&pipeline, &receiver).await;
            fleet.thaw(false);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    fleet.thaw(true);
    stop.store(true, Ordering::Relaxed);
    let produced = producing.join().unwrap();
    let expected = kafka::events(&topic, PARTITIONS);
    assert_eq!(expected.len() as i64, produced);
    println!("{produced} records");

    pipeline.has_rows(&expected, RECOVERY).await;
    until("the webhook has every record", RECOVERY, async || {
        let got = receiver.acknowledged();
        let missing: Vec<_> = expected.difference(&got).take(5).collect();
        check(missing.is_empty(), format!("{} of {}, lacks {missing:?}", got.len(), expected.len()))
    })
    .await;
    receiver.check_promise();
    let target = postgres::target().await;
    let query = format!("SELECT count(*) FROM {}", pipeline.events_table());
    assert_eq!(target.query_one(&query, &[]).await.unwrap().get::<_, i64>(0), produced);
    for partition in 0..PARTITIONS {
        pipeline.committed(partition, kafka::bounds(&topic, partition).1).await;
    }
    check_p(&pipeline, &receiver).await;
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1), BTreeSet::new());
}

/// Which of two workers has the partition.
async fn owner(pipeline: &Pipeline, sink: &str, workers: &[Process; 2]) -> usize {
    until("one worker has the partition", RECOVERY, async || {
        let health = pipeline.sink_health(sink).await?;
        let listed = health["workers"].as_array().cloned().unwrap_or_default();
        let place = workers.iter().position(|worker| {
            let log = worker.output();
            listed.iter().any(|entry| {
                entry["partitions"] == 1 && log.contains(entry["id"].as_str().unwrap_or("?"))
            })
        });
        place.ok_or_else(|| health.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_up_after_it_was_replaced_changes_nothing() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("zombie");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let webhooks = [pipeline.worker("wh"), pipeline.worker("wh")];
    let events = [pipeline.worker("ev"), pipeline.worker("ev")];
    let frozen = [
        &webhooks[owner(&pipeline, "wh", &webhooks).await],
        &events[owner(&pipeline, "ev", &events).await],
    ];
    let producer = Producer::default();
    // So many that some are always on their way when the workers freeze.
    for id in 0..600 {
        let value = schemas.insert(id % 7, "row");
        producer.send(&topic, 0, Some(&schemas.key(id % 7)), Some(&value));
    }
    producer.flush();
    until("the webhook is in the middle of it", RECOVERY, async || {
        let got = receiver.deliveries().len();
        check(got > 20, got)
    })
    .await;
    frozen.into_iter().for_each(Process::freeze);
    let expected: BTreeSet<(i32, i64)> = (0..600).map(|offset| (0, offset)).collect();
    until("the others took over", RECOVERY, async || {
        let counts = (receiver.acknowledged().len(), pipeline.rows().await.len());
        check(counts == (600, 600), counts)
    })
    .await;
    frozen.into_iter().for_each(Process::thaw);
    for id in 600..650 {
        producer.put(&topic, 0, &schemas.key(id % 7), &schemas.insert(id % 7, "later"));
    }
    let expected: BTreeSet<(i32, i64)> =
        expected.into_iter().chain((600..650).map(|offset| (0, offset))).collect();
    receiver.has(&expected).await;
    pipeline.has_rows(&expected, RECOVERY).await;
    receiver.check_promise();
    pipeline.committed(0, 650).await;
}
