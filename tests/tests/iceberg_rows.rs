//! The Iceberg sink with `write_mode: upsert`: its table is the source's, row by row, as PyIceberg and
//! DuckDB read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdc_tests::chaos::seed;
use cdc_tests::judge;
use cdc_tests::lake::plain;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::iceberg::{CHANGES, ROWS, TABLE, rows};
use super::replica::{Load, workload};

/// Waits until both readers see the source's rows, each once.
pub(super) async fn is_the_source(
    pipeline: &Pipeline,
    source: &Client,
    select: &str,
    within: Duration,
) {
    until("the table is the source's", within, async || {
        let expected: Vec<String> = rows(source, select).await.into_iter().collect();
        let found = plain(&pipeline.change_log(&[]).await?);
        let differ = expected.iter().filter(|row| !found.contains(row)).take(2);
        let more = found.iter().filter(|row| !expected.contains(row)).take(2);
        let short = |text: &String| text.chars().take(300).collect::<String>();
        let differ: Vec<_> = differ.chain(more).map(short).collect();
        check(found == expected, format!("{} {} {differ:#?}", found.len(), expected.len()))?;
        Ok::<_, String>(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_the_sources_whatever_pyiceberg_does_to_it() {
    let mut pipeline = Pipeline::new("lakerows");
    let source = postgres::source_with(&pipeline, TABLE).await;
    pipeline.lake_of_rows("lake");
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("lake");
    let select = ROWS.replace("{id}", &pipeline.id);
    postgres::run(&source, &pipeline, "SET timezone = 'UTC'").await;
    is_the_source(&pipeline, &source, &select, SOON).await;
    postgres::run(&source, &pipeline, CHANGES).await;
    let moves = "UPDATE {id}.t SET id = id + 1000 WHERE id BETWEEN 20 AND 30;
        UPDATE {id}.t SET id = 2000, large = 'moved' WHERE id = 31;
        DELETE FROM {id}.t WHERE id = 1025;";
    postgres::run(&source, &pipeline, moves).await;
    is_the_source(&pipeline, &source, &select, SOON).await;

    // All rows in one file of another, whatever partitions they are of; then large values are to be
    // found in it, and its rows to be replaced.
    pipeline.foreign_rewrite("").await;
    let more = "UPDATE {id}.t SET small = 5 WHERE id % 3 = 0;
        DELETE FROM {id}.t WHERE id % 7 = 0;
        UPDATE {id}.t SET id = id + 5000 WHERE id % 5 = 0;";
    postgres::run(&source, &pipeline, more).await;
    is_the_source(&pipeline, &source, &select, SOON).await;

    // Rows that somebody took away come back with their next change.
    pipeline.foreign_rewrite("small = 5").await;
    worker.kill();
    worker = pipeline.worker("lake");
    postgres::run(&source, &pipeline, "UPDATE {id}.t SET large = 'again' WHERE small = 5").await;
    is_the_source(&pipeline, &source, &select, SOON).await;
    let end = judge::is_equal_of(&mut pipeline, "lake").await;
    assert_eq!(end["tables"][0]["notes"], json!([]), "{end:#}");
    drop(worker);
}

/// What the table keeps, the newest first.
async fn snapshots(pipeline: &mut Pipeline) -> Vec<Value> {
    let end = lake(pipeline, &["snapshots"]).await;
    end["lake"][0]["snapshots"].as_array().unwrap().clone()
}

/// `cdc lake …`: the end of its task.
async fn lake(pipeline: &mut Pipeline, line: &[&str]) -> Value {
    let mut words = vec!["lake", line[0], "FILE", "--sink", "lake", "--json"];
    words.extend(&line[1..]);
    let told = pipeline.cdc_ok(&words).await;
    let task: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(task["end"]["status"], "done", "{task:#}");
    task["end"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_kept_small_and_taken_back_by_command() {
    let mut pipeline = Pipeline::new("lakeupkeep");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text);
         INSERT INTO {id}.t SELECT i, i, 'snapshot' FROM generate_series(0, 99) AS i;",
    )
    .await;
    pipeline.lake_of_rows("lake");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("lake");
    let select = format!("SELECT id, n, name FROM {}.t", pipeline.id);
    is_the_source(&pipeline, &source, &select, SOON).await;
    for round in 0..7 {
        let change = format!(
            "UPDATE {{id}}.t SET n = n + 1 WHERE id < 40; \
             INSERT INTO {{id}}.t SELECT {round} * 100 + i, 0, 'new' FROM generate_series(100, 120) i"
        );
        postgres::run(&source, &pipeline, &change).await;
        is_the_source(&pipeline, &source, &select, SOON).await;
    }
    let before = snapshots(&mut pipeline).await;
    let done = lake(&mut pipeline, &["compact"]).await;
    let counts = &done["lake"][0]["counts"];
    let read = counts["read"].as_u64().unwrap();
    assert!(read >= 8 && read > 2 * counts["written"].as_u64().unwrap(), "{done:#}");
    assert!(counts["gone"].as_u64().unwrap() >= 7 * 40, "{done:#}");
    is_the_source(&pipeline, &source, &select, SOON).await;
    let joined = snapshots(&mut pipeline).await;
    assert_eq!(joined.len(), before.len() + 1);
    assert!(joined[0]["data_files"].as_u64() < before[0]["data_files"].as_u64(), "{joined:#?}");
    let more = "DELETE FROM {id}.t WHERE id % 3 = 0; UPDATE {id}.t SET name = 'later'";
    postgres::run(&source, &pipeline, more).await;
    is_the_source(&pipeline, &source, &select, SOON).await;

    // Back to before the changes: the sink delivers them again.
    let table = format!("{}.t", pipeline.id);
    let id = joined[0]["id"].to_string();
    lake(&mut pipeline, &["rollback", "--table", &table, "--to", &id]).await;
    postgres::run(&source, &pipeline, "INSERT INTO {id}.t VALUES (9999, 1, 'last')").await;
    is_the_source(&pipeline, &source, &select, SOON).await;

    lake(&mut pipeline, &["expire", "--older-than-hours", "0", "--keep", "1"]).await;
    assert_eq!(snapshots(&mut pipeline).await.len(), 1);
    let cleaned = lake(&mut pipeline, &["clean", "--older-than-hours", "1"]).await;
    assert_eq!(cleaned["lake"][0]["counts"]["orphans"], 0, "{cleaned:#}");
    is_the_source(&pipeline, &source, &select, SOON).await;
    let refused = pipeline.cdc(&["lake", "rollback", "FILE", "--sink", "lake", "--to", &id]).await;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("has no snapshot"), "{said}");
    assert_eq!(refused.status.code(), Some(70));
    judge::is_equal_of(&mut pipeline, "lake").await;
}

/// How long the workload runs and things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(150);

/// Of 300 rows many change their keys again and again, over partitions of two workers: that takes a
/// commit each time. So the workload has a pace.
const PACE: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_the_sources_whatever_is_killed() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut pipeline = Pipeline::new("lakechaos");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
         ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
         INSERT INTO {id}.t SELECT i, i, 'snapshot', repeat('x', 3000)
         FROM generate_series(0, 99) AS i;",
    )
    .await;
    pipeline.lake_of_rows("lake");
    // Files are joined and snapshots given up under all of it.
    pipeline.sink_mut("lake")["iceberg"]["maintenance"] =
        json!({"interval_seconds": 1, "snapshot_age_seconds": 0, "keep_snapshots": 2});
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut workers = [pipeline.worker("lake"), pipeline.worker("lake")];
    let table = format!("{}.t", pipeline.id);
    let select = format!("SELECT id, n, name, large FROM {table}");
    is_the_source(&pipeline, &source, &select, SOON).await;

    let stop = Arc::new(AtomicBool::new(false));
    let still = Arc::new(tokio::sync::Mutex::new(()));
    let load = Load { statements: 1..4, pace: Some(PACE), still: still.clone() };
    let working = tokio::spawn(workload(table.clone(), random.fork(), stop.clone(), load));
    let end = Instant::now() + CHAOS;
    while Instant::now() < end {
        if random.u32(..4) == 0 {
            // Against workers that commit several times a second PyIceberg never wins: it tries until
            // they have nothing left.
            let _still = still.lock().await;
            pipeline.foreign_rewrite("").await;
        } else {
            let place = random.usize(..2);
            workers[place].kill();
            workers[place] = pipeline.worker("lake");
        }
        tokio::time::sleep(Duration::from_millis(random.u64(300..3000))).await;
    }
    stop.store(true, Ordering::Relaxed);
    let transactions = working.await.unwrap();
    is_the_source(&pipeline, &source, &select, RECOVERY).await;
    // Upkeep goes on, and takes files away from under the comparison.
    judge::is_equal_of(&mut pipeline, "lake").await;
    assert!(transactions > 50, "{transactions}");
    let upkeep = until("upkeep has its say", SOON, async || {
        let kept = snapshots(&mut pipeline).await;
        check(kept.len() <= 4, format!("{} snapshots", kept.len()))?;
        Ok::<_, String>(kept)
    });
    assert!(upkeep.await.len() >= 2);
}
