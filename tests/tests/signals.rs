//! A table that came into the configuration later: its changes arrive after `deploy`, the rows that
//! it had before by `cdc snapshot`, whichever way the connector is asked.

use cdc_tests::mysql::{self, Family};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::receiver::Receiver;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use serde_json::json;

/// The source, whatever it is.
enum Source {
    Postgres(tokio_postgres::Client),
    Family(mysql_async::Conn),
}

impl Source {
    /// The source with a place for the pipeline's tables.
    async fn open(pipeline: &Pipeline, family: Option<Family>) -> Self {
        let id = &pipeline.id;
        let mut source = match family {
            None => Self::Postgres(postgres::source().await),
            Some(family) => Self::Family(mysql::admin(family).await),
        };
        let user = Stack::get().value("SOURCE_USER");
        let statements = match family {
            None => {
                vec![format!("CREATE SCHEMA {id} AUTHORIZATION {user}"), format!("SET ROLE {user}")]
            }
            Some(_) => vec![
                format!("CREATE DATABASE {id}"),
                format!("GRANT INSERT, DELETE ON {id}.* TO '{user}'@'127.0.0.1'"),
            ],
        };
        source.run(&statements).await;
        source
    }

    async fn run(&mut self, statements: &[String]) {
        match self {
            Self::Postgres(client) => {
                for statement in statements {
                    client.batch_execute(statement).await.unwrap();
                }
            }
            Self::Family(connection) => mysql::run(connection, statements).await,
        }
    }
}

/// Operations of a table's events, by key, in order of arrival.
fn operations(receiver: &Receiver, topic: &str, key: i32) -> Vec<String> {
    let key = json!({"id": key});
    let of_key = receiver.deliveries().into_iter().filter(|d| d.topic == topic && d.key == key);
    of_key.map(|d| d.body["value"]["op"].as_str().unwrap().to_owned()).collect()
}

/// A pipeline over one table with one row.
async fn prepare(family: Option<Family>, by_table: bool) -> (Pipeline, Source) {
    let mut pipeline = match family {
        None => Pipeline::new("later"),
        Some(family) => Pipeline::of(family, "later"),
    };
    // A chunk of a snapshot by Kafka ends with the next change or heartbeat.
    pipeline.config["source"]["heartbeat_interval_ms"] = json!(300);
    let id = pipeline.id.clone();
    let mut source = Source::open(&pipeline, family).await;
    source
        .run(&[
            format!("CREATE TABLE {id}.t (id int PRIMARY KEY, name varchar(50))"),
            format!("INSERT INTO {id}.t VALUES (1, 'first')"),
        ])
        .await;
    if by_table {
        let signals = format!(
            "CREATE TABLE {id}.signals (id varchar(42) PRIMARY KEY, type varchar(32), data text)"
        );
        source.run(&[signals]).await;
        pipeline.config["source"]["signal"] = json!("source");
        pipeline.config["source"]["signal_table"] = json!(format!("{id}.signals"));
    }
    (pipeline, source)
}

/// Makes the later table and puts it into the configuration; before `deploy` it cannot be read.
async fn grow(pipeline: &mut Pipeline, source: &mut Source, snapshot: &[&str]) {
    let id = pipeline.id.clone();
    source
        .run(&[
            format!("CREATE TABLE {id}.later (id int PRIMARY KEY, name varchar(50))"),
            format!("INSERT INTO {id}.later VALUES (1, 'a'), (2, 'b'), (3, 'c')"),
        ])
        .await;
    pipeline.config["source"]["tables"] = json!([format!("{id}.t"), format!("{id}.later")]);
    let early = pipeline.cdc(snapshot).await;
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && said.contains("run deploy first"), "{said}");
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
}

/// Waits until the later table's rows have been read: three from before, one that came as a change.
async fn has_been_read(receiver: &Receiver, later: &str, family: Option<Family>) {
    // MySQL's connector begins again at its last event, and the table's inserts came after it.
    let changes = usize::from(family.is_some());
    let read = |operations: &Vec<String>| {
        operations.last().is_some_and(|last| last == "r") && operations.len() <= 1 + changes
    };
    until("the rows that were there before have arrived", SOON, async || {
        let found: Vec<_> = (1..=4).map(|key| operations(receiver, later, key)).collect();
        check(found[..3].iter().all(read) && found[3] == ["c", "r"], found)
    })
    .await;
}

async fn a_table_that_came_later(family: Option<Family>, by_table: bool) {
    let receiver = Receiver::start().await;
    let (mut pipeline, mut source) = prepare(family, by_table).await;
    pipeline.webhook("wh", &receiver.url());
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("wh");
    let id = pipeline.id.clone();
    let (first, later) = (pipeline.topic(), format!("{id}.{id}.later"));
    until("the first table's row has arrived", SOON, async || {
        let found = operations(&receiver, &first, 1);
        check(found == ["r"], found)
    })
    .await;

    let table = format!("{id}.later");
    let snapshot = ["snapshot", "FILE", "--table", &table, "--timeout-seconds", "60"];
    grow(&mut pipeline, &mut source, &snapshot).await;
    worker.drain().await;
    let _worker = pipeline.worker("wh");
    source.run(&[format!("INSERT INTO {id}.later VALUES (4, 'd')")]).await;
    until("a change of the later table has arrived", SOON, async || {
        let found = operations(&receiver, &later, 4);
        check(found == ["c"], found)
    })
    .await;
    let said = pipeline.cdc_ok(&snapshot).await;
    assert!(said.contains("done"), "{said}");
    has_been_read(&receiver, &later, family).await;

    source.run(&[format!("UPDATE {id}.t SET name = 'last'")]).await;
    until("streaming goes on", SOON, async || {
        let found = operations(&receiver, &first, 1);
        check(found == ["r", "u"], found)
    })
    .await;
    let topics = receiver.deliveries().into_iter().map(|delivery| delivery.topic);
    let foreign: Vec<String> = topics.filter(|topic| *topic != first && *topic != later).collect();
    assert!(foreign.is_empty(), "only the tables' events are delivered: {foreign:?}");
    receiver.check_promise();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_postgres_by_kafka() {
    a_table_that_came_later(None, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_postgres_by_a_signal_table() {
    a_table_that_came_later(None, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_mysql_by_kafka() {
    a_table_that_came_later(Some(Family::Mysql), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_mysql_by_a_signal_table() {
    a_table_that_came_later(Some(Family::Mysql), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_mariadb_by_kafka() {
    a_table_that_came_later(Some(Family::Mariadb), false).await;
}
