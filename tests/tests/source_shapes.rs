//! Tables of a PostgreSQL source that are more than rows and columns: partitioned ones, and columns
//! that the server computes. Judged by `cdc verify`.

use cdc_tests::judge::{self, verify};
use cdc_tests::kafka;
use cdc_tests::mirror::columns;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use rdkafka::Message;
use serde_json::{Value, json};
use tokio_postgres::Client;

async fn create(pipeline: &mut Pipeline, statements: &str) -> Client {
    // A slot moves with the connector's heartbeats.
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
    postgres::source_with(pipeline, statements).await
}

fn counts(end: &Value) -> [u64; 4] {
    let report = &end["tables"][0];
    ["rows", "missing", "extra", "changed"].map(|name| report[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_has_one_topic_and_one_mirror() {
    let mut pipeline = Pipeline::new("parts");
    let source = create(
        &mut pipeline,
        "CREATE TABLE {id}.t (id bigint, region text, v text, PRIMARY KEY (region, id))
             PARTITION BY LIST (region);
         CREATE TABLE {id}.t_eu PARTITION OF {id}.t FOR VALUES IN ('eu');
         CREATE TABLE {id}.t_us PARTITION OF {id}.t FOR VALUES IN ('us') PARTITION BY RANGE (id);
         CREATE TABLE {id}.t_us_1 PARTITION OF {id}.t_us FOR VALUES FROM (0) TO (150);
         CREATE TABLE {id}.t_us_2 PARTITION OF {id}.t_us FOR VALUES FROM (150) TO (100000);
         CREATE TABLE {id}.t_rest PARTITION OF {id}.t DEFAULT;
         INSERT INTO {id}.t SELECT i, (ARRAY['eu', 'us', 'asia'])[1 + i % 3], 'snapshot'
         FROM generate_series(1, 300) AS i;",
    )
    .await;
    pipeline.replica("mirror");

    // A partition beside its table would come twice.
    let table = pipeline.config["source"]["tables"][0].clone();
    pipeline.config["source"]["tables"] = json!([table, format!("{}.t_us_1", pipeline.id)]);
    let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("t_us_1 is a partition of"), "{said}");
    pipeline.config["source"]["tables"] = json!([table]);
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    let end = judge::is_equal(&mut pipeline).await;
    assert_eq!(counts(&end), [300, 0, 0, 0], "{end:#}");
    let records = kafka::read_all(&pipeline.topic(), 4);
    let rows = records.iter().filter(|record| record.payload().is_some()).count();
    assert_eq!(rows, 300, "the snapshot has every row once");

    postgres::run(
        &source,
        &pipeline,
        "INSERT INTO {id}.t SELECT i, (ARRAY['eu', 'us', 'asia'])[1 + i % 3], 'new'
         FROM generate_series(301, 400) AS i;
         UPDATE {id}.t SET v = 'updated' WHERE id % 7 = 0;
         UPDATE {id}.t SET region = 'us' WHERE region = 'eu' AND id % 2 = 0;
         UPDATE {id}.t SET id = id + 1000 WHERE region = 'us' AND id < 150 AND id % 5 = 0;
         DELETE FROM {id}.t WHERE id % 11 = 0;
         CREATE TABLE {id}.t_old (LIKE {id}.t INCLUDING ALL);
         ALTER TABLE {id}.t ATTACH PARTITION {id}.t_old FOR VALUES IN ('old');
         INSERT INTO {id}.t VALUES (1, 'old', 'attached');",
    )
    .await;
    let end = judge::is_equal(&mut pipeline).await;
    assert!(counts(&end)[0] > 330, "{end:#}");
    let others: Vec<String> = kafka::topics_with(&format!("{}.t_", pipeline.id));
    assert!(others.is_empty(), "no partition has a topic of its own: {others:?}");

    // Rows that go with their partition go without an event.
    postgres::run(&source, &pipeline, "ALTER TABLE {id}.t DETACH PARTITION {id}.t_old").await;
    let (code, end) = verify(&mut pipeline, &[]).await;
    assert_eq!((code, counts(&end)[2]), (1, 1), "{end:#}");
    pipeline.cdc_ok(&["resync", "FILE", "--sink", "mirror"]).await;
    judge::is_equal(&mut pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_rows_may_swap_in_one_statement_is_refused() {
    let mut pipeline = Pipeline::new("swap");
    let source = create(
        &mut pipeline,
        "CREATE TABLE {id}.t (id bigint, v text, CONSTRAINT t_key PRIMARY KEY (id) DEFERRABLE);
         ALTER TABLE {id}.t REPLICA IDENTITY FULL;
         INSERT INTO {id}.t VALUES (1, 'one'), (2, 'two');
         UPDATE {id}.t SET id = 3 - id;",
    )
    .await;
    pipeline.replica("mirror");
    let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("the primary key of table"), "{said}");
    assert!(said.contains("is DEFERRABLE"), "{said}");
    let cure = "ALTER TABLE {id}.t DROP CONSTRAINT t_key; ALTER TABLE {id}.t ADD PRIMARY KEY (id);";
    postgres::run(&source, &pipeline, cure).await;
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
}

/// PostgreSQL's timestamps go on for 29 years where microseconds since 1970 no longer fit 64 bits.
#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_the_connector_cannot_count_is_refused() {
    let mut pipeline = Pipeline::new("ends");
    let source = create(
        &mut pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, at timestamp, zoned timestamptz);
         INSERT INTO {id}.t VALUES
             (1, '294247-01-10 04:00:54.775806', '294276-12-31 23:59:59.999999+00'),
             (2, '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC'),
             (3, '294276-12-31 23:59:59.999999', NULL);",
    )
    .await;
    pipeline.replica("mirror");
    pipeline.sink_mut("mirror")["on_reject"] = json!("dlq");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    postgres::run(&source, &pipeline, "INSERT INTO {id}.t SELECT id + 10, at, zoned FROM {id}.t")
        .await;
    until("both are dead letters", SOON, async || {
        let line = ["dlq", "list", "FILE", "--sink", "mirror", "--json"];
        let letters = pipeline.cdc_ok(&line).await;
        check(letters.matches("out_of_range").count() >= 2, letters)
    })
    .await;
    let output = until("verify names them", SOON, async || {
        let output = pipeline.cdc(&["verify", "FILE", "--sink", "mirror", "--json"]).await;
        check(output.status.code() == Some(1), format!("{output:?}"))?;
        Ok::<_, String>(output)
    })
    .await;
    // What can be counted arrives as it is.
    let (_, end) = judge::outcome(&output);
    assert_eq!(counts(&end), [6, 0, 0, 0], "{end:#}");
    assert_eq!(end["tables"][0]["given_up"], 2, "{end:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_the_source_computes_are_left_out_or_computed_in_the_target() {
    let mut pipeline = Pipeline::new("computed");
    let source = create(
        &mut pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n int,
             twice int GENERATED ALWAYS AS (n * 2) STORED, note text);
         CREATE TABLE {id}.made (id bigint PRIMARY KEY, n int,
             twice int GENERATED ALWAYS AS (n * 2) STORED);
         INSERT INTO {id}.t (id, n, note) SELECT i, i, 'x' FROM generate_series(1, 20) AS i;
         INSERT INTO {id}.made (id, n) SELECT i, i FROM generate_series(1, 20) AS i;",
    )
    .await;
    let tables = ["t", "made"].map(|table| format!("{}.{table}", pipeline.id));
    pipeline.config["source"]["tables"] = json!(tables);
    pipeline.config["source"]["connector_properties"] =
        json!({"column.exclude.list": "somewhere.else.secret"});
    pipeline.replica("mirror");
    let target = postgres::target().await;
    let user = Stack::get().value("TARGET_USER");
    let made = format!(
        "CREATE SCHEMA {{id}} AUTHORIZATION {user}; SET ROLE {user};
         CREATE TABLE {{id}}.made (id bigint PRIMARY KEY, n int,
             twice int GENERATED ALWAYS AS (n * 2) STORED);"
    );
    postgres::run(&target, &pipeline, &made).await;
    let said = pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    assert!(said.contains("twice is generated: deploy has the connector leave it out"), "{said}");
    let said = pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let left = format!("generated columns are left out of the records: {}.made.twice", pipeline.id);
    assert!(said.contains(&left), "{said}");
    let again = pipeline.cdc_ok(&["deploy", "FILE"]).await;
    assert!(again.contains("unchanged"), "{again}");
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    judge::is_equal(&mut pipeline).await;
    let changes = "INSERT INTO {id}.t (id, n) VALUES (100, 7); INSERT INTO {id}.made VALUES (100, 7);
                   UPDATE {id}.t SET n = 50 WHERE id < 5; UPDATE {id}.made SET n = 50 WHERE id < 5;
                   UPDATE {id}.t SET id = 200 WHERE id = 6; DELETE FROM {id}.t WHERE id = 7;
                   ALTER TABLE {id}.t ADD COLUMN more int; UPDATE {id}.t SET more = 1 WHERE id = 8;";
    postgres::run(&source, &pipeline, changes).await;
    judge::is_equal(&mut pipeline).await;
    let found = columns(&target, &format!("{}.t", pipeline.id)).await.unwrap();
    assert_eq!(found, ["id", "n", "note", "more"]);
    let sum = format!("SELECT sum(twice - 2 * n) = 0, count(twice) FROM {}.made", pipeline.id);
    let row = target.query_one(&sum, &[]).await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i64>(1)), (true, 21));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_whose_default_is_no_constant_stops_and_is_read_from_the_source() {
    let mut pipeline = Pipeline::new("default");
    let source = create(
        &mut pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, v int);
         INSERT INTO {id}.t SELECT i, i FROM generate_series(1, 50) AS i;",
    )
    .await;
    pipeline.replica("mirror");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    judge::is_equal(&mut pipeline).await;
    let add = "ALTER TABLE {id}.t ADD COLUMN made timestamptz NOT NULL DEFAULT now();
               INSERT INTO {id}.t (id, v) SELECT i, i FROM generate_series(51, 60) AS i;";
    postgres::run(&source, &pipeline, add).await;
    let hold = pipeline.held("mirror", "default_unknown").await;
    let table = format!("{}.t", pipeline.id);
    let statement =
        format!(r#"ALTER TABLE "{0}"."t" ADD COLUMN "made" timestamp with time zone"#, pipeline.id);
    let way_out = hold["way_out"].as_str().unwrap();
    assert!(way_out.contains(&format!("{statement}, resume")), "{way_out}");
    assert!(way_out.contains(&format!("cdc resync FILE --sink ID --table {table}")), "{way_out}");

    let user = Stack::get().value("TARGET_USER");
    let target = postgres::target().await;
    postgres::run(&target, &pipeline, &format!("SET ROLE {user}; {statement}")).await;
    pipeline.command(&["resume", "FILE", "--sink", "mirror"]).await;
    let (code, end) = verify(&mut pipeline, &[]).await;
    assert_eq!((code, counts(&end)), (1, [60, 0, 0, 50]), "{end:#}");
    pipeline.cdc_ok(&["resync", "FILE", "--sink", "mirror", "--table", &table]).await;
    judge::is_equal(&mut pipeline).await;
}
