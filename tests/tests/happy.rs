//! The main job: what is committed in the source database arrives at every sink.

use std::collections::BTreeSet;

use cdc_tests::kafka;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::wait::{SOON, check, until};
use rdkafka::Message;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// The pipeline's table, with a column for everything that goes wrong easily.
pub(crate) async fn create_table(pipeline: &Pipeline) -> Client {
    let statements = "CREATE TABLE {id}.t (
             id bigint PRIMARY KEY,
             name text,
             tier text DEFAULT 'standard',
             amount numeric(12, 2) NOT NULL DEFAULT 0,
             large text
         );
         ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
         INSERT INTO {id}.t (id, name) VALUES (1, 'of the snapshot');";
    postgres::source_with(pipeline, statements).await
}

fn of_key(receiver: &Receiver, id: i64) -> Vec<Delivery> {
    let mut events: Vec<Delivery> =
        receiver.deliveries().into_iter().filter(|d| d.key == json!({"id": id})).collect();
    events.dedup_by(|a, b| a.event() == b.event());
    events
}

async fn health_is_ok(pipeline: &mut Pipeline) -> Value {
    let mut report = Value::Null;
    until("health is ok and lag is 0", SOON, async || {
        let output = pipeline.cdc(&["health", "FILE", "--json"]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        report = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let lag: Vec<i64> = report["sinks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|sink| sink["lag_records"].as_i64().unwrap_or(-1))
            .collect();
        let pipeline_lag =
            report["consumer_lag"].as_array().is_some_and(|all| all.iter().all(|p| p["lag"] == 0));
        let fine = output.status.code() == Some(0) && lag == [0, 0] && pipeline_lag;
        check(fine, format!("exit {:?}: {text}", output.status.code()))
    })
    .await;
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_at_the_source_arrives_at_every_sink() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("happy");
    let source = create_table(&pipeline).await;
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let table = format!("{}.t", pipeline.id);

    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let again = pipeline.cdc_ok(&["deploy", "FILE"]).await;
    assert!(again.contains("unchanged"), "{again}");
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];

    let large = "toast ".repeat(5000);
    let insert = format!("INSERT INTO {table} VALUES ($1, 'ada', NULL, 12.30, $2)");
    source.execute(&insert, &[&2_i64, &large]).await.unwrap();
    source.execute(&format!("UPDATE {table} SET name = 'eva' WHERE id = 2"), &[]).await.unwrap();
    source.execute(&format!("DELETE FROM {table} WHERE id = 1"), &[]).await.unwrap();
    source.execute(&format!("UPDATE {table} SET id = 3 WHERE id = 2"), &[]).await.unwrap();
    for id in 10..60_i64 {
        source.execute(&insert, &[&id, &"small"]).await.unwrap();
    }

    until("the last insert has arrived", SOON, async || {
        check(of_key(&receiver, 59).len() == 1, receiver.deliveries().len())
    })
    .await;
    let changed = |id| of_key(&receiver, id);
    until("all changes of one key have arrived", SOON, async || {
        let found = (changed(1).len(), changed(2).len(), changed(3).len());
        check(found == (2, 3, 1), found)
    })
    .await;
    let operations = |id| -> Vec<Value> {
        changed(id).iter().map(|delivery| delivery.body["value"]["op"].clone()).collect()
    };
    assert_eq!(operations(1), ["r", "d"]);
    assert_eq!(operations(2), ["c", "u", "d"]);
    assert_eq!(operations(3), ["c"]);
    let second = changed(2);
    assert_eq!(
        second[0].body["value"]["after"],
        json!({"id": 2, "name": "ada", "tier": null, "amount": "12.30", "large": large})
    );
    let update = &second[1].body;
    assert_eq!(update["value"]["after"]["name"], "eva");
    assert_eq!(update["value"]["after"].get("large"), None, "not sent, so not known");
    assert!(update["metadata"]["unavailable"].to_string().contains("large"), "{update}");
    receiver.check_promise();

    let report = health_is_ok(&mut pipeline).await;
    assert_eq!(report["source"]["connector"]["state"], "RUNNING");
    assert_eq!(report["source"]["slot"]["active"], true);
    let (topic, partitions) = (pipeline.topic(), 4);
    let expected: BTreeSet<(i32, i64)> = kafka::read_all(&topic, partitions)
        .iter()
        .filter(|message| message.payload().is_some())
        .map(|message| (message.partition(), message.offset()))
        .collect();
    assert_eq!(expected.len(), 1 + 5 + 50, "one per change");
    pipeline.has_rows(&expected, SOON).await;
    receiver.has(&expected).await;

    let printed = pipeline.cdc_ok(&["consume", "FILE", "--key", r#"{"id":2}"#, "--json"]).await;
    assert!(printed.lines().any(|line| line.contains("\"ada\"")), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_is_the_whole_pipeline_and_leaves_nothing_running() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("run");
    let source = create_table(&pipeline).await;
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let mut run = pipeline.run();
    until("the snapshot's row has arrived", SOON, async || {
        check(of_key(&receiver, 1).len() == 1, receiver.deliveries().len())
    })
    .await;
    let table = format!("{}.t", pipeline.id);
    source.execute(&format!("UPDATE {table} SET name = 'x'"), &[]).await.unwrap();
    until("the update has arrived", SOON, async || {
        check(of_key(&receiver, 1).len() == 2, receiver.deliveries().len())
    })
    .await;
    until("the events table has both", SOON, async || {
        let rows = pipeline.rows().await;
        check(rows.len() == 2, rows)
    })
    .await;
    let status = run.drain().await;
    assert!(status.success(), "{status}: {}", run.output());
}
