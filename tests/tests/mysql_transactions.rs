//! `consistency: transaction` with MySQL and MariaDB as the source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cdc_tests::judge;
use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

use crate::transactions::{TOTAL, sum, watch};

/// The statements of one transaction: amounts go from one table to the other, by updates, by rows
/// that come and go, and by accounts that change their number.
fn transaction(id: &str, n: i64) -> Vec<String> {
    let (from, to) = (n % 10 + 1, n % 7 + 1);
    let mut statements = vec![
        "START TRANSACTION".to_owned(),
        format!("UPDATE {id}.checking SET amount = amount - {n} WHERE id = {from}"),
        format!("UPDATE {id}.saving SET amount = amount + {n} WHERE id = {to}"),
    ];
    match n % 4 {
        0 => statements.push(format!("UPDATE {id}.checking SET id = 100 + {n} WHERE id > 10")),
        1 => {
            statements
                .push(format!("UPDATE {id}.saving SET amount = amount - {n} WHERE id = {to}"));
            statements.push(format!("INSERT INTO {id}.saving VALUES (1000 + {n}, {n}, NULL)"));
        }
        2 => {
            let added = format!(
                "UPDATE {id}.checking SET amount = amount + coalesce((SELECT sum(amount) FROM \
                 {id}.saving WHERE id >= 1000), 0) WHERE id = {from}"
            );
            statements.extend([added, format!("DELETE FROM {id}.saving WHERE id >= 1000")]);
        }
        _ => {}
    }
    let rolled_back = n % 6 == 5;
    statements.push(if rolled_back { "ROLLBACK" } else { "COMMIT" }.to_owned());
    statements
}

async fn the_sum_is_right_at_every_look(family: Family) {
    let mut pipeline = Pipeline::of(family, &format!("bank{}", family.name()));
    let id = pipeline.id.clone();
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
    pipeline.config["source"]["connector_properties"] =
        json!({"connect.keep.alive.interval.ms": "1000"});
    pipeline.config["source"]["tables"] = json!([format!("{id}.checking"), format!("{id}.saving")]);
    pipeline.replica("mirror");
    pipeline.sink_mut("mirror")["postgres"]["consistency"] = json!("transaction");
    let mut source = mysql::admin(family).await;
    let mut begin = vec![format!("CREATE DATABASE {id} CHARACTER SET utf8mb4")];
    for table in ["checking", "saving"] {
        let columns = "id bigint PRIMARY KEY, amount bigint, note longtext";
        begin.push(format!("CREATE TABLE {id}.{table} ({columns})"));
    }
    let amount = TOTAL / 10;
    for n in 1..=11 {
        let amount = if n == 11 { 0 } else { amount };
        begin.push(format!("INSERT INTO {id}.checking VALUES ({n}, {amount}, repeat('x', 9000))"));
        begin.push(format!("INSERT INTO {id}.saving VALUES ({n}, 0, NULL)"));
    }
    mysql::run(&mut source, &begin).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("mirror");
    until("transactions are whole", SOON, async || {
        let log = worker.output();
        check(log.contains("pipeline.transactions_whole"), log)
    })
    .await;
    judge::is_equal(&mut pipeline).await;
    let target = postgres::target().await;
    assert_eq!(sum(&target, &id).await, TOTAL);

    let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watching = tokio::spawn(watch(id.clone(), stop.clone(), looks.clone()));
    for n in 1..=200 {
        mysql::run(&mut source, &transaction(&id, n)).await;
        if n % 80 == 0 {
            worker.kill();
            worker = pipeline.worker("mirror");
        }
    }
    judge::is_equal(&mut pipeline).await;
    stop.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    assert!(looks.load(Ordering::Relaxed) > 20);
    assert_eq!(sum(&target, &id).await, TOTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_transactions_of_mysql_are_seen_and_nothing_else() {
    the_sum_is_right_at_every_look(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_transactions_of_mariadb_are_seen_and_nothing_else() {
    the_sum_is_right_at_every_look(Family::Mariadb).await;
}
