//! Columns that come, change and go.

use super::*;

fn with(extra: Col) -> Vec<Col> {
    [plain(), vec![extra]].concat()
}

/// A mirror with two rows of the plain table.
async fn filled() -> (PostgresReplica, Client, Box<dyn PartitionWriter>) {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &first).await), 2);
    (sink, admin, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_comes_in_the_middle_of_a_batch() {
    let (_sink, admin, mut writer) = filled().await;
    let grown = Table::new("t", 3, 1, 1, &with(col("size", "long", "INT8", None)));
    push(&mut *writer, &table(), &[event(2, "u", &row(1, "a2", "one"))]);
    let new = [V::N(3), V::T("c"), V::T("three"), V::N(33)];
    push(&mut *writer, &grown, &[event(3, "c", &new)]);
    writer.flush(behind(4, 3));
    assert_eq!(durable(&answer(&mut *writer).await), 4);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one,)", "(2,b,two,)", "(3,c,three,33)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_lags_goes_on_with_the_older_schema() {
    let (sink, admin, mut writer) = filled().await;
    let mut lagging = started(&sink, 1).await;
    let grown = Table::new("t", 3, 1, 1, &with(col("size", "long", "INT8", None)));
    let new = [V::N(3), V::T("c"), V::T("three"), V::N(33)];
    let ahead = [event(2, "c", &new)];
    assert_eq!(durable(&deliver(&mut *writer, &grown, behind(3, 3), &ahead).await), 3);
    let old = [event(0, "c", &row(4, "d", "four")), event(1, "u", &row(4, "d2", "four"))];
    assert_eq!(durable(&deliver(&mut *lagging, &table(), behind(2, 2), &old).await), 2);
    let late = [event(2, "u", &[V::N(4), V::T("d3"), V::T("four"), V::N(44)])];
    assert_eq!(durable(&deliver(&mut *lagging, &grown, behind(3, 3), &late).await), 3);
    let rows = mirrored(&admin).await;
    assert_eq!(rows[2..], ["(3,c,three,33)", "(4,d3,four,44)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_went_stays_and_takes_null() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    let needed = Table::new("t", 2, 1, 1, &with(col("size", "long", "INT8", None).required()));
    let first = [event(0, "c", &[V::N(1), V::T("a"), V::T("one"), V::N(11)])];
    assert_eq!(durable(&deliver(&mut *writer, &needed, behind(1, 2), &first).await), 1);
    let without = Table::new("t", 3, 1, 1, &plain());
    let second = [event(1, "c", &row(2, "b", "two")), event(2, "u", &row(1, "a2", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &without, behind(3, 3), &second).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one,11)", "(2,b,two,)"]);
    // And comes back: its old values are not those of the source.
    let back = Table::new("t", 4, 1, 1, &with(col("size", "long", "INT8", None)));
    let third = [event(3, "u", &[V::N(2), V::T("b"), V::T("two"), V::N(22)])];
    let (code, words) = stopped(deliver(&mut *writer, &back, behind(4, 4), &third).await);
    assert_eq!(code, "column_returned");
    assert!(words.contains(r#"ALTER TABLE "shop"."t" DROP COLUMN "size""#), "{words}");
    admin.batch_execute(r#"ALTER TABLE "shop"."t" DROP COLUMN "size""#).await.unwrap();
    writer.reset(behind(3, 3));
    assert_eq!(durable(&deliver(&mut *writer, &back, behind(4, 4), &third).await), 4);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one,)", "(2,b,two,22)"]);
    drop(sink);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_a_rename_is_for_a_person_to_say() {
    let (_sink, admin, mut writer) = filled().await;
    let mut columns = plain();
    columns[1] = col("title", "string", "VARCHAR", Some(40));
    let renamed = Table::new("t", 3, 1, 1, &columns);
    let events = [event(2, "u", &row(1, "a2", "one"))];
    let (code, words) = stopped(deliver(&mut *writer, &renamed, behind(3, 3), &events).await);
    assert_eq!(code, "column_renamed");
    let rename = r#"ALTER TABLE "shop"."t" RENAME COLUMN "name" TO "title""#;
    assert!(words.contains(rename), "{words}");
    assert!(words.contains(r#"ADD COLUMN "title" character varying(40)"#), "{words}");
    admin.batch_execute(rename).await.unwrap();
    writer.reset(behind(2, 2));
    assert_eq!(durable(&deliver(&mut *writer, &renamed, behind(3, 3), &events).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one)", "(2,b,two)"]);
}

/// A partition with few changes meets only the first and the last of several schemas.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_and_came_one_by_one_is_no_rename() {
    let (first, mut columns) = (table(), plain());
    columns.remove(1);
    let without = Table::new("t", 3, 1, 1, &columns);
    columns.insert(1, col("title", "string", "VARCHAR", Some(40)));
    let titled = Table::new("t", 4, 1, 1, &columns);
    columns.push(col("size", "long", "INT8", None));
    let sized = Table::new("t", 5, 1, 1, &columns);
    let (sink, admin) = proven_beside(&[&first, &without, &titled, &sized], |_| {}).await;
    let mut writer = started(&sink, 0).await;
    let old = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &first, behind(2, 2), &old).await), 2);
    let new = [event(2, "u", &[V::N(1), V::T("t"), V::T("one"), V::N(7)])];
    assert_eq!(durable(&deliver(&mut *writer, &sized, behind(3, 5), &new).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,a,one,t,7)", "(2,b,two,,)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_another_went_is_no_rename() {
    let (first, mut columns) = (table(), plain());
    columns.push(col("title", "string", "VARCHAR", Some(40)));
    let both = Table::new("t", 3, 1, 1, &columns);
    columns.remove(1);
    let titled = Table::new("t", 4, 1, 1, &columns);
    let (sink, admin) = proven_beside(&[&first, &both, &titled], |_| {}).await;
    let mut writer = started(&sink, 0).await;
    let old = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &first, behind(2, 2), &old).await), 2);
    let new = [event(2, "u", &[V::N(1), V::T("one"), V::T("t")])];
    assert_eq!(durable(&deliver(&mut *writer, &titled, behind(3, 4), &new).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,a,one,t)", "(2,b,two,)"]);
}

/// Nor are its old values the new column's of the same name, in whatever partition it is met first.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_went_and_came_back_unseen_does_not_keep_its_values() {
    let (first, mut columns) = (table(), plain());
    columns.remove(1);
    let without = Table::new("t", 3, 1, 1, &columns);
    columns.push(col("name", "string", "VARCHAR", Some(40)));
    let back = Table::new("t", 4, 1, 1, &columns);
    let (sink, admin) = proven_beside(&[&first, &without, &back], |_| {}).await;
    let mut writer = started(&sink, 0).await;
    let old = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &first, behind(2, 2), &old).await), 2);
    let new = [event(2, "u", &[V::N(1), V::T("one"), V::T("new")])];
    let (code, words) = stopped(deliver(&mut *writer, &back, behind(3, 4), &new).await);
    assert_eq!(code, "column_returned");
    let drop_it = r#"ALTER TABLE "shop"."t" DROP COLUMN "name""#;
    assert!(words.contains(drop_it), "{words}");
    admin.batch_execute(drop_it).await.unwrap();
    writer.reset(behind(2, 2));
    assert_eq!(durable(&deliver(&mut *writer, &back, behind(3, 4), &new).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,one,new)", "(2,two,)"]);
}

/// The partition that lags has rows under the old name when the column is renamed already.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_comes_before_a_lagging_partition_loses_nothing() {
    let (sink, admin, mut ahead) = filled().await;
    let mut lagging = started(&sink, 1).await;
    let first = [event(0, "c", &row(7, "seven", "x"))];
    assert_eq!(durable(&deliver(&mut *lagging, &table(), behind(1, 2), &first).await), 1);
    let mut columns = plain();
    columns[1] = col("title", "string", "VARCHAR", Some(40));
    let renamed = Table::new("t", 3, 1, 1, &columns);
    let newer = [event(2, "u", &row(1, "a2", "one"))];
    let (code, _) = stopped(deliver(&mut *ahead, &renamed, behind(3, 3), &newer).await);
    assert_eq!(code, "column_renamed");
    let rename = r#"ALTER TABLE shop.t RENAME COLUMN "name" TO "title""#;
    let back = r#"ALTER TABLE shop.t RENAME COLUMN "title" TO "name""#;
    admin.batch_execute(rename).await.unwrap();
    // Too early: older rows must not make a column of the old name anew.
    let older = [event(1, "u", &row(7, "seven2", "x"))];
    let (code, _) = stopped(deliver(&mut *lagging, &table(), behind(2, 2), &older).await);
    assert_eq!(code, "sqlstate_42703", "the statement does not fit any more");
    lagging.reset(behind(1, 2));
    let (code, words) = stopped(deliver(&mut *lagging, &table(), behind(2, 2), &older).await);
    assert_eq!(code, "column_missing");
    assert!(words.contains("rename it back"), "{words}");
    ahead.reset(behind(2, 2));
    assert_eq!(durable(&deliver(&mut *ahead, &renamed, behind(3, 3), &newer).await), 3);
    lagging.reset(behind(1, 2));
    let (code, words) = stopped(deliver(&mut *lagging, &table(), behind(2, 2), &older).await);
    assert_eq!(code, "column_renamed");
    assert!(words.contains(r#"RENAME COLUMN "title" TO "name""#), "{words}");
    admin.batch_execute(back).await.unwrap();
    lagging.reset(behind(1, 2));
    assert_eq!(durable(&deliver(&mut *lagging, &table(), behind(2, 2), &older).await), 2);
    admin.batch_execute(rename).await.unwrap();
    let last = [event(2, "u", &row(7, "seven3", "x"))];
    assert_eq!(durable(&deliver(&mut *lagging, &renamed, behind(3, 3), &last).await), 3);
    assert_eq!(mirrored(&admin).await, ["(1,a2,one)", "(2,b,two)", "(7,seven3,x)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_is_widened_and_nothing_else() {
    let (_sink, admin, mut writer) = filled().await;
    let mut columns = plain();
    columns[1] = col("name", "string", "VARCHAR", Some(80));
    let wider = Table::new("t", 3, 1, 1, &columns);
    let events = [event(2, "u", &row(1, "a2", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &wider, behind(3, 3), &events).await), 3);
    let ty = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
              WHERE attrelid = 'shop.t'::regclass AND attname = 'name'";
    let found: String = admin.query_one(ty, &[]).await.unwrap().get(0);
    assert_eq!(found, "character varying(80)");
    columns[1] = col("name", "long", "INT8", None);
    let other = Table::new("t", 4, 1, 1, &columns);
    let events = [event(3, "u", &[V::N(1), V::N(5), V::T("one")])];
    let (code, words) = stopped(deliver(&mut *writer, &other, behind(4, 4), &events).await);
    assert_eq!(code, "type_changed");
    assert!(words.contains("is character varying(80)"), "{words}");
    assert!(words.contains(r#"ALTER COLUMN "name" TYPE bigint USING"#), "{words}");
    assert_eq!(mirrored(&admin).await, ["(1,a2,one)", "(2,b,two)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_bring_the_table_up_at_once() {
    let (sink, admin) = proven(|c| c.max_connections = 8).await;
    let mut writers = Vec::new();
    for number in 0..8 {
        writers.push(started(&sink, number).await);
    }
    let grown = Table::new("t", 3, 1, 1, &with(col("size", "long", "INT8", None)));
    for (table, next, schema) in [(table(), 1, 2), (grown, 2, 3)] {
        let flushes = writers.iter_mut().zip(0_i64..).map(|(writer, id)| {
            let mut values = row(id, "n", "l").to_vec();
            values.extend((schema == 3).then_some(V::N(id)));
            let table = table.clone();
            async move {
                let events = [event(next - 1, "u", &values)];
                durable(&deliver(&mut **writer, &table, behind(next, schema), &events).await)
            }
        });
        assert_eq!(futures::future::join_all(flushes).await, [next; 8]);
    }
    assert_eq!(mirrored(&admin).await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_there_is_taken_when_it_fits() {
    let (sink, admin) = proven(|_| {}).await;
    let create = "CREATE SCHEMA shop; CREATE TABLE shop.t (note text, large text, name text, \
                  id bigint PRIMARY KEY, twice bigint GENERATED ALWAYS AS (id * 2) STORED, \
                  loaded timestamptz NOT NULL DEFAULT now())";
    admin.batch_execute(create).await.unwrap();
    let mut writer = started(&sink, 0).await;
    let first = [event(0, "c", &row(1, "a", "one"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(1, 2), &first).await), 1);
    let found = admin.query_one("SELECT id, name, large, twice FROM shop.t", &[]).await.unwrap();
    assert_eq!(found.get::<_, i64>(3), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_is_refused_by_name() {
    for (create, code, word) in [
        ("id bigint, name varchar(40), large text", "table_refused", "ADD PRIMARY KEY (\"id\")"),
        (
            "id bigint PRIMARY KEY, name varchar(40), large text, tenant int NOT NULL",
            "table_refused",
            "ALTER COLUMN \"tenant\" DROP NOT NULL",
        ),
        ("id bigint PRIMARY KEY, name date, large text", "type_changed", "name"),
    ] {
        let (sink, admin) = proven(|_| {}).await;
        let create = format!("CREATE SCHEMA shop; CREATE TABLE shop.t ({create})");
        admin.batch_execute(&create).await.unwrap();
        let mut writer = started(&sink, 0).await;
        let events = [event(0, "c", &row(1, "a", "one"))];
        let (found, words) = stopped(deliver(&mut *writer, &table(), behind(1, 2), &events).await);
        assert_eq!(found, code);
        assert!(words.contains(word), "{words}");
    }
}
