//! The comparison of a table kept by key finds every kind of difference, and none where there is none.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use async_trait::async_trait;
use cdc_iceberg::{ColumnPreview, TypeOptions};
use cdc_shared::config::SourceConfig;
use cdc_shared::task::{DifferenceKind, TableReport};
use cdc_worker::sink::iceberg::verify::forms::{Form, of_postgres};
use cdc_worker::sink::iceberg::verify::{Lakes, compare};
use cdc_worker::sink::verify::{Manner, Reach, TaskFailure};
use cdc_worker::task::Tell;
use tokio_postgres::Client;

use super::*;
use crate::replica::event::UNAVAILABLE;
use crate::support::applied::Applied;
use crate::support::postgres::Cluster;
use crate::types::recorded::Recording;

/// A source table `shop.t` and the lake.
struct Pair {
    source: Client,
    config: SourceConfig,
    place: Place,
    sink: IcebergSink,
    writers: Vec<Box<dyn PartitionWriter>>,
    next: i64,
}

const AT_ONCE: u64 = 1 << 20;

impl Pair {
    /// With 100 rows on both sides, in two partitions.
    async fn new() -> Self {
        Self::at(Place::keyed()).await
    }

    /// The same with a change log.
    async fn log() -> Self {
        Self::at(Place::new()).await
    }

    async fn at(place: Place) -> Self {
        cdc_shared::tls::install_crypto();
        let cluster = Cluster::shared();
        let (database, source) = cluster.database().await;
        source
            .batch_execute(
                "CREATE SCHEMA shop; \
                 CREATE TABLE shop.t (id bigint PRIMARY KEY, name varchar(40), large text); \
                 INSERT INTO shop.t SELECT i, 'name' FROM generate_series(0, 99) i",
            )
            .await
            .unwrap();
        let config = cluster.as_source(database);
        let sink = place.sink().await;
        let writers = vec![started(&sink, 0).await, started(&sink, 1).await];
        let mut pair = Self { source, config, place, sink, writers, next: 0 };
        for partition in 0..2 {
            let ids = (0..100).filter(|id| id % 2 == partition);
            pair.write(partition as usize, "c", ids.map(|id| row(id, "name")).collect()).await;
        }
        pair
    }

    /// Events of a partition, as if the source had changed.
    async fn write(&mut self, partition: usize, op: &'static str, rows: Vec<[V; 3]>) {
        let events: Vec<_> =
            (self.next..).zip(&rows).map(|(offset, row)| event(offset, op, row)).collect();
        self.next += rows.len() as i64;
        let writer = self.writers[partition].as_mut();
        assert_eq!(durable(&deliver(writer, &table(), self.next, &events).await), self.next);
    }

    async fn on_source(&self, sql: &str) {
        self.source.batch_execute(sql).await.unwrap();
    }

    async fn try_compare(
        &self,
        reach: &mut dyn Reach,
        at_once: u64,
    ) -> (Vec<TableReport>, Option<TaskFailure>) {
        try_compare(&Lakes { source: &self.config, sink: &self.sink, at_once }, reach).await
    }

    async fn compare_at(&self, at_once: u64) -> TableReport {
        let (mut reports, failure) = self.try_compare(&mut Applied, at_once).await;
        assert_eq!(failure, None);
        reports.remove(0)
    }

    async fn compare(&self) -> TableReport {
        self.compare_at(AT_ONCE).await
    }
}

async fn try_compare(
    lakes: &Lakes<'_>,
    reach: &mut dyn Reach,
) -> (Vec<TableReport>, Option<TaskFailure>) {
    let manner = Manner { show_values: true, ..Manner::default() };
    let (tell, mut reports) = (Tell::new("test", |_| {}), Vec::new());
    let tables = [("shop.t".to_owned(), TOPIC.to_owned())];
    let compared = compare(lakes, &tables, reach, manner, &tell, &mut reports);
    let failure = within("the comparison", compared).await.err();
    (reports, failure)
}

fn counts(report: &TableReport) -> (u64, u64, u64, u64) {
    (report.rows, report.missing, report.extra, report.changed)
}

/// Kind of the difference, by the key's text.
fn kinds(report: &TableReport) -> BTreeMap<&str, DifferenceKind> {
    let of = report.differences.iter();
    of.map(|found| (found.key[0].text.as_deref().unwrap(), found.kind)).collect()
}

#[tokio::test]
async fn it_finds_each_kind_of_difference() {
    let mut pair = Pair::new().await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (100, 0, 0, 0), "{report}");
    assert_eq!((report.settled, &report.notes), (0, &Vec::new()), "{report}");
    assert_eq!((report.table.as_str(), report.mirror.as_str()), ("shop.t", "default.shop_t"));

    pair.on_source("INSERT INTO shop.t VALUES (200, 'new'), (777, 'rejected')").await;
    pair.write(0, "c", vec![row(300, "ghost")]).await;
    pair.write(0, "u", vec![row(2, "other"), [V::N(4), V::Null, V::Null]]).await;
    pair.write(1, "u", vec![[V::N(5), V::T("name"), V::T("")]]).await;
    // The key in another partition, as after a change of their number that nobody has seen: one row
    // is alike, one is not.
    pair.write(1, "c", vec![row(6, "name"), row(8, "later")]).await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (102, 1, 3, 3), "{report}");
    assert_eq!(report.given_up, 1, "{report}");
    let expected = [
        ("2", DifferenceKind::Changed),
        ("200", DifferenceKind::Missing),
        ("300", DifferenceKind::Extra),
        ("4", DifferenceKind::Changed),
        ("5", DifferenceKind::Changed),
        ("6", DifferenceKind::Extra),
        ("777", DifferenceKind::GivenUp),
        ("8", DifferenceKind::Extra),
    ];
    assert_eq!(kinds(&report), expected.into());
    let note = "2 of the extra rows are further ones of a key: the table has it more than once";
    assert_eq!(report.notes, [note], "{report}");
    let told = report.to_string();
    assert!(told.contains(r#"differs id="2": name "name" → "other""#), "{told}");

    // In parts it is the same.
    let in_parts = pair.compare_at(10).await;
    assert_eq!(counts(&in_parts), counts(&report), "{in_parts}");
    assert_eq!(kinds(&in_parts), kinds(&report));

    // Put right, one by one.
    pair.on_source("DELETE FROM shop.t WHERE id IN (200, 777)").await;
    pair.write(0, "d", vec![row(300, "ghost")]).await;
    pair.write(0, "u", vec![row(2, "name"), row(4, "name")]).await;
    pair.write(1, "u", vec![row(5, "name")]).await;
    pair.write(1, "d", vec![row(6, "name"), row(8, "later")]).await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (100, 0, 0, 0), "{report}");
}

#[tokio::test]
async fn rows_that_somebody_deleted_and_tables_that_are_not_there_are_missing() {
    let mut pair = Pair::new().await;
    let deleted = vec![row(10, "name"), row(12, "name")];
    pair.write(0, "d", deleted).await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (100, 2, 0, 0), "{report}");
    pair.on_source("TRUNCATE shop.t").await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (0, 0, 98, 0), "{report}");

    let elsewhere = Place::keyed();
    pair.sink = elsewhere.sink().await;
    pair.on_source("INSERT INTO shop.t VALUES (1, 'one')").await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (1, 1, 0, 0), "{report}");
    assert!(report.notes[0].contains("does not exist"), "{report}");
    assert!(pair.place.files("data", ".parquet").len() > 1);
}

/// Lets the source change before each look, and the sink follow.
struct Late<'p> {
    pair: &'p mut Pair,
    rounds: u32,
}

#[async_trait]
impl Reach for Late<'_> {
    async fn reach(&mut self, _table: &str, _tell: &Tell) -> Result<String, TaskFailure> {
        self.rounds += 1;
        // Only behind the first look, which finds the rows as they were.
        if self.rounds == 2 {
            self.pair.write(0, "u", vec![row(20, "late"), row(22, "late")]).await;
            self.pair.write(0, "d", vec![row(24, "name")]).await;
            self.pair.write(1, "c", vec![row(501, "late")]).await;
        }
        Ok("0/0".to_owned())
    }

    async fn given_up(
        &mut self,
        _table: &str,
        _columns: &[String],
    ) -> Result<HashSet<Vec<String>>, TaskFailure> {
        Ok(HashSet::new())
    }
}

#[tokio::test]
async fn changes_on_their_way_are_no_differences() {
    let mut pair = Pair::new().await;
    pair.on_source(
        "UPDATE shop.t SET name = 'late' WHERE id IN (20, 22); DELETE FROM shop.t WHERE id = 24; \
         INSERT INTO shop.t VALUES (501, 'late')",
    )
    .await;
    pair.write(0, "c", vec![row(300, "ghost")]).await;
    let (config, sink) = (pair.config.clone(), pair.place.sink().await);
    let lakes = Lakes { source: &config, sink: &sink, at_once: AT_ONCE };
    let mut late = Late { pair: &mut pair, rounds: 0 };
    let (mut reports, failure) = try_compare(&lakes, &mut late).await;
    assert_eq!(failure, None);
    let report = reports.remove(0);
    assert_eq!((report.different(), report.extra, report.settled), (1, 1, 4), "{report}");
    assert_eq!(kinds(&report), BTreeMap::from([("300", DifferenceKind::Extra)]));
}

#[tokio::test]
async fn a_column_that_cannot_be_compared_is_named() {
    let pair = Pair::new().await;
    pair.on_source(
        "ALTER TABLE shop.t ALTER large TYPE bytea USING NULL, ADD more text, \
         ADD twice int GENERATED ALWAYS AS (id * 2) STORED",
    )
    .await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (100, 0, 0, 0), "{report}");
    let expected = [
        "column more is not in the mirror (yet), which counts as NULL there",
        "column large (bytea) is not compared: the table has it as string",
    ];
    assert_eq!(report.notes, expected);
    pair.on_source("UPDATE shop.t SET more = 'x' WHERE id = 1").await;
    let report = pair.compare().await;
    assert_eq!(counts(&report), (100, 0, 0, 1), "{report}");
    pair.on_source(
        "ALTER TABLE shop.t DROP twice, ALTER id TYPE uuid \
         USING lpad(to_hex(id), 32, '0')::uuid",
    )
    .await;
    let (_, failure) = pair.try_compare(&mut Applied, AT_ONCE).await;
    let message = failure.unwrap().message;
    assert!(message.contains("column id (uuid) is in the key"), "{message}");
}

#[tokio::test]
async fn the_rows_that_a_change_log_leads_to_are_compared() {
    let mut pair = Pair::log().await;
    assert_eq!(counts(&pair.compare().await), (100, 0, 0, 0));
    // Each key has several changes; of some the large value was not sent.
    let large = |id, name, large| [V::N(id), V::T(name), V::T(large)];
    pair.on_source(
        "UPDATE shop.t SET name = 'new', large = 'large' WHERE id < 10; \
         DELETE FROM shop.t WHERE id BETWEEN 20 AND 29",
    )
    .await;
    for partition in 0..2 {
        let ids = |range: std::ops::Range<i64>| range.filter(move |id| id % 2 == partition);
        let part = partition as usize;
        pair.write(part, "u", ids(0..10).map(|id| large(id, "old", "large")).collect()).await;
        pair.write(part, "u", ids(0..10).map(|id| large(id, "new", UNAVAILABLE)).collect()).await;
        pair.write(part, "d", ids(20..30).map(|id| row(id, "name")).collect()).await;
    }
    let report = pair.compare().await;
    assert_eq!((counts(&report), report.settled), ((90, 0, 0, 0), 10), "{report}");

    pair.on_source(
        "INSERT INTO shop.t VALUES (200, 'new'), (22, 'again'); \
         UPDATE shop.t SET name = 'newer' WHERE id IN (4, 40)",
    )
    .await;
    pair.write(0, "c", vec![row(300, "ghost")]).await;
    let expected = [
        ("200", DifferenceKind::Missing),
        ("22", DifferenceKind::Missing),
        ("300", DifferenceKind::Extra),
        ("4", DifferenceKind::Changed),
        ("40", DifferenceKind::Changed),
    ];
    for at_once in [AT_ONCE, 16] {
        let report = pair.compare_at(at_once).await;
        assert_eq!(counts(&report), (92, 2, 1, 2), "{report}");
        assert_eq!(kinds(&report), expected.into());
    }
    let report = pair.compare().await;
    let of_4 = report.differences.iter().find(|found| found.key[0].text.as_deref() == Some("4"));
    assert_eq!(of_4.unwrap().columns.len(), 1, "what was not sent is not compared: {report}");

    let truncate = event(pair.next, "t", &row(0, "name"));
    let writer = pair.writers[0].as_mut();
    pair.next += 1;
    assert_eq!(durable(&deliver(writer, &table(), pair.next, &[truncate]).await), pair.next);
    let (_, failure) = pair.try_compare(&mut Applied, AT_ONCE).await;
    let message = failure.unwrap().message;
    assert!(message.contains("has 1 TRUNCATEs"), "{message}");
}

const TYPES: &str = r#"
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine"');
    CREATE TYPE "Mixed Case" AS ENUM ('A');
    CREATE SCHEMA aux; CREATE TYPE aux.colour AS ENUM ('green');
    CREATE DOMAIN price AS numeric(12,2); CREATE DOMAIN email AS text;
    CREATE DOMAIN small AS smallint; CREATE DOMAIN stamp AS timestamp(3);
    SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET lc_monetary = 'C';
"#;

/// What the connector has changed before the sink sees it, as for the mirror.
const CHANGED: [(i64, &str); 3] = [(5, "c_date"), (7, "c_date"), (8, "c_date")];

/// Columns of types that are not compared.
const NOT_COMPARED: [&str; 1] = ["a_hstore"];

/// Of every type, the text of the table is that of the source.
#[tokio::test]
async fn values_of_postgresql_are_compared_by_one_text() {
    let recording = Recording::read(include_str!("../types/recorded/postgres-deploy.json"));
    let (_, admin) = Cluster::shared().database().await;
    admin.batch_execute(TYPES).await.unwrap();
    let options = TypeOptions::new(&recording.source());
    let mut forms = BTreeMap::<String, Option<Form>>::new();
    let mut values = Vec::new();
    recording.values(&recording.plans(), |id, plan, column, value| {
        let Ok(preview) = ColumnPreview::of(plan, column, options) else { return };
        let Ok(text) = preview.compared(value) else { return };
        values.push((id, column.name.clone(), preview.type_text(), text));
    });
    let of_source = recording.texts();
    let (mut differ, mut compared) = (BTreeSet::new(), BTreeSet::new());
    for (id, column, ty, text) in values {
        let declared = &recording.types[&column];
        if !forms.contains_key(&column) {
            let base = "SELECT format_type(CASE WHEN typtype = 'd' THEN typbasetype ELSE oid END, -1) \
                        FROM pg_type WHERE oid = $1::text::regtype";
            let base: String = admin.query_one(base, &[declared]).await.unwrap().get(0);
            forms.insert(column.clone(), of_postgres(&base, declared, &ty));
        }
        let Some(form) = &forms[&column] else { continue };
        let expression = form.sql.unwrap_or("{}::text").replace("{}", "t.c");
        let expression =
            if declared == "money" { "t.c::numeric::text" } else { expression.as_str() };
        let sql = format!("SELECT {expression} FROM (SELECT $1::text::{declared} AS c) t");
        let source = &of_source[&(id, column.clone())];
        let wanted: Option<String> = admin.query_one(&sql, &[source]).await.unwrap().get(0);
        let found = text.map(|text| form.of_table.text(text));
        if found == wanted {
            compared.insert(column);
        } else {
            differ.insert(format!("{id} {column} ({declared}): {wanted:?} {found:?}"));
        }
    }
    let is_known = |line: &String| {
        CHANGED.iter().any(|(id, column)| {
            line.starts_with(&format!("{id} {column} "))
                || line.starts_with(&format!("{} {column} ", id + 11))
        })
    };
    differ.retain(|line| !is_known(line));
    assert_eq!(differ, BTreeSet::new());
    let without: Vec<&str> =
        forms.iter().filter(|(_, form)| form.is_none()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(without, NOT_COMPARED);
    assert!(compared.len() > 85, "{}: {compared:?}", compared.len());
}
