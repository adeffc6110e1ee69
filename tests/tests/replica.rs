//! The mirror: what is in the source's tables is in the target's, row by row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdc_tests::chaos::seed;
use cdc_tests::mirror::{columns, is_equal, nothing_is_left};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::wait::{SOON, check, until};
use tokio_postgres::Client;

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_has_the_sources_rows_names_and_types() {
    let mut pipeline = Pipeline::new("mirror");
    let source = postgres::source_with(
        &pipeline,
        r#"CREATE TABLE {id}.t (
               "Region" varchar(8), id bigint, "select" integer NOT NULL DEFAULT 7,
               "My Note" text DEFAULT 'hello', price numeric(12, 2), exact numeric,
               flag boolean, small smallint, ratio double precision, day date,
               at timestamptz(3), local timestamp, data bytea, doc jsonb, tags text[],
               token uuid, address inet, large text,
               PRIMARY KEY (id, "Region"));
           ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
           INSERT INTO {id}.t (id, "Region", large) SELECT n, 'snap', repeat('x', 5000)
           FROM generate_series(1, 50) AS n;"#,
    )
    .await;
    pipeline.replica("mirror");
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    let target = postgres::target().await;
    let table = format!("{}.t", pipeline.id);
    is_equal(&source, &target, &table, SOON).await;

    postgres::run(
        &source,
        &pipeline,
        r#"INSERT INTO {id}.t VALUES ('ü', 100, 1, NULL, 12.30, 1e-20, true, -3, 0.1,
               '2024-02-29', '2024-02-29 12:00:00.123+02', '1999-12-31 23:59:59.999999', '\x00ff',
               '{"a": 1.50, "b": [null]}', '{a,NULL,"b c"}', '4d9bd6c9-9a8c-4fd5-9bb6-1f0fa5a1f0e1',
               '10.0.0.0/8', repeat('large ', 2000));
           UPDATE {id}.t SET "select" = id WHERE id <= 20;
           UPDATE {id}.t SET large = 'new' WHERE id IN (3, 4);
           UPDATE {id}.t SET "My Note" = NULL, large = repeat('y', 9000) WHERE id = 5;
           DELETE FROM {id}.t WHERE id BETWEEN 6 AND 9;
           INSERT INTO {id}.t (id, "Region") VALUES (6, 'again'), (7, '');
           BEGIN; UPDATE {id}.t SET id = id + 1000 WHERE id BETWEEN 10 AND 30; COMMIT;
           BEGIN; DELETE FROM {id}.t WHERE id = 40; ROLLBACK;
           UPDATE {id}.t SET id = 41000, large = 'moved' WHERE id = 41;"#,
    )
    .await;
    assert_eq!(is_equal(&source, &target, &table, SOON).await, 49);

    let columns = "SELECT string_agg(format('%I %s %s', a.attname, format_type(a.atttypid, \
                   a.atttypmod), a.attnotnull), ', ' ORDER BY a.attnum) || pg_get_constraintdef(c.oid) \
                   FROM pg_attribute a, pg_constraint c WHERE a.attrelid = $1::text::regclass \
                   AND a.attnum > 0 AND c.conrelid = a.attrelid AND c.contype = 'p' GROUP BY c.oid";
    let shape = async |client: &Client| -> String {
        client.query_one(columns, &[&table]).await.unwrap().get(0)
    };
    assert_eq!(shape(&source).await, shape(&target).await);
    nothing_is_left(&pipeline.id, &target).await;
}

/// How long the workload runs and things go wrong.
const CHAOS: Duration = Duration::from_secs(15);
/// How long the rest may take then.
const RECOVERY: Duration = Duration::from_secs(150);
const IDS: i64 = 300;

/// One statement of the workload.
fn statement(table: &str, random: &mut fastrand::Rng) -> String {
    let (id, other, n) = (random.i64(0..IDS), random.i64(0..IDS), random.i32(0..));
    match random.u32(..10) {
        0..=2 => format!(
            "INSERT INTO {table} VALUES ({id}, {n}, 'new {n}', repeat(md5('{n}'), 150)) \
             ON CONFLICT DO NOTHING"
        ),
        3 | 4 => format!("UPDATE {table} SET n = {n} WHERE id = {id}"),
        5 => format!("UPDATE {table} SET large = repeat(md5('{n}'), 200) WHERE id = {id}"),
        6 => format!("DELETE FROM {table} WHERE id = {id}"),
        7 => format!("UPDATE {table} SET n = {n}, name = NULL WHERE id BETWEEN {id} AND {id} + 20"),
        8 => format!(
            "UPDATE {table} SET id = {other} WHERE id = {id} \
             AND NOT EXISTS (SELECT FROM {table} WHERE id = {other})"
        ),
        _ => format!(
            "UPDATE {table} SET id = id + 1000 WHERE id BETWEEN {id} AND {id} + 5; \
             UPDATE {table} SET id = id - 1000, n = {n} WHERE id >= 1000"
        ),
    }
}

/// How a workload goes.
pub(super) struct Load {
    /// Statements of a transaction.
    pub(super) statements: std::ops::Range<usize>,
    /// Not more than one transaction in so long.
    pub(super) pace: Option<Duration>,
    /// Whoever holds it keeps the workload still.
    pub(super) still: Arc<tokio::sync::Mutex<()>>,
}

/// Transactions until it is told to stop, every fifth rolled back.
pub(super) async fn workload(
    table: String,
    mut random: fastrand::Rng,
    stop: Arc<AtomicBool>,
    Load { statements, pace, still }: Load,
) -> u32 {
    let source = postgres::source().await;
    let (mut transactions, mut pace) = (0, pace.map(tokio::time::interval));
    while !stop.load(Ordering::Relaxed) {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let _goes_on = still.lock().await;
        let end = if random.u32(..5) == 0 { "ROLLBACK" } else { "COMMIT" };
        let count = random.usize(statements.clone());
        let statements: Vec<_> = (0..count).map(|_| statement(&table, &mut random)).collect();
        let transaction = format!("BEGIN; {}; {end}", statements.join("; "));
        if let Err(error) = source.batch_execute(&transaction).await {
            // Two rows that wanted one key.
            let code = error.code().map(|code| code.code().to_owned());
            assert_eq!(code.as_deref(), Some("23505"), "{transaction}: {error:?}");
            source.batch_execute("ROLLBACK").await.unwrap();
        }
        transactions += 1;
    }
    transactions
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_is_equal_after_a_random_workload_and_whatever_is_killed() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut pipeline = Pipeline::new("chaos");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
         ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
         INSERT INTO {id}.t SELECT i, i, 'snapshot', repeat('x', 3000)
         FROM generate_series(0, 99) AS i;",
    )
    .await;
    pipeline.replica("mirror");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("mirror"), pipeline.worker("mirror")];
    let (target, table) = (postgres::target().await, format!("{}.t", pipeline.id));
    is_equal(&source, &target, &table, RECOVERY).await;

    let stop = Arc::new(AtomicBool::new(false));
    let load = Load { statements: 1..6, pace: None, still: Arc::default() };
    let working = tokio::spawn(workload(table.clone(), random.fork(), stop.clone(), load));
    let end = Instant::now() + CHAOS;
    let mut frozen = [None; 2];
    while Instant::now() < end {
        let place = random.usize(..2);
        match random.u32(..4) {
            0 | 1 => {
                workers[place].kill();
                workers[place] = pipeline.worker("mirror");
                frozen[place] = None;
            }
            // Long enough for the session to end, and so for its partitions to go to the other.
            2 => {
                workers[place].freeze();
                frozen[place] = Some(Instant::now() + Duration::from_secs(12));
            }
            _ => {
                workers[place].freeze();
                frozen[place] = Some(Instant::now() + Duration::from_millis(random.u64(100..3000)));
            }
        }
        let pause = Instant::now() + Duration::from_millis(random.u64(300..3000));
        while Instant::now() < pause {
            for (worker, until) in workers.iter().zip(&mut frozen) {
                if until.is_some_and(|until| until <= Instant::now()) {
                    worker.thaw();
                    *until = None;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    workers.iter().for_each(Process::thaw);
    stop.store(true, Ordering::Relaxed);
    println!("{} transactions", working.await.unwrap());
    is_equal(&source, &target, &table, RECOVERY).await;
    nothing_is_left(&pipeline.id, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_schema_changes_in_a_running_stream_lose_nothing() {
    let mut pipeline = Pipeline::new("evolve");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer NOT NULL, name varchar(20) NOT NULL);
         INSERT INTO {id}.t SELECT i, i, 'snapshot' FROM generate_series(1, 200) AS i;",
    )
    .await;
    pipeline.replica("mirror");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    let (target, table) = (postgres::target().await, format!("{}.t", pipeline.id));
    let changes = [
        "ADD COLUMN a text DEFAULT 'it''s'",
        "ADD COLUMN b numeric(10, 2) NOT NULL DEFAULT 1.50",
        "ALTER COLUMN n TYPE bigint",
        "ALTER COLUMN name TYPE varchar(60)",
        "ADD COLUMN c timestamptz DEFAULT '2020-01-01 00:00:00+00'",
        "DROP COLUMN a",
        "ALTER COLUMN name DROP NOT NULL",
        "ADD COLUMN d boolean NOT NULL DEFAULT true",
        "ALTER COLUMN b TYPE numeric(14, 2)",
        "ADD COLUMN e jsonb",
    ];
    for (round, change) in (0_i64..).zip(changes) {
        let statements = format!(
            "ALTER TABLE {table} {change};
             INSERT INTO {table} (id, n, name) SELECT i, {round}, 'round {round}'
             FROM generate_series({from}, {from} + 99) AS i;
             UPDATE {table} SET n = n + 1 WHERE id % 7 = {round} % 7;
             DELETE FROM {table} WHERE id % 31 = {round};",
            from = 1000 + round * 100,
        );
        source.batch_execute(&statements).await.unwrap_or_else(|e| panic!("{change}: {e:?}"));
    }
    until("the last column has arrived", RECOVERY, async || {
        let found = columns(&target, &table).await?;
        check(found.contains(&"e".to_owned()), format!("{found:?}"))
    })
    .await;
    is_equal(&source, &target, &table, RECOVERY).await;
    let found = columns(&target, &table).await.unwrap();
    assert!(found.contains(&"a".to_owned()), "a dropped column stays: {found:?}");
}

/// What a worker may need at most, with the default limits: queues of 32 MiB, and of each of four
/// partitions a batch of 8 MiB that is open, one under way, and its message to the server: 128 MiB, and
/// as much again for the process itself and what the allocator has not given back yet.
const MEMORY_KIB: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn wide_tables_and_large_rows_stay_within_the_memory_budget() {
    const COLUMNS: usize = 200;
    const LARGE: usize = 1000;
    let mut pipeline = Pipeline::new("large");
    let columns: Vec<_> = (0..COLUMNS).map(|n| format!("c{n} text")).collect();
    let values: Vec<_> = (0..COLUMNS).map(|n| format!("i || ' of {n}'")).collect();
    let source = postgres::source_with(
        &pipeline,
        &format!(
            "CREATE TABLE {{id}}.t (id bigint PRIMARY KEY, doc text);
             ALTER TABLE {{id}}.t ALTER doc SET STORAGE EXTERNAL;
             INSERT INTO {{id}}.t SELECT i, (SELECT string_agg(md5(i || '.' || n), '') \
             FROM generate_series(1, 3200) AS n) FROM generate_series(1, {LARGE}) AS i;
             CREATE TABLE {{id}}.wide (id bigint PRIMARY KEY, {});
             INSERT INTO {{id}}.wide SELECT i, {} FROM generate_series(1, 2000) AS i;",
            columns.join(", "),
            values.join(", ")
        ),
    )
    .await;
    pipeline.config["source"]["tables"] =
        serde_json::json!([format!("{}.t", pipeline.id), format!("{}.wide", pipeline.id)]);
    pipeline.replica("mirror");
    let section = &mut pipeline.sink_mut("mirror")["postgres"];
    section.as_object_mut().unwrap().remove("flush_interval_ms");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let worker = pipeline.worker("mirror");
    let target = postgres::target().await;
    for table in ["t", "wide"] {
        let table = format!("{}.{table}", pipeline.id);
        let digest =
            format!("SELECT count(*), md5(string_agg(t::text, '' ORDER BY id)) FROM {table} AS t");
        let of = async |client: &Client| -> Result<(i64, Option<String>), String> {
            let row = client.query_one(&digest, &[]).await.map_err(|error| error.to_string())?;
            Ok((row.get(0), row.get(1)))
        };
        let expected = of(&source).await.unwrap();
        until(&format!("{table} has its rows"), RECOVERY, async || {
            let found = of(&target).await;
            check(found == Ok(expected.clone()), found)
        })
        .await;
    }
    let peak = worker.peak_kib().unwrap();
    println!("peak memory {} MB", peak >> 10);
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}
