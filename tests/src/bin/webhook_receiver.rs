//! A webhook receiver for trying a pipeline: takes every event, prints one line for each, keeps
//! the bodies as JSON lines and counts.
//!
//! `POST` (or `PUT`, `PATCH`) on any path takes an event; `GET /count` answers with the counts.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get};
use axum::{Json, Router};
use clap::Parser;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Takes the events of a webhook sink, prints one line for each and counts them.
#[derive(Parser)]
#[command(after_help = "Example: webhook_receiver --bind 127.0.0.1:8000 --file events.jsonl")]
struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8000")]
    bind: String,
    /// File for the bodies, one JSON object per line; emptied at the start.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Ask a receiver at this address whether it answers, and end: the health check of a container.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["bind", "file"])]
    probe: Option<String>,
}

/// What `GET /count` says.
#[derive(Default, Clone, Serialize)]
struct Counts {
    /// Requests with a body that was taken.
    requests: u64,
    /// Different events among them, by topic, partition and offset.
    events: u64,
    /// Different events by operation: c, u, d, r.
    operations: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Received {
    counts: Counts,
    seen: HashSet<(String, i64, i64)>,
    file: Option<File>,
}

type Shared = Arc<Mutex<Received>>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(address) = &options.probe {
        return cdc_shared::probe::probe(address, "/count").tell("webhook_receiver", address);
    }
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("webhook_receiver: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), String> {
    let file = match &options.file {
        Some(path) => {
            Some(File::create(path).map_err(|error| format!("{}: {error}", path.display()))?)
        }
        None => None,
    };
    let received: Shared = Arc::new(Mutex::new(Received { file, ..Received::default() }));
    let routes = Router::new().route("/count", get(count)).fallback(any(take)).with_state(received);
    let listener = TcpListener::bind(&options.bind)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.bind))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("webhook_receiver: listening on {address}");
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let server = axum::serve(listener, routes);
    tokio::select! {
        ended = async { server.await } => ended.map_err(|error| error.to_string()),
        _ = term.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn count(State(received): State<Shared>) -> Json<Counts> {
    Json(received.lock().unwrap_or_else(PoisonError::into_inner).counts.clone())
}

/// 2xx only once the event is in the file.
async fn take(State(received): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(event) = Event::parse(&body) else {
        eprintln!("webhook_receiver: a body that is no event, {} bytes", body.len());
        return StatusCode::BAD_REQUEST;
    };
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or("no id");
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &mut received.file {
        let mut line = body.to_vec();
        line.push(b'\n');
        if let Err(error) = file.write_all(&line) {
            eprintln!("webhook_receiver: {error}");
            return StatusCode::INSUFFICIENT_STORAGE;
        }
    }
    let new = received.seen.insert(event.place());
    received.counts.requests += 1;
    if new {
        received.counts.events += 1;
        *received.counts.operations.entry(event.operation.clone()).or_default() += 1;
    }
    println!("{}{} ({id})", event.line(), if new { "" } else { ", again" });
    StatusCode::OK
}

/// What a line shows of an event.
struct Event {
    topic: String,
    partition: i64,
    offset: i64,
    operation: String,
    key: String,
    row: String,
}

impl Event {
    /// `None` when the body is not what a webhook sink sends.
    fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let metadata = &body["metadata"];
        let value = &body["value"];
        let operation = value["op"].as_str().unwrap_or("tombstone");
        let row = if operation == "d" { &value["before"] } else { &value["after"] };
        Some(Self {
            topic: metadata["topic"].as_str()?.to_owned(),
            partition: metadata["partition"].as_i64()?,
            offset: metadata["offset"].as_i64()?,
            operation: operation.to_owned(),
            key: body["key"].to_string(),
            row: row.to_string(),
        })
    }

    fn place(&self) -> (String, i64, i64) {
        (self.topic.clone(), self.partition, self.offset)
    }

    fn line(&self) -> String {
        let Self { topic, partition, offset, operation, key, row } = self;
        format!("{operation} {topic}[{partition}]@{offset} {key} {row}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn post(received: &Shared, body: &str) -> StatusCode {
        let body = Bytes::copy_from_slice(body.as_bytes());
        take(State(received.clone()), HeaderMap::new(), body).await
    }

    #[tokio::test]
    async fn an_event_that_comes_again_counts_once() {
        let received = Shared::default();
        let event = |offset| {
            format!(
                r#"{{"key":{{"id":1}},"value":{{"op":"c","after":{{"id":1}}}},
                    "metadata":{{"topic":"t","partition":0,"offset":{offset}}}}}"#
            )
        };
        assert_eq!(post(&received, &event(1)).await, StatusCode::OK);
        assert_eq!(post(&received, &event(2)).await, StatusCode::OK);
        assert_eq!(post(&received, &event(1)).await, StatusCode::OK);
        assert_eq!(post(&received, "not json").await, StatusCode::BAD_REQUEST);
        assert_eq!(post(&received, "{}").await, StatusCode::BAD_REQUEST);
        let Json(counts) = count(State(received)).await;
        assert_eq!((counts.requests, counts.events), (3, 2));
        assert_eq!(counts.operations["c"], 2);
    }

    #[test]
    fn a_delete_shows_what_was_deleted() {
        let body = br#"{"key":{"id":7},"value":{"op":"d","before":{"id":7},"after":null},
                        "metadata":{"topic":"t","partition":2,"offset":9}}"#;
        let event = Event::parse(body).unwrap();
        assert_eq!(event.line(), r#"d t[2]@9 {"id":7} {"id":7}"#);
    }
}
