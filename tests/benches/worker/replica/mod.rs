//! The replica sink beside its ceiling: COPY into a temporary table and one upsert or delete for
//! each batch, rows in their binary format from memory, one connection for each partition.

mod copy;
pub(crate) mod load;
mod peer;

use std::sync::Arc;
use std::time::Instant;

use cdc_shared::config::process_variables;
use futures::SinkExt as _;
use tokio_postgres::Client;

use self::copy::{COLUMNS, ROW};
use self::load::{BATCH, Batch, Full, Load, Size};
use super::events::reaches;
use super::pipeline::{Pipeline, SinkLines};
use super::topic::{admin, create, delete, register};
use super::{Bench, Error, Pass, number};

const MAX_BUFFERED: usize = 7_500;
/// Of a worker, however many partitions it has.
const MAX_CONNECTIONS: usize = 8;

/// What one load showed.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) changes: usize,
    pub(crate) mean_bytes: usize,
    pub(crate) worker: Vec<Pass>,
    pub(crate) ceiling: Vec<f64>,
    /// Debezium's JDBC sink.
    pub(crate) peer: Vec<Pass>,
}

/// The whole mix over few and many partitions.
pub(crate) async fn over_partitions(
    bench: &mut Bench,
    records: usize,
) -> Result<Vec<(usize, Measured)>, Error> {
    let (run, mut measured) = (bench.run.clone(), Vec::new());
    for partitions in [1, 4, 16, 64] {
        bench.partitions = partitions;
        bench.run = format!("{run}-{partitions}");
        let size = Size { records, rows: records / 2, partitions };
        eprintln!("{partitions} partitions");
        measured.push((partitions, Box::pin(one(bench, Load::Mixed, size, false)).await?));
    }
    Ok(measured)
}

/// `beside_peer`: the whole mix alone, beside Debezium's sink instead of the ceiling.
pub(crate) async fn measure(
    bench: &Bench,
    records: usize,
    beside_peer: bool,
) -> Result<Vec<Measured>, Error> {
    let mut measured = Vec::new();
    let size =
        Size { records, rows: number("BENCH_ROWS", records / 2)?, partitions: bench.partitions };
    let wanted = process_variables().remove("BENCH_LOADS");
    let is_wanted = |load: &Load| match &wanted {
        _ if beside_peer => *load == Load::Mixed,
        Some(names) => names.split(',').any(|name| name == load.name()),
        None => true,
    };
    for load in Load::ALL.into_iter().filter(is_wanted) {
        measured.push(Box::pin(one(bench, load, size, beside_peer)).await?);
    }
    Ok(measured)
}

/// One load, in a topic and a database of its own.
async fn one(bench: &Bench, load: Load, size: Size, beside_peer: bool) -> Result<Measured, Error> {
    let full = fill(bench, load, size).await?;
    eprintln!("{} changes of {} B in {}", full.changes, full.mean_bytes, full.topic);
    let database = format!("{}_{}", bench.run.replace('-', "_"), load.name());
    let admin = bench.stack.connect("postgres").await?;
    admin.batch_execute(&format!("CREATE DATABASE {database}")).await?;
    let outcome = Box::pin(passes(bench, &database, &full, size, beside_peer)).await;
    admin.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    delete(bench, &[&full.topic]).await;
    outcome
}

pub(crate) async fn fill(bench: &Bench, load: Load, size: Size) -> Result<Arc<Full>, Error> {
    let topic = format!("{}.public.{}", bench.run, load.name());
    create(&admin(&bench.stack)?, &topic, size.partitions).await?;
    let ids = register(&bench.stack, &topic).await?;
    let stack = bench.stack.clone();
    let fill = move || load::fill(&stack, topic, load, size, ids);
    Ok(Arc::new(tokio::task::spawn_blocking(fill).await??))
}

async fn passes(
    bench: &Bench,
    database: &str,
    full: &Arc<Full>,
    size: Size,
    beside_peer: bool,
) -> Result<Measured, Error> {
    let name = full.load.name();
    let sinks: Vec<_> = (0..bench.passes).map(|pass| sink(bench, database, name, pass)).collect();
    let client = bench.stack.connect(database).await?;
    let pipeline = Pipeline::start(bench, name, MAX_BUFFERED, &sinks).await?;
    let mut measured = Measured {
        name,
        changes: full.changes,
        mean_bytes: full.mean_bytes,
        worker: Vec::new(),
        ceiling: Vec::new(),
        peer: Vec::new(),
    };
    for pass in 0..bench.passes {
        let (mirror, bare) = (format!("mirror_{pass}"), format!("bare_{pass}"));
        client.batch_execute(&format!("CREATE SCHEMA {mirror}; CREATE SCHEMA {bare}")).await?;
        make(&client, &bare, full.load, size.rows).await?;
        if full.load.is_prefilled() {
            copy_table(&client, &bare, &mirror).await?;
        }
        client.batch_execute("CHECKPOINT").await?;
        let shown = worker(&pipeline, &mirror, &client, full).await?;
        eprintln!("replica, {name}: worker {:.0} changes/s", shown.rate);
        measured.worker.push(shown);
        client.batch_execute("CHECKPOINT").await?;
        if beside_peer {
            let shown = peer::measure(bench, database, &bare, full).await?;
            eprintln!("replica, {name}: Debezium's JDBC sink {:.0} changes/s", shown.rate);
            measured.peer.push(shown);
            same_keys(&client, &mirror, &bare).await?;
        } else if full.load == Load::Moves {
            nothing_is_lost(&client, &mirror, &bare).await?;
        } else {
            let rate = ceiling(bench, database, &bare, full).await?;
            eprintln!("replica, {name}: ceiling {rate:.0} changes/s");
            measured.ceiling.push(rate);
            same_rows(&client, &mirror, &bare).await?;
        }
        client.batch_execute(&format!("DROP SCHEMA {mirror}, {bare} CASCADE")).await?;
    }
    pipeline.stop().await?;
    Ok(measured)
}

fn sink(bench: &Bench, database: &str, name: &str, pass: usize) -> SinkLines {
    let ((host, port), (user, password)) = (bench.stack.postgres(), bench.stack.admin());
    let lines = [
        "sink_type: postgres".to_owned(),
        format!("tables: [public.{name}]"),
        format!(
            "postgres: {{ write_mode: replica, host: {host}, port: {port}, database: {database}, \
             username: {user}, password: {password}, target_table: 'mirror_{pass}.{{table}}', \
             sslmode: disable, batch_size: {BATCH}, \
             max_connections: {connections} }}",
            connections = bench.partitions.min(MAX_CONNECTIONS),
        ),
    ];
    SinkLines { id: format!("mirror_{pass}"), lines: lines.into() }
}

/// Makes the table, with the rows that the load changes.
async fn make(client: &Client, schema: &str, load: Load, rows: usize) -> Result<(), Error> {
    let table = format!("{schema}.orders");
    client.batch_execute(&format!("CREATE TABLE {table} ({COLUMNS})")).await?;
    if load.is_prefilled() {
        let last = rows - 1;
        let fill = format!("INSERT INTO {table} SELECT {ROW} FROM generate_series(0, {last}) AS n");
        client.batch_execute(&fill).await?;
    }
    finish(client, &table).await
}

async fn copy_table(client: &Client, from: &str, to: &str) -> Result<(), Error> {
    let table = format!("{to}.orders");
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} ({COLUMNS}); INSERT INTO {table} SELECT * FROM {from}.orders"
        ))
        .await?;
    finish(client, &table).await
}

async fn finish(client: &Client, table: &str) -> Result<(), Error> {
    client.batch_execute(&format!("ALTER TABLE {table} ADD PRIMARY KEY (id)")).await?;
    Ok(client.batch_execute(&format!("VACUUM ANALYZE {table}")).await?)
}

async fn copy_in(client: &Client, table: &str, rows: &[u8]) -> Result<(), Error> {
    let copy = format!("COPY {table} FROM STDIN (FORMAT binary)");
    let mut into = std::pin::pin!(client.copy_in::<_, bytes::Bytes>(&copy).await?);
    into.send(bytes::Bytes::copy_from_slice(rows)).await?;
    into.finish().await?;
    Ok(())
}

async fn worker(
    pipeline: &Pipeline,
    mirror: &str,
    client: &Client,
    full: &Full,
) -> Result<Pass, Error> {
    let (mut process, _) = pipeline.worker(mirror)?;
    let offsets = format!("{mirror}.cdc_offsets");
    let first = reaches(client, &offsets, 1, &mut process).await?;
    let last = reaches(client, &offsets, full.messages, &mut process).await?;
    let share = full.changes as f64 / full.messages as f64;
    Pass::between(process, first, last, share).await
}

/// The same changes in the same batches, from memory.
async fn ceiling(
    bench: &Bench,
    database: &str,
    schema: &str,
    full: &Arc<Full>,
) -> Result<f64, Error> {
    let mut connections = Vec::new();
    for _ in 0..bench.partitions {
        let connection = bench.stack.connect(database).await?;
        connection
            .batch_execute(&format!(
                "SET search_path = {schema}; \
                 CREATE TEMPORARY TABLE new (LIKE orders) ON COMMIT DELETE ROWS; \
                 CREATE TEMPORARY TABLE gone (id int8) ON COMMIT DELETE ROWS"
            ))
            .await?;
        connections.push(connection);
    }
    let start = Instant::now();
    let writers = connections.into_iter().enumerate().map(|(partition, connection)| {
        let full = full.clone();
        tokio::spawn(async move { write(connection, &full.batches[partition]).await })
    });
    for ended in writers.collect::<Vec<_>>() {
        ended.await??;
    }
    Ok(full.changes as f64 / start.elapsed().as_secs_f64())
}

async fn write(mut connection: Client, batches: &[Batch]) -> Result<(), Error> {
    let upsert = "INSERT INTO orders SELECT * FROM new ON CONFLICT (id) DO UPDATE SET \
        customer_id = EXCLUDED.customer_id, status = EXCLUDED.status, amount = EXCLUDED.amount, \
        note = EXCLUDED.note, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at, \
        active = EXCLUDED.active, score = EXCLUDED.score, quantity = EXCLUDED.quantity, \
        due = EXCLUDED.due, extra = EXCLUDED.extra";
    // Through the key's index, whatever the statistics say of the temporary table.
    connection.batch_execute("SET enable_hashjoin = off; SET enable_mergejoin = off").await?;
    let upsert = connection.prepare(upsert).await?;
    let delete = "DELETE FROM orders USING gone WHERE orders.id = gone.id";
    let delete = connection.prepare(delete).await?;
    for batch in batches {
        let transaction = connection.transaction().await?;
        for (rows, table, statement) in
            [(&batch.deleted, "gone", &delete), (&batch.rows, "new", &upsert)]
        {
            if !rows.is_empty() {
                copy_in(transaction.client(), table, rows).await?;
                transaction.execute(statement, &[]).await?;
            }
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// Both have done the same.
async fn same_rows(client: &Client, mirror: &str, bare: &str) -> Result<(), Error> {
    same(client, &format!("SELECT * FROM {mirror}.orders"), &format!("SELECT * FROM {bare}.orders"))
        .await
}

/// Both have done the same, as far as both can.
async fn same_keys(client: &Client, mirror: &str, bare: &str) -> Result<(), Error> {
    let columns = "id, customer_id, note, amount, quantity";
    let select = |schema: &str| format!("SELECT {columns} FROM {schema}.orders");
    same(client, &select(mirror), &select(bare)).await
}

/// Rows have other keys than before, and the values that were not sent.
async fn nothing_is_lost(client: &Client, mirror: &str, bare: &str) -> Result<(), Error> {
    let notes = |schema: &str| format!("SELECT note FROM {schema}.orders");
    same(client, &notes(mirror), &notes(bare)).await
}

async fn same(client: &Client, ours: &str, theirs: &str) -> Result<(), Error> {
    let query = format!(
        "SELECT (SELECT count(*) FROM ({ours}) x), (SELECT count(*) FROM ({theirs}) x), \
         (SELECT count(*) FROM ({ours} EXCEPT ALL {theirs}) x)"
    );
    let row = client.query_one(&query, &[]).await?;
    let (ours, theirs, other): (i64, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if (ours, other) == (theirs, 0) {
        return Ok(());
    }
    Err(format!("the mirror has {ours} rows, {other} of them others than the {theirs}").into())
}
