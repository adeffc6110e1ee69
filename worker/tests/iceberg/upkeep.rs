//! Files joined, snapshots given up, orphans removed.

use std::fs::File;
use std::time::SystemTime;

use cdc_iceberg::{Clean, Compact, Compacted, Expire, Expired, Kind};

use super::faults::Faulty;
use super::*;

const ALL: Compact = Compact { target_bytes: 1 << 20, min_files: 2, gone_percent: 10 };
const HOUR: Duration = Duration::from_secs(3600);

type Summary = std::collections::BTreeMap<String, String>;

fn summary(newest: &Summary, key: &str) -> u64 {
    newest.get(key).map_or(0, |text| text.parse().unwrap())
}

async fn newest(place: &Place) -> Summary {
    place.table().snapshots().await.unwrap().remove(0).summary
}

/// One flush for each of these offsets.
async fn one_by_one(writer: &mut dyn PartitionWriter, offsets: std::ops::Range<i64>) {
    for at in offsets {
        let progress = deliver(writer, &table(), at + 1, &creates(at..at + 1)).await;
        assert_eq!(durable(&progress), at + 1);
    }
}

#[tokio::test]
async fn small_files_of_a_change_log_become_one_and_older_snapshots_stay_readable() {
    let place = Place::new();
    let sink = place.sink().await;
    let (mut first, mut second) = (started(&sink, 0).await, started(&sink, 1).await);
    one_by_one(&mut *first, 0..6).await;
    one_by_one(&mut *second, 0..3).await;
    let before = place.rows(&["id", "name", "_cdc_partition", "_cdc_offset"]).await;
    let old = place.table().snapshots().await.unwrap()[2].id;
    let done = place.table().compact(&ALL).await.unwrap();
    assert_eq!(done, Compacted { read: 9, written: 1, rows: 9, ..Compacted::default() });
    assert_eq!(place.rows(&["id", "name", "_cdc_partition", "_cdc_offset"]).await, before);
    let newest = newest(&place).await;
    assert_eq!((summary(&newest, "total-data-files"), summary(&newest, "total-records")), (1, 9));
    assert_eq!(place.table().compact(&ALL).await.unwrap(), Compacted::default());
    // The writers go on, and the table can go back.
    one_by_one(&mut *first, 6..8).await;
    assert_eq!(place.rows(&["id"]).await.len(), 11);
    place.table().roll_back(old).await.unwrap();
    assert_eq!(place.rows(&["id"]).await.len(), 7);
}

#[tokio::test]
async fn a_table_that_is_rolled_back_to_a_join_has_the_offsets_of_the_join() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    one_by_one(&mut *writer, 0..3).await;
    place.table().compact(&ALL).await.unwrap();
    let joined = place.table().snapshots().await.unwrap()[0].id;
    one_by_one(&mut *writer, 3..5).await;
    place.table().expire(&Expire { before_ms: i64::MAX, keep: 3 }).await.unwrap();
    place.table().roll_back(joined).await.unwrap();
    assert_eq!(sink.read_position(&partition(0)).await.unwrap().map(|p| p.next.get()), Some(3));
}

#[tokio::test]
async fn deleted_rows_are_left_out_and_their_deletes_with_them() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writers = [started(&sink, 0).await, started(&sink, 1).await];
    for writer in &mut writers {
        writer.is_one_of(2);
    }
    for at in 0..8 {
        for (number, writer) in (0_i64..).zip(&mut writers) {
            // Each key is written twice.
            let events = [event(at, "c", &row(2 * (at % 4) + number, "name"))];
            assert_eq!(durable(&deliver(&mut **writer, &table(), at + 1, &events).await), at + 1);
        }
    }
    let shown = ["id", "_cdc_partition", "_cdc_offset"];
    let before = place.rows(&shown).await;
    assert_eq!(before.len(), 8);
    let done = place.table().compact(&ALL).await.unwrap();
    assert_eq!((done.read, done.written, done.rows, done.gone), (16, 2, 8, 8));
    assert_eq!(done.deletes, 8);
    assert_eq!(place.rows(&shown).await, before);
    let newest = newest(&place).await;
    assert_eq!(
        ["total-data-files", "total-delete-files", "total-records", "total-position-deletes"]
            .map(|key| summary(&newest, key)),
        [2, 0, 8, 0]
    );
    // Each key is found again where it is now.
    let events = [event(8, "d", &row(0, "")), event(9, "u", &row(2, "new"))];
    assert_eq!(durable(&deliver(&mut *writers[0], &table(), 10, &events).await), 10);
    assert_eq!(
        place.rows(&["id", "name"]).await,
        ["1|name", "2|new", "3|name", "4|name", "5|name", "6|name", "7|name"]
    );
}

/// The table, before whose next commit something happens.
fn overtaken(place: &Place, first: impl Future<Output = ()> + Send + 'static) -> Arc<LakeTable> {
    let catalog = Faulty::new(place);
    catalog.overtake(first);
    let catalog = Catalog::Pointers(catalog);
    let lake = Lake::new(catalog, &place.config(), Owner::new("demo", "lake")).unwrap();
    let table = TableName { namespace: "default".to_owned(), table: "shop_t".to_owned() };
    Arc::new(lake).table(&table)
}

#[tokio::test]
async fn rows_that_are_deleted_during_a_join_are_deleted_from_the_new_file() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    writer.is_one_of(1);
    one_by_one(&mut *writer, 0..6).await;
    // A gap before the rows that go: places in the new file are others than in the old ones.
    let events = [event(6, "d", &row(1, "")), event(7, "u", &row(2, "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 8, &events).await), 8);
    let meanwhile = async move {
        let events = [event(8, "d", &row(3, "")), event(9, "u", &row(5, "five"))];
        assert_eq!(durable(&deliver(&mut *writer, &table(), 10, &events).await), 10);
    };
    let done = overtaken(&place, meanwhile).compact(&ALL).await.unwrap();
    assert_eq!((done.read, done.rows, done.gone), (7, 5, 2));
    assert_eq!(place.rows(&["id", "name"]).await, ["0|name", "2|two", "4|name", "5|five"]);
    // And they are not forgotten by the next join.
    place.table().compact(&ALL).await.unwrap();
    assert_eq!(place.rows(&["id", "name"]).await, ["0|name", "2|two", "4|name", "5|five"]);
}

#[tokio::test]
async fn files_that_somebody_else_joins_first_are_left_to_him() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    one_by_one(&mut *writer, 0..4).await;
    let other = place.table();
    let meanwhile = async move {
        assert_eq!(other.compact(&ALL).await.unwrap().read, 4);
    };
    let done = overtaken(&place, meanwhile).compact(&ALL).await.unwrap();
    assert_eq!(done, Compacted { overtaken: 4, ..Compacted::default() });
    assert_eq!(place.rows(&["id"]).await, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn old_snapshots_go_with_their_files_and_the_offsets_stay() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    writer.is_one_of(1);
    one_by_one(&mut *writer, 0..5).await;
    place.table().compact(&ALL).await.unwrap();
    let (rows, table) = (place.rows(&["id"]).await, place.table());
    let oldest = table.snapshots().await.unwrap()[5].id;
    let none = Expire { before_ms: 0, keep: 1 };
    assert_eq!(table.expire(&none).await.unwrap(), Expired { kept: 6, ..Expired::default() });
    let all = Expire { before_ms: i64::MAX, keep: 1 };
    let done = table.expire(&all).await.unwrap();
    // Five data files, five lists, five manifests.
    assert_eq!(done, Expired { snapshots: 5, kept: 1, files: 15, left: 0 });
    assert_eq!(place.files("data", ".parquet").len(), 1);
    assert_eq!(place.files("metadata", ".avro").len(), 2);
    assert_eq!(place.rows(&["id"]).await, rows);
    let error = table.roll_back(oldest).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Missing, "snapshot_missing"));
    assert_eq!(sink.read_position(&partition(0)).await.unwrap().map(|p| p.next.get()), Some(5));
    one_by_one(&mut *writer, 5..7).await;
    assert_eq!(place.rows(&["id"]).await.len(), 7);
}

/// A file in the table's folder, last written to so long ago.
fn plant(place: &Place, name: &str, age: Duration) {
    let path = place.dir.path().join("warehouse/default/shop_t").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"left").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn orphans_go_when_they_are_old_and_nothing_else_does() {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    writer.is_one_of(1);
    one_by_one(&mut *writer, 0..4).await;
    let update = [event(4, "u", &row(1, "new"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 5, &update).await), 5);
    plant(&place, "data/left.parquet", 30 * HOUR);
    plant(&place, "data/day=1/left.parquet", 30 * HOUR);
    plant(&place, "metadata/left-m0.avro", 30 * HOUR);
    plant(&place, "metadata/00001-left.metadata.json", HOUR);
    let table = place.table();
    let wanted = Clean { older_than: 24 * HOUR, dry_run: true };
    let tried = table.clean(&wanted).await.unwrap();
    assert_eq!((tried.orphans, tried.young, tried.bytes, tried.left), (3, 1, 12, 0));
    assert_eq!(tried.first.len(), 3);
    let again = table.clean(&Clean { dry_run: false, ..wanted }).await.unwrap();
    assert_eq!(again, tried);
    let none = table.clean(&Clean { older_than: Duration::ZERO, dry_run: false }).await.unwrap();
    // What was too young; everything else is the table's.
    assert_eq!((none.orphans, none.seen), (1, tried.seen - 3));
    let snapshots = table.snapshots().await.unwrap();
    for (back, snapshot) in snapshots.iter().enumerate() {
        table.roll_back(snapshot.id).await.unwrap();
        assert_eq!(place.rows(&["id"]).await.len(), 4.min(5 - back));
    }
}
