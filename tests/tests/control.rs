//! The control plane on bad days: whom P waits for, and what is left when a supervisor or a reader of
//! the output is gone.

use std::io::Read as _;
use std::process::{Command, Stdio};

use cdc_tests::kafka::Producer;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::process::binary;
use cdc_tests::receiver::Receiver;
use cdc_tests::stack::free_port;
use cdc_tests::wait::{SOON, check, until};
use cdc_tests::{kafka, postgres};
use serde_json::json;

use crate::happy::create_table;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_no_worker_consumes_holds_p_and_health_says_so() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("waits");
    let schemas = pipeline.topics(1).await;
    pipeline.webhook("wh", &receiver.url());
    let _worker = pipeline.worker("wh");
    let topic = pipeline.topic();
    Producer::default().put(&topic, 0, &schemas.key(1), &schemas.insert(1, "a"));
    // The coordinator knows a table that the worker was started without.
    let other = format!("{}.other", pipeline.id);
    pipeline.config["source"]["tables"].as_array_mut().unwrap().push(json!(other));
    kafka::create_topic(&format!("{}.{other}", pipeline.id), 1).await;
    let _coordinator = pipeline.serve();
    pipeline.committed(0, 1).await;
    until("health names whom P waits for", SOON, async || {
        let health = pipeline.health().await?;
        let reasons = health["reasons"].as_array().cloned().unwrap_or_default();
        let found = reasons.iter().find(|reason| reason["code"] == "group_waits").cloned();
        let found = found.ok_or_else(|| health["reasons"].to_string())?;
        let message = found["message"].as_str().unwrap_or_default().to_owned();
        check(message.contains("waits for sink wh at") && message.contains(&other), message)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_output_may_go_away() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("pipe");
    let schemas = pipeline.topics(1).await;
    pipeline.webhook("wh", &receiver.url());
    let producer = Producer::default();
    for id in 0..50 {
        producer.put(&pipeline.topic(), 0, &schemas.key(id), &schemas.insert(id, "a"));
    }
    let file = pipeline.file().display().to_string();
    for line in [vec!["consume", &file], vec!["validate", &file]] {
        let mut child = Command::new(binary("cdc"))
            .args(&line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() && said.is_empty(), "{line:?}: {status}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_a_killed_run_drain_and_end() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("orphan");
    let schemas = pipeline.topics(1).await;
    pipeline.webhook("wh", &receiver.url());
    Producer::default().put(&pipeline.topic(), 0, &schemas.key(1), &schemas.insert(1, "a"));
    let port = free_port();
    pipeline.config["worker"] = json!({"port_base": port});
    let mut run = pipeline.run_without_deploy();
    until("the worker delivers", SOON, async || {
        check(!receiver.deliveries().is_empty(), receiver.deliveries().len())
    })
    .await;
    run.kill();
    until("the worker's address is free", SOON, async || {
        std::net::TcpListener::bind(("127.0.0.1", port)).map(drop)
    })
    .await;
    until("what it had delivered is committed", SOON, async || {
        let found = kafka::committed(&pipeline.sink_group("wh"), &pipeline.topic(), 0);
        check(found == Some(1), found)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_somebody_else_is_refused_though_a_coordinator_ran_first() {
    let mut pipeline = Pipeline::new("foreign");
    let source = create_table(&pipeline).await;
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    let admin = postgres::source().await;
    let slot = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    admin.execute(slot, &[&pipeline.id]).await.unwrap();
    drop(source);
    let coordinator = pipeline.serve();
    until("the control topic is there", SOON, async || {
        let health = pipeline.health().await?;
        check(health["coordinator"]["leader"] == true, health["coordinator"].to_string())
    })
    .await;
    drop(coordinator);
    let output = pipeline.cdc(&["deploy", "FILE"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("it may be another's"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_mends_a_failed_connector_does_not_tell_the_old_failure() {
    let mut pipeline = Pipeline::new("mends");
    let source = create_table(&pipeline).await;
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    // Nobody may create it, so that the task fails after the connector was accepted.
    pipeline.config["source"]["connector_properties"] =
        json!({"publication.autocreate.mode": "disabled"});
    let output = pipeline.cdc(&["deploy", "FILE"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(70), "{said}");
    assert!(said.contains("ublication"), "{said}");
    pipeline.config["source"]["connector_properties"] = json!({});
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    drop(source);
}
