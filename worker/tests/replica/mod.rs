//! The replica sink against a real server.

mod delivery;
mod enums;
mod errors;
pub(crate) mod event;
mod evolution;
mod model;
mod moves;
mod stops;

use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{PipelineConfig, PostgresSinkConfig, PostgresWriteMode, Secret};
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use cdc_worker::sink::postgres::PostgresReplica;
use cdc_worker::sink::retry::{Trouble, TroubleReporter};
use cdc_worker::sink::{Disposition, PartitionWriter, Progress, Sink};
use tokio::sync::watch;
use tokio_postgres::Client;

use self::event::{Col, Event, Table, V, col, event};
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::registry::registry;
use crate::support::within;

const TOPIC: &str = "cdc.shop.t";

fn settings(port: u16, database: &str) -> PostgresSinkConfig {
    PostgresSinkConfig {
        port,
        database: database.to_owned(),
        username: "postgres".to_owned(),
        password: Secret::from(PASSWORD),
        write_mode: PostgresWriteMode::Replica,
        ..PostgresSinkConfig::default()
    }
}

fn sink(config: &PostgresSinkConfig, versions: &[&Table]) -> PostgresReplica {
    let mut pipeline = PipelineConfig { pipeline_id: "demo".to_owned(), ..Default::default() };
    let versions = versions.iter().map(|table| table.registered()).collect();
    pipeline.kafka.schema_registry_url = registry(versions);
    PostgresReplica::new(&pipeline, "mirror", config).unwrap()
}

/// A proven sink on a database of its own, and a registry that knows of no schema.
async fn proven(change: impl FnOnce(&mut PostgresSinkConfig)) -> (PostgresReplica, Client) {
    proven_beside(&[], change).await
}

/// The same with a registry that knows these versions of the topic's schema.
async fn proven_beside(
    versions: &[&Table],
    change: impl FnOnce(&mut PostgresSinkConfig),
) -> (PostgresReplica, Client) {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let mut config = settings(cluster.port, &database);
    change(&mut config);
    let sink = sink(&config, versions);
    within("the proof", sink.prove()).await.unwrap();
    (sink, admin)
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

fn position(next: i64) -> Position {
    Position {
        next: NextOffset::new(next).unwrap(),
        incarnation: Incarnation(1),
        topic_id: TopicId("topic-id".into()),
        schemas: SchemaIds::default(),
    }
}

/// The position behind rows of these schemas.
fn behind(next: i64, value: i32) -> Position {
    Position { schemas: SchemaIds { key: Some(1), value: Some(value) }, ..position(next) }
}

fn writer_of(
    sink: &PostgresReplica,
    partition_number: i32,
    start: Position,
) -> (Box<dyn PartitionWriter>, watch::Receiver<Trouble>) {
    let policy = RetryPolicy {
        initial_wait: Duration::from_millis(10),
        max_wait: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    let (reporter, trouble) = TroubleReporter::new(policy, false);
    (sink.writer(partition(partition_number), start, reporter), trouble)
}

/// A writer from the beginning of a partition, with its record written.
async fn started(sink: &PostgresReplica, partition_number: i32) -> Box<dyn PartitionWriter> {
    let start = position(0);
    assert!(sink.replace_position(&partition(partition_number), None, &start).await.unwrap());
    writer_of(sink, partition_number, start).0
}

/// id, name and a large text.
fn plain() -> Vec<Col> {
    vec![
        col("id", "long", "INT8", None).required(),
        col("name", "string", "VARCHAR", Some(40)),
        col("large", "string", "TEXT", None),
    ]
}

fn table() -> Table {
    Table::new("t", 2, 1, 1, &plain())
}

fn row(id: i64, name: &'static str, large: &'static str) -> [V; 3] {
    [V::N(id), V::T(name), V::T(large)]
}

fn push(writer: &mut dyn PartitionWriter, table: &Table, events: &[Event]) {
    for event in events {
        table.push(writer, event).unwrap();
    }
}

/// Waits for the end of the flush under way.
async fn answer(writer: &mut dyn PartitionWriter) -> Progress {
    loop {
        match within("an answer", writer.progress()).await {
            Progress::Durable(_) if writer.in_flight() => {}
            last => return last,
        }
    }
}

/// Pushes events and flushes them up to `next`.
async fn deliver(
    writer: &mut dyn PartitionWriter,
    table: &Table,
    next: Position,
    events: &[Event],
) -> Progress {
    push(writer, table, events);
    writer.flush(next);
    answer(writer).await
}

fn durable(progress: &Progress) -> i64 {
    match progress {
        Progress::Durable(next) => next.get(),
        other => panic!("not durable: {other:?}"),
    }
}

/// The code and the way out of a stop.
fn stopped(progress: Progress) -> (String, String) {
    match progress {
        Progress::Stop(error) => {
            (error.code, format!("{}; {}", error.message, error.hint.unwrap()))
        }
        other => panic!("not stopped: {other:?}"),
    }
}

/// The same of a record that the partition must stop at.
fn rejected(progress: Progress) -> (String, String) {
    match progress {
        Progress::Rejected { error, .. } if error.disposition == Disposition::RejectAndStop => {
            (error.code, format!("{}; {}", error.message, error.hint.unwrap()))
        }
        other => panic!("not rejected: {other:?}"),
    }
}

/// The mirror's rows as text, in the order of the key.
async fn mirrored(admin: &Client) -> Vec<String> {
    let rows = admin.query("SELECT t::text FROM shop.t AS t ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
