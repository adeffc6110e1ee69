//! The index of a partition outlives its owner.

use std::path::PathBuf;

use cdc_iceberg::Compact;

use super::*;

const SHOWN: [&str; 2] = ["id", "name"];

/// Data files that nobody can read as long as it lives.
struct Hidden(Vec<PathBuf>);

impl Hidden {
    fn new(files: Vec<PathBuf>) -> Self {
        for file in &files {
            std::fs::rename(file, file.with_extension("hidden")).unwrap();
        }
        Self(files)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        for file in &self.0 {
            std::fs::rename(file.with_extension("hidden"), file).unwrap();
        }
    }
}

/// Data files, without those of deletes.
fn data(place: &Place) -> Vec<PathBuf> {
    let mut files = place.files("data", ".parquet");
    files.retain(|file| !file.to_str().unwrap().contains("deletes"));
    files
}

/// A table of keys 0 to 5, two files of it, the first owner gone.
async fn left() -> Place {
    let place = Place::keyed();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    writer.is_one_of(1);
    assert_eq!(durable(&deliver(&mut *writer, &table(), 3, &creates(0..3)).await), 3);
    assert_eq!(durable(&deliver(&mut *writer, &table(), 6, &creates(3..6)).await), 6);
    within("leaving", writer.leave()).await;
    place
}

#[tokio::test]
async fn who_comes_next_reads_no_row_again() {
    let place = left().await;
    let hidden = Hidden::new(data(&place));
    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, position(6));
    let events = [event(6, "u", &row(1, "one")), event(7, "d", &row(4, ""))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 8, &events).await), 8);
    drop(hidden);
    assert_eq!(place.rows(&SHOWN).await, ["0|name", "1|one", "2|name", "3|name", "5|name"]);
}

#[tokio::test]
async fn what_came_after_it_was_saved_is_read() {
    let place = left().await;
    let first = data(&place);
    let sink = place.sink().await;
    // Killed before it has saved anything.
    let mut writer = writer_of(&sink, 0, position(6));
    let events =
        [event(6, "u", &row(1, "one")), event(7, "d", &row(4, "")), event(8, "c", &row(9, "nine"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 9, &events).await), 9);
    drop((writer, sink));

    let hidden = Hidden::new(first);
    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, position(9));
    let events = [
        event(9, "u", &row(1, "uno")),
        event(10, "c", &row(4, "four")),
        event(11, "d", &row(9, "")),
        event(12, "u", &row(0, "zero")),
    ];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 13, &events).await), 13);
    drop(hidden);
    let expected = ["0|zero", "1|uno", "2|name", "3|name", "4|four", "5|name"];
    assert_eq!(place.rows(&SHOWN).await, expected);
}

#[tokio::test]
async fn rows_are_found_where_a_join_has_put_them() {
    let place = left().await;
    let all = Compact { target_bytes: 1 << 30, min_files: 2, gone_percent: 1 };
    assert_eq!(place.table().compact(&all).await.unwrap().read, 2);
    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, position(6));
    let events = [event(6, "u", &row(1, "one")), event(7, "d", &row(4, ""))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 8, &events).await), 8);
    assert_eq!(place.rows(&SHOWN).await, ["0|name", "1|one", "2|name", "3|name", "5|name"]);
}

#[tokio::test]
async fn a_table_that_was_rolled_back_is_indexed_as_it_is() {
    let place = left().await;
    let before = place.table().snapshots().await.unwrap()[0].id;
    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, position(6));
    let events = [event(6, "u", &row(1, "one")), event(7, "c", &row(9, "nine"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 8, &events).await), 8);
    within("leaving", writer.leave()).await;
    drop((writer, sink));
    // What the saved index says of key 1 is gone, and the row before it is there again.
    place.table().roll_back(before).await.unwrap();

    let sink = place.sink().await;
    let mut writer = writer_of(&sink, 0, position(6));
    let events = [event(6, "u", &row(1, "uno")), event(7, "c", &row(9, "neuf"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), 8, &events).await), 8);
    let expected = ["0|name", "1|uno", "2|name", "3|name", "4|name", "5|name", "9|neuf"];
    assert_eq!(place.rows(&SHOWN).await, expected);
}

#[tokio::test]
async fn a_saved_index_that_is_torn_costs_time_and_nothing_else() {
    let place = left().await;
    let [saved] = place.files("index", ".idx").try_into().unwrap();
    let whole = std::fs::read(&saved).unwrap();
    let mut flipped = whole.clone();
    let last = whole.len() - 20;
    flipped[last] ^= 1;
    for (round, torn) in (0..).zip([&whole[..whole.len() / 2], &flipped, &[]]) {
        std::fs::write(&saved, torn).unwrap();
        let sink = place.sink().await;
        let (at, name) = (6 + round, ["a", "b", "c"][round as usize]);
        let mut writer = writer_of(&sink, 0, position(at));
        let events = [event(at, "u", &row(1, name))];
        assert_eq!(durable(&deliver(&mut *writer, &table(), at + 1, &events).await), at + 1);
        let first = format!("1|{name}");
        let expected = ["0|name", &first, "2|name", "3|name", "4|name", "5|name"];
        assert_eq!(place.rows(&SHOWN).await, expected);
    }
}
