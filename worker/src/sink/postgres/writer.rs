//! The writer of one partition: one open batch, one in flight.

use std::sync::Arc;

use async_trait::async_trait;
use cdc_shared::offset::{Position, TopicPartition};

use super::batch::Batch;
use super::database::Connection;
use super::error;
use super::flight::{Flight, Outcome, answer, repeat};
use super::progress::Step;
use super::target::Target;
use crate::change::{Change, Operation};
use crate::sink::retry::TroubleReporter;
use crate::sink::{Disposition, PartitionWriter, Progress, Rejection, SinkError};

/// Writes the events of one partition, each batch in one transaction with the sink's own record.
#[derive(Debug)]
pub(super) struct EventsWriter {
    target: Arc<Target>,
    tp: TopicPartition,
    /// The record as last read or written, the value of the next compare-and-set.
    expected: Position,
    open: Batch,
    /// An empty batch that keeps its memory.
    spare: Batch,
    flight: Option<Flight<Batch>>,
    trouble: TroubleReporter,
    /// The one row is a dead letter, below the record.
    is_replay: bool,
    /// Columns that the source left out; the events table has no place for their names.
    unavailable: Vec<String>,
}

impl EventsWriter {
    pub(super) fn new(
        target: Arc<Target>,
        tp: TopicPartition,
        start: Position,
        trouble: TroubleReporter,
    ) -> Self {
        Self {
            target,
            tp,
            expected: start,
            open: Batch::default(),
            spare: Batch::default(),
            flight: None,
            trouble,
            is_replay: false,
            unavailable: Vec::new(),
        }
    }

    /// For one dead letter, which `at`, the record, has passed.
    pub(super) fn replay(
        target: Arc<Target>,
        tp: TopicPartition,
        at: Position,
        trouble: TroubleReporter,
    ) -> Self {
        Self { is_replay: true, ..Self::new(target, tp, at, trouble) }
    }
}

#[async_trait]
impl PartitionWriter for EventsWriter {
    fn has_room(&self) -> bool {
        let limits = self.target.options.common.limits;
        self.open.rows() < limits.rows && self.open.bytes() < limits.bytes
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        // Kafka's own delete marker is no event; and what lies below the record is in the table.
        let is_there = !self.is_replay && change.offset < self.expected.next.get();
        if change.operation == Operation::Tombstone || is_there {
            return Ok(());
        }
        let is_jsonb = self.target.is_jsonb();
        let key = change.key_bytes.map(|_| |out: &mut Vec<u8>| change.write_key_json(out));
        let unavailable = &mut self.unavailable;
        let value = |out: &mut Vec<u8>| change.write_value_json(out, unavailable);
        self.open.push(change.offset, is_jsonb, key, value)
    }

    fn flush(&mut self, covers: Position) {
        let batch = std::mem::replace(&mut self.open, std::mem::take(&mut self.spare));
        let job = Job {
            target: self.target.clone(),
            tp: self.tp.clone(),
            expected: self.expected.clone(),
            covers: covers.clone(),
            trouble: self.trouble.clone(),
            is_replay: self.is_replay,
        };
        self.flight = Some(Flight::start(covers, async move {
            let outcome = repeat(&job.trouble, |unsure| job.attempt(&batch, unsure)).await;
            (batch, outcome)
        }));
    }

    fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    async fn progress(&mut self) -> Progress {
        let Some(flight) = self.flight.as_mut() else {
            return std::future::pending().await;
        };
        let ended = flight.ended().await;
        let covers = flight.covers.clone();
        self.flight = None;
        match ended {
            Ok((mut batch, outcome)) => {
                batch.clear(self.target.options.common.limits.bytes);
                self.spare = batch;
                answer(&mut self.expected, covers, outcome)
            }
            Err(why) => {
                let why = format!("the flush of {} ended early: {why}", self.tp);
                Progress::Fatal(error::internal(&self.target.database.options.place, &why))
            }
        }
    }

    fn settle(&mut self, _offset: i64) -> bool {
        false
    }

    fn reset(&mut self, position: Position) {
        self.flight = None;
        self.open.clear(self.target.options.common.limits.bytes);
        self.expected = position;
    }
}

/// One flush, from its first attempt to its answer.
struct Job {
    target: Arc<Target>,
    tp: TopicPartition,
    expected: Position,
    covers: Position,
    trouble: TroubleReporter,
    is_replay: bool,
}

impl Job {
    async fn attempt(&self, batch: &Batch, unsure: bool) -> Result<Outcome, SinkError> {
        let doing = format!("delivering {}", self.tp);
        let mut connection = self.target.database.connection(&doing).await?;
        let options = &self.target.options;
        let step = Step::new(&options.common, &self.tp, &self.expected, &self.covers);
        let written = match batch.offsets.last() {
            None => connection.step(&step).await,
            Some(last) => {
                let accepted = self.target.accepted(&mut connection).await?;
                let misfit = accepted.layout.misfit(&options.target, &self.tp.topic, *last);
                if let Some(misfit) = misfit {
                    return Err(self.target.database.refused(misfit));
                }
                if self.is_replay {
                    self.target.write_again(&mut connection, &accepted, &step, batch).await
                } else {
                    self.target.write(&mut connection, &accepted, &step, batch).await
                }
            }
        };
        let hit = match written {
            Ok(hit) => hit,
            Err(error) => return Err(self.explain(connection, error, batch).await),
        };
        // Missed: after a lost answer the record may be ours.
        let ours = hit || (unsure && connection.has_arrived(&self.tp, &self.covers).await?);
        Ok(if ours { Outcome::Durable } else { Outcome::Moved })
    }

    /// What a server's refusal means when the tables are looked at again.
    async fn explain(
        &self,
        mut connection: Connection<'_>,
        error: SinkError,
        batch: &Batch,
    ) -> SinkError {
        let options = &self.target.options;
        if error.code.starts_with("sqlstate_42") || error.code.starts_with("sqlstate_0A") {
            // The next attempt, or the one after an operator's resume, judges the table anew.
            self.target.forget_table();
        }
        if error.code == "sqlstate_42P01" {
            return match connection.find(&options.common.progress).await {
                // Without its record the sink has no position: the reader of it decides.
                Ok(None) => SinkError { disposition: Disposition::Moved, ..error },
                _ => error,
            };
        }
        // With upsert, or on a table that is not unique, a repeated offset is no conflict.
        if error.code == "sqlstate_23505"
            && !options.upsert
            && self.target.last_accepted().is_some_and(|t| !t.layout.identity_indexes.is_empty())
            && self.target.has_any(&mut connection, &self.tp, batch).await.unwrap_or(false)
        {
            let why = format!(
                "{} already has rows of {} at these offsets and is unique over them",
                options.target, self.tp
            );
            let cure = "set upsert: true, or delete those rows".to_owned();
            return error::refused(&options.common.place, "rows_exist", &why, cure);
        }
        error
    }
}
