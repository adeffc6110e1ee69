//! A live source: 2,000 changes a second through Debezium, Kafka and the replica sink
//! (`BENCH_FLUSH_MS`: its `flush_interval_ms`, 20 as by default), and how long after Kafka took a
//! change, and after the source committed it, it could be seen in the mirror.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::stack::Stack;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio_postgres::Client;

use super::{Error, number};

const PARTITIONS: i32 = 4;
/// A transaction of as many inserts and as many updates each so often.
const EVERY: Duration = Duration::from_millis(10);
const ROWS: i64 = 10;
const WARM_UP: Duration = Duration::from_secs(5);
/// Between two looks at what can be seen.
const LOOK: Duration = Duration::from_millis(2);

/// Milliseconds, sorted.
pub(crate) struct Measured {
    pub(crate) from_kafka: Vec<f64>,
    pub(crate) from_commit: Vec<f64>,
}

/// A change as it is in Kafka.
struct Sent {
    partition: i32,
    offset: i64,
    at_ms: f64,
    id: i64,
}

/// When the mirror was seen to have come how far, by partition.
type Seen = HashMap<i32, Vec<(f64, i64)>>;

pub(crate) async fn measure() -> Result<Measured, Error> {
    let seconds = number("BENCH_SECONDS", 20)?;
    let mut pipeline = Pipeline::new("live");
    let id = pipeline.id.clone();
    let create = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer NOT NULL, note text)";
    let source = postgres::source_with(&pipeline, create).await;
    pipeline.replica("mirror");
    let flush = number("BENCH_FLUSH_MS", 20)?;
    pipeline.sink_mut("mirror")["postgres"]["flush_interval_ms"] = flush.into();
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    let end = Arc::new(AtomicBool::new(false));
    let reader = tokio::task::spawn_blocking({
        let (topic, end) = (pipeline.topic(), end.clone());
        move || read(&topic, &end)
    });
    let looker = tokio::spawn(look(format!("{id}.cdc_offsets"), end.clone()));
    let whole = WARM_UP + Duration::from_secs(seconds as u64);
    let committed = change(&source, &id, whole).await?;
    // What is under way arrives; what does not is missed below.
    tokio::time::sleep(Duration::from_secs(5)).await;
    end.store(true, Ordering::Relaxed);
    compare(&committed, &reader.await??, &looker.await??)
}

fn now_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64() * 1000.0
}

/// Changes the table; when each of its rows was committed.
async fn change(source: &Client, schema: &str, time: Duration) -> Result<Vec<f64>, Error> {
    let statement = format!(
        "WITH new AS (INSERT INTO {schema}.t SELECT i, 0, 'a note of some length ' || i \
         FROM generate_series($1::int8, $1 + {ROWS} - 1) AS i) \
         UPDATE {schema}.t SET n = n + 1 WHERE id BETWEEN $1 - {ROWS} AND $1 - 1"
    );
    let statement = source.prepare(&statement).await?;
    let mut committed = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        ticks.tick().await;
        source.execute(&statement, &[&(committed.len() as i64)]).await?;
        committed.extend([now_ms(); ROWS as usize]);
    }
    Ok(committed)
}

/// Reads the topic.
fn read(topic: &str, end: &AtomicBool) -> Result<Vec<Sent>, Error> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", Stack::get().kafka())
        .set("group.id", "bench-live")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut sent = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let key = message.key().and_then(|key| key.get(5..)).unwrap_or_default();
        sent.push(Sent {
            partition: message.partition(),
            offset: message.offset(),
            at_ms: message.timestamp().to_millis().unwrap_or_default() as f64,
            id: number_of(key),
        });
    }
    Ok(sent)
}

/// An Avro long.
fn number_of(bytes: &[u8]) -> i64 {
    let bits = bytes.iter().rev().fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
    (bits >> 1).cast_signed() ^ -((bits & 1).cast_signed())
}

/// Looks at the sink's own record, which moves in the transactions of the rows.
async fn look(offsets: String, end: Arc<AtomicBool>) -> Result<Seen, Error> {
    let target = postgres::target().await;
    let query = format!("SELECT \"partition\", next_offset FROM {offsets}");
    let mut seen = Seen::new();
    while !end.load(Ordering::Relaxed) {
        // The worker creates the table.
        for row in target.query(&query, &[]).await.unwrap_or_default() {
            let (partition, next): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
            let seen = seen.entry(partition).or_default();
            if seen.last().is_none_or(|(_, last)| *last < next) {
                seen.push((now_ms(), next));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(seen)
}

fn compare(committed: &[f64], sent: &[Sent], seen: &Seen) -> Result<Measured, Error> {
    let start = committed.first().copied().unwrap_or_default() + WARM_UP.as_secs_f64() * 1000.0;
    let mut measured = Measured { from_kafka: Vec::new(), from_commit: Vec::new() };
    let mut met = vec![false; committed.len()];
    for Sent { partition, offset, at_ms, id } in sent {
        let looks = seen.get(partition).map(Vec::as_slice).unwrap_or_default();
        let first = looks.get(looks.partition_point(|(_, next)| next <= offset));
        let (visible, _) = first.ok_or("a change was not seen in the mirror in time")?;
        let place = usize::try_from(*id)?;
        let commit = *committed.get(place).ok_or("a row that nobody made")?;
        if commit < start {
            continue;
        }
        measured.from_kafka.push(visible - at_ms);
        // The first change of a row is its insert.
        if !std::mem::replace(&mut met[place], true) {
            measured.from_commit.push(visible - commit);
        }
    }
    measured.from_kafka.sort_unstable_by(f64::total_cmp);
    measured.from_commit.sort_unstable_by(f64::total_cmp);
    Ok(measured)
}
