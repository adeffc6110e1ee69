//! The writer of one partition: one open batch, one in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cdc_shared::offset::{Position, TopicPartition};
use tokio::task::JoinHandle;

use super::batch::Batch;
use super::progress::Step;
use super::target::{Connection, Target};
use super::{error, prove};
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
    flight: Option<Flight>,
    trouble: TroubleReporter,
    /// Columns that the source left out; the events table has no place for their names.
    unavailable: Vec<String>,
}

/// A flush under way. Dropping it abandons it; the compare-and-set makes that safe.
#[derive(Debug)]
struct Flight {
    covers: Position,
    task: JoinHandle<(Batch, Result<Outcome, SinkError>)>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of a flush that was not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Durable,
    Moved,
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
            unavailable: Vec::new(),
        }
    }

    fn answer(&mut self, covers: Position, outcome: Result<Outcome, SinkError>) -> Progress {
        match outcome {
            Ok(Outcome::Durable) => {
                let next = covers.next;
                self.expected = covers;
                Progress::Durable(next)
            }
            Ok(Outcome::Moved) => Progress::Moved,
            Err(error) => match error.disposition {
                Disposition::Reject => Progress::Rejected { offset: None, error },
                Disposition::Moved => Progress::Moved,
                Disposition::Stop => Progress::Stop(error),
                // Retries never leave the retrier.
                Disposition::Retry(_) | Disposition::Fatal => Progress::Fatal(error),
            },
        }
    }
}

#[async_trait]
impl PartitionWriter for EventsWriter {
    fn has_room(&self) -> bool {
        let limits = self.target.options.limits;
        self.open.rows() < limits.rows && self.open.bytes() < limits.bytes
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        // Kafka's own delete marker is no event; and what lies below the record is in the table.
        if change.operation == Operation::Tombstone || change.offset < self.expected.next.get() {
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
        };
        let task = tokio::spawn(async move {
            let outcome = job.run(&batch).await;
            (batch, outcome)
        });
        self.flight = Some(Flight { covers, task });
    }

    fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    async fn progress(&mut self) -> Progress {
        let Some(flight) = self.flight.as_mut() else {
            return std::future::pending().await;
        };
        let ended = (&mut flight.task).await;
        let covers = flight.covers.clone();
        self.flight = None;
        match ended {
            Ok((mut batch, outcome)) => {
                batch.clear(self.target.options.limits.bytes);
                self.spare = batch;
                self.answer(covers, outcome)
            }
            Err(why) => {
                let why = format!("the flush of {} ended early: {why}", self.tp);
                Progress::Fatal(error::internal(&self.target.options.place, &why))
            }
        }
    }

    fn settle(&mut self, _offset: i64) -> bool {
        false
    }

    fn reset(&mut self, position: Position) {
        self.flight = None;
        self.open.clear(self.target.options.limits.bytes);
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
}

impl Job {
    async fn run(&self, batch: &Batch) -> Result<Outcome, SinkError> {
        // Whether an earlier attempt may have been taken though its answer was lost.
        let unsure = AtomicBool::new(false);
        let attempt = || async {
            let outcome = self.attempt(batch, unsure.load(Ordering::Relaxed)).await;
            unsure.fetch_or(outcome.is_err(), Ordering::Relaxed);
            outcome
        };
        self.trouble.retrier().run(attempt).await
    }

    async fn attempt(&self, batch: &Batch, unsure: bool) -> Result<Outcome, SinkError> {
        let mut connection = self.target.connection(&format!("delivering {}", self.tp)).await?;
        let options = &self.target.options;
        let step = Step::new(options, &self.tp, &self.expected, &self.covers);
        let written = match batch.offsets.last() {
            None => connection.step(&step).await,
            Some(last) => {
                let accepted = self.target.accepted(&mut connection).await?;
                let misfit = accepted.layout.misfit(&options.target, &self.tp.topic, *last);
                if let Some(misfit) = misfit {
                    return Err(self.target.refused(misfit));
                }
                connection.write(&accepted, &step, batch).await
            }
        };
        let hit = match written {
            Ok(hit) => hit,
            Err(error) => return Err(self.explain(connection, error, batch).await),
        };
        if hit {
            return Ok(Outcome::Durable);
        }
        // Missed. After a lost answer the record may be ours.
        if unsure && let Some(found) = connection.read(&self.tp).await? {
            let ours = found.next == self.covers.next
                && found.incarnation == self.covers.incarnation
                && found.topic_id == self.covers.topic_id;
            if ours {
                return Ok(Outcome::Durable);
            }
        }
        Ok(Outcome::Moved)
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
            return match prove::find(&mut connection, &options.progress).await {
                // Without its record the sink has no position: the reader of it decides.
                Ok(None) => SinkError { disposition: Disposition::Moved, ..error },
                _ => error,
            };
        }
        // With upsert, or on a table that is not unique, a repeated offset is no conflict.
        if error.code == "sqlstate_23505"
            && !options.upsert
            && self.target.last_accepted().is_some_and(|t| !t.layout.identity_indexes.is_empty())
            && connection.has_any(&self.tp, batch).await.unwrap_or(false)
        {
            let why = format!(
                "{} already has rows of {} at these offsets and is unique over them",
                options.target, self.tp
            );
            let cure = "set upsert: true, or delete those rows".to_owned();
            return error::refused(&options.place, "rows_exist", &why, cure);
        }
        error
    }
}
