//! Dead letters: listed, shown, sent again once the cause is mended, given up.

use std::collections::BTreeSet;

use cdc_tests::judge::outcome;
use cdc_tests::kafka::{self, Producer};
use cdc_tests::lake::events;
use cdc_tests::pipeline::{Pipeline, run_cdc};
use cdc_tests::postgres;
use cdc_tests::process::{Process, binary};
use cdc_tests::receiver::Receiver;
use cdc_tests::record::{Schemas, http, register};
use cdc_tests::wait::{SOON, check, until};
use serde_json::{Value, json};

use super::holds::{fill, offsets};
use super::schema_policy::{nameless, nameless_schema};

/// `cdc dlq list`, as JSON.
async fn list(pipeline: &mut Pipeline, more: &[&str]) -> Value {
    let line = [&["dlq", "list", "FILE", "--json"], more].concat();
    serde_json::from_str(&pipeline.cdc_ok(&line).await).unwrap()
}

/// Offsets and states in a list.
fn states(list: &Value) -> Vec<(i64, i64, String)> {
    let letters = list["letters"].as_array().unwrap().iter();
    letters
        .map(|letter| {
            let number = |name: &str| letter[name].as_i64().unwrap();
            let state = letter["state"].as_str().unwrap().to_owned();
            (number("partition"), number("offset"), state)
        })
        .collect()
}

fn state(letters: &[(i64, i64)], state: &str) -> Vec<(i64, i64, String)> {
    letters.iter().map(|(partition, offset)| (*partition, *offset, state.to_owned())).collect()
}

/// `cdc dlq replay --json` to its end, once the coordinator knows a live worker: exit code, and the
/// task's end or the reply where none was posted.
async fn replay(pipeline: &Pipeline, sink: &str, more: &[&str]) -> (i32, Value) {
    let line = [&["dlq", "replay", "FILE", "--sink", sink, "--json"], more].concat();
    let mut arguments: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    arguments[2] = pipeline.file().display().to_string();
    let output = until("the coordinator takes the replay", SOON, async || {
        let output = run_cdc(&arguments).await;
        let not_yet = matches!(output.status.code(), Some(69 | 75));
        if not_yet { Err(String::from_utf8_lossy(&output.stderr).into_owned()) } else { Ok(output) }
    });
    outcome(&output.await)
}

/// The same in the background.
fn start_replay(pipeline: &Pipeline, sink: &str) -> Process {
    let file = pipeline.file().display().to_string();
    let arguments = ["dlq", "replay", &file, "--sink", sink].map(str::to_owned);
    Process::start(&binary("cdc"), &arguments, pipeline.dir().join("replay.log"))
}

/// The records that the webhook of the next test refuses.
const REJECTED: [(i64, i64); 3] = [(0, 1), (0, 3), (1, 2)];

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_webhook_are_shown_and_sent_again_once_with_their_own_ids() {
    let receiver = Receiver::start().await;
    receiver.answer(|delivery| {
        let event = (i64::from(delivery.partition), delivery.offset);
        if REJECTED.contains(&event) { 400 } else { 204 }
    });
    let mut pipeline = Pipeline::new("letters");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let nothing = list(&mut pipeline, &[]).await;
    assert_eq!(nothing["letters"], json!([]), "without a coordinator, and without letters");
    fill(&topic, schemas, 0, 0..5);
    fill(&topic, schemas, 1, 10..15);
    let coordinator = pipeline.serve();
    let mut first = pipeline.worker("wh");
    pipeline.committed(0, 5).await;
    pipeline.committed(1, 5).await;
    is_listed(&mut pipeline).await;
    is_shown(&mut pipeline).await;

    // The cause lasts: they stay open.
    let (code, end) = replay(&pipeline, "wh", &[]).await;
    assert_eq!((code, &end["letters"]["failed"]), (1, &json!(3)), "{end:#}");
    assert!(end["letters"]["failures"][0].as_str().unwrap().contains("http_400"), "{end:#}");
    assert_eq!(states(&list(&mut pipeline, &[]).await), state(&REJECTED, "open"));
    let before = receiver.deliveries().len();
    let (code, end) = replay(&pipeline, "wh", &["--dry-run"]).await;
    assert_eq!((code, &end["letters"]["replayed"]), (0, &json!(3)), "{end:#}");
    assert_eq!(receiver.deliveries().len(), before, "a dry run sends nothing");

    // Mended, with the worker killed while a letter is under way.
    receiver.answer(|_| 204);
    receiver.mute(true);
    let mut watched = start_replay(&pipeline, "wh");
    until("a letter is under way", SOON, async || {
        check(receiver.deliveries().len() > before, watched.output())
    })
    .await;
    first.kill();
    receiver.mute(false);
    let _second = pipeline.worker("wh");
    let status = watched.ended("the other worker sends them", SOON).await;
    assert_eq!(status.code(), Some(0), "{}", watched.output());
    assert!(watched.output().contains("3 dead letters replayed"), "{}", watched.output());
    receiver.has(&offsets(0, 0..5).union(&offsets(1, 0..5)).copied().collect()).await;
    receiver.check_promise();
    assert_eq!(states(&list(&mut pipeline, &[]).await), state(&REJECTED, "replayed"));

    // Twice is once, also for another coordinator.
    drop(coordinator);
    let _coordinator = pipeline.serve();
    let before = receiver.deliveries().len();
    let (code, reply) = replay(&pipeline, "wh", &[]).await;
    assert_eq!(code, 0);
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("3 replayed already by replay-"), "{message}");
    assert_eq!(receiver.deliveries().len(), before);
}

/// By every filter, in health and in the metrics.
async fn is_listed(pipeline: &mut Pipeline) {
    let found = list(pipeline, &[]).await;
    assert_eq!(states(&found), state(&REJECTED, "open"), "{found:#}");
    assert_eq!(found["counts"][0]["error_type"], "http_400");
    assert_eq!(found["counts"][0]["open"], 3);
    for (filter, value, expected) in [
        ("--key", r#"{"id":12}"#, &REJECTED[2..]),
        ("--key", "1", &REJECTED[..1]),
        ("--error-type", "http_422", &[][..]),
        ("--partition", "0", &REJECTED[..2]),
        ("--since", "1h", &REJECTED[..]),
        ("--until", "1h", &[][..]),
        ("--state", "dropped", &[][..]),
    ] {
        let found = list(pipeline, &["--sink", "wh", filter, value]).await;
        assert_eq!(states(&found), state(expected, "open"), "{filter} {value}");
    }
    until("health sees the queue grow", SOON, async || {
        let health = pipeline.health().await?;
        let reasons = health["reasons"].as_array().cloned().unwrap_or_default();
        check(reasons.iter().any(|reason| reason["code"] == "dlq_grows"), health.to_string())
    })
    .await;
    let metrics = get(pipeline, "/metrics").await;
    let line = r#"sink="wh",error_type="http_400",state="open"} 3"#;
    assert!(metrics.contains(line), "{metrics}");
}

/// By the command and by the API.
async fn is_shown(pipeline: &mut Pipeline) {
    let topic = pipeline.topic();
    let line = ["dlq", "show", "FILE", "--json", "--sink", "wh", "--topic", &topic];
    let line = [&line[..], &["--partition", "1", "--offset", "2"]].concat();
    let shown: Value = serde_json::from_str(&pipeline.cdc_ok(&line).await).unwrap();
    assert_eq!(shown["key_datum"]["json"], json!({"id": 12}));
    assert_eq!(shown["value_datum"]["json"]["after"], json!({"id": 12, "name": "row"}));
    let headers = shown["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({"name": "dlq.error_type", "value": "http_400"})), "{shown:#}");
    let json =
        async |path: &str| -> Value { serde_json::from_str(&get(pipeline, path).await).unwrap() };
    let short = json("/v1/dlq?sink=wh&limit=1").await;
    assert_eq!((short["letters"].as_array().unwrap().len(), &short["left_off"]), (1, &json!(2)));
    assert_eq!(json(&format!("/v1/dlq/wh/{topic}/1/2")).await, shown);
    assert_eq!(json(&format!("/v1/dlq/wh/{topic}/1/3")).await["code"], "unknown_letter");
    assert_eq!(json("/v1/dlq?sinks=wh").await["code"], "invalid");
}

async fn get(pipeline: &Pipeline, path: &str) -> String {
    let bind = pipeline.config["coordinator"]["bind"].as_str().unwrap();
    let answer = http().get(format!("http://{bind}{path}")).send().await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_keep_the_order_of_their_key_among_the_live_events() {
    let receiver = Receiver::start().await;
    receiver.answer(|delivery| if delivery.offset < 3 { 400 } else { 204 });
    let mut pipeline = Pipeline::new("inorder");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    for _ in 0..4 {
        fill(&topic, schemas, 0, 7..8);
    }
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    pipeline.committed(0, 4).await;
    receiver.answer(|_| 204);
    receiver.mute(true);
    let before = receiver.deliveries().len();
    let mut watched = start_replay(&pipeline, "wh");
    until("the first letter is under way", SOON, async || {
        check(receiver.deliveries().len() == before + 1, watched.output())
    })
    .await;
    // A live event of the key waits until the letters before it are through.
    fill(&topic, schemas, 0, 7..8);
    receiver.mute(false);
    pipeline.committed(0, 5).await;
    let status = watched.ended("the letters are sent", SOON).await;
    assert_eq!(status.code(), Some(0), "{}", watched.output());
    let came: Vec<i64> = receiver.deliveries()[before..].iter().map(|d| d.offset).collect();
    assert_eq!(came, [0, 1, 2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_told_with_its_reason_and_can_still_be_sent() {
    let receiver = Receiver::start().await;
    receiver.answer(|delivery| if delivery.offset < 2 { 422 } else { 204 });
    let mut pipeline = Pipeline::new("dropped");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..4);
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    pipeline.committed(0, 4).await;
    let line = ["dlq", "drop", "FILE", "--sink", "wh", "--offset", "0", "--reason", "test data"];
    let said = pipeline.cdc_ok(&line).await;
    assert!(said.contains("1 dead letters of sink wh dropped: test data"), "{said}");
    let text = pipeline.cdc_ok(&["dlq", "list", "FILE"]).await;
    assert!(text.contains("dropped by") && text.contains(": test data"), "{text}");
    assert!(text.contains("1 open, 0 replayed, 0 superseded, 1 dropped"), "{text}");
    let said = pipeline.cdc_ok(&line).await;
    assert!(said.contains("nothing to drop: of sink wh, 1 dropped already"), "{said}");
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1).len(), 2, "nothing is deleted");

    receiver.answer(|_| 204);
    let (code, end) = replay(&pipeline, "wh", &["--rate", "5"]).await;
    assert_eq!((code, &end["letters"]["replayed"]), (0, &json!(1)), "{end:#}");
    assert_eq!(receiver.acknowledged(), offsets(0, 1..4));
    let (code, end) = replay(&pipeline, "wh", &["--dropped"]).await;
    assert_eq!((code, &end["letters"]["replayed"]), (0, &json!(1)), "{end:#}");
    assert_eq!(receiver.acknowledged(), offsets(0, 0..4));
    // A sink that is taken back delivers them itself, and what it rejects anew is open again.
    receiver.answer(|delivery| if delivery.offset == 1 { 422 } else { 204 });
    let back = ["rewind", "FILE", "--yes", "--sink", "wh", "--topic", &topic, "--to", "beginning"];
    pipeline.command(&back).await;
    until("the letter is open again", SOON, async || {
        let found = list(&mut pipeline, &["--state", "open"]).await;
        check(states(&found) == state(&[(0, 1)], "open"), found)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_events_table_come_once_however_often_they_are_replayed() {
    let mut pipeline = Pipeline::new("letterrows");
    pipeline.events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let _coordinator = pipeline.serve();
    let mut first = pipeline.worker("ev");
    fill(&topic, schemas, 0, 0..2);
    pipeline.committed(0, 2).await;
    let (target, table) = (postgres::target().await, pipeline.events_table());
    let refuse = "ADD CONSTRAINT odd CHECK (source_offset NOT IN (3, 4))";
    target.batch_execute(&format!("ALTER TABLE {table} {refuse}")).await.unwrap();
    fill(&topic, schemas, 0, 2..6);
    pipeline.committed(0, 6).await;
    let found = list(&mut pipeline, &[]).await;
    assert_eq!(states(&found), state(&[(0, 3), (0, 4)], "open"), "{found:#}");
    assert_eq!(found["letters"][0]["error_type"], "sqlstate_23514");

    target.batch_execute(&format!("ALTER TABLE {table} DROP CONSTRAINT odd")).await.unwrap();
    let blocker = postgres::target().await;
    let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    blocker.batch_execute(&lock).await.unwrap();
    let mut watched = start_replay(&pipeline, "ev");
    waits_for_lock(&target, &table).await;
    first.kill();
    let _second = pipeline.worker("ev");
    blocker.batch_execute("COMMIT").await.unwrap();
    let status = watched.ended("the other worker writes them", SOON).await;
    assert_eq!(status.code(), Some(0), "{}", watched.output());
    pipeline.has_rows(&offsets(0, 0..6), SOON).await;
    let (_, reply) = replay(&pipeline, "ev", &[]).await;
    assert!(reply["message"].as_str().unwrap().contains("2 replayed already"), "{reply}");
    fill(&topic, schemas, 0, 6..7);
    pipeline.has_rows(&offsets(0, 0..7), SOON).await;
}

/// What [`rejected_by_lake`] leaves.
struct Rejected {
    schemas: Schemas,
    topic: String,
    first: Process,
    coordinator: Process,
}

/// Sink `lake` has the records 0 and 1; 2 and 3 came with a schema that it does not take.
async fn rejected_by_lake(pipeline: &mut Pipeline) -> Rejected {
    pipeline.config["stop_on_incompatible_schema"] = json!(true);
    pipeline.sink_mut("lake")["on_incompatible"] = json!("dlq");
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let coordinator = pipeline.serve();
    let first = pipeline.worker("lake");
    fill(&topic, schemas, 0, 0..2);
    pipeline.committed(0, 2).await;
    let other = register(&format!("{topic}-value"), &nameless_schema(&topic)).await;
    let producer = Producer::default();
    for id in 2..4 {
        producer.put(&topic, 0, &schemas.key(id), &nameless(other, id));
    }
    Rejected { schemas, topic, first, coordinator }
}

/// Accepts the schema and replays, while the worker is killed and another one comes.
async fn replayed_though_killed(pipeline: &mut Pipeline, mut first: Process) -> Process {
    pipeline.cdc_ok(&["schema", "accept", "FILE", "--table", &format!("{}.t", pipeline.id)]).await;
    let mut watched = start_replay(pipeline, "lake");
    first.kill();
    let second = pipeline.worker("lake");
    let status = watched.ended("the other worker writes them", SOON).await;
    assert_eq!(status.code(), Some(0), "{}", watched.output());
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_in_a_change_log_once_however_often_they_are_replayed() {
    let mut pipeline = Pipeline::new("letterlake");
    pipeline.lake("lake");
    let Rejected { schemas, topic, first, coordinator: _coordinator } =
        rejected_by_lake(&mut pipeline).await;
    fill(&topic, schemas, 0, 4..6);
    pipeline.committed(0, 6).await;
    let open = state(&[(0, 2), (0, 3)], "open");
    assert_eq!(states(&list(&mut pipeline, &[]).await), open);
    let refused = replay(&pipeline, "lake", &[]).await;
    assert!(refused.1.to_string().contains("schema_incompatible"), "{}", refused.1);

    let _second = replayed_though_killed(&mut pipeline, first).await;
    let log = pipeline.change_log(&["_cdc_partition", "_cdc_offset"]).await.unwrap();
    assert_eq!(events(&log), (0..6).map(|offset| (0, offset)).collect::<Vec<_>>());
    let (_, reply) = replay(&pipeline, "lake", &[]).await;
    assert!(reply["message"].as_str().unwrap().contains("2 replayed already"), "{reply}");
    fill(&topic, schemas, 0, 6..7);
    pipeline.committed(0, 7).await;
    let log = pipeline.change_log(&["_cdc_partition", "_cdc_offset"]).await.unwrap();
    assert_eq!(events(&log), (0..7).map(|offset| (0, offset)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_table_of_rows_letters_that_stand_are_written_and_the_rest_is_told() {
    let mut pipeline = Pipeline::new("letterlakerows");
    pipeline.lake_of_rows("lake");
    let Rejected { schemas, topic, first, coordinator: _coordinator } =
        rejected_by_lake(&mut pipeline).await;
    // The second one has something newer of its key.
    fill(&topic, schemas, 0, 3..5);
    pipeline.committed(0, 6).await;
    let _second = replayed_though_killed(&mut pipeline, first).await;
    let mut expected = state(&[(0, 2)], "replayed");
    expected.extend(state(&[(0, 3)], "superseded"));
    assert_eq!(states(&list(&mut pipeline, &[]).await), expected);
    let rows = async |pipeline: &Pipeline| {
        let log = pipeline.change_log(&["id", "name", "_cdc_offset"]).await.unwrap();
        let row = |row: &Value| {
            (row["id"].as_i64().unwrap(), row["name"] != Value::Null, row["_cdc_offset"].as_i64())
        };
        log.iter().map(row).collect::<BTreeSet<_>>()
    };
    let named = |id: i64, offset: i64| (id, true, Some(offset));
    let all =
        BTreeSet::from([named(0, 0), named(1, 1), (2, false, Some(2)), named(3, 4), named(4, 5)]);
    assert_eq!(rows(&pipeline).await, all);
    let (_, reply) = replay(&pipeline, "lake", &[]).await;
    let message = reply["message"].as_str().unwrap();
    assert!(
        message.contains("1 replayed already") && message.contains("1 superseded"),
        "{message}"
    );
    fill(&topic, schemas, 0, 2..3);
    pipeline.committed(0, 7).await;
    assert!(rows(&pipeline).await.contains(&named(2, 6)));
}

async fn waits_for_lock(target: &tokio_postgres::Client, table: &str) {
    let query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = \
                 $1::text::regclass)";
    until("a letter waits for the lock", SOON, async || {
        let waits: bool = target.query_one(query, &[&table]).await.unwrap().get(0);
        check(waits, table.to_owned())
    })
    .await;
}

/// Changes of the source that the mirror's constraint refuses, and some that it takes.
async fn reject(pipeline: &mut Pipeline, source: &tokio_postgres::Client) {
    let table = format!("{}.t", pipeline.id);
    // Of these stand: 1 (twice, the later one counts), 50 (new), and what 2, 3 and 4 had is settled
    // by a row, a delete, and a delete and a row. One after the other: a batch is folded by key.
    let mut expected = 0;
    for (sql, more) in [
        ("UPDATE {t} SET name = 'odd ' || id WHERE id <= 4", 4),
        ("UPDATE {t} SET name = 'odd one' WHERE id = 1", 1),
        ("INSERT INTO {t} VALUES (50, 'odd new')", 1),
        ("UPDATE {t} SET name = 'fine' WHERE id = 2", 0),
        ("DELETE FROM {t} WHERE id = 3", 0),
        ("DELETE FROM {t} WHERE id = 4; INSERT INTO {t} VALUES (4, 'back')", 0),
    ] {
        source.batch_execute(&sql.replace("{t}", &table)).await.unwrap();
        expected += more;
        until("the rejected ones are dead letters", SOON, async || {
            let open = list(pipeline, &["--sink", "mirror", "--state", "open"]).await;
            check(open["letters"].as_array().unwrap().len() == expected, open)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_takes_only_letters_that_nothing_newer_has_settled() {
    let mut pipeline = Pipeline::new("lettermirror");
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
    let statements = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text);
         INSERT INTO {id}.t SELECT i, 'name ' || i FROM generate_series(1, 20) i;";
    let source = postgres::source_with(&pipeline, statements).await;
    let target = postgres::target().await;
    pipeline.replica("mirror");
    pipeline.sink_mut("mirror")["on_reject"] = json!("dlq");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut first = pipeline.worker("mirror");
    cdc_tests::judge::is_equal(&mut pipeline).await;
    let table = format!("{}.t", pipeline.id);
    let on = async |client: &tokio_postgres::Client, sql: &str| {
        client.batch_execute(&sql.replace("{t}", &table)).await.unwrap();
    };
    on(&target, "ALTER TABLE {t} ADD CONSTRAINT odd CHECK (name NOT LIKE 'odd%')").await;

    reject(&mut pipeline, &source).await;
    until("the mirror has all that it can take", SOON, async || {
        let query = format!("SELECT name FROM {table} WHERE id = 4");
        let row = target.query_opt(&query, &[]).await.unwrap();
        let name: Option<String> = row.and_then(|row| row.get(0));
        check(name.as_deref() == Some("back"), name)
    })
    .await;
    let open = list(&mut pipeline, &["--sink", "mirror", "--state", "open"]).await;
    assert_eq!(open["letters"].as_array().unwrap().len(), 6, "{open:#}");
    assert_eq!(open["letters"][0]["error_type"], "sqlstate_23514", "{open:#}");

    let (code, end) = replay(&pipeline, "mirror", &["--dry-run"]).await;
    let counts = |end: &Value| {
        let letters = &end["letters"];
        ["replayed", "superseded", "failed"].map(|name| letters[name].as_u64().unwrap())
    };
    assert_eq!((code, counts(&end)), (0, [3, 3, 0]), "{end:#}");
    // The cause lasts.
    let (code, end) = replay(&pipeline, "mirror", &["--key", "50"]).await;
    assert_eq!((code, counts(&end)), (1, [0, 0, 1]), "{end:#}");

    on(&target, "ALTER TABLE {t} DROP CONSTRAINT odd").await;
    let blocker = postgres::target().await;
    on(&blocker, "BEGIN; LOCK TABLE {t} IN ACCESS EXCLUSIVE MODE").await;
    let mut watched = start_replay(&pipeline, "mirror");
    waits_for_lock(&target, &table).await;
    first.kill();
    let _second = pipeline.worker("mirror");
    blocker.batch_execute("COMMIT").await.unwrap();
    let status = watched.ended("the other worker writes them", SOON).await;
    assert_eq!(status.code(), Some(0), "{}", watched.output());
    let said = watched.output();
    assert!(said.contains("3 dead letters replayed, 3 superseded"), "{said}");
    let (code, end) = cdc_tests::judge::verify(&mut pipeline, &["--show-values"]).await;
    assert_eq!(code, 0, "{end:#}");

    is_told(&mut pipeline).await;
}

/// What was replayed and what was superseded.
async fn is_told(pipeline: &mut Pipeline) {
    let found = list(pipeline, &["--sink", "mirror"]).await;
    let letters = found["letters"].as_array().unwrap();
    let of = |state: &str| {
        let keys = letters.iter().filter(|letter| letter["state"] == state);
        keys.map(|letter| letter["key"]["id"].as_i64().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(of("replayed"), BTreeSet::from([1, 50]), "{found:#}");
    assert_eq!(of("superseded"), BTreeSet::from([2, 3, 4]), "{found:#}");
    let (_, reply) = replay(pipeline, "mirror", &[]).await;
    let message = reply["message"].as_str().unwrap();
    assert!(
        message.contains("3 replayed already") && message.contains("3 superseded already"),
        "{message}"
    );
}
