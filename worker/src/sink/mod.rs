//! What a sink is: the contract between the partition loop and everything that delivers.
//!
//! One [`Sink`] per process, shared by all partitions. It gives one [`PartitionWriter`] per
//! assigned partition; that partition's task owns it, so order within a partition is by
//! construction.
//!
//! *Accepted is not durable.* [`PartitionWriter::push`] only encodes or starts; a record counts as
//! done when [`PartitionWriter::progress`] says [`Progress::Durable`] past it. Until then the
//! partition task keeps the record, so that it can be offered again.
//!
//! *Two live copies are normal.* A sink that keeps a position guards every write with a
//! compare-and-set on (next offset, incarnation, topic id) against the value it last read or
//! wrote. A miss is [`Progress::Moved`], never an error: the world moved, read again.
//!
//! *Retries are the writer's, dispositions are not.* A writer repeats a transient failure itself,
//! for as long as it takes, through [`retry::Retrier`], which reports the trouble; whether an
//! error is transient, a rejection of one record or the end is decided in one exhaustive function
//! per sink that yields [`Disposition`].

#[cfg(feature = "iceberg")]
pub mod iceberg;
mod name;
pub mod open;
pub mod postgres;
pub mod retry;
pub mod verify;
pub mod webhook;
pub mod whole;

use async_trait::async_trait;
use cdc_shared::offset::{NextOffset, Position, TopicPartition};

use crate::change::Change;

/// A destination.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Checks once that the sink takes us: reachable, authenticated, position readable, tables
    /// accepted or created. Called until it succeeds; a repetition does no harm.
    async fn prove(&self) -> Result<(), SinkError>;

    /// Whether the sink holds its own record of progress (then that record is the truth).
    fn keeps_position(&self) -> bool;

    /// The sink's own record for a partition; `None` when it has none. Sinks that keep no
    /// position answer `None`.
    async fn read_position(&self, tp: &TopicPartition) -> Result<Option<Position>, SinkError>;

    /// Replaces the sink's own record by compare-and-set: `expected` is the record as last read
    /// (`None`: there must be none). Used to write the resolved start before the first delivery,
    /// and to raise the incarnation. `false`: the record is another by now.
    async fn replace_position(
        &self,
        tp: &TopicPartition,
        expected: Option<&Position>,
        new: &Position,
    ) -> Result<bool, SinkError>;

    /// A writer that goes on from `start` (which is also its first compare-and-set value).
    /// `trouble` takes what [`retry::Retrier`] reports.
    fn writer(
        &self,
        tp: TopicPartition,
        start: Position,
        trouble: retry::TroubleReporter,
    ) -> Box<dyn PartitionWriter>;

    /// When the partition task closes a batch.
    fn batch_limits(&self) -> BatchLimits;

    /// The sink as one that takes many partitions in one transaction, when it is set to do so. Then
    /// [`Sink::writer`] is not used.
    fn whole(&self) -> Option<Box<dyn whole::WholeSink>> {
        None
    }

    /// Whether a dead letter of this sink still stands: asked before each is sent again. A sink
    /// whose rows are states remembers what it rejected ([`PartitionWriter::given_up`]); for one
    /// that takes events every letter stands.
    async fn standing(
        &self,
        _tp: &TopicPartition,
        _at: &Position,
        _offset: i64,
    ) -> Result<Standing, SinkError> {
        Ok(Standing::Stands)
    }

    /// A writer for one dead letter, the record at `offset`, which `at`, the sink's watermark, has
    /// passed: it takes one push, then a flush that covers `at`, and answers [`Progress::Durable`]
    /// when the sink has it, once, however often it is repeated. Nothing else is with the sink of
    /// this partition meanwhile. `None`: this sink takes no dead letters again.
    fn replay(
        &self,
        _tp: TopicPartition,
        _at: &Position,
        _offset: i64,
        _trouble: retry::TroubleReporter,
    ) -> Option<Box<dyn PartitionWriter>> {
        None
    }

    /// How often a range without effect is written to the sink's own record.
    fn position_interval(&self) -> std::time::Duration {
        std::time::Duration::from_secs(1)
    }
}

/// Where a rejected record stands in its sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing newer of its key has come.
    Stands,
    /// The sink has it already.
    Replayed,
    /// Something newer of its key has come, or the sink cannot rule that out; in words.
    Superseded(String),
}

/// When an open batch is flushed: whichever comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchLimits {
    /// Records with effect.
    pub rows: usize,
    /// Bytes of keys and values as they came from Kafka.
    pub bytes: usize,
    /// Age of the oldest record. Zero: as soon as nothing is in flight and nothing more is queued.
    pub age: std::time::Duration,
}

/// Delivers one partition in order. Dropping it abandons what is open or in flight.
#[async_trait]
pub trait PartitionWriter: Send {
    /// The topic has so many partitions. Told before the first push, to a writer whose rules depend
    /// on it.
    fn is_one_of(&mut self, _partitions: i32) {}

    /// Since which incarnation records have new ids; 0: never. Told before the first push, to a writer
    /// that gives ids.
    fn has_ids_of(&mut self, _generation: u64) {}

    /// Whether [`PartitionWriter::push`] may be called: false when what is open and in flight has
    /// reached the sink's limit.
    fn has_room(&self) -> bool;

    /// Takes one record, in offset order. After `Err` the writer is as it was before the call.
    ///
    /// # Errors
    /// A [`Rejection`] when this sink can never take this record.
    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection>;

    /// Closes the open batch and sends it, with `covers` as the position it reaches: everything
    /// below `covers.next` was pushed, or has no effect. An empty batch only moves the position.
    /// Only called while [`PartitionWriter::in_flight`] is false.
    fn flush(&mut self, covers: Position);

    /// Whether a flush has started and [`PartitionWriter::progress`] has not answered it. A sink
    /// that delivers record by record answers false always: it starts in `push` and takes `covers`
    /// as "nothing below this is missing once what is under way is done".
    fn in_flight(&self) -> bool;

    /// The next thing to know. Cancel-safe; pending for ever when nothing is under way.
    async fn progress(&mut self) -> Progress;

    /// The record at `offset`, named in a rejection, needs no delivery any more (the DLQ has it or
    /// an operator skips it). `true`: the writer forgot it and keeps all others under way.
    /// `false`: the partition task resets the writer and offers the others again.
    fn settle(&mut self, offset: i64) -> bool;

    /// The record at `offset`, with this key, is rejected and the DLQ has it; told in offset order
    /// among the pushes. A sink whose rows are states remembers it with the position that passes
    /// it, so that it can tell whether it still stands.
    fn given_up(&mut self, _offset: i64, _key: Option<&[u8]>) {}

    /// Abandons what is open and in flight and goes on from `position`.
    fn reset(&mut self, position: Position);

    /// Somebody else may have the partition next: leaves what helps them to begin. Nothing is in
    /// flight, and it may be cut short.
    async fn leave(&mut self) {}
}

/// What came of what was sent.
#[derive(Debug)]
pub enum Progress {
    /// The sink wants the open batch now: it can share what other partitions are flushing.
    Wanted,
    /// Everything below is durable in the sink.
    Durable(NextOffset),
    /// The sink will never take a record: the one at `offset`, or one of the batch in flight when
    /// `offset` is unknown (the partition task then halves batches to find it).
    Rejected {
        /// The culprit, when known.
        offset: Option<i64>,
        /// Why.
        error: SinkError,
    },
    /// The compare-and-set missed: the sink's own record is not what we last saw.
    Moved,
    /// The sink as a whole is over until an operator acts (410 Gone, table replaced).
    Stop(SinkError),
    /// Configuration or binary: the process ends with a distinct exit code.
    Fatal(SinkError),
}

/// What a delivery that failed comes to. Retries are over by then: they never leave the retrier.
impl From<SinkError> for Progress {
    fn from(error: SinkError) -> Self {
        match error.disposition {
            Disposition::Reject | Disposition::RejectAndStop => {
                Self::Rejected { offset: None, error }
            }
            Disposition::Moved => Self::Moved,
            Disposition::Stop => Self::Stop(error),
            Disposition::Retry(_) | Disposition::Fatal => Self::Fatal(error),
        }
    }
}

/// A record that the sink can never take, found while encoding it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// Stable code, the DLQ's `dlq.error_type`.
    pub code: &'static str,
    /// What is wrong, with column and type, never the value.
    pub message: String,
    /// Set where the record must not be given up, whatever `on_reject` says: the partition stops by
    /// the name `code`, and this is what ends it.
    pub way_out: Option<String>,
}

impl Rejection {
    /// A record that `on_reject` decides about.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), way_out: None }
    }

    /// A record that the partition stops at.
    pub fn stop(
        code: &'static str,
        message: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self { code, message: message.into(), way_out: Some(way_out.into()) }
    }
}

/// What to do about an error; decided in one exhaustive function per sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Transient, unreachable, or our access is wrong: again, for as long as it takes. The sink
    /// may name the delay (`Retry-After`).
    Retry(Option<std::time::Duration>),
    /// This record, or one of this batch, can never be taken.
    Reject,
    /// The same, and it must not be given up whatever `on_reject` says: once found, the partition
    /// stops at it, by the name of the error.
    RejectAndStop,
    /// The compare-and-set missed.
    Moved,
    /// The sink is over until an operator acts.
    Stop,
    /// The process must end.
    Fatal,
}

/// An error of a sink, as an operator sees it. Never holds row data or secrets.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// Stable code: `http_503`, `sqlstate_42501`, `connection_refused`, …
    pub code: String,
    /// What was tried, on what (address, table), and what came back.
    pub message: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
    /// See [`Disposition`].
    pub disposition: Disposition,
    /// The cause, for the log.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
