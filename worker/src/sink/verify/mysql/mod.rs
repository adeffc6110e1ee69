//! MySQL and MariaDB as the source: rows are read, written as PostgreSQL would write them, and hashed
//! here as the mirror's are there.

mod documents;

mod json;
mod plan;
pub(in crate::sink) mod shape;
mod text;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::SourceConfig;
use cdc_shared::mysql::{describe, quoted};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Value};
use tokio::sync::Mutex;

pub(in crate::sink) use self::documents::Documents;
#[cfg(feature = "iceberg")]
pub(in crate::sink) use self::json::normal as normal_json;
use self::plan::{Condition, TablePlan};
#[cfg(feature = "iceberg")]
pub(in crate::sink) use self::text::geometry;
use super::failure::TaskFailure;
use super::hash::{hash, row_text};
use super::plan::Plan;
use super::query::{Key, Range};
use super::rows::{Chunk, Look, Rows, Version};
use super::shape::Shape;
use crate::sink::name::TableName;

/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Keys that are looked up in one statement.
const AT_ONCE: usize = 500;

/// The server does not know the statement.
const SYNTAX: u16 = 1064;

/// Whatever decides how a value is read, and what a session may do.
const SESSION: &[&str] = &[
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = ''",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION lock_wait_timeout = 10",
];

/// An event of the binlog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Event {
    /// Where it begins.
    pub(in crate::sink) at: u64,
    /// `Table_map`, `Query`, …
    pub(in crate::sink) kind: String,
    /// What the server says of it.
    pub(in crate::sink) info: String,
}

/// A connected server.
#[derive(Debug)]
pub(in crate::sink) struct Server {
    connection: Mutex<Conn>,
    /// Server and database, for messages.
    pub(in crate::sink) place: String,
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// The address and what it said.
    pub(in crate::sink) async fn connect(source: &SourceConfig) -> Result<Self, TaskFailure> {
        let place = format!("source {}:{}/{}", source.host, source.port, source.database);
        let mut connection = cdc_shared::mysql::connect(source, CONNECT)
            .await
            .map_err(|error| TaskFailure::failed(format!("connect to {place}: {error}")))?;
        for statement in SESSION {
            let set = connection.query_drop(*statement).await;
            set.map_err(|error| database(&place, "set up the session", &error))?;
        }
        Ok(Self { connection: Mutex::new(connection), place })
    }

    /// File and offset of the binlog, which has another name from MySQL 8.2 on.
    pub(in crate::sink) async fn binlog_status(&self) -> Result<Option<Row>, TaskFailure> {
        let mut connection = self.connection.lock().await;
        let mut answer = connection.query_first("SHOW MASTER STATUS").await;
        if let Err(Error::Server(error)) = &answer
            && error.code == SYNTAX
        {
            answer = connection.query_first("SHOW BINARY LOG STATUS").await;
        }
        answer.map_err(|error| database(&self.place, "take the position", &error))
    }

    /// The events of a binlog file from an offset on, at most `limit`; `None` where the server does
    /// not show them.
    pub(in crate::sink) async fn binlog_events(
        &self,
        file: &str,
        from: u64,
        limit: usize,
    ) -> Result<Option<Vec<Event>>, TaskFailure> {
        let file = file.replace(['\\', '\''], "");
        let sql = format!("SHOW BINLOG EVENTS IN '{file}' FROM {from} LIMIT {limit}");
        let answer: Result<Vec<Row>, Error> = self.connection.lock().await.query(sql).await;
        let rows = match answer {
            Ok(rows) => rows,
            // A file that is gone, or a right that is missing.
            Err(Error::Server(_)) => return Ok(None),
            Err(error) => return Err(database(&self.place, "look at the binlog", &error)),
        };
        let event = |row: &Row| {
            Some(Event { at: row.get(1)?, kind: row.get(2)?, info: row.get(5).unwrap_or_default() })
        };
        Ok(rows.iter().map(event).collect())
    }

    /// The first row of an answer.
    pub(in crate::sink) async fn ask(
        &self,
        doing: &str,
        sql: &str,
        parameters: Vec<Value>,
    ) -> Result<Option<Row>, TaskFailure> {
        let mut connection = self.connection.lock().await;
        let answer = connection.exec_first(sql, params(parameters)).await;
        answer.map_err(|error| database(&self.place, doing, &error))
    }

    /// Looks a table up.
    ///
    /// # Errors
    /// The server does not answer.
    pub(in crate::sink) async fn find(
        &self,
        name: &TableName,
    ) -> Result<Option<(Shape, Vec<shape::Type>)>, TaskFailure> {
        let mut connection = self.connection.lock().await;
        let found = shape::find(&mut connection, name).await;
        found.map_err(|error| {
            database(&self.place, &format!("look up table {}", readable(name)), &error)
        })
    }

    /// Counts the rows of a table.
    ///
    /// # Errors
    /// The server does not answer.
    pub(in crate::sink) async fn count(&self, name: &TableName) -> Result<u64, TaskFailure> {
        let sql = format!("SELECT COUNT(*) FROM {}", quoted_name(name));
        let row = self.ask(&format!("count {}", readable(name)), &sql, Vec::new()).await?;
        Ok(row.and_then(|row| row.get(0)).unwrap_or(0))
    }
}

fn quoted_name(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.table))
}

fn readable(name: &TableName) -> String {
    format!("{}.{}", name.schema, name.table)
}

fn params(values: Vec<Value>) -> Params {
    if values.is_empty() { Params::Empty } else { Params::Positional(values) }
}

/// An answer that is none.
fn database(place: &str, doing: &str, error: &Error) -> TaskFailure {
    let failure = TaskFailure::failed(format!("{doing} at {place}: {}", describe(error)));
    match error {
        // Command, table and column denied.
        Error::Server(server) if matches!(server.code, 1142 | 1143) => {
            failure.hint("grant the user SELECT on the table")
        }
        _ => failure,
    }
}

/// A table that is compared.
pub(in crate::sink) struct MysqlRows<'s> {
    server: &'s Server,
    plan: TablePlan,
}

/// A row as it was read.
struct Read {
    key: Key,
    cells: Vec<Option<String>>,
}

impl<'s> MysqlRows<'s> {
    /// Decides how the table is read; what cannot be compared is taken out of `plan`.
    ///
    /// # Errors
    /// A key whose order cannot be that of the mirror.
    pub(in crate::sink) fn new(
        server: &'s Server,
        shape: &Shape,
        types: &[shape::Type],
        mirror: &Shape,
        plan: &mut Plan,
    ) -> Result<Self, TaskFailure> {
        let plan = TablePlan::new(shape, types, mirror, plan)?;
        Ok(Self { server, plan })
    }

    /// Gives each row of an answer.
    async fn each(
        &self,
        condition: Condition,
        mut take: impl FnMut(Read) + Send,
    ) -> Result<(), TaskFailure> {
        let doing = format!("read {}", self.plan.table);
        let failed = |error: &Error| database(&self.server.place, &doing, error);
        let mut connection = self.server.connection.lock().await;
        let Condition { sql, values } = condition;
        let answer = connection.exec_iter(sql, params(values)).await;
        let mut answer = answer.map_err(|error| failed(&error))?;
        while let Some(row) = answer.next().await.map_err(|error| failed(&error))? {
            take(self.read(&row)?);
        }
        Ok(())
    }

    fn read(&self, row: &Row) -> Result<Read, TaskFailure> {
        let text = |at: usize, column: &str, form: text::Form| {
            form.text(row.as_ref(at).unwrap_or(&Value::NULL)).map_err(|_| {
                let table = &self.plan.table;
                TaskFailure::failed(format!(
                    "column {column} of {table} has a value of another kind than its type says"
                ))
            })
        };
        let keys = self.plan.key.iter().enumerate();
        let key = keys
            .map(|(at, part)| text(at, &part.column, part.form).map(Option::unwrap_or_default))
            .collect::<Result<_, _>>()?;
        let columns = self.plan.columns.iter().enumerate();
        let first = self.plan.key.len();
        let cells = columns
            .map(|(at, (column, form))| text(first + at, column, *form))
            .collect::<Result<_, _>>()?;
        Ok(Read { key, cells })
    }

    /// The rows of some keys, by their key's place.
    async fn of_keys<T: Send>(
        &self,
        keys: &[&Key],
        make: impl Fn(Vec<Option<String>>) -> T + Send + Sync,
    ) -> Result<HashMap<usize, T>, TaskFailure> {
        let places: HashMap<&Key, usize> =
            keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        let mut found = HashMap::new();
        for part in keys.chunks(AT_ONCE) {
            let condition = self.plan.looked_up(part)?;
            self.each(condition, |row| {
                // Another key that the server takes for the same text is none of ours.
                if let Some(place) = places.get(&row.key) {
                    found.insert(*place, make(row.cells));
                }
            })
            .await?;
        }
        Ok(found)
    }
}

#[async_trait]
impl Rows for MysqlRows<'_> {
    async fn chunk(&self, range: &Range<'_>, limit: usize) -> Result<Chunk, TaskFailure> {
        let (mut rows, mut sum, mut last) = (0, 0_i128, None);
        let condition = self.plan.range(range.after, range.to, limit)?;
        self.each(condition, |row| {
            rows += 1;
            sum += i128::from(hash(row_text(&row.cells).as_bytes()));
            last = Some(row.key);
        })
        .await?;
        Ok(Chunk { rows, hash: sum.to_string(), last })
    }

    async fn rows(&self, range: &Range<'_>, limit: usize) -> Result<Vec<(Key, i64)>, TaskFailure> {
        let mut rows = Vec::new();
        let condition = self.plan.range(range.after, range.to, limit)?;
        self.each(condition, |row| rows.push((row.key, hash(row_text(&row.cells).as_bytes()))))
            .await?;
        Ok(rows)
    }
}

#[async_trait]
impl Look for MysqlRows<'_> {
    async fn look_up(&self, keys: &[&Key]) -> Result<HashMap<usize, Version>, TaskFailure> {
        self.of_keys(keys, |cells| version(hash(row_text(&cells).as_bytes()).to_string(), &cells))
            .await
    }

    async fn values(
        &self,
        keys: &[&Key],
        longest: usize,
    ) -> Result<HashMap<usize, Vec<Option<String>>>, TaskFailure> {
        self.of_keys(keys, |cells| cut(cells, longest)).await
    }

    /// These servers tell no version of a row.
    fn looks(&self) -> u8 {
        LOOKS
    }
}

/// A row as it was looked up.
fn version(version: String, cells: &[Option<String>]) -> Version {
    let of = |cell: &Option<String>| cell.as_ref().map(|text| hash(text.as_bytes()));
    Version { version, cells: cells.iter().map(of).collect(), copies: 1, unknown: Vec::new() }
}

/// The texts, each with so many characters at most.
fn cut(cells: Vec<Option<String>>, longest: usize) -> Vec<Option<String>> {
    let short = |text: String| text.chars().take(longest).collect();
    cells.into_iter().map(|cell| cell.map(short)).collect()
}

/// Looks in a row at which a row must have been the same to count as unwritten: see `settle`.
const LOOKS: u8 = 3;
