//! What the work of an append worker costs by itself: reading the topic, and making the same records
//! into a table from memory.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cdc_iceberg::{Catalog, Lake, Layout, Owner, Part, Rows, Segment, TableName, TypeOptions};
use cdc_shared::avro::{CellBuf, Plan};
use cdc_shared::config::{IcebergConfig, SourceConfig};
use cdc_shared::envelope::{Placeholder, ValueSchema};
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::envelopes::SCHEMA;
use crate::process::{PATIENCE, cpu_of};
use crate::replica::load::Full;
use crate::topic::KEY_SCHEMA;
use crate::{Bench, Error};

/// CPU seconds.
pub(crate) struct Stages {
    /// Taking every record from Kafka.
    pub(crate) read: f64,
    /// Decoding, columns, Parquet and one commit, from memory.
    pub(crate) write: f64,
}

pub(super) async fn alone(bench: &Bench, full: &Full, pass: usize) -> Result<Stages, Error> {
    let (kafka, topic) = (bench.stack.kafka().to_owned(), full.topic.clone());
    let (partitions, messages) = (bench.partitions, full.messages);
    let read = move || {
        // Once to see what it costs, once to have them.
        let before = cpu_of("self")?;
        read(&kafka, &topic, partitions, messages, |_| {})?;
        let cpu = cpu_of("self")? - before;
        let mut held = Vec::new();
        read(&kafka, &topic, partitions, messages, |message| held.push(message.detach()))?;
        Ok::<_, Error>((cpu, held))
    };
    let (read, held) = tokio::task::spawn_blocking(read).await??;
    let before = cpu_of("self")?;
    Box::pin(write(bench, &full.topic, &held, pass)).await?;
    Ok(Stages { read, write: cpu_of("self")? - before })
}

fn read(
    kafka: &str,
    topic: &str,
    partitions: usize,
    messages: i64,
    mut take: impl FnMut(rdkafka::message::BorrowedMessage<'_>),
) -> Result<(), Error> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "bench-reader")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, i32::try_from(partition)?, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut taken, deadline) = (0, Instant::now() + PATIENCE);
    while taken < messages {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            take(message?);
            taken += 1;
        } else if Instant::now() > deadline {
            return Err(format!("{taken} of {messages} records came from {topic}").into());
        }
    }
    Ok(())
}

async fn write(
    bench: &Bench,
    topic: &str,
    held: &[OwnedMessage],
    pass: usize,
) -> Result<(), Error> {
    let folder = bench.folder.path().display();
    let config = IcebergConfig {
        catalog_uri: format!("sqlite:///{folder}/alone_{pass}.db"),
        warehouse: format!("file://{folder}/alone_{pass}"),
        auto_create_table: true,
        ..IcebergConfig::default()
    };
    let lake = Lake::new(Catalog::new(&config)?, &config, Owner::new("bench", "alone"))?;
    lake.prove(&config.table_namespace).await?;
    let table = Arc::new(lake)
        .table(&TableName { namespace: config.table_namespace.clone(), table: "alone".to_owned() });
    let mut parts = Vec::new();
    for partition in 0..bench.partitions {
        let tp = TopicPartition::new(topic, i32::try_from(partition)?);
        let start = position(0)?;
        if !table.replace_position(&tp, None, &start).await? {
            return Err("the new table has a position".into());
        }
        let (segments, next) = rows(&tp, held)?;
        parts.push(Part {
            tp,
            expected: start,
            covers: position(next)?,
            segments,
            abandoned: Arc::new(AtomicBool::new(false)),
            keyed: None,
            letter: None,
        });
    }
    Ok(table.commit(parts).attempt().await?)
}

fn position(next: i64) -> Result<Position, Error> {
    Ok(Position {
        next: NextOffset::new(next).ok_or("no offset")?,
        incarnation: Incarnation(1),
        topic_id: TopicId("bench".into()),
        schemas: SchemaIds::default(),
    })
}

/// The rows of a partition, and the offset after them.
fn rows(tp: &TopicPartition, held: &[OwnedMessage]) -> Result<(Vec<Arc<Segment>>, i64), Error> {
    let no_references: [(&str, &str); 0] = [];
    let values = ValueSchema::of(Plan::compile(2, SCHEMA, &no_references)?.into());
    let plan = values.envelope().ok_or("no envelope's schema")?;
    let keys = Plan::compile(1, KEY_SCHEMA, &no_references)?;
    let placeholder = Placeholder::new(&SourceConfig::default().unavailable_placeholder);
    let types = TypeOptions::new(&SourceConfig::default());
    let (mut layout, mut next) = (None, 0);
    let (mut cells, mut key_cells) = (CellBuf::new(), CellBuf::new());
    let mut rows = Rows::new(tp.topic.clone(), tp.partition);
    for message in held.iter().filter(|message| message.partition() == tp.partition) {
        next = message.offset() + 1;
        let (Some(key), Some(value)) = (message.key(), message.payload()) else { continue };
        cells.clear();
        key_cells.clear();
        let root = plan.plan().decode(&value[5..], &mut cells)?;
        let envelope = plan.envelope(root, &cells)?;
        let root = keys.decode(&key[5..], &mut key_cells)?;
        let key = Some(keys.view(root, &key_cells));
        if layout.is_none() {
            let mode = IcebergConfig::default().write_mode;
            layout = Some(Arc::new(Layout::of(&envelope, Some(&keys), types, mode)?));
        }
        if let Some(layout) = &layout {
            rows.push(layout, message.offset(), &envelope, key, &placeholder, None)?;
        }
    }
    Ok((rows.finish()?.into_iter().map(Arc::new).collect(), next))
}
