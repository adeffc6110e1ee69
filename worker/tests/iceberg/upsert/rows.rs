//! Changes of rows that keep their key.

use super::*;

const SHOWN: [&str; 5] = ["id", "name", "large", "_cdc_partition", "_cdc_offset"];

#[tokio::test]
async fn of_each_key_the_last_row_is_there() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events = [
        event(0, "r", &full(1, "a", "x")),
        event(1, "r", &full(2, "b", "x")),
        event(2, "u", &full(1, "a2", UNAVAILABLE)),
        event(3, "d", &row(2, "")),
        event(5, "c", &full(2, "b2", "y")),
        event(6, "c", &full(3, "c", "z")),
        event(7, "d", &row(3, "")),
        event(8, "d", &row(4, "")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 9, &events).await), 9);
    assert_eq!(place.rows(&SHOWN).await, ["1|a2|x|0|2", "2|b2|y|0|5"]);

    let events = [
        event(9, "u", &full(1, "a3", UNAVAILABLE)),
        event(10, "d", &row(2, "")),
        // A snapshot that begins again.
        event(11, "r", &full(5, "e", "v")),
        event(12, "r", &full(5, "e", "v")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 13, &events).await), 13);
    assert_eq!(place.rows(&SHOWN).await, ["1|a3|x|0|9", "5|e|v|0|12"]);
    let columns = place.table().columns().await.unwrap();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "name", "large", "_cdc_topic", "_cdc_partition", "_cdc_offset"]);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 2);
    // A row of what was there, deleted alone.
    let gone = [event(13, "d", &row(1, "")), event(14, "d", &row(5, ""))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 15, &gone).await), 15);
    assert!(place.rows(&SHOWN).await.is_empty());
}

#[tokio::test]
async fn who_comes_next_finds_the_rows_of_who_was_there() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    let rows = |from: i64| (0..4).map(move |n| event(n, "c", &full(from + 2 * n, "old", "x")));
    durable(&deliver(&mut *a, &table(), 4, &rows(0).collect::<Vec<_>>()).await);
    durable(&deliver(&mut *b, &table(), 4, &rows(1).collect::<Vec<_>>()).await);
    durable(&deliver(&mut *a, &table(), 5, &[event(4, "d", &row(2, ""))]).await);
    drop((a, b, sink));

    let sink = place.sink().await;
    let mut a = writer_of(&sink, 0, position(5));
    let events = [
        event(5, "u", &full(0, "new", UNAVAILABLE)),
        event(6, "d", &row(4, "")),
        event(7, "c", &full(2, "again", "y")),
    ];
    durable(&deliver(&mut *a, &table(), 8, &events).await);
    let expected = ["0|new|x", "1|old|x", "2|again|y", "3|old|x", "5|old|x", "6|old|x", "7|old|x"];
    assert_eq!(place.rows(&SHOWN[..3]).await, expected);
}

#[tokio::test]
async fn a_value_that_nobody_has_stops_by_name() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let events = [event(0, "c", &full(1, "a", "x")), event(1, "u", &full(2, "b", UNAVAILABLE))];
    let progress = deliver(&mut *writer, &table(), 2, &events).await;
    assert_eq!(stopped(progress, "row_missing"), Some(1));
    assert!(place.rows(&SHOWN).await.is_empty());
    writer.reset(position(0));
    assert_eq!(durable(&deliver(&mut *writer, &table(), 1, &events[..1]).await), 1);
    // A whole row that follows makes it none.
    let whole = [events[1].clone(), event(2, "u", &full(2, "b", "y"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 3, &whole).await), 3);
    assert_eq!(place.rows(&SHOWN[..3]).await, ["1|a|x", "2|b|y"]);
}

#[tokio::test]
async fn what_cannot_be_kept_by_key_stops_by_name() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let why = table().push(&mut *writer, &event(0, "t", &row(0, ""))).unwrap_err();
    assert_eq!((why.code, why.way_out.is_some()), ("truncate", true));
    let keyless = Table::new("t", 2, 1, 0, &columns());
    let why = keyless.push(&mut *writer, &event(0, "c", &row(1, "a"))).unwrap_err();
    assert_eq!((why.code, why.way_out.is_some()), ("no_primary_key", true), "{why}");
    table().push(&mut *writer, &event(0, "c", &row(1, "a"))).unwrap();
    // With a new schema of the key, rows come in other partitions.
    let other = Table::new("t", 2, 9, 1, &columns());
    let why = other.push(&mut *writer, &event(1, "c", &row(2, "a"))).unwrap_err();
    assert_eq!(why.code, "key_schema_changed", "{why}");
    writer.flush(position(1));
    durable(&answer(&mut *writer).await);

    // Of one partition they cannot.
    let mut writer = writer_of(&sink, 0, position(1));
    writer.is_one_of(1);
    let events = [event(1, "u", &row(1, "b")), event(2, "c", &row(2, "b"))];
    assert_eq!(durable(&deliver(&mut *writer, &other, 3, &events).await), 3);
    assert_eq!(place.rows(&["id", "name"]).await, ["1|b", "2|b"]);
}

#[tokio::test]
async fn a_key_of_other_columns_is_found_again_in_one_partition() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    writer.is_one_of(1);
    let narrow = [event(0, "c", &full(1, "a", "x")), event(1, "c", &full(2, "a", "x"))];
    push(&mut *writer, &table(), &narrow);
    let wide = Table::new(
        "t",
        3,
        9,
        2,
        &[
            columns()[0].clone(),
            col("name", "string", "VARCHAR", Some(40)).required(),
            columns()[2].clone(),
        ],
    );
    let events = [event(2, "u", &full(1, "a", "y")), event(3, "c", &full(1, "b", "z"))];
    push(&mut *writer, &wide, &events);
    writer.flush(position(4));
    // What stands before the new key is written first.
    assert_eq!(durable(&answer(&mut *writer).await), 2);
    assert_eq!(durable(&answer(&mut *writer).await), 4);
    assert_eq!(place.rows(&SHOWN[..3]).await, ["1|a|y", "1|b|z", "2|a|x"]);
}

#[tokio::test]
async fn another_number_of_partitions_stops_by_name() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    writer.is_one_of(2);
    durable(&deliver(&mut *writer, &table(), 1, &creates(0..1)).await);
    let mut more = writer_of(&sink, 0, position(1));
    more.is_one_of(3);
    let refused = |progress: Progress| match progress {
        Progress::Stop(error) => assert_eq!(error.code, "partitions_changed", "{error}"),
        other => panic!("{other:?}"),
    };
    refused(deliver(&mut *more, &table(), 2, &creates(1..2)).await);
    writer.reset(position(1));
    durable(&deliver(&mut *writer, &table(), 2, &creates(1..2)).await);
    // Who does not know yet hears it from the table.
    started(&sink, 2).await;
    refused(deliver(&mut *writer, &table(), 3, &creates(2..3)).await);
}

#[tokio::test]
async fn a_change_log_does_not_become_a_table_of_rows() {
    let mut place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    durable(&deliver(&mut *writer, &table(), 1, &creates(0..1)).await);
    place.mode = IcebergWriteMode::Upsert;
    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, position(1));
    match deliver(&mut *writer, &table(), 2, &creates(1..2)).await {
        Progress::Stop(error) => assert_eq!(error.code, "write_mode_changed", "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn columns_that_come_and_widen_keep_the_rows() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let narrow = Table::new(
        "t",
        2,
        1,
        1,
        &[col("id", "int", "INT4", None).required(), col("large", "string", "TEXT", None)],
    );
    let rows = |n: i64| event(n, "c", &[V::N(n), V::T("x")]);
    durable(&deliver(&mut *writer, &narrow, 2, &[rows(0), rows(1)]).await);
    drop(writer);
    let mut writer = writer_of(&sink, 0, position(2));
    writer.is_one_of(1);
    let wide = Table::new(
        "t",
        3,
        5,
        1,
        &[
            col("id", "long", "INT8", None).required(),
            col("large", "string", "TEXT", None),
            col("more", "string", "TEXT", None),
        ],
    );
    let events = [
        event(2, "u", &[V::N(1), V::T(UNAVAILABLE), V::T("m")]),
        event(3, "c", &[V::N(1 << 40), V::T("y"), V::T("n")]),
    ];
    durable(&deliver(&mut *writer, &wide, 4, &events).await);
    let shown = ["id", "large", "more"];
    assert_eq!(place.rows(&shown).await, ["0|x|NULL", "1099511627776|y|n", "1|x|m"]);
    // The file of the old row has no such column: what is in it nobody can tell.
    let late = [event(4, "u", &[V::N(0), V::T("z"), V::T(UNAVAILABLE)])];
    assert_eq!(stopped(deliver(&mut *writer, &wide, 5, &late).await, "row_missing"), Some(4));
}
