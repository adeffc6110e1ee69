//! The interface by HTTP: who may call what, and what is refused.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use axum::body::to_bytes;
use axum::response::IntoResponse;
use cdc_shared::api::ErrorBody;
use cdc_shared::config::{PipelineConfig, TokenConfig, WatermarkStore as StoreKind};
use cdc_shared::registry::Registry;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::*;
use crate::control::{ControlLog, Reader};
use crate::dlq::DeadLetters;
use crate::fleet::Fleet;
use crate::group::{GroupTicker, Members};
use crate::health::Probes;
use crate::health::tests::heartbeat;
use crate::kafka::Cluster;
use crate::metrics::Metrics;
use crate::monitor::LagMonitor;
use crate::scaling::Scaling;
use crate::schema::SchemaMonitor;
use crate::task::Ending;
use crate::watermark::{MemoryStore, StoreError};

async fn answer(error: ApiError) -> (u16, ErrorBody) {
    let response = error.into_response();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 65_536).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn refusals_have_one_shape_and_stable_codes() {
    let unreadable = StoreError::Unavailable { address: "redis://r".into(), cause: "gone".into() };
    for (error, status, code) in [
        (ApiError::not_leader(None), 409, "not_leader"),
        (ApiError::wrong_pipeline("a", "b"), 422, "wrong_pipeline"),
        (ApiError::store(&unreadable), 503, "store_unreadable"),
        (ApiError::unauthorized("worker"), 401, "unauthorized"),
    ] {
        let (found, body) = answer(error).await;
        assert_eq!((found, body.code.as_str()), (status, code));
        assert!(body.hint.is_some());
    }
}

/// A coordinator that leads, as far as it knows, without any Kafka.
struct Running {
    coordinator: Arc<Coordinator>,
    address: SocketAddr,
    client: Client,
    stop: CancellationToken,
    _reader: Reader,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn running(tokens: TokenConfig) -> Running {
    cdc_shared::tls::install_crypto();
    let mut config = PipelineConfig {
        pipeline_id: "demo".into(),
        group_id: "cdc-demo".into(),
        ..PipelineConfig::default()
    };
    config.kafka.bootstrap_servers = "127.0.0.1:1".into();
    config.coordinator.watermark_store = StoreKind::Memory;
    config.coordinator.tokens = tokens;
    let config = Arc::new(config);
    let registry = Arc::new(Registry::new(&config.kafka).unwrap());
    let reader = Reader::start(&config.kafka, "cdc-demo", "cdc-demo.control").unwrap();
    let coordinator = Arc::new(Coordinator {
        access: Arc::new(Access::new(&config.coordinator.tokens)),
        certificates: None,
        control: ControlLog::new(&reader),
        fleet: Fleet::new(config.heartbeat_interval()),
        store: Arc::new(MemoryStore::default()),
        cluster: Cluster::new(&config.kafka, &config.group_id).unwrap(),
        group: GroupTicker::default(),
        lag: LagMonitor::new(Arc::clone(&registry)),
        scaling: Scaling::default(),
        schemas: SchemaMonitor::new(Arc::clone(&registry)),
        letters: DeadLetters::new(&config, Arc::clone(&registry)),
        probes: Probes::new(&config, Arc::clone(&registry)).unwrap(),
        registry,
        metrics: Metrics::default(),
        leading: AtomicBool::new(true),
        removed: Mutex::new(Members::new()),
        ending: Ending::default(),
        config,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(Arc::clone(&coordinator), listener, stop.clone()));
    let client = Client::builder().no_proxy().build().unwrap();
    Running { coordinator, address, client, stop, _reader: reader }
}

impl Running {
    async fn ask(&self, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        Self::told(request.json(&body)).await
    }

    async fn told(request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn beat(&self, change: impl FnOnce(&mut Value)) -> (u16, Value) {
        let mut beat = serde_json::to_value(heartbeat("wh", "w1", &[("cdc.t", 0, 5)])).unwrap();
        change(&mut beat);
        self.ask(Method::POST, HEARTBEAT_PATH, "", beat).await
    }
}

#[tokio::test]
async fn every_path_demands_its_role() {
    let tokens = TokenConfig {
        worker: Some("worker".into()),
        operator: Some("operator".into()),
        reader: Some("reader".into()),
        named: Vec::new(),
    };
    let running = running(tokens).await;
    let watermarks = WATERMARKS_PATH.replace("{sink}", "wh");
    for (method, path, allowed) in [
        (Method::GET, HEALTH_PATH, &["reader", "operator"][..]),
        (Method::GET, STATUS_PATH, &["reader", "operator"]),
        (Method::GET, SCALING_PATH, &["reader", "operator"]),
        (Method::GET, "/metrics", &["reader", "operator"]),
        (Method::POST, HEARTBEAT_PATH, &["worker"]),
        (Method::GET, watermarks.as_str(), &["worker"]),
        (Method::POST, COMMAND_PATH, &["operator"]),
        (Method::GET, "/livez", &["", "x", "worker", "reader", "operator"]),
        (Method::GET, "/readyz", &["", "x", "worker", "reader", "operator"]),
    ] {
        for token in ["", "x", "worke", "worker", "reader", "operator"] {
            let (status, body) = running.ask(method.clone(), path, token, json!({})).await;
            let passed = status != 401;
            assert_eq!(passed, allowed.contains(&token) || path.ends_with('z'), "{path} {token}");
            assert!(passed || body["code"] == "unauthorized", "{path}: {body}");
        }
    }
    let lower = running.client.get(format!("http://{}{HEALTH_PATH}", running.address));
    let lower = lower.header("authorization", "bearer reader");
    assert_eq!(Running::told(lower).await.0, 200, "the scheme's case does not matter");
}

#[tokio::test]
async fn an_address_that_guesses_is_made_to_wait() {
    let tokens = TokenConfig { reader: Some("reader".into()), ..TokenConfig::default() };
    let running = running(tokens).await;
    let ask = async |token: &str| {
        let url = format!("http://{}{HEALTH_PATH}", running.address);
        let answer = running.client.get(url).bearer_auth(token).send().await.unwrap();
        let wait =
            answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
        (answer.status().as_u16(), wait)
    };
    let mut refused = 0;
    let wait = loop {
        let (status, wait) = ask("guess").await;
        if status == 429 {
            break wait;
        }
        assert_eq!(status, 401);
        refused += 1;
        assert!(refused < 1000, "never made to wait");
    };
    assert!(refused >= 60, "{refused}");
    assert!(matches!(wait.as_deref(), Some("1" | "2")), "{wait:?}");
    assert_eq!(ask("reader").await.0, 429, "a guess that is right tells nothing either");
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_reach_a_coordinator_without_tokens() {
    let running = running(TokenConfig::default()).await;
    let with_host = |host: &str| {
        let request = running.client.get(format!("http://{}{HEALTH_PATH}", running.address));
        Running::told(request.header("host", host))
    };
    let (status, body) = with_host("evil.example:8090").await;
    assert_eq!((status, &body["code"]), (403, &json!("foreign_host")));
    for host in ["localhost:8090", "127.0.0.1", "[::1]:8090", "LOCALHOST"] {
        assert_eq!(with_host(host).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn a_heartbeat_with_nonsense_is_refused_and_nothing_of_it_is_kept() {
    let running = running(TokenConfig::default()).await;
    let long = "x".repeat(400);
    let nonsense: Vec<(&str, Value)> = vec![
        ("/partitions/0/position/next", json!(-1001)),
        ("/partitions/0/position/next", json!(1e300)),
        ("/partitions/0/position/next", json!(i64::MAX)),
        ("/partitions/0/next_source_ms", json!(i64::MIN)),
        ("/partitions/0/last_flush_ms", json!(i64::MAX)),
        ("/partitions/0/position/topic_id", json!("a b")),
        ("/partitions/0/position/topic_id", json!("")),
        ("/partitions/0/topic", json!("no/topic")),
        ("/partitions/0/topic", json!("")),
        ("/partitions/0/partition", json!(-1)),
        ("/sink_id", json!("a/b")),
        ("/sink_id", json!("~trial")),
        ("/sink_id", json!(long)),
        ("/worker/id", json!("")),
        ("/state", json!("zombie")),
        ("/counters", json!(null)),
    ];
    for (path, value) in nonsense {
        let (status, body) =
            running.beat(|beat| *beat.pointer_mut(path).unwrap() = value.clone()).await;
        assert_eq!((status, &body["code"]), (400, &json!("invalid")), "{path} {value}: {body}");
    }
    assert!(running.coordinator.fleet.workers(std::time::Instant::now()).is_empty());
    let (status, body) = running.beat(|beat| beat["pipeline_id"] = json!("other")).await;
    assert_eq!((status, &body["code"]), (422, &json!("wrong_pipeline")));
    // Of an older or a newer version.
    let (status, body) = running
        .beat(|beat| {
            beat.as_object_mut().unwrap().remove("sequence");
            beat["partitions"][0].as_object_mut().unwrap().remove("hold");
            beat["partitions"][0]["schema_of_next_year"] = json!({"a": 1});
            beat["weather"] = json!("fine");
        })
        .await;
    assert_eq!((status, &body["directive"]["state"]), (200, &json!("run")), "{body}");
    let stored = running.coordinator.store.read("wh").await.unwrap();
    assert_eq!(stored.len(), 1);
}

#[tokio::test]
async fn bodies_of_the_wrong_size_or_kind_get_an_answer_of_the_one_shape() {
    let running = running(TokenConfig::default()).await;
    let url = format!("http://{}{HEARTBEAT_PATH}", running.address);
    let post = |body: String, kind: &'static str| {
        Running::told(running.client.post(&url).header("content-type", kind).body(body))
    };
    let json_kind = "application/json";
    let deep = "[".repeat(100_000);
    for (body, kind, status) in [
        (String::new(), json_kind, 400),
        ("{".to_owned(), json_kind, 400),
        (deep, json_kind, 400),
        ("{}".to_owned(), "text/plain", 415),
        (" ".repeat(MAX_BODY_BYTES + 1), json_kind, 413),
    ] {
        let (found, answer) = post(body, kind).await;
        assert_eq!((found, &answer["code"]), (status, &json!("invalid")), "{answer}");
    }
    let (status, answer) = running.ask(Method::GET, COMMAND_PATH, "", Value::Null).await;
    assert_eq!((status, &answer["code"]), (405, &json!("wrong_method")));
    let (status, answer) = running.ask(Method::GET, "/v2/health", "", Value::Null).await;
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
}

/// A text beyond what a Kafka record may hold would end the leader's producer.
#[tokio::test]
async fn a_command_with_a_huge_or_broken_text_is_refused() {
    let running = running(TokenConfig::default()).await;
    for (by, reason, said) in [
        ("me", "x".repeat(2_000_000), "reason is longer than 1000 characters"),
        ("me", "a\nb".to_owned(), "reason holds a control character: write it in one line"),
        ("a\u{1b}[2J", String::new(), "by holds a control character: write it in one line"),
    ] {
        let command = json!({"type": "stop", "sink": "wh", "reason": reason});
        let body = json!({"by": by, "command": command});
        let (status, answer) = running.ask(Method::POST, COMMAND_PATH, "", body).await;
        assert_eq!((status, &answer["message"]), (400, &json!(said)));
    }
}

#[tokio::test]
async fn a_caller_that_trickles_is_cut_off_and_keeps_nobody_waiting() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let head = Duration::from_millis(400);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || "ok"));
    let stop = CancellationToken::new();
    let served = tokio::spawn(connections::serve(listener, router, head, stop.clone()));
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nslow: ").await.unwrap();
    let begun = std::time::Instant::now();
    let mut answer = Vec::new();
    let cut = loop {
        // One more letter each time, so that the connection is never idle.
        let mut rest = [0; 512];
        tokio::select! {
            read = slow.read(&mut rest) => match read {
                Ok(0) | Err(_) => break begun.elapsed(),
                Ok(read) => answer.extend_from_slice(&rest[..read]),
            },
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                if slow.write_all(b"a").await.is_err() {
                    break begun.elapsed();
                }
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it may go on for ever");
    };
    assert!(cut >= head && cut < head * 10, "{cut:?}");
    assert!(!String::from_utf8_lossy(&answer).contains("200"), "{answer:?}");
    // Meanwhile, and behind it, others are served.
    let client = Client::builder().no_proxy().build().unwrap();
    let _idle = tokio::net::TcpStream::connect(address).await.unwrap();
    let answer = client.get(format!("http://{address}/")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), served).await.unwrap().unwrap();
}
