//! MySQL and MariaDB as the source: the whole way, with the types that they alone have.

use std::collections::BTreeSet;

use cdc_tests::kafka;
use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::record::http;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use mysql_async::prelude::Queryable;
use rdkafka::Message;
use serde_json::{Value, json};

/// The pipeline's table: what these databases write otherwise than others.
fn table(id: &str) -> Vec<String> {
    vec![
        format!("CREATE DATABASE {id} CHARACTER SET utf8mb4"),
        format!(
            "CREATE TABLE {id}.t (
                id bigint UNSIGNED PRIMARY KEY,
                name varchar(100),
                tier varchar(20) DEFAULT 'standard',
                score int UNSIGNED DEFAULT 7,
                big bigint UNSIGNED,
                early time(6),
                late time,
                moment datetime(6),
                stamp timestamp(6) NULL DEFAULT NULL,
                amount decimal(30, 10),
                mood enum('sad', 'ok', 'o''k'),
                tags set('a', 'b', 'c'),
                doc json,
                bits bit(12),
                bool1 bit(1),
                born year,
                yes tinyint(1),
                raw blob,
                plus1 bigint GENERATED ALWAYS AS (score + 1) STORED,
                plus2 bigint GENERATED ALWAYS AS (score + 2) VIRTUAL
            )"
        ),
        row(id, 1, "of the snapshot"),
    ]
}

fn row(id: &str, key: u64, name: &str) -> String {
    format!(
        "INSERT INTO {id}.t (id, name, tier, score, big, early, late, moment, stamp, amount, mood, \
         tags, doc, bits, bool1, born, yes, raw) VALUES ({key}, '{name}', NULL, NULL, \
         18446744073709551615, '-12:34:56.789012', '838:59:59', '9999-12-31 23:59:59.999999', \
         '2024-02-29 13:05:09.500000', -12345678901234567890.0123456789, 'o''k', 'a,c', \
         '{{\"b\": [1, 2.50, null], \"a\": \"ü\"}}', b'101000000001', b'1', 2155, 1, \
         x'00ff10')"
    )
}

fn of_key(receiver: &Receiver, key: u64) -> Vec<Delivery> {
    let key = json!({"id": key.to_string()});
    let mut events: Vec<Delivery> =
        receiver.deliveries().into_iter().filter(|d| d.key == key).collect();
    events.dedup_by(|a, b| a.event() == b.event());
    events
}

async fn every_change_arrives(family: Family) {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::of(family, family.name());
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
    let id = pipeline.id.clone();
    let mut source = mysql::admin(family).await;
    mysql::run(&mut source, &table(&id)).await;
    pipeline.webhook("wh", &receiver.url()).events("ev").await;

    let said = pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    for fact in
        ["log_bin is on", "binlog_format is ROW", "may read the binlog", "plus1 is generated"]
    {
        assert!(said.contains(fact), "{fact}: {said}");
    }
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let again = pipeline.cdc_ok(&["deploy", "FILE"]).await;
    assert!(again.contains("unchanged"), "{again}");
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];

    until("the snapshot's row has arrived", SOON, async || {
        check(of_key(&receiver, 1).len() == 1, receiver.deliveries().len())
    })
    .await;
    let changes = [
        row(&id, 2, "größe 🦀"),
        format!("UPDATE {id}.t SET name = 'eva', tier = 'gold', score = 4294967295 WHERE id = 2"),
        format!("DELETE FROM {id}.t WHERE id = 1"),
        format!("UPDATE {id}.t SET id = 18446744073709551615 WHERE id = 2"),
        format!("ALTER TABLE {id}.t ADD COLUMN extra varchar(20)"),
        format!("INSERT INTO {id}.t (id, extra) VALUES (3, 'new')"),
    ];
    mysql::run(&mut source, &changes).await;
    until("every change has arrived", SOON, async || {
        let found = [1, 2, 3, u64::MAX].map(|key| of_key(&receiver, key).len());
        check(found == [2, 3, 1, 1], found)
    })
    .await;
    check_values(family, &receiver);
    receiver.check_promise();
    check_both_sinks(&mut pipeline, &receiver).await;
    let (topics, prefix) = (kafka::topics_with(&id), &id);
    assert!(topics.contains(prefix), "{topics:?}");
    assert!(!kafka::read_all(prefix, 1).is_empty(), "schema changes were told");
    let heartbeats = format!("__debezium-heartbeat.{id}");
    until("the connector's heart beats", SOON, async || {
        check(!kafka::read_all(&heartbeats, 1).is_empty(), "no heartbeat yet")
    })
    .await;
    let topic = pipeline.topic();
    let foreign: Vec<String> =
        receiver.deliveries().into_iter().map(|d| d.topic).filter(|t| *t != topic).collect();
    assert!(foreign.is_empty(), "only the table's events are delivered: {foreign:?}");
}

fn operations(events: &[Delivery]) -> Vec<Value> {
    events.iter().map(|delivery| delivery.body["value"]["op"].clone()).collect()
}

/// What a row must look like, less what differs between snapshot and changes.
fn expected(name: &str, key: &str) -> Value {
    json!({
        "id": key,
        "name": name,
        "tier": null,
        "score": null,
        "big": "18446744073709551615",
        "early": -45_296_789_012_i64,
        "late": 3_020_399_000_000_i64,
        "moment": 253_402_300_799_999_999_i64,
        "amount": "-12345678901234567890.0123456789",
        "mood": "o'k",
        "tags": "a,c",
        "bits": "AQo=",
        "bool1": true,
        "born": 2155,
        "yes": 1,
        "raw": "AP8Q",
        "plus1": null,
        "plus2": null,
    })
}

/// Compares a row exactly; the instant and the document, whose text is written in more ways than
/// one, by what they mean.
fn check_row(family: Family, row: &Value, mut expected: Value) {
    let mut row = row.as_object().unwrap().clone();
    let stamp = row.remove("stamp").unwrap();
    let instant = stamp.as_str().unwrap().replace(".500000Z", ".5Z");
    assert_eq!(instant, "2024-02-29T11:05:09.5Z", "the session's zone is +02:00");
    let text = row.remove("doc").unwrap();
    let text = text.as_str().unwrap();
    let document: Value = serde_json::from_str(text).unwrap();
    assert_eq!(document, json!({"a": "ü", "b": [1, 2.5, null]}));
    if family == Family::Mariadb {
        assert_eq!(text, r#"{"b": [1, 2.50, null], "a": "ü"}"#, "MariaDB keeps the text");
    }
    if !expected.as_object().unwrap().contains_key("extra") && row.get("extra").is_some() {
        expected["extra"] = Value::Null;
    }
    assert_eq!(Value::Object(row), expected);
}

fn check_values(family: Family, receiver: &Receiver) {
    let (first, second) = (of_key(receiver, 1), of_key(receiver, 2));
    assert_eq!(operations(&first), ["r", "d"]);
    check_row(family, &first[0].body["value"]["after"], expected("of the snapshot", "1"));
    assert_eq!(operations(&second), ["c", "u", "d"]);
    check_row(family, &second[0].body["value"]["after"], expected("größe 🦀", "2"));
    let mut changed = expected("eva", "2");
    changed["tier"] = json!("gold");
    changed["score"] = json!(4_294_967_295_i64);
    changed["plus1"] = json!(4_294_967_296_i64);
    changed["plus2"] = json!(4_294_967_297_i64);
    check_row(family, &second[1].body["value"]["after"], changed.clone());
    check_row(family, &second[1].body["value"]["before"], expected("größe 🦀", "2"));
    let moved = of_key(receiver, u64::MAX);
    assert_eq!(operations(&moved), ["c"]);
    changed["id"] = json!(u64::MAX.to_string());
    check_row(family, &moved[0].body["value"]["after"], changed);
    let third = of_key(receiver, 3);
    assert_eq!(operations(&third), ["c"]);
    assert_eq!(
        third[0].body["value"]["after"]["extra"], "new",
        "a column that came while streaming"
    );
}

/// Each record of the topic is at the webhook and, once, in the table, with the same content.
async fn check_both_sinks(pipeline: &mut Pipeline, receiver: &Receiver) {
    let records: BTreeSet<(i32, i64)> = kafka::read_all(&pipeline.topic(), 4)
        .iter()
        .filter(|message| message.payload().is_some())
        .map(|message| (message.partition(), message.offset()))
        .collect();
    assert_eq!(records.len(), 7, "one per change, two for the one of the key");
    pipeline.has_rows(&records, SOON).await;
    receiver.has(&records).await;
    let target = postgres::target().await;
    let query = format!(
        "SELECT source_partition, source_offset, event_key, event_value::text FROM {}",
        pipeline.events_table()
    );
    for row in target.query(&query, &[]).await.unwrap() {
        let event: (i32, i64) = (row.get(0), row.get(1));
        let sent = receiver.deliveries().into_iter().find(|d| d.event() == event).unwrap();
        let value: Value = serde_json::from_str(row.get(3)).unwrap();
        assert_eq!(value, sent.body["value"]);
        let key: Value = serde_json::from_str(row.get(2)).unwrap();
        assert_eq!(key, sent.key);
    }
}

/// A table that somebody drops while a new connector starts: the connector lists the server's tables,
/// locks them all, and reads the definition of each, and it waits for the lock while somebody holds
/// one. False when it was another test's connector that waited.
async fn starts_though_others_drop(family: Family) -> bool {
    let mut pipeline = Pipeline::of(family, "dropped");
    let id = pipeline.id.clone();
    let [mut other, mut looker] = [mysql::admin(family).await, mysql::admin(family).await];
    let begin = [
        format!("CREATE DATABASE {id}"),
        format!("CREATE TABLE {id}.t (id int PRIMARY KEY)"),
        format!("INSERT INTO {id}.t VALUES (1)"),
        format!("CREATE TABLE {id}.scratch (id int)"),
        format!("LOCK TABLES {id}.scratch WRITE"),
    ];
    mysql::run(&mut other, &begin).await;
    pipeline.events("ev").await;
    let processes = "SELECT concat_ws('|', info, state) FROM information_schema.processlist";
    let dropped = async {
        until("a connector waits for the lock", SOON, async || {
            let said: Vec<Option<String>> = looker.query(processes).await.unwrap();
            let waits = |line: &String| line.contains("FLUSH TABLES WITH READ LOCK|Waiting");
            check(said.iter().flatten().any(waits), said)
        })
        .await;
        let end = [format!("DROP TABLE {id}.scratch"), "UNLOCK TABLES".to_owned()];
        mysql::run(&mut other, &end).await;
    };
    let (output, ()) = tokio::join!(pipeline.cdc(&["deploy", "FILE"]), dropped);
    assert!(output.status.success(), "{output:?}");
    // A failure that comes later is the coordinator's.
    let _coordinator = pipeline.serve();
    let topic = pipeline.topic();
    until("the snapshot is there", SOON, async || {
        check(kafka::read_all(&topic, 4).len() == 1, "no row yet")
    })
    .await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.contains(&format!("table {id}.scratch, which is not of this pipeline"))
}

/// A lock that somebody holds for longer than the connector waits ends its first start, and leaves
/// an offset without a place, which ends the second: `deploy` begins anew, or the coordinator.
async fn a_lock_of_others_is_waited_out(family: Family, by_coordinator: bool) {
    let mut pipeline = Pipeline::of(family, "locked");
    let id = pipeline.id.clone();
    let mut other = mysql::admin(family).await;
    let begin = [
        format!("CREATE DATABASE {id}"),
        format!("CREATE TABLE {id}.t (id int PRIMARY KEY)"),
        format!("INSERT INTO {id}.t VALUES (1)"),
        format!("LOCK TABLES {id}.t WRITE"),
    ];
    mysql::run(&mut other, &begin).await;
    // Shorter than by default, for the sake of the tests beside this one.
    pipeline.config["source"]["connector_properties"] = json!({"snapshot.lock.timeout.ms": "1000"});
    pipeline.events("ev").await;
    let status = format!("{}/connectors/{id}-{id}/status", Stack::get().connect());
    let failed = async {
        until("the connector has failed", SOON, async || {
            let status = http().get(&status).send().await.unwrap().text().await.unwrap();
            check(status.contains("FAILED"), status)
        })
        .await;
        mysql::run(&mut other, &["UNLOCK TABLES".to_owned()]).await;
    };
    // It may end before the connector fails, or see it fail.
    let (_, ()) = tokio::join!(pipeline.cdc(&["deploy", "FILE"]), failed);
    let _coordinator = by_coordinator.then(|| pipeline.serve());
    if !by_coordinator {
        pipeline.cdc_ok(&["deploy", "FILE"]).await;
    }
    let topic = pipeline.topic();
    until("the snapshot is there", SOON, async || {
        check(kafka::read_all(&topic, 4).len() == 1, "no row yet")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_at_mysql_is_waited_out() {
    a_lock_of_others_is_waited_out(Family::Mysql, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_at_mariadb_is_waited_out() {
    a_lock_of_others_is_waited_out(Family::Mariadb, true).await;
}

async fn what_others_drop_ends_no_start(family: Family) {
    for _ in 0..5 {
        if starts_though_others_drop(family).await {
            return;
        }
    }
    panic!("the connector never met a dropped table");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_drop_at_mysql_ends_no_start() {
    what_others_drop_ends_no_start(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_drop_at_mariadb_ends_no_start() {
    what_others_drop_ends_no_start(Family::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_at_mysql_arrives_at_every_sink() {
    every_change_arrives(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_at_mariadb_arrives_at_every_sink() {
    every_change_arrives(Family::Mariadb).await;
}

/// What `validate --connect` says, and how it ended.
async fn validated(pipeline: &mut Pipeline) -> (Option<i32>, String) {
    let output = pipeline.cdc(&["validate", "FILE", "--connect"]).await;
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn what_is_missing_is_named(family: Family) {
    let mut pipeline = Pipeline::of(family, "poor");
    let (id, user) = (pipeline.id.clone(), format!("'{}'@'127.0.0.1'", pipeline.id));
    let mut source = mysql::admin(family).await;
    let statements = [
        format!("CREATE DATABASE {id}"),
        format!("CREATE TABLE {id}.t (name varchar(20))"),
        format!("CREATE TABLE {id}.hidden (id int PRIMARY KEY)"),
        format!("CREATE TABLE {id}.unique_only (id int NOT NULL UNIQUE)"),
        format!("CREATE VIEW {id}.v AS SELECT * FROM {id}.t"),
        format!("CREATE USER {user} IDENTIFIED BY 'secret-of-poor'"),
        format!("GRANT SELECT ON {id}.t TO {user}"),
        format!("GRANT SELECT ON {id}.v TO {user}"),
        format!("GRANT SELECT ON {id}.unique_only TO {user}"),
        format!("GRANT INSERT ON {id}.hidden TO {user}"),
    ];
    mysql::run(&mut source, &statements).await;
    let tables: Vec<String> = ["t", "hidden", "unique_only", "v", "absent"]
        .iter()
        .map(|name| format!("{id}.{name}"))
        .collect();
    pipeline.config["source"]["tables"] = json!(tables);
    pipeline.config["source"]["username"] = json!(id);
    pipeline.config["source"]["password"] = json!("secret-of-poor");
    let (code, said) = validated(&mut pipeline).await;
    assert_eq!(code, Some(78), "{said}");
    for sentence in [
        format!("user {id} lacks REPLICATION SLAVE, REPLICATION CLIENT"),
        format!("user {id} has neither RELOAD nor LOCK TABLES"),
        format!("table {id}.t has no primary key"),
        format!("user {id} may not read {id}.hidden"),
        format!("table {id}.unique_only has no primary key: the connector takes the unique index"),
        format!("{id}.v is no table (view)"),
        format!("table {id}.absent does not exist"),
    ] {
        assert!(said.contains(&sentence), "{sentence}: {said}");
    }
    let everything = if family == Family::Mysql {
        // By a role: what comes by it counts too.
        vec![
            format!("CREATE ROLE '{id}r'"),
            format!("GRANT RELOAD, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{id}r'"),
            format!("GRANT '{id}r' TO {user}"),
            format!("SET DEFAULT ROLE '{id}r' TO {user}"),
        ]
    } else {
        vec![format!("GRANT RELOAD, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {user}")]
    };
    mysql::run(&mut source, &everything).await;
    pipeline.config["source"]["tables"] = json!([format!("{id}.t")]);
    let (code, said) = validated(&mut pipeline).await;
    assert_eq!(code, Some(0), "{said}");

    pipeline.config["source"]["password"] = json!("not-the-password");
    let (code, said) = validated(&mut pipeline).await;
    assert_eq!(code, Some(77), "{said}");
    let refused = format!("127.0.0.1:{} refuses user {id}", family.port());
    assert!(said.contains(&refused) && !said.contains("not-the-password"), "{said}");
    mysql::run(&mut source, &[format!("DROP USER {user}")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mysql_lacks_is_named() {
    what_is_missing_is_named(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mariadb_lacks_is_named() {
    what_is_missing_is_named(Family::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_would_not_get_as_it_is_is_named() {
    for family in [Family::Mysql, Family::Mariadb] {
        let mut pipeline = Pipeline::of(family, "changed");
        let (id, long) = (pipeline.id.clone(), "ü".repeat(32));
        let mut source = mysql::admin(family).await;
        let numbers: Vec<String> = (0..7).map(|n| format!("n{n} int")).collect();
        let statements = [
            format!("CREATE DATABASE {id}"),
            format!(
                "CREATE TABLE {id}.t (id int PRIMARY KEY, ratio float, `{long}` text, \
                 twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, at time)"
            ),
            format!("CREATE TABLE {id}.y (id int PRIMARY KEY, {}, born year)", numbers.join(", ")),
        ];
        mysql::run(&mut source, &statements).await;
        pipeline.config["source"]["tables"] = json!([format!("{id}.t"), format!("{id}.y")]);
        pipeline.config["source"]["connector_properties"] =
            json!({"time.precision.mode": "connect"});
        pipeline.replica("mirror");
        let (code, said) = validated(&mut pipeline).await;
        assert_eq!(code, Some(78), "{said}");
        for sentence in [
            format!("values of column {id}.t.ratio (float) have six digits in a snapshot"),
            format!("column name {long} of {id}.t has 64 bytes, PostgreSQL keeps 63"),
            format!("column {id}.t.twice is generated: deploy has the connector leave it out"),
            format!("values of column {id}.t.at (time) end the connector's task"),
        ] {
            assert!(said.contains(&sentence), "{sentence}: {said}");
        }
        // Only the old server of the stack counts them so.
        let counted = format!("table {id}.y has 9 numbers with its YEAR");
        assert_eq!(said.contains(&counted), family == Family::Mysql, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_product_and_an_unknown_authority_are_named() {
    let mut pipeline = Pipeline::of(Family::Mariadb, "tls");
    let demo = Stack::get().value("SOURCE_DATABASE");
    pipeline.config["source"]["tables"] = json!([format!("{demo}.orders")]);
    pipeline.config["source"]["ssl"] =
        json!({"mode": "verify-full", "ca_file": Stack::get().value("TLS_CA")});
    let (code, said) = validated(&mut pipeline).await;
    assert_eq!(code, Some(0), "{said}");
    pipeline.config["source"]["ssl"] = json!({"mode": "verify-full"});
    let (code, said) = validated(&mut pipeline).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("UnknownIssuer") && said.contains("check source.ssl"), "{said}");
    pipeline.config["source"]["ssl"] = json!({"mode": "prefer"});
    pipeline.config["source"]["source_type"] = json!("mysql");
    let (code, said) = validated(&mut pipeline).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("set source.source_type: mariadb"), "{said}");
}
