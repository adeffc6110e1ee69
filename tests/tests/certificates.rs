//! Certificates that are not to be believed: expired, or another host's, at every service that we
//! connect to. Each is refused with a message that names the service and what is wrong.

use cdc_tests::front::{Authority, Shown, Spoken};
use cdc_tests::kafka::Producer;
use cdc_tests::pipeline::{Pipeline, run_cdc};
use cdc_tests::receiver::Receiver;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

fn port(address: &str) -> u16 {
    let address = address.trim_end_matches('/').split('/').nth(2).unwrap_or(address);
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// What a client of ours says of it.
fn words(shown: Shown) -> &'static [&'static str] {
    match shown {
        Shown::Right => &[],
        Shown::Expired => &["expired", "certificate verify failed"],
        Shown::OfAnother => &["not valid for", "certificate verify failed"],
    }
}

#[track_caller]
fn names(said: &str, service: &str, shown: Shown) {
    let reason = words(shown).iter().any(|word| said.contains(word));
    assert!(said.contains(service) && reason, "{service}, {shown:?}: {said}");
}

/// A pipeline that reaches source, Kafka, registry, Connect and Redis through doors that show this.
async fn behind(shown: Shown) -> Pipeline {
    let stack = Stack::get();
    let mut pipeline = Pipeline::new("cert");
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    let authority = Authority::new(pipeline.dir());
    let tls = json!({"ca_file": authority.file});
    let door = async |to, spoken| authority.door(to, spoken, shown).await;
    let source = door(stack.postgres_port(), Spoken::Postgres).await;
    let kafka = door(port(stack.kafka()), Spoken::Tls).await;
    let registry = door(port(stack.registry()), Spoken::Tls).await;
    let connect = door(port(stack.connect()), Spoken::Tls).await;
    let redis = door(port(stack.value("REDIS_URL")), Spoken::Tls).await;
    let path = stack.registry().splitn(4, '/').nth(3).unwrap_or_default();
    let config = &mut pipeline.config;
    config["source"]["host"] = json!("localhost");
    config["source"]["port"] = json!(source);
    config["source"]["ssl"] = json!({"mode": "verify-full", "ca_file": authority.file});
    config["kafka"]["bootstrap_servers"] = json!(format!("localhost:{kafka}"));
    config["kafka"]["security_protocol"] = json!("ssl");
    config["kafka"]["tls"] = tls.clone();
    config["kafka"]["schema_registry_url"] = json!(format!("https://localhost:{registry}/{path}"));
    config["kafka"]["schema_registry"] = json!({"tls": tls});
    config["connector"] =
        json!({"connect_url": format!("https://localhost:{connect}"), "tls": tls});
    config["coordinator"]["watermark_store"] = json!("redis");
    config["redis"] = json!({"url": format!("rediss://localhost:{redis}"), "tls": tls});
    pipeline
}

/// What `cdc health` says once it says what is looked for. It has three seconds, which on a busy
/// machine is not always enough to hear of everything.
async fn health(pipeline: &Pipeline, has: impl Fn(&Value) -> bool) -> Value {
    let line = ["health".to_owned(), pipeline.file().display().to_string(), "--json".to_owned()];
    until("health says it", SOON, async || {
        let output = run_cdc(&line).await;
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        check(has(&report), format!("{report:#}"))?;
        Ok::<_, String>(report)
    })
    .await
}

fn message(report: &Value, code: &str) -> String {
    let reasons = report["reasons"].as_array().cloned().unwrap_or_default();
    let found = reasons.iter().find(|reason| reason["code"] == code);
    found.map_or_else(|| format!("no {code}"), |reason| reason["message"].to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_is_believed_with_an_expired_certificate_or_with_anothers() {
    // With the right one all is well, so that it is the certificate that is refused.
    let right = behind(Shown::Right).await;
    health(&right, |report| {
        let is_up = |part: &&str| report[part]["state"] == "up";
        ["schema_registry", "connect", "redis"].iter().all(is_up)
            && report["source"]["error"].is_null()
    })
    .await;
    for shown in [Shown::Expired, Shown::OfAnother] {
        let mut pipeline = behind(shown).await;
        let services = [
            ("Kafka", "kafka_down"),
            ("registry", "registry_down"),
            ("Kafka Connect", "connect_down"),
            ("watermark store", "redis_down"),
            ("PostgreSQL", "source_unreadable"),
        ];
        health(&pipeline, |report| {
            services.iter().all(|(service, code)| {
                let said = message(report, code);
                said.contains(service) && words(shown).iter().any(|word| said.contains(word))
            })
        })
        .await;
        let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "{said}");
        for service in ["Kafka at", "schema registry at", "Kafka Connect at", "PostgreSQL at"] {
            let line = said.lines().find(|line| line.contains(service));
            names(line.unwrap_or(&said), service, shown);
        }
        // What runs says the same.
        let _coordinator = pipeline.serve();
        until("the coordinator tells them all", SOON, async || {
            let report = pipeline.health().await?;
            let told = ["kafka_down", "registry_down", "connect_down", "redis_down"];
            let all = told
                .iter()
                .all(|code| words(shown).iter().any(|word| message(&report, code).contains(word)));
            check(all, report["reasons"].to_string())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mysql_is_believed_with_an_expired_certificate_or_with_anothers() {
    for family in ["mysql", "mariadb"] {
        for shown in [Shown::Expired, Shown::OfAnother] {
            let mut pipeline = Pipeline::new("certmy");
            pipeline.webhook("wh", "http://127.0.0.1:1/");
            let authority = Authority::new(pipeline.dir());
            let port = authority.door(1, Spoken::Mysql, shown).await;
            let source = pipeline.config["source"].as_object_mut().unwrap();
            source.remove("slot_name");
            source.insert("source_type".to_owned(), json!(family));
            source.insert("host".to_owned(), json!("localhost"));
            source.insert("port".to_owned(), json!(port));
            let ssl = json!({"mode": "verify-full", "ca_file": authority.file});
            source.insert("ssl".to_owned(), ssl);
            let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = said.lines().find(|line| line.contains(&port.to_string()));
            let name = if family == "mysql" { "MySQL" } else { "MariaDB" };
            names(line.unwrap_or(&said), name, shown);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sink_and_no_coordinator_is_believed_with_an_expired_certificate_or_with_anothers() {
    let receiver = Receiver::start().await;
    for shown in [Shown::Expired, Shown::OfAnother] {
        let mut pipeline = Pipeline::new("certsink");
        pipeline.webhook("wh", &receiver.url()).events("ev").await;
        let schemas = pipeline.topics(1).await;
        let authority = Authority::new(pipeline.dir());
        let tls = json!({"ca_file": authority.file});
        let target = authority.door(Stack::get().postgres_port(), Spoken::Postgres, shown).await;
        let section = &mut pipeline.sink_mut("ev")["postgres"];
        section["host"] = json!("localhost");
        section["port"] = json!(target);
        section["sslmode"] = json!("verify-full");
        section["ssl_ca_file"] = json!(authority.file);
        let hook = authority.door(port(&receiver.url()), Spoken::Tls, shown).await;
        let section = &mut pipeline.sink_mut("wh")["webhook"];
        section["url"] = json!(format!("https://localhost:{hook}/"));
        section["tls"] = tls.clone();
        let _coordinator = pipeline.serve();
        let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
        Producer::default().put(&pipeline.topic(), 0, &schemas.key(1), &schemas.insert(1, "x"));
        for (sink, place) in [("wh", hook), ("ev", target)] {
            until(&format!("{sink} says what it does not believe"), SOON, async || {
                let health = pipeline.sink_health(sink).await?;
                let said = health["last_error"]["message"].to_string();
                let reason = words(shown).iter().any(|word| said.contains(word));
                check(reason && said.contains(&place.to_string()), health.to_string())
            })
            .await;
        }
        // A worker, and a command, that find the coordinator behind such a door.
        let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap().to_owned();
        let door = authority.door(port(&bind), Spoken::Tls, shown).await;
        pipeline.config["coordinator"]["url"] = json!(format!("https://localhost:{door}"));
        pipeline.config["coordinator"]["tls"] = tls;
        let output = pipeline.cdc(&["status", "FILE"]).await;
        names(&String::from_utf8_lossy(&output.stderr), "the coordinator at", shown);
        let worker = pipeline.worker("wh");
        until("the worker says so too", SOON, async || {
            let log = worker.output();
            let reason = words(shown).iter().any(|word| log.contains(word));
            check(reason && log.contains("heartbeat not taken"), log)
        })
        .await;
        assert!(receiver.deliveries().is_empty(), "{shown:?}");
    }
}
