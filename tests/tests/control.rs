//! The control plane on bad days: what health says and how long it takes, whom P waits for, and what
//! is left when a supervisor or a reader of the output is gone.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdc_tests::kafka::Producer;
use cdc_tests::pipeline::{Pipeline, run_cdc};
use cdc_tests::process::binary;
use cdc_tests::receiver::Receiver;
use cdc_tests::stack::{Stack, free_port};
use cdc_tests::wait::{SOON, check, until};
use cdc_tests::{kafka, postgres};
use serde_json::{Value, json};

use crate::happy::create_table;

fn report(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ends_soon_and_keeps_its_shape_when_every_service_hangs() {
    // They take connections and never answer.
    let hung: Vec<std::net::TcpListener> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |index: usize| hung[index].local_addr().unwrap().to_string();
    let mut pipeline = Pipeline::new("hung");
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    pipeline.config["kafka"]["bootstrap_servers"] = json!(address(0));
    pipeline.config["kafka"]["schema_registry_url"] = json!(format!("http://{}", address(1)));
    pipeline.config["connector"]["connect_url"] = json!(format!("http://{}", address(1)));
    pipeline.config["coordinator"]["bind"] = json!(address(2));
    let begun = Instant::now();
    let output = pipeline.cdc(&["health", "FILE", "--json"]).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    assert_eq!(output.status.code(), Some(2));
    let report = report(&output);
    assert_eq!(report["pipeline_id"], json!(pipeline.id));
    assert_eq!(report["source"]["connector"]["state"], "UNKNOWN");
    assert_eq!(report["sinks"][0], json!({"sink_id": "wh", "status": "unknown", "enabled": true}));
    assert_eq!(report["consumer_lag"], json!([]));
    let codes: Vec<&Value> =
        report["reasons"].as_array().unwrap().iter().map(|reason| &reason["code"]).collect();
    assert_eq!(codes, ["kafka_down", "registry_down", "connect_down", "coordinator_down"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_without_a_pipeline_asks_what_the_platform_file_names() {
    let stack = Stack::get();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("platform.yaml");
    let platform = json!({
        "kafka": {"bootstrap_servers": stack.kafka(), "schema_registry_url": stack.registry()},
        "connector": {"connect_url": stack.connect()},
        "redis": {"password": "${NOT_NEEDED_HERE}"},
    });
    std::fs::write(&file, platform.to_string()).unwrap();
    let line = ["health", "--json", "--platform-config", file.to_str().unwrap()];
    let line: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let output = run_cdc(&line).await;
    let report = report(&output);
    assert_eq!((output.status.code(), &report["verdict"]), (Some(0), &json!("ok")), "{report}");
    assert_eq!(report["kafka"]["address"], json!(stack.kafka()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_look_needs_no_other_secret() {
    let mut pipeline = Pipeline::new("look");
    pipeline.topics(1).await;
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    pipeline.config["coordinator"]["tokens"] =
        json!({"reader": "r", "operator": "o", "worker": "w"});
    let _coordinator = pipeline.serve();
    // It has read its file: the next one is the reader's.
    until("the coordinator answers, if only with a refusal", SOON, async || {
        pipeline.health().await
    })
    .await;
    pipeline.config["source"]["password"] = json!("${NOT_FOR_READERS}");
    pipeline.config["coordinator"]["tokens"] =
        json!({"reader": "r", "operator": "${NOT_FOR_READERS}", "worker": "${NOT_FOR_READERS}"});
    until("health is the coordinator's", SOON, async || {
        let output = pipeline.cdc(&["health", "FILE", "--json"]).await;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        check(told.contains("\"leader\": true"), told)
    })
    .await;
}

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
