//! What the coordinator watches beside lag: a connector that runs and is silent, a group that stands
//! still though its sinks go on, and a connector that fails and is started again.

use std::time::Duration;

use cdc_tests::kafka;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::http;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

use crate::happy::create_table;
use crate::holds::fill;

async fn reason(pipeline: &Pipeline, code: &str, is_there: bool) -> Value {
    until(&format!("{code} is told: {is_there}"), SOON, async || {
        let health = pipeline.health().await?;
        let reasons = health["reasons"].as_array().cloned().unwrap_or_default();
        let found = reasons.into_iter().find(|reason| reason["code"] == code);
        match (found, is_there) {
            (Some(reason), true) => Ok(reason),
            (None, false) => Ok(Value::Null),
            _ => Err(health.to_string()),
        }
    })
    .await
}

async fn says(process: &Process, what: &str) {
    until(&format!("the coordinator says {what:?}"), SOON, async || {
        let log = process.output();
        check(log.contains(what), log)
    })
    .await;
}

fn connector(pipeline: &Pipeline) -> String {
    format!("{}/connectors/{1}-{1}", Stack::get().connect(), pipeline.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_runs_and_writes_nothing_is_told_until_it_writes_again() {
    let mut pipeline = Pipeline::new("silent");
    let _source = create_table(&pipeline).await;
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(500);
    pipeline.config["lag"] = json!({"heartbeat_seconds": 4});
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let coordinator = pipeline.serve();
    until("the connector is heard", SOON, async || {
        let health = pipeline.health().await?;
        let source = &health["source"];
        let heard = source["silent_seconds"].is_number() && source["silent"] == false;
        check(heard && source["connector"]["state"] == "RUNNING", source.to_string())
    })
    .await;
    // Somebody changes its settings by hand: it runs, and its heart beats no more.
    let url = format!("{}/config", connector(&pipeline));
    let mut settings: Value = http().get(&url).send().await.unwrap().json().await.unwrap();
    settings["heartbeat.interval.ms"] = json!("0");
    assert!(http().put(&url).json(&settings).send().await.unwrap().status().is_success());
    let told = reason(&pipeline, "heartbeats_missing", true).await;
    assert!(
        told["message"].as_str().unwrap().contains("neither a heartbeat nor a change"),
        "{told}"
    );
    says(&coordinator, "connector.heartbeats_missing").await;
    let metrics = metrics(&pipeline).await;
    assert!(metrics.contains("cdc_connector_silent_seconds"), "{metrics}");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    reason(&pipeline, "heartbeats_missing", false).await;
    says(&coordinator, "connector.heard").await;
}

async fn metrics(pipeline: &Pipeline) -> String {
    let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap();
    let answer = http().get(format!("http://{bind}/metrics")).send().await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_stands_still_though_its_sinks_go_on_is_told_until_it_follows() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("stall");
    pipeline.webhook("wh", &receiver.url());
    pipeline.config["lag"] = json!({"group_seconds": 2});
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    fill(&topic, schemas, 0, 0..3);
    pipeline.committed(0, 3).await;
    // A member of the group keeps everybody else from committing.
    let intruder = kafka::member(&pipeline.group(), &topic).await;
    fill(&topic, schemas, 0, 3..9);
    let told = reason(&pipeline, "group_stalled", true).await;
    assert!(
        told["message"].as_str().unwrap().contains(&format!("{topic}[0], 1 partitions")),
        "{told}"
    );
    reason(&pipeline, "group_in_use", true).await;
    says(&coordinator, "pipeline.group_stalled").await;
    assert!(metrics(&pipeline).await.contains("cdc_pipeline_stalled_partitions{pipeline="));
    drop(intruder);
    pipeline.committed(0, 9).await;
    reason(&pipeline, "group_stalled", false).await;
    // A sink that is paused holds the group where it belongs: that is no stall.
    pipeline.command(&["pause", "FILE", "--sink", "wh"]).await;
    pipeline.status("wh", "paused").await;
    fill(&topic, schemas, 0, 9..12);
    until("it is behind, and its group is where it is", SOON, async || {
        let health = pipeline.health().await?;
        let lag = health["sinks"][0]["lag_records"] == 3;
        check(lag && health["pipeline_group"]["stall"].is_null(), health.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_really_fails_is_started_again_by_itself() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("again");
    let (id, admin) = (pipeline.id.clone(), postgres::source().await);
    let source = create_table(&pipeline).await;
    // A user of its own, whom the source can lock out.
    let create = format!("CREATE ROLE {id} LOGIN SUPERUSER REPLICATION PASSWORD 'secret'");
    admin.batch_execute(&create).await.unwrap();
    pipeline.config["source"]["username"] = json!(id);
    pipeline.config["source"]["password"] = json!("secret");
    pipeline.webhook("wh", &receiver.url());
    // Debezium tries for ever otherwise, and says that it runs.
    pipeline.config["source"]["connector_properties"] = json!({"errors.max.retries": "0"});
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    until("the snapshot's row has come", SOON, async || {
        check(receiver.deliveries().len() == 1, receiver.deliveries().len())
    })
    .await;
    let lock_out = format!("ALTER ROLE {id} NOLOGIN");
    admin.batch_execute(&lock_out).await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
    let long = Duration::from_secs(120);
    until("the task has failed", long, async || {
        // The connector connects again for a while before it gives up.
        admin.query(end, &[&id]).await.unwrap();
        let health = pipeline.health().await?;
        check(health["source"]["tasks"][0]["state"] == "FAILED", health["source"].to_string())
    })
    .await;
    let health = pipeline.health().await.unwrap();
    assert_eq!(health["verdict"], "critical");
    admin.batch_execute(&format!("ALTER ROLE {id} LOGIN")).await.unwrap();
    let insert = format!("INSERT INTO {id}.t (id, name) VALUES (2, 'after the failure')");
    source.execute(&insert, &[]).await.unwrap();
    // Nobody does anything.
    until("the task runs and delivers again", long, async || {
        let health = pipeline.health().await?;
        let source = &health["source"];
        let runs = source["tasks"][0]["state"] == "RUNNING" && source["restarts"] != 0;
        check(runs && receiver.deliveries().len() == 2, source.to_string())
    })
    .await;
    assert!(coordinator.output().contains("connector.restarted"));
    let deleted = http().delete(connector(&pipeline)).send().await.unwrap();
    assert!(deleted.status().is_success());
    let own = format!("REASSIGN OWNED BY {id} TO CURRENT_USER");
    admin.batch_execute(&own).await.unwrap();
    until("its user goes", SOON, async || {
        admin.batch_execute(&format!("DROP ROLE {id}")).await.map_err(|error| error.to_string())
    })
    .await;
}
