//! `consistency: transaction`: whoever looks at the mirror sees whole transactions of the source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cdc_tests::chaos::seed;
use cdc_tests::mirror::{is_equal, nothing_is_left};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;
use tokio_postgres::Client;

/// How long the rest may take once nothing goes wrong any more.
const RECOVERY: Duration = Duration::from_secs(120);
/// What all accounts hold together.
pub(crate) const TOTAL: i64 = 100_000;

/// Two tables of accounts; each transaction moves an amount from one to the other.
struct Bank {
    pipeline: Pipeline,
    source: Client,
    target: Client,
}

impl Bank {
    async fn new(name: &str) -> Self {
        let mut pipeline = Pipeline::new(name);
        let id = pipeline.id.clone();
        let tables = json!([format!("{id}.checking"), format!("{id}.saving")]);
        pipeline.config["source"]["tables"] = tables;
        pipeline.config["connector"]["exactly_once"] = json!(true);
        let source = postgres::source().await;
        let user = Stack::get().value("SOURCE_USER");
        let create = format!(
            "CREATE SCHEMA {id} AUTHORIZATION {user}; SET ROLE {user};
             CREATE TABLE {id}.checking (id bigint PRIMARY KEY, amount bigint, note text);
             CREATE TABLE {id}.saving (id bigint PRIMARY KEY, amount bigint, note text);
             ALTER TABLE {id}.checking ALTER note SET STORAGE EXTERNAL;
             INSERT INTO {id}.checking SELECT i, 1000, repeat(md5(i::text), 120)
             FROM generate_series(1, 100) AS i;
             INSERT INTO {id}.saving SELECT i, 0, NULL FROM generate_series(1, 50) AS i;"
        );
        source.batch_execute(&create).await.unwrap();
        pipeline.replica("mirror");
        pipeline.sink_mut("mirror")["postgres"]["consistency"] = json!("transaction");
        Self { pipeline, source, target: postgres::target().await }
    }

    async fn deployed(name: &str) -> Self {
        let mut bank = Self::new(name).await;
        bank.pipeline.cdc_ok(&["deploy", "FILE"]).await;
        bank
    }

    async fn is_equal(&self, within: Duration) {
        for table in ["checking", "saving"] {
            let table = format!("{}.{table}", self.pipeline.id);
            is_equal(&self.source, &self.target, &table, within).await;
        }
    }

    async fn on_source(&self, sql: &str) {
        self.source.batch_execute(&sql.replace("ID", &self.pipeline.id)).await.unwrap();
    }
}

/// What the accounts hold together, in one look at the mirror.
pub(crate) async fn sum(target: &Client, id: &str) -> i64 {
    let sql = format!(
        "SELECT ((SELECT sum(amount) FROM {id}.checking) + (SELECT sum(amount) FROM {id}.saving)) \
         ::bigint"
    );
    target.query_one(&sql, &[]).await.unwrap().get(0)
}

/// Looks at the mirror until it is told to stop; gives the number of looks.
pub(crate) async fn watch(id: String, stop: Arc<AtomicBool>, looks: Arc<AtomicU64>) {
    let target = postgres::target().await;
    while !stop.load(Ordering::Relaxed) {
        let found = sum(&target, &id).await;
        assert_eq!(found, TOTAL, "the mirror shows a part of a transaction");
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Moves amounts until it is told to stop: updates in both tables, rows that go and come with their
/// amount, and accounts that change their number.
async fn work(id: String, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let source = postgres::source().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    // As many, and as few waits for the disk, as a busy machine of the tests can keep up with.
    source.batch_execute("SET synchronous_commit = off").await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (from, to, n) = (random.i64(1..=100), random.i64(1..=50), random.i64(1..=50));
        let statements = match random.u32(..8) {
            0 => format!(
                "WITH gone AS (DELETE FROM {id}.saving WHERE id = {to} RETURNING amount) \
                 UPDATE {id}.checking SET amount = amount + (SELECT amount FROM gone) \
                 WHERE id = (SELECT min(id) FROM {id}.checking) AND EXISTS (SELECT FROM gone)"
            ),
            1 => format!(
                "UPDATE {id}.checking SET id = id + 1000 WHERE id IN ({from}, {to}); \
                 UPDATE {id}.checking SET id = id - 1000, amount = amount - {n} WHERE id BETWEEN 1001 AND 1100; \
                 INSERT INTO {id}.saving SELECT 100 + {to}, \
                 {n} * (SELECT count(DISTINCT x) FROM (VALUES ({from}), ({to})) AS v(x) \
                 WHERE x IN (SELECT id FROM {id}.checking)) \
                 ON CONFLICT (id) DO UPDATE SET amount = saving.amount + EXCLUDED.amount"
            ),
            _ => format!(
                "UPDATE {id}.checking SET amount = amount - {n} WHERE id = {from}; \
                 INSERT INTO {id}.saving SELECT {to}, {n} WHERE EXISTS \
                 (SELECT FROM {id}.checking WHERE id = {from}) \
                 ON CONFLICT (id) DO UPDATE SET amount = saving.amount + EXCLUDED.amount"
            ),
        };
        let end = if random.u32(..6) == 0 { "ROLLBACK" } else { "COMMIT" };
        source.batch_execute(&format!("BEGIN; {statements}; {end}")).await.unwrap();
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sum_over_two_tables_is_right_at_every_look_whatever_is_killed() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut bank = Bank::deployed("bank").await;
    let _coordinator = bank.pipeline.serve();
    let mut workers = [bank.pipeline.worker("mirror"), bank.pipeline.worker("mirror")];
    bank.is_equal(RECOVERY).await;
    until("transactions are whole", SOON, async || {
        let logs = workers.each_ref().map(Process::output);
        check(logs.iter().any(|log| log.contains("pipeline.transactions_whole")), logs)
    })
    .await;
    assert_eq!(sum(&bank.target, &bank.pipeline.id).await, TOTAL);

    let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let id = bank.pipeline.id.clone();
    let watching = tokio::spawn(watch(id.clone(), stop.clone(), looks.clone()));
    let done = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(work(id.clone(), random.u64(..), done.clone()));
    let end = Instant::now() + Duration::from_secs(20);
    let mut frozen: [Option<Instant>; 2] = [None; 2];
    while Instant::now() < end {
        let place = random.usize(..2);
        match random.u32(..3) {
            0 | 1 => {
                workers[place].kill();
                workers[place] = bank.pipeline.worker("mirror");
                frozen[place] = None;
            }
            _ => {
                workers[place].freeze();
                let during = Duration::from_millis(random.u64(100..4000));
                frozen[place] = Some(Instant::now() + during);
            }
        }
        let pause = Instant::now() + Duration::from_millis(random.u64(1000..5000));
        while Instant::now() < pause {
            for (worker, until) in workers.iter().zip(&mut frozen) {
                if until.is_some_and(|until| until <= Instant::now()) {
                    worker.thaw();
                    *until = None;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!watching.is_finished(), "{:?}", watching.await);
        }
    }
    workers.iter().for_each(Process::thaw);
    done.store(true, Ordering::Relaxed);
    println!("{} transactions", working.await.unwrap());
    bank.is_equal(RECOVERY).await;
    stop.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    let looks = looks.load(Ordering::Relaxed);
    println!("{looks} looks");
    assert!(looks > 100, "{looks}");
    // Both halves of a change of a key are in one transaction.
    nothing_is_left(&bank.pipeline.id, &bank.target).await;
    let line = ["verify", "FILE", "--sink", "mirror"];
    bank.pipeline.command(&line).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_memory_waits_on_disk_and_is_visible_at_once() {
    let mut bank = Bank::new("huge").await;
    let spill = bank.pipeline.dir().join("spill");
    std::fs::create_dir(&spill).unwrap();
    bank.pipeline.config["max_buffered_bytes"] = json!(65_536);
    bank.pipeline.config["max_buffered_messages"] = json!(100);
    bank.pipeline.sink_mut("mirror")["postgres"]["spill_directory"] = json!(spill);
    bank.pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = bank.pipeline.serve();
    let mut worker = bank.pipeline.worker("mirror");
    bank.is_equal(RECOVERY).await;
    let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let id = bank.pipeline.id.clone();
    let watching = tokio::spawn(watch(id.clone(), stop.clone(), looks));
    bank.on_source(
        "BEGIN; INSERT INTO ID.checking SELECT i, 1, repeat('x', 200) \
         FROM generate_series(1001, 21000) AS i; \
         UPDATE ID.saving SET amount = amount - 400; COMMIT; \
         BEGIN; DELETE FROM ID.checking WHERE id BETWEEN 2001 AND 4000; \
         UPDATE ID.saving SET amount = amount + 40; COMMIT",
    )
    .await;
    bank.is_equal(RECOVERY).await;
    // Killed in the middle of such a one.
    bank.on_source(
        "BEGIN; UPDATE ID.checking SET amount = amount + 1 WHERE id > 4000; \
         UPDATE ID.saving SET amount = amount - 340; COMMIT",
    )
    .await;
    worker.kill();
    let worker = bank.pipeline.worker("mirror");
    bank.is_equal(RECOVERY).await;
    stop.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    assert_eq!(sum(&bank.target, &id).await, TOTAL);
    let peak = worker.peak_kib().unwrap();
    assert!(peak < 200_000, "{peak} KiB");
    assert_eq!(std::fs::read_dir(spill).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_eventual_to_transaction_and_back_nothing_is_lost() {
    let mut bank = Bank::new("switch").await;
    let metadata = json!({"provide.transaction.metadata": "true"});
    bank.pipeline.config["source"]["connector_properties"] = metadata;
    bank.pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = bank.pipeline.serve();
    let stop = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(work(bank.pipeline.id.clone(), seed(), stop.clone()));
    let modes = ["eventual", "transaction", "eventual", "transaction"];
    for (round, mode) in modes.into_iter().enumerate() {
        bank.pipeline.sink_mut("mirror")["postgres"]["consistency"] = json!(mode);
        let mut worker = bank.pipeline.worker("mirror");
        bank.on_source(&format!("INSERT INTO ID.checking VALUES ({}, 0, '{mode}')", 5000 + round))
            .await;
        let arrived =
            format!("SELECT count(*) FROM {}.checking WHERE id >= 5000", bank.pipeline.id);
        until("what came in this mode is in the mirror", RECOVERY, async || {
            let row = bank.target.query_one(&arrived, &[]).await.map_err(|e| e.to_string())?;
            check(row.get::<_, i64>(0) == round as i64 + 1, row.get::<_, i64>(0).to_string())
        })
        .await;
        if mode == "transaction" {
            until("transactions are whole", RECOVERY, async || {
                let log = worker.output();
                check(log.contains("pipeline.transactions_whole"), log)
            })
            .await;
        }
        assert!(worker.drain().await.success(), "{}", worker.output());
    }
    stop.store(true, Ordering::Relaxed);
    working.await.unwrap();
    let _worker = bank.pipeline.worker("mirror");
    bank.is_equal(RECOVERY).await;
}
