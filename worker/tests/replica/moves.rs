//! Changes of the primary key, with the values that did not change missing from both halves.

use cdc_worker::change::KeyChange;

use super::event::UNAVAILABLE;
use super::*;
use crate::support::until;

async fn left(admin: &Client) -> i64 {
    admin.query_one("SELECT count(*) FROM cdc_moved_rows", &[]).await.unwrap().get(0)
}

fn from(offset: i64, id: i64, lsn: i64) -> Event {
    event(offset, "d", &row(id, "", "")).half(KeyChange::From, lsn)
}

fn to(offset: i64, id: i64, large: &'static str, lsn: i64) -> Event {
    event(offset, "c", &row(id, "moved", large)).half(KeyChange::To, lsn)
}

#[tokio::test(flavor = "multi_thread")]
async fn within_one_partition_and_batch_a_chain_of_keys_moves_on() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    // UPDATE t SET id = id + 1, the largest first; then the last one back and away.
    let events = [
        event(0, "c", &row(1, "a", "one")),
        event(1, "c", &row(2, "b", "two")),
        event(2, "c", &row(3, "c", "three")),
        from(3, 3, 103),
        to(4, 4, UNAVAILABLE, 103),
        from(5, 2, 105),
        to(6, 3, UNAVAILABLE, 105),
        from(7, 1, 107),
        to(8, 2, UNAVAILABLE, 107),
        from(9, 4, 109),
        to(10, 1, UNAVAILABLE, 109),
        event(11, "u", &row(1, "last", UNAVAILABLE)),
        from(12, 2, 112),
        to(13, 9, "whole", 112),
        event(14, "d", &row(9, "", "")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(15, 2), &events).await), 15);
    assert_eq!(mirrored(&admin).await, ["(1,last,three)", "(3,moved,two)"]);
    assert_eq!(left(&admin).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_keys_partition_waits_for_the_old_keys_and_says_so() {
    let (sink, admin) = proven(|_| {}).await;
    let mut old = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *old, &table(), behind(1, 2), &first).await), 1);
    assert!(sink.replace_position(&partition(1), None, &position(0)).await.unwrap());
    let (mut new, mut trouble) = writer_of(&sink, 1, position(0));
    let events = [
        event(0, "c", &row(7, "before", "seven")),
        to(1, 2, UNAVAILABLE, 101),
        event(2, "u", &row(2, "later", UNAVAILABLE)),
    ];
    push(&mut *new, &table(), &events);
    new.flush(behind(3, 2));
    let seen = within("trouble", trouble.wait_for(Option::is_some));
    assert_eq!(seen.await.unwrap().clone().unwrap().code, "waiting_for_moved_row");
    assert_eq!(mirrored(&admin).await, ["(1,a,one)"]);
    let second = [from(1, 1, 101)];
    assert_eq!(durable(&deliver(&mut *old, &table(), behind(2, 2), &second).await), 2);
    assert_eq!(durable(&answer(&mut *new).await), 3);
    assert_eq!(mirrored(&admin).await, ["(2,later,one)", "(7,before,seven)"]);
    assert_eq!(left(&admin).await, 0);
    assert_eq!(*trouble.borrow(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cross_do_not_wait_for_each_other() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writers = [started(&sink, 0).await, started(&sink, 1).await];
    let first = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(3, "c", "three"))];
    assert_eq!(durable(&deliver(&mut *writers[0], &table(), behind(2, 2), &first).await), 2);
    let second = [event(0, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writers[1], &table(), behind(1, 2), &second).await), 1);
    // In the source's order: 2 moves to 4, 1 to 2, 3 to 6; even keys are in partition 1.
    let odd = [from(2, 1, 12), from(3, 3, 13)];
    let even = [
        from(1, 2, 11),
        to(2, 4, UNAVAILABLE, 11),
        to(3, 2, UNAVAILABLE, 12),
        to(4, 6, UNAVAILABLE, 13),
    ];
    // And 4 to 5: it comes back to the odd ones, behind their own.
    let even = [even.as_slice(), &[from(5, 4, 14)]].concat();
    let odd = [odd.as_slice(), &[to(4, 5, UNAVAILABLE, 14)]].concat();
    let [zero, one] = &mut writers;
    let plain = table();
    let (zero, one) = tokio::join!(
        deliver(&mut **zero, &plain, behind(5, 2), &odd),
        deliver(&mut **one, &plain, behind(6, 2), &even)
    );
    assert_eq!((durable(&zero), durable(&one)), (5, 6));
    assert_eq!(mirrored(&admin).await, ["(2,moved,one)", "(5,moved,two)", "(6,moved,three)"]);
    assert_eq!(left(&admin).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_row_that_comes_first_leaves_word_that_nothing_is_needed() {
    let (sink, admin) = proven(|_| {}).await;
    let mut old = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *old, &table(), behind(1, 2), &first).await), 1);
    let mut new = started(&sink, 1).await;
    let whole = [to(0, 2, "whole", 101)];
    assert_eq!(durable(&deliver(&mut *new, &table(), behind(1, 2), &whole).await), 1);
    assert_eq!(left(&admin).await, 1);
    let second = [from(1, 1, 101)];
    assert_eq!(durable(&deliver(&mut *old, &table(), behind(2, 2), &second).await), 2);
    assert_eq!(mirrored(&admin).await, ["(2,moved,whole)"]);
    assert_eq!(left(&admin).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_halves_at_once_leave_nothing_behind() {
    let (sink, admin) = proven(|_| {}).await;
    let (mut old, mut new) = (started(&sink, 0).await, started(&sink, 1).await);
    for round in 0..30 {
        let large = if round % 2 == 0 { "whole" } else { UNAVAILABLE };
        let plain = table();
        let first = [event(2 * round, "c", &row(2 * round, "a", "one"))];
        let next = behind(2 * round + 1, 2);
        assert_eq!(durable(&deliver(&mut *old, &plain, next, &first).await), 2 * round + 1);
        let left = [from(2 * round + 1, 2 * round, round)];
        let reached = [to(round, 2 * round + 1, large, round)];
        let (one, two) = tokio::join!(
            deliver(&mut *old, &plain, behind(2 * round + 2, 2), &left),
            deliver(&mut *new, &plain, behind(round + 1, 2), &reached)
        );
        assert_eq!((durable(&one), durable(&two)), (2 * round + 2, round + 1));
    }
    assert_eq!(left(&admin).await, 0);
    let rows = mirrored(&admin).await;
    assert_eq!((rows.len(), rows[1].as_str()), (30, "(3,moved,one)"));
}

/// A crash leaves what was not swept, and a half that an operator skipped never comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_earlier_handovers_is_swept_or_touches_nothing() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(5, "e", "five"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &first).await), 2);
    let leave = "INSERT INTO cdc_moved_rows (pipeline_id, sink_id, topic, lsn, tx, half, final, \
                 saved) VALUES ('demo', 'mirror', 'cdc.shop.t', 50, 7, 'd', true, '{}'), \
                 ('demo', 'mirror', 'cdc.shop.t', 50, 7, 'c', true, NULL), \
                 ('demo', 'mirror', 'cdc.shop.t', 60, 7, 'd', true, '{\"large\": \"not theirs\"}'), \
                 ('demo', 'mirror', 'cdc.shop.t', 70, 7, 'c', true, NULL), \
                 ('demo', 'mirror', 'cdc.shop.t', 80, 7, 'd', false, '{\"large\": \"early\"}')";
    admin.batch_execute(leave).await.unwrap();
    // Another change of a key, and the one whose early half was saved before the crash.
    let events =
        [from(2, 1, 100), to(3, 2, UNAVAILABLE, 100), from(4, 5, 80), to(5, 6, UNAVAILABLE, 80)];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(6, 2), &events).await), 6);
    assert_eq!(mirrored(&admin).await, ["(2,moved,one)", "(6,moved,five)"]);
    // What was complete is gone; each single half waits for its own other one, and only for that.
    let left = "SELECT string_agg(lsn || half, ' ' ORDER BY lsn) FROM cdc_moved_rows";
    let left: String = admin.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, "60d 70c");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_nobody_has_stop_the_partition_by_name() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    // The old row was never here.
    let events = [from(0, 1, 100), to(1, 2, UNAVAILABLE, 100)];
    let (code, words) = rejected(deliver(&mut *writer, &table(), behind(2, 2), &events).await);
    assert_eq!(code, "row_missing");
    assert!(words.contains("REPLICA IDENTITY FULL"), "{words}");
    writer.reset(position(0));
    // Once it is whole it goes on.
    let whole = [from(0, 1, 100), to(1, 2, "whole", 100)];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &whole).await), 2);
    until("the row is there", async || mirrored(&admin).await == ["(2,moved,whole)"]).await;
    // Without a link between the halves nothing can be handed over.
    let events = [event(2, "d", &row(2, "", "")), event(3, "c", &row(5, "x", UNAVAILABLE))];
    let (code, _) = rejected(deliver(&mut *writer, &table(), behind(4, 2), &events).await);
    assert_eq!(code, "row_missing");
    assert_eq!(mirrored(&admin).await, ["(2,moved,whole)"]);
}
