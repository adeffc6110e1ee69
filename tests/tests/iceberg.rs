//! The Iceberg sink: what Debezium captures is in the table once, and PyIceberg and DuckDB read it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdc_tests::lake::{events, state};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::wait::{SOON, check, until};
use serde_json::Value;
use tokio_postgres::Client;

/// The source's rows, as the readers print theirs.
pub(super) async fn rows(source: &Client, select: &str) -> BTreeSet<String> {
    let rows = source.query(&format!("SELECT to_jsonb(r)::text FROM ({select}) AS r"), &[]).await;
    let texts = rows.unwrap().into_iter().map(|row| row.get::<_, String>(0));
    texts.map(|text| serde_json::from_str::<Value>(&text).unwrap().to_string()).collect()
}

/// Waits until the change log leads to the source's rows, and gives it.
pub(super) async fn leads_to(
    pipeline: &Pipeline,
    source: &Client,
    select: &str,
    within: Duration,
) -> Vec<Value> {
    until("the change log leads to the source's rows", within, async || {
        let expected = rows(source, select).await;
        let log = pipeline.change_log(&[]).await?;
        let found = state(&log, "id");
        let differ: Vec<_> = expected.symmetric_difference(&found).take(4).cloned().collect();
        let short = |text: &String| text.chars().take(900).collect::<String>();
        let differ = differ.iter().map(short).collect::<Vec<_>>();
        check(differ.is_empty(), format!("{} rows, {differ:#?}", found.len()))?;
        Ok::<_, String>(log)
    })
    .await
}

/// A column of most types.
pub(super) const TABLE: &str = r#"CREATE TABLE {id}.t (
        id bigint PRIMARY KEY, "My Note" text DEFAULT 'hello', price numeric(12, 2),
        exact numeric, flag boolean, small smallint, ratio double precision, single real,
        day date, clock time, at timestamptz(3), local timestamp, data bytea, doc jsonb,
        tags text[], prices numeric(8, 3)[], token uuid, address inet, amount money,
        mask bit(10), span interval, large text);
    ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
    INSERT INTO {id}.t (id, large) SELECT n, repeat('x', 5000)
    FROM generate_series(1, 50) AS n;"#;

/// One change or another of each kind.
pub(super) const CHANGES: &str = r#"BEGIN; DELETE FROM {id}.t WHERE id = 40; ROLLBACK;
    INSERT INTO {id}.t VALUES (100, NULL, 12.30, 1.50000000000000000000000000000000000000001,
        true, -3, 0.1, 1.5, '2024-02-29', '23:59:59.999999', '2024-02-29 12:00:00.123+02',
        '1999-12-31 23:59:59.999999', '\x00ff', '{"a": 1.50, "b": [null]}',
        '{a,NULL,"b c"}', '{1.5,NULL,-99999.999}', '4d9bd6c9-9a8c-4fd5-9bb6-1f0fa5a1f0e1',
        '10.0.0.0/8', -12.34, B'0000000101', '1 year 2 days', repeat('large ', 2000)),
        (101, '', -9999999999.99, 'NaN', false, 32767, -1e300, 'NaN', '0044-03-15', '00:00',
        '9999-12-31 23:59:59.999+00', '0001-01-01', '', 'null', '{}', '{}', NULL, '::1',
        0, B'1111111111', '-3 hours', '');
    UPDATE {id}.t SET small = id WHERE id <= 20;
    UPDATE {id}.t SET large = 'new' WHERE id IN (3, 4);
    UPDATE {id}.t SET "My Note" = NULL, large = repeat('y', 9000) WHERE id = 5;
    DELETE FROM {id}.t WHERE id BETWEEN 6 AND 9;
    INSERT INTO {id}.t (id) VALUES (6), (7);"#;

/// The rows, with what has no type of its own in Iceberg as its text there.
pub(super) const ROWS: &str = r#"SELECT id, "My Note", price::text, exact::text, flag, small, ratio, single, day, clock,
    at, local, data, doc::text, tags, prices::text[], token, address,
    amount::numeric::text AS amount, mask::text, large, CASE WHEN span IS NOT NULL THEN
    format('P%sY%sM%sDT%sH%sM%sS', extract(year FROM span), extract(month FROM span),
    extract(day FROM span), extract(hour FROM span), extract(minute FROM span),
    extract(second FROM span)::int) END AS span FROM {id}.t"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_change_log_has_the_sources_values_and_types() {
    let mut pipeline = Pipeline::new("lake");
    let source = postgres::source_with(&pipeline, TABLE).await;
    pipeline.lake("lake");
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("lake");
    let select = ROWS.replace("{id}", &pipeline.id);
    postgres::run(&source, &pipeline, "SET timezone = 'UTC'").await;
    // The changes are to be read from the log of the source, not from its snapshot.
    leads_to(&pipeline, &source, &select, SOON).await;
    postgres::run(&source, &pipeline, CHANGES).await;
    leads_to(&pipeline, &source, &select, SOON).await;

    // Whoever shares the catalog commits too, and expires our snapshots: what it added stays, and
    // we go on behind it.
    pipeline.foreign_commits().await;
    postgres::run(&source, &pipeline, "UPDATE {id}.t SET small = 77 WHERE id = 1").await;
    let mut log = until("the change behind a foreign commit", SOON, async || {
        let log = pipeline.change_log(&[]).await?;
        let last = log.iter().any(|row| row["small"] == 77 && row["by_hand"].is_null());
        check(last, log.len().to_string())?;
        Ok::<_, String>(log)
    })
    .await;
    let foreign = |row: &Value| row["_cdc_op"].is_null();
    assert_eq!(log.iter().filter(|row| foreign(row)).count(), 1);
    log.retain(|row| !foreign(row));

    checks_events(&log);
}

/// Every event once, deletes with their key.
fn checks_events(log: &[Value]) {
    let deletes: BTreeSet<_> =
        log.iter().filter(|row| row["_cdc_op"] == "d").map(|row| row["id"].as_i64()).collect();
    assert_eq!(deletes, (6..=9).map(Some).collect(), "deletes have their key");
    let positions = events(log);
    let distinct: BTreeSet<_> = positions.iter().copied().collect();
    assert_eq!(
        (positions.len(), distinct.len()),
        (50 + 2 + 20 + 2 + 1 + 4 + 2 + 1, positions.len())
    );
}

/// How long the workload runs and workers are killed.
const CHAOS: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(120);

/// Transactions until it is told to stop, every fifth rolled back.
pub(super) async fn workload(table: String, mut random: fastrand::Rng, stop: Arc<AtomicBool>) {
    let source = postgres::source().await;
    source.batch_execute("SET synchronous_commit = off").await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (id, n) = (random.i64(0..300), random.i32(0..));
        let statement = match random.u32(..6) {
            0..=2 => format!(
                "INSERT INTO {table} VALUES ({id}, {n}, 'new {n}', repeat(md5('{n}'), 150)) \
                 ON CONFLICT DO NOTHING"
            ),
            3 => format!("UPDATE {table} SET n = {n} WHERE id BETWEEN {id} AND {id} + 20"),
            4 => format!("UPDATE {table} SET large = repeat(md5('{n}'), 200) WHERE id = {id}"),
            _ => format!("DELETE FROM {table} WHERE id = {id}"),
        };
        let end = if random.u32(..5) == 0 { "ROLLBACK" } else { "COMMIT" };
        source.batch_execute(&format!("BEGIN; {statement}; {end}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_log_once_whatever_is_killed() {
    let mut pipeline = Pipeline::new("lakekill");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
         ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
         INSERT INTO {id}.t SELECT i, i, 'snapshot', repeat('x', 3000)
         FROM generate_series(0, 99) AS i;",
    )
    .await;
    pipeline.events("db").await;
    pipeline.lake("lake");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _events = pipeline.worker("db");
    let mut workers = [pipeline.worker("lake"), pipeline.worker("lake")];
    let table = format!("{}.t", pipeline.id);

    let mut random = fastrand::Rng::new();
    let stop = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(workload(table.clone(), random.fork(), stop.clone()));
    let end = Instant::now() + CHAOS;
    while Instant::now() < end {
        let place = random.usize(..2);
        workers[place].kill();
        workers[place] = pipeline.worker("lake");
        tokio::time::sleep(Duration::from_millis(random.u64(300..4000))).await;
    }
    stop.store(true, Ordering::Relaxed);
    working.await.unwrap();

    let select = format!("SELECT id, n, name, large FROM {table}");
    let log = leads_to(&pipeline, &source, &select, RECOVERY).await;
    let found = has_every_event(&pipeline, &log).await;
    assert!(found > 150, "{found}");
}

/// The log has every event that the events sink has, and each once. Gives how many.
pub(super) async fn has_every_event(pipeline: &Pipeline, log: &[Value]) -> usize {
    let found = events(log);
    until("the events table has as many", RECOVERY, async || {
        let expected = pipeline.rows().await;
        check(found == expected, (found.len(), expected.len()))
    })
    .await;
    found.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_log_has_each_row_in_its_partition() {
    let mut pipeline = Pipeline::new("lakepart");
    let source = postgres::source_with(&pipeline, TABLE).await;
    pipeline.lake("lake");
    pipeline.sink_mut("lake")["iceberg"]["partition_by"] = serde_json::json!([
        "bucket(3, id)",
        "day(at)",
        "truncate(2, My Note)",
        "truncate(100, price)",
        "flag",
        "year(day)",
        "bucket(2, token)",
    ]);
    pipeline.cdc_ok(&["validate", "FILE"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("lake");
    let select = ROWS.replace("{id}", &pipeline.id);
    postgres::run(&source, &pipeline, "SET timezone = 'UTC'").await;
    leads_to(&pipeline, &source, &select, SOON).await;
    postgres::run(&source, &pipeline, CHANGES).await;
    postgres::run(&source, &pipeline, "UPDATE {id}.t SET small = 77 WHERE id = 1").await;
    let log = leads_to(&pipeline, &source, &select, SOON).await;
    checks_events(&log);
    let partitions = pipeline.partitions().await.unwrap();
    let (fields, count) = partitions.rsplit_once(' ').unwrap();
    assert_eq!(
        fields,
        "id_bucket bucket[3], at_day day, My_Note_trunc truncate[2], price_trunc truncate[100], \
         flag identity, day_year year, token_bucket bucket[2]"
    );
    assert!(count.parse::<usize>().unwrap() >= 5, "{partitions}");
}
