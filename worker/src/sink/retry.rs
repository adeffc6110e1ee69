//! Retries of a transient failure: back off with jitter, never give up, say so.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use super::{Disposition, SinkError};
use cdc_shared::backoff::RetryPolicy;

/// The trouble a partition is in, as its task and `health` see it. `None`: the last attempt worked.
pub type Trouble = Option<TroubleState>;

/// One failing operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TroubleState {
    /// Code of the last error.
    pub code: String,
    /// Message of the last error, with what an operator can do about it.
    pub message: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether `max_attempts` is reached: the sink is `degraded`.
    pub exhausted: bool,
}

/// Where a writer reports its trouble; latest wins, cheap to clone.
#[derive(Clone, Debug)]
pub struct TroubleReporter {
    latest: watch::Sender<Trouble>,
    policy: RetryPolicy,
    give_up: bool,
}

impl TroubleReporter {
    /// A reporter and its reading end. `give_up`: end after `max_attempts` instead of holding on
    /// (`retry.on_exhausted: dlq`).
    pub fn new(policy: RetryPolicy, give_up: bool) -> (Self, watch::Receiver<Trouble>) {
        let (latest, reader) = watch::channel(None);
        (Self { latest, policy, give_up }, reader)
    }

    /// Tells of an operation that waits and is not one of a [`Retrier`]'s series.
    pub fn tell(&self, error: &SinkError, attempts: u32) {
        let state = TroubleState {
            code: error.code.clone(),
            message: match &error.hint {
                Some(hint) => format!("{}; {hint}", error.message),
                None => error.message.clone(),
            },
            attempts,
            exhausted: attempts >= self.policy.max_attempts,
        };
        tracing::warn!(code = %state.code, attempts = state.attempts, error = %error.message,
            hint = error.hint.as_deref(), "pipeline.sink_write_error");
        self.latest.send_replace(Some(state));
    }

    /// A new series of attempts.
    pub fn retrier(&self) -> Retrier {
        Retrier { reporter: self.clone(), attempts: 0 }
    }
}

/// One series of attempts of one operation.
#[derive(Debug)]
pub struct Retrier {
    reporter: TroubleReporter,
    attempts: u32,
}

impl Retrier {
    /// Runs `attempt` until it succeeds or fails in a way that repetition does not cure.
    ///
    /// # Errors
    /// The first error that is not [`Disposition::Retry`]; with `on_exhausted: dlq` also the
    /// `max_attempts`-th, turned into [`Disposition::Reject`].
    pub async fn run<T, F, Fut>(mut self, mut attempt: F) -> Result<T, SinkError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, SinkError>>,
    {
        loop {
            let wait = match attempt().await {
                Ok(value) => {
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) => self.failed(error, 0)?,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// What [`Retrier::run`] does after a failure, for a writer that waits by itself: says how long
    /// to wait before the next attempt. `shared` is how often in a row the sink failed as a whole,
    /// where that is known: when higher than the attempts of this series, it is what counts for the
    /// delay and for being `degraded` (never for giving up).
    ///
    /// # Errors
    /// As [`Retrier::run`].
    pub fn failed(&mut self, error: SinkError, shared: u32) -> Result<Duration, SinkError> {
        let Disposition::Retry(asked) = error.disposition else {
            self.succeeded();
            return Err(error);
        };
        self.attempts = self.attempts.saturating_add(1);
        let failures = self.attempts.max(shared);
        self.reporter.tell(&error, failures);
        if self.reporter.give_up && self.attempts >= self.reporter.policy.max_attempts {
            return Err(SinkError { disposition: Disposition::Reject, ..error });
        }
        let delay = self.reporter.policy.delay(failures, fastrand::f64());
        Ok(asked.map_or(delay, |asked| asked.max(delay)))
    }

    /// Whether this series ends after `max_attempts`.
    pub fn gives_up(&self) -> bool {
        self.reporter.give_up
    }

    /// The trouble of this series is over.
    pub fn succeeded(&self) {
        self.reporter.latest.send_if_modified(|trouble| trouble.take().is_some());
    }
}
