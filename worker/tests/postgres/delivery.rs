//! Rows and record move together, once.

use cdc_worker::sink::{Disposition, Sink};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_record_move_together() {
    for upsert in [true, false] {
        let (sink, admin) = proven(|c| c.upsert = upsert).await;
        let mut writer = started(&sink, 10).await;
        assert!(!writer.in_flight());
        // Offsets have holes; what is below the record is already there.
        push(&mut *writer, [3, 10, 12, 15]);
        writer.flush(position(20));
        assert!(writer.in_flight());
        assert_eq!(durable(&within("an answer", writer.progress()).await), 20);
        assert!(!writer.in_flight());
        assert_eq!(offsets(&admin, "cdc_events").await, [10, 12, 15]);
        assert_eq!(sink.read_position(&partition()).await.unwrap(), Some(position(20)));
        let row = admin
            .query_one("SELECT DISTINCT source_topic, source_partition FROM cdc_events", &[])
            .await
            .unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(1)), (TOPIC, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_flush_moves_the_record_only() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    assert_eq!(durable(&deliver(&mut *writer, 500..500).await), 500);
    assert_eq!(durable(&deliver(&mut *writer, 500..502).await), 502);
    assert_eq!(offsets(&admin, "cdc_events").await, [500, 501]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_leaves_no_row() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let tombstone = change(0, Operation::Tombstone);
    writer.push(&tombstone).unwrap();
    writer.flush(position(1));
    assert_eq!(durable(&within("an answer", writer.progress()).await), 1);
    assert!(offsets(&admin, "cdc_events").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_compare_and_set_writes_nothing() {
    let (sink, admin) = proven(|_| {}).await;
    let mut old = started(&sink, 0).await;
    let raised = Position { incarnation: Incarnation(2), ..position(0) };
    let moved_on = position(1);
    let another_topic = Position { topic_id: TopicId("other".into()), ..position(0) };
    for (from, to) in [(position(0), raised), (position(0), moved_on), (position(0), another_topic)]
    {
        assert!(sink.replace_position(&partition(), Some(&from), &to).await.unwrap());
        assert!(matches!(deliver(&mut *old, 0..5).await, Progress::Moved));
        old.reset(position(0));
        assert!(matches!(deliver(&mut *old, 0..0).await, Progress::Moved));
        old.reset(position(0));
        assert_eq!(sink.read_position(&partition()).await.unwrap(), Some(to.clone()));
        assert!(sink.replace_position(&partition(), Some(&to), &from).await.unwrap());
    }
    assert!(offsets(&admin, "cdc_events").await.is_empty());
    assert_eq!(durable(&deliver(&mut *old, 0..5).await), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_live_copies_one_writes_each_batch() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = PostgresSinkConfig { upsert: false, ..settings(cluster.port, &database) };
    let sinks = [sink(&config), sink(&config)];
    for sink in &sinks {
        sink.prove().await.unwrap();
    }
    let mut first = started(&sinks[0], 0).await;
    let (mut second, _) = writer(&sinks[1], 0);
    for round in 0..40 {
        let (from, to) = (round * 10, round * 10 + 10);
        first.reset(position(from));
        second.reset(position(from));
        let (a, b) = tokio::join!(deliver(&mut *first, from..to), deliver(&mut *second, from..to));
        let durable = [&a, &b].iter().filter(|p| matches!(p, Progress::Durable(_))).count();
        let moved = [&a, &b].iter().filter(|p| matches!(p, Progress::Moved)).count();
        assert_eq!((durable, moved), (1, 1), "{a:?} {b:?}");
    }
    assert_eq!(offsets(&admin, "cdc_events").await, (0..400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_replaces_the_position() {
    let (sink, _admin) = proven(|_| {}).await;
    let race = |expected: Option<Position>, base: i64| {
        let sink = &sink;
        async move {
            let attempts = (0..8).map(|n| {
                let expected = expected.clone();
                async move {
                    let new = position(base + n);
                    sink.replace_position(&partition(), expected.as_ref(), &new).await.unwrap()
                }
            });
            let won = futures::future::join_all(attempts).await;
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            sink.read_position(&partition()).await.unwrap().unwrap()
        }
    };
    let first = race(None, 0).await;
    let second = race(Some(first.clone()), 100).await;
    assert!(second.next > first.next);
    let again = sink.replace_position(&partition(), Some(&first), &position(900)).await.unwrap();
    assert!(!again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_sent_twice_is_there_once() {
    let (sink, admin) = proven(|c| c.upsert = false).await;
    let mut writer = started(&sink, 0).await;
    assert_eq!(durable(&deliver(&mut *writer, 0..5).await), 5);
    writer.reset(position(0));
    assert!(matches!(deliver(&mut *writer, 0..5).await, Progress::Moved));
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rewind_upsert_replaces_and_for_insert_the_rows_go_first() {
    for upsert in [true, false] {
        let (sink, admin) = proven(|c| c.upsert = upsert).await;
        let mut writer = started(&sink, 0).await;
        assert_eq!(durable(&deliver(&mut *writer, 0..3).await), 3);
        let back = position(1);
        assert!(sink.replace_position(&partition(), Some(&position(3)), &back).await.unwrap());
        let left = if upsert { vec![0, 1, 2] } else { vec![0] };
        assert_eq!(offsets(&admin, "cdc_events").await, left);
        writer.reset(back);
        assert_eq!(durable(&deliver(&mut *writer, 1..3).await), 3);
        assert_eq!(offsets(&admin, "cdc_events").await, [0, 1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_already_stop_a_plain_insert() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let table = "event_key text, event_value text, source_topic text, source_partition int, \
                 source_offset bigint, UNIQUE (source_topic, source_partition, source_offset)";
    admin.batch_execute(&format!("CREATE TABLE cdc_events ({table})")).await.unwrap();
    let config = PostgresSinkConfig { upsert: false, ..settings(cluster.port, &database) };
    let sink = sink(&config);
    sink.prove().await.unwrap();
    admin
        .execute("INSERT INTO cdc_events VALUES ('secret', 'secret', $1, 0, 1)", &[&TOPIC])
        .await
        .unwrap();
    let mut writer = started(&sink, 0).await;
    match deliver(&mut *writer, 0..3).await {
        Progress::Stop(error) => assert_eq!(error.code, "rows_exist"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_constraint_refuses_is_rejected_without_telling_data() {
    let (sink, admin) = proven(|_| {}).await;
    let check = "ALTER TABLE cdc_events ADD CONSTRAINT few CHECK (source_offset < 2)";
    admin.batch_execute(check).await.unwrap();
    let mut writer = started(&sink, 0).await;
    match deliver(&mut *writer, 0..4).await {
        Progress::Rejected { offset, error } => {
            assert_eq!((offset, error.disposition), (None, Disposition::Reject));
            assert!(error.message.contains("constraint few"), "{error}");
            assert!(!format!("{error:?}").contains("Failing row"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!writer.settle(3));
    writer.reset(position(0));
    assert_eq!(durable(&deliver(&mut *writer, 0..2).await), 2);
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_has_no_room_while_another_flies() {
    let (sink, admin) = proven(|c| c.batch_size = 10).await;
    assert_eq!(sink.batch_limits().rows, 10);
    let mut writer = started(&sink, 0).await;
    push(&mut *writer, 0..10);
    assert!(!writer.has_room());
    writer.flush(position(10));
    assert!(writer.has_room());
    push(&mut *writer, 10..20);
    assert!(!writer.has_room());
    assert_eq!(durable(&within("an answer", writer.progress()).await), 10);
    writer.flush(position(20));
    assert_eq!(durable(&within("an answer", writer.progress()).await), 20);
    assert_eq!(offsets(&admin, "cdc_events").await, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_share_a_database() {
    let cluster = Cluster::shared();
    let (database, _admin) = cluster.database().await;
    let config = settings(cluster.port, &database);
    let one = PostgresEvents::new("one", "db", &config).unwrap();
    let two = PostgresEvents::new("two", "db", &config).unwrap();
    one.prove().await.unwrap();
    two.prove().await.unwrap();
    assert!(one.replace_position(&partition(), None, &position(5)).await.unwrap());
    assert_eq!(two.read_position(&partition()).await.unwrap(), None);
    assert!(two.replace_position(&partition(), None, &position(6)).await.unwrap());
    assert_eq!(one.read_position(&partition()).await.unwrap(), Some(position(5)));
}
