//! The events table as it was found, and the statements against it.

use std::sync::Arc;

use cdc_shared::config::PostgresSinkConfig;
use cdc_shared::offset::{Position, TopicPartition};
use deadpool_postgres::Object;
use tokio::sync::watch;
use tokio_postgres::types::ToSql;

use super::batch::{Batch, IsJsonb};
use super::config::EventsOptions;
use super::database::{Connection, Database, nowhere};
use super::progress::Step;
use super::table::Layout;
use super::{error, prove, statement};
use crate::sink::SinkError;

/// What all writers of the sink share.
#[derive(Debug)]
pub(super) struct Target {
    /// Settings.
    pub(super) options: EventsOptions,
    /// Connections.
    pub(super) database: Database,
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
        let database = Database::new(options.common.clone(), config)?;
        Ok(Self { options, database, table: watch::Sender::new(None) })
    }

    /// The table as accepted, read again when it may have changed.
    pub(super) async fn accepted(
        &self,
        connection: &mut Connection<'_>,
    ) -> Result<Arc<Accepted>, SinkError> {
        if let Some(accepted) = self.last_accepted() {
            return Ok(accepted);
        }
        let layout = prove::look_again(self, connection).await?;
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

    /// One move of the record with the rows that belong to it. `false`: it missed, nothing was
    /// written.
    pub(super) async fn write(
        &self,
        connection: &mut Connection<'_>,
        accepted: &Accepted,
        step: &Step<'_>,
        batch: &Batch,
    ) -> Result<bool, SinkError> {
        let rows: [&(dyn ToSql + Sync); 3] = [&batch.keys, &batch.values, &batch.offsets];
        let parameters: Vec<_> = step.parameters().into_iter().chain(rows).collect();
        let doing = format!("writing {} rows to {}", batch.rows(), self.options.target);
        let exchange = async |client: &mut Object| {
            let statement = client.prepare_cached(&accepted.write).await?;
            let moved: i64 = client.query_one(&statement, &parameters).await?.try_get(0)?;
            Ok(moved == 1)
        };
        connection.run(&doing, exchange).await
    }

    /// The rows that are not there, while the record is what it is expected to be, and stays so.
    /// `false`: it is not, nothing was written.
    pub(super) async fn write_again(
        &self,
        connection: &mut Connection<'_>,
        accepted: &Accepted,
        step: &Step<'_>,
        batch: &Batch,
    ) -> Result<bool, SinkError> {
        let (hold, write) = (
            statement::hold(&self.options.common),
            statement::write_again(&self.options, &accepted.layout),
        );
        let [_, _, topic, partition, ..] = step.expectation();
        let parameters: [&(dyn ToSql + Sync); 5] =
            [topic, partition, &batch.keys, &batch.values, &batch.offsets];
        let doing = format!("writing a dead letter to {}", self.options.target);
        let exchange = async |client: &mut Object| {
            let transaction = client.transaction().await?;
            if transaction.query_opt(&hold, &step.expectation()).await?.is_none() {
                transaction.rollback().await?;
                return Ok(false);
            }
            transaction.execute(&write, &parameters).await?;
            transaction.commit().await?;
            Ok(true)
        };
        connection.run(&doing, exchange).await
    }

    /// Takes the record back, and removes the rows that come again in the same transaction.
    /// `false`: the record is another, and nothing was done.
    pub(super) async fn take_back(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        expected: &Position,
        new: &Position,
    ) -> Result<bool, SinkError> {
        let (options, target) = (&self.options.common, &self.options.target);
        let step = Step::new(options, tp, expected, new);
        let advance = statement::advance(options);
        let rows = format!(
            "FROM {target} WHERE source_topic = $1::pg_catalog.text \
             AND source_partition = $2::pg_catalog.int4 AND source_offset >= $3 \
             AND source_offset < $4"
        );
        let ambiguous = format!(
            "SELECT pg_catalog.count(*) <> pg_catalog.count(DISTINCT source_offset) {rows}"
        );
        let topic: &str = &tp.topic;
        let (from, to) = (new.next.get(), expected.next.get());
        let range: [&(dyn ToSql + Sync); 4] = [&topic, &tp.partition, &from, &to];
        let exchange = async |client: &mut Object| {
            let transaction = client.transaction().await?;
            if transaction.execute(&advance, &step.parameters()).await? != 1 {
                transaction.rollback().await?;
                return Ok(Some(false));
            }
            if transaction.query_one(&ambiguous, &range).await?.try_get(0)? {
                transaction.rollback().await?;
                return Ok(None);
            }
            transaction.execute(&format!("DELETE {rows}"), &range).await?;
            transaction.commit().await?;
            Ok(Some(true))
        };
        let doing = format!("removing rows of {tp} from offset {from} on from {target}");
        connection.run(&doing, exchange).await?.ok_or_else(|| {
            let why = format!(
                "{target} has several rows of one offset of {tp} between {from} and {to}: of a \
                 former topic of that name, which nothing brings again?"
            );
            let cure = "remove those that are to come again, or move the others away; then the \
                        sink goes back by itself"
                .to_owned();
            error::refused(&options.place, "rows_ambiguous", &why, cure)
        })
    }

    /// Whether the events table has a row of these offsets.
    pub(super) async fn has_any(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        batch: &Batch,
    ) -> Result<bool, SinkError> {
        let target = &self.options.target;
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {target} WHERE source_topic = $1::pg_catalog.text \
             AND source_partition = $2::pg_catalog.int4 \
             AND source_offset = ANY ($3::pg_catalog.int8[]))"
        );
        let topic: &str = &tp.topic;
        let exchange = async |client: &mut Object| {
            client.query_one(&sql, &[&topic, &tp.partition, &batch.offsets]).await?.try_get(0)
        };
        connection.run(&format!("reading {target}"), exchange).await
    }

    /// Runs the statement that writes, for a record that cannot exist and without rows. The server
    /// plans it and checks every permission, type and constraint it needs, and nothing changes.
    pub(super) async fn rehearse(
        &self,
        connection: &mut Connection<'_>,
        accepted: &Accepted,
    ) -> Result<(), SinkError> {
        let (tp, nowhere) = nowhere();
        let step = Step::new(&self.options.common, &tp, &nowhere, &nowhere);
        self.write(connection, accepted, &step, &Batch::default()).await?;
        connection.rehearse_progress().await
    }
}
