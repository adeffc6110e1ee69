//! When a connector that has failed is started again: soon, then later, and not for ever.

use std::time::{Duration, Instant};

/// Time over which restarts are counted.
const WINDOW: Duration = Duration::from_secs(3600);
/// Wait before the first restart; each further one waits four times as long.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The restarts of one connector.
#[derive(Clone, Debug, Default)]
pub struct Restarts {
    made: Vec<Instant>,
    failed_since: Option<Instant>,
}

impl Restarts {
    /// Takes a look: whether it is to be started again now, as the `most`-th time in an hour at
    /// the latest. Each time it says so counts.
    pub fn due(&mut self, failed: bool, most: u32, now: Instant) -> bool {
        self.made.retain(|at| now.duration_since(*at) < WINDOW);
        if !failed {
            self.failed_since = None;
            return false;
        }
        let since = *self.failed_since.get_or_insert(now);
        let made = u32::try_from(self.made.len()).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(4_u32.saturating_pow(made)).min(LONGEST_WAIT);
        let due = made < most && now.duration_since(since) >= wait;
        if due {
            self.made.push(now);
            self.failed_since = None;
        }
        due
    }

    /// How often it was started again within the last hour.
    pub fn made(&self) -> usize {
        self.made.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which it is restarted, looked at every second.
    fn restarts(most: u32, until: u64, failed: impl Fn(u64) -> bool) -> Vec<u64> {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        (0..until)
            .filter(|s| restarts.due(failed(*s), most, start + Duration::from_secs(*s)))
            .collect()
    }

    #[test]
    fn the_waits_grow_and_the_hour_is_bounded() {
        assert_eq!(restarts(3, 3000, |_| true), [10, 51, 212]);
        assert_eq!(restarts(0, 3000, |_| true), [0_u64; 0]);
        let over_hours = restarts(3, 4 * 3600, |_| true);
        for hour in 0..3 {
            let within = |at: &&u64| (hour * 3600..(hour + 1) * 3600).contains(*at);
            assert!(over_hours.iter().filter(within).count() <= 3, "{over_hours:?}");
        }
        assert!(over_hours.len() > 3, "the next hour tries again: {over_hours:?}");
    }

    #[test]
    fn one_that_runs_again_is_left_alone() {
        assert_eq!(restarts(3, 100, |_| false), [0_u64; 0]);
        assert_eq!(restarts(3, 1000, |second| second < 11), [10]);
        assert_eq!(restarts(3, 100, |second| second % 9 != 0), [0_u64; 0]);
    }
}
