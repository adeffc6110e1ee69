//! Notices a sink that rejects too much, so that an outage that looks like bad records does not
//! empty a topic into the dead letter queue.

use cdc_shared::config::BreakerConfig;

/// Counts what one partition's sink takes and rejects. Two limits, each off at 0: rejects in a
/// row, and the share of rejects among the last `window` records once so many were seen.
///
/// It stays tripped until [`Breaker::reset`], which a resume calls.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    consecutive: u32,
    recent: Recent,
    tripped: Option<Trip>,
}

/// Which limit a breaker met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trip {
    /// So many rejects in a row.
    Consecutive(u32),
    /// `rejects` among the last `window` records.
    Share {
        /// Rejects among them.
        rejects: u32,
        /// Records looked at.
        window: u32,
    },
}

impl std::fmt::Display for Trip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Consecutive(rejects) => write!(f, "{rejects} records in a row were rejected"),
            Self::Share { rejects, window } => {
                write!(f, "{rejects} of the last {window} records were rejected")
            }
        }
    }
}

impl Breaker {
    /// A breaker that has seen nothing.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, consecutive: 0, recent: Recent::new(config), tripped: None }
    }

    /// The sink took `records` records. Records without effect (filtered, tombstones) say nothing
    /// about the sink and are not counted.
    pub fn accepted(&mut self, records: usize) {
        if records > 0 {
            self.consecutive = 0;
            self.recent.accept(records);
        }
    }

    /// The sink rejected a record. `true` when the sink is to be paused: from the reject that
    /// meets a limit on, until [`Breaker::reset`].
    pub fn rejected(&mut self) -> bool {
        self.consecutive = self.consecutive.saturating_add(1);
        self.recent.push(true);
        if self.tripped.is_none() {
            self.tripped = self.limit_met();
        }
        self.tripped.is_some()
    }

    /// The limit that was met, for the hold's message.
    pub fn tripped(&self) -> Option<Trip> {
        self.tripped
    }

    /// Forgets everything: an operator said to go on.
    pub fn reset(&mut self) {
        *self = Self::new(self.config);
    }

    fn limit_met(&self) -> Option<Trip> {
        let BreakerConfig { max_consecutive, max_share_percent, window } = self.config;
        if max_consecutive > 0 && self.consecutive >= max_consecutive {
            return Some(Trip::Consecutive(self.consecutive));
        }
        let rejects = self.recent.rejects;
        let over = u64::from(rejects) * 100 >= u64::from(max_share_percent) * u64::from(window);
        (max_share_percent > 0 && self.recent.is_full() && over)
            .then_some(Trip::Share { rejects, window })
    }
}

/// The last `window` outcomes, one bit each (set: rejected), with the sum kept beside them. Bits
/// exist only when the share is limited.
#[derive(Clone, Debug)]
struct Recent {
    bits: Vec<u64>,
    window: usize,
    next: usize,
    seen: usize,
    rejects: u32,
}

impl Recent {
    fn new(config: BreakerConfig) -> Self {
        let window = if config.max_share_percent > 0 { config.window.max(1) as usize } else { 0 };
        Self { bits: vec![0; window.div_ceil(64)], window, next: 0, seen: 0, rejects: 0 }
    }

    fn is_full(&self) -> bool {
        self.window > 0 && self.seen == self.window
    }

    fn push(&mut self, rejected: bool) {
        if self.window == 0 {
            return;
        }
        let (word, mask) = (self.next / 64, 1_u64 << (self.next % 64));
        if self.bits[word] & mask != 0 {
            self.rejects -= 1;
        }
        if rejected {
            self.bits[word] |= mask;
            self.rejects += 1;
        } else {
            self.bits[word] &= !mask;
        }
        self.next = (self.next + 1) % self.window;
        self.seen = (self.seen + 1).min(self.window);
    }

    fn accept(&mut self, records: usize) {
        if self.rejects == 0 {
            // All bits are clear: only the position and the fill move.
            if self.window > 0 {
                self.next = (self.next + records % self.window) % self.window;
                self.seen = self.seen.saturating_add(records).min(self.window);
            }
            return;
        }
        for _ in 0..records.min(self.window) {
            self.push(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn breaker(max_consecutive: u32, max_share_percent: u32, window: u32) -> Breaker {
        Breaker::new(BreakerConfig { max_consecutive, max_share_percent, window })
    }

    #[test]
    fn rejects_in_a_row_trip_and_an_accepted_record_ends_the_row() {
        let mut breaker = breaker(3, 0, 10);
        assert_eq!([breaker.rejected(), breaker.rejected()], [false, false]);
        breaker.accepted(1);
        assert_eq!([(); 3].map(|()| breaker.rejected()), [false, false, true]);
        breaker.accepted(5);
        assert!(breaker.rejected(), "it stays tripped until it is reset");
        breaker.reset();
        assert!(!breaker.rejected());
    }

    #[test]
    fn the_share_counts_once_the_window_is_full() {
        let mut breaker = breaker(0, 50, 4);
        assert!(!breaker.rejected());
        breaker.accepted(1);
        assert!(!breaker.rejected(), "2 of 3, but the window is not full");
        assert!(breaker.rejected());
        assert_eq!(breaker.tripped(), Some(Trip::Share { rejects: 3, window: 4 }));
    }

    #[test]
    fn zero_switches_both_limits_off() {
        let mut breaker = breaker(0, 0, 1);
        assert!((0..10_000).all(|_| !breaker.rejected()));
    }

    proptest! {
        /// Against the definition, computed from the whole history.
        #[test]
        fn it_trips_exactly_when_a_limit_is_met(
            max_consecutive in 0_u32..6,
            max_share_percent in 0_u32..=100,
            window in 1_u32..140,
            steps in prop::collection::vec((any::<bool>(), 0_usize..300), 0..300),
        ) {
            let mut breaker = breaker(max_consecutive, max_share_percent, window);
            let mut history = Vec::new();
            let mut expected = false;
            for (reject, count) in steps {
                if reject {
                    history.push(true);
                    let row = history.iter().rev().take_while(|rejected| **rejected).count();
                    expected |= max_consecutive > 0 && row >= max_consecutive as usize;
                    let last = &history[history.len().saturating_sub(window as usize)..];
                    let share = last.iter().filter(|rejected| **rejected).count() * 100;
                    expected |= max_share_percent > 0
                        && last.len() == window as usize
                        && share >= (max_share_percent * window) as usize;
                    prop_assert_eq!(breaker.rejected(), expected);
                } else {
                    history.extend(std::iter::repeat_n(false, count));
                    breaker.accepted(count);
                }
            }
        }
    }
}
