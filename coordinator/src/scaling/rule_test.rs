//! Recorded loads, and what holds for any load. A sink is simulated: each worker delivers up to a
//! fixed rate, and as many are started as the rule wants, after a while.

use proptest::prelude::*;

use super::*;

const STEP: f64 = 5.0;

/// A sink of which each worker takes `each` records per second.
struct Sink {
    scaler: Scaler,
    each: f64,
    partitions: usize,
    workers: usize,
    behind: f64,
    now: f64,
    changes: Vec<(f64, usize)>,
}

impl Sink {
    fn new(each: f64, partitions: usize) -> Self {
        let changes = Vec::new();
        Self {
            scaler: Scaler::default(),
            each,
            partitions,
            workers: 1,
            behind: 0.0,
            now: 0.0,
            changes,
        }
    }

    /// So long at this rate of arrivals; the workers follow what is wanted.
    fn run(&mut self, seconds: f64, arriving: f64) -> usize {
        let end = self.now + seconds;
        let mut wanted = self.workers;
        while self.now < end {
            self.now += STEP;
            let most = self.each * self.workers.min(self.partitions) as f64 * STEP;
            let delivered = most.min(self.behind + arriving * STEP);
            self.behind += arriving * STEP - delivered;
            let load = Load {
                seconds: self.now,
                behind: self.behind,
                rates: Some((arriving, delivered / STEP)),
                workers: self.workers,
                partitions: self.partitions,
            };
            wanted = self.scaler.look(&load);
            if wanted != self.workers {
                self.changes.push((self.now, wanted));
                self.workers = wanted;
            }
        }
        wanted
    }
}

#[test]
fn a_load_that_one_worker_takes_needs_one() {
    let mut sink = Sink::new(1000.0, 4);
    assert_eq!(sink.run(3600.0, 700.0), 1);
    assert!(sink.changes.is_empty());
}

#[test]
fn a_day_with_a_peak_goes_up_and_comes_down_again_without_flapping() {
    let mut sink = Sink::new(1000.0, 8);
    sink.run(1800.0, 300.0);
    sink.run(3600.0, 3400.0);
    assert!((4..=6).contains(&sink.workers), "{:?}", sink.changes);
    assert!(sink.behind < 5000.0, "caught up: {}", sink.behind);
    sink.run(3600.0, 300.0);
    assert_eq!(sink.workers, 1, "{:?}", sink.changes);
    assert!(sink.changes.len() <= 8, "{:?}", sink.changes);
}

#[test]
fn a_short_burst_changes_nothing() {
    let mut sink = Sink::new(1000.0, 8);
    sink.run(600.0, 300.0);
    sink.run(20.0, 5000.0);
    sink.run(600.0, 300.0);
    let most = sink.changes.iter().map(|(_, workers)| *workers).max().unwrap_or(1);
    assert!(most <= 2, "what the burst left is worked off by two: {:?}", sink.changes);
}

#[test]
fn more_than_the_partitions_are_never_wanted() {
    let mut sink = Sink::new(100.0, 3);
    assert_eq!(sink.run(3600.0, 10_000.0), 3);
}

#[test]
fn a_sink_that_takes_nothing_gets_no_workers_for_it() {
    let mut sink = Sink::new(1000.0, 8);
    sink.run(300.0, 3000.0);
    let before = sink.workers;
    sink.each = 0.0;
    assert_eq!(sink.run(3600.0, 3000.0), before);
}

#[test]
fn an_idle_sink_wants_one_and_says_for_how_long() {
    let mut sink = Sink::new(1000.0, 8);
    sink.run(900.0, 3000.0);
    assert!(sink.workers > 1);
    sink.run(3600.0, 0.0);
    assert_eq!(sink.workers, 1);
    assert!(sink.scaler.idle_seconds() > 3000.0);
    sink.run(5.0, 1.0);
    assert!(sink.scaler.idle_seconds() < 1.0);
}

#[test]
fn what_is_not_known_changes_nothing() {
    let mut scaler = Scaler::default();
    let load = Load { seconds: 0.0, behind: 1e9, rates: None, workers: 3, partitions: 4 };
    for step in 0..100 {
        assert_eq!(scaler.look(&Load { seconds: f64::from(step) * 60.0, ..load.clone() }), 3);
    }
}

proptest! {
    /// Whatever comes: within the bounds, and no two changes sooner than the shorter wait.
    #[test]
    fn any_load_keeps_the_bounds_and_the_waits(
        each in 1.0..5000.0f64,
        partitions in 1_usize..40,
        phases in prop::collection::vec((5.0..2000.0f64, 0.0..20_000.0f64), 1..12),
    ) {
        let mut sink = Sink::new(each, partitions);
        for (seconds, arriving) in phases {
            let wanted = sink.run(seconds, arriving);
            prop_assert!((1..=partitions).contains(&wanted));
        }
        for pair in sink.changes.windows(2) {
            prop_assert!(pair[1].0 - pair[0].0 >= UP_AFTER, "{:?}", sink.changes);
        }
    }

    /// A load that enough workers can take is taken, and then nothing changes any more.
    #[test]
    fn a_steady_load_settles(each in 50.0..5000.0f64, share in 0.05..0.9f64) {
        let partitions = 12;
        let mut sink = Sink::new(each, partitions);
        let arriving = each * partitions as f64 * share;
        sink.run(4.0 * 3600.0, arriving);
        prop_assert!(sink.behind < arriving * CATCH_UP, "behind {}", sink.behind);
        let settled = sink.changes.len();
        sink.run(4.0 * 3600.0, arriving);
        prop_assert_eq!(sink.changes.len(), settled, "{:?}", sink.changes);
    }
}
