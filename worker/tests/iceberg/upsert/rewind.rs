//! A table of rows whose sink is taken back.

use super::*;

const SHOWN: [&str; 5] = ["id", "name", "large", "_cdc_partition", "_cdc_offset"];

/// A position in an incarnation.
fn of(incarnation: u64, next: i64) -> Position {
    Position { incarnation: Incarnation(incarnation), ..position(next) }
}

/// Takes a partition from one position to another, and gives its writer from there.
async fn back(
    sink: &IcebergSink,
    number: i32,
    from: &Position,
    to: &Position,
) -> Box<dyn PartitionWriter> {
    let (tp, replaced) = (partition(number), from);
    let replaced = sink.replace_position(&tp, Some(replaced), to);
    assert!(within("the step back", replaced).await.unwrap());
    writer_of(sink, number, to.clone())
}

/// Delivers events one by one, each with a commit of its own.
async fn each(writer: &mut dyn PartitionWriter, incarnation: u64, events: &[Event]) {
    for event in events {
        let next = event.offset + 1;
        push(writer, &table(), std::slice::from_ref(event));
        writer.flush(of(incarnation, next));
        assert_eq!(durable(&answer(writer).await), next);
    }
}

/// Whether the table is on its way to where the sink was.
fn is_on_its_way(place: &Place) -> bool {
    let newest = place.files("metadata", ".metadata.json").into_iter().max().unwrap();
    let metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
    metadata["properties"]["cdc.offsets.demo.lake"].as_str().unwrap().contains("\"again\"")
}

#[tokio::test]
async fn rows_are_right_at_the_end_though_values_left_out_belong_to_rows_deleted_later() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events = [
        event(0, "c", &full(1, "a", "x")),
        event(1, "c", &full(2, "b", "y")),
        event(2, "u", &full(1, "a2", UNAVAILABLE)),
        event(3, "u", &full(2, "b2", UNAVAILABLE)),
        event(4, "d", &row(1, "")),
        event(5, "c", &full(3, "c", "z")),
        event(6, "d", &row(3, "")),
        event(7, "c", &full(1, "again", "w")),
        event(8, "d", &row(1, "")),
    ];
    each(&mut *writer, 1, &events).await;
    let whole = ["2|b2|y|0|3"];
    assert_eq!(place.rows(&SHOWN).await, whole);
    for to in 0_i64..9 {
        let incarnation = 2 + to.unsigned_abs();
        let (from, to) = (of(incarnation - 1, 9), of(incarnation, to));
        let mut writer = back(&sink, 0, &from, &to).await;
        let events = &events[to.next.get() as usize..];
        if to.next.get() % 2 == 0 {
            each(&mut *writer, incarnation, events).await;
        } else {
            push(&mut *writer, &table(), events);
            writer.flush(of(incarnation, 9));
            assert_eq!(durable(&answer(&mut *writer).await), 9);
        }
        assert_eq!(place.rows(&SHOWN).await, whole, "from {to:?}");
        assert!(!is_on_its_way(&place));
    }
}

#[tokio::test]
async fn killed_on_the_way_and_taken_back_again_nothing_is_forgotten() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events = [
        event(0, "c", &full(1, "a", "x")),
        event(1, "u", &full(1, "a2", UNAVAILABLE)),
        event(2, "c", &full(2, "b", "y")),
        event(3, "d", &row(1, "")),
        event(4, "u", &full(2, "b2", UNAVAILABLE)),
    ];
    each(&mut *writer, 1, &events).await;
    let mut writer = back(&sink, 0, &of(1, 5), &of(2, 1)).await;
    each(&mut *writer, 2, &events[1..2]).await;
    assert!(is_on_its_way(&place));
    drop((writer, sink));
    // The next worker knows by the table alone.
    let sink = place.sink().await;
    let mut writer = back(&sink, 0, &of(2, 2), &of(3, 1)).await;
    each(&mut *writer, 3, &events[1..3]).await;
    drop((writer, sink));
    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, of(3, 3));
    each(&mut *writer, 3, &events[3..]).await;
    assert_eq!(place.rows(&SHOWN).await, ["2|b2|y|0|4"]);
    assert!(!is_on_its_way(&place));
    // From where the sink was, a value that nobody has stops by name as ever.
    let late = [event(5, "u", &full(1, "a3", UNAVAILABLE))];
    push(&mut *writer, &table(), &late);
    writer.flush(of(3, 6));
    assert_eq!(stopped(answer(&mut *writer).await, "row_missing"), Some(5));
}

fn left(offset: i64, id: i64, lsn: i64) -> Event {
    event(offset, "d", &row(id, "")).half(KeyChange::From, lsn)
}

fn reached(offset: i64, id: i64, name: &'static str, lsn: i64) -> Event {
    event(offset, "c", &full(id, name, UNAVAILABLE)).half(KeyChange::To, lsn)
}

#[tokio::test]
async fn half_done_moves_of_keys_are_completed_whichever_half_was_taken_back() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    let here = [
        event(0, "c", &full(2, "a", "kept")),
        left(1, 2, 50),
        // The key is used again, with other values.
        event(2, "c", &full(2, "new", "other")),
    ];
    each(&mut *a, 1, &here).await;
    // The delete comes again before the create came at all.
    let mut a = back(&sink, 0, &of(1, 3), &of(2, 1)).await;
    each(&mut *a, 2, &here[1..2]).await;
    let there =
        [event(0, "c", &full(1, "z", "z")), event(1, "d", &row(1, "")), reached(2, 1, "moved", 50)];
    each(&mut *b, 1, &there).await;
    each(&mut *a, 2, &here[2..]).await;
    let whole = ["1|moved|kept|1|2", "2|new|other|0|2"];
    assert_eq!(place.rows(&SHOWN).await, whole);

    // Both are through: either comes again alone, and both do.
    let mut b = back(&sink, 1, &of(1, 3), &of(2, 1)).await;
    each(&mut *b, 2, &there[1..]).await;
    assert_eq!(place.rows(&SHOWN).await, whole);
    let mut a = back(&sink, 0, &of(2, 3), &of(3, 1)).await;
    each(&mut *a, 3, &here[1..]).await;
    assert_eq!(place.rows(&SHOWN).await, whole);
    let mut a = back(&sink, 0, &of(3, 3), &of(4, 1)).await;
    let mut b = back(&sink, 1, &of(2, 3), &of(3, 2)).await;
    each(&mut *b, 3, &there[2..]).await;
    each(&mut *a, 4, &here[1..]).await;
    assert_eq!(place.rows(&SHOWN).await, whole);
    let text = place.table().snapshots().await.unwrap()[0].summary["cdc.offsets.demo.lake"].clone();
    let is_remembered = ["\"left\"", "\"reached\"", "\"empty\""].iter().any(|e| text.contains(e));
    assert!(!is_remembered, "{text}");
}

#[tokio::test]
async fn a_row_that_cannot_be_made_whole_stops_by_name_where_the_sink_was() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events = [
        event(0, "c", &full(1, "a", "x")),
        event(1, "c", &full(2, "b", "y")),
        event(2, "u", &full(2, "b2", UNAVAILABLE)),
        event(3, "u", &full(1, "a2", UNAVAILABLE)),
    ];
    each(&mut *writer, 1, &events[..1]).await;
    // Forward over the create of 2, and back to behind it.
    drop(back(&sink, 0, &of(1, 1), &of(2, 4)).await);
    let mut writer = back(&sink, 0, &of(2, 4), &of(3, 2)).await;
    each(&mut *writer, 3, &events[2..3]).await;
    push(&mut *writer, &table(), &events[3..]);
    writer.flush(of(3, 4));
    match answer(&mut *writer).await {
        Progress::Stop(error) => assert_eq!(error.code, "rows_incomplete", "{error}"),
        other => panic!("{other:?}"),
    }
    // The way out: further back.
    let mut writer = back(&sink, 0, &of(3, 3), &of(4, 1)).await;
    each(&mut *writer, 4, &events[1..]).await;
    assert_eq!(place.rows(&SHOWN).await, ["1|a2|x|0|3", "2|b2|y|0|2"]);
    assert!(!is_on_its_way(&place));
}

#[tokio::test]
async fn rows_of_a_former_topic_are_written_over() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events: Vec<Event> = (0..6).map(|at| event(at, "u", &full(1, "old", "x"))).collect();
    each(&mut *writer, 1, &events).await;
    let new = |incarnation, next| Position {
        topic_id: TopicId("another".into()),
        ..of(incarnation, next)
    };
    let deliver = async |writer: &mut dyn PartitionWriter, to: Position, events: &[Event]| {
        push(writer, &table(), events);
        writer.flush(to);
        durable(&answer(writer).await)
    };
    // Over the first records of the new topic, and back: nothing of it was ever written.
    drop(back(&sink, 0, &of(1, 6), &new(2, 8)).await);
    let mut writer = back(&sink, 0, &new(2, 8), &new(3, 0)).await;
    let first = [event(0, "c", &full(1, "new", "y"))];
    assert_eq!(deliver(&mut *writer, new(3, 8), &first).await, 8);
    assert_eq!(place.rows(&SHOWN).await, ["1|new|y|0|0"]);
}
