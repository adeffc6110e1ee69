//! Dead letters that are written again.

use cdc_iceberg::Compact;

use super::faults::{Fault, Faulty};
use super::*;

/// A writer for the letter at an offset.
fn again(sink: &IcebergSink, at: &Position, offset: i64) -> Box<dyn PartitionWriter> {
    let policy = RetryPolicy { initial_wait: Duration::from_millis(10), ..RetryPolicy::default() };
    let (reporter, _) = TroubleReporter::new(policy, false);
    sink.replay(partition(0), at, offset, reporter).unwrap()
}

/// Writes a letter again.
pub(super) async fn replay(sink: &IcebergSink, at: &Position, letter: &Event) -> Progress {
    let mut writer = again(sink, at, letter.offset);
    push(&mut *writer, &table(), std::slice::from_ref(letter));
    writer.flush(at.clone());
    answer(&mut *writer).await
}

const SHOWN: [&str; 2] = ["_cdc_offset", "name"];

/// Two records, one that is rejected, and two more.
async fn with_a_letter(sink: &IcebergSink) -> Event {
    let mut writer = started(sink, 0).await;
    durable(&deliver(&mut *writer, &table(), 3, &creates(0..2)).await);
    durable(&deliver(&mut *writer, &table(), 5, &creates(3..5)).await);
    event(2, "c", &row(2, "letter"))
}

#[tokio::test]
async fn a_letter_is_in_the_log_once_however_often_it_is_replayed() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    let letter = with_a_letter(&sink).await;
    let whole = ["0|name", "1|name", "2|letter", "3|name", "4|name"];
    // Its answer is lost: the next attempt sees it.
    catalog.fail(&[Fault::AnswerLost]);
    assert_eq!(durable(&replay(&sink, &position(5), &letter).await), 5);
    assert_eq!(place.rows(&SHOWN).await, whole);
    let snapshots = place.table().snapshots().await.unwrap().len();
    assert_eq!(durable(&replay(&sink, &position(5), &letter).await), 5);
    assert_eq!(durable(&replay(&place.sink().await, &position(5), &letter).await), 5);
    assert_eq!(place.table().snapshots().await.unwrap().len(), snapshots, "nothing is written");
    let wanted = Compact { target_bytes: 1 << 20, min_files: 1, gone_percent: 1 };
    place.table().compact(&wanted).await.unwrap();
    assert_eq!(durable(&replay(&sink, &position(5), &letter).await), 5);
    assert_eq!(place.rows(&SHOWN).await, whole);
    // The sink goes on where it was.
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(position(5)));
    let mut writer = writer_of(&sink, 0, position(5));
    assert_eq!(durable(&deliver(&mut *writer, &table(), 6, &creates(5..6)).await), 6);
}

#[tokio::test]
async fn two_workers_that_replay_a_letter_write_it_once() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let (one, other) = (place.sink_on(catalog.clone()).await, place.sink().await);
    let letter = with_a_letter(&one).await;
    // The other one comes first, just before the commit.
    let same = letter.clone();
    catalog.overtake(async move {
        assert_eq!(durable(&replay(&other, &position(5), &same).await), 5);
    });
    assert_eq!(durable(&replay(&one, &position(5), &letter).await), 5);
    assert_eq!(place.rows(&["_cdc_offset"]).await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_letter_of_a_sink_that_moved_is_not_written() {
    let place = Place::new();
    let sink = place.sink().await;
    let letter = with_a_letter(&sink).await;
    let back = Position { incarnation: Incarnation(2), ..position(1) };
    assert!(sink.replace_position(&partition(0), Some(&position(5)), &back).await.unwrap());
    assert!(matches!(replay(&sink, &position(5), &letter).await, Progress::Moved));
    assert_eq!(place.rows(&["_cdc_offset"]).await, ["0"]);
    // What was replayed goes with a step back as all others do, and can be replayed again.
    let mut writer = writer_of(&sink, 0, back);
    let at = Position { incarnation: Incarnation(2), ..position(5) };
    push(&mut *writer, &table(), &[creates(1..2), creates(3..5)].concat());
    writer.flush(at.clone());
    durable(&answer(&mut *writer).await);
    assert_eq!(durable(&replay(&sink, &at, &letter).await), 5);
    let back = Position { incarnation: Incarnation(3), ..position(0) };
    assert!(sink.replace_position(&partition(0), Some(&at), &back).await.unwrap());
    assert!(place.rows(&["_cdc_offset"]).await.is_empty());
}
