//! The `postgres` sink in `write_mode: events`: one row per event, exactly once.
//!
//! A batch and the sink's own record of its progress are one transaction, guarded by a
//! compare-and-set on that record (`statement.rs`); so whatever is repeated, by us after a lost
//! answer or by a second live copy of this worker, has no second effect.
//!
//! What is stored: `event_key` and `event_value` are the JSON that every sink shares; the key is
//! NULL for a record without one. The value's column is created as `jsonb`, which keeps every
//! digit of a number but not the order of fields, and cannot hold a NUL character inside a text:
//! such a record is rejected by name; a `text` or `json` column of your own takes it. Tombstones
//! are no events and leave no row. With `upsert` a row that is already there (after a rewind) is
//! replaced; without it every delivery appends, and a table created for it is not unique.
//!
//! PostgreSQL 12 or later.

mod batch;
mod config;
mod connect;
mod database;
mod error;
mod flight;
mod progress;
mod prove;
pub mod replica;
mod statement;
mod table;
mod target;
pub mod verify;
mod writer;

pub use self::replica::PostgresReplica;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cdc_shared::config::PostgresSinkConfig;
use cdc_shared::offset::{Position, TopicPartition};

use self::config::EventsOptions;
use self::target::Target;
use self::writer::EventsWriter;
use super::{BatchLimits, PartitionWriter, Sink, SinkError, name, retry};

/// The events sink; see the module.
#[derive(Debug)]
pub struct PostgresEvents {
    target: Arc<Target>,
    /// Whether the sink was proven once. From then on a missing table is never created again.
    proven: AtomicBool,
}

impl PostgresEvents {
    /// Reads the settings and the TLS files. Connects later, in [`Sink::prove`].
    ///
    /// # Errors
    /// A table name or TLS file that cannot be used ([`super::Disposition::Fatal`]).
    pub fn new(
        pipeline_id: &str,
        sink_id: &str,
        config: &PostgresSinkConfig,
    ) -> Result<Self, SinkError> {
        let options = EventsOptions::new(pipeline_id, sink_id, config)?;
        let target = Arc::new(Target::new(options, config)?);
        Ok(Self { target, proven: AtomicBool::new(false) })
    }
}

/// Whether rows of the same topic come again.
fn goes_back(expected: &Position, new: &Position) -> bool {
    new.topic_id == expected.topic_id && new.next < expected.next
}

#[async_trait]
impl Sink for PostgresEvents {
    async fn prove(&self) -> Result<(), SinkError> {
        let may_create = !self.proven.load(Ordering::Acquire);
        prove::prove(&self.target, may_create).await?;
        self.proven.store(true, Ordering::Release);
        Ok(())
    }

    fn keeps_position(&self) -> bool {
        true
    }

    async fn read_position(&self, tp: &TopicPartition) -> Result<Option<Position>, SinkError> {
        let doing = format!("reading the position of {tp}");
        self.target.database.connection(&doing).await?.read_or_absent(tp).await
    }

    async fn replace_position(
        &self,
        tp: &TopicPartition,
        expected: Option<&Position>,
        new: &Position,
    ) -> Result<bool, SinkError> {
        let doing = format!("writing the position of {tp}");
        let mut connection = self.target.database.connection(&doing).await?;
        match expected {
            Some(expected) if goes_back(expected, new) && !self.target.options.upsert => {
                self.target.take_back(&mut connection, tp, expected, new).await
            }
            _ => connection.replace(tp, expected, new).await,
        }
    }

    fn writer(
        &self,
        tp: TopicPartition,
        start: Position,
        trouble: retry::TroubleReporter,
    ) -> Box<dyn PartitionWriter> {
        Box::new(EventsWriter::new(self.target.clone(), tp, start, trouble))
    }

    fn replay(
        &self,
        tp: TopicPartition,
        at: &Position,
        _offset: i64,
        trouble: retry::TroubleReporter,
    ) -> Option<Box<dyn PartitionWriter>> {
        Some(Box::new(EventsWriter::replay(self.target.clone(), tp, at.clone(), trouble)))
    }

    fn batch_limits(&self) -> BatchLimits {
        self.target.options.common.limits
    }
}
