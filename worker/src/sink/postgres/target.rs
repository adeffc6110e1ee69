//! The database behind the sink: connections, deadlines, and what the tables were found to be.

use std::sync::Arc;
use std::time::Duration;

use cdc_shared::config::PostgresSinkConfig;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use deadpool_postgres::{Object, Pool};
use tokio::sync::watch;
use tokio_postgres::types::ToSql;

use super::batch::{Batch, IsJsonb};
use super::config::EventsOptions;
use super::progress::{self, Step};
use super::table::{Layout, Refusal};
use super::{connect, error, prove, statement};
use crate::sink::SinkError;

/// How much longer than `statement_timeout` we wait for an answer: by then the server would have
/// given up, so whoever is silent is gone.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// What all writers of the sink share.
#[derive(Debug)]
pub(super) struct Target {
    /// Settings.
    pub(super) options: EventsOptions,
    pool: Pool,
    /// The statement that moves the record alone.
    advance: String,
    /// What the events table was found to be; empty when that may have changed.
    table: watch::Sender<Option<Arc<Accepted>>>,
}

/// The events table as it was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    /// See [`Layout`].
    pub(super) layout: Layout,
    /// See [`IsJsonb`].
    is_jsonb: IsJsonb,
    /// The statement that writes a batch into it.
    pub(super) write: String,
}

impl Target {
    /// Reads settings and TLS files; connects later.
    pub(super) fn new(
        options: EventsOptions,
        config: &PostgresSinkConfig,
    ) -> Result<Self, SinkError> {
        let pool = connect::pool(&options, config)?;
        let advance = statement::advance(&options);
        Ok(Self { options, pool, advance, table: watch::Sender::new(None) })
    }

    /// A connection; `doing` is for the message.
    pub(super) async fn connection(&self, doing: &str) -> Result<Connection<'_>, SinkError> {
        let client = self.pool.get().await;
        let client = client.map_err(|why| error::from_pool(&self.options.place, doing, why))?;
        Ok(Connection { target: self, client: Some(client), busy: false })
    }

    /// The table as accepted, read again when it may have changed.
    pub(super) async fn accepted(
        &self,
        connection: &mut Connection<'_>,
    ) -> Result<Arc<Accepted>, SinkError> {
        if let Some(accepted) = self.last_accepted() {
            return Ok(accepted);
        }
        let layout = prove::look_again(connection).await?;
        Ok(self.accept(layout))
    }

    /// The table as last accepted.
    pub(super) fn last_accepted(&self) -> Option<Arc<Accepted>> {
        self.table.borrow().clone()
    }

    /// Which columns are `jsonb`; none when that is not known now (the server then refuses itself).
    pub(super) fn is_jsonb(&self) -> IsJsonb {
        self.table.borrow().as_ref().map(|table| table.is_jsonb).unwrap_or_default()
    }

    /// Takes over what the table was found to be.
    pub(super) fn accept(&self, layout: Layout) -> Arc<Accepted> {
        let write = statement::write(&self.options, &layout);
        let is_jsonb = layout.is_jsonb();
        let accepted = Arc::new(Accepted { layout, is_jsonb, write });
        self.table.send_replace(Some(accepted.clone()));
        accepted
    }

    /// The table may be another by now.
    pub(super) fn forget_table(&self) {
        self.table.send_replace(None);
    }

    /// A refusal as an error.
    pub(super) fn refused(&self, refusal: Refusal) -> SinkError {
        error::refused(&self.options.place, "table_refused", &refusal.why, refusal.cure)
    }
}

/// A connection that is given up when it does not answer.
pub(super) struct Connection<'t> {
    /// Where it leads.
    pub(super) target: &'t Target,
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
        let options = &self.target.options;
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

    /// The sink's own record of a partition.
    pub(super) async fn read(
        &mut self,
        tp: &TopicPartition,
    ) -> Result<Option<Position>, SinkError> {
        let options = &self.target.options;
        let doing = format!("reading the position of {tp} in {}", options.progress);
        let read =
            self.run(&doing, async |client| progress::read(client, options, tp).await).await?;
        read.transpose().map_err(|why| {
            let cure = format!("correct the row of {tp} in {}", options.progress);
            let why = format!("{doing}: {why}");
            error::refused(&options.place, "position_unreadable", &why, cure)
        })
    }

    /// One move of the record alone. `false`: it missed.
    pub(super) async fn step(&mut self, step: &Step<'_>) -> Result<bool, SinkError> {
        let target = self.target;
        let parameters = step.parameters();
        let doing = format!("moving the position in {}", target.options.progress);
        let exchange = async |client: &mut Object| {
            let statement = client.prepare_cached(&target.advance).await?;
            Ok(client.execute(&statement, &parameters).await? == 1)
        };
        self.run(&doing, exchange).await
    }

    /// One move of the record with the rows that belong to it. `false`: it missed, nothing was
    /// written.
    pub(super) async fn write(
        &mut self,
        accepted: &Accepted,
        step: &Step<'_>,
        batch: &Batch,
    ) -> Result<bool, SinkError> {
        let rows: [&(dyn ToSql + Sync); 3] = [&batch.keys, &batch.values, &batch.offsets];
        let parameters: Vec<_> = step.parameters().into_iter().chain(rows).collect();
        let doing = format!("writing {} rows to {}", batch.rows(), self.target.options.target);
        let exchange = async |client: &mut Object| {
            let statement = client.prepare_cached(&accepted.write).await?;
            let moved: i64 = client.query_one(&statement, &parameters).await?.try_get(0)?;
            Ok(moved == 1)
        };
        self.run(&doing, exchange).await
    }

    /// Whether the events table has a row of these offsets.
    pub(super) async fn has_any(
        &mut self,
        tp: &TopicPartition,
        batch: &Batch,
    ) -> Result<bool, SinkError> {
        let target = &self.target.options.target;
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {target} WHERE source_topic = $1::pg_catalog.text \
             AND source_partition = $2::pg_catalog.int4 \
             AND source_offset = ANY ($3::pg_catalog.int8[]))"
        );
        let topic: &str = &tp.topic;
        let exchange = async |client: &mut Object| {
            client.query_one(&sql, &[&topic, &tp.partition, &batch.offsets]).await?.try_get(0)
        };
        self.run(&format!("reading {target}"), exchange).await
    }

    /// Runs the statement that writes, for a record that cannot exist and without rows. The server
    /// plans it and checks every permission, type and constraint it needs, and nothing changes.
    pub(super) async fn rehearse(&mut self, accepted: &Accepted) -> Result<(), SinkError> {
        let tp = TopicPartition::new("", -1);
        let nowhere = Position {
            next: NextOffset::ZERO,
            incarnation: Incarnation::default(),
            topic_id: TopicId(Arc::from("")),
            schemas: SchemaIds::default(),
        };
        let options = &self.target.options;
        let step = Step::new(options, &tp, &nowhere, &nowhere);
        self.write(accepted, &step, &Batch::default()).await?;
        let doing = format!("writing a position to {}", options.progress);
        self.run(&doing, async |client| progress::may_insert(client, options).await).await
    }
}
