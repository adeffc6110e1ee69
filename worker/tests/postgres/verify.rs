//! The comparison finds every kind of difference, and no difference where there is none.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use cdc_shared::config::{PostgresSinkConfig, PostgresWriteMode, Secret, SourceConfig, SslMode};
use cdc_shared::task::{Difference, DifferenceKind, TableReport};
use cdc_worker::sink::postgres::verify::{Databases, compare};
use cdc_worker::sink::verify::{Manner, Reach, TaskFailure};
use cdc_worker::task::Tell;
use tokio_postgres::Client;

use crate::support::applied::Applied;
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::{until, within};

/// Two databases, with what it takes to compare them.
struct Pair {
    source: Client,
    mirror: Client,
    config: SourceConfig,
    sink: PostgresSinkConfig,
}

impl Pair {
    /// Both with the tables of `ddl`.
    async fn new(ddl: &str) -> Self {
        cdc_shared::tls::install_crypto();
        let cluster = Cluster::shared();
        let (of_source, source) = cluster.database().await;
        let (of_mirror, mirror) = cluster.database().await;
        for client in [&source, &mirror] {
            client.batch_execute(ddl).await.unwrap();
        }
        let config = cluster.as_source(of_source);
        let sink = PostgresSinkConfig {
            port: cluster.port,
            database: of_mirror,
            username: "postgres".into(),
            password: Secret::from(PASSWORD),
            write_mode: PostgresWriteMode::Replica,
            sslmode: SslMode::Prefer,
            ..PostgresSinkConfig::default()
        };
        Self { source, mirror, config, sink }
    }

    async fn both(&self, sql: &str) {
        for client in [&self.source, &self.mirror] {
            client.batch_execute(sql).await.unwrap();
        }
    }

    async fn try_compare(&self, reach: &mut dyn Reach) -> (Vec<TableReport>, Option<TaskFailure>) {
        let databases = Databases { source: &self.config, sink: &self.sink };
        let manner = Manner { show_values: true, ..Manner::default() };
        let (tell, mut reports) = (Tell::new("test", |_| {}), Vec::new());
        let tables = ["public.t".to_owned()];
        let compared = compare(&databases, &tables, reach, manner, &tell, &mut reports);
        let failure = within("the comparison", compared).await.err();
        (reports, failure)
    }

    async fn compare(&self) -> TableReport {
        let (mut reports, failure) = self.try_compare(&mut Applied).await;
        assert_eq!(failure, None);
        reports.remove(0)
    }
}

fn named(report: &TableReport) -> BTreeMap<String, &Difference> {
    let key = |difference: &Difference| difference.key[0].text.clone().unwrap();
    report.differences.iter().map(|difference| (key(difference), difference)).collect()
}

const WIDE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
    CREATE TABLE t (
        id bigint PRIMARY KEY, name text, note varchar(40), code char(5), amount numeric(12,2),
        exact numeric, f4 real, f8 double precision, flag boolean, day date, at timestamp,
        zoned timestamptz, clock time, span interval, doc jsonb, raw json, bytes bytea, u uuid,
        list int[], texts text[], feel mood, num positive, net inet, money money, bits varbit(9),
        range int4range
    );";

/// Rows 1 to 60, all alike.
const ROWS: &str = "
    INSERT INTO t SELECT i, 'name', 'note', 'ab', 12.50, 1.5, 0.1, 0.1, true, '2024-02-29',
        '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00.123456+02', '12:00:00.5', '1 mon 2 days',
        '{\"a\": 1, \"b\": [1, 2]}', '{\"a\": 1, \"b\": 2}', '\\x00ff',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,NULL,3}', '{a,\"b,c\"}', 'ok', 7, '10.0.0.1/8',
        '12.34', B'101', '[1,5)' FROM generate_series(1, 60) i;";

/// Column and value of each difference that is planted in a row of its own, from 1.
const PLANTED: &[(&str, &str)] = &[
    ("name", "NULL"),
    ("name", "''"),
    ("name", "'Name'"),
    ("name", "'name '"),
    ("note", "'not\u{e9}'"),
    ("code", "'abc'"),
    ("amount", "12.51"),
    ("exact", "1.50"),
    ("f4", "0.1::real + 0.00000001::real"),
    ("f8", "0.1::double precision + 1.4e-17"),
    ("f8", "'NaN'"),
    ("flag", "NULL"),
    ("day", "'2024-03-01'"),
    ("at", "'2024-02-29 12:00:00.123457'"),
    ("zoned", "'2024-02-29 12:00:00.123456+01'"),
    ("clock", "'12:00:00.500001'"),
    ("span", "'32 days'"),
    ("doc", "'{\"a\": 1, \"b\": [2, 1]}'"),
    ("doc", "'{\"a\": 1.0, \"b\": [1, 2]}'"),
    ("raw", "'{\"b\": 2, \"a\": 1}'"),
    ("bytes", "'\\x00fe'"),
    ("bytes", "''"),
    ("u", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'"),
    ("list", "'{1,2,3}'"),
    ("list", "'[0:2]={1,NULL,3}'"),
    ("texts", "'{\"a,b\",c}'"),
    ("texts", "'{a,NULL}'"),
    ("feel", "'happy'"),
    ("num", "8"),
    ("net", "'10.0.0.1/9'"),
    ("money", "12.35::numeric::money"),
    ("bits", "B'1010'"),
    ("range", "'[1,6)'"),
];

#[tokio::test]
async fn equal_tables_are_equal() {
    let pair = Pair::new(WIDE).await;
    let empty = pair.compare().await;
    assert_eq!((empty.rows, empty.different()), (0, 0));
    pair.both(ROWS).await;
    let report = pair.compare().await;
    assert_eq!((report.rows, report.different(), report.settled), (60, 0, 0), "{report}");
    assert!(report.notes.is_empty() && !report.cut_short, "{report}");
}

#[tokio::test]
async fn every_planted_difference_is_found_and_nothing_else() {
    let pair = Pair::new(WIDE).await;
    pair.both(ROWS).await;
    // Two columns at once: NULL and the empty text must not lean on each other.
    pair.both("UPDATE t SET name = NULL, note = '' WHERE id = 60").await;
    pair.mirror.batch_execute("UPDATE t SET name = '', note = NULL WHERE id = 60").await.unwrap();
    for (place, (column, value)) in PLANTED.iter().enumerate() {
        let sql = format!("UPDATE t SET {column} = {value} WHERE id = {}", place + 1);
        let changed = pair.mirror.execute(&sql, &[]).await.unwrap();
        assert_eq!(changed, 1, "{sql}");
    }
    pair.mirror.batch_execute("DELETE FROM t WHERE id = 50").await.unwrap();
    pair.source.batch_execute("DELETE FROM t WHERE id = 51").await.unwrap();
    // All the same, though written otherwise.
    let same = "UPDATE t SET doc = '{\"b\":[1,2],\"a\":1}', amount = 12.5, code = 'ab   ' \
                WHERE id = 52";
    pair.mirror.batch_execute(same).await.unwrap();

    // As many as differ, to see every one of them named.
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let report = pair.compare().await;
    assert_eq!((report.missing, report.extra), (1, 1), "{report}");
    assert_eq!(report.changed, PLANTED.len() as u64 + 1, "{report}");
    assert_eq!(report.differences.len(), 20);
    assert!(!report.to_string().contains("changed meanwhile"), "{report}");
    // Only the first are named: what was found is put right, and the rest is compared again.
    loop {
        let report = pair.compare().await;
        if report.differences.is_empty() {
            break;
        }
        for difference in &report.differences {
            let id = difference.key[0].text.clone().unwrap();
            let columns = difference.columns.iter().map(|column| column.column.clone());
            let kind = format!("{:?}", difference.kind);
            found.insert(id.clone(), std::iter::once(kind).chain(columns).collect());
            let gone = format!("DELETE FROM t WHERE id = {id}");
            pair.both(&gone).await;
        }
    }
    for (place, (column, _)) in PLANTED.iter().enumerate() {
        let id = (place + 1).to_string();
        assert_eq!(found.remove(&id).unwrap(), ["Changed", column], "row {id}");
    }
    assert_eq!(found.remove("50").unwrap(), ["Missing"]);
    assert_eq!(found.remove("51").unwrap(), ["Extra"]);
    assert_eq!(found.remove("60").unwrap(), ["Changed", "name", "note"]);
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn values_are_shown_with_their_row() {
    let pair = Pair::new("CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    pair.source.batch_execute("INSERT INTO t VALUES (7, 'a\n\"b\"')").await.unwrap();
    pair.mirror.batch_execute("INSERT INTO t VALUES (7, NULL)").await.unwrap();
    let report = pair.compare().await;
    let shown = report.differences[0].to_string();
    assert_eq!(shown, r#"differs id="7": name "a\n\"b\"" → NULL"#);
}

#[tokio::test]
async fn chunks_of_any_key_leave_no_row_out() {
    let ddl = "CREATE TABLE t (region text, n int, at timestamptz DEFAULT '2024-01-01', v int, \
               PRIMARY KEY (region, n, at))";
    let pair = Pair::new(ddl).await;
    // Texts whose order depends on the rules, and enough rows for several chunks on both sides.
    let fill = "INSERT INTO t SELECT (ARRAY['a','B','\u{e4}','a b','ab',''])[1 + i % 6], i, \
                '2024-01-01'::timestamptz + i * interval '1 microsecond', i \
                FROM generate_series(1, 45000) i";
    pair.both(fill).await;
    let report = pair.compare().await;
    assert_eq!((report.rows, report.different()), (45_000, 0), "{report}");
    // A long stretch is missing here, another one there, and one row in the last chunk differs.
    pair.mirror.batch_execute("DELETE FROM t WHERE region = 'a' AND n < 7000").await.unwrap();
    pair.source.batch_execute("DELETE FROM t WHERE region = 'ab' AND n < 9000").await.unwrap();
    let last = "UPDATE t SET v = 0 WHERE (region, n) = (SELECT region, n FROM t \
                ORDER BY region DESC, n DESC LIMIT 1)";
    pair.mirror.batch_execute(last).await.unwrap();
    let report = pair.compare().await;
    assert_eq!((report.missing, report.extra, report.changed), (1166, 1500, 1), "{report}");
}

#[tokio::test]
async fn other_types_for_the_same_values_are_equal() {
    let pair = Pair::new("CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
    let source = "CREATE TABLE t (kind mood, id int, n numeric(8,2), f real, c char(4), m money, \
                  PRIMARY KEY (kind, id)); \
                  INSERT INTO t VALUES ('sad', 1, 1.5, 0.1, 'ab', '3.5'), ('ok', 2, -2, 3, 'x', '-1')";
    let mirror = "CREATE TABLE t (kind text, id bigint, n numeric(12,4), f double precision, \
                  c text, m numeric(10,2), PRIMARY KEY (id, kind)); \
                  INSERT INTO t VALUES ('sad', 1, 1.5, 0.1::real, 'ab  ', 3.5), \
                  ('ok', 2, -2, 3, 'x   ', -1)";
    pair.source.batch_execute(source).await.unwrap();
    pair.mirror.batch_execute(mirror).await.unwrap();
    let report = pair.compare().await;
    assert_eq!((report.rows, report.different()), (2, 0), "{report}");
    pair.mirror.batch_execute("UPDATE t SET n = 1.5001 WHERE id = 1").await.unwrap();
    let report = pair.compare().await;
    assert_eq!(report.changed, 1, "{report}");
    assert_eq!(named(&report)["sad"].kind, DifferenceKind::Changed);
}

#[tokio::test]
async fn a_column_that_the_mirror_lacks_is_null_there() {
    let pair = Pair::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.both("INSERT INTO t VALUES (1, 'x'), (2, 'y')").await;
    let add = "ALTER TABLE t ADD fresh text, ADD twice int GENERATED ALWAYS AS (id * 2) STORED";
    pair.source.batch_execute(add).await.unwrap();
    pair.mirror.batch_execute("ALTER TABLE t ADD own text").await.unwrap();
    let report = pair.compare().await;
    assert_eq!(report.different(), 0, "{report}");
    assert!(report.notes[0].contains("column fresh"), "{report}");
    pair.source.batch_execute("UPDATE t SET fresh = 'z' WHERE id = 2").await.unwrap();
    let report = pair.compare().await;
    assert_eq!((report.changed, report.different()), (1, 1), "{report}");
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_by_name() {
    let pair = Pair::new("CREATE TABLE other (id int)").await;
    let (_, failure) = pair.try_compare(&mut Applied).await;
    let failure = failure.unwrap();
    assert!(failure.message.starts_with("table public.t is not at source"), "{failure}");

    pair.source.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    let report = pair.compare().await;
    assert_eq!((report.missing, report.rows), (1, 1), "the mirror is not there");

    pair.mirror.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    let (_, failure) = pair.try_compare(&mut Applied).await;
    assert!(failure.unwrap().message.contains("no primary key"));

    pair.source.batch_execute("ALTER TABLE t ADD PRIMARY KEY (id)").await.unwrap();
    pair.mirror.batch_execute("DROP TABLE t; CREATE TABLE t (other int)").await.unwrap();
    let (_, failure) = pair.try_compare(&mut Applied).await;
    assert!(failure.unwrap().message.contains("lacks column id"));
}

/// A mirror that follows the source only while somebody waits for it: everything that was written
/// is on its way whenever it is looked at.
struct Late {
    source: Client,
    mirror: Client,
    rounds: u32,
    write: fn(u32) -> String,
}

#[async_trait]
impl Reach for Late {
    async fn reach(&mut self, _table: &str, _tell: &Tell) -> Result<String, TaskFailure> {
        let rows = self.source.query("SELECT id, v FROM t", &[]).await.unwrap();
        self.mirror.batch_execute("DELETE FROM t WHERE id < 900").await.unwrap();
        for row in rows {
            let (id, v): (i32, i32) = (row.get(0), row.get(1));
            let insert = "INSERT INTO t VALUES ($1, $2)";
            self.mirror.execute(insert, &[&id, &v]).await.unwrap();
        }
        self.rounds += 1;
        self.source.batch_execute(&(self.write)(self.rounds)).await.unwrap();
        Ok(format!("0/{}", self.rounds))
    }

    async fn given_up(
        &mut self,
        _table: &str,
        _columns: &[String],
    ) -> Result<HashSet<Vec<String>>, TaskFailure> {
        Ok(HashSet::new())
    }
}

async fn late(write: fn(u32) -> String) -> (Pair, Late) {
    let pair = Pair::new("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    pair.source
        .batch_execute("INSERT INTO t SELECT i, i FROM generate_series(1, 50) i")
        .await
        .unwrap();
    // A ghost that no change will ever remove.
    pair.mirror.batch_execute("INSERT INTO t VALUES (900, 1)").await.unwrap();
    let cluster = Cluster::shared();
    let source = cluster.admin(&pair.config.database).await;
    let mirror = cluster.admin(&pair.sink.database).await;
    (pair, Late { source, mirror, rounds: 0, write })
}

#[tokio::test]
async fn changes_on_their_way_are_no_differences_and_a_ghost_is_one() {
    let write = |round: u32| match round {
        1 => "UPDATE t SET v = -v WHERE id <= 10; DELETE FROM t WHERE id BETWEEN 11 AND 20; \
              INSERT INTO t SELECT i, i FROM generate_series(51, 60) i"
            .to_owned(),
        2 => "UPDATE t SET v = 7 WHERE id <= 3".to_owned(),
        _ => String::new(),
    };
    let (pair, mut late) = late(write).await;
    let (mut reports, failure) = pair.try_compare(&mut late).await;
    assert_eq!(failure, None);
    let report = reports.remove(0);
    assert_eq!((report.different(), report.extra, report.settled), (1, 1, 30), "{report}");
    assert_eq!(named(&report)["900"].kind, DifferenceKind::Extra);
}

#[tokio::test]
async fn a_row_that_never_rests_is_told_as_such() {
    let write = |round: u32| format!("UPDATE t SET v = {round} * 1000 WHERE id = 5");
    let (pair, mut late) = late(write).await;
    let (mut reports, failure) = pair.try_compare(&mut late).await;
    assert_eq!(failure, None);
    let report = reports.remove(0);
    assert_eq!((report.different(), report.extra), (1, 1), "{report}");
    // The sink here applies everything before each look, so it may settle; it is never a
    // difference.
    assert_eq!(report.unsettled + report.settled, 1, "{report}");
}

#[tokio::test]
async fn a_sweep_removes_ghosts_and_nothing_that_was_written_since() {
    let pair = Pair::new("CREATE TABLE t (id int, at timestamptz, v int, PRIMARY KEY (id, at))");
    let pair = pair.await;
    pair.both("INSERT INTO t SELECT i, '2024-01-01', i FROM generate_series(1, 20) i").await;
    pair.mirror
        .batch_execute("INSERT INTO t SELECT i, '2024-01-02', i FROM generate_series(1, 5) i")
        .await
        .unwrap();
    pair.mirror.batch_execute("DELETE FROM t WHERE id = 9").await.unwrap();
    // The sink is about to write one of the ghosts: the source has that key again.
    pair.mirror
        .batch_execute("BEGIN; UPDATE t SET v = 0 WHERE id = 3 AND at = '2024-01-02'")
        .await
        .unwrap();
    let databases = Databases { source: &pair.config, sink: &pair.sink };
    let manner = Manner { sweep: true, ..Manner::default() };
    let (tell, mut reports) = (Tell::new("test", |_| {}), Vec::new());
    let tables = ["public.t".to_owned()];
    let mut reach = Applied;
    let sweep = compare(&databases, &tables, &mut reach, manner, &tell, &mut reports);
    let write = async {
        let watcher = Cluster::shared().admin(&pair.sink.database).await;
        until("the sweep waits for the sink", async || super::someone_waits(&watcher).await).await;
        pair.mirror.batch_execute("COMMIT").await.unwrap();
    };
    let (swept, ()) = within("the sweep", Box::pin(async { tokio::join!(sweep, write) })).await;
    swept.unwrap();
    let report = reports.remove(0);
    assert_eq!((report.extra, report.removed, report.missing), (5, 4, 1), "{report}");
    let left = pair.compare().await;
    assert_eq!((left.extra, left.missing, left.changed), (1, 1, 0), "{left}");
}

#[tokio::test]
async fn rows_whose_records_were_given_up_are_told_apart() {
    let pair = Pair::new("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    pair.source.batch_execute("INSERT INTO t VALUES (777, 1), (778, 1)").await.unwrap();
    let report = pair.compare().await;
    assert_eq!((report.missing, report.given_up), (1, 1), "{report}");
    assert_eq!(named(&report)["777"].kind, DifferenceKind::GivenUp);
}
