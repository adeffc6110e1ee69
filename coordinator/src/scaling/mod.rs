//! How many workers each sink should have: `GET /v1/scaling` and the metric that autoscalers read.
//!
//! `rule` is pure; here it is fed with what the leader knows. A coordinator starts and stops
//! nobody.

mod rule;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::clock::unix_ms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::monitor::{Look, SinkLag};
use crate::state::Coordinator;
use rule::{Load, Scaler};

/// Time between two looks.
const TICK: Duration = Duration::from_secs(5);

/// What one sink should have, and why.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SinkScaling {
    /// Sink.
    pub sink_id: String,
    /// Live workers.
    pub workers: usize,
    /// Workers that it should have.
    pub wanted_workers: usize,
    /// Partitions: more workers than these idle.
    pub partitions: usize,
    /// Records behind.
    pub lag_records: Option<i64>,
    /// Records that come per second.
    pub arriving_per_second: Option<f64>,
    /// Records that become durable per second.
    pub delivering_per_second: Option<f64>,
    /// What one worker delivers while more than enough waits; absent before that was seen.
    pub records_per_worker_second: Option<f64>,
    /// How long nothing has waited or come.
    pub idle_seconds: f64,
}

/// The answer of `GET /v1/scaling`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScalingReport {
    /// Pipeline.
    pub pipeline_id: String,
    /// Each sink that is enabled; empty where this coordinator does not lead.
    pub sinks: Vec<SinkScaling>,
}

/// The latest look at every sink.
#[derive(Debug, Default)]
pub struct Scaling {
    sinks: Mutex<BTreeMap<String, Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    scaler: Scaler,
    last: Option<(Instant, Look)>,
    latest: SinkScaling,
}

impl Scaling {
    /// What every sink should have, by the latest look.
    pub fn report(&self) -> Vec<SinkScaling> {
        self.sinks().values().map(|watched| watched.latest.clone()).collect()
    }

    /// Looks again and again until `stop`.
    pub async fn run(&self, coordinator: &Coordinator, stop: &CancellationToken) {
        let began = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if coordinator.leads() {
                self.look(coordinator, began);
            } else {
                // What a former leader knew is of no use to the next.
                self.sinks().clear();
            }
        }
    }

    fn look(&self, coordinator: &Coordinator, began: Instant) {
        let now = Instant::now();
        let workers = coordinator.fleet.workers(now);
        let view = coordinator.group.view();
        let lag = coordinator.lag.report(&view, &workers, unix_ms());
        let enabled = |id: &str| coordinator.config.sink(id).is_some_and(|sink| sink.enabled);
        let mut sinks = self.sinks();
        sinks.retain(|id, _| enabled(id));
        for sink in lag.sinks.iter().filter(|sink| enabled(&sink.sink_id)) {
            let live = |w: &&crate::fleet::Worker| w.live && w.heartbeat.sink_id == sink.sink_id;
            let watched = sinks.entry(sink.sink_id.clone()).or_default();
            watched.look(sink, workers.iter().filter(live).count(), now, now - began);
        }
    }

    fn sinks(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn look(&mut self, lag: &SinkLag, workers: usize, now: Instant, time: Duration) {
        let known = || lag.partitions.iter().filter_map(|tp| Some((tp.offset?, tp.lag?)));
        let look = Look {
            partitions: known().count(),
            done: known().map(|(offset, _)| offset).sum(),
            end: known().map(|(offset, lag)| offset + lag).sum(),
        };
        let pace = self
            .last
            .replace((now, look))
            .and_then(|(then, last)| look.pace_since(last, now.duration_since(then)));
        let arriving = pace.map(|pace| pace.incoming_per_second);
        let delivering = pace.map(|pace| pace.records_per_second);
        let load = Load {
            seconds: time.as_secs_f64(),
            behind: (look.end - look.done).max(0) as f64,
            rates: arriving.zip(delivering),
            workers,
            partitions: lag.partitions.len(),
        };
        let wanted_workers = self.scaler.look(&load);
        self.latest = SinkScaling {
            sink_id: lag.sink_id.clone(),
            workers,
            wanted_workers,
            partitions: lag.partitions.len(),
            lag_records: lag.total_lag,
            arriving_per_second: arriving,
            delivering_per_second: delivering,
            records_per_worker_second: self.scaler.capacity(),
            idle_seconds: self.scaler.idle_seconds(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::PartitionLag;

    fn lag(at: &[(i64, i64)]) -> SinkLag {
        let partitions = at.iter().enumerate().map(|(partition, (offset, lag))| PartitionLag {
            topic: "t".into(),
            partition: partition as i32,
            lag: Some(*lag),
            offset: Some(*offset),
        });
        let total_lag = Some(at.iter().map(|(_, lag)| lag).sum());
        SinkLag {
            sink_id: "wh".into(),
            total_lag,
            partitions: partitions.collect(),
            ..SinkLag::default()
        }
    }

    #[test]
    fn rates_are_taken_between_looks_and_not_over_a_rewind() {
        let mut watched = Watched::default();
        let now = Instant::now();
        let before = now.checked_sub(Duration::from_secs(10)).unwrap();
        watched.look(&lag(&[(100, 0), (50, 10)]), 1, before, Duration::ZERO);
        assert_eq!(watched.latest.arriving_per_second, None);
        watched.look(&lag(&[(200, 0), (60, 100)]), 1, now, Duration::from_secs(10));
        let latest = &watched.latest;
        let (arriving, delivering) =
            (latest.arriving_per_second.unwrap(), latest.delivering_per_second.unwrap());
        assert!((19.0..=20.1).contains(&arriving), "200 records in 10 s: {arriving}");
        assert!((10.0..=11.1).contains(&delivering), "110 records in 10 s: {delivering}");
        assert_eq!((latest.partitions, latest.lag_records), (2, Some(100)));
        watched.look(&lag(&[(0, 200), (60, 100)]), 1, now, Duration::from_secs(15));
        assert_eq!(watched.latest.arriving_per_second, None, "rewound");
    }
}
