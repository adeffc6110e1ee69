//! What a sink does behind an incompatible change of schema, by its own setting, without the gate,
//! and when the registry is away. Records by hand: the real source's changes are in `schema.rs`.

use std::collections::BTreeSet;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::proxy::Proxy;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::{envelope_schema, framed, http, long, register, string};
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

/// The schema of a row that has lost its `name`, for [`nameless`].
pub(super) fn nameless_schema(topic: &str) -> Value {
    let mut schema = envelope_schema(topic);
    schema["fields"][0]["type"][1]["fields"].as_array_mut().unwrap().pop();
    schema
}

pub(super) fn nameless(schema: i32, id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    long(&mut out, 0);
    long(&mut out, 1);
    long(&mut out, id);
    long(&mut out, 1_700_000_000_000);
    for text in ["db", "public", "t", "c"] {
        string(&mut out, text);
    }
    long(&mut out, 0);
    framed(schema, &out)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sink_does_with_an_incompatible_change_what_it_is_told() {
    let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    let mut pipeline = Pipeline::new("each");
    pipeline.config["stop_on_incompatible_schema"] = json!(true);
    for (receiver, policy) in receivers.iter().zip(["stop", "dlq", "continue"]) {
        pipeline.webhook(policy, &receiver.url());
        pipeline.sink_mut(policy)["on_incompatible"] = json!(policy);
    }
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let _workers = ["stop", "dlq", "continue"].map(|sink| pipeline.worker(sink));
    let producer = Producer::default();
    let old = |id: i64| producer.put(&topic, 0, &schemas.key(id), &schemas.insert(id, "n"));
    for id in 0..5 {
        old(id);
    }
    let up_to = |end: i64| (0..end).map(|offset| (0, offset)).collect::<BTreeSet<_>>();
    for receiver in &receivers {
        receiver.has(&up_to(5)).await;
    }
    let other = register(&format!("{topic}-value"), &nameless_schema(&topic)).await;
    let new = |id: i64| producer.put(&topic, 0, &schemas.key(id), &nameless(other, id));
    // More than the breaker would let pass, was it asked.
    for id in 5..205 {
        new(id);
    }
    let hold = pipeline.held("stop", "schema_incompatible").await;
    assert_eq!(hold["offset"], 5, "{hold}");
    receivers[2].has(&up_to(205)).await;
    let dead = format!("{topic}.dlq");
    until("the dead letters are there", SOON, async || {
        let count = kafka::read_all(&dead, 1).len();
        check(count == 200, count)
    })
    .await;
    let letter = kafka::read_all(&dead, 1).remove(0);
    let error = kafka::header(&letter, "dlq.error_type");
    assert_eq!(error.as_deref(), Some("schema_incompatible"));
    // What has the former schema is delivered, behind them and before the acceptance.
    old(205);
    receivers[1].has(&(&up_to(5) | &[(0, 205)].into())).await;
    assert_eq!(receivers[0].acknowledged(), up_to(5));
    pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &format!("{}.t", pipeline.id)]).await;
    // The way back is a change of its own, which adds a column.
    new(206);
    receivers[0].has(&up_to(207)).await;
    receivers[1].has(&(&up_to(5) | &[(0, 205), (0, 206)].into())).await;
    receivers[2].has(&up_to(207)).await;
    pipeline.committed(0, 207).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_the_source_computes_does_not_count() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("computed");
    let table = "CREATE TABLE {id}.t (id bigint PRIMARY KEY,
                     name text GENERATED ALWAYS AS ('n') STORED)";
    let _source = postgres::source_with(&pipeline, table).await;
    pipeline.config["stop_on_incompatible_schema"] = json!(true);
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let producer = Producer::default();
    producer.put(&topic, 0, &schemas.key(0), &schemas.insert(0, "n"));
    pipeline.committed(0, 1).await;
    let other = register(&format!("{topic}-value"), &nameless_schema(&topic)).await;
    producer.put(&topic, 0, &schemas.key(1), &nameless(other, 1));
    pipeline.committed(0, 2).await;
    let list = pipeline.cdc_ok(&["schema", "list", "FILE"]).await;
    assert!(list.contains("name generated (computed by the source)"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_gate_changes_are_told_and_nothing_is_held() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("told");
    pipeline.config["schema_monitor_interval_seconds"] = json!(0.3);
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let producer = Producer::default();
    producer.put(&topic, 0, &schemas.key(1), &schemas.insert(1, "n"));
    pipeline.committed(0, 1).await;
    // Registered, and not one record of it yet.
    let other = register(&format!("{topic}-value"), &nameless_schema(&topic)).await;
    let told = |event: &str| {
        let output = coordinator.output();
        output.lines().filter(|line| line.contains(event)).count()
    };
    until("the monitor tells of it", SOON, async || {
        check(told("schema.incompatible_change_detected") == 1, coordinator.output())
    })
    .await;
    producer.put(&topic, 0, &schemas.key(2), &nameless(other, 2));
    // The old one comes back.
    producer.put(&topic, 0, &schemas.key(3), &schemas.insert(3, "n"));
    pipeline.committed(0, 3).await;
    until("health tells of what nobody has accepted", SOON, async || {
        let health = pipeline.health().await?;
        let reasons = health["reasons"].to_string();
        let version = told("schema.version_changed");
        check(reasons.contains("schema_change") && version >= 1, health.to_string())
    })
    .await;
    let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap();
    let answer = http().get(format!("http://{bind}/v1/schemas")).send().await.unwrap();
    let report: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let first = &report["changes"][0];
    assert_eq!((&first["previous_version"], &first["this_version"]), (&json!(1), &json!(2)));
    assert_eq!(first["registry_compatible"], true, "the registry has no rule");
    let table = format!("{}.t", pipeline.id);
    pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &table]).await;
    until("health has nothing more to say", SOON, async || {
        let health = pipeline.health().await?;
        let reasons = health["reasons"].to_string();
        check(!reasons.contains("schema_change"), reasons)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_stops_nothing_that_is_known() {
    let receiver = Receiver::start().await;
    let (base, path) = Stack::get().registry().split_once("/apis/").unwrap();
    let registry = Proxy::start(base, None).await;
    let mut pipeline = Pipeline::new("regaway");
    pipeline.config["stop_on_incompatible_schema"] = json!(true);
    pipeline.config["schema_monitor_interval_seconds"] = json!(0.3);
    let address = format!("{}/apis/{path}", registry.address());
    pipeline.config["kafka"]["schema_registry_url"] = json!(address);
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let producer = Producer::default();
    let put = |id: i64| producer.put(&topic, 0, &schemas.key(id), &schemas.insert(id, "n"));
    put(0);
    pipeline.committed(0, 1).await;
    registry.hide(Some(("/", 503)));
    put(1);
    pipeline.committed(0, 2).await;
    // A column more.
    let mut wider = envelope_schema(&topic);
    let fields = wider["fields"][0]["type"][1]["fields"].as_array_mut().unwrap();
    fields.push(json!({"name": "z", "type": "null"}));
    let other = register(&format!("{topic}-value"), &wider).await;
    let value = schemas.insert(2, "n");
    producer.put(&topic, 0, &schemas.key(2), &framed(other, &value[5..]));
    let hold = pipeline.held("wh", "schema_unjudged").await;
    assert_eq!(hold["offset"], 2, "{hold}");
    pipeline.status("wh", "waiting").await;
    until("health tells what the verdict lacks", SOON, async || {
        let health = pipeline.health().await?;
        let reasons = health["reasons"].to_string();
        check(reasons.contains("cannot be judged") && reasons.contains("503"), reasons)
    })
    .await;
    registry.hide(None);
    pipeline.committed(0, 3).await;
    assert_eq!(receiver.deliveries().len(), 3);
}
