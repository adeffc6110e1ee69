//! Rows and record move together, once.

use cdc_worker::sink::Sink;

use super::event::UNAVAILABLE;
use super::*;
use crate::support::proxy::{Lose, Proxy};
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_created_and_each_key_has_its_last_state() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let events = [
        event(0, "r", &row(1, "ada", "x")),
        event(1, "c", &row(2, "bob", "x")),
        event(2, "u", &row(1, "eva", UNAVAILABLE)),
        event(3, "d", &row(2, "", "")),
        event(4, "c", &row(3, "cy", "z")),
        event(5, "d", &row(3, "", "")),
        event(6, "c", &row(3, "dee", "new")),
        event(9, "d", &row(77, "", "")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(12, 2), &events).await), 12);
    assert_eq!(mirrored(&admin).await, ["(1,eva,x)", "(3,dee,new)"]);
    let found = sink.read_position(&partition(0)).await.unwrap();
    assert_eq!(found, Some(behind(12, 2)));
    let types = "SELECT string_agg(format_type(atttypid, atttypmod) || ' ' || attnotnull, ', ' \
                 ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'shop.t'::regclass \
                 AND attnum > 0";
    let types: String = admin.query_one(types, &[]).await.unwrap().get(0);
    assert_eq!(types, "bigint true, character varying(40) false, text false");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_were_not_sent_stay_as_they_are() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &first).await), 2);
    let second = [
        event(2, "u", &row(1, "a2", UNAVAILABLE)),
        event(3, "u", &[V::N(2), V::Null, V::Null]),
        event(4, "u", &row(2, "b3", UNAVAILABLE)),
        event(5, "c", &row(3, "c", "three")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(6, 2), &second).await), 6);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one)", "(2,b3,)", "(3,c,three)"]);
}

/// What is new at the source is inserted; where it is there all the same, it is written by key.
#[tokio::test(flavor = "multi_thread")]
async fn new_rows_that_are_there_already_are_written_over() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "r", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(1, 2), &first).await), 1);
    // A statement that may update fires this, whether it does or not.
    let count = "CREATE TABLE by_key (n bigserial); CREATE FUNCTION count_it() RETURNS trigger \
                 LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.by_key DEFAULT VALUES; RETURN NULL; \
                 END'; CREATE TRIGGER count_it BEFORE UPDATE ON shop.t FOR EACH STATEMENT EXECUTE \
                 FUNCTION count_it()";
    admin.batch_execute(count).await.unwrap();
    let by_key = async || {
        let counted = admin.query_one("SELECT count(*) FROM by_key", &[]).await.unwrap();
        counted.get::<_, i64>(0)
    };
    let new = [event(1, "r", &row(2, "b", "two")), event(2, "c", &row(3, "c", "three"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(3, 2), &new).await), 3);
    assert_eq!(by_key().await, 0);
    // A snapshot comes again, with a row in the middle that is gone from the mirror.
    admin.batch_execute("DELETE FROM shop.t WHERE id = 2").await.unwrap();
    let again = [
        event(3, "r", &row(1, "a2", "one")),
        event(4, "r", &row(2, "b2", "two")),
        event(5, "r", &row(3, "c2", "three")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(6, 2), &again).await), 6);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one)", "(2,b2,two)", "(3,c2,three)"]);
    assert_eq!(by_key().await, 1);
    // Not tried again with each batch that is alike.
    let more = [event(6, "r", &row(4, "d", "four"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(7, 2), &more).await), 7);
    assert_eq!(by_key().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_compare_and_set_writes_nothing() {
    let (sink, admin) = proven(|_| {}).await;
    let mut old = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *old, &table(), behind(1, 2), &first).await), 1);
    let raised = Position { incarnation: Incarnation(2), ..behind(1, 2) };
    let moved_on = behind(2, 2);
    let another_topic = Position { topic_id: TopicId("other".into()), ..behind(1, 2) };
    // With a value that is missing the same is one of several statements.
    for large in ["new", UNAVAILABLE] {
        for to in [&raised, &moved_on, &another_topic] {
            let from = behind(1, 2);
            assert!(sink.replace_position(&partition(0), Some(&from), to).await.unwrap());
            let events = [event(2, "u", &row(1, "z", large)), event(3, "c", &row(2, "z", "z"))];
            let answer = deliver(&mut *old, &table(), behind(4, 2), &events).await;
            assert!(matches!(answer, Progress::Moved), "{answer:?}");
            old.reset(behind(1, 2));
            assert!(sink.replace_position(&partition(0), Some(to), &from).await.unwrap());
        }
    }
    assert_eq!(mirrored(&admin).await, ["(1,a,one)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_live_copies_one_writes_each_batch() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = settings(cluster.port, &database);
    let sinks = [sink(&config, &[]), sink(&config, &[])];
    for sink in &sinks {
        sink.prove().await.unwrap();
    }
    // What was written twice shows: a trigger counts.
    let mut first = started(&sinks[0], 0).await;
    let (mut second, _) = writer_of(&sinks[1], 0, position(0));
    let mut from = position(0);
    for round in 0..40 {
        first.reset(from.clone());
        second.reset(from.clone());
        let to = behind(round + 1, 2);
        let large = if round % 3 == 2 { UNAVAILABLE } else { "large" };
        let events = [event(round, "u", &row(round % 3 - i64::from(round % 3 == 2), "n", large))];
        let plain = table();
        let (mine, other) = tokio::join!(
            deliver(&mut *first, &plain, to.clone(), &events),
            deliver(&mut *second, &plain, to.clone(), &events)
        );
        let durable = [&mine, &other].iter().filter(|p| matches!(p, Progress::Durable(_))).count();
        let moved = [&mine, &other].iter().filter(|p| matches!(p, Progress::Moved)).count();
        assert_eq!((durable, moved), (1, 1), "{mine:?} {other:?}");
        if round == 0 {
            let count = "CREATE TABLE written (n bigserial); CREATE FUNCTION count_it() RETURNS \
                         trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.written DEFAULT \
                         VALUES; RETURN NEW; END'; CREATE TRIGGER count_it AFTER INSERT OR UPDATE \
                         ON shop.t FOR EACH ROW EXECUTE FUNCTION count_it()";
            admin.batch_execute(count).await.unwrap();
        }
        from = to;
    }
    let written: i64 = admin.query_one("SELECT count(*) FROM written", &[]).await.unwrap().get(0);
    assert_eq!(written, 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_request_or_answer_costs_nothing_and_doubles_nothing() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let proxy = Proxy::start(cluster.port).await;
    let sink = sink(&settings(proxy.port, &database), &[]);
    sink.prove().await.unwrap();
    let mut writer = started(&sink, 0).await;
    let mut next = 0;
    let mut round = async |writer: &mut dyn PartitionWriter, large: &'static str| {
        let events = [
            event(next, "c", &row(100 + next, "c", "new")),
            event(next + 1, "u", &row(1, "u", large)),
        ];
        next += 2;
        assert_eq!(durable(&deliver(writer, &table(), behind(next, 2), &events).await), next);
    };
    round(&mut *writer, "first").await;
    round(&mut *writer, UNAVAILABLE).await;
    for large in ["other", UNAVAILABLE] {
        for what in [Lose::Request, Lose::Answer] {
            proxy.lose(what);
            round(&mut *writer, large).await;
            assert!(proxy.has_lost(), "{what:?}");
            round(&mut *writer, large).await;
        }
    }
    let count = mirrored(&admin).await;
    assert_eq!(count.len() as i64, next / 2 + 1, "{count:?}");
    assert_eq!(count[0], "(1,u,other)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing() {
    let cluster = Cluster::start(&[]);
    let (database, _) = cluster.database().await;
    let sink = sink(&settings(cluster.port, &database), &[]);
    sink.prove().await.unwrap();
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(1, 2), &first).await), 1);
    let second = [event(1, "u", &row(1, "b", UNAVAILABLE)), event(2, "c", &row(2, "c", "two"))];
    push(&mut *writer, &table(), &second);
    cluster.crash_and_restart();
    writer.flush(behind(3, 2));
    assert_eq!(durable(&answer(&mut *writer).await), 3);
    let admin = cluster.admin(&database).await;
    assert_eq!(mirrored(&admin).await, ["(1,b,one)", "(2,c,two)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_on_a_row_is_reported_and_outlasted() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = PostgresSinkConfig { lock_timeout_ms: 50, ..settings(cluster.port, &database) };
    let sink = sink(&config, &[]);
    sink.prove().await.unwrap();
    assert!(sink.replace_position(&partition(0), None, &position(0)).await.unwrap());
    let (mut writer, mut trouble) = writer_of(&sink, 0, position(0));
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(1, 2), &first).await), 1);
    let blocker = cluster.admin(&database).await;
    blocker.batch_execute("BEGIN; UPDATE shop.t SET name = 'theirs'").await.unwrap();
    push(&mut *writer, &table(), &[event(1, "u", &row(1, "ours", "two"))]);
    writer.flush(behind(2, 2));
    let seen = within("trouble", trouble.wait_for(|t| t.as_ref().is_some_and(|t| t.exhausted)));
    assert_eq!(seen.await.unwrap().clone().unwrap().code, "sqlstate_55P03");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(durable(&answer(&mut *writer).await), 2);
    until("the row is ours", async || mirrored(&admin).await == ["(1,ours,two)"]).await;
}
