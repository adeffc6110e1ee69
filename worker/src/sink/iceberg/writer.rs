//! The writer of one partition: rows that are open, and one flush under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cdc_iceberg::{
    Half, KeyedPart, LakeTable, Layout, Move, Outcome, Part, PartitionIndex, RawKey, Rows, Segment,
};
use cdc_shared::avro::{Plan, Value};
use cdc_shared::config::{IcebergWriteMode as WriteMode, TruncateHandling};
use cdc_shared::envelope::Envelope;
use cdc_shared::offset::{Position, TopicPartition};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::Shared;
use super::committer::{self, Answer, Committer, Failure, Member, Submission};
use super::error;
use crate::change::{Change, KeyChange, Operation};
use crate::sink::retry::TroubleReporter;
use crate::sink::{PartitionWriter, Progress, Rejection, SinkError};

/// How long a flush pauses whose next row waits for another partition, at first and at most.
/// Each try asks the other partitions of this worker for what they have, so later ones are rare.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));
/// How long it waits before it says so.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// How often the index of rows is looked at, whether it is to be saved.
const SAVES: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct LakeWriter {
    shared: Arc<Shared>,
    table: Arc<LakeTable>,
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
    /// Where rows are that are kept by key.
    index: Option<Arc<PartitionIndex>>,
    /// When it was last looked at whether to save it.
    saved: Instant,
    /// Partitions of the topic; 0: not known.
    partitions: i32,
    /// Of rows kept by key: the keys of the open ones as they came, and records that were given up.
    keys: Vec<RawKey>,
    given_up: Vec<(i64, Option<RawKey>)>,
    /// The one row is a dead letter, the record at this offset, which the position has passed.
    letter: Option<i64>,
}

/// A flush under way. Dropping it abandons it: where that comes too late, the compare-and-set of
/// whatever follows tells.
#[derive(Debug)]
struct Flight {
    covers: Position,
    abandoned: Arc<AtomicBool>,
    answer: Pending,
    segments: Vec<Arc<Segment>>,
    keys: Arc<Vec<RawKey>>,
    given_up: Arc<Vec<(i64, Option<RawKey>)>>,
    /// Rows at the front that are in the table.
    done: usize,
    /// Since when nothing more came to be in the table.
    waiting: Option<Instant>,
}

#[derive(Debug)]
enum Pending {
    Waits(oneshot::Receiver<Answer>),
    /// There was nothing to commit.
    Done,
    Failed(Option<SinkError>),
    /// Its next row waits for another partition: tried again then.
    Later(Instant),
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Release);
    }
}

impl LakeWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        table: Arc<LakeTable>,
        committer: Arc<Committer>,
        tp: TopicPartition,
        start: Position,
        trouble: TroubleReporter,
    ) -> Self {
        let rounds = committer.rounds();
        let joined = *rounds.borrow();
        Self {
            index: (shared.mode == WriteMode::Upsert)
                .then(|| Arc::new(PartitionIndex::new(tp.clone()))),
            saved: Instant::now(),
            partitions: 0,
            shared,
            table,
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
            keys: Vec::new(),
            given_up: Vec::new(),
            letter: None,
        }
    }

    /// Where the rows of the partition are.
    pub(super) fn index(&self) -> Option<&Arc<PartitionIndex>> {
        self.index.as_ref()
    }

    /// For one dead letter. `index`: that of the partition's own writer.
    pub(super) fn for_letter(mut self, offset: i64, index: Option<Arc<PartitionIndex>>) -> Self {
        self.letter = Some(offset);
        self.index = index.or(self.index.take());
        self
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
        let layout = Layout::of(envelope, key, self.shared.types, self.shared.mode)
            .map_err(|why| Rejection::stop(why.code, why.message, why.way_out))?;
        if self.index.is_some() {
            self.check_key(layout.ids.1)?;
        }
        let layout = Arc::new(layout);
        if self.layout.is_none() {
            self.prepare(&layout);
        }
        self.layout = Some(layout.clone());
        Ok(layout)
    }

    fn close(&mut self) {
        self.committer.closed(&self.member, self.open);
        self.open = 0;
    }

    /// A new schema of the key moves keys to other partitions: where their rows are is not known
    /// then.
    fn check_key(&self, new: Option<i32>) -> Result<(), Rejection> {
        let before = self.layout.as_ref().map_or(self.expected.schemas.key, |layout| layout.ids.1);
        let Some(old) = before.filter(|old| Some(*old) != new) else { return Ok(()) };
        if self.partitions == 1 {
            return Ok(());
        }
        let message = format!(
            "the key has a new schema ({old} before): rows of table {} come in other partitions \
             than those that hold them",
            self.table.name()
        );
        let way_out = "fill a new table: another sink_id and table_name, and a new snapshot of the \
                       source's table (cdc snapshot FILE --table)";
        Err(Rejection::stop("key_schema_changed", message, way_out))
    }

    /// Finds out where the rows of the partition are, before its first flush asks.
    fn prepare(&self, layout: &Layout) {
        if let Some(index) = self.index.clone() {
            let (table, key) = (self.table.clone(), layout.key_columns());
            tokio::spawn(async move { table.prepare(&index, &key).await });
        }
    }

    /// Saves the index now and then, so that not too much is to be read after a crash.
    fn save(&mut self) {
        if self.saved.elapsed() < SAVES {
            return;
        }
        self.saved = Instant::now();
        if let Some(index) = self.index.clone() {
            let table = self.table.clone();
            tokio::spawn(async move { tell_unsaved(table.save_index(&index, true).await) });
        }
    }

    fn truncated(&self, change: &Change<'_>) -> Result<(), Rejection> {
        let table = self.table.name();
        if self.shared.truncate == TruncateHandling::Ignore {
            tracing::warn!(tp = %self.tp, offset = change.offset, %table,
                "truncate: ignore, the table keeps its rows");
            return Ok(());
        }
        Err(Rejection::stop(
            "truncate",
            format!("the source's table of {table} was truncated"),
            "set truncate: ignore (the table keeps its rows), or delete its rows by hand once every \
             partition has come as far, and skip the record",
        ))
    }

    /// Which half of a change of the primary key this is, when values can be missing from it.
    fn half(change: &Change<'_>, layout: &Layout) -> Option<(Half, Move)> {
        let half = match change.key_change.filter(|_| layout.may_miss_values)? {
            KeyChange::From => Half::Left,
            KeyChange::To => Half::Reached,
        };
        let envelope = change.envelope.as_ref()?;
        Some((half, Move { lsn: envelope.lsn()?, tx: envelope.tx_id()? }))
    }

    fn submit(&self, flight: &Flight) -> Pending {
        let (reply, answer) = oneshot::channel();
        let submission = Submission {
            part: Part {
                tp: self.tp.clone(),
                expected: self.expected.clone(),
                covers: flight.covers.clone(),
                segments: flight.segments.clone(),
                abandoned: flight.abandoned.clone(),
                letter: self.letter,
                keyed: self.index.as_deref().cloned().map(|index| KeyedPart {
                    index,
                    partitions: self.partitions,
                    skip: flight.done,
                    keys: flight.keys.clone(),
                    given_up: flight.given_up.clone(),
                }),
            },
            retrier: self.trouble.retrier(),
            reply,
        };
        if self.letter.is_some() {
            committer::alone(&self.table, submission);
        } else {
            self.committer.submit(submission);
        }
        Pending::Waits(answer)
    }

    /// Sends what is left of a flush.
    fn submit_rest(&mut self) {
        if let Some(mut flight) = self.flight.take() {
            flight.answer = self.submit(&flight);
            self.flight = Some(flight);
        }
    }

    /// `None`: there is nothing to tell yet.
    fn answered(&mut self, outcome: Result<Outcome, Failure>) -> Option<Progress> {
        match outcome {
            Ok(Outcome::Durable(position, rows)) => {
                let next = position.next;
                let is_end = self.flight.as_ref().is_none_or(|f| f.covers.next <= next);
                self.expected = position;
                self.save();
                if is_end {
                    self.flight = None;
                } else if let Some(flight) = &mut self.flight {
                    (flight.done, flight.waiting) = (rows, None);
                    self.submit_rest();
                }
                Some(Progress::Durable(next))
            }
            Ok(Outcome::Waits) => {
                self.wait();
                None
            }
            // Abandoned by us it is not listened to; if it is, the table knows more.
            Ok(
                Outcome::Moved | Outcome::Abandoned | Outcome::Refused(..) | Outcome::Stopped(_),
            ) => {
                self.flight = None;
                Some(Progress::Moved)
            }
            Err(Failure { error, offset }) => {
                self.flight = None;
                Some(match Progress::from(error) {
                    Progress::Rejected { error, .. } => Progress::Rejected { offset, error },
                    progress => progress,
                })
            }
        }
    }

    /// The rest of the flush is tried again later.
    fn wait(&mut self) {
        let Some(flight) = &mut self.flight else { return };
        let since = *flight.waiting.get_or_insert_with(Instant::now);
        let waited = since.elapsed();
        flight.answer = Pending::Later(Instant::now() + (waited / 4).clamp(PAUSES.0, PAUSES.1));
        if waited >= TOLD_AFTER {
            let attempts = u32::try_from(waited.as_secs()).unwrap_or(u32::MAX);
            self.trouble.tell(&error::waiting(&self.tp), attempts);
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
impl PartitionWriter for LakeWriter {
    fn has_room(&self) -> bool {
        true
    }

    fn is_one_of(&mut self, partitions: i32) {
        self.partitions = partitions;
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        // Kafka's own delete marker is no change; and what lies below the position is in the table.
        let Some(envelope) = &change.envelope else { return Ok(()) };
        if self.letter.is_none() && change.offset < self.expected.next.get() {
            return Ok(());
        }
        if self.index.is_some() && change.operation == Operation::Truncate {
            return self.truncated(change);
        }
        let layout = self.layout(envelope, change.key)?;
        let placeholder = &self.shared.placeholder;
        let half = Self::half(change, &layout);
        self.rows
            .push(&layout, change.offset, envelope, change.key, placeholder, half)
            .map_err(|why| Rejection::new(why.code, why.to_string()))?;
        if self.index.is_some() {
            self.keys.push(RawKey::of(change.key_bytes.unwrap_or_default()));
        }
        if self.letter.is_none() {
            self.open += 1;
            self.committer.opened(&self.member);
        }
        Ok(())
    }

    fn flush(&mut self, covers: Position) {
        let mut flight = Flight {
            covers,
            abandoned: Arc::new(AtomicBool::new(false)),
            answer: Pending::Done,
            segments: Vec::new(),
            keys: Arc::new(std::mem::take(&mut self.keys)),
            given_up: Arc::new(std::mem::take(&mut self.given_up)),
            done: 0,
            waiting: None,
        };
        match self.rows.finish() {
            Ok(segments) => {
                flight.segments = segments.into_iter().map(Arc::new).collect();
                if !flight.segments.is_empty() || flight.covers.next != self.expected.next {
                    flight.answer = self.submit(&flight);
                }
            }
            Err(why) => {
                let why = error::sink_error(&format!("flushing {}", self.tp), why);
                flight.answer = Pending::Failed(Some(why));
            }
        }
        // After the submission, so that a round waits for it.
        self.close();
        self.flight = Some(flight);
    }

    fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    async fn progress(&mut self) -> Progress {
        loop {
            let Some(flight) = self.flight.as_mut() else { return self.wanted().await };
            let answer = match &mut flight.answer {
                Pending::Waits(answer) => answer.await.map_err(|_| None),
                Pending::Done => {
                    let outcome = Ok(Outcome::Durable(flight.covers.clone(), flight.done));
                    Ok(Answer { round: 0, outcome })
                }
                Pending::Failed(error) => Err(error.take()),
                Pending::Later(at) => {
                    tokio::time::sleep_until(*at).await;
                    self.submit_rest();
                    continue;
                }
            };
            match answer {
                Ok(Answer { round, outcome }) => {
                    self.joined = self.joined.max(round);
                    if let Some(progress) = self.answered(outcome) {
                        return progress;
                    }
                }
                Err(error) => {
                    self.flight = None;
                    return Progress::Fatal(error.unwrap_or_else(|| {
                        error::internal(format!("the flush of {} ended without an answer", self.tp))
                    }));
                }
            }
        }
    }

    fn settle(&mut self, _offset: i64) -> bool {
        false
    }

    fn given_up(&mut self, offset: i64, key: Option<&[u8]>) {
        if self.index.is_some() && offset >= self.expected.next.get() {
            self.given_up.push((offset, key.map(RawKey::of)));
        }
    }

    fn reset(&mut self, position: Position) {
        self.flight = None;
        self.rows.clear();
        self.keys.clear();
        self.given_up.clear();
        self.close();
        // The schemas before the next record are the position's.
        self.layout = None;
        self.expected = position;
    }

    async fn leave(&mut self) {
        if let Some(index) = &self.index {
            tell_unsaved(self.table.save_index(index, false).await);
        }
    }
}

/// An index that is not saved is made from the table again.
fn tell_unsaved(saved: cdc_iceberg::Result<()>) {
    if let Err(error) = saved {
        tracing::warn!(%error, "the index of a partition was not saved");
    }
}

impl Drop for LakeWriter {
    fn drop(&mut self) {
        self.close();
    }
}
