//! Rows arrive once, with their offsets, in one commit for all partitions that flush.

use super::*;
use crate::replica::event::UNAVAILABLE;

#[tokio::test]
async fn rows_and_offsets_are_one_snapshot() {
    let place = Place::new();
    let sink = place.sink().await;
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), None);
    let mut writer = started(&sink, 0).await;
    let events = [
        event(3, "r", &row(1, "a")),
        event(4, "c", &row(2, "b")),
        event(7, "u", &[V::N(1), V::T("c"), V::T(UNAVAILABLE)]),
        event(8, "d", &row(2, "b")),
        event(9, "t", &row(2, "b")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 11, &events).await), 11);

    let shown =
        ["id", "name", "large", "_cdc_partition", "_cdc_offset", "_cdc_op", "_cdc_unavailable"];
    let expected = [
        "1|a|NULL|0|3|r|NULL",
        "1|c|NULL|0|7|u|[large]",
        "2|NULL|NULL|0|8|d|NULL",
        "2|b|NULL|0|4|c|NULL",
        "NULL|NULL|NULL|0|9|t|NULL",
    ];
    assert_eq!(place.rows(&shown).await, expected);
    assert_eq!(place.rows(&["_cdc_topic"]).await, [TOPIC; 5]);
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(position(11)));
    let columns = place.table().columns().await.unwrap();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..4], ["id", "name", "large", "_cdc_topic"]);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 1);
}

#[tokio::test]
async fn partitions_that_flush_share_a_commit() {
    let place = Place::new();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    let mut idle = started(&sink, 2).await;
    push(&mut *a, &table(), &creates(0..3));
    push(&mut *b, &table(), &creates(0..2));
    a.flush(position(3));
    // The flush of one asks the others for what they have.
    assert!(matches!(answer(&mut *b).await, Progress::Wanted));
    b.flush(position(2));
    assert!(matches!(answer(&mut *idle).await, Progress::Wanted));
    assert_eq!(durable(&answer(&mut *a).await), 3);
    assert_eq!(durable(&answer(&mut *b).await), 2);
    assert_eq!(place.rows(&["_cdc_partition", "id"]).await, ["0|0", "0|1", "0|2", "1|0", "1|1"]);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 1);
    assert_eq!(place.files("data", ".parquet").len(), 1);
    // What was asked for already is not asked for again.
    push(&mut *b, &table(), &creates(2..3));
    let more = tokio::time::timeout(Duration::from_millis(300), b.progress()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_range_without_effect_moves_the_position_alone() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    assert_eq!(durable(&deliver(&mut *writer, &table(), 0, &[]).await), 0);
    assert_eq!(durable(&deliver(&mut *writer, &table(), 40, &[]).await), 40);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 0);
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(position(40)));
}

#[tokio::test]
async fn of_two_live_copies_each_row_arrives_once() {
    let place = Place::new();
    let (one, other) = (place.sink().await, place.sink().await);
    let mut a = started(&one, 0).await;
    let mut b = writer_of(&other, 0, position(0));
    push(&mut *a, &table(), &creates(0..5));
    push(&mut *b, &table(), &creates(0..5));
    a.flush(position(5));
    b.flush(position(5));
    let (a, b) = tokio::join!(answer(&mut *a), answer(&mut *b));
    let durable = [&a, &b].iter().filter(|p| matches!(p, Progress::Durable(_))).count();
    let moved = [&a, &b].iter().filter(|p| matches!(p, Progress::Moved)).count();
    assert_eq!((durable, moved), (1, 1), "{a:?} {b:?}");
    assert_eq!(place.rows(&["id"]).await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn several_workers_commit_to_one_table_at_the_same_time() {
    let place = Place::new();
    let mut sinks = Vec::new();
    for _ in 0..3 {
        sinks.push(place.sink().await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, sink) in sinks.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut writer = started(&sink, number as i32).await;
            for at in 0..6 {
                let progress = deliver(&mut *writer, &table(), at + 1, &creates(at..at + 1)).await;
                assert_eq!(durable(&progress), at + 1);
            }
        });
    }
    within("all commits", async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    })
    .await;
    assert_eq!(place.rows(&["id"]).await.len(), 18);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 18);
    let offsets = place.table().offsets().await.unwrap();
    assert!(offsets.values().all(|position| position.next.get() == 6), "{offsets:?}");
    // What lost a race left nothing behind.
    assert_eq!(place.files("data", ".parquet").len(), 18);
    assert_eq!(place.files("metadata", "-m0.avro").len(), 18);
}

#[tokio::test]
async fn a_bad_value_leaves_no_trace_and_the_others_go_on() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let number = col("n", "string", "NUMERIC", Some(5));
    let table = Table::new("t", 2, 1, 1, &[col("id", "long", "INT8", None).required(), number]);
    table.push(&mut *writer, &event(0, "c", &[V::N(0), V::T("123")])).unwrap();
    for bad in ["NAN", "123456", "1.5", "x"] {
        let why = table.push(&mut *writer, &event(1, "c", &[V::N(1), V::T(bad)])).unwrap_err();
        assert!(why.message.starts_with("column n: "), "{why}");
        assert!(!why.message.contains(bad), "{why}");
    }
    table.push(&mut *writer, &event(2, "c", &[V::N(2), V::T("-99999")])).unwrap();
    writer.flush(position(3));
    assert_eq!(durable(&answer(&mut *writer).await), 3);
    assert_eq!(place.rows(&["id", "n"]).await, ["0|123", "2|-99999"]);
}

#[tokio::test]
async fn a_reset_forgets_what_was_open_and_what_was_flushed() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    push(&mut *writer, &table(), &creates(0..3));
    writer.reset(position(0));
    assert_eq!(durable(&deliver(&mut *writer, &table(), 2, &creates(0..2)).await), 2);
    assert_eq!(place.rows(&["id"]).await, ["0", "1"]);
}
