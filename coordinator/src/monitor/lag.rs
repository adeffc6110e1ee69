//! How far each sink and the pipeline's group are behind, in records and in seconds.
//!
//! Records are counted from the watermark to the last stable offset, so that nobody has to join a
//! group for it. Seconds are the age of the first record that is not yet durable: the worker tells
//! it, and where none does, that one record is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::avro::{CellBuf, frame};
use cdc_shared::clock::unix_ms;
use cdc_shared::config::{LagConfig, seconds};
use cdc_shared::offset::TopicPartition;
use cdc_shared::registry::{Registry, RegistryError, Schema};
use rdkafka::message::{Message, OwnedMessage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::alarm::{Alarm, LagLevel};
use super::pace::{Look, Pace, Track};
use crate::fleet::Worker;
use crate::group::{GroupView, Observation};
use crate::kafka::ask;
use crate::state::Coordinator;

/// Partitions whose next record is read in one round.
const READS: usize = 16;
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Lag of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartitionLag {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Records behind the end; absent while the position is unknown.
    pub lag: Option<i64>,
    /// First offset not yet durable (for P: committed).
    pub offset: Option<i64>,
}

/// Lag of one sink.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SinkLag {
    /// Sink.
    pub sink_id: String,
    /// Sum over the partitions whose position is known; absent if none is.
    pub total_lag: Option<i64>,
    /// Age of the oldest record that is not yet durable; 0 when there is none.
    pub seconds: Option<f64>,
    /// How fast it delivers; absent before the second look.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// Seconds until it has caught up at this pace; absent when it never does.
    #[serde(default)]
    pub catch_up_seconds: Option<f64>,
    /// By the thresholds of `lag`.
    #[serde(default)]
    pub level: LagLevel,
    /// Each partition.
    pub partitions: Vec<PartitionLag>,
}

/// Lag of everything.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LagReport {
    /// By sink.
    pub sinks: Vec<SinkLag>,
    /// Of the pipeline's group.
    pub pipeline: Vec<PartitionLag>,
}

impl Trend {
    fn tell(&self, lag: &mut SinkLag) {
        lag.pace = self.track.pace();
        lag.catch_up_seconds =
            lag.pace.zip(lag.total_lag).and_then(|(pace, records)| pace.catch_up_seconds(records));
        lag.level = self.alarm.level();
    }
}

/// What was found at a position between two ends of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    position: i64,
    end: i64,
    /// When the source committed it, Unix ms; `None` when there is no record up to `end`, only
    /// marks of transactions.
    made_ms: Option<i64>,
    /// Whether another look at the same record would tell nothing new.
    sure: bool,
}

type FoundRecords = BTreeMap<TopicPartition, Vec<Found>>;

/// The lag monitor.
#[derive(Debug)]
pub struct LagMonitor {
    registry: Arc<Registry>,
    found: Mutex<Arc<FoundRecords>>,
    trends: Mutex<BTreeMap<String, Trend>>,
}

/// What the looks at a sink tell together.
#[derive(Debug, Default)]
struct Trend {
    track: Track,
    alarm: Alarm,
}

impl LagMonitor {
    /// For records whose schemas are in this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, found: Mutex::default(), trends: Mutex::default() }
    }

    /// The lag by the latest look.
    pub fn report(&self, view: &GroupView, workers: &[Worker], now_ms: i64) -> LagReport {
        let Some(seen) = &view.seen else { return LagReport::default() };
        let found = Arc::clone(&self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let trends = self.trends();
        let told = told(workers);
        let sinks = seen.watermarks.keys().map(|sink| {
            let mut lag = sink_lag(sink, view, seen, &told, &found, now_ms);
            if let Some(trend) = trends.get(sink) {
                trend.tell(&mut lag);
            }
            lag
        });
        let sinks = sinks.collect();
        let pipeline = seen
            .partitions()
            .into_iter()
            .map(|tp| {
                let offset = seen.committed.get(&tp).map(|committed| committed.next.get());
                partition_lag(&tp, offset, seen, &found)
            })
            .collect();
        LagReport { sinks, pipeline }
    }

    /// Measures and tells, at the configured interval, until `stop`.
    pub async fn run(&self, coordinator: &Coordinator, stop: &CancellationToken) {
        let interval = seconds(coordinator.config.lag_monitor_interval_seconds);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            if !coordinator.leads() {
                continue;
            }
            let workers = coordinator.fleet.workers(Instant::now());
            let view = coordinator.group.view();
            self.read_next_records(coordinator, &view, &workers).await;
            let mut report = self.report(&view, &workers, unix_ms());
            self.follow(&view, &mut report.sinks, &coordinator.config.lag);
            tell(&coordinator.config.group_id, &report);
            let stalled = view.stalled(&coordinator.config.lag, Instant::now());
            if let Some((partitions, longest, age)) = stalled {
                tracing::warn!(
                    event = "pipeline.group_stalled",
                    group = coordinator.config.group_id,
                    partitions,
                    %longest,
                    seconds = age.as_secs(),
                    "the pipeline's group stands still though the sinks go on"
                );
            }
        }
    }

    fn trends(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Trend>> {
        self.trends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a look to each sink's trend, and forgets sinks that are gone.
    fn follow(&self, view: &GroupView, lags: &mut [SinkLag], config: &LagConfig) {
        let Some(seen) = &view.seen else { return };
        let mut trends = self.trends();
        trends.retain(|sink, _| seen.watermarks.contains_key(sink));
        for lag in lags {
            let trend = trends.entry(lag.sink_id.clone()).or_default();
            trend.track.add(seen.begun, look(&lag.sink_id, view, seen));
            trend.alarm.look(config, lag.total_lag, lag.seconds);
            trend.tell(lag);
        }
    }

    async fn read_next_records(
        &self,
        coordinator: &Coordinator,
        view: &GroupView,
        workers: &[Worker],
    ) {
        let Some(seen) = &view.seen else { return };
        let old = Arc::clone(&self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let mut new = FoundRecords::new();
        let mut reads = 0;
        for (tp, position, end) in behind(seen, view, workers) {
            let known = old.get(&tp).into_iter().flatten().find(|found| {
                found.position == position
                    && found.sure
                    && (found.made_ms.is_some() || found.end == end)
            });
            if let Some(known) = known {
                new.entry(tp).or_default().push(*known);
            } else if reads < READS {
                reads += 1;
                let at = tp.clone();
                let read = ask(&coordinator.cluster, move |cluster| {
                    cluster.next_record(&at, position, READ_TIMEOUT)
                });
                match read.await {
                    Ok(record) => {
                        let (made_ms, sure) = match &record {
                            Some(record) => made_ms(&self.registry, record).await,
                            None => (None, true),
                        };
                        if record.is_none() || made_ms.is_some() {
                            let found = Found { position, end, made_ms, sure };
                            new.entry(tp).or_default().push(found);
                        }
                    }
                    Err(error) => tracing::debug!(%tp, %error, "read the next record"),
                }
            }
        }
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }
}

/// When the source committed a change, as its envelope has it. What is no change, or cannot be
/// decoded, was made when the connector wrote it, which Kafka's timestamp tells. `false`: that is
/// the answer only because the registry does not answer.
async fn made_ms(registry: &Registry, record: &OwnedMessage) -> (Option<i64>, bool) {
    let written = record.timestamp().to_millis().filter(|at| *at > 0);
    let Some(Ok((id, datum))) = record.payload().map(frame) else { return (written, true) };
    match tokio::time::timeout(READ_TIMEOUT, registry.schema(id)).await {
        Ok(Ok(schema)) => (source_ms(&schema, datum).or(written), true),
        Err(_) | Ok(Err(RegistryError::Unavailable { .. })) => (written, false),
        Ok(Err(_)) => (written, true),
    }
}

fn source_ms(schema: &Schema, datum: &[u8]) -> Option<i64> {
    let mut cells = CellBuf::new();
    let root = schema.plan.decode(datum, &mut cells).ok()?;
    schema.kind.envelope()?.envelope(root, &cells).ok()?.source_ts_ms()
}

/// Positions behind the end whose next record no live worker has told: partition, position, end.
fn behind(
    seen: &Observation,
    view: &GroupView,
    workers: &[Worker],
) -> std::collections::BTreeSet<(TopicPartition, i64, i64)> {
    let told = &told(workers);
    let of_sinks = view.members.iter().flat_map(|(sink, topic)| {
        seen.partitions()
            .into_iter()
            .filter(move |tp| tp.topic.as_ref() == topic.as_str())
            .filter(move |tp| told_ms(sink, tp, told).is_none())
            .filter_map(move |tp| {
                let position = seen.position(sink, &tp)?.next.get();
                Some((tp, position))
            })
    });
    let of_group = seen.committed.iter().map(|(tp, committed)| (tp.clone(), committed.next.get()));
    of_sinks
        .chain(of_group)
        .filter_map(|(tp, position)| {
            let end = *seen.ends.get(&tp)?;
            (position < end).then_some((tp, position, end))
        })
        .collect()
}

/// What live workers have told of their partitions' next records, by sink, topic and number.
type Told<'a> = HashMap<(&'a str, &'a str, i32), Option<i64>>;

fn told(workers: &[Worker]) -> Told<'_> {
    let mut told = Told::new();
    for worker in workers.iter().filter(|worker| worker.live) {
        for report in &worker.heartbeat.partitions {
            let place =
                (worker.heartbeat.sink_id.as_str(), report.topic.as_str(), report.partition);
            told.entry(place).or_insert(report.next_source_ms);
        }
    }
    told
}

fn told_ms(sink: &str, tp: &TopicPartition, told: &Told<'_>) -> Option<i64> {
    told.get(&(sink, tp.topic.as_ref(), tp.partition)).copied().flatten()
}

fn sink_lag(
    sink: &str,
    view: &GroupView,
    seen: &Observation,
    told: &Told<'_>,
    found: &FoundRecords,
    now_ms: i64,
) -> SinkLag {
    let mut lag = SinkLag { sink_id: sink.to_owned(), ..SinkLag::default() };
    let mut oldest: Option<i64> = None;
    let mut untold = false;
    for tp in seen.partitions() {
        if !view.members.contains(&(sink.to_owned(), tp.topic.to_string())) {
            continue;
        }
        let offset = seen.position(sink, &tp).map(|position| position.next.get());
        let partition = partition_lag(&tp, offset, seen, found);
        if let Some(records) = partition.lag {
            lag.total_lag = Some(lag.total_lag.unwrap_or(0) + records);
        }
        if partition.lag.is_none_or(|records| records > 0) {
            let made = told_ms(sink, &tp, told)
                .or_else(|| found_at(found, &tp, offset?).and_then(|found| found.made_ms));
            match made {
                Some(made) => oldest = Some(oldest.map_or(made, |oldest| oldest.min(made))),
                None => untold = true,
            }
        }
        lag.partitions.push(partition);
    }
    lag.seconds = match oldest {
        // Clocks of two machines differ: never younger than now.
        Some(made) => Some(now_ms.saturating_sub(made).max(0) as f64 / 1000.0),
        None if untold || lag.partitions.is_empty() => None,
        None => Some(0.0),
    };
    lag
}

/// Sums over the sink's partitions whose position and end are known.
fn look(sink: &str, view: &GroupView, seen: &Observation) -> Look {
    let mut look = Look { done: 0, end: 0, partitions: 0 };
    let of_sink = |tp: &TopicPartition| {
        view.members.iter().any(|(of, topic)| of == sink && **topic == *tp.topic)
    };
    for tp in seen.partitions().into_iter().filter(of_sink) {
        if let (Some(position), Some(end)) = (seen.position(sink, &tp), seen.ends.get(&tp)) {
            look.done = look.done.saturating_add(position.next.get());
            look.end = look.end.saturating_add(*end);
            look.partitions += 1;
        }
    }
    look
}

fn found_at<'a>(found: &'a FoundRecords, tp: &TopicPartition, position: i64) -> Option<&'a Found> {
    found.get(tp)?.iter().find(|found| found.position == position)
}

fn partition_lag(
    tp: &TopicPartition,
    offset: Option<i64>,
    seen: &Observation,
    found: &FoundRecords,
) -> PartitionLag {
    let lag = offset.and_then(|offset| {
        let end = *seen.ends.get(tp)?;
        let only_marks = found_at(found, tp, offset)
            .is_some_and(|found| found.made_ms.is_none() && found.end >= end);
        Some(if only_marks { 0 } else { (end - offset).max(0) })
    });
    PartitionLag { topic: tp.topic.to_string(), partition: tp.partition, lag, offset }
}

fn tell(group: &str, report: &LagReport) {
    for sink in &report.sinks {
        tracing::info!(
            event = "consumer.lag",
            sink = sink.sink_id,
            total_lag = sink.total_lag,
            lag_seconds = sink.seconds,
            records_per_second = sink.pace.map(|pace| pace.records_per_second),
            catch_up_seconds = sink.catch_up_seconds,
            partitions = %json(&sink.partitions),
            "lag of a sink"
        );
    }
    let total: i64 = report.pipeline.iter().filter_map(|partition| partition.lag).sum();
    tracing::info!(
        event = "consumer.lag",
        group,
        total_lag = total,
        partitions = %json(&report.pipeline),
        "lag of the pipeline"
    );
}

fn json(partitions: &[PartitionLag]) -> String {
    serde_json::to_string(partitions).unwrap_or_default()
}

#[cfg(test)]
#[path = "lag_test.rs"]
mod tests;
