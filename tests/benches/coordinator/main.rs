//! What a large fleet costs the coordinator: 1,000 partitions of ten tables, told by 100 workers that all
//! speak at once every two seconds, with Redis. Prints what it found, and fails beyond the bounds: a
//! tenth of a core, 100 MB, and 50 ms for `GET /v1/status`.
//!
//! `BENCH_SECONDS` (20): for how long it is watched.
#![expect(clippy::unwrap_used, reason = "what cannot be measured is a failure")]
#![expect(clippy::print_stdout, reason = "its output is the result")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_shared::api::{
    Counters, HEARTBEAT_PATH, Heartbeat, PartitionReport, PartitionState, STATUS_PATH,
    WorkerIdentity, WorkerState,
};
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId};
use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::record::http;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{check, until};
use serde_json::{Value, json};

const WORKERS: usize = 100;
const TABLES: usize = 10;
/// Of each table.
const PARTITIONS: i32 = 100;
/// In each partition.
const RECORDS: i64 = 5;
const BEAT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(300);

const MOST_CPU: f64 = 0.10;
const MOST_MB: f64 = 100.0;
const LONGEST_STATUS: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    cdc_shared::tls::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if runtime.block_on(Box::pin(measure())) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure() -> bool {
    let seconds = cdc_shared::config::process_variables().remove("BENCH_SECONDS");
    let seconds: u64 = seconds.map_or(20, |text| text.parse().unwrap());
    let (pipeline, topics) = fleet().await;
    let coordinator = pipeline.serve();
    let base = format!("http://{}", pipeline.config["coordinator"]["bind"].as_str().unwrap());
    until("the coordinator leads", LONG, async || {
        let health = pipeline.health().await?;
        check(health["coordinator"]["leader"] == true, health["coordinator"].to_string())
    })
    .await;
    let beats = workers(&pipeline, &topics, &base);
    until("it knows every partition", LONG, async || {
        let status = status(&base).await.0;
        let known = status["partitions"].as_array().into_iter().flatten();
        let known = known.filter(|partition| partition["worker"].is_string()).count();
        check(known == TABLES * PARTITIONS as usize, known)
    })
    .await;
    let (begun, before) = (Instant::now(), coordinator.cpu_seconds().unwrap());
    let mut took = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds) {
        took.push(status(&base).await.1);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let cpu = (coordinator.cpu_seconds().unwrap() - before) / begun.elapsed().as_secs_f64();
    // What asking for its status costs is no part of what heartbeats cost.
    let (begun, before) = (Instant::now(), coordinator.cpu_seconds().unwrap());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let quiet = (coordinator.cpu_seconds().unwrap() - before) / begun.elapsed().as_secs_f64();
    beats.abort();
    took.sort_unstable();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    let memory = coordinator.peak_kib().unwrap() as f64 / 1024.0;
    println!("heartbeats of {WORKERS} workers, {} partitions", TABLES * PARTITIONS as usize);
    println!(
        "  CPU              {:5.1} % of a core (asked for its status twice a second: {:.1} %)",
        100.0 * quiet,
        100.0 * cpu
    );
    println!("  memory           {memory:5.1} MB at its peak");
    println!("  GET {STATUS_PATH}   {median:5.1?} in the middle, {worst:.1?} at worst");
    quiet < MOST_CPU && memory < MOST_MB && median < LONGEST_STATUS
}

/// Ten tables with a hundred partitions each.
async fn fleet() -> (Pipeline, Vec<String>) {
    let mut pipeline = Pipeline::new("fleet");
    pipeline.webhook("wh", "http://127.0.0.1:1/");
    let tables: Vec<String> = (0..TABLES).map(|n| format!("{}.t{n}", pipeline.id)).collect();
    let topics: Vec<String> =
        tables.iter().map(|table| format!("{}.{table}", pipeline.id)).collect();
    pipeline.config["source"]["tables"] = json!(tables);
    pipeline.config["coordinator"]["watermark_store"] = json!("redis");
    pipeline.config["coordinator"]["heartbeat_interval_seconds"] = json!(BEAT.as_secs());
    pipeline.config["redis"] = json!({"url": Stack::get().value("REDIS_URL")});
    pipeline.config.as_object_mut().unwrap().remove("lag_monitor_interval_seconds");
    let producer = Producer::default();
    for topic in &topics {
        kafka::create_topic(topic, PARTITIONS).await;
        for partition in 0..PARTITIONS {
            for _ in 0..RECORDS {
                producer.send(topic, partition, Some(b"key"), Some(b"value"));
            }
        }
        producer.flush();
    }
    (pipeline, topics)
}

async fn status(base: &str) -> (Value, Duration) {
    let client = http();
    // The connection is there already, as a console's is.
    let url = format!("{base}{STATUS_PATH}");
    client.get(format!("{base}/livez")).send().await.unwrap().text().await.unwrap();
    let begun = Instant::now();
    let text = client.get(&url).send().await.unwrap().text().await.unwrap();
    (serde_json::from_str(&text).unwrap_or_default(), begun.elapsed())
}

/// A hundred workers, each with its share of every table, that speak at the same moments.
fn workers(pipeline: &Pipeline, topics: &[String], base: &str) -> tokio::task::JoinHandle<()> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let ids = kafka::topic_ids(&names);
    let id = pipeline.id.clone();
    let reports = Arc::new(
        (0..WORKERS)
            .map(|worker| {
                let of_table = |topic: &String| (topic.clone(), ids[topic].clone());
                let partition = i32::try_from(worker).unwrap() % PARTITIONS;
                (worker, topics.iter().map(of_table).collect::<Vec<_>>(), partition)
            })
            .collect::<Vec<_>>(),
    );
    let url = format!("{base}{HEARTBEAT_PATH}");
    tokio::spawn(async move {
        let clients: Vec<reqwest::Client> = (0..WORKERS).map(|_| http()).collect();
        let mut tick = tokio::time::interval(BEAT);
        for sequence in 1_u64.. {
            tick.tick().await;
            let beats =
                reports.iter().zip(&clients).map(|((worker, tables, partition), client)| {
                    let beat = heartbeat(&id, *worker, tables, *partition, sequence);
                    client.post(&url).json(&beat).send()
                });
            let answers = futures::future::join_all(beats).await;
            assert!(answers.into_iter().all(|answer| answer.unwrap().status().is_success()));
        }
    })
}

fn heartbeat(
    pipeline: &str,
    worker: usize,
    tables: &[(String, TopicId)],
    partition: i32,
    sequence: u64,
) -> Heartbeat {
    let next = NextOffset::new(i64::try_from(sequence).unwrap() % (RECORDS + 1)).unwrap();
    let report = |(topic, topic_id): &(String, TopicId)| PartitionReport {
        topic: topic.clone(),
        partition,
        position: Some(Position {
            next,
            // So that each report is news, as on a fleet that delivers.
            incarnation: Incarnation(sequence),
            topic_id: topic_id.clone(),
            schemas: SchemaIds::default(),
        }),
        state: PartitionState::Running,
        hold: None,
        queue_depth: 3,
        last_flush_ms: Some(cdc_shared::clock::unix_ms()),
        next_source_ms: Some(cdc_shared::clock::unix_ms()),
    };
    Heartbeat {
        pipeline_id: pipeline.to_owned(),
        worker: WorkerIdentity {
            id: format!("worker-{worker}"),
            version: "0".to_owned(),
            config_hash: "0".to_owned(),
            admin_address: "127.0.0.1:1".to_owned(),
        },
        sink_id: "wh".to_owned(),
        state: WorkerState::Running,
        partitions: tables.iter().map(report).collect(),
        counters: Counters::default(),
        last_error: None,
        control_offset: 0,
        sequence,
        tasks: Vec::new(),
        schema_questions: Vec::new(),
        replays: Vec::new(),
    }
}
