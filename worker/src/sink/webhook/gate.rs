//! How many requests may be under way, and how a receiver that is down is left in peace.
//!
//! While things go well, [`Gate`] is a fair count of `max_in_flight` slots, shared by the
//! partitions of the process. When several different events failed in a row and none succeeded, the
//! receiver as a whole counts as failing: from then on one request at a time probes it, at the pace
//! of the backoff, and every other event waits for the outcome. The first answer that is not a
//! failure opens the gate for all. One event that always fails never closes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// Different events that fail in a row before the receiver as a whole counts as failing.
const TRIP: u32 = 8;

/// The right to make one attempt; give it back by dropping it.
#[derive(Debug)]
pub(super) struct Turn {
    probe: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
}

impl Turn {
    /// Whether this attempt is the one that tries a failing receiver.
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// What one more failure means for the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// Failures in a row of the receiver as a whole; 0 while it does not count as failing.
    pub(super) shared: u32,
    /// Whether the delay of this attempt is the pace of the next probe.
    pub(super) paces: bool,
}

/// In which run of failures an event was last counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted(Option<u64>);

#[derive(Debug, Default)]
struct Health {
    /// Different events that failed since the last success.
    streak: u32,
    /// Which run of failures this is.
    run: u64,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    failures: u32,
    probe_at: Instant,
}

impl Health {
    fn failed(&mut self, counted: &mut Counted, probe: bool, now: Instant) -> Failure {
        if *counted != Counted(Some(self.run)) {
            *counted = Counted(Some(self.run));
            self.streak = self.streak.saturating_add(1);
        }
        match &mut self.failing {
            Some(failing) => {
                failing.failures = failing.failures.saturating_add(u32::from(probe));
                Failure { shared: failing.failures, paces: probe }
            }
            None if self.streak >= TRIP => {
                self.failing = Some(Failing { failures: 1, probe_at: now });
                Failure { shared: 1, paces: true }
            }
            None => Failure { shared: 0, paces: false },
        }
    }

    /// Whether this success ended a failing time.
    fn succeeded(&mut self) -> bool {
        if self.streak > 0 {
            self.streak = 0;
            self.run += 1;
        }
        self.failing.take().is_some()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    slots: Arc<Semaphore>,
    probe: Arc<Semaphore>,
    health: Mutex<Health>,
    /// Counts the ends of failing times.
    recoveries: watch::Sender<u64>,
}

impl Gate {
    pub(super) fn new(max_in_flight: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(max_in_flight.max(1))),
            probe: Arc::new(Semaphore::new(1)),
            health: Mutex::default(),
            recoveries: watch::Sender::new(0),
        })
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn probe_at(&self) -> Option<Instant> {
        self.health().failing.as_ref().map(|failing| failing.probe_at)
    }

    /// A turn, when there is one at once.
    pub(super) fn try_turn(&self) -> Option<Turn> {
        if self.probe_at().is_some() {
            return None;
        }
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        Some(Turn { probe: None, _slot: slot })
    }

    /// Waits for a turn, first come first served. `None` never comes: the slots are not closed.
    pub(super) async fn turn(self: Arc<Self>) -> Option<Turn> {
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let mut recoveries = self.recoveries.subscribe();
        let mut probe = None;
        loop {
            recoveries.mark_unchanged();
            let Some(at) = self.probe_at() else {
                return Some(Turn { probe: None, _slot: slot });
            };
            if probe.is_some() && Instant::now() >= at {
                return Some(Turn { probe, _slot: slot });
            }
            let wait = async {
                match probe.take() {
                    Some(permit) => {
                        tokio::time::sleep_until(at).await;
                        Some(permit)
                    }
                    None => self.probe.clone().acquire_owned().await.ok(),
                }
            };
            tokio::select! {
                permit = wait => probe = permit,
                _ = recoveries.changed() => {}
            }
        }
    }

    /// An attempt failed in a way that may pass.
    pub(super) fn failed(&self, counted: &mut Counted, probe: bool) -> Failure {
        self.health().failed(counted, probe, Instant::now())
    }

    /// When the next probe may go, after a [`Failure`] that paces.
    pub(super) fn pace(&self, delay: Duration) {
        if let Some(failing) = &mut self.health().failing {
            failing.probe_at = Instant::now() + delay;
        }
    }

    /// The receiver answered.
    pub(super) fn answered(&self) {
        let recovered = self.health().succeeded();
        if recovered {
            self.recoveries.send_modify(|count| *count += 1);
        }
    }

    /// Ends with the next failing time.
    pub(super) fn recovery(&self) -> BoxFuture<'static, ()> {
        let mut recoveries = self.recoveries.subscribe();
        Box::pin(async move {
            if recoveries.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn fail_distinct(gate: &Gate, events: u32) -> Failure {
        let mut last = Failure { shared: 0, paces: false };
        for _ in 0..events {
            last = gate.failed(&mut Counted::default(), false);
        }
        last
    }

    #[test]
    fn one_event_that_always_fails_leaves_the_gate_open() {
        let gate = Gate::new(2);
        let mut counted = Counted::default();
        for _ in 0..100 {
            let failure = gate.failed(&mut counted, false);
            assert_eq!(failure, Failure { shared: 0, paces: false });
        }
        assert!(gate.try_turn().is_some());
    }

    #[test]
    fn successes_in_between_leave_the_gate_open() {
        let gate = Gate::new(2);
        for _ in 0..100 {
            fail_distinct(&gate, TRIP - 1);
            gate.answered();
        }
        assert!(gate.try_turn().is_some());
    }

    #[tokio::test]
    async fn a_failing_receiver_gets_one_probe_at_a_time_until_it_answers() {
        let gate = Gate::new(64);
        assert_eq!(fail_distinct(&gate, TRIP), Failure { shared: 1, paces: true });
        gate.pace(Duration::ZERO);
        assert!(gate.try_turn().is_none());
        let probe = gate.clone().turn().await.unwrap();
        assert!(probe.is_probe());
        let mut others = [gate.clone().turn().boxed(), gate.clone().turn().boxed()];
        for other in &mut others {
            assert!(other.now_or_never().is_none());
        }
        let failure = gate.failed(&mut Counted::default(), true);
        assert_eq!(failure, Failure { shared: 2, paces: true });
        // A late answer of the time before changes nothing.
        assert_eq!(fail_distinct(&gate, 1), Failure { shared: 2, paces: false });
        gate.pace(Duration::from_secs(3600));
        drop(probe);
        for other in &mut others {
            assert!(other.now_or_never().is_none(), "before its time");
        }
        let recovery = gate.recovery();
        gate.answered();
        recovery.await;
        for other in others {
            assert!(!other.await.unwrap().is_probe());
        }
    }

    #[tokio::test]
    async fn slots_go_round_in_turn() {
        let gate = Gate::new(1);
        let first = gate.try_turn().unwrap();
        let mut second = gate.clone().turn().boxed();
        let mut third = gate.clone().turn().boxed();
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!(gate.try_turn().is_none(), "nobody overtakes those that wait");
        assert!((&mut third).now_or_never().is_none());
        drop(second.await);
        assert!(third.await.is_some());
    }
}
