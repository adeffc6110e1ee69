//! A rewind whose coordinator, or whose worker, is killed: at every step, and asked for again at each.

use cdc_tests::kafka;
use cdc_tests::pipeline::{Pipeline, run_cdc};
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::record::Schemas;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use cdc_tests::wire::{Half, Wire};
use serde_json::json;
use tokio_postgres::Client;

use super::holds::{fill, offsets};

const RECORDS: i64 = 10;
const TARGET: i64 = 2;
/// How the command is told from all others on the wire.
const ASKED: &str = "\"type\":\"rewind\"";

/// What the coordinator logs of it.
const WRITTEN: &str = "sink ev goes on with";
/// A record between target and end, as the sink is told it.
const MIDWAY: &str = "{\"id\":7}";

/// Where somebody dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The coordinator has not heard the command.
    Unheard,
    /// It has written the intent, and nobody was told.
    Unanswered,
    /// The worker has read the intent, and the sink's own record is as it was.
    Unrecorded,
    /// The sink's own record is set, and the worker does not know.
    Unknown,
    /// The first records have come again.
    Midway,
    /// All have, and neither the sink's group nor the coordinator knows.
    Uncommitted,
}

/// An events table that has ten records, behind a wire, with a coordinator behind another.
struct Rewound {
    pipeline: Pipeline,
    target: Client,
    sink_wire: Wire,
    api_wire: Wire,
    coordinator: Process,
    worker: Process,
}

impl Rewound {
    async fn new() -> Self {
        let sink_wire = Wire::start(Stack::get().postgres_port()).await;
        let mut pipeline = Pipeline::new("steps");
        let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap().to_owned();
        let port = bind.rsplit(':').next().unwrap().parse().unwrap();
        let api_wire = Wire::start(port).await;
        let url = format!("http://127.0.0.1:{}", api_wire.port);
        pipeline.config["coordinator"]["url"] = json!(url);
        pipeline.events("ev").await;
        let section = &mut pipeline.sink_mut("ev")["postgres"];
        section["port"] = json!(sink_wire.port);
        section["batch_size"] = json!(2);
        // The wire listens to what is said.
        section["sslmode"] = json!("disable");
        let schemas: Schemas = pipeline.topics(1).await;
        fill(&pipeline.topic(), schemas, 0, 0..RECORDS);
        let (coordinator, worker) = (pipeline.serve(), pipeline.worker("ev"));
        let target = postgres::target().await;
        Self { pipeline, target, sink_wire, api_wire, coordinator, worker }
    }

    /// Every record once, the sink's own record, its group and the pipeline's where they belong.
    async fn is_whole(&self, incarnation: i64) {
        let pipeline = &self.pipeline;
        pipeline.has_rows(&offsets(0, 0..RECORDS), SOON).await;
        let query = format!("SELECT next_offset, incarnation FROM {}.cdc_offsets", pipeline.id);
        until("the sink's own record", SOON, async || {
            let row = self.target.query_one(&query, &[]).await.map_err(|e| e.to_string())?;
            let found: (i64, i64) = (row.get(0), row.get(1));
            check(found == (RECORDS, incarnation), format!("{found:?}"))
        })
        .await;
        until("its group", SOON, async || {
            let found = kafka::committed(&pipeline.sink_group("ev"), &pipeline.topic(), 0);
            check(found == Some(RECORDS), found)
        })
        .await;
        pipeline.committed(0, RECORDS).await;
    }

    async fn mark(&self) {
        let mark = format!("UPDATE {} SET event_key = '\"old\"'", self.pipeline.events_table());
        self.target.batch_execute(&mark).await.unwrap();
    }

    /// What lies before the target was not touched; all the rest came again.
    async fn only_the_rest_came_again(&self) {
        let query = format!(
            "SELECT source_offset FROM {} WHERE event_key = '\"old\"' ORDER BY 1",
            self.pipeline.events_table()
        );
        let rows = self.target.query(&query, &[]).await.unwrap();
        let old: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(old, (0..TARGET).collect::<Vec<_>>());
    }

    fn line(&self) -> Vec<String> {
        let (file, topic, to) = (self.pipeline.file(), self.pipeline.topic(), TARGET.to_string());
        let file = file.display().to_string();
        let line =
            ["rewind", &file, "--yes", "--sink", "ev", "--topic", &topic, "--partition", "0"];
        line.into_iter().chain(["--to", &to]).map(str::to_owned).collect()
    }

    /// Asks until it is done: as a person would whom nobody has answered.
    async fn ask(&self) {
        let line = self.line();
        until("the rewind is taken", SOON, async || {
            let output = run_cdc(&line).await;
            check(output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        })
        .await;
    }

    /// The coordinator dies over a command that it has, or has not, carried out.
    async fn coordinator_dies(&mut self, heard: bool) {
        let half = if heard { Half::Answers } else { Half::Requests };
        let before = self.coordinator.output().matches(WRITTEN).count();
        // Else it would have taken the rewind when it is asked for again.
        self.worker.freeze();
        self.api_wire.hold_when_said(ASKED, half);
        let asking = tokio::spawn({
            let line = self.line();
            async move { run_cdc(&line).await }
        });
        self.api_wire.holds_something().await;
        if heard {
            // It is written before it is told of.
            until("the intent is written", SOON, async || {
                let log = self.coordinator.output();
                check(log.matches(WRITTEN).count() == before + 1, log)
            })
            .await;
        }
        self.coordinator.kill();
        // Nobody is told: who asked has given up before what is held goes on.
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        self.api_wire.release();
        self.coordinator = self.pipeline.serve();
        self.ask().await;
        self.worker.thaw();
    }

    /// The worker dies when it has said this to the sink, or has heard the answer to it.
    async fn worker_dies(&mut self, said: &'static str, half: Half) {
        self.sink_wire.hold_when_said(said, half);
        self.ask().await;
        self.sink_wire.holds_something().await;
        if said != MIDWAY {
            // Not taken yet as far as anybody knows: the same once more is the same.
            self.ask().await;
        }
        self.worker.kill();
        self.worker = self.pipeline.worker("ev");
        self.sink_wire.release();
    }

    async fn dies_before_it_commits(&mut self) {
        self.worker.drain().await;
        self.pipeline.config["kafka"]["commit_interval_ms"] = json!(600_000);
        self.worker = self.pipeline.worker("ev");
        self.pipeline.config["kafka"]["commit_interval_ms"] = json!(200);
        self.ask().await;
        let query = format!(
            "SELECT count(*) FROM {} WHERE event_key <> '\"old\"'",
            self.pipeline.events_table()
        );
        until("all came again", SOON, async || {
            let count: i64 = self.target.query_one(&query, &[]).await.unwrap().get(0);
            check(count == RECORDS - TARGET, count)
        })
        .await;
        self.worker.kill();
        self.worker = self.pipeline.worker("ev");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_whichever_step_a_rewind_is_done_once_and_whole() {
    let mut rewound = Rewound::new().await;
    rewound.is_whole(0).await;
    let steps = [
        Step::Unheard,
        Step::Unanswered,
        Step::Unrecorded,
        Step::Unknown,
        Step::Midway,
        Step::Uncommitted,
    ];
    for (done, step) in (0..).zip(steps) {
        println!("step {step:?}");
        rewound.mark().await;
        match step {
            Step::Unheard => rewound.coordinator_dies(false).await,
            Step::Unanswered => rewound.coordinator_dies(true).await,
            Step::Unrecorded => rewound.worker_dies("DELETE FROM", Half::Requests).await,
            Step::Unknown => rewound.worker_dies("COMMIT", Half::Answers).await,
            Step::Midway => rewound.worker_dies(MIDWAY, Half::Requests).await,
            Step::Uncommitted => rewound.dies_before_it_commits().await,
        }
        rewound.is_whole(done + 1).await;
        rewound.only_the_rest_came_again().await;
    }
}
