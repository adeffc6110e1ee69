//! Whether rows that the source says are new are inserted without looking for older ones, which costs
//! the server half as much. Where one is there all the same (a snapshot or a stretch of the topic that
//! comes again), the server refuses the statement, and the batch is written by key instead.

use std::sync::atomic::{AtomicU32, Ordering};

/// Batches that are written by key after a refusal: the first time, and at most.
const FIRST_PAUSE: u32 = 16;
const LONGEST_PAUSE: u32 = 1024;

/// What one partition has met. Its batches are written one after the other.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// Batches until the next try.
    pause: AtomicU32,
    /// The pause after the last refusal, if nothing went well since.
    last: AtomicU32,
}

impl Fresh {
    /// Whether the next batch may be inserted. Counts it.
    pub(super) fn may_insert(&self) -> bool {
        let less = |pause: u32| pause.checked_sub(1);
        self.pause.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    /// A batch was inserted.
    pub(super) fn went_well(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// Some row was there: the next batches are written by key.
    pub(super) fn was_refused(&self) {
        let last = self.last.load(Ordering::Relaxed);
        let pause = last.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.last.store(pause, Ordering::Relaxed);
        self.pause.store(pause, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches until the next one may be inserted.
    fn pause(fresh: &Fresh) -> u32 {
        (0..10_000).find(|_| fresh.may_insert()).unwrap()
    }

    #[test]
    fn refusals_make_tries_rare_and_a_success_makes_them_common_again() {
        let fresh = Fresh::default();
        assert_eq!(pause(&fresh), 0);
        let pauses: Vec<u32> = (0..8)
            .map(|_| {
                fresh.was_refused();
                pause(&fresh)
            })
            .collect();
        assert_eq!(pauses, [16, 32, 64, 128, 256, 512, 1024, 1024]);
        fresh.went_well();
        assert_eq!(pause(&fresh), 0);
        fresh.was_refused();
        assert_eq!(pause(&fresh), 16);
    }
}
