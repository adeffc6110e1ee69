//! A change log that is taken back: rows that come again are gone with the step, all others stay.

use cdc_iceberg::Compact;
use cdc_worker::sink::SinkError;

use super::faults::{Fault, Faulty};
use super::*;

const SHOWN: [&str; 2] = ["_cdc_partition", "_cdc_offset"];

/// A position in an incarnation.
fn of(incarnation: u64, next: i64) -> Position {
    Position {
        incarnation: Incarnation(incarnation),
        schemas: SchemaIds::default(),
        ..position(next)
    }
}

/// Takes partition 0 back.
async fn back(sink: &IcebergSink, from: &Position, to: &Position) -> Result<bool, SinkError> {
    within("the step back", sink.replace_position(&partition(0), Some(from), to)).await
}

fn texts(partition: i32, offsets: impl IntoIterator<Item = i64>) -> Vec<String> {
    offsets.into_iter().map(|offset| format!("{partition}|{offset}")).collect()
}

/// Delivers in an incarnation.
async fn again(writer: &mut dyn PartitionWriter, to: Position, events: &[Event]) -> i64 {
    push(writer, &table(), events);
    writer.flush(to);
    durable(&answer(writer).await)
}

/// Three files: of both partitions, of partition 0 alone, of both.
async fn filled(sink: &IcebergSink) {
    let (mut a, mut b) = (started(sink, 0).await, started(sink, 1).await);
    for (from, other) in [(0, true), (4, false), (8, true)] {
        push(&mut *a, &table(), &creates(from..from + 4));
        if other {
            push(&mut *b, &table(), &creates(from..from + 4));
        }
        a.flush(position(from + 4));
        if other {
            b.flush(position(from + 4));
            assert_eq!(durable(&answer(&mut *b).await), from + 4);
        }
        assert_eq!(durable(&answer(&mut *a).await), from + 4);
    }
}

#[tokio::test]
async fn rows_from_the_target_on_are_gone_in_one_snapshot_with_the_position() {
    let place = Place::new();
    let sink = place.sink().await;
    filled(&sink).await;
    let before = place.table().snapshots().await.unwrap();
    assert!(back(&sink, &position(12), &of(2, 2)).await.unwrap());

    let others: Vec<i64> = (0..4).chain(8..12).collect();
    let expected = [texts(0, 0..2), texts(1, others.clone())].concat();
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(place.rows(&SHOWN).await, sorted);
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(of(2, 2)));
    assert_eq!(sink.read_position(&partition(1)).await.unwrap(), Some(position(12)));
    let after = place.table().snapshots().await.unwrap();
    assert_eq!(after.len(), before.len() + 1);
    let summary = &after[0].summary;
    // The file that held nothing else is gone, of the others the rows are deleted.
    assert_eq!(summary["deleted-data-files"], "1");
    assert_eq!(summary["added-position-deletes"], "6");
    assert_eq!(summary["total-data-files"], "2");

    let mut writer = writer_of(&sink, 0, of(2, 2));
    assert_eq!(again(&mut *writer, of(2, 14), &creates(2..14)).await, 14);
    let mut all = [texts(0, 0..14), texts(1, others)].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);

    // What was deleted counts as gone when the same comes again.
    assert!(back(&sink, &of(2, 14), &of(3, 3)).await.unwrap());
    let mut writer = writer_of(&sink, 0, of(3, 3));
    assert_eq!(again(&mut *writer, of(3, 14), &creates(3..14)).await, 14);
    assert_eq!(place.rows(&SHOWN).await, all);

    // Time travel to before the first step shows what was there.
    place.table().roll_back(before[0].id).await.unwrap();
    let mut all = [texts(0, 0..12), texts(1, (0..4).chain(8..12))].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);
}

#[tokio::test]
async fn a_step_back_is_done_once_whatever_fails_and_whoever_commits_meanwhile() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    filled(&sink).await;
    let mut old = writer_of(&sink, 0, position(12));
    push(&mut *old, &table(), &creates(12..13));

    // Another worker commits first, and more files of the partition's neighbour are there.
    let other = place.sink().await;
    catalog.overtake(async move {
        let mut b = writer_of(&other, 1, position(12));
        assert_eq!(durable(&deliver(&mut *b, &table(), 14, &creates(12..14)).await), 14);
    });
    catalog.fail(&[Fault::Unavailable]);
    assert_eq!(back(&sink, &position(12), &of(2, 5)).await.unwrap_err().code, "http_500");
    let whole = place.rows(&SHOWN).await;
    assert_eq!(whole.iter().filter(|row| row.starts_with("0|")).count(), 12, "nothing is done");
    catalog.fail(&[Fault::AnswerLost]);
    assert_eq!(back(&sink, &position(12), &of(2, 5)).await.unwrap_err().code, "http_500");
    // It is there, and asked for again it is another one's by now.
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(of(2, 5)));
    assert!(!back(&sink, &position(12), &of(2, 5)).await.unwrap());

    // Whoever was in the middle of a flush writes nothing any more.
    old.flush(position(13));
    assert!(matches!(answer(&mut *old).await, Progress::Moved));
    let mut all = [texts(0, 0..5), texts(1, (0..4).chain(8..14))].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);
    let mut writer = writer_of(&sink, 0, of(2, 5));
    assert_eq!(again(&mut *writer, of(2, 13), &creates(5..13)).await, 13);
    let mut all = [texts(0, 0..13), texts(1, (0..4).chain(8..14))].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);
}

#[tokio::test]
async fn killed_before_the_step_back_is_committed_the_next_worker_does_it() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    filled(&sink).await;
    catalog.fail(&[Fault::Hangs]);
    let (from, to, tp) = (position(12), of(2, 1), partition(0));
    let step = sink.replace_position(&tp, Some(&from), &to);
    let killed = tokio::time::timeout(Duration::from_millis(500), step).await;
    assert!(killed.is_err());
    assert!(!place.files("data", "-deletes.parquet").is_empty(), "it was about to commit");
    assert_eq!(place.rows(&SHOWN).await.len(), 20);
    drop(sink);
    let next = place.sink().await;
    assert!(back(&next, &from, &to).await.unwrap());
    assert_eq!(place.rows(&SHOWN).await.len(), 1 + 8);
}

#[tokio::test]
async fn files_that_were_joined_meanwhile_lose_the_rows_as_well() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    filled(&sink).await;
    let table_of = place.table();
    catalog.overtake(async move {
        let wanted = Compact { target_bytes: 1 << 20, min_files: 2, gone_percent: 1 };
        assert_eq!(table_of.compact(&wanted).await.unwrap().read, 3);
    });
    assert!(back(&sink, &position(12), &of(2, 6)).await.unwrap());
    let mut all = [texts(0, 0..6), texts(1, (0..4).chain(8..12))].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);
    // And the other way round: what was taken back stays so when files are joined.
    let wanted = Compact { target_bytes: 1 << 20, min_files: 1, gone_percent: 1 };
    assert_eq!(place.table().compact(&wanted).await.unwrap().gone, 6);
    assert_eq!(place.rows(&SHOWN).await, all);
}

#[tokio::test]
async fn rows_of_a_former_topic_are_told_and_nothing_is_taken_away() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    durable(&deliver(&mut *writer, &table(), 4, &creates(0..4)).await);
    // The topic was created again, and begins anew.
    let new = |incarnation, next| Position {
        topic_id: TopicId("another".into()),
        ..of(incarnation, next)
    };
    assert!(back(&sink, &position(4), &new(2, 0)).await.unwrap());
    assert_eq!(place.rows(&SHOWN).await, texts(0, 0..4), "nothing brings them again");
    let mut writer = writer_of(&sink, 0, new(2, 0));
    assert_eq!(again(&mut *writer, new(2, 6), &creates(0..6)).await, 6);
    let error = back(&sink, &new(2, 6), &new(3, 2)).await.unwrap_err();
    assert_eq!(error.code, "rows_ambiguous", "{error}");
    assert_eq!(sink.read_position(&partition(0)).await.unwrap().unwrap().next.get(), 6);
    // Where only the new one has rows there is no doubt.
    assert!(back(&sink, &new(2, 6), &new(3, 4)).await.unwrap());
    let mut expected = [texts(0, 0..4), texts(0, 0..4)].concat();
    expected.sort();
    assert_eq!(place.rows(&SHOWN).await, expected);
}

#[tokio::test]
async fn in_a_partitioned_table_each_partition_loses_its_rows() {
    let mut place = Place::new();
    place.partition_by = vec!["bucket(3, id)".to_owned()];
    let sink = place.sink().await;
    filled(&sink).await;
    assert!(back(&sink, &position(12), &of(2, 2)).await.unwrap());
    let mut all = [texts(0, 0..2), texts(1, (0..4).chain(8..12))].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);
    let mut writer = writer_of(&sink, 0, of(2, 2));
    assert_eq!(again(&mut *writer, of(2, 12), &creates(2..12)).await, 12);
    assert!(back(&sink, &of(2, 12), &of(3, 1)).await.unwrap());
    let mut all = [texts(0, 0..1), texts(1, (0..4).chain(8..12))].concat();
    all.sort();
    assert_eq!(place.rows(&SHOWN).await, all);
}
