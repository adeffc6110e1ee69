//! An Iceberg sink that is taken back while changes come and its workers are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc_tests::chaos::seed;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::wait::{check, until};
use serde_json::json;
use tokio_postgres::Client;

use super::iceberg::{has_every_event, leads_to, workload};
use super::iceberg_rows::is_the_source;
use super::replica::{self, Load};

const RECOVERY: Duration = Duration::from_secs(120);
/// Keys that change wait for commits of two workers.
const PACE: Duration = Duration::from_millis(60);
/// Steps back in one test.
const STEPS: usize = 6;

const TABLE: &str = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
    ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
    INSERT INTO {id}.t SELECT i, i, 'snapshot', repeat('x', 3000) FROM generate_series(0, 99) AS i;";

/// Waits until the sink has come as far: a step forward would leave changes out.
async fn is_past(pipeline: &mut Pipeline, line: &[&str]) {
    let line = [line, &["--dry-run"]].concat();
    until("the sink is past the target", RECOVERY, async || {
        let output = pipeline.cdc(&line).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_back = !said.contains("passed without delivery");
        check(output.status.success() && is_back, said)
    })
    .await;
}

/// Takes the sink back, now and then, to the beginning, to a time or to a place in the source's log,
/// and kills a worker over it. Gives the workers that are left.
async fn goes_back(
    pipeline: &mut Pipeline,
    source: &Client,
    random: &mut fastrand::Rng,
) -> [Process; 2] {
    let mut workers = [pipeline.worker("lake"), pipeline.worker("lake")];
    for step in 0..STEPS {
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
                   'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), pg_current_wal_insert_lsn()::text";
        let row = source.query_one(now, &[]).await.unwrap();
        let to: String = match step % 3 {
            0 => row.get(0),
            1 => "beginning".to_owned(),
            _ => row.get(1),
        };
        tokio::time::sleep(Duration::from_millis(random.u64(500..2500))).await;
        let line = ["rewind", "FILE", "--sink", "lake", "--to", &to];
        is_past(pipeline, &line).await;
        pipeline.command(&[&line[..], &["--yes"]].concat()).await;
        tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
        let place = random.usize(..2);
        workers[place].kill();
        workers[place] = pipeline.worker("lake");
    }
    workers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_log_once_after_steps_back_under_load() {
    let mut pipeline = Pipeline::new("lakeback");
    let source = postgres::source_with(&pipeline, TABLE).await;
    pipeline.events("db").await;
    pipeline.lake("lake");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _events = pipeline.worker("db");
    let mut random = fastrand::Rng::with_seed(seed());
    let stop = Arc::new(AtomicBool::new(false));
    let working = workload(format!("{}.t", pipeline.id), random.fork(), stop.clone());
    let working = tokio::spawn(working);
    let _workers = goes_back(&mut pipeline, &source, &mut random).await;
    stop.store(true, Ordering::Relaxed);
    working.await.unwrap();
    let select = format!("SELECT id, n, name, large FROM {}.t", pipeline.id);
    let log = leads_to(&pipeline, &source, &select, RECOVERY).await;
    let dry = ["rewind", "FILE", "--sink", "lake", "--to", "beginning", "--dry-run"];
    let said = pipeline.cdc_ok(&dry).await;
    assert!(said.contains("offsets come again)") && said.contains("first taken away"), "{said}");
    let found = has_every_event(&pipeline, &log).await;
    assert!(found > 150, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_the_sources_after_steps_back_under_load() {
    let mut pipeline = Pipeline::new("lakerowsback");
    let source = postgres::source_with(&pipeline, TABLE).await;
    pipeline.lake_of_rows("lake");
    // Files are joined and snapshots given up under all of it.
    pipeline.sink_mut("lake")["iceberg"]["maintenance"] =
        json!({"interval_seconds": 1, "snapshot_age_seconds": 0, "keep_snapshots": 2});
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut random = fastrand::Rng::with_seed(seed());
    let stop = Arc::new(AtomicBool::new(false));
    let load = Load { statements: 1..4, pace: Some(PACE), still: Arc::default() };
    let table = format!("{}.t", pipeline.id);
    let working = replica::workload(table, random.fork(), stop.clone(), load);
    let working = tokio::spawn(working);
    let _workers = goes_back(&mut pipeline, &source, &mut random).await;
    stop.store(true, Ordering::Relaxed);
    let transactions = working.await.unwrap();
    assert!(transactions > 50, "{transactions}");
    let select = format!("SELECT id, n, name, large FROM {}.t", pipeline.id);
    is_the_source(&pipeline, &source, &select, RECOVERY).await;
}
