//! How much lies between Kafka and the sink: the bound per partition and the budget of the
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::status::SharedStatus;

/// Bytes of records held by the whole process.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    status: SharedStatus,
}

impl Budget {
    /// A budget of `limit` bytes, counted in [`crate::status::Status::buffered_bytes`].
    pub fn new(limit: u64, status: SharedStatus) -> Arc<Self> {
        Arc::new(Self { limit, status })
    }

    fn used(&self) -> u64 {
        self.status.buffered_bytes.load(Ordering::Relaxed)
    }
}

/// What one partition holds: taken from Kafka, not yet durable.
#[derive(Debug)]
pub struct Flow {
    records: AtomicUsize,
    bytes: AtomicU64,
    max_records: usize,
    budget: Arc<Budget>,
}

impl Flow {
    /// An empty partition that may hold `max_records`.
    pub fn new(max_records: usize, budget: Arc<Budget>) -> Arc<Self> {
        let (records, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { records, bytes, max_records: max_records.max(1), budget })
    }

    /// Counts a record in.
    pub fn enter(&self, bytes: usize) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.budget.status.buffered_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts records out.
    pub fn leave(&self, records: usize, bytes: usize) {
        self.records.fetch_sub(records, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.budget.status.buffered_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Records held.
    pub fn held(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// Whether fetching must pause. A partition that holds nothing may always take one record,
    /// whatever the budget says.
    pub fn is_full(&self) -> bool {
        let held = self.held();
        held >= self.max_records || (held > 0 && self.budget.used() >= self.budget.limit)
    }

    /// Whether a paused partition may fetch again: half of its own bound is free, and a quarter of
    /// the budget, so that fetching does not flutter.
    pub fn has_drained(&self) -> bool {
        let held = self.held();
        held == 0
            || (held <= self.max_records / 2 && self.budget.used() <= self.budget.limit / 4 * 3)
    }

    /// Whether less than a quarter of its own bound is left to work on.
    pub fn is_low(&self) -> bool {
        self.held() < self.max_records.div_ceil(4)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let left = self.bytes.load(Ordering::Relaxed);
        self.budget.status.buffered_bytes.fetch_sub(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_partition_may_always_take_one_record() {
        let budget = Budget::new(100, SharedStatus::default());
        let (a, b) = (Flow::new(10, budget.clone()), Flow::new(10, budget.clone()));
        a.enter(500);
        assert!(a.is_full() && !b.is_full() && b.has_drained());
        b.enter(1);
        assert!(b.is_full() && !b.has_drained());
        drop(a);
        assert!(!b.is_full());
        b.leave(1, 1);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_bound_pauses_and_half_of_it_resumes() {
        let flow = Flow::new(4, Budget::new(1 << 20, SharedStatus::default()));
        (0..4).for_each(|_| flow.enter(1));
        assert!(flow.is_full());
        flow.leave(1, 1);
        assert!(!flow.is_full() && !flow.has_drained());
        flow.leave(1, 1);
        assert!(flow.has_drained());
    }
}
