//! Changes of primary keys: a delete and a create, perhaps in two partitions.

use super::*;

fn left(offset: i64, id: i64, lsn: i64) -> Event {
    event(offset, "d", &row(id, "")).half(KeyChange::From, lsn)
}

fn reached(offset: i64, id: i64, name: &'static str, lsn: i64) -> Event {
    event(offset, "c", &full(id, name, UNAVAILABLE)).half(KeyChange::To, lsn)
}

const SHOWN: [&str; 4] = ["id", "name", "large", "_cdc_partition"];

#[tokio::test]
async fn a_create_finds_what_its_delete_left_in_another_partition() {
    let place = Place::keyed();
    let (one, other) = (place.sink().await, place.sink().await);
    let (mut a, mut b) = (started(&one, 0).await, started(&other, 1).await);
    let rows = [event(0, "c", &full(2, "a", "kept")), event(1, "c", &full(4, "a", "too"))];
    durable(&deliver(&mut *a, &table(), 2, &rows).await);
    // Its delete is not there yet: it waits, and what stands before it is written.
    let events = [event(0, "c", &full(9, "z", "z")), reached(1, 1, "moved", 50)];
    push(&mut *b, &table(), &events);
    b.flush(position(2));
    assert_eq!(durable(&answer(&mut *b).await), 1);
    let early = tokio::time::timeout(Duration::from_millis(200), b.progress()).await;
    assert!(early.is_err(), "{early:?}");
    // Nobody is left who remembers, but the table.
    let events = [left(2, 2, 50), left(3, 4, 60)];
    durable(&deliver(&mut *a, &table(), 4, &events).await);
    drop((a, one));
    assert_eq!(durable(&answer(&mut *b).await), 2);
    assert_eq!(place.rows(&SHOWN).await, ["1|moved|kept|1", "9|z|z|1"]);
    drop((b, other));
    let sink = place.sink().await;
    let mut b = writer_of(&sink, 1, position(2));
    assert_eq!(durable(&deliver(&mut *b, &table(), 3, &[reached(2, 3, "late", 60)]).await), 3);
    assert_eq!(place.rows(&SHOWN).await, ["1|moved|kept|1", "3|late|too|1", "9|z|z|1"]);
    assert!(!remembers(&place).await);
}

/// Whether the table keeps anything of changes of keys.
async fn remembers(place: &Place) -> bool {
    let snapshots = place.table().snapshots().await.unwrap();
    let text = &snapshots[0].summary["cdc.offsets.demo.lake"];
    ["\"left\"", "\"reached\"", "\"empty\""].iter().any(|entry| text.contains(entry))
}

#[tokio::test]
async fn a_row_that_was_never_written_is_handed_over() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let (mut a, b) = (started(&sink, 0).await, started(&sink, 1).await);
    let events = [event(0, "c", &full(2, "a", "kept")), left(1, 2, 50)];
    durable(&deliver(&mut *a, &table(), 2, &events).await);
    assert!(place.rows(&SHOWN).await.is_empty());
    assert!(remembers(&place).await);
    drop((a, b, sink));
    let again = place.sink().await;
    let mut b = writer_of(&again, 1, position(0));
    durable(&deliver(&mut *b, &table(), 1, &[reached(0, 1, "moved", 50)]).await);
    assert_eq!(place.rows(&SHOWN).await, ["1|moved|kept|1"]);
    assert!(!remembers(&place).await);
}

#[tokio::test]
async fn a_row_moves_through_keys_in_one_commit() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    let here = [event(0, "c", &full(2, "a", "kept")), left(1, 2, 50), reached(2, 4, "c", 60)];
    let there = [reached(0, 1, "b", 50), left(1, 1, 60)];
    push(&mut *a, &table(), &here);
    push(&mut *b, &table(), &there);
    a.flush(position(3));
    b.flush(position(2));
    let (a, b) = tokio::join!(answer(&mut *a), answer(&mut *b));
    assert_eq!((durable(&a), durable(&b)), (3, 2));
    assert_eq!(place.rows(&SHOWN).await, ["4|c|kept|0"]);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 1);
    assert!(!remembers(&place).await);
}

#[tokio::test]
async fn a_create_whose_delete_found_no_row_stops_by_name() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    durable(&deliver(&mut *a, &table(), 1, &[left(0, 2, 50)]).await);
    let progress = deliver(&mut *b, &table(), 1, &[reached(0, 1, "b", 50)]).await;
    assert_eq!(stopped(progress, "row_missing"), Some(0));
}

#[tokio::test]
async fn a_change_that_the_connector_sends_again_does_no_harm() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    let first = [event(0, "c", &full(2, "a", "kept")), left(1, 2, 50)];
    durable(&deliver(&mut *a, &table(), 2, &first).await);
    durable(&deliver(&mut *b, &table(), 1, &[reached(0, 1, "b", 50)]).await);
    durable(&deliver(&mut *a, &table(), 3, &[left(2, 2, 50)]).await);
    durable(&deliver(&mut *b, &table(), 2, &[reached(1, 1, "b", 50)]).await);
    assert_eq!(place.rows(&SHOWN).await, ["1|b|kept|1"]);
}
