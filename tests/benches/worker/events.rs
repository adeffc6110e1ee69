//! The PostgreSQL events sink beside the same statement fed from memory, one connection per
//! partition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::pipeline::{Pipeline, SinkLines};
use super::process::{PATIENCE, Process};
use super::table::Table;
use super::topic::{PARTITIONS, Topic};
use super::{Bench, Error, Pass, Sight};

const BATCH: usize = 2000;
const MAX_BUFFERED: usize = 5_000;
/// How often the sink's progress is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// What the sink's writer sends, less the columns of its record that stay as they are.
const STATEMENT: &str = r#"
    WITH moved AS (
        UPDATE bare_offsets SET next_offset = $1, updated_at = now()
        WHERE topic = $2 AND "partition" = $3 AND next_offset = $4 RETURNING 1),
    written AS (
        INSERT INTO bare_events (event_key, event_value, source_topic, source_partition,
            source_offset)
        SELECT b.k, b.v::jsonb, $2, $3, b.o
        FROM ROWS FROM (unnest($5::text[]), unnest($6::text[]), unnest($7::int8[])) AS b(k, v, o)
        WHERE EXISTS (SELECT FROM moved)
        ON CONFLICT (source_topic, source_partition, source_offset)
        DO UPDATE SET event_key = EXCLUDED.event_key, event_value = EXCLUDED.event_value)
    SELECT count(*) FROM moved"#;

pub(crate) async fn measure(bench: &Bench, topic: &Topic, table: &mut Table) -> Result<(), Error> {
    let database = bench.run.replace('-', "_");
    let admin = bench.stack.connect("postgres").await?;
    admin.batch_execute(&format!("CREATE DATABASE {database}")).await?;
    let outcome = Box::pin(passes(bench, &database, topic, table)).await;
    admin.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    outcome
}

async fn passes(
    bench: &Bench,
    database: &str,
    topic: &Topic,
    table: &mut Table,
) -> Result<(), Error> {
    let sinks: Vec<_> = (0..bench.passes).map(|pass| sink(bench, database, pass)).collect();
    let pipeline = Pipeline::start(bench, "events", MAX_BUFFERED, &sinks).await?;
    let client = bench.stack.connect(database).await?;
    let batches = Arc::new(Batches::of(topic));
    for pass in 0..bench.passes {
        client.batch_execute("CHECKPOINT").await?;
        let measured = worker(&pipeline, pass, &client, topic).await?;
        eprintln!("events: worker {:.0} records/s", measured.rate);
        table.events.push(measured);
        let bare_rate = bare(bench, database, pass, &client, topic, &batches).await?;
        eprintln!("events: bare statements {bare_rate:.0} records/s");
        table.events_bare.push(bare_rate);
    }
    pipeline.stop().await
}

fn sink(bench: &Bench, database: &str, pass: usize) -> SinkLines {
    let ((host, port), (user, password)) = (bench.stack.postgres(), bench.stack.admin());
    let lines = [
        "sink_type: postgres".to_owned(),
        "tables: [public.orders]".to_owned(),
        format!(
            "postgres: {{ host: {host}, port: {port}, database: {database}, username: {user}, \
             password: {password}, target_table: public.events_{pass}, \
             progress_table: offsets_{pass}, batch_size: {BATCH}, max_connections: {PARTITIONS} }}"
        ),
    ];
    SinkLines { id: format!("events-{pass}"), lines: lines.into() }
}

async fn worker(
    pipeline: &Pipeline,
    pass: usize,
    client: &Client,
    topic: &Topic,
) -> Result<Pass, Error> {
    let (mut process, _) = pipeline.worker(&format!("events-{pass}"))?;
    let offsets = format!("offsets_{pass}");
    let first = reaches(client, &offsets, 1, &mut process).await?;
    let last = reaches(client, &offsets, topic.messages, &mut process).await?;
    // Tombstones are no events: what counts is the share of the others.
    let share = topic.events.len() as f64 / topic.messages as f64;
    Pass::between(process, first, last, share).await
}

/// Waits until the sink's own record has come so far; when, and how far it was seen then.
pub(crate) async fn reaches(
    client: &Client,
    offsets: &str,
    goal: i64,
    process: &mut Process,
) -> Result<Sight, Error> {
    let query = format!("SELECT coalesce(sum(next_offset), 0)::int8 FROM {offsets}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The worker creates the table.
        let position: i64 = match client.query_one(&query, &[]).await {
            Ok(row) => row.try_get(0)?,
            Err(_) => 0,
        };
        if position >= goal {
            return Ok((Instant::now(), position));
        }
        process.check()?;
        if Instant::now() > deadline {
            return Err(format!("{position} of {goal} came: {}", process.log_end()).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The parameters of one statement.
struct Batch {
    keys: Vec<String>,
    values: Vec<String>,
    offsets: Vec<i64>,
}

/// All statements, by partition.
struct Batches(Vec<Vec<Batch>>);

impl Batches {
    fn of(topic: &Topic) -> Self {
        let partitions = (0..PARTITIONS as i32).map(|partition| {
            let events: Vec<_> =
                topic.events.iter().filter(|event| event.partition == partition).collect();
            let batches = events.chunks(BATCH).map(|chunk| Batch {
                keys: chunk.iter().map(|event| event.key.clone()).collect(),
                values: chunk.iter().map(|event| event.value.clone()).collect(),
                offsets: chunk.iter().map(|event| event.offset).collect(),
            });
            batches.collect()
        });
        Self(partitions.collect())
    }
}

/// The same rows in the same batches, from memory.
async fn bare(
    bench: &Bench,
    database: &str,
    pass: usize,
    client: &Client,
    topic: &Topic,
    batches: &Arc<Batches>,
) -> Result<f64, Error> {
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS bare_events, bare_offsets; \
             CREATE TABLE bare_events (LIKE events_{pass} INCLUDING ALL); \
             CREATE TABLE bare_offsets (LIKE offsets_{pass} INCLUDING ALL); \
             INSERT INTO bare_offsets SELECT * FROM offsets_{pass}; \
             UPDATE bare_offsets SET next_offset = 0; CHECKPOINT"
        ))
        .await?;
    let mut connections = Vec::new();
    for _ in 0..PARTITIONS {
        connections.push(bench.stack.connect(database).await?);
    }
    let start = Instant::now();
    let writers = connections.into_iter().enumerate().map(|(partition, connection)| {
        let (batches, name) = (batches.clone(), topic.name.clone());
        tokio::spawn(write(connection, batches, partition, name))
    });
    for ended in writers.collect::<Vec<_>>() {
        ended.await??;
    }
    Ok(topic.events.len() as f64 / start.elapsed().as_secs_f64())
}

async fn write(
    connection: Client,
    batches: Arc<Batches>,
    partition: usize,
    topic: String,
) -> Result<(), Error> {
    let statement = connection.prepare(STATEMENT).await?;
    let mut before = 0_i64;
    for Batch { keys, values, offsets } in &batches.0[partition] {
        let next = offsets.last().map_or(before, |last| last + 1);
        let number = partition as i32;
        let row = connection
            .query_one(&statement, &[&next, &topic, &number, &before, keys, values, offsets])
            .await?;
        if row.try_get::<_, i64>(0)? != 1 {
            return Err("the compare-and-set of the bare statements missed".into());
        }
        before = next;
    }
    Ok(())
}
