//! The database behind a sink: connections, deadlines, the sink's own record.

use std::sync::Arc;
use std::time::Duration;

use cdc_shared::config::PostgresSinkConfig;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use deadpool_postgres::{Object, Pool};

use super::config::Options;
use super::name::TableName;
use super::progress::{self, Step};
use super::table::{self, Found, Refusal};
use super::{connect, error, statement};
use crate::sink::SinkError;

/// How much longer than `statement_timeout` we wait for an answer: by then the server would have
/// given up, so whoever is silent is gone.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// What all writers of a sink share.
#[derive(Debug)]
pub(super) struct Database {
    /// Settings.
    pub(super) options: Options,
    pool: Pool,
    /// The statement that moves the record alone.
    advance: String,
}

impl Database {
    /// Reads the TLS files; connects later.
    pub(super) fn new(options: Options, config: &PostgresSinkConfig) -> Result<Self, SinkError> {
        let pool = connect::pool(&options, config)?;
        let advance = statement::advance(&options);
        Ok(Self { options, pool, advance })
    }

    /// A connection; `doing` is for the message.
    pub(super) async fn connection(&self, doing: &str) -> Result<Connection<'_>, SinkError> {
        let client = self.pool.get().await;
        let client = client.map_err(|why| error::from_pool(&self.options.place, doing, why))?;
        Ok(Connection { database: self, client: Some(client), busy: false })
    }

    /// One step of a [`Connection::long`] exchange.
    pub(super) async fn in_time<T>(
        &self,
        doing: &str,
        step: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SinkError> {
        let place = &self.options.place;
        match tokio::time::timeout(self.options.statement_timeout + ANSWER_GRACE, step).await {
            Ok(answer) => answer.map_err(|why| error::from_client(place, doing, why)),
            Err(_) => Err(error::timeout(place, doing, "no answer in time")),
        }
    }

    /// A refusal as an error.
    pub(super) fn refused(&self, refusal: Refusal) -> SinkError {
        error::refused(&self.options.place, "table_refused", &refusal.why, refusal.cure)
    }
}

/// A connection that is given up when it does not answer.
pub(super) struct Connection<'d> {
    /// Where it leads.
    pub(super) database: &'d Database,
    client: Option<Object>,
    /// Whether an exchange has begun and not ended.
    busy: bool,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // An abandoned statement may still wait for a lock; nobody else should wait behind it.
        if self.busy {
            drop(self.client.take().map(Object::take));
        }
    }
}

impl Connection<'_> {
    /// Runs one exchange within the deadline. A connection that did not answer, or whose session
    /// is not what we made it, does not return to the pool.
    pub(super) async fn run<T>(
        &mut self,
        doing: &str,
        exchange: impl AsyncFnOnce(&mut Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, SinkError> {
        let options = &self.database.options;
        let place = &options.place;
        let Some(client) = self.client.as_mut() else {
            return Err(error::timeout(place, doing, "the connection was given up"));
        };
        let deadline = options.statement_timeout + ANSWER_GRACE;
        self.busy = true;
        let ended = tokio::time::timeout(deadline, exchange(client)).await;
        self.busy = false;
        let failure = match ended {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(why)) => error::from_client(place, doing, why),
            Err(_) => error::timeout(place, doing, "no answer in time"),
        };
        let keeps_session = failure.code.starts_with("sqlstate_")
            && !["sqlstate_26", "sqlstate_57P", "sqlstate_25"]
                .iter()
                .any(|lost| failure.code.starts_with(lost));
        if !keeps_session {
            drop(self.client.take().map(Object::take));
        }
        Err(failure)
    }

    /// Runs an exchange of many steps, each of which keeps its own time ([`Database::in_time`]).
    /// The connection is given up when the exchange is, and after every failure: what a half-done
    /// transaction leaves of a session is not looked into.
    pub(super) async fn long<T, E>(
        &mut self,
        exchange: impl AsyncFnOnce(&mut Object) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let client = self.client.as_mut()?;
        self.busy = true;
        let ended = exchange(client).await;
        self.busy = ended.is_err();
        Some(ended)
    }

    /// The sink's own record of a partition.
    pub(super) async fn read(
        &mut self,
        tp: &TopicPartition,
    ) -> Result<Option<Position>, SinkError> {
        let options = &self.database.options;
        let doing = format!("reading the position of {tp} in {}", options.progress);
        let read =
            self.run(&doing, async |client| progress::read(client, options, tp).await).await?;
        read.transpose().map_err(|why| {
            let cure = format!("correct the row of {tp} in {}", options.progress);
            let why = format!("{doing}: {why}");
            error::refused(&options.place, "position_unreadable", &why, cure)
        })
    }

    /// The sink's own record of a partition; a table that is gone is a record that is absent: the
    /// partition's start rule tells a first start from a loss.
    pub(super) async fn read_or_absent(
        &mut self,
        tp: &TopicPartition,
    ) -> Result<Option<Position>, SinkError> {
        let database = self.database;
        match self.read(tp).await {
            Err(error) if error.code == "sqlstate_42P01" => {
                let table = &database.options.progress;
                if self.find(table).await?.is_some() {
                    return Err(error);
                }
                tracing::warn!(table = %table, partition = %tp, at = %database.options.place,
                    "the progress table is gone");
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Replaces the record by compare-and-set; `false`: it is another by now.
    pub(super) async fn replace(
        &mut self,
        tp: &TopicPartition,
        expected: Option<&Position>,
        new: &Position,
    ) -> Result<bool, SinkError> {
        let options = &self.database.options;
        if let Some(expected) = expected {
            return self.step(&Step::new(options, tp, expected, new)).await;
        }
        let insert = async |client: &mut Object| progress::insert(client, options, tp, new).await;
        self.run(&format!("writing the position of {tp}"), insert).await
    }

    /// One move of the record alone. `false`: it missed.
    pub(super) async fn step(&mut self, step: &Step<'_>) -> Result<bool, SinkError> {
        let database = self.database;
        let parameters = step.parameters();
        let doing = format!("moving the position in {}", database.options.progress);
        let exchange = async |client: &mut Object| {
            let statement = client.prepare_cached(&database.advance).await?;
            Ok(client.execute(&statement, &parameters).await? == 1)
        };
        self.run(&doing, exchange).await
    }

    /// What a missed compare-and-set means after an attempt whose answer was lost: whether the
    /// record is what we meant to make of it.
    pub(super) async fn has_arrived(
        &mut self,
        tp: &TopicPartition,
        covers: &Position,
    ) -> Result<bool, SinkError> {
        Ok(self.read(tp).await?.is_some_and(|found| is_same(&found, covers)))
    }

    /// Looks a table up.
    pub(super) async fn find(&mut self, name: &TableName) -> Result<Option<Found>, SinkError> {
        let doing = format!("looking up table {name}");
        self.run(&doing, async |client| table::find(&***client, name).await).await
    }

    /// Asks whether records may be written: moves one that cannot exist, inserts none.
    pub(super) async fn rehearse_progress(&mut self) -> Result<(), SinkError> {
        let options = &self.database.options;
        let (tp, nowhere) = nowhere();
        self.step(&Step::new(options, &tp, &nowhere, &nowhere)).await?;
        let doing = format!("writing a position to {}", options.progress);
        self.run(&doing, async |client| progress::may_insert(client, options).await).await
    }
}

/// Whether a record is at a position.
pub(super) fn is_same(found: &Position, position: &Position) -> bool {
    found.next == position.next
        && found.incarnation == position.incarnation
        && found.topic_id == position.topic_id
}

/// A partition and a position that cannot exist, for rehearsals.
pub(super) fn nowhere() -> (TopicPartition, Position) {
    let position = Position {
        next: NextOffset::ZERO,
        incarnation: Incarnation::default(),
        topic_id: TopicId(Arc::from("")),
        schemas: SchemaIds::default(),
    };
    (TopicPartition::new("", -1), position)
}
