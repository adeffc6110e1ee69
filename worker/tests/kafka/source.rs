//! What a full partition costs: the consumer thread, with a partition task that a test plays.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cdc_shared::config::{GroupProtocol, KafkaConfig};
use cdc_shared::offset::NextOffset;
use cdc_worker::source::consumer::{self, SourceCommand, SourceHandle, SourceOptions};
use cdc_worker::source::rebalance::SourceEvent;
use cdc_worker::source::slots::Assignment;
use cdc_worker::status::SharedStatus;
use rdkafka::producer::{BaseRecord, Producer};
use tokio::sync::mpsc;

use super::{DEADLINE, create_topic, plain_producer, real, unique};

const MAX: usize = 500;

/// A consumer of one partition, and the task's end of it.
struct Reader {
    status: SharedStatus,
    source: SourceHandle,
    thread: std::thread::JoinHandle<()>,
    events: mpsc::Receiver<SourceEvent>,
    assignment: Assignment,
    next: i64,
}

impl Reader {
    /// Of a new topic with so many records.
    async fn start(records: usize, protocol: GroupProtocol) -> Self {
        let mut kafka = KafkaConfig { group_protocol: protocol, ..real() };
        kafka.properties.insert("statistics.interval.ms".into(), "20".into());
        let topic = unique("source");
        create_topic(&kafka, &topic).await;
        fill(&real(), &topic, records);
        let options = SourceOptions {
            group: topic.clone(),
            kafka,
            topics: vec![topic],
            max_records: MAX,
            max_bytes: 1 << 26,
            grace: Duration::from_secs(1),
        };
        let status = SharedStatus::default();
        let (sender, mut events) = mpsc::channel(16);
        let (source, thread) = consumer::start(&options, &status, sender).unwrap();
        source.send(SourceCommand::Join);
        let assignment = tokio::time::timeout(DEADLINE, async {
            loop {
                match events.recv().await.expect("the thread runs") {
                    SourceEvent::Assigned(mut assigned) => break assigned.remove(0),
                    other => println!("{other:?}"),
                }
            }
        });
        let assignment = assignment.await.expect("assigned in time");
        let (tp, epoch) = (assignment.tp.clone(), assignment.epoch);
        source.send(SourceCommand::Start { tp, epoch, next: NextOffset::ZERO, run: 1 });
        Self { status, source, thread, events, assignment, next: 0 }
    }

    /// Takes what comes until the bound is reached or `end` is; each record once and in order.
    async fn fill_up(&mut self, end: i64) {
        while self.assignment.flow.held() < MAX && self.next < end
            || !self.assignment.chunks.is_empty()
        {
            let chunk = tokio::time::timeout(DEADLINE, self.assignment.chunks.recv()).await;
            for record in chunk.expect("a chunk in time").expect("the thread runs").records {
                assert_eq!(record.offset, self.next, "each record once and in order");
                self.next += 1;
            }
        }
    }

    fn drain(&self, records: usize) {
        self.assignment.flow.leave(records, 0);
    }

    fn fetched(&self) -> u64 {
        self.status.fetched.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.source.send(SourceCommand::End);
        // Its end of the events is gone, so that nobody is asked before the partition goes.
        drop((self.events, self.assignment));
        self.thread.join().unwrap();
    }
}

fn fill(kafka: &KafkaConfig, topic: &str, records: usize) {
    let producer = plain_producer(kafka);
    let value = [b'v'; 200];
    for _ in 0..records {
        producer.send(BaseRecord::<str, [u8]>::to(topic).partition(0).payload(&value)).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(DEADLINE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_keeps_up_gets_each_record_from_kafka_once() {
    const RECORDS: i64 = 20_000;
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let mut reader = Reader::start(RECORDS as usize, protocol).await;
        while reader.next < RECORDS {
            reader.fill_up(RECORDS).await;
            reader.drain(MAX / 2);
            // A pause that a busy machine was the reason for is allowed now and then.
            let (fetched, allowed) = (reader.fetched(), 2 * reader.next as u64 + 6000);
            assert!(fetched <= allowed, "{fetched} fetched for {} taken", reader.next);
        }
        let deadline = Instant::now() + DEADLINE;
        while reader.fetched() < RECORDS as u64 {
            assert!(Instant::now() < deadline, "only {} are counted", reader.fetched());
            tokio::task::yield_now().await;
        }
        reader.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_is_fetched_at_once_when_it_has_drained() {
    const ROUNDS: usize = 15;
    let mut reader = Reader::start(MAX / 2 * (ROUNDS + 2), GroupProtocol::Auto).await;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let end = (MAX + round * (MAX / 2)) as i64;
        let drained = Instant::now();
        reader.fill_up(end).await;
        waits.push(drained.elapsed());
        // Longer than a full partition is waited for; at different moments of the client's second.
        let pause = Duration::from_millis(120 + 37 * (round as u64 % 5));
        let more = tokio::time::timeout(pause, reader.assignment.chunks.recv()).await;
        assert!(more.is_err(), "a full partition gets nothing");
        reader.drain(MAX / 2);
    }
    waits.sort_unstable();
    println!("{waits:?}");
    // A few milliseconds; without being woken the client sleeps half a second in the mean.
    assert!(waits[ROUNDS / 2] < Duration::from_millis(150), "{waits:?}");
    reader.end();
}
