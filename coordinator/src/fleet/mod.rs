//! The workers that report: the latest heartbeat of each, until it has missed some.
//!
//! Time is the process's own clock, so that a jump of the wall clock makes nobody vanish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::api::Heartbeat;

/// Heartbeats that may be missed before a worker counts as gone.
const MISSED_BEATS: u32 = 4;
/// How long a worker that is gone is still remembered for its last error.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// One worker as it last spoke.
#[derive(Clone, PartialEq, Debug)]
pub struct Worker {
    /// What it said.
    pub heartbeat: Heartbeat,
    /// How long ago.
    pub age: Duration,
    /// Whether it still counts as running.
    pub live: bool,
}

/// All workers of the pipeline.
pub struct Fleet {
    expiry: Duration,
    workers: Mutex<BTreeMap<(String, String), (Instant, Heartbeat)>>,
}

impl Fleet {
    /// For workers that report at `interval`.
    pub fn new(interval: Duration) -> Self {
        // Half a beat more, so that the last of them may be late.
        let expiry = interval * MISSED_BEATS + interval / 2;
        Self { expiry, workers: Mutex::new(BTreeMap::new()) }
    }

    /// Remembers a heartbeat, unless a later one of the same worker came before it. Tells whether it
    /// names a topic of its sink for the first time.
    pub fn beat(&self, heartbeat: Heartbeat, now: Instant) -> bool {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|_, (at, _)| now.saturating_duration_since(*at) < REMEMBERED);
        let key = (heartbeat.sink_id.clone(), heartbeat.worker.id.clone());
        if workers.get(&key).is_some_and(|(_, latest)| heartbeat.sequence < latest.sequence) {
            return false;
        }
        let known: BTreeSet<String> = workers
            .iter()
            .filter(|((sink, _), _)| *sink == heartbeat.sink_id)
            .flat_map(|(_, (_, old))| &old.partitions)
            .map(|partition| partition.topic.clone())
            .collect();
        let news = heartbeat.partitions.iter().any(|report| !known.contains(&report.topic));
        workers.insert(key, (now, heartbeat));
        news
    }

    /// Every worker that is remembered, by sink and id.
    pub fn workers(&self, now: Instant) -> Vec<Worker> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers
            .values()
            .map(|(at, heartbeat)| {
                let age = now.saturating_duration_since(*at);
                Worker { heartbeat: heartbeat.clone(), age, live: age < self.expiry }
            })
            .collect()
    }

    /// The live workers of one sink.
    pub fn live(&self, sink: &str, now: Instant) -> Vec<Worker> {
        let mut workers = self.workers(now);
        workers.retain(|worker| worker.live && worker.heartbeat.sink_id == sink);
        workers
    }

    /// Forgets a sink's workers.
    pub fn forget(&self, sink: &str) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|(of, _), _| of != sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::heartbeat;

    #[test]
    fn a_report_that_was_delayed_does_not_replace_a_later_one() {
        let fleet = Fleet::new(Duration::from_secs(2));
        let start = Instant::now();
        let beat = |sequence, next| {
            let mut beat = heartbeat("wh", "w1", &[("t", 0, next)]);
            beat.sequence = sequence;
            fleet.beat(beat, start);
            let position = fleet.workers(start)[0].heartbeat.partitions[0].position.clone();
            position.unwrap().next.get()
        };
        assert_eq!(beat(2, 7), 7);
        assert_eq!(beat(1, 5), 7);
        assert_eq!(beat(2, 8), 8, "a repetition is as good");
    }

    #[test]
    fn a_worker_is_gone_after_its_missed_beats_and_not_before() {
        let fleet = Fleet::new(Duration::from_secs(2));
        let start = Instant::now();
        assert!(fleet.beat(heartbeat("wh", "w1", &[("t", 0, 5)]), start));
        assert!(!fleet.beat(heartbeat("wh", "w1", &[("t", 0, 6)]), start));
        assert!(fleet.beat(heartbeat("wh", "w1", &[("t", 0, 6), ("u", 0, 0)]), start));
        let at = |seconds| start + Duration::from_millis(seconds);
        assert_eq!(fleet.live("wh", at(8_900)).len(), 1);
        assert_eq!(fleet.live("wh", at(9_000)).len(), 0);
        assert_eq!(fleet.live("pg", at(0)).len(), 0);
        assert_eq!(fleet.workers(at(9_000)).len(), 1);
        fleet.forget("wh");
        assert!(fleet.workers(at(9_000)).is_empty());
    }
}
