//! TLS, passwords and certificates towards every service, on the stack's secure listeners.

use std::collections::BTreeSet;

use cdc_tests::kafka::Producer;
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
