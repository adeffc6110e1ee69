//! `cdc verify`: finds what differs between source and mirror, while both live.

use std::sync::Arc;
use std::time::Duration;

use cdc_tests::judge::{self, outcome};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::{Process, binary};
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};
use tokio_postgres::Client;

/// A deployed pipeline with a mirror of its table, and connections to both databases.
struct Mirrored {
    pipeline: Pipeline,
    source: Client,
    target: Client,
    table: String,
}

impl Mirrored {
    async fn new(name: &str, rows: u32) -> Self {
        let mut pipeline = Pipeline::new(name);
        // A slot moves with the connector's heartbeats.
        pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
        let statements = format!(
            "CREATE TABLE {{id}}.t (id bigint PRIMARY KEY, name text, amount numeric(12, 2),
                 at timestamptz, doc jsonb);
             INSERT INTO {{id}}.t SELECT i, 'name ' || i, i, '2024-01-01', '{{\"i\": 1}}'
             FROM generate_series(1, {rows}) i;"
        );
        let source = postgres::source_with(&pipeline, &statements).await;
        let target = postgres::target().await;
        pipeline.replica("mirror");
        pipeline.cdc_ok(&["deploy", "FILE"]).await;
        let table = format!("{}.t", pipeline.id);
        Self { pipeline, source, target, table }
    }

    async fn on_source(&self, sql: &str) {
        self.source.batch_execute(&sql.replace("TABLE", &self.table)).await.unwrap();
    }

    async fn on_target(&self, sql: &str) {
        self.target.batch_execute(&sql.replace("TABLE", &self.table)).await.unwrap();
    }

    async fn verify(&mut self, more: &[&str]) -> (i32, Value) {
        judge::verify(&mut self.pipeline, more).await
    }

    /// Waits until the coordinator leads and knows a live worker, and the mirror is equal.
    async fn is_equal(&mut self) -> Value {
        judge::is_equal(&mut self.pipeline).await
    }
}

fn counts(end: &Value) -> (u64, u64, u64) {
    let count = |name: &str| end["tables"][0][name].as_u64().unwrap();
    (count("missing"), count("extra"), count("changed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_what_was_planted_while_the_source_is_written() {
    let mut mirrored = Mirrored::new("verify", 3000).await;
    let _coordinator = mirrored.pipeline.serve();
    let mut workers = vec![mirrored.pipeline.worker("mirror"), mirrored.pipeline.worker("mirror")];

    // The planted rows are never written.
    let writer = tokio::spawn(postgres::writes(mirrored.table.clone(), Arc::default()));
    let end = mirrored.is_equal().await;
    assert!(end["tables"][0]["rows"].as_u64().unwrap() > 2500, "{end:#}");

    mirrored.on_target("DELETE FROM TABLE WHERE id = 1001").await;
    mirrored.on_target("INSERT INTO TABLE (id, name) VALUES (9001, 'ghost')").await;
    mirrored.on_target("UPDATE TABLE SET at = at + '1 microsecond' WHERE id = 1002").await;
    mirrored.on_target("UPDATE TABLE SET name = '', doc = NULL WHERE id = 1003").await;
    let table = mirrored.table.clone();
    let (code, end) = mirrored.verify(&["--table", &table, "--show-values"]).await;
    assert_eq!((code, counts(&end)), (1, (1, 1, 2)), "{end:#}");
    let shown = end.to_string();
    assert!(shown.contains("2024-01-01 00:00:00.000001+00"), "{end:#}");

    // The sweep removes the ghost; a snapshot writes the rest anew. Debezium's read-only snapshot
    // may take minutes while the table is written without a pause, or fail.
    writer.abort();
    let line = ["resync", "FILE", "--sink", "mirror", "--table", &table, "--json"];
    let (code, end) = outcome(&mirrored.pipeline.cdc(&line).await);
    assert_eq!((code, counts(&end)), (0, (0, 0, 0)), "{end:#}");
    let list = mirrored.pipeline.cdc_ok(&["task", "list", "FILE"]).await;
    assert!(list.contains("verify-") && list.contains("resync-"), "{list}");
    for worker in &mut workers {
        assert!(worker.is_running());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_its_worker_and_can_be_called_off() {
    let mut mirrored = Mirrored::new("tasks", 200).await;
    let _coordinator = mirrored.pipeline.serve();
    let mut first = mirrored.pipeline.worker("mirror");
    mirrored.is_equal().await;

    // The table is locked in the mirror, so that the task hangs in the middle.
    let blocker = postgres::target().await;
    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", mirrored.table);
    blocker.batch_execute(&lock).await.unwrap();
    let mut watched = start_verify(&mirrored.pipeline, &[]);
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND application_name = 'cdc-worker/verify')";
    until("the task waits for the lock", SOON, async || {
        let waits: bool = mirrored.target.query_one(waits, &[]).await.unwrap().get(0);
        check(waits, mirrored.pipeline.dir().display().to_string())
    })
    .await;
    first.kill();
    let mut second = mirrored.pipeline.worker("mirror");
    blocker.batch_execute("COMMIT").await.unwrap();
    let status = watched.ended("the other worker does the task", Duration::from_secs(90)).await;
    assert_eq!(status.code(), Some(0), "{}", watched.output());
    assert!(watched.output().contains("equal (200 rows"), "{}", watched.output());

    // A position that is never reached: the sink is paused.
    mirrored.pipeline.command(&["pause", "FILE", "--sink", "mirror"]).await;
    mirrored.on_source("INSERT INTO TABLE (id, name) VALUES (5000, 'later')").await;
    let (code, end) = mirrored.verify(&["--timeout", "15"]).await;
    assert_eq!(code, 3, "{end:#}");
    assert!(end["message"].as_str().unwrap().contains("the sink is at"), "{end:#}");

    let mut watched = start_verify(&mirrored.pipeline, &["--timeout", "600"]);
    let mut id = String::new();
    until("the task is posted", SOON, async || {
        let output = watched.output();
        let found = output.split_whitespace().find(|word| word.starts_with("verify-"));
        id = found.ok_or_else(|| output.clone())?.to_owned();
        Ok::<_, String>(())
    })
    .await;
    mirrored.pipeline.cdc_ok(&["task", "cancel", &id, "FILE", "--sink", "mirror"]).await;
    let status = watched.ended("the task called off ends", SOON).await;
    assert_eq!(status.code(), Some(75), "{}", watched.output());
    assert!(second.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_the_worker_program_does_it_and_beside_one_it_refuses() {
    let mut mirrored = Mirrored::new("direct", 100).await;
    let _coordinator = mirrored.pipeline.serve();
    let mut worker = mirrored.pipeline.worker("mirror");
    mirrored.is_equal().await;
    let (code, said) = direct(&mirrored.pipeline, &[]).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("has members"), "{said}");
    let output = mirrored.pipeline.cdc(&["verify", "FILE", "--sink", "nothing"]).await;
    assert_eq!(output.status.code(), Some(65));
    let output =
        mirrored.pipeline.cdc(&["verify", "FILE", "--sink", "mirror", "--table", "no.t"]).await;
    assert_eq!(output.status.code(), Some(64));

    worker.drain().await;
    let (code, said) = direct(&mirrored.pipeline, &[]).await;
    assert_eq!(code, 0, "{said}");
    mirrored.on_target("UPDATE TABLE SET amount = amount + 0.01 WHERE id = 7").await;
    let (code, said) = direct(&mirrored.pipeline, &["--show-values"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(r#"differs id="7": amount "7.00" → "7.01""#), "{said}");
    // Nobody delivers this.
    mirrored.on_source("DELETE FROM TABLE WHERE id = 1").await;
    let (code, said) = direct(&mirrored.pipeline, &["--timeout", "3"]).await;
    assert_eq!(code, 3, "{said}");

    let health = "the coordinator knows that the worker is gone";
    until(health, SOON, async || {
        let output = mirrored.pipeline.cdc(&["verify", "FILE", "--sink", "mirror"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        check(output.status.code() == Some(75) && said.contains("cdc-worker verify"), said)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_records_were_rejected_or_skipped_are_told_apart() {
    let mut mirrored = Mirrored::new("givenup", 10).await;
    mirrored.pipeline.sink_mut("mirror")["on_reject"] = json!("dlq");
    let _coordinator = mirrored.pipeline.serve();
    let mut worker = mirrored.pipeline.worker("mirror");
    mirrored.is_equal().await;
    // A rule that only the mirror has.
    let rule = format!("ALTER TABLE {} ADD CHECK (name <> 'bad')", mirrored.table);
    mirrored.target.batch_execute(&rule).await.unwrap();
    mirrored.on_source("INSERT INTO TABLE (id, name) VALUES (11, 'bad')").await;
    mirrored.on_source("UPDATE TABLE SET name = 'bad' WHERE id = 5").await;
    mirrored.on_source("UPDATE TABLE SET name = 'after' WHERE id = 6").await;
    mirrored.on_target("DELETE FROM TABLE WHERE id = 7").await;
    let (code, end) = mirrored.verify(&[]).await;
    assert_eq!((code, counts(&end)), (1, (1, 0, 0)), "{end:#}");
    assert_eq!(given_up(&end), ["11", "5"], "{end:#}");

    // The same of a record that an operator gave up, and with nothing else wrong.
    worker.drain().await;
    mirrored.on_target("INSERT INTO TABLE SELECT 7, 'name 7', 7, '2024-01-01', '{\"i\": 1}'").await;
    mirrored.pipeline.sink_mut("mirror")["on_reject"] = json!("stop");
    let _worker = mirrored.pipeline.worker("mirror");
    mirrored.on_source("INSERT INTO TABLE (id, name) VALUES (12, 'bad')").await;
    let hold = mirrored.pipeline.held("mirror", "rejected_record").await;
    let (partition, offset) = (hold["partition"].to_string(), hold["offset"].to_string());
    let table = mirrored.table.clone();
    let skip = ["skip", "FILE", "--sink", "mirror", "--table", &table, "--partition", &partition];
    mirrored
        .pipeline
        .command(&[&skip[..], &["--offset", &offset, "--reason", "bad"]].concat())
        .await;
    let (code, end) = mirrored.verify(&[]).await;
    assert_eq!((code, counts(&end)), (1, (0, 0, 0)), "{end:#}");
    assert_eq!(given_up(&end), ["11", "12", "5"], "{end:#}");
    assert!(end["message"].as_str().unwrap().contains("rejected or skipped"), "{end:#}");

    // A later record puts a row right, whatever was rejected before.
    mirrored.on_source("UPDATE TABLE SET name = 'good' WHERE id IN (5, 11, 12)").await;
    mirrored.is_equal().await;
}

/// Keys of the rows whose records were given up, sorted as texts.
fn given_up(end: &Value) -> Vec<String> {
    let report = &end["tables"][0];
    let differences = report["differences"].as_array().unwrap().iter();
    let mut keys: Vec<String> = differences
        .filter(|difference| difference["kind"] == "given_up")
        .map(|difference| difference["key"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    keys.sort();
    assert_eq!(report["given_up"], keys.len(), "{report:#}");
    keys
}

fn start_verify(pipeline: &Pipeline, more: &[&str]) -> Process {
    let file = pipeline.file().display().to_string();
    let mut arguments = vec!["verify", &file, "--sink", "mirror"];
    arguments.extend(more);
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let log = pipeline.dir().join(format!("verify-{}.log", more.len()));
    Process::start(&binary("cdc"), &arguments, log)
}

/// `cdc-worker verify`: its exit code, and all that it printed.
async fn direct(pipeline: &Pipeline, more: &[&str]) -> (i32, String) {
    let file = pipeline.file().display().to_string();
    let mut arguments = vec!["verify", &file, "--sink", "mirror"];
    arguments.extend(more);
    let output = tokio::process::Command::new(binary("cdc-worker"))
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}
