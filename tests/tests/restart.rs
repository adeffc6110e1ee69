//! `cdc restart`: workers let go and go on exactly there, whenever they come to hear of it.

use std::process::{Command, Stdio};

use cdc_tests::kafka;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::process::{Process, binary};
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::wait::{SOON, check, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::holds::{fill, offsets};

const OF_SINK: &str = "restarted by an operator";
const OF_TABLE: &str = "begins anew, as an operator asked";

async fn says(worker: &Process, what: &str, times: usize) {
    until(&format!("the worker has said {what:?} {times} times"), SOON, async || {
        let log = worker.output();
        check(log.matches(what).count() == times, log)
    })
    .await;
}

/// Waits until a sink has everything up to there.
async fn delivers(pipeline: &Pipeline, sink: &str, filled: i64) {
    let (group, topic) = (pipeline.sink_group(sink), pipeline.topic());
    until("it delivers", SOON, async || {
        let found = [0, 1].map(|partition| kafka::committed(&group, &topic, partition));
        check(found == [Some(filled); 2], found)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_exactly_there() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("restart");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let workers = [("wh", pipeline.worker("wh")), ("ev", pipeline.worker("ev"))];
    let table = format!("{}.t", pipeline.id);
    let mut filled = 0;
    for round in 1..=3_i64 {
        for (sink, worker) in &workers {
            fill(&topic, schemas, 0, filled..filled + 10);
            fill(&topic, schemas, 1, filled..filled + 10);
            filled += 10;
            // One that begins behind it has nothing to restart.
            delivers(&pipeline, sink, filled).await;
            fill(&topic, schemas, 0, filled..filled + 40);
            fill(&topic, schemas, 1, filled..filled + 40);
            filled += 40;
            pipeline.command(&["restart", "FILE", "--sink", sink, "--reason", "a look"]).await;
            says(worker, OF_SINK, round as usize).await;
            fill(&topic, schemas, 0, filled..filled + 10);
            fill(&topic, schemas, 1, filled..filled + 10);
            filled += 10;
            delivers(&pipeline, sink, filled).await;
            // Of a table only its own partitions begin anew, inside the group.
            pipeline.command(&["restart", "FILE", "--sink", sink, "--table", &table]).await;
            says(worker, OF_TABLE, 2 * round as usize).await;
        }
    }
    for partition in 0..2 {
        pipeline.committed(partition, filled).await;
    }
    let expected = &offsets(0, 0..filled) | &offsets(1, 0..filled);
    pipeline.has_rows(&expected, SOON).await;
    // An orderly end repeats nothing, and nothing is missed.
    let mut events: Vec<_> = receiver.deliveries().iter().map(Delivery::event).collect();
    events.sort_unstable();
    assert_eq!(events, expected.into_iter().collect::<Vec<_>>());
    let audit = pipeline.cdc_ok(&["audit", "FILE"]).await;
    assert!(audit.contains("sink ev restarted: a look"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_reaches_who_was_away_and_ends_a_stop() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("late");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let mut coordinator = pipeline.serve();
    let worker = pipeline.worker("wh");
    fill(&topic, schemas, 0, 0..3);
    pipeline.committed(0, 3).await;
    // It hears of it from the control topic alone, after the fact.
    worker.freeze();
    pipeline.command(&["restart", "FILE", "--sink", "wh"]).await;
    coordinator.kill();
    worker.thaw();
    says(&worker, OF_SINK, 1).await;
    let _coordinator = pipeline.serve();
    fill(&topic, schemas, 0, 3..6);
    pipeline.committed(0, 6).await;
    // One that starts later has nothing to do.
    let second = pipeline.worker("wh");
    until("the second one is there", SOON, async || {
        let health = pipeline.sink_health("wh").await?;
        check(health["workers"].as_array().map_or(0, Vec::len) == 2, health.to_string())
    })
    .await;
    pipeline.command(&["stop", "FILE", "--sink", "wh"]).await;
    pipeline.status("wh", "stopped").await;
    fill(&topic, schemas, 0, 6..9);
    pipeline.command(&["restart", "FILE", "--sink", "wh"]).await;
    pipeline.committed(0, 9).await;
    says(&worker, OF_SINK, 1).await;
    says(&second, OF_SINK, 0).await;
    assert_eq!(receiver.deliveries().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_watched_until_it_is_interrupted() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("watch");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    fill(&topic, schemas, 0, 0..3);
    pipeline.committed(0, 3).await;
    let file = pipeline.file().display().to_string();
    for json in [false, true] {
        let log = pipeline.dir().join(format!("watched-{json}"));
        let mut line = vec!["status", &file, "--watch", "--interval", "0.1"];
        line.extend(json.then_some("--json"));
        let mut watching = Command::new(binary("cdc"))
            .args(&line)
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let shown = async || std::fs::read_to_string(&log).unwrap();
        let head = if json { "\"pipeline_id\"" } else { "SERVICE" };
        until("the status is shown again and again", SOON, async || {
            let shown = shown().await;
            check(shown.matches(head).count() >= 3, shown)
        })
        .await;
        kill_process(Pid::from_child(&watching), Signal::INT).unwrap();
        assert!(watching.wait().unwrap().success());
        let shown = shown().await;
        assert!(!shown.contains('\x1b'), "no terminal, no moving about: {shown}");
        if json {
            let document = |line: &str| serde_json::from_str::<Value>(line).unwrap();
            assert!(shown.lines().all(|line| document(line)["partitions"].is_array()));
        }
    }
}
