//! The verdict and the one word for a sink.

use std::time::Duration;

use cdc_shared::api::{
    Counters, DirectiveState, ErrorReport, Heartbeat, PartitionReport, PartitionState,
    WorkerIdentity, WorkerState,
};
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId};

use super::*;
use crate::fleet::Worker;
use crate::group::plan::GroupHold;
use crate::monitor::{LagLevel, Pace};

/// A heartbeat of `sink` that reports `(topic, partition, next offset)`.
pub(crate) fn heartbeat(sink: &str, worker: &str, at: &[(&str, i32, i64)]) -> Heartbeat {
    Heartbeat {
        pipeline_id: "demo".into(),
        worker: WorkerIdentity {
            id: worker.into(),
            version: "0".into(),
            config_hash: "0".into(),
            admin_address: "127.0.0.1:8091".into(),
        },
        sink_id: sink.into(),
        state: WorkerState::Running,
        partitions: at
            .iter()
            .map(|(topic, partition, next)| PartitionReport {
                topic: (*topic).into(),
                partition: *partition,
                position: Some(Position {
                    next: NextOffset::new(*next).unwrap(),
                    incarnation: Incarnation(0),
                    topic_id: TopicId("id".into()),
                    schemas: SchemaIds::default(),
                }),
                state: PartitionState::Running,
                hold: None,
                queue_depth: 0,
                last_flush_ms: None,
                next_source_ms: None,
            })
            .collect(),
        counters: Counters::default(),
        last_error: None,
        control_offset: 0,
        sequence: 0,
        tasks: Vec::new(),
        schema_questions: Vec::new(),
        replays: Vec::new(),
    }
}

pub(crate) fn worker(heartbeat: Heartbeat) -> Worker {
    Worker { heartbeat, age: Duration::ZERO, live: true }
}

fn sink(id: &str, status: SinkStatus) -> SinkHealth {
    SinkHealth {
        sink_id: id.into(),
        status,
        enabled: true,
        parked: Vec::new(),
        workers: Vec::new(),
        lag_records: Some(0),
        lag_seconds: Some(0.0),
        pace: None,
        catch_up_seconds: None,
        lag_level: LagLevel::Ok,
        last_flush_ms: None,
        last_error: None,
        directive: DirectiveState::Run,
        directive_reason: String::new(),
        tables: Vec::new(),
        holds: Vec::new(),
        dead_letters: Vec::new(),
    }
}

fn up() -> ServiceHealth {
    ServiceHealth { state: ServiceState::Up, ..ServiceHealth::default() }
}

fn down(error: &str) -> ServiceHealth {
    ServiceHealth { state: ServiceState::Down, brokers: None, error: Some(error.into()) }
}

/// A report with nothing wrong.
pub(crate) fn fine() -> HealthReport {
    HealthReport {
        schema_version: 1,
        pipeline_id: "demo".into(),
        at_ms: 0,
        verdict: Verdict::Unknown,
        reasons: Vec::new(),
        coordinator: LeaderHealth { leader: true, ..LeaderHealth::default() },
        source: SourceHealth {
            connector: ConnectorHealth {
                name: "cdc-demo".into(),
                state: "RUNNING".into(),
                trace: None,
            },
            tasks: vec![TaskHealth { id: 0, state: "RUNNING".into(), trace: None }],
            restarts: 0,
            silent_seconds: Some(1.0),
            silent: false,
            slot: Some(SlotHealth {
                name: "cdc_slot".into(),
                exists: true,
                active: true,
                retained_bytes: Some(1024),
                wal_status: Some("reserved".into()),
            }),
            error: None,
        },
        sinks: vec![sink("wh", SinkStatus::Running), sink("pg", SinkStatus::Running)],
        consumer_lag: Vec::new(),
        pipeline_group: GroupHealth::default(),
        kafka: up(),
        schema_registry: up(),
        connect: up(),
        redis: up(),
        schemas: SchemaHealth::default(),
    }
}

/// Verdict and codes of a report with one thing wrong.
fn with(change: impl FnOnce(&mut HealthReport)) -> (Verdict, Vec<String>) {
    let mut report = fine();
    change(&mut report);
    let reasons = judge(&report);
    (overall(&reasons), reasons.into_iter().map(|reason| reason.code).collect())
}

#[test]
fn all_well_is_ok() {
    assert_eq!(with(|_| {}), (Verdict::Ok, Vec::new()));
}

#[test]
fn each_trouble_has_its_weight() {
    use Verdict::{Critical, Degraded, Unknown};
    type Change = fn(&mut HealthReport);
    let cases: [(&str, Verdict, Change); 20] = [
        ("kafka_down", Critical, |r| r.kafka = down("x")),
        ("registry_down", Degraded, |r| r.schema_registry = down("x")),
        ("connect_down", Degraded, |r| r.connect = down("x")),
        ("redis_down", Degraded, |r| r.redis = down("x")),
        ("redis_down", Degraded, |r| r.redis.error = Some("evicts".into())),
        ("kafka_down", Unknown, |r| r.kafka = ServiceHealth::default()),
        ("connector_absent", Critical, |r| r.source.connector.state = "ABSENT".into()),
        ("connector_failed", Critical, |r| r.source.connector.state = "FAILED".into()),
        ("connector_not_running", Degraded, |r| r.source.connector.state = "PAUSED".into()),
        ("task_failed", Critical, |r| r.source.tasks[0].state = "FAILED".into()),
        ("connector_without_task", Degraded, |r| r.source.tasks.clear()),
        ("slot_absent", Critical, |r| r.source.slot.as_mut().unwrap().exists = false),
        ("slot_inactive", Degraded, |r| r.source.slot.as_mut().unwrap().active = false),
        ("slot_lost", Critical, |r| {
            r.source.slot.as_mut().unwrap().wal_status = Some("lost".into());
        }),
        ("no_worker", Critical, |r| r.sinks[0].status = SinkStatus::NoWorker),
        ("sink_degraded", Degraded, |r| r.sinks[0].status = SinkStatus::Degraded),
        ("sink_paused", Degraded, |r| r.sinks[0].status = SinkStatus::Paused),
        ("sink_parked", Degraded, |r| r.sinks[0].parked = vec!["t".into()]),
        ("group_waits", Degraded, |r| {
            r.pipeline_group.holds = vec![GroupHold {
                topic: "t".into(),
                partition: 0,
                sink_id: "wh".into(),
                reason: "no position reported yet".into(),
            }];
        }),
        ("group_in_use", Degraded, |r| r.pipeline_group.members = vec!["kcat at /h".into()]),
    ];
    for (code, verdict, change) in cases {
        assert_eq!(with(change), (verdict, vec![code.to_owned()]), "{code}");
    }
}

#[test]
fn the_worst_wins_and_comes_first() {
    let (verdict, codes) = with(|report| {
        report.redis = down("x");
        report.sinks[1].status = SinkStatus::NoWorker;
    });
    assert_eq!(verdict, Verdict::Critical);
    assert_eq!(codes, ["no_worker", "redis_down"]);
}

#[test]
fn a_follower_says_unknown_and_not_that_workers_are_gone() {
    let found = with(|report| {
        report.coordinator.leader = false;
        report.sinks[0].status = SinkStatus::NoWorker;
    });
    assert_eq!(found, (Verdict::Unknown, vec!["not_leader".to_owned()]));
}

#[test]
fn a_stop_by_name_is_critical_and_tells_its_way_out() {
    let mut report = fine();
    report.sinks[0].status = SinkStatus::Held;
    report.sinks[0].last_error =
        Some(ErrorReport { code: "x".into(), message: "m".into(), at_ms: 0 });
    report.sinks[0].holds = vec![HoldHealth {
        topic: "t".into(),
        partition: 2,
        state: PartitionState::Stopped,
        code: "offset_gap".into(),
        message: "records 5 to 9 are gone".into(),
        way_out: "cdc skip".into(),
        offset: Some(5),
    }];
    let reasons = judge(&report);
    assert_eq!(overall(&reasons), Verdict::Critical);
    assert_eq!(reasons[0].message, "sink wh: t[2]: records 5 to 9 are gone");
    assert_eq!(reasons[0].way_out.as_deref(), Some("cdc skip"));
}

#[test]
fn a_sink_has_one_word() {
    let mut held = heartbeat("wh", "a", &[("t", 0, 1)]);
    held.partitions[0].state = PartitionState::Stopped;
    let mut degraded = heartbeat("wh", "b", &[("t", 1, 1)]);
    degraded.state = WorkerState::Degraded;
    let mut starting = heartbeat("wh", "c", &[]);
    starting.state = WorkerState::Starting;
    let running = heartbeat("wh", "d", &[("t", 2, 1)]);
    let [held, degraded, starting, running] = [held, degraded, starting, running].map(worker);
    let run = |workers: &[&Worker]| SinkStatus::of(true, DirectiveState::Run, workers);
    assert_eq!(run(&[]), SinkStatus::NoWorker);
    assert_eq!(SinkStatus::of(false, DirectiveState::Run, &[]), SinkStatus::Disabled);
    assert_eq!(run(&[&starting]), SinkStatus::Starting);
    assert_eq!(run(&[&starting, &running]), SinkStatus::Running);
    assert_eq!(run(&[&running, &degraded]), SinkStatus::Degraded);
    assert_eq!(run(&[&running, &degraded, &held]), SinkStatus::Held);
    assert_eq!(SinkStatus::of(true, DirectiveState::Pause, &[&running]), SinkStatus::Paused);
    assert_eq!(SinkStatus::of(true, DirectiveState::Stop, &[]), SinkStatus::Stopped);
}

#[test]
fn the_report_has_the_shape_that_is_promised() {
    let mut report = fine();
    report.consumer_lag.push(crate::monitor::PartitionLag {
        topic: "cdc.public.customers".into(),
        partition: 0,
        lag: Some(823),
        offset: Some(4177),
    });
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["pipeline_id"], "demo");
    assert_eq!(json["source"]["connector"]["state"], "RUNNING");
    assert_eq!(json["source"]["tasks"][0]["state"], "RUNNING");
    assert_eq!(json["sinks"][0]["sink_id"], "wh");
    assert_eq!(json["sinks"][0]["status"], "running");
    assert_eq!(json["consumer_lag"][0]["lag"], 823);
    assert_eq!(json["consumer_lag"][0]["offset"], 4177);
    assert_eq!(serde_json::from_value::<HealthReport>(json).unwrap(), report);
}

#[test]
fn a_lag_beyond_its_threshold_tells_when_it_ends() {
    let mut report = fine();
    let behind = |pace, catch_up_seconds, lag_level| SinkHealth {
        lag_records: Some(5000),
        lag_seconds: Some(400.0),
        pace,
        catch_up_seconds,
        lag_level,
        ..sink("wh", SinkStatus::Running)
    };
    let pace =
        |out, incoming| Some(Pace { records_per_second: out, incoming_per_second: incoming });
    report.sinks = vec![
        behind(pace(200.0, 100.0), Some(50.0), LagLevel::Warning),
        behind(pace(10.0, 100.0), None, LagLevel::Critical),
        behind(None, None, LagLevel::Ok),
    ];
    let reasons = judge(&report);
    let told: Vec<_> =
        reasons.iter().map(|r| (r.severity, r.code.as_str(), r.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (
                Severity::Critical,
                "lag_critical",
                "sink wh is 5000 records and 400 s behind; it delivers 10 records/s while 100 \
                 come, and never catches up so"
            ),
            (
                Severity::Degraded,
                "lag_warning",
                "sink wh is 5000 records and 400 s behind; at 200 records/s it has caught up in \
                 50 s"
            ),
        ]
    );
}
