//! Puts the facts together.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use cdc_shared::api::PartitionReport;
use cdc_shared::clock::unix_ms;
use cdc_shared::control::ControlState;
use cdc_shared::offset::TopicPartition;

use super::report::{
    GroupHealth, HealthReport, HoldHealth, LeaderHealth, PartitionStatus, SinkHealth, StallHealth,
    StatusReport, TableDirectiveHealth, Verdict, WorkerHealth,
};
use super::{SinkStatus, judge, overall};
use crate::fleet::Worker;
use crate::group::GroupView;
use crate::monitor::{LagReport, SinkLag};
use crate::state::Coordinator;

/// The health report as of now.
pub fn health(coordinator: &Coordinator) -> HealthReport {
    let facts = coordinator.probes.facts();
    let view = coordinator.group.view();
    let workers = coordinator.fleet.workers(Instant::now());
    let control = coordinator.control.state();
    let lag = coordinator.lag.report(&view, &workers, unix_ms());
    let mut report = HealthReport {
        schema_version: 1,
        pipeline_id: coordinator.config.pipeline_id.clone(),
        at_ms: unix_ms(),
        verdict: Verdict::Unknown,
        reasons: Vec::new(),
        coordinator: LeaderHealth {
            leader: coordinator.leads(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control_offset: control.offset(),
            leader_url: coordinator.other_leader(),
            error: coordinator.probes.control_trouble().or(coordinator.control.status().error),
        },
        source: facts.source.clone(),
        sinks: sinks(coordinator, &control, &view, &lag, &workers),
        consumer_lag: lag.pipeline,
        pipeline_group: GroupHealth {
            group_id: coordinator.config.group_id.clone(),
            holds: view.holds.clone(),
            members: view.intruders.clone(),
            error: view.error.clone(),
            stall: stall(coordinator, &view),
        },
        kafka: facts.kafka.clone(),
        schema_registry: facts.registry.clone(),
        connect: facts.connect.clone(),
        redis: facts.redis.clone(),
        schemas: coordinator.schemas.health(coordinator),
    };
    report.reasons = judge(&report);
    report.verdict = overall(&report.reasons);
    report
}

fn stall(coordinator: &Coordinator, view: &GroupView) -> Option<StallHealth> {
    let (partitions, tp, age) = view.stalled(&coordinator.config.lag, Instant::now())?;
    let (topic, partition, seconds) = (tp.topic.to_string(), tp.partition, age.as_secs_f64());
    Some(StallHealth { partitions, topic, partition, seconds })
}

fn sinks(
    coordinator: &Coordinator,
    control: &ControlState,
    view: &GroupView,
    lag: &LagReport,
    workers: &[Worker],
) -> Vec<SinkHealth> {
    let mut ids: Vec<&str> =
        coordinator.config.sinks.iter().map(|sink| sink.sink_id.as_str()).collect();
    let others: BTreeSet<&str> = view
        .members
        .iter()
        .map(|(sink, _)| sink.as_str())
        .chain(workers.iter().filter(|w| w.live).map(|w| w.heartbeat.sink_id.as_str()))
        .filter(|id| !ids.contains(id))
        .collect();
    ids.extend(others);
    ids.into_iter()
        .map(|id| {
            let lag = lag.sinks.iter().find(|lag| lag.sink_id == id);
            sink(coordinator, control, view, lag, workers, id)
        })
        .collect()
}

fn sink(
    coordinator: &Coordinator,
    control: &ControlState,
    view: &GroupView,
    lag: Option<&SinkLag>,
    workers: &[Worker],
    id: &str,
) -> SinkHealth {
    let config = coordinator.config.sink(id).filter(|sink| sink.enabled);
    let of_sink: Vec<&Worker> = workers.iter().filter(|w| w.heartbeat.sink_id == id).collect();
    let live: Vec<&Worker> = of_sink.iter().copied().filter(|worker| worker.live).collect();
    let directive = control.directive(id, None);
    let consumed: BTreeSet<String> = config
        .into_iter()
        .flat_map(|sink| coordinator.config.sink_tables(sink))
        .map(|table| coordinator.config.topic(table))
        .chain(reports(&live).map(|report| report.topic.clone()))
        .collect();
    let parked = view
        .members
        .iter()
        .filter(|(sink, topic)| sink == id && !consumed.contains(topic))
        .map(|(_, topic)| topic.clone())
        .collect();
    let enabled = config.is_some();
    SinkHealth {
        sink_id: id.to_owned(),
        status: SinkStatus::of(enabled, directive.state, &live),
        enabled,
        parked,
        workers: live.iter().map(|worker| worker_health(worker)).collect(),
        lag_records: lag.and_then(|lag| lag.total_lag),
        lag_seconds: lag.and_then(|lag| lag.seconds),
        pace: lag.and_then(|lag| lag.pace),
        catch_up_seconds: lag.and_then(|lag| lag.catch_up_seconds),
        lag_level: lag.map(|lag| lag.level).unwrap_or_default(),
        last_flush_ms: reports(&of_sink).filter_map(|report| report.last_flush_ms).max(),
        last_error: of_sink
            .iter()
            .filter_map(|worker| worker.heartbeat.last_error.clone())
            .max_by_key(|error| error.at_ms),
        directive: directive.state,
        directive_reason: directive.reason,
        tables: control
            .table_directives(id)
            .into_iter()
            .map(|(topic, directive)| TableDirectiveHealth {
                topic,
                state: directive.state,
                reason: directive.reason,
            })
            .collect(),
        holds: holds(&live),
        dead_letters: coordinator
            .letters
            .counts()
            .iter()
            .filter(|count| count.sink == id)
            .cloned()
            .collect(),
    }
}

fn reports<'a>(workers: &'a [&Worker]) -> impl Iterator<Item = &'a PartitionReport> {
    workers.iter().flat_map(|worker| &worker.heartbeat.partitions)
}

fn holds(live: &[&Worker]) -> Vec<HoldHealth> {
    reports(live)
        .filter_map(|report| {
            let hold = report.hold.clone()?;
            Some(HoldHealth {
                topic: report.topic.clone(),
                partition: report.partition,
                state: report.state,
                code: hold.code,
                message: hold.message,
                way_out: hold.way_out,
                offset: hold.offset,
            })
        })
        .collect()
}

fn worker_health(worker: &Worker) -> WorkerHealth {
    let heartbeat = &worker.heartbeat;
    WorkerHealth {
        id: heartbeat.worker.id.clone(),
        version: heartbeat.worker.version.clone(),
        config_hash: heartbeat.worker.config_hash.clone(),
        admin_address: heartbeat.worker.admin_address.clone(),
        state: heartbeat.state,
        last_seen_seconds: worker.age.as_secs_f64(),
        partitions: heartbeat.partitions.len(),
        counters: heartbeat.counters,
    }
}

/// Who has each partition, by sink, topic and number: the first of several.
fn owners(workers: &[Worker]) -> HashMap<(&str, &str, i32), (&Worker, &PartitionReport)> {
    let mut owners = HashMap::new();
    for worker in workers.iter().filter(|worker| worker.live) {
        for report in &worker.heartbeat.partitions {
            let place =
                (worker.heartbeat.sink_id.as_str(), report.topic.as_str(), report.partition);
            owners.entry(place).or_insert((worker, report));
        }
    }
    owners
}

/// The same facts, per partition.
pub fn status(coordinator: &Coordinator) -> StatusReport {
    let view = coordinator.group.view();
    let workers = coordinator.fleet.workers(Instant::now());
    let lag = coordinator.lag.report(&view, &workers, unix_ms());
    let owners = owners(&workers);
    let partitions = lag
        .sinks
        .iter()
        .flat_map(|sink| sink.partitions.iter().map(|lag| (sink.sink_id.as_str(), lag)))
        .map(|(sink, lag)| {
            let tp = TopicPartition::new(lag.topic.as_str(), lag.partition);
            let seen = view.seen.as_ref();
            let position = seen.and_then(|seen| seen.position(sink, &tp));
            let owner = owners.get(&(sink, lag.topic.as_str(), lag.partition));
            PartitionStatus {
                sink_id: sink.to_owned(),
                topic: lag.topic.clone(),
                partition: lag.partition,
                watermark: lag.offset,
                incarnation: position.map(|position| position.incarnation),
                topic_id: position.map(|position| position.topic_id.clone()),
                lag: lag.lag,
                end: seen.and_then(|seen| seen.ends.get(&tp).copied()),
                committed: seen.and_then(|seen| Some(seen.committed.get(&tp)?.next.get())),
                worker: owner.map(|(worker, _)| worker.heartbeat.worker.id.clone()),
                state: owner.map(|(_, report)| report.state),
                queue_depth: owner.map(|(_, report)| report.queue_depth),
                last_flush_ms: owner.and_then(|(_, report)| report.last_flush_ms),
            }
        })
        .collect();
    StatusReport { health: health(coordinator), partitions }
}
