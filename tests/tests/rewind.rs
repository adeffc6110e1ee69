//! A sink that is taken back: what is told before, and what is there after, whoever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use cdc_tests::kafka;
use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

use super::holds::{fill, offsets};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_again_are_removed_with_the_step_back_though_its_worker_dies() {
    let mut pipeline = Pipeline::new("back");
    pipeline.events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..6);
    let _coordinator = pipeline.serve();
    let mut first = pipeline.worker("ev");
    pipeline.has_rows(&offsets(0, 0..6), SOON).await;
    pipeline.committed(0, 6).await;
    let (target, table) = (postgres::target().await, pipeline.events_table());
    let mark = format!("UPDATE {table} SET event_key = '\"marked\"'");
    target.batch_execute(&mark).await.unwrap();

    let line = ["rewind", "FILE", "--sink", "ev", "--topic", &topic, "--partition", "0"];
    let line = [&line[..], &["--to", "2"]].concat();
    let said = pipeline.cdc_ok(&[&line[..], &["--dry-run"]].concat()).await;
    assert!(said.contains("0 from 6 to 2 (4 offsets come again)"), "{said}");
    assert!(said.contains("first removed"), "{said}");
    let output = pipeline.cdc(&line).await;
    assert_eq!(output.status.code(), Some(64), "nobody can be asked");

    let blocker = postgres::target().await;
    let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    blocker.batch_execute(&lock).await.unwrap();
    pipeline.command(&[&line[..], &["--yes"]].concat()).await;
    let query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = \
                 $1::text::regclass)";
    until("the worker is about to remove the rows", SOON, async || {
        let waits: bool = target.query_one(query, &[&table]).await.unwrap().get(0);
        check(waits, first.output())
    })
    .await;
    first.kill();
    let _second = pipeline.worker("ev");
    blocker.batch_execute("COMMIT").await.unwrap();
    let marked = format!(
        "SELECT array_agg(source_offset ORDER BY source_offset) FILTER (WHERE event_key = \
         '\"marked\"'), count(*) FROM {table}"
    );
    until("the rows from there on are new ones", SOON, async || {
        let row = target.query_one(&marked, &[]).await.unwrap();
        let found: (Option<Vec<i64>>, i64) = (row.get(0), row.get(1));
        check(found == (Some(vec![0, 1]), 6), found)
    })
    .await;
    fill(&topic, schemas, 0, 6..8);
    pipeline.has_rows(&offsets(0, 0..8), SOON).await;
    pipeline.committed(0, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_webhook_goes_back_to_a_time_or_the_beginning_with_the_same_ids() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("backwh");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..3);
    fill(&topic, schemas, 1, 10..12);
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("wh");
    pipeline.committed(0, 3).await;
    pipeline.committed(1, 2).await;
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
               'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    let row = postgres::source().await.query_one(now, &[]).await.unwrap();
    let then: String = row.get(0);
    // A record of the same millisecond would count as later.
    until("the clock has moved", SOON, async || {
        let row = postgres::source().await.query_one(now, &[]).await.unwrap();
        check(row.get::<_, String>(0) > then, then.clone())
    })
    .await;
    fill(&topic, schemas, 0, 3..5);
    pipeline.committed(0, 5).await;
    assert!(worker.drain().await.success());

    // Nobody is there to do it: the next worker does.
    let back = ["rewind", "FILE", "--yes", "--sink", "wh", "--to", &then];
    let said = pipeline.cdc_ok(&back).await;
    assert!(said.contains("0 from 5 to 3 (2 offsets come again), 1 from 2 to 2"), "{said}");
    let before = receiver.deliveries().len();
    let mut worker = pipeline.worker("wh");
    let came = |receiver: &Receiver| {
        let mut came: Vec<_> =
            receiver.deliveries()[before..].iter().map(Delivery::event).collect();
        came.sort_unstable();
        came
    };
    until("those from then on came again", SOON, async || {
        let came = came(&receiver);
        check(came == [(0, 3), (0, 4)], came)
    })
    .await;

    // Killed in the middle: what it had not committed comes once more, and no step is lost.
    receiver.mute(true);
    let back = ["rewind", "FILE", "--yes", "--sink", "wh", "--to", "beginning"];
    pipeline.command(&back).await;
    until("the first of them is under way", SOON, async || {
        let count = receiver.deliveries().len();
        check(count > before + 2, count)
    })
    .await;
    worker.kill();
    receiver.mute(false);
    let again = receiver.deliveries().len();
    let _worker = pipeline.worker("wh");
    until("all came again", SOON, async || {
        let came: std::collections::BTreeSet<_> =
            receiver.deliveries()[again..].iter().map(Delivery::event).collect();
        let expected = &offsets(0, 0..5) | &offsets(1, 0..2);
        check(came == expected, came)
    })
    .await;
    receiver.check_promise();
    pipeline.committed(0, 5).await;
    pipeline.committed(1, 2).await;
}

fn ids(deliveries: &[Delivery]) -> BTreeMap<(i32, i64), BTreeSet<String>> {
    let mut ids: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for delivery in deliveries {
        let id = delivery.headers["webhook-id"].to_str().unwrap().to_owned();
        ids.entry(delivery.event()).or_default().insert(id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn new_ids_are_new_once_and_then_kept() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("newids");
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..3);
    let mut coordinator = pipeline.serve();
    let mut worker = pipeline.worker("wh");
    pipeline.committed(0, 3).await;
    let mut rounds = Vec::new();
    for more in [&["--new-ids"][..], &[], &["--new-ids"]] {
        let before = receiver.deliveries().len();
        let back = ["rewind", "FILE", "--yes", "--sink", "wh", "--to", "beginning"];
        pipeline.command(&[&back[..], more].concat()).await;
        until("all came again", SOON, async || {
            let came = receiver.deliveries().len();
            check(came == before + 3, came)
        })
        .await;
        rounds.push(ids(&receiver.deliveries()[before..]));
    }
    let first = ids(&receiver.deliveries()[..3]);
    assert!(rounds.iter().all(|round| round.len() == 3));
    let differ = |a: &BTreeMap<(i32, i64), BTreeSet<String>>, b: &BTreeMap<_, BTreeSet<String>>| {
        a.iter().all(|(event, ids)| ids.is_disjoint(&b[event]))
    };
    assert!(differ(&first, &rounds[0]) && differ(&rounds[0], &rounds[2]));
    assert_eq!(rounds[0], rounds[1], "a plain rewind brings the same ids as the last time");
    // Nor does another worker know them by another name.
    worker.kill();
    let before = receiver.deliveries().len();
    let _worker = pipeline.worker("wh");
    pipeline.command(&["rewind", "FILE", "--yes", "--sink", "wh", "--to", "beginning"]).await;
    until("all came again", SOON, async || {
        let came = ids(&receiver.deliveries()[before..]);
        check(came == rounds[2], came)
    })
    .await;
    pipeline.events("ev").await;
    let line = ["rewind", "FILE", "--yes", "--sink", "ev", "--to", "beginning", "--new-ids"];
    coordinator.kill();
    let _coordinator = pipeline.serve();
    until("an events table has no ids", SOON, async || {
        let refused = pipeline.cdc(&line).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        check(said.contains("gives no ids"), said)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kafka_was_lost_the_topic_is_taken_on_the_operators_word_alone() {
    let mut pipeline = Pipeline::new("lost");
    pipeline.events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    fill(&topic, schemas, 0, 0..4);
    let mut coordinator = pipeline.serve();
    let mut worker = pipeline.worker("ev");
    pipeline.has_rows(&offsets(0, 0..4), SOON).await;
    // The sink's record counts further than a control topic that knows nothing of it.
    for to in ["beginning", "end"] {
        pipeline.command(&["rewind", "FILE", "--yes", "--sink", "ev", "--to", to]).await;
        pipeline.committed(0, 4).await;
    }
    pipeline.has_rows(&offsets(0, 0..4), SOON).await;
    assert!(worker.drain().await.success());
    coordinator.kill();
    let control = format!("{}.control", pipeline.group());
    kafka::delete_topics(&[&topic, &control]).await;
    for group in [pipeline.group(), pipeline.sink_group("ev")] {
        kafka::delete_group(&group).await;
    }
    kafka::create_topic(&topic, 1).await;
    fill(&topic, schemas, 0, 100..106);
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("ev");
    pipeline.held("ev", "topic_recreated").await;
    let line = ["rewind", "FILE", "--yes", "--sink", "ev", "--to", "beginning"];
    until("without the word it is refused", SOON, async || {
        let refused = pipeline.cdc(&line).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        check(said.contains("(topic_recreated)") && said.contains("--accept-new-topic"), said)
    })
    .await;
    pipeline.command(&[&line[..], &["--accept-new-topic"]].concat()).await;
    // The rows of the former topic stay, as nothing brings them again.
    let mut expected: Vec<_> = offsets(0, 0..4).into_iter().chain(offsets(0, 0..6)).collect();
    expected.sort_unstable();
    until("the new topic's rows are there", SOON, async || {
        let rows = pipeline.rows().await;
        check(rows == expected, rows)
    })
    .await;
    pipeline.committed(0, 6).await;
    let query = format!("SELECT incarnation FROM {}.cdc_offsets", pipeline.id);
    let row = postgres::target().await.query_one(&query, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3, "one above what the sink knew");
}

/// Every event that came since, as id and operation.
fn came(receiver: &Receiver, before: usize) -> BTreeSet<String> {
    let deliveries = receiver.deliveries();
    let since = deliveries[before..].iter();
    since
        .map(|delivery| format!("{} {}", delivery.key["id"], delivery.body["value"]["op"]))
        .collect()
}

async fn goes_back_to(pipeline: &mut Pipeline, receiver: &Receiver, place: &str, ids: &[i64]) {
    let before = receiver.deliveries().len();
    pipeline.command(&["rewind", "FILE", "--yes", "--sink", "wh", "--to", place]).await;
    let text = pipeline.config["source"]["source_type"] == "mysql";
    let id = |id: &i64| if text { format!("\"{id}\" \"c\"") } else { format!("{id} \"c\"") };
    let expected: BTreeSet<String> = ids.iter().map(id).collect();
    until(&format!("what lies at {place} or behind it came again"), SOON, async || {
        let came = came(receiver, before);
        check(came == expected, came)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_goes_back_to_a_place_in_the_log_of_postgres() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("lsn");
    let source =
        postgres::source_with(&pipeline, "CREATE TABLE {id}.t (id bigint PRIMARY KEY, name text);")
            .await;
    pipeline.webhook("wh", &receiver.url());
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let mut places = Vec::new();
    for id in 1..=8_i64 {
        let now = source.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
        places.push(now.get::<_, String>(0));
        let insert = format!("INSERT INTO {}.t VALUES ($1, 'row')", pipeline.id);
        source.execute(&insert, &[&id]).await.unwrap();
    }
    until("all have come", SOON, async || {
        let came = came(&receiver, 0);
        check(came.len() == 8, came)
    })
    .await;
    let place = places[5].clone();
    goes_back_to(&mut pipeline, &receiver, &place, &[6, 7, 8]).await;
    goes_back_to(&mut pipeline, &receiver, "0/1", &[1, 2, 3, 4, 5, 6, 7, 8]).await;
    goes_back_to(&mut pipeline, &receiver, "FFFF/0", &[]).await;
    let line = ["rewind", "FILE", "--yes", "--sink", "wh", "--to", "binlog.000001:4"];
    let refused = pipeline.cdc(&line).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("binlog.000001:4 is no place in a log of postgres"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_goes_back_to_a_place_in_the_log_of_mysql() {
    use mysql_async::prelude::Queryable as _;
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::of(Family::Mysql, "binlog");
    let id = pipeline.id.clone();
    let mut source = mysql::admin(Family::Mysql).await;
    let create = [
        format!("CREATE DATABASE {id}"),
        format!("CREATE TABLE {id}.t (id bigint PRIMARY KEY, name varchar(20))"),
    ];
    mysql::run(&mut source, &create).await;
    pipeline.webhook("wh", &receiver.url());
    pipeline.sink_mut("wh")["webhook"]["json"] = json!({"int64": "string"});
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let (mut places, mut transactions) = (Vec::new(), Vec::new());
    for row in 1..=6 {
        let status: mysql_async::Row =
            source.query_first("SHOW MASTER STATUS").await.unwrap().unwrap();
        let (file, place): (String, u64) = (status.get(0).unwrap(), status.get(1).unwrap());
        places.push(format!("{file}:{place}"));
        mysql::run(&mut source, &[format!("INSERT INTO {id}.t VALUES ({row}, 'row')")]).await;
        let executed: String =
            source.query_first("SELECT @@global.gtid_executed").await.unwrap().unwrap();
        transactions.push(executed.replace('\n', ""));
    }
    until("all have come", SOON, async || {
        let came = came(&receiver, 0);
        check(came.len() == 6, came)
    })
    .await;
    let place = places[3].clone();
    goes_back_to(&mut pipeline, &receiver, &place, &[4, 5, 6]).await;
    // `uuid:1-23` is the set of what was executed; its last is the one before.
    let last = |set: &str| {
        let (uuid, range) = set.rsplit(',').next().unwrap().trim().split_once(':').unwrap();
        format!("{uuid}:{}", range.rsplit(['-', ':']).next().unwrap())
    };
    if !transactions[4].is_empty() {
        goes_back_to(&mut pipeline, &receiver, &last(&transactions[4]), &[5, 6]).await;
    }
}
