//! How fast a sink delivers and its topics grow, and so when it will have caught up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is looked back at.
const WINDOW: Duration = Duration::from_secs(60);

/// One look at a sink: sums over its partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// First offsets that are not yet durable.
    pub done: i64,
    /// Ends of the logs.
    pub end: i64,
    /// Partitions whose position and end are known: with others the sums say nothing.
    pub partitions: usize,
}

impl Look {
    /// Whether the two can be compared: not after a rewind, nor when other partitions are known.
    fn comes_after(self, before: Self) -> bool {
        self.partitions == before.partitions && self.done >= before.done && self.end >= before.end
    }

    /// The pace since an earlier look; `None` where they cannot be compared, or no time has passed.
    pub fn pace_since(self, before: Self, elapsed: Duration) -> Option<Pace> {
        let seconds = elapsed.as_secs_f64();
        (self.comes_after(before) && seconds > 0.0).then(|| Pace {
            records_per_second: (self.done - before.done) as f64 / seconds,
            incoming_per_second: (self.end - before.end) as f64 / seconds,
        })
    }
}

/// Offsets per second over the last minute. Marks of transactions count as records.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Pace {
    /// That the sink moves on by.
    pub records_per_second: f64,
    /// That are written to its topics.
    pub incoming_per_second: f64,
}

impl Pace {
    /// Seconds until nothing is left of a lag, if both stay as they are; `None`: never.
    pub fn catch_up_seconds(&self, lag: i64) -> Option<f64> {
        let gained = self.records_per_second - self.incoming_per_second;
        match lag {
            ..=0 => Some(0.0),
            lag if gained > 0.0 => Some(lag as f64 / gained),
            _ => None,
        }
    }
}

/// The looks of the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    looks: VecDeque<(Instant, Look)>,
}

impl Track {
    /// Remembers a look. What went back, or is over other partitions, begins anew.
    pub(super) fn add(&mut self, at: Instant, look: Look) {
        if self.looks.back().is_some_and(|(_, last)| !look.comes_after(*last)) {
            self.looks.clear();
        }
        self.looks.push_back((at, look));
        // One look beyond the window stays: its end is where the window begins.
        while self.looks.get(1).is_some_and(|(second, _)| at.duration_since(*second) >= WINDOW) {
            self.looks.pop_front();
        }
    }

    /// The pace; `None` before the second look.
    pub(super) fn pace(&self) -> Option<Pace> {
        let ((from, first), (to, last)) = (self.looks.front()?, self.looks.back()?);
        last.pace_since(*first, to.duration_since(*from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(looks: &[(u64, i64, i64, usize)]) -> Track {
        let (start, mut track) = (Instant::now(), Track::default());
        for (second, done, end, partitions) in looks {
            let look = Look { done: *done, end: *end, partitions: *partitions };
            track.add(start + Duration::from_secs(*second), look);
        }
        track
    }

    #[test]
    fn the_pace_is_that_of_the_last_minute() {
        assert_eq!(track(&[(0, 10, 10, 1)]).pace(), None);
        let pace = track(&[(0, 0, 1000, 2), (10, 500, 1100, 2)]).pace().unwrap();
        assert_eq!(pace, Pace { records_per_second: 50.0, incoming_per_second: 10.0 });
        assert_eq!(pace.catch_up_seconds(600), Some(15.0));
        assert_eq!(pace.catch_up_seconds(0), Some(0.0));
        let looks: Vec<_> = (0..100).map(|n| (n * 15, n as i64 * n as i64, 0, 1)).collect();
        let pace = track(&looks).pace().unwrap();
        let last_minute = (99.0 * 99.0 - 95.0 * 95.0) / 60.0;
        assert!((pace.records_per_second - last_minute).abs() < 1e-9, "{pace:?}");
    }

    #[test]
    fn whoever_is_slower_than_the_source_never_catches_up() {
        let pace = track(&[(0, 0, 0, 1), (10, 100, 100, 1)]).pace().unwrap();
        assert_eq!(pace.catch_up_seconds(1), None);
        let pace = track(&[(0, 0, 0, 1), (10, 90, 100, 1)]).pace().unwrap();
        assert_eq!(pace.catch_up_seconds(1), None);
    }

    #[test]
    fn a_rewind_or_another_set_of_partitions_begins_anew() {
        assert_eq!(track(&[(0, 100, 100, 1), (10, 50, 100, 1)]).pace(), None);
        assert_eq!(track(&[(0, 100, 100, 1), (10, 150, 200, 2)]).pace(), None);
    }
}
