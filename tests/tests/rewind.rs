//! A sink that is taken back: what is told before, and what is there after, whoever dies meanwhile.

use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::{Delivery, Receiver};
use cdc_tests::wait::{SOON, check, until};

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
