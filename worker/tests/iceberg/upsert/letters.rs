//! Dead letters of a table of rows: what still stands is written, the rest is told.

use cdc_worker::sink::Standing;

use super::*;
use crate::iceberg::letters::replay;

const SHOWN: [&str; 4] = ["id", "name", "large", "_cdc_offset"];

/// Delivers events with some of them given up.
async fn with_letters(
    writer: &mut dyn PartitionWriter,
    next: i64,
    events: &[Event],
    letters: &[i64],
) -> i64 {
    for event in events {
        if letters.contains(&event.offset) {
            writer.given_up(event.offset, Some(&table().key_bytes(event)));
        } else {
            table().push(writer, event).unwrap();
        }
    }
    writer.flush(position(next));
    durable(&answer(writer).await)
}

async fn standing(sink: &IcebergSink, at: i64, offset: i64) -> Standing {
    within("an answer", sink.standing(&partition(0), &position(at), offset)).await.unwrap()
}

async fn is_superseded(sink: &IcebergSink, at: i64, offset: i64, why: &str) {
    match standing(sink, at, offset).await {
        Standing::Superseded(said) => assert!(said.contains(why), "{offset}: {said}"),
        other => panic!("{offset}: {other:?}"),
    }
}

#[tokio::test]
async fn what_stands_is_written_once_and_never_over_something_newer() {
    let place = Place::keyed();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    let mut writer = started(&sink, 0).await;
    let events = [
        event(0, "c", &full(1, "a", "x")),
        event(1, "c", &full(2, "b", "y")),
        event(2, "c", &full(3, "c", "z")),
        event(3, "c", &full(4, "d", "w")),
        // Rejected: of 1 twice, of 2, 3 and 4 once, and of 5, which is new.
        event(4, "u", &full(1, "older", UNAVAILABLE)),
        event(5, "u", &full(1, "letter", UNAVAILABLE)),
        event(6, "u", &full(2, "letter", "L")),
        event(7, "u", &full(3, "letter", "L")),
        event(8, "u", &full(4, "letter", "L")),
        event(9, "c", &full(5, "letter", "L")),
        event(10, "u", &full(2, "whole", "later")),
        event(11, "d", &row(3, "")),
        event(12, "u", &full(4, "part", UNAVAILABLE)),
    ];
    let letters: Vec<i64> = (4..10).collect();
    assert_eq!(with_letters(&mut *writer, 6, &events[..6], &letters).await, 6);
    assert_eq!(with_letters(&mut *writer, 13, &events[6..], &letters).await, 13);
    for offset in [4, 5, 9] {
        assert_eq!(standing(&sink, 13, offset).await, Standing::Stands, "{offset}");
    }
    is_superseded(&sink, 13, 6, "newer of its key came at offset 10").await;
    is_superseded(&sink, 13, 7, "newer of its key came at offset 11").await;
    is_superseded(&sink, 13, 8, "offset 12 wrote a part").await;
    is_superseded(&sink, 13, 3, "does not remember").await;

    let at = position(13);
    catalog.fail(&[Fault::AnswerLost]);
    assert_eq!(durable(&replay(&sink, &at, &events[5]).await), 13);
    // The earlier one of its key would set the row back, but for what it left out.
    is_superseded(&sink, 13, 4, "a part of the row").await;
    assert!(matches!(replay(&sink, &at, &events[4]).await, Progress::Moved));
    let other = place.sink().await;
    assert_eq!(standing(&other, 13, 5).await, Standing::Replayed);
    assert_eq!(durable(&replay(&other, &at, &events[9]).await), 13);
    let whole = ["1|letter|x|5", "2|whole|later|10", "4|part|w|12", "5|letter|L|9"];
    assert_eq!(place.rows(&SHOWN).await, whole);
    let snapshots = place.table().snapshots().await.unwrap().len();
    for letter in [&events[5], &events[9]] {
        assert_eq!(durable(&replay(&sink, &at, letter).await), 13);
    }
    for letter in [&events[6], &events[7], &events[8]] {
        assert!(matches!(replay(&sink, &at, letter).await, Progress::Moved));
    }
    assert_eq!(place.table().snapshots().await.unwrap().len(), snapshots, "nothing is written");

    // The partition goes on, and a later change replaces what was replayed.
    let more = [event(13, "u", &full(1, "last", UNAVAILABLE)), event(14, "d", &row(5, ""))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 15, &more).await), 15);
    assert_eq!(place.rows(&SHOWN).await, ["1|last|x|13", "2|whole|later|10", "4|part|w|12"]);
}

#[tokio::test]
async fn a_letter_that_is_rejected_again_after_a_step_back_stands_anew() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events = [event(0, "c", &full(1, "a", "x")), event(1, "u", &full(1, "letter", "y"))];
    assert_eq!(with_letters(&mut *writer, 2, &events, &[1]).await, 2);
    assert_eq!(durable(&replay(&sink, &position(2), &events[1]).await), 2);
    let back = Position { incarnation: Incarnation(2), ..position(1) };
    let tp = partition(0);
    assert!(sink.replace_position(&tp, Some(&position(2)), &back).await.unwrap());
    let mut writer = writer_of(&sink, 0, back);
    writer.given_up(1, Some(&table().key_bytes(&events[1])));
    let at = Position { incarnation: Incarnation(2), ..position(2) };
    writer.flush(at.clone());
    assert_eq!(durable(&answer(&mut *writer).await), 2);
    assert_eq!(standing(&sink, 2, 1).await, Standing::Stands);
    assert_eq!(durable(&replay(&sink, &at, &events[1]).await), 2);
    assert_eq!(place.rows(&SHOWN).await, ["1|letter|y|1"]);
    // It does not know more than the table: the next worker's answer is the same.
    assert_eq!(standing(&place.sink().await, 2, 1).await, Standing::Replayed);
}
