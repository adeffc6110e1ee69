//! The contract of a sink that takes the changes of many partitions in one transaction of its own.

use std::io;

use async_trait::async_trait;
use cdc_shared::offset::{Position, TopicPartition};

use super::{Rejection, SinkError};
use crate::change::Change;

/// What one partition has in a delivery.
pub struct Portion {
    /// The partition.
    pub tp: TopicPartition,
    /// The sink's record as last read or written.
    pub expected: Position,
    /// What it becomes.
    pub covers: Position,
    /// The changes; none for a partition whose position only moves.
    pub changes: Option<Box<dyn Changes>>,
}

/// The changes of a portion, which can be read as often as they are needed.
pub trait Changes: Send + Sync {
    /// Reads them from the first on.
    fn reader(&self) -> Box<dyn ChangeReader + '_>;
}

/// Gives changes one after the other, in offset order.
pub trait ChangeReader: Send + Sync {
    /// Hands the next change to `take`; `false` when there is none.
    ///
    /// # Errors
    /// Why it was not taken.
    fn next(&mut self, take: &mut TakeChange<'_>) -> Result<bool, Unread>;
}

/// Whoever takes a change.
pub type TakeChange<'t> = dyn FnMut(&Change<'_>) -> Result<(), Rejection> + Send + 't;

/// Why a change was not taken.
#[derive(Debug)]
pub enum Unread {
    /// The sink can never take it.
    Rejected {
        /// Its offset.
        offset: i64,
        /// Why.
        rejection: Rejection,
    },
    /// Its bytes are not to be had.
    Lost(io::Error),
}

/// What came of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// All of it is in the sink.
    Durable,
    /// A compare-and-set missed: nothing is.
    Moved,
    /// Nothing is, because of one record.
    Rejected {
        /// Its partition.
        tp: TopicPartition,
        /// Its offset.
        offset: i64,
        /// Why.
        rejection: Rejection,
    },
}

/// See the module.
#[async_trait]
pub trait WholeSink: Send + Sync {
    /// Delivers all portions, or nothing, with a compare-and-set on the record of each.
    /// `unsure`: an earlier attempt may have been taken though its answer was lost.
    ///
    /// # Errors
    /// By disposition. [`super::Disposition::Reject`]: the sink refuses a record and does not say
    /// which; [`WholeSink::culprit`] finds it.
    async fn deliver(&self, portions: &[Portion], unsure: bool) -> Result<Delivered, SinkError>;

    /// The record because of which a delivery is refused: tries one after the other, and leaves
    /// nothing in the sink. `None`: each is taken alone.
    ///
    /// # Errors
    /// As [`WholeSink::deliver`].
    async fn culprit(
        &self,
        portions: &[Portion],
    ) -> Result<Option<(TopicPartition, i64)>, SinkError>;
}
