//! The iceberg sink against a real catalog of SQLite and a warehouse in a folder.

mod delivery;
mod evolution;
mod faults;
mod letters;
mod rewind;
mod types;
mod upkeep;
mod upsert;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use cdc_iceberg::{Catalog, Lake, LakeTable, Owner, Pointers, SqliteCatalog, TableName};
use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{IcebergConfig, IcebergWriteMode, PipelineConfig, SinkConfig};
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use cdc_worker::sink::iceberg::IcebergSink;
use cdc_worker::sink::retry::TroubleReporter;
use cdc_worker::sink::{PartitionWriter, Progress, Sink};
use tempfile::TempDir;

use crate::replica::event::{Col, Event, Table, V, col, event};
use crate::support::within;

const TOPIC: &str = "cdc.shop.t";

/// A lake in a folder of its own.
struct Place {
    dir: TempDir,
    mode: IcebergWriteMode,
    partition_by: Vec<String>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("cdc-lake-").tempdir().unwrap();
        Self { dir, mode: IcebergWriteMode::Append, partition_by: Vec::new() }
    }

    /// A lake whose tables are kept by key.
    fn keyed() -> Self {
        Self { mode: IcebergWriteMode::Upsert, ..Self::new() }
    }

    fn config(&self) -> IcebergConfig {
        let path = self.dir.path().display();
        IcebergConfig {
            catalog_uri: format!("sqlite:///{path}/catalog.db"),
            warehouse: format!("file://{path}/warehouse"),
            table_name: "{schema}_{table}".to_owned(),
            batch_size: 1_000_000,
            auto_create_table: true,
            write_mode: self.mode,
            partition_by: self.partition_by.clone(),
            ..IcebergConfig::default()
        }
    }

    fn catalog(&self) -> SqliteCatalog {
        let config = self.config();
        SqliteCatalog::new(&config.catalog_uri, &config.catalog_name).unwrap()
    }

    /// A proven sink.
    async fn sink(&self) -> IcebergSink {
        self.sink_on(Arc::new(self.catalog())).await
    }

    async fn sink_on(&self, catalog: Arc<dyn Pointers>) -> IcebergSink {
        let catalog = Catalog::Pointers(catalog);
        let pipeline = PipelineConfig {
            pipeline_id: "demo".to_owned(),
            topic_prefix: "cdc".to_owned(),
            ..PipelineConfig::default()
        };
        let entry = SinkConfig { sink_id: "lake".to_owned(), ..SinkConfig::default() };
        let sink = IcebergSink::with_catalog(&pipeline, &entry, &self.config(), catalog).unwrap();
        within("the proof", sink.prove()).await.unwrap();
        sink
    }

    /// The table, seen by somebody else.
    fn table(&self) -> Arc<LakeTable> {
        let owner = Owner::new("demo", "lake");
        let config = IcebergConfig { auto_create_table: false, ..self.config() };
        let catalog = Catalog::Pointers(Arc::new(self.catalog()));
        let lake = Lake::new(catalog, &config, owner).unwrap();
        let table = TableName { namespace: "default".to_owned(), table: "shop_t".to_owned() };
        Arc::new(lake).table(&table)
    }

    /// The texts of some columns, sorted.
    async fn rows(&self, columns: &[&str]) -> Vec<String> {
        self.try_rows(columns).await.unwrap()
    }

    async fn try_rows(&self, columns: &[&str]) -> cdc_iceberg::Result<Vec<String>> {
        let rows = self.table().rows(columns).await?;
        let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
        let mut rows: Vec<String> = rows
            .into_iter()
            .map(|row| row.into_iter().map(text).collect::<Vec<_>>().join("|"))
            .collect();
        rows.sort();
        Ok(rows)
    }

    /// Files of a kind in the warehouse.
    fn files(&self, folder: &str, end: &str) -> Vec<std::path::PathBuf> {
        let folder = self.dir.path().join("warehouse/default/shop_t").join(folder);
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_str().unwrap().ends_with(end)).collect()
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

fn position(next: i64) -> Position {
    Position {
        next: NextOffset::new(next).unwrap(),
        incarnation: Incarnation(1),
        topic_id: TopicId("topic-id".into()),
        schemas: SchemaIds { key: Some(1), value: Some(2) },
    }
}

fn writer_of(sink: &IcebergSink, number: i32, start: Position) -> Box<dyn PartitionWriter> {
    let policy = RetryPolicy {
        initial_wait: Duration::from_millis(10),
        max_wait: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    let (reporter, _) = TroubleReporter::new(policy, false);
    sink.writer(partition(number), start, reporter)
}

/// A writer from the beginning of a partition, with its record written.
async fn started(sink: &IcebergSink, number: i32) -> Box<dyn PartitionWriter> {
    let (tp, start) = (partition(number), position(0));
    let replaced = sink.replace_position(&tp, None, &start);
    assert!(within("the start", replaced).await.unwrap());
    writer_of(sink, number, start)
}

fn columns() -> Vec<Col> {
    vec![
        col("id", "long", "INT8", None).required(),
        col("name", "string", "VARCHAR", Some(40)),
        col("large", "string", "TEXT", None),
    ]
}

fn table() -> Table {
    Table::new("t", 2, 1, 1, &columns())
}

fn row(id: i64, name: &'static str) -> [V; 3] {
    [V::N(id), V::T(name), V::Null]
}

/// Creates with these offsets, which are their ids too.
fn creates(offsets: std::ops::Range<i64>) -> Vec<Event> {
    offsets.map(|offset| event(offset, "c", &row(offset, "name"))).collect()
}

fn push(writer: &mut dyn PartitionWriter, table: &Table, events: &[Event]) {
    for event in events {
        table.push(writer, event).unwrap();
    }
}

/// Waits for the end of the flush under way.
async fn answer(writer: &mut dyn PartitionWriter) -> Progress {
    within("an answer", writer.progress()).await
}

/// Pushes events and flushes them up to `next`.
async fn deliver(
    writer: &mut dyn PartitionWriter,
    table: &Table,
    next: i64,
    events: &[Event],
) -> Progress {
    push(writer, table, events);
    writer.flush(position(next));
    answer(writer).await
}

#[track_caller]
fn durable(progress: &Progress) -> i64 {
    match progress {
        Progress::Durable(next) => next.get(),
        other => panic!("not durable: {other:?}"),
    }
}
