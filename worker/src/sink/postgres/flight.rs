//! A flush under way, and what comes of it: the same for every mode.

use std::sync::atomic::{AtomicBool, Ordering};

use cdc_shared::offset::Position;
use tokio::task::{JoinError, JoinHandle};

use crate::sink::retry::TroubleReporter;
use crate::sink::{Progress, SinkError};

/// A flush under way. Dropping it abandons it; the compare-and-set makes that safe.
#[derive(Debug)]
pub(super) struct Flight<T> {
    /// The position it reaches.
    pub(super) covers: Position,
    task: JoinHandle<(T, Result<Outcome, SinkError>)>,
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of a flush that was not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is in the database, once.
    Durable,
    /// The compare-and-set missed.
    Moved,
}

impl<T: Send + 'static> Flight<T> {
    /// Starts it. What was sent comes back, for its memory.
    pub(super) fn start(
        covers: Position,
        flush: impl Future<Output = (T, Result<Outcome, SinkError>)> + Send + 'static,
    ) -> Self {
        Self { covers, task: tokio::spawn(flush) }
    }

    /// Waits for its end; cancel-safe.
    pub(super) async fn ended(&mut self) -> Result<(T, Result<Outcome, SinkError>), JoinError> {
        (&mut self.task).await
    }
}

/// Repeats an attempt while that helps. An attempt is told whether an earlier one may have been
/// taken though its answer was lost.
pub(super) async fn repeat<F>(
    trouble: &TroubleReporter,
    attempt: impl Fn(bool) -> F,
) -> Result<Outcome, SinkError>
where
    F: Future<Output = Result<Outcome, SinkError>>,
{
    let unsure = AtomicBool::new(false);
    let attempt = || async {
        let outcome = attempt(unsure.load(Ordering::Relaxed)).await;
        unsure.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    };
    trouble.retrier().run(attempt).await
}

/// What the partition task is told; `expected` becomes what the record is now.
pub(super) fn answer(
    expected: &mut Position,
    covers: Position,
    outcome: Result<Outcome, SinkError>,
) -> Progress {
    match outcome {
        Ok(Outcome::Durable) => {
            let next = covers.next;
            *expected = covers;
            Progress::Durable(next)
        }
        Ok(Outcome::Moved) => Progress::Moved,
        Err(error) => error.into(),
    }
}
