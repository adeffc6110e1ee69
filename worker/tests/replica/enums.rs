//! Enums and domains of the source in the target.

use cdc_shared::config::EnumHandling;

use super::*;

const MOOD: &str = "SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum \
                    WHERE enumtypid = 'shop.mood'::regtype";
const TYPE: &str = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
                    WHERE attrelid = 'shop.t'::regclass AND attname = $1";

/// The table with an enum that has these labels.
fn with_mood(id: i32, labels: &str) -> Table {
    let mood = col("feel", "string", "MOOD", None).labels(labels);
    Table::new("t", id, 1, 1, &[plain(), vec![mood]].concat())
}

fn felt(id: i64, mood: &'static str) -> [V; 4] {
    [V::N(id), V::T("n"), V::T("l"), V::T(mood)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enum_is_created_and_gains_the_labels_of_its_source() {
    let (sink, admin) = proven(|config| config.enums = EnumHandling::Create).await;
    let mut writer = started(&sink, 0).await;
    let mut lagging = started(&sink, 1).await;
    let first = [event(0, "c", &felt(1, "sad")), event(1, "c", &felt(2, "it's \"fine\""))];
    let old = with_mood(2, "sad,it's \"fine\",happy");
    assert_eq!(durable(&deliver(&mut *writer, &old, behind(2, 2), &first).await), 2);
    let ty: String = admin.query_one(TYPE, &[&"feel"]).await.unwrap().get(0);
    assert_eq!(ty, "shop.mood");
    let labels: Vec<String> = admin.query_one(MOOD, &[]).await.unwrap().get(0);
    assert_eq!(labels, ["sad", "it's \"fine\"", "happy"]);

    // A label before, one between and one behind, the first row with them in the same batch.
    let new = with_mood(3, "angry,sad,so so,it's \"fine\",happy,wild");
    push(&mut *writer, &old, &[event(2, "u", &felt(1, "happy"))]);
    push(&mut *writer, &new, &[event(3, "u", &felt(2, "so so")), event(4, "c", &felt(3, "wild"))]);
    writer.flush(behind(5, 3));
    assert_eq!(durable(&answer(&mut *writer).await), 5);
    let labels: Vec<String> = admin.query_one(MOOD, &[]).await.unwrap().get(0);
    assert_eq!(labels, ["angry", "sad", "so so", "it's \"fine\"", "happy", "wild"]);
    let late = [event(0, "c", &felt(4, "sad"))];
    assert_eq!(durable(&deliver(&mut *lagging, &old, behind(1, 2), &late).await), 1);
    let rows = mirrored(&admin).await;
    assert_eq!(rows, ["(1,n,l,happy)", "(2,n,l,\"so so\")", "(3,n,l,wild)", "(4,n,l,sad)"]);
    // The order is that of the labels, as at the source.
    let order = "SELECT string_agg(id::text, ' ' ORDER BY feel) FROM shop.t";
    let order: String = admin.query_one(order, &[]).await.unwrap().get(0);
    assert_eq!(order, "4 2 1 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn enums_are_texts_unless_they_are_asked_for() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &felt(1, "sad"))];
    let table = with_mood(2, "sad,ok");
    assert_eq!(durable(&deliver(&mut *writer, &table, behind(1, 2), &first).await), 1);
    let ty: String = admin.query_one(TYPE, &[&"feel"]).await.unwrap().get(0);
    assert_eq!(ty, "text");
    // A new label is nothing new to a text.
    let second = [event(1, "c", &felt(2, "wild"))];
    let table = with_mood(3, "sad,ok,wild");
    assert_eq!(durable(&deliver(&mut *writer, &table, behind(2, 3), &second).await), 2);
    assert_eq!(mirrored(&admin).await, ["(1,n,l,sad)", "(2,n,l,wild)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enum_that_cannot_be_created_stops_by_name() {
    let (sink, _admin) = proven(|config| config.enums = EnumHandling::Create).await;
    let mut writer = started(&sink, 0).await;
    let long = "x".repeat(64);
    let rejection = with_mood(2, &long).push(&mut *writer, &event(0, "c", &felt(1, "sad")));
    let rejection = rejection.unwrap_err();
    assert_eq!(rejection.code, "type_refused");
    assert!(rejection.message.contains("enums: text"), "{}", rejection.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_the_type_behind_it() {
    let columns = [plain(), vec![col("size", "long", "POSITIVE", None)]].concat();
    let table = Table::new("t", 2, 1, 1, &columns);
    let row = |id, size| event(id, "c", &[V::N(id), V::T("n"), V::T("l"), V::N(size)]);
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let events = [row(0, 5), row(1, -5)];
    assert_eq!(durable(&deliver(&mut *writer, &table, behind(2, 2), &events).await), 2);
    let ty: String = admin.query_one(TYPE, &[&"size"]).await.unwrap().get(0);
    assert_eq!(ty, "bigint");
    assert_eq!(mirrored(&admin).await, ["(0,n,l,5)", "(1,n,l,-5)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_of_the_target_is_taken_and_checks_its_values() {
    let columns = [plain(), vec![col("size", "long", "POSITIVE", None)]].concat();
    let table = Table::new("t", 2, 1, 1, &columns);
    let row = |id, size| event(id, "c", &[V::N(id), V::T("n"), V::T("l"), V::N(size)]);
    let (sink, admin) = proven(|_| {}).await;
    let create = "CREATE SCHEMA shop; CREATE DOMAIN shop.positive AS bigint CHECK (VALUE > 0);
                  CREATE TABLE shop.t (id bigint PRIMARY KEY, name varchar(40), large text,
                      size shop.positive)";
    admin.batch_execute(create).await.unwrap();
    let mut writer = started(&sink, 0).await;
    let events = [row(0, 5)];
    assert_eq!(durable(&deliver(&mut *writer, &table, behind(1, 2), &events).await), 1);
    let progress = deliver(&mut *writer, &table, behind(3, 2), &[row(1, 7), row(2, -5)]).await;
    match progress {
        Progress::Rejected { error, .. } => {
            assert!(error.code.contains("23514"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}
