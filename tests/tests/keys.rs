//! A key that gets another type at the source: its rows come in other partitions from then on.

use cdc_tests::kafka;
use cdc_tests::mirror::is_equal;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_schema_of_the_key_stops_before_it_and_the_way_out_loses_nothing() {
    let mut pipeline = Pipeline::new("rekey");
    let (id, user) = (pipeline.id.clone(), Stack::get().value("SOURCE_USER"));
    let (source, target) = (postgres::source().await, postgres::target().await);
    let table = format!("{id}.t");
    let create = format!(
        "CREATE SCHEMA {id} AUTHORIZATION {user}; SET ROLE {user};
         CREATE TABLE {table} (id integer PRIMARY KEY, n integer);
         INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 60) AS i"
    );
    source.batch_execute(&create).await.unwrap();
    pipeline.replica("mirror");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("mirror");
    is_equal(&source, &target, &table, SOON).await;
    // The last changes under the old key, and right behind them those under the new one.
    let change = format!(
        "UPDATE {table} SET n = 1; ALTER TABLE {table} ALTER id TYPE bigint;
         UPDATE {table} SET n = n + 10; DELETE FROM {table} WHERE id % 7 = 0;
         INSERT INTO {table} VALUES (3000000000, 5), (7, 7)"
    );
    source.batch_execute(&change).await.unwrap();
    let hold = pipeline.held("mirror", "key_schema_changed").await;
    let topic = pipeline.topic();
    until("each partition is held by it or has nothing left", SOON, async || {
        let health = pipeline.sink_health("mirror").await?;
        let count = health["holds"].as_array().map_or(0, Vec::len);
        let ends = format!("SELECT \"partition\", next_offset FROM {id}.cdc_offsets");
        let rows = target.query(&ends, &[]).await.map_err(|error| error.to_string())?;
        let at_end =
            rows.iter().filter(|row| kafka::bounds(&topic, row.get(0)).1 == row.get::<_, i64>(1));
        check(count + at_end.count() == 4, health.to_string())
    })
    .await;
    // Nothing of the new key is in, everything of the old one is.
    let seen = format!("SELECT count(*), min(n), max(n) FROM {table}");
    let row = target.query_one(&seen, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get(1), row.get(2)), (60, 1, 1));
    let way_out = hold["way_out"].as_str().unwrap();
    let statement = way_out.split_once("then UPDATE").unwrap().1.split(", then cdc").next();
    target.batch_execute(&format!("UPDATE{}", statement.unwrap())).await.unwrap();
    pipeline.command(&["resume", "FILE", "--sink", "mirror"]).await;
    is_equal(&source, &target, &table, SOON).await;
    assert!(way_out.contains("sink_id = 'mirror'"), "{way_out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_whole_transactions_a_new_schema_of_the_key_needs_no_stop() {
    let mut pipeline = Pipeline::new("rekeytx");
    let (id, user) = (pipeline.id.clone(), Stack::get().value("SOURCE_USER"));
    let (source, target) = (postgres::source().await, postgres::target().await);
    let table = format!("{id}.t");
    let create = format!(
        "CREATE SCHEMA {id} AUTHORIZATION {user}; SET ROLE {user};
         CREATE TABLE {table} (id integer PRIMARY KEY, n integer);
         INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 60) AS i"
    );
    source.batch_execute(&create).await.unwrap();
    pipeline.config["connector"]["exactly_once"] = json!(true);
    pipeline.replica("mirror").sink_mut("mirror")["postgres"]["consistency"] = json!("transaction");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let worker = pipeline.worker("mirror");
    is_equal(&source, &target, &table, SOON).await;
    until("transactions are whole", SOON, async || {
        check(worker.output().contains("pipeline.transactions_whole"), worker.output())
    })
    .await;
    for round in 0..10 {
        let change = format!("UPDATE {table} SET n = n + 1 WHERE id % 3 = {round} % 3");
        source.batch_execute(&change).await.unwrap();
        if round == 5 {
            let change = format!("ALTER TABLE {table} ALTER id TYPE bigint");
            source.batch_execute(&change).await.unwrap();
        }
    }
    is_equal(&source, &target, &table, SOON).await;
    assert!(!worker.output().contains("partition stopped"), "{}", worker.output());
}
