//! Health on bad days: what it says, and how long it takes, whatever hangs.

use std::process::Output;
use std::time::{Duration, Instant};

use cdc_tests::pipeline::{Pipeline, run_cdc};
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

/// What the command promises, whatever hangs.
const PROMISE: Duration = Duration::from_secs(3);

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn codes(report: &Value) -> Vec<String> {
    let reasons = report["reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().map(|reason| reason["code"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Takes connections and never answers, as a process that is stopped.
struct Hung(std::net::TcpListener);

impl Hung {
    fn new() -> Self {
        Self(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Puts itself in the place of one part.
    fn instead_of(&self, what: &str, config: &mut Value) {
        let (port, address) = (self.port(), format!("127.0.0.1:{}", self.port()));
        match what {
            "kafka" => config["kafka"]["bootstrap_servers"] = json!(address),
            "registry" => {
                config["kafka"]["schema_registry_url"] = json!(format!("http://{address}"));
            }
            "connect" => config["connector"]["connect_url"] = json!(format!("http://{address}")),
            "redis" => config["redis"]["url"] = json!(format!("redis://{address}")),
            "source" => config["source"]["port"] = json!(port),
            _ => config["coordinator"]["bind"] = json!(address),
        }
    }
}

const PARTS: [(&str, &str); 6] = [
    ("kafka", "kafka_down"),
    ("registry", "registry_down"),
    ("connect", "connect_down"),
    ("redis", "redis_down"),
    ("source", "source_unreadable"),
    ("coordinator", "coordinator_down"),
];

/// A pipeline that keeps its watermarks in Redis.
fn with_redis(name: &str) -> Pipeline {
    let mut pipeline = Pipeline::new(name);
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    pipeline.config["coordinator"]["watermark_store"] = json!("redis");
    pipeline.config["redis"] = json!({"url": Stack::get().value("REDIS_URL")});
    pipeline
}

/// Runs `cdc health` and holds it to its promise. What this machine takes to start a program at all
/// comes on top: it may be busy.
async fn health_in_time(pipeline: &mut Pipeline) -> Output {
    let begun = Instant::now();
    run_cdc(&["--version".to_owned()]).await;
    let start = begun.elapsed();
    let begun = Instant::now();
    let output = pipeline.cdc(&["health", "FILE", "--json"]).await;
    let took = begun.elapsed();
    assert!(took < PROMISE + 2 * start, "{took:?}, of which a start takes {start:?}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ends_soon_and_keeps_its_shape_when_every_part_hangs() {
    let hung = Hung::new();
    let mut pipeline = with_redis("hung");
    for (part, _) in PARTS {
        hung.instead_of(part, &mut pipeline.config);
    }
    let output = health_in_time(&mut pipeline).await;
    assert_eq!(output.status.code(), Some(2));
    let report = report(&output);
    assert_eq!(report["pipeline_id"], json!(pipeline.id));
    assert_eq!(report["source"]["connector"]["state"], "UNKNOWN");
    assert_eq!(report["sinks"][0], json!({"sink_id": "wh", "status": "unknown", "enabled": true}));
    assert_eq!(report["consumer_lag"], json!([]));
    assert_eq!(codes(&report), PARTS.map(|(_, code)| code));
    // Each is named with its address.
    for reason in report["reasons"].as_array().unwrap() {
        let message = reason["message"].as_str().unwrap();
        assert!(message.contains(&hung.port().to_string()), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ends_soon_and_names_the_one_part_that_hangs() {
    let hung = Hung::new();
    for (part, code) in PARTS {
        let mut pipeline = with_redis("hang");
        hung.instead_of(part, &mut pipeline.config);
        // The connector was never deployed, and no coordinator runs.
        let mut expected = vec![code, "coordinator_down"];
        if part != "connect" {
            expected.push("connector_absent");
        }
        expected.sort_unstable();
        expected.dedup();
        // Another service of a busy machine may be late now and then.
        until(&format!("health names {part} alone"), SOON, async || {
            let report = report(&health_in_time(&mut pipeline).await);
            let mut found = codes(&report);
            found.sort_unstable();
            check(found == expected, report.to_string())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ends_soon_when_the_coordinator_is_frozen() {
    let mut pipeline = with_redis("frozen");
    pipeline.topics(1).await;
    let coordinator = pipeline.serve();
    until("the coordinator answers", SOON, async || pipeline.health().await).await;
    coordinator.freeze();
    until("health tells what it sees without it", SOON, async || {
        let report = report(&health_in_time(&mut pipeline).await);
        let found = codes(&report) == ["connector_absent", "coordinator_down"];
        check(found && report["kafka"]["state"] == "up", report.to_string())
    })
    .await;
    coordinator.thaw();
    until("health is the coordinator's again", SOON, async || {
        let report = report(&health_in_time(&mut pipeline).await);
        check(report["coordinator"]["leader"].is_boolean(), report.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_answers_soon_and_names_every_part_that_hangs() {
    let hung = Hung::new();
    let mut pipeline = with_redis("hanging");
    for (part, _) in &PARTS[..5] {
        hung.instead_of(part, &mut pipeline.config);
    }
    let _coordinator = pipeline.serve();
    until("health names every part", SOON, async || {
        let output = health_in_time(&mut pipeline).await;
        let report = report(&output);
        let codes = codes(&report);
        let all = PARTS[..5].iter().all(|(_, code)| codes.iter().any(|found| found == code));
        check(all && report["coordinator"]["version"].is_string(), report.to_string())
    })
    .await;
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
