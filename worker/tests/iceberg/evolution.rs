//! The table follows its source's schema.

use super::*;

fn id() -> Col {
    col("id", "long", "INT8", None).required()
}

async fn types(place: &Place) -> Vec<String> {
    let columns = place.table().columns().await.unwrap();
    let of_source = columns.into_iter().filter(|(name, _)| !name.starts_with("_cdc"));
    of_source.map(|(name, ty)| format!("{name} {ty}")).collect()
}

#[tokio::test]
async fn columns_are_added_and_widened_in_the_middle_of_a_batch() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let number = |avro, source| col("n", avro, source, None);
    let old = Table::new("t", 2, 1, 1, &[id(), number("int", "INT4")]);
    let new =
        Table::new("t", 3, 1, 1, &[id(), number("long", "INT8"), col("x", "string", "TEXT", None)]);
    old.push(&mut *writer, &event(0, "c", &[V::N(0), V::N(7)])).unwrap();
    new.push(&mut *writer, &event(1, "c", &[V::N(1), V::N(1 << 40), V::T("x")])).unwrap();
    old.push(&mut *writer, &event(2, "u", &[V::N(0), V::N(8)])).unwrap();
    writer.flush(position(3));
    assert_eq!(durable(&answer(&mut *writer).await), 3);
    assert_eq!(types(&place).await, ["id long", "n long", "x string"]);
    assert_eq!(place.rows(&["id", "n", "x"]).await, ["0|7|NULL", "0|8|NULL", "1|1099511627776|x"]);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 1);
}

#[tokio::test]
async fn files_of_the_narrower_type_are_read_after_it_was_widened() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let old = Table::new("t", 2, 1, 1, &[id(), col("n", "int", "INT4", None)]);
    let events = [event(0, "c", &[V::N(0), V::N(7)])];
    durable(&deliver(&mut *writer, &old, 1, &events).await);
    assert_eq!(types(&place).await, ["id long", "n int"]);
    let new = Table::new("t", 3, 1, 1, &[id(), col("n", "long", "INT8", None)]);
    let events = [event(1, "c", &[V::N(1), V::N(1 << 40)])];
    durable(&deliver(&mut *writer, &new, 2, &events).await);
    assert_eq!(types(&place).await, ["id long", "n long"]);
    assert_eq!(place.rows(&["id", "n"]).await, ["0|7", "1|1099511627776"]);
}

#[tokio::test]
async fn a_dropped_column_stays_and_is_null() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    durable(&deliver(&mut *writer, &table(), 1, &creates(0..1)).await);
    let less = Table::new("t", 3, 1, 1, &[id()]);
    durable(&deliver(&mut *writer, &less, 2, &[event(1, "c", &[V::N(1)])]).await);
    assert_eq!(place.rows(&["id", "name"]).await, ["0|name", "1|NULL"]);
}

#[tokio::test]
async fn another_type_stops_by_name_and_only_the_partition_that_has_it() {
    let place = Place::new();
    let sink = place.sink().await;
    let (mut good, mut bad) = (started(&sink, 0).await, started(&sink, 1).await);
    durable(&deliver(&mut *good, &table(), 1, &creates(0..1)).await);
    let other = Table::new("t", 3, 1, 1, &[id(), col("name", "long", "INT8", None)]);
    push(&mut *good, &table(), &creates(1..2));
    other.push(&mut *bad, &event(0, "c", &[V::N(1), V::N(1)])).unwrap();
    bad.flush(position(1));
    good.flush(position(2));
    match answer(&mut *bad).await {
        Progress::Rejected { offset: None, error } => {
            assert_eq!(error.disposition, cdc_worker::sink::Disposition::RejectAndStop);
            assert_eq!(error.code, "column_type");
            assert!(
                error.message.contains("column name of table default.shop_t is string"),
                "{error}"
            );
            assert!(error.hint.unwrap().contains("rename"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(durable(&answer(&mut *good).await), 2);
    assert_eq!(place.rows(&["id", "name"]).await, ["0|name", "1|name"]);
    assert_eq!(sink.read_position(&partition(1)).await.unwrap(), Some(position(0)));
}

#[tokio::test]
async fn a_column_with_a_name_of_the_sink_stops_by_name() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let clash = Table::new("t", 3, 1, 1, &[id(), col("_cdc_op", "string", "TEXT", None)]);
    let why = clash.push(&mut *writer, &event(0, "c", &[V::N(1), V::T("x")])).unwrap_err();
    assert_eq!(why.code, "column_name_taken");
    assert!(why.way_out.unwrap().contains("rename"));
}
