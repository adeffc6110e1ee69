//! `cdc verify` of an Iceberg sink: what is planted is found while the source is written, and nothing
//! where nothing is.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_tests::judge::{self, outcome, verify_of};
use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::binary;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::mysql_mirror::{Table, report, tables};

const LAKE: &str = "lake";

/// Kind of each difference by the key's text.
fn differences(end: &Value) -> BTreeMap<String, String> {
    let found = end["tables"][0]["differences"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    found.map(|found| (text(&found["key"][0]["text"]), text(&found["kind"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_what_was_planted_in_a_table_while_the_source_is_written() {
    let mut pipeline = Pipeline::new("lakeverify");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text, amount numeric(12, 2),
             at timestamptz, doc jsonb);
         INSERT INTO {id}.t SELECT i, 'name ' || i, i, '2024-01-01', '{\"i\": 1}'
         FROM generate_series(1, 3000) i;",
    )
    .await;
    pipeline.lake_of_rows(LAKE);
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker(LAKE), pipeline.worker(LAKE)];
    let table = format!("{}.t", pipeline.id);
    let still = Arc::new(Mutex::new(()));
    let writer = tokio::spawn(postgres::writes(table.clone(), still.clone()));
    let end = judge::is_equal_of(&mut pipeline, LAKE).await;
    let report = &end["tables"][0];
    assert!(report["rows"].as_u64().unwrap() > 2500, "{end:#}");
    assert_eq!(report["mirror"], format!("default.{}_t", pipeline.id));

    {
        let _still = still.lock().await;
        pipeline.foreign_plant("plant").await;
    }
    let (code, end) = verify_of(&mut pipeline, LAKE, &["--table", &table, "--show-values"]).await;
    let planted = [("1001", "missing"), ("1002", "changed"), ("1003", "extra"), ("9001", "extra")];
    let planted = planted.map(|(key, kind)| (key.to_owned(), kind.to_owned())).into();
    assert_eq!((code, differences(&end)), (1, planted), "{end:#}");
    assert!(end.to_string().contains("the table has it more than once"), "{end:#}");
    let shown = end.to_string();
    assert!(shown.contains("planted") && shown.contains("name 1002"), "{end:#}");
    let resync = pipeline.cdc(&["resync", "FILE", "--sink", LAKE, "--json"]).await;
    let (code, end) = outcome(&resync);
    assert_eq!(code, 70, "{end:#}");
    assert!(end["message"].as_str().unwrap().contains("no rows are removed"), "{end:#}");

    writer.abort();
    pipeline.foreign_plant("clear").await;
    postgres::run(&source, &pipeline, "UPDATE {id}.t SET amount = 1 WHERE id IN (1001, 1002)")
        .await;
    judge::is_equal_of(&mut pipeline, LAKE).await;

    // A position that is never reached: the sink is paused.
    pipeline.command(&["pause", "FILE", "--sink", LAKE]).await;
    postgres::run(&source, &pipeline, "INSERT INTO {id}.t (id) VALUES (5000)").await;
    let (code, end) = verify_of(&mut pipeline, LAKE, &["--timeout", "10"]).await;
    assert_eq!(code, 3, "{end:#}");
    assert!(end["message"].as_str().unwrap().contains("the sink is at"), "{end:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_log_is_compared_and_without_a_worker_the_worker_program_does_it() {
    let mut pipeline = Pipeline::new("lakelog");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text, large text);
         ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
         INSERT INTO {id}.t SELECT i, 'name', repeat('x', 5000) FROM generate_series(1, 50) i;",
    )
    .await;
    pipeline.lake(LAKE);
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker(LAKE);
    judge::is_equal_of(&mut pipeline, LAKE).await;
    // Large values that did not change are not sent; keys change, and rows go.
    let changes = "UPDATE {id}.t SET name = 'new' WHERE id <= 20;
        UPDATE {id}.t SET large = '' WHERE id = 21;
        UPDATE {id}.t SET id = id + 1000, large = 'moved' WHERE id BETWEEN 30 AND 32;
        DELETE FROM {id}.t WHERE id > 1031 OR id = 50;
        INSERT INTO {id}.t VALUES (50, 'again', NULL);";
    postgres::run(&source, &pipeline, changes).await;
    let end = judge::is_equal_of(&mut pipeline, LAKE).await;
    assert_eq!(end["tables"][0]["rows"], 49, "{end:#}");
    assert!(end["tables"][0]["settled"].as_u64().unwrap() >= 20, "{end:#}");

    worker.drain().await;
    let (code, end) = direct(&pipeline, &[]).await;
    assert_eq!((code, end["message"].as_str()), (0, Some("equal (49 rows of 1 table compared)")));
    // Nobody delivers this.
    postgres::run(&source, &pipeline, "DELETE FROM {id}.t WHERE id = 1").await;
    let (code, end) = direct(&pipeline, &["--timeout", "3"]).await;
    assert_eq!(code, 3, "{end:#}");
}

/// `cdc-worker verify`: its exit code and the task's end.
async fn direct(pipeline: &Pipeline, more: &[&str]) -> (i32, Value) {
    let file = pipeline.file().display().to_string();
    let mut arguments = vec!["verify", &file, "--sink", LAKE, "--json"];
    arguments.extend(more);
    let mut command = tokio::process::Command::new(binary("cdc-worker"));
    outcome(&command.args(arguments).kill_on_drop(true).output().await.unwrap())
}

/// Every type of MySQL: the source's value is the table's, and one that the table has not been told
/// is found.
#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_mysql_is_compared() {
    let family = Family::Mysql;
    let tables = tables(family);
    let mut pipeline = Pipeline::of(family, "laketypes");
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
    pipeline.config["source"]["connector_properties"] =
        json!({"connect.keep.alive.interval.ms": "1000"});
    let id = pipeline.id.clone();
    let names: Vec<String> = tables.iter().map(|table| format!("{id}.{}", table.name)).collect();
    pipeline.config["source"]["tables"] = json!(names);
    let mut source = mysql::admin(family).await;
    let mut begin = vec![
        format!("CREATE DATABASE {id} CHARACTER SET utf8mb4"),
        "SET SESSION sql_mode = ''".to_owned(),
    ];
    for table in &tables {
        begin.push(table.create(&id));
        begin.extend(table.rows(&id, 1));
    }
    mysql::run(&mut source, &begin).await;
    pipeline.lake_of_rows(LAKE);
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker(LAKE);
    judge::is_equal_of(&mut pipeline, LAKE).await;

    let mut streamed = Vec::new();
    for table in &tables {
        streamed.extend(table.rows(&id, 11));
        let columns = table.columns.len() as u64;
        streamed.extend((0..columns).map(|n| table.insert(&id, 100 + n, Some(0))));
        streamed.push(format!("DELETE FROM {id}.{} WHERE id IN (2, 12)", table.name));
    }
    mysql::run(&mut source, &streamed).await;
    let end = judge::is_equal_of(&mut pipeline, LAKE).await;
    for table in &tables {
        let report = report(&end, table.name);
        assert_eq!(report["rows"], 6 + table.columns.len(), "{end:#}");
        assert_eq!(report["notes"], json!([]), "{end:#}");
    }

    // Nobody hears of these.
    let mut planted = vec!["SET SESSION sql_log_bin = 0".to_owned()];
    planted.extend(tables.iter().flat_map(|table| plant(table, &id)));
    mysql::run(&mut source, &planted).await;
    let (code, end) = verify_of(&mut pipeline, LAKE, &[]).await;
    assert_eq!(code, 1, "{end:#}");
    for table in &tables {
        let report = report(&end, table.name);
        let counts = (&report["missing"], &report["extra"], &report["changed"]);
        let columns = json!(table.columns.len());
        assert_eq!(counts, (&json!(0), &json!(0), &columns), "{report:#}");
        let found = report["differences"].as_array().unwrap().iter();
        let found: Vec<&str> =
            found.map(|found| found["columns"][0]["column"].as_str().unwrap()).collect();
        for column in &found {
            assert!(table.columns.iter().any(|(name, ..)| name == column), "{report:#}");
        }
    }
}

/// Another value for each column, in a row of its own.
fn plant<'t>(table: &'t Table, id: &'t str) -> impl Iterator<Item = String> + 't {
    (100..).zip(&table.columns).map(move |(key, (column, _, values, _))| {
        let name = table.name;
        format!("UPDATE {id}.{name} SET `{column}` = {} WHERE id = {key}", values[1])
    })
}
