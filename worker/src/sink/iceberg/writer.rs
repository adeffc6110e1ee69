//! The writer of one partition: rows that are open, and one flush under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cdc_iceberg::{Layout, Outcome, Part, Rows};
use cdc_shared::avro::{Plan, Value};
use cdc_shared::envelope::Envelope;
use cdc_shared::offset::{Position, TopicPartition};
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::committer::{Answer, Committer, Member, Submission};
use super::error;
use crate::change::Change;
use crate::sink::retry::TroubleReporter;
use crate::sink::{PartitionWriter, Progress, Rejection, SinkError};

/// See the module.
#[derive(Debug)]
pub(super) struct AppendWriter {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
    member: Arc<Member>,
    tp: TopicPartition,
    /// What the table holds of the partition, as last read or written.
    expected: Position,
    rows: Rows,
    /// Rows that are open.
    open: usize,
    /// The layout of the latest rows.
    layout: Option<Arc<Layout>>,
    flight: Option<Flight>,
    rounds: watch::Receiver<u64>,
    /// The newest round that we were in or had nothing for.
    joined: u64,
    trouble: TroubleReporter,
}

/// A flush under way. Dropping it abandons it: where that comes too late, the compare-and-set of
/// whatever follows tells.
#[derive(Debug)]
struct Flight {
    covers: Position,
    abandoned: Arc<AtomicBool>,
    answer: Pending,
}

#[derive(Debug)]
enum Pending {
    Waits(oneshot::Receiver<Answer>),
    /// There was nothing to commit.
    Done,
    Failed(Option<SinkError>),
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Release);
    }
}

impl AppendWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        committer: Arc<Committer>,
        tp: TopicPartition,
        start: Position,
        trouble: TroubleReporter,
    ) -> Self {
        let rounds = committer.rounds();
        let joined = *rounds.borrow();
        Self {
            shared,
            member: committer.join(),
            committer,
            rows: Rows::new(tp.topic.clone(), tp.partition),
            tp,
            expected: start,
            open: 0,
            layout: None,
            flight: None,
            rounds,
            joined,
            trouble,
        }
    }

    /// The layout of an event, made when its schemas are new.
    fn layout(
        &mut self,
        envelope: &Envelope<'_, '_>,
        key: Option<Value<'_, '_>>,
    ) -> Result<Arc<Layout>, Rejection> {
        let key = key.map(|key| key.plan());
        let ids = (envelope.record().plan().schema_id(), key.map(Plan::schema_id));
        if let Some(layout) = &self.layout
            && layout.ids == ids
        {
            return Ok(layout.clone());
        }
        let layout = Layout::of(envelope, key, self.shared.types)
            .map_err(|why| Rejection::stop(why.code, why.message, why.way_out))?;
        let layout = Arc::new(layout);
        self.layout = Some(layout.clone());
        Ok(layout)
    }

    fn close(&mut self) {
        self.committer.closed(&self.member, self.open);
        self.open = 0;
    }

    fn submit(&mut self, covers: &Position, abandoned: &Arc<AtomicBool>) -> Pending {
        let segments = match self.rows.finish() {
            Ok(segments) => segments.into_iter().map(Arc::new).collect::<Vec<_>>(),
            Err(why) => {
                let doing = format!("flushing {}", self.tp);
                return Pending::Failed(Some(error::sink_error(&doing, why)));
            }
        };
        if segments.is_empty() && covers.next == self.expected.next {
            return Pending::Done;
        }
        let (reply, answer) = oneshot::channel();
        self.committer.submit(Submission {
            part: Part {
                tp: self.tp.clone(),
                expected: self.expected.clone(),
                covers: covers.clone(),
                segments,
                abandoned: abandoned.clone(),
            },
            retrier: self.trouble.retrier(),
            reply,
        });
        Pending::Waits(answer)
    }

    fn answered(&mut self, covers: Position, outcome: Result<Outcome, SinkError>) -> Progress {
        match outcome {
            Ok(Outcome::Durable) => {
                let next = covers.next;
                self.expected = covers;
                Progress::Durable(next)
            }
            // Abandoned by us it is not listened to; if it is, the table knows more.
            Ok(Outcome::Moved | Outcome::Abandoned | Outcome::Refused(_)) => Progress::Moved,
            Err(error) => error.into(),
        }
    }

    /// Waits until a round asks for what is open.
    async fn wanted(&mut self) -> Progress {
        loop {
            let round = *self.rounds.borrow_and_update();
            if round > self.joined {
                self.joined = round;
                return Progress::Wanted;
            }
            if self.rounds.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[async_trait]
impl PartitionWriter for AppendWriter {
    fn has_room(&self) -> bool {
        true
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        // Kafka's own delete marker is no change; and what lies below the position is in the table.
        let Some(envelope) = &change.envelope else { return Ok(()) };
        if change.offset < self.expected.next.get() {
            return Ok(());
        }
        let layout = self.layout(envelope, change.key)?;
        let placeholder = &self.shared.placeholder;
        self.rows
            .push(&layout, change.offset, envelope, change.key, placeholder)
            .map_err(|why| Rejection::new(why.code, why.to_string()))?;
        self.open += 1;
        self.committer.opened(&self.member);
        Ok(())
    }

    fn flush(&mut self, covers: Position) {
        let abandoned = Arc::new(AtomicBool::new(false));
        let answer = self.submit(&covers, &abandoned);
        // After the submission, so that a round waits for it.
        self.close();
        self.flight = Some(Flight { covers, abandoned, answer });
    }

    fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    async fn progress(&mut self) -> Progress {
        let Some(flight) = self.flight.as_mut() else { return self.wanted().await };
        let answer = match &mut flight.answer {
            Pending::Waits(answer) => answer.await.map_err(|_| None),
            Pending::Done => Ok(Answer { round: 0, outcome: Ok(Outcome::Durable) }),
            Pending::Failed(error) => Err(error.take()),
        };
        let covers = flight.covers.clone();
        self.flight = None;
        match answer {
            Ok(Answer { round, outcome }) => {
                self.joined = self.joined.max(round);
                self.answered(covers, outcome)
            }
            Err(error) => Progress::Fatal(error.unwrap_or_else(|| {
                error::internal(format!("the flush of {} ended without an answer", self.tp))
            })),
        }
    }

    fn settle(&mut self, _offset: i64) -> bool {
        false
    }

    fn reset(&mut self, position: Position) {
        self.flight = None;
        self.rows.clear();
        self.close();
        self.expected = position;
    }
}

impl Drop for AppendWriter {
    fn drop(&mut self) {
        self.close();
    }
}
