//! The source of a comparison: where its writes are, how far Kafka has them, and its tables.

use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::{ConnectorConfig, SourceConfig, SourceType};
use cdc_shared::task::TableReport;

use super::binlog::Binlog;
use super::failure::TaskFailure;
use super::mysql::{self, MysqlRows};
use super::plan::Plan;
use super::rows::Rows;
use super::shape::{self, Shape};
use super::side::{PostgresRows, Side};
use super::slot::Slot;
use crate::sink::name::TableName;
use crate::source::probe::Probe;
use crate::task::Tell;

/// How far Kafka has what the source has written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) enum Arrival {
    /// Everything up to the position.
    Complete,
    /// Not yet, and what is known of it.
    Pending(String),
}

/// The way from the source into Kafka.
#[async_trait]
pub(in crate::sink) trait Upstream: Send + Sync {
    /// The source's write position: every change that was visible before lies below it.
    async fn take(&self, tell: &Tell) -> Result<String, TaskFailure>;

    /// Whether Kafka has everything up to it.
    async fn arrived(&self, position: &str) -> Result<Arrival, TaskFailure>;

    /// Pause between two such looks.
    fn pause(&self) -> Duration {
        LOOK
    }
}

/// A connected source.
#[derive(Debug)]
pub(in crate::sink) enum Source {
    Postgres(Side),
    Mysql(mysql::Server),
}

/// A table of it.
#[derive(Debug)]
pub(in crate::sink) struct Found {
    pub(in crate::sink) shape: Shape,
    /// Its columns' own types, where PostgreSQL's words do not say everything.
    pub(in crate::sink) types: Vec<mysql::shape::Type>,
}

impl Source {
    /// Connects.
    ///
    /// # Errors
    /// The address and what it said.
    pub(in crate::sink) async fn connect(source: &SourceConfig) -> Result<Self, TaskFailure> {
        let connected = match source.source_type {
            SourceType::Postgres => Side::source(source).await.map(Self::Postgres),
            SourceType::Mysql | SourceType::Mariadb => {
                mysql::Server::connect(source).await.map(Self::Mysql)
            }
        };
        connected.map_err(|failure| {
            failure.hint("the worker reads the source for this: it needs its address, user and password, and SELECT on the tables")
        })
    }

    /// Server and database, for messages.
    pub(in crate::sink) fn place(&self) -> &str {
        match self {
            Self::Postgres(side) => &side.place,
            Self::Mysql(server) => &server.place,
        }
    }

    /// Looks a table up. `None`: there is none of this name.
    ///
    /// # Errors
    /// It is no table, or the server does not answer.
    pub(in crate::sink) async fn find(
        &self,
        name: &TableName,
    ) -> Result<Option<Found>, TaskFailure> {
        Ok(match self {
            Self::Postgres(side) => {
                let shape = shape::find(&side.client, &side.place, name).await?;
                shape.map(|shape| Found { shape, types: Vec::new() })
            }
            Self::Mysql(server) => {
                server.find(name).await?.map(|(shape, types)| Found { shape, types })
            }
        })
    }

    /// Counts the rows of a table.
    ///
    /// # Errors
    /// The server does not answer.
    async fn count(&self, name: &TableName) -> Result<u64, TaskFailure> {
        match self {
            Self::Postgres(side) => {
                let sql = format!("SELECT count(*) FROM {name}");
                let rows = side.ask(&format!("count {name}"), &sql, &[]).await?;
                Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)) as u64)
            }
            Self::Mysql(server) => server.count(name).await,
        }
    }

    /// The report of a table whose mirror is not there: made with the first row, so it lacks what the
    /// source has.
    ///
    /// # Errors
    /// The server does not answer.
    pub(in crate::sink) async fn without_a_mirror(
        &self,
        name: &TableName,
        report: TableReport,
    ) -> Result<TableReport, TaskFailure> {
        let missing = self.count(name).await?;
        let note = format!("the mirror {} does not exist", report.mirror);
        Ok(TableReport { rows: missing, missing, notes: vec![note], ..report })
    }

    /// The rows of a table. What cannot be compared is taken out of the plan.
    ///
    /// # Errors
    /// A key whose order cannot be that of the mirror.
    pub(in crate::sink) fn rows<'s>(
        &'s self,
        found: &Found,
        mirror: &Shape,
        plan: &mut Plan,
    ) -> Result<Box<dyn Rows + 's>, TaskFailure> {
        Ok(match self {
            Self::Postgres(side) => Box::new(PostgresRows { side, plan: plan.source.clone() }),
            Self::Mysql(server) => {
                Box::new(MysqlRows::new(server, &found.shape, &found.types, mirror, plan)?)
            }
        })
    }

    /// The way from it into Kafka.
    ///
    /// # Errors
    /// Settings of Kafka Connect that cannot be used.
    pub(in crate::sink) fn upstream<'s>(
        &'s self,
        way: Way<'s>,
    ) -> Result<Box<dyn Upstream + 's>, TaskFailure> {
        Ok(match self {
            Self::Postgres(source) => Box::new(Slot {
                source,
                name: way.source.slot_name.clone(),
                message_topic: way.message_topic,
                mark: way.sink_id,
                probe: way.probe,
            }),
            Self::Mysql(server) => {
                Box::new(Binlog::new(server, way.connector, way.connector_name, way.source)?)
            }
        })
    }
}

/// What is known of the way from the source into Kafka.
pub(in crate::sink) struct Way<'s> {
    pub(in crate::sink) source: &'s SourceConfig,
    /// The topic of messages, where a mark may be written.
    pub(in crate::sink) message_topic: String,
    pub(in crate::sink) sink_id: String,
    pub(in crate::sink) probe: Probe,
    /// Kafka Connect, and the connector's name there.
    pub(in crate::sink) connector: &'s ConnectorConfig,
    pub(in crate::sink) connector_name: String,
}

/// Pause between two looks.
pub(in crate::sink) const LOOK: Duration = Duration::from_millis(100);
