//! MySQL and MariaDB as the source: the whole way, with the types that they alone have.

use std::collections::BTreeSet;

use cdc_tests::kafka;
use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::wait::{SOON, check, until};
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
    let id = pipeline.id.clone();
    let mut source = mysql::admin(family).await;
    mysql::run(&mut source, &table(&id)).await;
    pipeline.webhook("wh", &receiver.url()).events("ev").await;

    let said = pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    println!("{said}");
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
    ];
    mysql::run(&mut source, &changes).await;
    until("every change has arrived", SOON, async || {
        let found = [1, 2, u64::MAX].map(|key| of_key(&receiver, key).len());
        check(found == [2, 3, 1], found)
    })
    .await;
    for delivery in receiver.deliveries() {
        println!("{}", delivery.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_at_mysql_arrives_at_every_sink() {
    every_change_arrives(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_at_mariadb_arrives_at_every_sink() {
    every_change_arrives(Family::Mariadb).await;
}
