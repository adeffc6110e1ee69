//! MySQL and MariaDB as the source of a mirror: every type, change and schema change, judged by
//! `cdc verify`, which must find what is planted.

use std::collections::BTreeMap;

use cdc_tests::judge::{self, verify};
use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::wait::{SOON, check, until};
use mysql_async::Conn;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// A column: name, type, three values as the source's SQL has them, and what is planted in the
/// mirror in place of the first.
pub(super) type Column = (&'static str, &'static str, [&'static str; 3], &'static str);

const NUMBERS: &[Column] = &[
    ("tiny", "tinyint", ["127", "-128", "0"], "126"),
    ("tinyu", "tinyint UNSIGNED", ["255", "0", "1"], "254"),
    ("yes", "tinyint(1)", ["1", "0", "-5"], "0"),
    ("small", "smallint", ["32767", "-32768", "0"], "NULL"),
    ("smallu", "smallint UNSIGNED", ["65535", "0", "1"], "65534"),
    ("med", "mediumint", ["8388607", "-8388608", "0"], "1"),
    ("medu", "mediumint UNSIGNED", ["16777215", "0", "1"], "1"),
    ("num", "int", ["2147483647", "-2147483648", "0"], "1"),
    ("numu", "int UNSIGNED", ["4294967295", "0", "1"], "4294967294"),
    ("numz", "int UNSIGNED ZEROFILL", ["42", "0", "1"], "43"),
    ("big", "bigint", ["9223372036854775807", "-9223372036854775808", "0"], "1"),
    ("bigu", "bigint UNSIGNED", ["18446744073709551615", "9223372036854775808", "0"], "-1"),
    ("price", "decimal(12,2)", ["9999999999.99", "-0.01", "12.5"], "9999999999.98"),
    (
        "exact",
        "decimal(65,30)",
        [
            "12345678901234567890123456789012345.123456789012345678901234567890",
            "-0.000000000000000000000000000001",
            "0",
        ],
        "12345678901234567890123456789012345.123456789012345678901234567891",
    ),
    ("whole", "decimal(10,0) UNSIGNED ZEROFILL", ["42", "0", "9999999999"], "43"),
    ("single", "float", ["1.5", "-3.4e38", "0.1"], "1.5000001"),
    ("cut", "float(7,3)", ["1234.567", "-0.001", "0"], "1234.568"),
    ("wide", "double", ["1.7976931348623157e308", "5e-324", "-1e-300"], "1"),
    ("cutd", "double(10,3)", ["1234567.891", "1e5", "0.1"], "1234567.892"),
];

const TEXTS: &[Column] = &[
    ("fixed", "char(5)", ["'ab'", "''", "'a'"], "'ab '"),
    ("name", "varchar(40)", ["'forty ☃ 🦀'", "''", "' lead and trail '"], "'forty ☃ '"),
    ("tinyt", "tinytext", ["'tt'", "''", "'x'"], "'TT'"),
    ("plain", "text", ["'with \"quotes\" \\\\ back, (x)\\n'", "''", "'x'"], "''"),
    ("medium", "mediumtext", ["'m'", "''", "'x'"], "NULL"),
    ("large", "longtext", ["repeat('large ', 20000)", "''", "'x'"], "'large'"),
    ("latin", "varchar(20) CHARACTER SET latin1", ["'é'", "''", "'x'"], "'e'"),
    ("exact", "varchar(10) COLLATE utf8mb4_bin", ["'Bin'", "''", "'x'"], "'bin'"),
    ("padded", "binary(4)", ["x'6162'", "x''", "x'00'"], "'\\x616200'"),
    ("raw", "varbinary(8)", ["x'00ff10'", "x''", "x'20'"], "'\\x00ff'"),
    ("tinyb", "tinyblob", ["x'01'", "x''", "x'00'"], "''"),
    ("plainb", "blob", ["x'00ff'", "x''", "x'5c'"], "'\\xff00'"),
    ("mediumb", "mediumblob", ["x'02'", "x''", "x'00'"], "NULL"),
    ("largeb", "longblob", ["repeat('\\\\', 100000)", "x''", "x'00'"], "''"),
    ("mood", "enum('sad', 'o''k', 'so so')", ["'o''k'", "'sad'", "'so so'"], "'sad'"),
    ("tags", "set('x', 'y', 'z')", ["'z,x'", "''", "'y'"], "'x,y,z'"),
];

/// Types that only MariaDB has. The connector's parser does not know INET4 and INET6.
const MARIADB: &[Column] = &[(
    "token",
    "uuid",
    ["'4D9BD6C9-9A8C-4FD5-9BB6-1F0FA5A1F0E1'", "'00000000-0000-0000-0000-000000000000'", "NULL"],
    "NULL",
)];

const TIMES: &[Column] = &[
    ("bit1", "bit(1)", ["b'1'", "b'0'", "b'1'"], "false"),
    ("bit5", "bit(5)", ["b'10110'", "b'00001'", "b'0'"], "B'10111'"),
    ("bit64", "bit(64)", ["1 << 63", "1", "~0"], "B'0'::bit(64)"),
    ("day", "date", ["'2024-02-29'", "'1000-01-01'", "'0000-00-00'"], "'2024-02-28'"),
    ("zero", "date NOT NULL", ["'2024-02-29'", "'9999-12-31'", "'0000-00-00'"], "'1970-01-01'"),
    ("span", "time", ["'838:59:59'", "'-838:59:59'", "'24:00:00'"], "'838:59:58'"),
    ("span3", "time(3)", ["'-00:00:00.001'", "'13:05:09.120'", "'00:00:00'"], "'00:00:00.001'"),
    ("span6", "time(6)", ["'-12:34:56.789'", "'838:59:58.999999'", "'0'"], "'-12:34:56.789001'"),
    ("at", "datetime", ["'2024-02-29 13:05:09'", "'1000-01-01'", "'0000-00-00'"], "NULL"),
    (
        "at3",
        "datetime(3)",
        ["'2024-02-29 13:05:09.12'", "'9999-12-31 23:59:59.999'", "'2024-01-01'"],
        "'2024-02-29 13:05:09.121'",
    ),
    (
        "at6",
        "datetime(6)",
        ["'2024-02-29 13:05:09.000001'", "'9999-12-31 23:59:59.999999'", "'1999-12-31'"],
        "'2024-02-29 13:05:09'",
    ),
    (
        "stamp",
        "timestamp NULL",
        ["'2024-07-01 12:00:00'", "'1970-01-01 02:00:01'", "NULL"],
        "'2024-07-01 12:00:00+00'",
    ),
    (
        "stamp6",
        "timestamp(6) NULL",
        ["'2024-07-01 12:00:00.5'", "'2038-01-19 05:14:07.999999'", "NULL"],
        "'2024-07-01 10:00:00.500001+00'",
    ),
    ("born", "year", ["2024", "1901", "2155"], "2023"),
    (
        "doc",
        "json",
        [
            r#"'{"bb": [1.50, null, "x\\"1.0"], "a": {"ü": 1e20}, "n": 18446744073709551615}'"#,
            "'null'",
            r#"'[-0.0, 1.0, 2.5e-7, true, {}, ""]'"#,
        ],
        r#"'{"bb": [1.50, null, "x\"1"], "a": {"ü": 1e20}, "n": 18446744073709551615}'"#,
    ),
    ("spot", "point", ["ST_GeomFromText('POINT(1.5 -2.25)')", "NULL", "NULL"], "NULL"),
    (
        "place",
        "geometry",
        ["ST_GeomFromText('POINT(1 2)', 4326)", "ST_GeomFromText('POINT(1 2)')", "NULL"],
        "'\\x0101000000000000000000f03f0000000000000040'",
    ),
    ("way", "linestring", ["ST_GeomFromText('LINESTRING(0 0,1 1)')", "NULL", "NULL"], "''"),
    ("area", "polygon", ["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')", "NULL", "NULL"], "NULL"),
];

/// A table of the pipeline's.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Columns of the key beside `id`.
    key: &'static str,
    pub(super) columns: Vec<Column>,
}

pub(super) fn tables(family: Family) -> [Table; 3] {
    let mut texts = TEXTS.to_vec();
    if family == Family::Mariadb {
        texts.extend(MARIADB);
    }
    [
        Table { name: "numbers", key: "", columns: NUMBERS.to_vec() },
        // Texts that the databases order and tell apart by other rules.
        Table { name: "texts", key: "region varchar(20),", columns: texts },
        Table { name: "times", key: "", columns: TIMES.to_vec() },
    ]
}

impl Table {
    pub(super) fn create(&self, id: &str) -> String {
        let columns = self.columns.iter().map(|(name, ty, ..)| format!("`{name}` {ty}"));
        let columns: Vec<String> = columns.collect();
        let first = if self.key.is_empty() { "" } else { "region, " };
        format!(
            "CREATE TABLE {id}.{} ({} id bigint UNSIGNED, {}, PRIMARY KEY ({first}id))",
            self.name,
            self.key,
            columns.join(", ")
        )
    }

    /// A row with the values of this place, or with NULL.
    pub(super) fn insert(&self, id: &str, key: u64, place: Option<usize>) -> String {
        let regions = ["''", "'b'", "'A'", "'a b'", "'ä'", "'Ab'"];
        let region = regions[key as usize % regions.len()];
        let region = if self.key.is_empty() { String::new() } else { format!("{region}, ") };
        let value = |column: &Column| match place {
            Some(place) => column.2[place],
            None if column.1.contains("NOT NULL") => column.2[0],
            None => "NULL",
        };
        let values: Vec<&str> = self.columns.iter().map(value).collect();
        format!("INSERT INTO {id}.{} VALUES ({region}{key}, {})", self.name, values.join(", "))
    }

    /// Rows of every kind, from this key on.
    pub(super) fn rows(&self, id: &str, from: u64) -> Vec<String> {
        let places = [None, Some(0), Some(1), Some(2)];
        let numbered = (from..).zip(places);
        numbered.map(|(key, place)| self.insert(id, key, place)).collect()
    }
}

/// A pipeline from tables of MySQL or MariaDB to their mirror.
struct Mirrored {
    pipeline: Pipeline,
    source: Conn,
    target: Client,
}

impl Mirrored {
    async fn new(family: Family, name: &str, tables: &[&str]) -> Self {
        let mut pipeline = Pipeline::of(family, &format!("{name}{}", family.name()));
        pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
        // How long a quiet server lets the connector wait for a sign of life, and with it Kafka for
        // the connector's position.
        pipeline.config["source"]["connector_properties"] =
            json!({"connect.keep.alive.interval.ms": "1000"});
        let id = pipeline.id.clone();
        let names: Vec<String> = tables.iter().map(|table| format!("{id}.{table}")).collect();
        pipeline.config["source"]["tables"] = json!(names);
        let mut source = mysql::admin(family).await;
        let begin = [
            format!("CREATE DATABASE {id} CHARACTER SET utf8mb4"),
            "SET SESSION sql_mode = ''".to_owned(),
        ];
        mysql::run(&mut source, &begin).await;
        pipeline.replica("mirror");
        Self { pipeline, source, target: postgres::target().await }
    }

    async fn run(&mut self, statements: &[String]) {
        mysql::run(&mut self.source, statements).await;
    }

    /// Runs statements in which `{id}` is the database.
    async fn on_source(&mut self, statements: &[&str]) {
        let id = self.pipeline.id.clone();
        let statements: Vec<String> =
            statements.iter().map(|statement| statement.replace("{id}", &id)).collect();
        self.run(&statements).await;
    }

    async fn on_target(&self, statement: &str) -> u64 {
        let statement = statement.replace("{id}", &self.pipeline.id);
        let done = self.target.execute(&statement, &[]).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
    }

    async fn mirror_is_equal(&mut self) -> Value {
        judge::is_equal(&mut self.pipeline).await
    }
}

pub(super) fn report<'e>(end: &'e Value, table: &str) -> &'e Value {
    let reports = end["tables"].as_array().unwrap();
    let found = reports.iter().find(|report| report["table"].as_str().unwrap().ends_with(table));
    found.unwrap_or_else(|| panic!("{table}: {end:#}"))
}

async fn every_value_is_mirrored(family: Family) {
    let tables = tables(family);
    let names = tables.each_ref().map(|table| table.name);
    let mut mirrored = Mirrored::new(family, "types", &names).await;
    let id = mirrored.pipeline.id.clone();
    for table in &tables {
        mirrored.run(&[table.create(&id)]).await;
        mirrored.run(&table.rows(&id, 1)).await;
    }
    mirrored.pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    mirrored.pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = mirrored.pipeline.serve();
    let _worker = mirrored.pipeline.worker("mirror");
    let end = mirrored.mirror_is_equal().await;
    for table in &tables {
        assert_eq!(report(&end, table.name)["rows"], 4, "{end:#}");
    }

    for table in &tables {
        mirrored.run(&table.rows(&id, 11)).await;
        mirrored.run(&table.rows(&id, 21)).await;
        let rest = table.columns.len() as u64;
        let whole: Vec<String> = (0..rest).map(|n| table.insert(&id, 100 + n, Some(0))).collect();
        mirrored.run(&whole).await;
        let name = table.name;
        let changes = [
            format!("DELETE FROM {id}.{name} WHERE id IN (2, 12)"),
            format!("UPDATE {id}.{name} SET id = id + 18446744073709550000 WHERE id IN (3, 13)"),
            format!("UPDATE {id}.{name} SET id = 40 WHERE id = 21"),
        ];
        mirrored.run(&changes).await;
    }
    // More digits than a snapshot has of it.
    mirrored.on_source(&["UPDATE {id}.numbers SET single = 1234567.5 WHERE id = 14"]).await;
    let end = mirrored.mirror_is_equal().await;
    for table in &tables {
        assert_eq!(report(&end, table.name)["rows"], 10 + table.columns.len(), "{end:#}");
    }
    what_is_planted_is_found(&mut mirrored, &tables).await;
}

async fn what_is_planted_is_found(mirrored: &mut Mirrored, tables: &[Table]) {
    for table in tables {
        for (key, (column, .., planted)) in (100..).zip(&table.columns) {
            let plant = format!(
                "UPDATE {{id}}.{} SET \"{column}\" = {planted} WHERE id = {key}",
                table.name
            );
            assert_eq!(mirrored.on_target(&plant).await, 1, "{plant}");
        }
    }
    let (code, end) = verify(&mut mirrored.pipeline, &["--show-values"]).await;
    assert_eq!(code, 1, "{end:#}");
    for table in tables {
        let report = report(&end, table.name);
        let found: BTreeMap<String, Vec<&str>> = report["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|difference| {
                let key = difference["key"].as_array().unwrap().last().unwrap();
                let columns = difference["columns"].as_array().unwrap();
                let columns = columns.iter().map(|column| column["column"].as_str().unwrap());
                (key["text"].as_str().unwrap().to_owned(), columns.collect())
            })
            .collect();
        let planted = (100..).zip(&table.columns);
        let planted = planted.map(|(key, (column, ..))| (key.to_string(), vec![*column]));
        assert_eq!(found, planted.collect(), "{report:#}");
        assert_eq!((&report["missing"], &report["extra"]), (&json!(0), &json!(0)), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_mysql_is_mirrored_and_what_is_planted_is_found() {
    every_value_is_mirrored(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_mariadb_is_mirrored_and_what_is_planted_is_found() {
    every_value_is_mirrored(Family::Mariadb).await;
}

async fn tables_change_in_a_running_stream(family: Family) {
    let mut mirrored = Mirrored::new(family, "evolve", &["t"]).await;
    mirrored
        .on_source(&[
            "CREATE TABLE {id}.t (id int PRIMARY KEY, n smallint NOT NULL, name varchar(20),
                 mood enum('a', 'b') NOT NULL DEFAULT 'a')",
            "INSERT INTO {id}.t (id, n, name) VALUES (1, 1, 'snapshot'), (2, 2, NULL)",
        ])
        .await;
    mirrored.pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = mirrored.pipeline.serve();
    let _worker = mirrored.pipeline.worker("mirror");
    mirrored.mirror_is_equal().await;
    let changes = [
        "ADD COLUMN a varchar(20) DEFAULT 'new'",
        "ADD COLUMN b decimal(10,2) NOT NULL DEFAULT 1.50",
        "MODIFY n int NOT NULL",
        "MODIFY name varchar(60)",
        "ADD COLUMN c datetime(3) DEFAULT '2020-01-01 00:00:00'",
        "MODIFY mood enum('a', 'b', 'c') NOT NULL DEFAULT 'c'",
        "DROP COLUMN a",
        "MODIFY n bigint UNSIGNED NOT NULL",
        "ADD COLUMN d bigint UNSIGNED FIRST",
        "MODIFY b decimal(14,2) NOT NULL",
    ];
    for (round, change) in (0..).zip(changes) {
        let (alter, from) = (format!("ALTER TABLE {{id}}.t {change}"), 100 * (round + 1));
        let insert = format!(
            "INSERT INTO {{id}}.t (id, n, name) VALUES ({from}, {round}, 'round'), \
             ({from} + 1, 30000, NULL), ({from} + 2, 1, '')"
        );
        // A partition without one of these jumps over the schema.
        mirrored.on_source(&[&alter, &insert]).await;
    }
    mirrored
        .on_source(&["UPDATE {id}.t SET n = 18446744073709551615, mood = 'c' WHERE id = 1"])
        .await;
    let end = mirrored.mirror_is_equal().await;
    assert_eq!(report(&end, ".t")["rows"], 32, "{end:#}");
    let missing = mirrored.on_target("DELETE FROM {id}.t WHERE id IN (100, 2)").await;
    let ghosts =
        mirrored.on_target("INSERT INTO {id}.t (id, n, mood, b) VALUES (-5, 1, 'a', 1)").await;
    assert_eq!((missing, ghosts), (2, 1));
    let (code, end) = verify(&mut mirrored.pipeline, &[]).await;
    let found = report(&end, ".t");
    let counts = ["missing", "extra", "changed"].map(|name| found[name].as_u64().unwrap());
    assert_eq!((code, counts), (1, [2, 1, 0]), "{end:#}");
    mirrored.pipeline.cdc_ok(&["resync", "FILE", "--sink", "mirror"]).await;
    mirrored.mirror_is_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_mysql_change_in_a_running_stream() {
    tables_change_in_a_running_stream(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_mariadb_change_in_a_running_stream() {
    tables_change_in_a_running_stream(Family::Mariadb).await;
}

async fn a_truncate_empties_the_mirror(family: Family) {
    let mut mirrored = Mirrored::new(family, "truncate", &["t"]).await;
    mirrored.pipeline.config["kafka"]["topics"] = json!({"partitions": 1});
    mirrored.pipeline.sink_mut("mirror")["postgres"]["truncate"] = json!("apply");
    let begin =
        ["CREATE TABLE {id}.t (id int PRIMARY KEY, v int)", "INSERT INTO {id}.t VALUES (1, 1)"];
    mirrored.on_source(&begin).await;
    mirrored.pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = mirrored.pipeline.serve();
    let worker = mirrored.pipeline.worker("mirror");
    mirrored.mirror_is_equal().await;
    let change = [
        "TRUNCATE {id}.t",
        "INSERT INTO {id}.t VALUES (2, 2), (3, 3)",
        // The connector's position stays before a statement like this one.
        "CREATE TABLE {id}.other (id int)",
    ];
    mirrored.on_source(&change).await;
    let end = mirrored.mirror_is_equal().await;
    assert_eq!(report(&end, ".t")["rows"], 2, "{end:#}");

    // By default it stops by name.
    drop(worker);
    mirrored.pipeline.sink_mut("mirror")["postgres"]["truncate"] = json!("stop");
    let _worker = mirrored.pipeline.worker("mirror");
    mirrored.on_source(&["TRUNCATE {id}.t"]).await;
    let hold = mirrored.pipeline.held("mirror", "truncate").await;
    assert!(hold.to_string().contains("was truncated"), "{hold}");
    let (code, end) = verify(&mut mirrored.pipeline, &["--timeout", "3"]).await;
    assert_eq!(code, 3, "{end:#}");
    let count = format!("SELECT count(*) FROM {}.t", mirrored.pipeline.id);
    until("the mirror keeps its rows", SOON, async || {
        let row = mirrored.target.query_one(&count, &[]).await.map_err(|e| e.to_string())?;
        check(row.get::<_, i64>(0) == 2, "gone".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_at_mysql_empties_the_mirror() {
    a_truncate_empties_the_mirror(Family::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_at_mariadb_empties_the_mirror() {
    a_truncate_empties_the_mirror(Family::Mariadb).await;
}
