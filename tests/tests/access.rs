//! Who may do what to a coordinator, what the audit trail tells of it, and that no secret is told.

use cdc_tests::kafka::Producer;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::receiver::Receiver;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use reqwest::{Certificate, Client, Identity};
use serde_json::{Value, json};

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(Stack::get().value(name)).unwrap()
}

fn client(with_certificate: bool) -> Client {
    cdc_shared::tls::install_crypto();
    let builder = Client::builder()
        .no_proxy()
        .tls_certs_only([Certificate::from_pem(&pem("TLS_CA")).unwrap()]);
    if !with_certificate {
        return builder.build().unwrap();
    }
    let both = [pem("TLS_CLIENT_CERT"), pem("TLS_CLIENT_KEY")].concat();
    builder.identity(Identity::from_pem(&both).unwrap()).build().unwrap()
}

/// A pipeline whose coordinator answers by TLS, to callers with a certificate and a token.
fn guarded(pipeline: &mut Pipeline) -> String {
    let stack = Stack::get();
    let tokens = pipeline.dir().join("operator");
    std::fs::write(&tokens, "operator-one\n").unwrap();
    let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap().to_owned();
    let url = format!("https://localhost:{}", bind.rsplit_once(':').unwrap().1);
    let coordinator = &mut pipeline.config["coordinator"];
    coordinator["url"] = json!(url);
    coordinator["server_tls"] = json!({
        "cert_file": stack.value("TLS_SERVER_CERT"),
        "key_file": stack.value("TLS_SERVER_KEY"),
        "client_ca_file": stack.value("TLS_CA"),
    });
    coordinator["tls"] = json!({
        "ca_file": stack.value("TLS_CA"),
        "cert_file": stack.value("TLS_CLIENT_CERT"),
        "key_file": stack.value("TLS_CLIENT_KEY"),
    });
    coordinator["tokens"] = json!({
        "worker": "worker-token",
        "operator": format!("${{file:{}}}", tokens.display()),
        "named": [{"name": "alice", "role": "reader", "token": "alices-token"}],
    });
    url
}

async fn get(client: &Client, url: &str, token: &str) -> Result<(u16, Value), String> {
    let answer = client.get(url).bearer_auth(token).send().await.map_err(|e| format!("{e:?}"))?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_tokens_and_their_change_guard_a_coordinator() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("guard");
    pipeline.webhook("wh", &receiver.url());
    let url = guarded(&mut pipeline);
    pipeline.topics(1).await;
    let coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let (client, status) = (client(true), format!("{url}/v1/status"));
    until("the worker reports by TLS", SOON, async || {
        let (code, body) = get(&client, &status, "alices-token").await?;
        let workers = body["sinks"][0]["workers"].as_array().map_or(0, Vec::len);
        check(code == 200 && workers == 1, body.to_string())
    })
    .await;
    let refused = get(&self::client(false), &status, "alices-token").await;
    assert!(refused.is_err(), "without a certificate: {refused:?}");
    let plain = get(&client, &status.replace("https:", "http:"), "alices-token").await;
    assert!(plain.is_err(), "without TLS: {plain:?}");
    assert_eq!(get(&client, &status, "other").await.unwrap().0, 401);

    let reason = "--reason=window";
    pipeline.command(&["pause", "FILE", "--sink", "wh", reason]).await;
    let trail = pipeline.cdc_ok(&["audit", "FILE", "--json"]).await;
    let trail: Value = serde_json::from_str(&trail).unwrap();
    let entry = &trail["entries"][0];
    assert!(entry["action"].as_str().unwrap().contains("paused"), "{trail:#}");
    let change = &entry["changes"][0];
    assert_eq!(change["key"], "directive/wh");
    assert_eq!(change["before"], Value::Null);
    assert_eq!(change["after"]["directive"]["state"], "pause", "{trail:#}");

    std::fs::write(pipeline.dir().join("operator"), "operator-two\n").unwrap();
    assert_eq!(get(&client, &status, "operator-two").await.unwrap().0, 401);
    coordinator.hang_up();
    until("the new token opens", SOON, async || {
        let (code, body) = get(&client, &status, "operator-two").await?;
        check(code == 200, body.to_string())
    })
    .await;
    assert_eq!(get(&client, &status, "operator-one").await.unwrap().0, 401);

    // One that cannot be read changes nothing.
    std::fs::remove_file(pipeline.dir().join("operator")).unwrap();
    coordinator.hang_up();
    until("the failure is told", SOON, async || {
        check(coordinator.output().contains("coordinator.reload_failed"), coordinator.output())
    })
    .await;
    assert_eq!(get(&client, &status, "operator-two").await.unwrap().0, 200);
}

/// What must never be seen again.
const PLANTED: &str = "PLANTED";

fn planted(name: &str) -> Value {
    json!(format!("{PLANTED}-{name}"))
}

/// Secrets of every section, as they are where nothing checks them, or with an account that has one.
fn plant(pipeline: &mut Pipeline) {
    let config = &mut pipeline.config;
    config["coordinator"]["tokens"] = json!({
        "worker": planted("worker"),
        "operator": planted("operator"),
        "reader": planted("reader"),
        "named": [{"name": "bob", "role": "operator", "token": planted("bob")}],
    });
    config["kafka"]["schema_registry"] = json!({"username": "u", "password": planted("registry")});
    config["connector"]["username"] = json!("u");
    config["connector"]["password"] = planted("connect");
    config["source"]["password"] = planted("source");
    config["redis"]["password"] = planted("redis");
    let webhook = &mut pipeline.sink_mut("wh")["webhook"];
    webhook["auth_token"] = planted("bearer");
    webhook["headers"] = json!({"x-api-key": planted("header")});
    let postgres = &mut pipeline.sink_mut("ev")["postgres"];
    postgres["password"] = planted("target");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_log_metric_or_message_tells_a_secret() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("secret");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    Producer::default().put(&topic, 0, &schemas.key(1), &schemas.insert(1, "x"));
    plant(&mut pipeline);
    let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap().to_owned();
    let coordinator = pipeline.serve();
    let workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    receiver.has(&[(0, 0)].into()).await;
    let client = client(false);
    let mut told = Vec::new();
    // The target's password is wrong, and so health has something to say of it.
    until("the wrong password is told", SOON, async || {
        let url = format!("http://{bind}/v1/health");
        let (_, health) = get(&client, &url, "PLANTED-reader").await?;
        check(health.to_string().contains("28P01"), health.to_string())
    })
    .await;
    for path in ["health", "status", "tasks", "schemas", "audit"] {
        for token in ["PLANTED-reader", "PLANTED-wrong"] {
            let url = format!("http://{bind}/v1/{path}");
            let answer = client.get(url).bearer_auth(token).send().await.unwrap();
            told.push((path.to_owned(), answer.text().await.unwrap()));
        }
    }
    let metrics = client.get(format!("http://{bind}/metrics")).bearer_auth("PLANTED-reader");
    told.push(("metrics".to_owned(), metrics.send().await.unwrap().text().await.unwrap()));
    pipeline.command(&["pause", "FILE", "--sink", "wh"]).await;
    for line in [
        &["validate", "FILE"][..],
        &["validate", "FILE", "--connect", "--json"],
        &["health", "FILE"],
        &["status", "FILE", "--json"],
        &["audit", "FILE"],
        &["deploy", "FILE"],
        &["verify", "FILE", "--sink", "ev"],
    ] {
        let output = pipeline.cdc(line).await;
        for bytes in [&output.stdout, &output.stderr] {
            told.push((line.join(" "), String::from_utf8_lossy(bytes).into_owned()));
        }
    }
    pipeline.config["source"]["pasword"] = planted("misspelt");
    let output = pipeline.cdc(&["validate", "FILE"]).await;
    assert_eq!(output.status.code(), Some(78));
    told.push(("mistake".to_owned(), String::from_utf8_lossy(&output.stderr).into_owned()));
    told.push(("coordinator's log".to_owned(), coordinator.output()));
    told.extend(workers.iter().map(|worker| ("a worker's log".to_owned(), worker.output())));
    for (what, text) in &told {
        assert!(!text.contains(PLANTED), "{what}: {text}");
    }
    let texts: usize = told.iter().filter(|(_, text)| text.len() > 20).count();
    assert!(texts > 15, "most of them said something: {texts}");
}
