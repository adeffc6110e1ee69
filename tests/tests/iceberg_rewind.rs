//! An Iceberg sink that is taken back while changes come and its workers are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc_tests::chaos::seed;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use tokio_postgres::Client;

use super::iceberg::{has_every_event, leads_to, workload};

const RECOVERY: Duration = Duration::from_secs(120);
/// Steps back in one test.
const STEPS: usize = 6;

const TABLE: &str = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
    ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
    INSERT INTO {id}.t SELECT i, i, 'snapshot', repeat('x', 3000) FROM generate_series(0, 99) AS i;";

/// Takes the sink back, now and then, to the beginning, to a time or to a place in the source's log,
/// and kills a worker over it. Gives the workers that are left.
async fn goes_back_under_load(
    pipeline: &mut Pipeline,
    source: &Client,
    mut random: fastrand::Rng,
) -> [Process; 2] {
    let mut workers = [pipeline.worker("lake"), pipeline.worker("lake")];
    let stop = Arc::new(AtomicBool::new(false));
    let table = format!("{}.t", pipeline.id);
    let working = tokio::spawn(workload(table, random.fork(), stop.clone()));
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
        pipeline.command(&["rewind", "FILE", "--yes", "--sink", "lake", "--to", &to]).await;
        tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
        let place = random.usize(..2);
        workers[place].kill();
        workers[place] = pipeline.worker("lake");
    }
    stop.store(true, Ordering::Relaxed);
    working.await.unwrap();
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
    let random = fastrand::Rng::with_seed(seed());
    let _workers = goes_back_under_load(&mut pipeline, &source, random).await;
    let select = format!("SELECT id, n, name, large FROM {}.t", pipeline.id);
    let log = leads_to(&pipeline, &source, &select, RECOVERY).await;
    let found = has_every_event(&pipeline, &log).await;
    assert!(found > 150, "{found}");
}
