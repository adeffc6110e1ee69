//! The number of workers that a sink should have, as a pure rule with hysteresis.
//!
//! What one worker delivers is learnt while more than enough waits. With it, a sink should have as
//! many as take what arrives and work off what waits within [`CATCH_UP`]; never more than
//! partitions, never none. It goes up when more were needed for [`UP_AFTER`] on end, and down when
//! fewer would have done, with room to spare, for [`DOWN_AFTER`]: a burst costs nothing, and a
//! number that was just changed is not taken back. A sink that delivers nothing (away, held,
//! paused) gets no more workers for it: they would wait beside the others.

/// In how many seconds what waits should be worked off.
const CATCH_UP: f64 = 60.0;
/// Seconds for which more must be needed.
const UP_AFTER: f64 = 30.0;
/// Seconds for which fewer must do.
const DOWN_AFTER: f64 = 300.0;
/// Share of what workers can do that may be in use after some of them are gone.
const ROOM: f64 = 0.7;
/// What waits this many seconds of arrivals, and so many records, was not just fetched: the sink is
/// busy.
const BUSY_SECONDS: f64 = 5.0;
const BUSY_RECORDS: f64 = 100.0;
/// Weight of a new measurement of what a worker delivers.
const NEW: f64 = 0.3;

/// One look at a sink.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Since any fixed moment.
    pub(super) seconds: f64,
    /// Records that wait.
    pub(super) behind: f64,
    /// Records per second that arrive, and that become durable; absent when not known.
    pub(super) rates: Option<(f64, f64)>,
    /// Live workers.
    pub(super) workers: usize,
    /// Partitions.
    pub(super) partitions: usize,
}

/// What is remembered of a sink from look to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Scaler {
    wanted: usize,
    capacity: Option<f64>,
    more: Option<Need>,
    fewer: Option<Need>,
    idle: f64,
    last_seconds: Option<f64>,
}

/// A need that lasts.
#[derive(Clone, Copy, Debug)]
struct Need {
    since: f64,
    workers: usize,
}

impl Scaler {
    /// The number of workers that the sink should have from now on.
    pub(super) fn look(&mut self, load: &Load) -> usize {
        let most = load.partitions.max(1);
        if self.wanted == 0 {
            self.wanted = load.workers;
        }
        self.wanted = self.wanted.clamp(1, most);
        let passed = load.seconds - self.last_seconds.replace(load.seconds).unwrap_or(load.seconds);
        let Some((arriving, delivering)) = load.rates else { return self.wanted };
        let nothing = load.behind < 1.0 && arriving < 1e-9;
        self.idle = if nothing { self.idle + passed } else { 0.0 };
        self.learn(load, arriving, delivering);
        let (needed, enough) = match self.capacity {
            _ if nothing => (1, 1),
            // Nothing gets through: more workers would not help, fewer would not either.
            _ if delivering <= 0.0 && load.behind >= 1.0 => (self.wanted, self.wanted),
            None => (self.wanted, self.wanted),
            Some(capacity) => {
                let work = arriving + load.behind / CATCH_UP;
                (workers(work / capacity, most), workers(work / (capacity * ROOM), most))
            }
        };
        // What was needed at least, all the time; what would have been enough, all the time.
        let wanted = self.wanted;
        lasting(&mut self.more, needed > wanted, load.seconds, needed, usize::min);
        lasting(&mut self.fewer, enough < wanted, load.seconds, enough, usize::max);
        for (need, after) in [(self.more, UP_AFTER), (self.fewer, DOWN_AFTER)] {
            if let Some(need) = need.filter(|need| load.seconds - need.since >= after) {
                self.wanted = need.workers;
                (self.more, self.fewer) = (None, None);
            }
        }
        self.wanted
    }

    /// Records per second of one busy worker, as far as it was seen.
    pub(super) fn capacity(&self) -> Option<f64> {
        self.capacity
    }

    /// How long nothing has waited or arrived.
    pub(super) fn idle_seconds(&self) -> f64 {
        self.idle
    }

    fn learn(&mut self, load: &Load, arriving: f64, delivering: f64) {
        let busy = load.behind > BUSY_RECORDS.max(arriving * BUSY_SECONDS);
        let useful = load.workers.min(load.partitions);
        if busy && delivering > 0.0 && useful > 0 {
            let seen = delivering / useful as f64;
            let old = self.capacity.unwrap_or(seen);
            self.capacity = Some(old + NEW * (seen - old));
        }
    }
}

fn workers(exact: f64, most: usize) -> usize {
    // A float beyond the type's range becomes its end.
    (exact.ceil() as usize).clamp(1, most)
}

fn lasting(
    need: &mut Option<Need>,
    holds: bool,
    seconds: f64,
    workers: usize,
    join: fn(usize, usize) -> usize,
) {
    *need = holds.then(|| match *need {
        Some(need) => Need { workers: join(need.workers, workers), ..need },
        None => Need { since: seconds, workers },
    });
}

#[cfg(test)]
#[path = "rule_test.rs"]
mod tests;
