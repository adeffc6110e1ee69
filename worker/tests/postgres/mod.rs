//! The events sink against a real server.

mod access;
mod content;
mod delivery;
mod interruptions;
mod tables;
mod verify;

use std::sync::LazyLock;
use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{PostgresSinkConfig, Secret};
use cdc_shared::json::JsonOptions;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use cdc_worker::change::{Change, Operation};
use cdc_worker::sink::postgres::PostgresEvents;
use cdc_worker::sink::retry::{Trouble, TroubleReporter};
use cdc_worker::sink::{PartitionWriter, Progress, Sink};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::within;

const TOPIC: &str = "cdc.public.customers";

/// Settings for a database of the cluster.
fn settings(port: u16, database: &str) -> PostgresSinkConfig {
    PostgresSinkConfig {
        port,
        database: database.to_owned(),
        username: "postgres".to_owned(),
        password: Secret::from(PASSWORD),
        ..PostgresSinkConfig::default()
    }
}

fn sink(config: &PostgresSinkConfig) -> PostgresEvents {
    PostgresEvents::new("demo", "analytics-db", config).unwrap()
}

/// A proven sink on a database of its own.
async fn proven(change: impl FnOnce(&mut PostgresSinkConfig)) -> (PostgresEvents, Client) {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let mut config = settings(cluster.port, &database);
    change(&mut config);
    let sink = sink(&config);
    within("the proof", sink.prove()).await.unwrap();
    (sink, admin)
}

fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn position(next: i64) -> Position {
    Position {
        next: NextOffset::new(next).unwrap(),
        incarnation: Incarnation(1),
        topic_id: TopicId("topic-id".into()),
        schemas: SchemaIds { key: Some(1), value: Some(2) },
    }
}

/// A writer from `next`, with its record written.
async fn started(sink: &PostgresEvents, next: i64) -> Box<dyn PartitionWriter> {
    let start = position(next);
    assert!(sink.replace_position(&partition(), None, &start).await.unwrap());
    writer(sink, next).0
}

fn writer(
    sink: &PostgresEvents,
    next: i64,
) -> (Box<dyn PartitionWriter>, watch::Receiver<Trouble>) {
    let policy = RetryPolicy {
        initial_wait: Duration::from_millis(10),
        max_wait: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    let (reporter, trouble) = TroubleReporter::new(policy, false);
    (sink.writer(partition(), position(next), reporter), trouble)
}

fn push(writer: &mut dyn PartitionWriter, offsets: impl IntoIterator<Item = i64>) {
    for offset in offsets {
        let change = change(offset, Operation::Create);
        writer.push(&change).unwrap();
    }
}

/// A change without content.
fn change(offset: i64, operation: Operation) -> Change<'static> {
    Change {
        offset,
        timestamp_ms: 0,
        key_bytes: Some(b"key"),
        key_change: None,
        operation,
        key: None,
        envelope: None,
        json: json(),
    }
}

fn json() -> &'static JsonOptions {
    static OPTIONS: LazyLock<JsonOptions> = LazyLock::new(JsonOptions::default);
    &OPTIONS
}

/// Pushes offsets and flushes them.
async fn deliver(writer: &mut dyn PartitionWriter, offsets: std::ops::Range<i64>) -> Progress {
    let end = offsets.end;
    push(writer, offsets);
    writer.flush(position(end));
    within("an answer", writer.progress()).await
}

fn durable(progress: &Progress) -> i64 {
    match progress {
        Progress::Durable(next) => next.get(),
        other => panic!("not durable: {other:?}"),
    }
}

/// Offsets in the table, in order, repeated ones repeated.
async fn offsets(admin: &Client, table: &str) -> Vec<i64> {
    let sql = format!("SELECT source_offset::bigint FROM {table} ORDER BY 1");
    admin.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Whether a session waits for a lock in this database.
async fn someone_waits(admin: &Client) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name LIKE 'cdc-worker/%' AND wait_event_type = 'Lock')";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}
