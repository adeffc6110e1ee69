//! How long to wait before the next attempt.

use std::time::Duration;

/// Exponential backoff with jitter, as the `retry` section of the configuration names it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryPolicy {
    /// Attempts after which the caller counts as degraded.
    pub max_attempts: u32,
    /// Delay after the first failure.
    pub initial_wait: Duration,
    /// Longest delay.
    pub max_wait: Duration,
    /// Growth per failure.
    pub multiplier: f64,
    /// Whether delays are spread.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    /// The specification's defaults: 5 attempts, 1 s growing by 2 up to 60 s, with jitter.
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(60),
            multiplier: 2.0,
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// The delay after `failures` failures in a row (1 or more). `random` is in 0..1; with jitter
    /// the delay lies between half and the whole of the exponential value.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let exponent = failures.saturating_sub(1).min(63) as i32;
        let grown = self.initial_wait.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        let capped = grown.min(self.max_wait.as_secs_f64());
        let spread = if self.jitter { 0.5 + random.clamp(0.0, 1.0) / 2.0 } else { 1.0 };
        Duration::try_from_secs_f64(capped * spread).unwrap_or(self.max_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap() {
        let policy = RetryPolicy { jitter: false, ..RetryPolicy::default() };
        let seconds = |n| policy.delay(n, 0.0).as_secs();
        assert_eq!([1, 2, 3, 6, 7, 8, 4_000_000_000].map(seconds), [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn jitter_keeps_between_half_and_whole() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(1, 0.0), Duration::from_millis(500));
        assert_eq!(policy.delay(1, 1.0), Duration::from_secs(1));
    }
}
