//! What stops a partition by name, and what ends it.

use cdc_shared::config::TruncateHandling;

use super::event::UNAVAILABLE;
use super::*;

fn truncate(offset: i64) -> Event {
    event(offset, "t", &row(0, "", ""))
}

/// A sink with this setting and one row in the mirror.
async fn with_a_row(
    truncate: TruncateHandling,
) -> (PostgresReplica, Client, Box<dyn PartitionWriter>) {
    let (sink, admin) = proven(|c| c.truncate = truncate).await;
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(1, 2), &first).await), 1);
    (sink, admin, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_stops_is_ignored_or_applied() {
    let (_sink, admin, mut writer) = with_a_row(TruncateHandling::Stop).await;
    let rejection = table().push(&mut *writer, &truncate(1)).unwrap_err();
    assert_eq!(rejection.code, "truncate");
    assert!(rejection.way_out.is_some());
    assert_eq!(mirrored(&admin).await.len(), 1);

    let (_sink, admin, mut writer) = with_a_row(TruncateHandling::Ignore).await;
    let events = [truncate(1), event(2, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(3, 2), &events).await), 3);
    assert_eq!(mirrored(&admin).await.len(), 2);

    let (sink, admin, mut writer) = with_a_row(TruncateHandling::Apply).await;
    let events =
        [event(1, "c", &row(2, "b", "two")), truncate(2), event(3, "c", &row(3, "c", "three"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(4, 2), &events).await), 4);
    assert_eq!(mirrored(&admin).await, ["(3,c,three)"]);
    // Kafka says so before another partition has a record of its own.
    writer.is_one_of(2);
    let rejection = table().push(&mut *writer, &truncate(4)).unwrap_err();
    assert_eq!(rejection.code, "truncate");
    assert!(rejection.message.contains("2 partitions"), "{}", rejection.message);
    writer.is_one_of(1);
    // A second partition: the order is not known any more.
    let _other = started(&sink, 1).await;
    let (code, words) =
        rejected(deliver(&mut *writer, &table(), behind(5, 2), &[truncate(4)]).await);
    assert_eq!(code, "truncate");
    assert!(words.contains("more than one partition"), "{words}");
    assert_eq!(mirrored(&admin).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_schema_stops_where_keys_may_have_moved() {
    let (sink, admin, mut writer) = with_a_row(TruncateHandling::Stop).await;
    let rekeyed = |key_id| Table::new("t", 2, key_id, 1, &plain());
    let at = |next, key| {
        let schemas = SchemaIds { key: Some(key), value: Some(2) };
        Position { schemas, ..position(next) }
    };
    // One partition: nothing can have moved.
    let events = [event(1, "u", &row(1, "a2", "one")), event(2, "u", &row(1, "a3", UNAVAILABLE))];
    assert_eq!(durable(&deliver(&mut *writer, &rekeyed(8), at(3, 8), &events).await), 3);
    let _other = started(&sink, 1).await;
    let events = [event(3, "u", &row(1, "a4", "one"))];
    let (code, words) = stopped(deliver(&mut *writer, &rekeyed(9), at(4, 9), &events).await);
    assert_eq!(code, "key_schema_changed");
    // The statement that it names, once a person knows that the others have come as far.
    let statement = words.split("status), then ").nth(1).unwrap();
    admin.batch_execute(statement).await.unwrap();
    let resumed = sink.read_position(&partition(0)).await.unwrap().unwrap();
    writer.reset(resumed);
    assert_eq!(durable(&deliver(&mut *writer, &rekeyed(9), at(4, 9), &events).await), 4);
    assert_eq!(mirrored(&admin).await, ["(1,a4,one)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_replaced_by_another_stops_by_name() {
    let (_sink, admin, mut writer) = with_a_row(TruncateHandling::Stop).await;
    let replace = "CREATE TABLE shop.u (LIKE shop.t INCLUDING ALL); DROP TABLE shop.t; \
                   ALTER TABLE shop.u RENAME TO t";
    admin.batch_execute(replace).await.unwrap();
    for large in ["two", UNAVAILABLE] {
        let events = [event(1, "u", &row(1, "a2", large))];
        let (code, words) = stopped(deliver(&mut *writer, &table(), behind(2, 2), &events).await);
        assert_eq!(code, "table_replaced");
        assert!(
            words.contains("UPDATE \"public\".\"cdc_mirrors\" SET table_oid = NULL"),
            "{words}"
        );
        writer.reset(behind(1, 2));
    }
    assert!(mirrored(&admin).await.is_empty());
    admin.batch_execute("UPDATE cdc_mirrors SET table_oid = NULL").await.unwrap();
    let events = [event(1, "u", &row(1, "a2", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &events).await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_do_not_meet_in_one_mirror() {
    let (sink, _admin, _writer) = with_a_row(TruncateHandling::Stop).await;
    let tp = TopicPartition::new("cdc.other.t", 0);
    assert!(sink.replace_position(&tp, None, &position(0)).await.unwrap());
    let (reporter, _) = TroubleReporter::new(RetryPolicy::default(), false);
    let mut other = sink.writer(tp, position(0), reporter);
    let events = [event(0, "c", &row(1, "theirs", "x"))];
    let (code, words) = stopped(deliver(&mut *other, &table(), behind(1, 2), &events).await);
    assert_eq!(code, "table_shared");
    assert!(words.contains("topic cdc.shop.t of sink mirror of pipeline demo"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_constraint_refuses_is_rejected_without_telling_data() {
    let (_sink, admin, mut writer) = with_a_row(TruncateHandling::Stop).await;
    let check = "ALTER TABLE shop.t ADD CONSTRAINT no_secret CHECK (name <> 'secret')";
    admin.batch_execute(check).await.unwrap();
    let events = [event(1, "c", &row(2, "fine", "x")), event(2, "c", &row(3, "secret", "x"))];
    match deliver(&mut *writer, &table(), behind(3, 2), &events).await {
        Progress::Rejected { offset, error } => {
            assert_eq!(offset, None);
            assert!(error.message.contains("constraint no_secret"), "{error}");
            assert!(!format!("{error:?}").contains("Failing row"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    writer.reset(behind(1, 2));
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &events[..1]).await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_postgresql_cannot_hold_is_rejected_alone() {
    let (_sink, admin, mut writer) = with_a_row(TruncateHandling::Stop).await;
    table().push(&mut *writer, &event(1, "c", &row(2, "b", "two"))).unwrap();
    let rejection = table().push(&mut *writer, &event(2, "c", &row(3, "c", "nul \0"))).unwrap_err();
    assert_eq!((rejection.code, rejection.way_out), ("nul_character", None));
    writer.flush(behind(3, 2));
    assert_eq!(durable(&answer(&mut *writer).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,a,one)", "(2,b,two)"]);
}
