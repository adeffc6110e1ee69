//! Changes of schema: what is judged, what is held by it, and how it goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use cdc_tests::kafka;
use cdc_tests::mirror::is_equal;
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::wait::{SOON, check, stays, until};
use rdkafka::Message;
use serde_json::{Value, json};

const PARTITIONS: i32 = 2;

/// A pipeline over the tables `t` and `u` of a real source, deployed, with the gate.
async fn deployed(name: &str, receiver: &Receiver) -> Pipeline {
    let mut pipeline = Pipeline::new(name);
    postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text, amount numeric(8, 2));
         CREATE TABLE {id}.u (id bigint PRIMARY KEY, note text);
         INSERT INTO {id}.t SELECT i, 'snapshot', 1.25 FROM generate_series(-20, -1) AS i;
         INSERT INTO {id}.u SELECT i, 'snapshot' FROM generate_series(-20, -1) AS i;",
    )
    .await;
    let tables = ["t", "u"].map(|table| format!("{}.{table}", pipeline.id));
    pipeline.config["source"]["tables"] = json!(tables);
    pipeline.config["kafka"]["topics"] = json!({"partitions": PARTITIONS});
    pipeline.config["stop_on_incompatible_schema"] = json!(true);
    // Only what workers ask is judged in time.
    pipeline.config["schema_monitor_interval_seconds"] = json!(3600);
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    pipeline.replica("mirror");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    pipeline
}

/// Inserts into both tables, as much as the connector keeps up with.
struct Load {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicI64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(pipeline: &Pipeline) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (ended, count, id) = (Arc::clone(&stop), Arc::clone(&next), pipeline.id.clone());
        let task = tokio::spawn(async move {
            let source = postgres::source().await;
            source.batch_execute("SET synchronous_commit = off").await.unwrap();
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while !ended.load(Ordering::Relaxed) {
                pace.tick().await;
                let from = count.load(Ordering::Relaxed);
                let insert = |table: &str| {
                    format!(
                        "INSERT INTO {id}.{table} (id) SELECT generate_series({from}, {from} + 9);"
                    )
                };
                source.batch_execute(&(insert("t") + &insert("u"))).await.unwrap();
                count.store(from + 10, Ordering::Relaxed);
            }
        });
        Self { stop, next, task }
    }

    /// Waits until so many more rows are in.
    async fn more(&self, rows: i64) {
        let target = self.next.load(Ordering::Relaxed) + rows;
        until("the load goes on", SOON, async || {
            let now = self.next.load(Ordering::Relaxed);
            check(now >= target, now)
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

fn table_topic(pipeline: &Pipeline, table: &str) -> String {
    format!("{0}.{0}.{table}", pipeline.id)
}

/// Schema id, partition and offset of every record of a topic that has a value.
fn ids(topic: &str) -> Vec<(i32, (i32, i64))> {
    let records = kafka::read_all(topic, PARTITIONS);
    let id = |bytes: &[u8]| i32::from_be_bytes(bytes[1..5].try_into().unwrap());
    records
        .iter()
        .filter_map(|record| Some((id(record.payload()?), (record.partition(), record.offset()))))
        .collect()
}

/// Places of the records that have another value schema than the first one.
fn newer(topic: &str) -> BTreeSet<(i32, i64)> {
    let ids = ids(topic);
    let first = ids.iter().map(|(id, _)| *id).min();
    ids.into_iter().filter(|(id, _)| Some(*id) != first).map(|(_, place)| place).collect()
}

fn delivered(receiver: &Receiver, topic: &str) -> BTreeSet<(i32, i64)> {
    let all = receiver.deliveries();
    all.iter().filter(|delivery| delivery.topic == topic).map(Delivery::event).collect()
}

async fn events(pipeline: &Pipeline, topic: &str) -> Vec<(i32, i64)> {
    let target = postgres::target().await;
    let table = pipeline.events_table();
    let query = format!(
        "SELECT source_partition, source_offset FROM {table} WHERE source_topic = $1 ORDER BY 1, 2"
    );
    let rows = target.query(&query, &[&topic]).await.unwrap_or_default();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// No sink has a record of the new schema.
async fn nothing_passed(pipeline: &Pipeline, receiver: &Receiver) {
    let topic = table_topic(pipeline, "t");
    let newer = newer(&topic);
    assert!(newer.len() > 100, "there are {} records of the new schema", newer.len());
    let webhook: Vec<_> = delivered(receiver, &topic).intersection(&newer).copied().collect();
    assert_eq!(webhook, [], "at the webhook");
    let rows = events(pipeline, &topic).await;
    assert_eq!(rows.iter().find(|place| newer.contains(place)), None, "in the events table");
}

/// Everything is everywhere, once.
async fn all_is_delivered(pipeline: &Pipeline, receiver: &Receiver, within: Duration) {
    for table in ["t", "u"] {
        let topic = table_topic(pipeline, table);
        let expected: BTreeSet<_> = kafka::events(&topic, PARTITIONS);
        until(&format!("the webhook has all of {table}"), within, async || {
            let got = delivered(receiver, &topic);
            check(got == expected, (got.len(), expected.len()))
        })
        .await;
        until(&format!("the events table has all of {table}, once"), within, async || {
            let rows = events(pipeline, &topic).await;
            check(rows == expected.iter().copied().collect::<Vec<_>>(), rows.len())
        })
        .await;
        let (source, target) = (postgres::source().await, postgres::target().await);
        is_equal(&source, &target, &format!("{}.{table}", pipeline.id), within).await;
    }
    receiver.check_promise();
}

async fn schemas(pipeline: &mut Pipeline) -> Value {
    let text = pipeline.cdc_ok(&["schema", "list", "FILE", "--json"]).await;
    serde_json::from_str(&text).unwrap()
}

/// The verdicts on a table's rows: compatible, and what changed.
fn verdicts(report: &Value, topic: &str) -> Vec<(bool, String)> {
    let changes = report["changes"].as_array().unwrap().iter();
    let of_topic = changes.filter(|verdict| verdict["subject"] == format!("{topic}-value"));
    of_topic
        .map(|verdict| {
            let changes = verdict["changes"].as_array().unwrap().iter();
            let told = changes.map(|c| {
                let text = |name: &str| c[name].as_str().unwrap().to_owned();
                format!("{} {}", text("field"), text("effect"))
            });
            (verdict["compatible"].as_bool().unwrap(), told.collect::<Vec<_>>().join(", "))
        })
        .collect()
}

/// The change may come before or after the monitor's first look.
#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_change_under_load_reaches_no_sink_until_it_is_accepted() {
    let receiver = Receiver::start().await;
    let mut pipeline = deployed("gate", &receiver).await;
    let mut coordinator = pipeline.serve();
    let sinks = ["wh", "ev", "mirror"];
    let mut workers = sinks.map(|sink| pipeline.worker(sink));
    let load = Load::start(&pipeline);
    load.more(300).await;
    let source = postgres::source().await;
    postgres::run(&source, &pipeline, "ALTER TABLE {id}.t DROP COLUMN name").await;
    load.more(500).await;
    for sink in sinks {
        let hold = pipeline.held(sink, "schema_incompatible").await;
        let message = hold["message"].as_str().unwrap();
        assert!(message.contains("name removed"), "{message}");
        assert!(hold["way_out"].as_str().unwrap().contains("cdc schema accept"), "{hold}");
        pipeline.status(sink, "held").await;
    }
    until("health tells of the change", SOON, async || {
        let health = pipeline.health().await?;
        let told = health["reasons"].to_string().contains("schema_change");
        check(told && health["verdict"] == "critical", health)
    })
    .await;
    load.end().await;
    // The other table goes on.
    let u = table_topic(&pipeline, "u");
    until("all of the other table is delivered", SOON * 2, async || {
        let expected = kafka::events(&u, PARTITIONS);
        let got = delivered(&receiver, &u);
        check(got == expected && expected.len() > 800, (got.len(), expected.len()))
    })
    .await;
    nothing_passed(&pipeline, &receiver).await;

    let table = format!("{}.t", pipeline.id);
    let line = ["schema", "accept", "FILE", "--table", &table, "--reason", "dropped on purpose"];
    pipeline.cdc_ok(&line).await;
    all_is_delivered(&pipeline, &receiver, SOON * 2).await;
    assert_eq!(
        receiver.deliveries().len(),
        kafka::events(&u, PARTITIONS).len()
            + kafka::events(&table_topic(&pipeline, "t"), PARTITIONS).len(),
        "nothing is sent twice"
    );
    let report = schemas(&mut pipeline).await;
    let verdicts = verdicts(&report, &table_topic(&pipeline, "t"));
    assert_eq!(verdicts, [(false, "name removed".to_owned())], "{report:#}");
    assert_eq!(report["changes"][0]["accepted"]["reason"], "dropped on purpose");
    assert!(coordinator.output().contains("schema.incompatible_change_detected"));

    // The fleet starts anew, and nobody could judge anything.
    coordinator.kill();
    workers.iter_mut().for_each(Process::kill);
    let workers = sinks.map(|sink| pipeline.worker(sink));
    let insert = "INSERT INTO {id}.t (id) SELECT generate_series(100000, 100050);
                  INSERT INTO {id}.u (id) SELECT generate_series(100000, 100050);";
    postgres::run(&source, &pipeline, insert).await;
    all_is_delivered(&pipeline, &receiver, SOON * 2).await;
    for worker in &workers {
        let output = worker.output();
        assert!(!output.contains("schema_unjudged"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_coordinator_a_change_waits_and_the_next_one_judges_it() {
    let receiver = Receiver::start().await;
    let mut pipeline = deployed("away", &receiver).await;
    let mut coordinator = pipeline.serve();
    let sinks = ["wh", "ev", "mirror"];
    let workers = sinks.map(|sink| pipeline.worker(sink));
    let load = Load::start(&pipeline);
    load.more(200).await;
    all_of(&receiver, &pipeline, "t", 200).await;
    // It dies with the change.
    coordinator.kill();
    let source = postgres::source().await;
    postgres::run(
        &source,
        &pipeline,
        "ALTER TABLE {id}.t ALTER amount TYPE numeric(6, 2);
         ALTER TABLE {id}.u ADD COLUMN more integer",
    )
    .await;
    load.more(300).await;
    load.end().await;
    for worker in &workers {
        until("the worker says what it waits for", SOON, async || {
            let output = worker.output();
            let says = output.contains("waits for the coordinator's verdict on its schema");
            check(says, output)
        })
        .await;
    }
    until("the new schema is in the topic", SOON, async || {
        let count = newer(&table_topic(&pipeline, "t")).len();
        check(count > 250, count)
    })
    .await;
    stays("nothing passes", Duration::from_secs(2), async || {
        let topic = table_topic(&pipeline, "t");
        let passed = delivered(&receiver, &topic).intersection(&newer(&topic)).count();
        check(passed == 0, passed)
    })
    .await;
    nothing_passed(&pipeline, &receiver).await;
    let _coordinator = pipeline.serve();
    // What is compatible goes on by itself; what is not is told.
    all_of(&receiver, &pipeline, "u", 500).await;
    for sink in sinks {
        let hold = pipeline.held(sink, "schema_incompatible").await;
        let message = hold["message"].as_str().unwrap();
        assert!(message.contains("amount narrowed (numeric(8,2) → numeric(6,2))"), "{message}");
    }
    nothing_passed(&pipeline, &receiver).await;
    let table = format!("{}.t", pipeline.id);
    pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &table]).await;
    all_is_delivered(&pipeline, &receiver, SOON * 2).await;
    let again = pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &table]).await;
    assert!(again.contains("waits to be accepted"), "{again}");
}

/// Waits until the webhook has at least so many events of a table.
async fn all_of(receiver: &Receiver, pipeline: &Pipeline, table: &str, least: usize) {
    let topic = table_topic(pipeline, table);
    until(&format!("the webhook has {least} of {table}"), SOON * 2, async || {
        let got = delivered(receiver, &topic).len();
        check(got >= least, got)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compatible_changes_pass_and_an_old_schema_that_comes_back_is_seen() {
    let receiver = Receiver::start().await;
    let mut pipeline = deployed("steps", &receiver).await;
    pipeline.config["schema_monitor_interval_seconds"] = json!(0.3);
    let _coordinator = pipeline.serve();
    let sinks = ["wh", "ev", "mirror"];
    let _workers = sinks.map(|sink| pipeline.worker(sink));
    all_is_delivered(&pipeline, &receiver, SOON * 2).await;
    let source = postgres::source().await;
    for (at, change) in [
        "ALTER TABLE {id}.u ADD COLUMN extra integer",
        "ALTER TABLE {id}.t ALTER amount TYPE numeric(12, 2)",
        "ALTER TABLE {id}.t ALTER name SET DEFAULT 'nobody'",
        "ALTER TABLE {id}.t ADD COLUMN small smallint NOT NULL DEFAULT 1",
        "ALTER TABLE {id}.t ALTER small DROP NOT NULL",
        "ALTER TABLE {id}.t ALTER small TYPE integer",
    ]
    .iter()
    .enumerate()
    {
        postgres::run(&source, &pipeline, change).await;
        let insert = format!(
            "INSERT INTO {{id}}.t (id) SELECT generate_series({0}, {0} + 9);
             INSERT INTO {{id}}.u (id) SELECT generate_series({0}, {0} + 9);",
            at * 10
        );
        postgres::run(&source, &pipeline, &insert).await;
    }
    all_is_delivered(&pipeline, &receiver, SOON * 2).await;
    let u = table_topic(&pipeline, "u");
    let report = schemas(&mut pipeline).await;
    assert_eq!(verdicts(&report, &u), [(true, "extra added".to_owned())], "{report:#}");
    let of_t = verdicts(&report, &table_topic(&pipeline, "t"));
    assert!(of_t.iter().all(|(compatible, _)| *compatible), "{of_t:?}");
    let health = pipeline.health().await.unwrap();
    assert!(!health["reasons"].to_string().contains("schema"), "{health}");

    // No new version: the registry knows this schema, and its newest is another.
    let before = ids(&u);
    postgres::run(
        &source,
        &pipeline,
        "ALTER TABLE {id}.u DROP COLUMN extra;
         INSERT INTO {id}.u (id) SELECT generate_series(1000, 1019);",
    )
    .await;
    for sink in sinks {
        let hold = pipeline.held(sink, "schema_incompatible").await;
        assert!(hold["message"].as_str().unwrap().contains("extra removed"), "{hold}");
    }
    let known: BTreeSet<i32> = before.iter().map(|(id, _)| *id).collect();
    let now: BTreeSet<i32> = ids(&u).iter().map(|(id, _)| *id).collect();
    assert_eq!(now, known, "the old id came back");
    assert_eq!(delivered(&receiver, &u).len(), before.len());
    let table = format!("{}.u", pipeline.id);
    pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &table]).await;
    all_is_delivered(&pipeline, &receiver, SOON * 2).await;
    let list = pipeline.cdc_ok(&["schema", "list", "FILE"]).await;
    assert!(list.contains("incompatible, accepted"), "{list}");
    let diff = pipeline.cdc_ok(&["schema", "diff", "FILE", "--table", &table]).await;
    assert!(diff.contains("compatible") && diff.contains("extra added"), "{diff}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_key_is_incompatible() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("keys");
    let source = postgres::source_with(
        &pipeline,
        "CREATE TABLE {id}.t (id integer PRIMARY KEY, n integer);
         INSERT INTO {id}.t (id, n) SELECT i, i FROM generate_series(1, 40) AS i;",
    )
    .await;
    pipeline.config["kafka"]["topics"] = json!({"partitions": PARTITIONS});
    pipeline.config["stop_on_incompatible_schema"] = json!(true);
    pipeline.webhook("wh", &receiver.url());
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let topic = pipeline.topic();
    all_of(&receiver, &pipeline, "t", 40).await;
    postgres::run(
        &source,
        &pipeline,
        "ALTER TABLE {id}.t ALTER id TYPE bigint;
         INSERT INTO {id}.t (id, n) SELECT i, i FROM generate_series(41, 80) AS i;",
    )
    .await;
    let hold = pipeline.held("wh", "schema_incompatible").await;
    let message = hold["message"].as_str().unwrap();
    assert!(message.contains("keys with another schema go to other partitions"), "{message}");
    assert_eq!(delivered(&receiver, &topic).len(), 40);
    let table = format!("{}.t", pipeline.id);
    pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &table]).await;
    all_of(&receiver, &pipeline, "t", 80).await;
    assert_eq!(receiver.deliveries().len(), 80);
    let line = ["schema", "diff", "FILE", "--table", &table, "--key"];
    let diff = pipeline.cdc_ok(&line).await;
    assert!(diff.contains("incompatible") && diff.contains("id widened (int → long)"), "{diff}");
}
