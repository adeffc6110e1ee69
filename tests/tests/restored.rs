//! The target set back to an earlier state: the whole database, one table by another of its name,
//! or rows of a table in place.

use cdc_tests::kafka;
use cdc_tests::mirror::is_equal;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::stack::{Stack, unique};
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};
use tokio_postgres::Client;

/// A deployed pipeline whose mirror is in a database of its own.
struct Restorable {
    pipeline: Pipeline,
    source: Client,
    admin: Client,
    database: String,
    table: String,
    _coordinator: Process,
}

const BEFORE: &str = "INSERT INTO ID.t SELECT i, i, 'snapshot', repeat(md5(i::text), 150) \
                      FROM generate_series(1, 60) AS i";
/// What the target forgets: rows that come, change, keep a large value, go, and change their key.
const FORGOTTEN: &str = "INSERT INTO ID.t SELECT i, i, 'later', repeat(md5(i::text), 150) \
                         FROM generate_series(100, 119) AS i; \
                         UPDATE ID.t SET n = n + 1000 WHERE id BETWEEN 5 AND 20; \
                         UPDATE ID.t SET large = 'short' WHERE id IN (7, 8); \
                         DELETE FROM ID.t WHERE id BETWEEN 30 AND 39; \
                         UPDATE ID.t SET id = id + 1000 WHERE id BETWEEN 40 AND 45; \
                         INSERT INTO ID.t VALUES (35, 0, 'again', NULL)";
const AFTER: &str = "UPDATE ID.t SET n = -n WHERE id % 3 = 0; DELETE FROM ID.t WHERE id = 110; \
                     UPDATE ID.t SET id = id + 5000 WHERE id IN (9, 1041)";

impl Restorable {
    async fn new(name: &str, partitions: u32) -> Self {
        let mut pipeline = Pipeline::new(name);
        pipeline.config["kafka"]["topics"] = json!({"partitions": partitions});
        pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
        let (id, stack) = (pipeline.id.clone(), Stack::get());
        let source = postgres::source().await;
        let user = stack.value("SOURCE_USER");
        let create = format!(
            "CREATE SCHEMA {id} AUTHORIZATION {user}; SET ROLE {user};
             CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
             ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL"
        );
        source.batch_execute(&create).await.unwrap();
        source.batch_execute(&BEFORE.replace("ID", &id)).await.unwrap();
        let (admin, database) = (postgres::admin("postgres").await, unique("e2edb"));
        let owner = stack.value("TARGET_USER");
        let create = format!("CREATE DATABASE {database} OWNER {owner}");
        admin.batch_execute(&create).await.unwrap();
        pipeline.replica("mirror").sink_mut("mirror")["postgres"]["database"] = json!(database);
        pipeline.cdc_ok(&["deploy", "FILE"]).await;
        let coordinator = pipeline.serve();
        let table = format!("{id}.t");
        Self { pipeline, source, admin, database, table, _coordinator: coordinator }
    }

    async fn on_source(&self, sql: &str) {
        self.source.batch_execute(&sql.replace("ID", &self.pipeline.id)).await.unwrap();
    }

    async fn is_equal(&self) -> usize {
        let target = postgres::admin(&self.database).await;
        is_equal(&self.source, &target, &self.table, SOON).await
    }

    /// Ends what uses the database and keeps everybody out.
    async fn close(&self) {
        let name = &self.database;
        let close = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        self.admin.batch_execute(&close).await.unwrap();
        let end = format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        self.admin.batch_execute(&end).await.unwrap();
    }

    /// The database as it is, kept beside it.
    async fn back_up(&self) {
        self.close().await;
        let name = &self.database;
        let copy = format!("CREATE DATABASE {name}_old TEMPLATE {name}");
        self.admin.batch_execute(&copy).await.unwrap();
        let open = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
        self.admin.batch_execute(&open).await.unwrap();
    }

    /// The database as it was, under whoever uses it.
    async fn restore(&self) {
        self.close().await;
        let name = &self.database;
        self.admin.batch_execute(&format!("DROP DATABASE {name}")).await.unwrap();
        let rename = format!("ALTER DATABASE {name}_old RENAME TO {name}");
        self.admin.batch_execute(&rename).await.unwrap();
    }

    /// `cdc verify` or `cdc resync` of the mirror: its exit code and its end. Repeated until the
    /// coordinator leads and knows a live worker.
    async fn task(&mut self, name: &str) -> (i32, Value) {
        let line = [name, "FILE", "--sink", "mirror", "--json"];
        for _ in 0..400 {
            let output = self.pipeline.cdc(&line).await;
            let code = output.status.code().unwrap();
            if code != 75 {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let task: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
                    panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
                });
                return (code, task["end"].clone());
            }
            tokio::time::sleep(cdc_tests::wait::LOOK).await;
        }
        panic!("the coordinator never took the task");
    }

    async fn end(self, worker: Process) {
        drop(worker);
        for name in [self.database.clone(), format!("{}_old", self.database)] {
            let remove = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            self.admin.batch_execute(&remove).await.unwrap();
        }
    }
}

fn counts(end: &Value) -> (u64, u64, u64) {
    let count = |name: &str| end["tables"][0][name].as_u64().unwrap();
    (count("missing"), count("extra"), count("changed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_within_the_retention_is_right_again() {
    let mut this = Restorable::new("yester", 4).await;
    let mut worker = this.pipeline.worker("mirror");
    this.is_equal().await;
    for is_running in [true, false] {
        this.back_up().await;
        this.on_source(FORGOTTEN).await;
        this.is_equal().await;
        if is_running {
            this.restore().await;
            this.on_source(AFTER).await;
        } else {
            assert!(worker.drain().await.success(), "{}", worker.output());
            this.on_source(AFTER).await;
            this.restore().await;
            worker = this.pipeline.worker("mirror");
        }
        this.is_equal().await;
        assert!(worker.output().contains("behind itself"), "{}", worker.output());
        let (code, end) = this.task("verify").await;
        assert_eq!((code, counts(&end)), (0, (0, 0, 0)), "{end:#}");
        this.on_source("DELETE FROM ID.t").await;
        this.on_source(BEFORE).await;
        this.is_equal().await;
    }
    this.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_beyond_the_retention_stops_with_the_numbers() {
    let mut this = Restorable::new("beyond", 1).await;
    let topic = this.pipeline.topic();
    let worker = this.pipeline.worker("mirror");
    this.is_equal().await;
    let (_, before) = kafka::bounds(&topic, 0);
    this.pipeline.committed(0, before).await;
    this.back_up().await;
    this.on_source(FORGOTTEN).await;
    this.is_equal().await;
    let (_, high) = kafka::bounds(&topic, 0);
    this.pipeline.committed(0, high).await;
    kafka::delete_records_below(&topic, 0, high).await;
    this.restore().await;
    // Not of rows that came in the gap: their large values are gone with it.
    this.on_source("UPDATE ID.t SET n = -n WHERE id < 5").await;
    let hold = this.pipeline.held("mirror", "offset_gap").await;
    let message = hold["message"].as_str().unwrap();
    let gap = format!("offsets {before} to {} are gone", high - 1);
    assert!(message.contains(&gap) && message.contains(&high.to_string()), "{message}");
    let way_out = hold["way_out"].as_str().unwrap();
    assert!(way_out.contains("cdc rewind") && way_out.contains("cdc resync"), "{way_out}");
    // Nothing is put on top of the gap.
    let target = postgres::admin(&this.database).await;
    let rows = format!("SELECT count(*), min(n) FROM {}", this.table);
    let row = target.query_one(&rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (60, 1));
    drop(target);
    // The way out.
    let line =
        ["rewind", "FILE", "--yes", "--sink", "mirror", "--topic", &topic, "--to", "beginning"];
    this.pipeline.command(&line).await;
    let (code, end) = this.task("resync").await;
    assert_eq!((code, counts(&end)), (0, (0, 0, 0)), "{end:#}");
    this.is_equal().await;
    let (code, end) = this.task("verify").await;
    assert_eq!((code, counts(&end)), (0, (0, 0, 0)), "{end:#}");
    this.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_set_back_in_place_are_found_and_a_table_that_was_replaced_stops_by_name() {
    let mut this = Restorable::new("inplace", 4).await;
    let worker = this.pipeline.worker("mirror");
    this.is_equal().await;
    let target = postgres::admin(&this.database).await;
    let on_target = async |sql: &str| {
        target.batch_execute(&sql.replace("ID", &this.pipeline.id)).await.unwrap();
    };
    on_target("CREATE TABLE ID.kept AS TABLE ID.t").await;
    this.on_source(FORGOTTEN).await;
    this.is_equal().await;
    on_target("BEGIN; DELETE FROM ID.t; INSERT INTO ID.t TABLE ID.kept; COMMIT").await;
    // The sink cannot know; whoever looks sees each row.
    let (code, end) = this.task("verify").await;
    // 20 new ones, 6 new keys; 9 that went, 6 old keys; 16 that changed, and the one that came back.
    assert_eq!((code, counts(&end)), (1, (26, 15, 17)), "{end:#}");
    let (code, end) = this.task("resync").await;
    assert_eq!((code, counts(&end)), (0, (0, 0, 0)), "{end:#}");
    this.is_equal().await;

    let on_target = async |sql: &str| {
        target.batch_execute(&sql.replace("ID", &this.pipeline.id)).await.unwrap();
    };
    on_target(
        "BEGIN; DROP TABLE ID.kept; CREATE TABLE ID.kept AS TABLE ID.t; \
         CREATE TABLE ID.u (LIKE ID.t INCLUDING ALL); INSERT INTO ID.u TABLE ID.t; DROP TABLE ID.t; ALTER TABLE ID.u RENAME TO t; \
         ALTER TABLE ID.t OWNER TO CURRENT_USER; GRANT ALL ON ID.t TO PUBLIC; COMMIT",
    )
    .await;
    this.on_source(AFTER).await;
    let hold = this.pipeline.held("mirror", "table_replaced").await;
    let way_out = hold["way_out"].as_str().unwrap();
    assert!(way_out.contains("SET table_oid = NULL"), "{way_out}");
    let kept = "SELECT count(*) FROM (TABLE ID.t EXCEPT TABLE ID.kept) AS x";
    let differ: i64 =
        target.query_one(&kept.replace("ID", &this.pipeline.id), &[]).await.unwrap().get(0);
    assert_eq!(differ, 0, "nothing was written into it");
    // It is the right one: that is said, and the rest is put right.
    on_target("UPDATE ID.cdc_mirrors SET table_oid = NULL").await;
    this.pipeline.command(&["resume", "FILE", "--sink", "mirror"]).await;
    until("the sink goes on", SOON, async || {
        let health = this.pipeline.sink_health("mirror").await?;
        check(health["holds"].as_array().is_some_and(Vec::is_empty), health.to_string())
    })
    .await;
    let (code, end) = this.task("resync").await;
    assert_eq!((code, counts(&end)), (0, (0, 0, 0)), "{end:#}");
    this.is_equal().await;
    drop(target);
    this.end(worker).await;
}
