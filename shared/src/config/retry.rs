//! How often and how long a delivery is repeated.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Backoff of a sink's deliveries. A sink's own `retry` replaces single fields of the pipeline's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts after which the sink counts as degraded (`on_exhausted` says what follows).
    #[schemars(range(min = 1))]
    pub max_attempts: u32,
    /// Wait before the second attempt, in seconds.
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub initial_wait_seconds: f64,
    /// Longest wait between two attempts, in seconds.
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub max_wait_seconds: f64,
    /// Factor from one wait to the next.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub multiplier: f64,
    /// Spread the waits at random, so that workers do not return all at once.
    pub jitter: bool,
    /// What follows the last attempt.
    pub on_exhausted: OnExhausted,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_wait_seconds: 1.0,
            max_wait_seconds: 60.0,
            multiplier: 2.0,
            jitter: true,
            on_exhausted: OnExhausted::Hold,
        }
    }
}

impl RetryConfig {
    /// [`Self::initial_wait_seconds`] as a duration.
    pub fn initial_wait(&self) -> Duration {
        super::seconds(self.initial_wait_seconds)
    }

    /// [`Self::max_wait_seconds`] as a duration.
    pub fn max_wait(&self) -> Duration {
        super::seconds(self.max_wait_seconds)
    }
}

/// What happens when `max_attempts` are used up and the cause may still pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// Go on at `max_wait_seconds` for as long as it takes; nothing is lost, the sink is degraded.
    #[default]
    Hold,
    /// Send the record to the dead letter queue and go on.
    Dlq,
}
