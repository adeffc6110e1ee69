//! TLS, passwords and certificates towards every service, on the stack's secure listeners.

use std::collections::BTreeSet;

use cdc_tests::acl::{May, On, Rights};
use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::Receiver;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

/// A pipeline whose connections are all encrypted and authenticated, Kafka's as given.
async fn secure(kafka: Value) -> (Pipeline, Receiver) {
    let stack = Stack::get();
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("sec");
    pipeline.events("ev").await;
    pipeline.webhook("wh", &receiver.url());
    let user = stack.value("POSTGRES_SECURE_USER");
    let owner = format!("ALTER SCHEMA {} OWNER TO {user}", pipeline.id);
    postgres::target().await.batch_execute(&owner).await.unwrap();
    let section = &mut pipeline.sink_mut("ev")["postgres"];
    section["host"] = json!("localhost");
    section["username"] = json!(user);
    section["password"] = json!(stack.value("POSTGRES_SECURE_PASSWORD"));
    section["sslmode"] = json!("verify-full");
    section["ssl_ca_file"] = json!(stack.value("TLS_CA"));
    for (name, value) in kafka.as_object().unwrap() {
        pipeline.config["kafka"][name] = value.clone();
    }
    pipeline.config["coordinator"]["watermark_store"] = json!("redis");
    pipeline.config["redis"] = json!({
        "url": format!("rediss://localhost:{}", stack.value("REDIS_TLS_PORT")),
        "username": stack.value("REDIS_SECURE_USER"),
        "password": stack.value("REDIS_SECURE_PASSWORD"),
        "tls": {"ca_file": stack.value("TLS_CA")},
    });
    (pipeline, receiver)
}

fn scram(password: &str) -> Value {
    let stack = Stack::get();
    json!({
        "bootstrap_servers": stack.value("KAFKA_SASL_SSL_BOOTSTRAP_SERVERS"),
        "security_protocol": "sasl_ssl",
        "sasl": {
            "mechanism": "SCRAM-SHA-512",
            "username": stack.value("KAFKA_SASL_USER"),
            "password": password,
        },
        "tls": {"ca_file": stack.value("TLS_CA")},
    })
}

async fn delivers(pipeline: &Pipeline, receiver: &Receiver) {
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let producer = Producer::default();
    for id in 0..3 {
        producer.put(&topic, 0, &schemas.key(id), &schemas.insert(id, "secure"));
    }
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    let expected: BTreeSet<_> = (0..3).map(|offset| (0, offset)).collect();
    receiver.has(&expected).await;
    pipeline.has_rows(&expected, SOON).await;
    pipeline.committed(0, 3).await;
    until("Redis answers", SOON, async || {
        let health = pipeline.health().await?;
        check(health["redis"]["state"] == "up", health.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_by_password_over_tls() {
    let password = Stack::get().value("KAFKA_SASL_PASSWORD");
    let (pipeline, receiver) = secure(scram(password)).await;
    delivers(&pipeline, &receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_by_certificate() {
    let stack = Stack::get();
    let kafka = json!({
        "bootstrap_servers": stack.value("KAFKA_SSL_BOOTSTRAP_SERVERS"),
        "security_protocol": "ssl",
        "tls": {
            "ca_file": stack.value("TLS_CA"),
            "cert_file": stack.value("TLS_CLIENT_CERT"),
            "key_file": stack.value("TLS_CLIENT_KEY"),
        },
    });
    let (pipeline, receiver) = secure(kafka).await;
    delivers(&pipeline, &receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_for_kafka_is_said_and_not_printed() {
    let (mut pipeline, _receiver) = secure(scram("not-the-password")).await;
    let output = pipeline.cdc(&["deploy", "FILE"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{said}");
    let address = Stack::get().value("KAFKA_SASL_SSL_BOOTSTRAP_SERVERS");
    assert!(said.contains("refuses our credentials") && said.contains(address), "{said}");
    assert!(!said.contains("not-the-password"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_for_the_target_is_waited_out_and_told() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("pgpw");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let right = pipeline.sink_mut("ev")["postgres"]["password"].take();
    pipeline.sink_mut("ev")["postgres"]["password"] = json!("not-the-password");
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    Producer::default().put(&topic, 0, &schemas.key(1), &schemas.insert(1, "x"));
    let _coordinator = pipeline.serve();
    let _webhook = pipeline.worker("wh");
    let mut worker = pipeline.worker("ev");
    let expected = BTreeSet::from([(0, 0)]);
    receiver.has(&expected).await;
    until("health tells what the target says", SOON, async || {
        let health = pipeline.sink_health("ev").await?;
        check(health.to_string().contains("password authentication failed"), health.to_string())
    })
    .await;
    assert!(worker.is_running(), "{}", worker.output());
    assert!(!worker.output().contains("not-the-password"));
    worker.kill();
    pipeline.sink_mut("ev")["postgres"]["password"] = right;
    let _worker = pipeline.worker("ev");
    pipeline.has_rows(&expected, SOON).await;
}

/// Kafka as a user without any right but those given.
fn role(user: &str) -> Value {
    let stack = Stack::get();
    json!({
        "bootstrap_servers": stack.value("KAFKA_SASL_SSL_BOOTSTRAP_SERVERS"),
        "security_protocol": "sasl_ssl",
        "sasl": {
            "mechanism": "PLAIN",
            "username": user,
            "password": stack.value("KAFKA_ROLE_PASSWORD"),
        },
        "tls": {"ca_file": stack.value("TLS_CA")},
    })
}

fn become_role(pipeline: &mut Pipeline, user: &str) {
    for (name, value) in role(user).as_object().unwrap() {
        pipeline.config["kafka"][name] = value.clone();
    }
}

/// The list in the README, word by word.
fn least_rights(pipeline: &Pipeline) -> Rights {
    use May::{Create, Describe, DescribeConfigs, Read, Write};
    let (topic, group) = (pipeline.topic(), pipeline.group());
    let (dlq, control) = (format!("{topic}.dlq"), format!("{group}.control"));
    let (wh, ev) = (pipeline.sink_group("wh"), pipeline.sink_group("ev"));
    let signal = format!("__debezium-signal.{}", pipeline.id);
    let heartbeat = format!("__debezium-heartbeat.{}", pipeline.id);
    let planned = [
        topic.clone(),
        dlq.clone(),
        control.clone(),
        signal.clone(),
        heartbeat.clone(),
        format!("__debezium-notification.{}", pipeline.id),
        format!("{}.message", pipeline.id),
    ];
    let mut rights = Rights::default();
    for planned in &planned {
        rights.give("cdc_deploy", &[(On::Topic(planned), &[Create, DescribeConfigs])]);
    }
    rights.give(
        "cdc_deploy",
        &[
            (On::Topic(&signal), &[Read]),
            (On::Group(&format!("{group}.~signal")), &[Read]),
            (On::Group(&group), &[Describe]),
        ],
    );
    rights.give(
        "cdc_coordinator",
        &[
            (On::Topic(&topic), &[Read]),
            (On::Topic(&dlq), &[Read]),
            (On::Topic(&heartbeat), &[Describe]),
            (On::Topic(&control), &[Read, Write]),
            (On::TransactionalId(&control), &[Describe, Write]),
            (On::Group(&group), &[Read]),
            (On::Group(&format!("{group}.~coordinator")), &[Read]),
            (On::Group(&wh), &[Read]),
            (On::Group(&ev), &[Read]),
        ],
    );
    rights.give(
        "cdc_worker",
        &[
            (On::Topic(&topic), &[Read]),
            (On::Topic(&control), &[Read]),
            (On::Topic(&dlq), &[Read, Write]),
            (On::Group(&wh), &[Read]),
            (On::Group(&ev), &[Read]),
        ],
    );
    rights.give(
        "cdc_operator",
        &[(On::Topic(&topic), &[Read]), (On::Group("cdc-consume"), &[Describe])],
    );
    rights
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_does_its_work_with_the_least_rights_in_kafka() {
    let receiver = Receiver::start().await;
    let refused = json!({"id": 1});
    receiver.answer(move |delivery| if delivery.key == refused { 422 } else { 204 });
    let mut pipeline = Pipeline::new("acl");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    pipeline.config["kafka"]["topics"] = json!({"partitions": 1});
    let create = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text);";
    let source = postgres::source_with(&pipeline, create).await;

    become_role(&mut pipeline, "cdc_deploy");
    let refused = pipeline.cdc(&["deploy", "FILE"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(77), "without any right: {said}");
    let _rights = least_rights(&pipeline);
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let again = pipeline.cdc_ok(&["deploy", "FILE"]).await;
    assert!(again.contains("unchanged"), "{again}");

    become_role(&mut pipeline, "cdc_coordinator");
    let coordinator = pipeline.serve();
    // It has read its file.
    until("the coordinator listens", SOON, async || {
        check(coordinator.output().contains("coordinator listens"), coordinator.output())
    })
    .await;
    become_role(&mut pipeline, "cdc_worker");
    let workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    let insert = format!("INSERT INTO {}.t VALUES ($1, 'x')", pipeline.id);
    for id in 0..3_i64 {
        source.execute(&insert, &[&id]).await.unwrap();
    }
    let topic = pipeline.topic();
    until("rows, events and the dead letter have come", SOON, async || {
        let letters = kafka::events(&format!("{topic}.dlq"), 1).len();
        let counts = (pipeline.rows().await.len(), receiver.acknowledged().len(), letters);
        check(counts == (3, 2, 1), counts)
    })
    .await;
    let end = kafka::bounds(&topic, 0).1;
    pipeline.committed(0, end).await;
    pipeline.command(&["pause", "FILE", "--sink", "wh"]).await;
    pipeline.status("wh", "paused").await;
    pipeline.command(&["resume", "FILE", "--sink", "wh"]).await;
    pipeline.status("wh", "running").await;
    receiver.answer(|_| 204);
    pipeline.command(&["dlq", "replay", "FILE", "--sink", "wh"]).await;
    assert_eq!(receiver.acknowledged().len(), 3);
    for process in [&coordinator, &workers[0], &workers[1]] {
        let log = process.output();
        let refusal = log.lines().find(|line| line.to_lowercase().contains("authoriz"));
        assert_eq!(refusal, None);
    }
    become_role(&mut pipeline, "cdc_operator");
    let shown = pipeline.cdc_ok(&["consume", "FILE", "--limit", "3", "--json"]).await;
    assert_eq!(shown.lines().count(), 3, "{shown}");
}
