//! What can be seen without a coordinator, in the shape of its report.

use std::future::Future;
use std::time::Duration;

use cdc_shared::config::{PipelineConfig, WatermarkStore};
use serde_json::{Value, json};

use crate::cli::probe::{self, Connected, Connector};
use crate::cli::{Exit, Failure};
use crate::connect::Settled;
use crate::health::{SlotHealth, slot};

/// What the services answered.
pub(super) struct Services {
    config: PipelineConfig,
    kafka: Result<String, Failure>,
    registry: Result<String, Failure>,
    connect: Result<Connected, Failure>,
    /// `None`: no part of it.
    redis: Option<Result<String, Failure>>,
    source: Option<Result<SlotHealth, Failure>>,
}

/// Asks all at once; what has not answered within `limit` is given up.
pub(super) async fn services(config: PipelineConfig, limit: Duration) -> Services {
    let of_pipeline = !config.pipeline_id.is_empty();
    let redis = of_pipeline && config.coordinator.watermark_store == WatermarkStore::Redis;
    let source_at = format!("{}:{}", config.source.host, config.source.port);
    let (kafka_at, registry_at, connect_at, redis_at) = (
        &config.kafka.bootstrap_servers,
        &config.kafka.schema_registry_url,
        &config.connector.connect_url,
        &config.redis.url,
    );
    let (kafka, registry, connect, redis, source) = tokio::join!(
        limited(limit, "Kafka", kafka_at, probe::kafka(&config.kafka, limit)),
        limited(limit, "the schema registry", registry_at, probe::registry(&config.kafka)),
        limited(limit, "Kafka Connect", connect_at, probe::connect(&config)),
        asked(redis, limited(limit, "Redis", redis_at, probe::redis(&config))),
        asked(of_pipeline, limited(limit, "the source", &source_at, slot(&config))),
    );
    let source = source.and_then(Result::transpose);
    Services { config, kafka, registry, connect, redis, source }
}

async fn asked<T>(wanted: bool, question: impl Future<Output = T>) -> Option<T> {
    if wanted { Some(question.await) } else { None }
}

impl Services {
    /// The report. With a coordinator expected, the sinks are unknown.
    pub(super) fn report(self, coordinator: Option<&Failure>) -> Value {
        let config = &self.config;
        let mut reasons = Reasons::default();
        reasons.service("critical", "kafka_down", self.kafka.as_ref().err());
        reasons.service("critical", "registry_down", self.registry.as_ref().err());
        reasons.service("critical", "connect_down", self.connect.as_ref().err());
        let of_redis = self.redis.as_ref().and_then(|answer| answer.as_ref().err());
        reasons.service("degraded", "redis_down", of_redis);
        let of_source = self.source.as_ref().and_then(|answer| answer.as_ref().err());
        reasons.service("degraded", "source_unreadable", of_source);
        let connect = self.connect.as_ref();
        let found = connect.map_or(&Connector::Unknown, |connected| &connected.connector);
        reasons.connector(&config.connector_name(), found);
        reasons.coordinator(coordinator);
        let mut report = shape(config, &reasons, coordinator, found);
        report["kafka"] = service(&config.kafka.bootstrap_servers, self.kafka);
        report["schema_registry"] = service(&config.kafka.schema_registry_url, self.registry);
        let version = |connected: Connected| format!("version {}", connected.version);
        report["connect"] = service(&config.connector.connect_url, self.connect.map(version));
        if let Some(redis) = self.redis {
            report["redis"] = service(&config.redis.url, redis);
        }
        match self.source {
            Some(Ok(slot)) => report["source"]["slot"] = json!(slot),
            Some(Err(failure)) => report["source"]["error"] = json!(failure.message),
            None => {}
        }
        report
    }
}

/// When not even the services can be asked.
pub(super) fn unprobed(config: &PipelineConfig, coordinator: &Failure, wrong: &Failure) -> Value {
    let mut reasons = Reasons::default();
    reasons.coordinator(Some(coordinator));
    reasons.add(
        "unknown",
        "configuration",
        &Failure::new(
            Exit::Config,
            format!("the services were not asked either: {}", wrong.message),
        ),
    );
    shape(config, &reasons, Some(coordinator), &Connector::Unknown)
}

fn shape(
    config: &PipelineConfig,
    reasons: &Reasons,
    coordinator: Option<&Failure>,
    found: &Connector,
) -> Value {
    let mut report = json!({ "verdict": reasons.verdict(), "reasons": reasons.0 });
    let Some(failure) = coordinator else { return report };
    let (state, tasks) = match found {
        Connector::Unknown => ("UNKNOWN", Vec::new()),
        Connector::Absent => ("ABSENT", Vec::new()),
        Connector::Found(status) => {
            let tasks = status.tasks.iter().map(|task| json!({"id": task.id, "state": task.state}));
            (status.connector.state.as_str(), tasks.collect())
        }
    };
    let sinks: Vec<Value> = config
        .sinks
        .iter()
        .map(
            |sink| json!({ "sink_id": sink.sink_id, "status": "unknown", "enabled": sink.enabled }),
        )
        .collect();
    report["pipeline_id"] = json!(config.pipeline_id);
    report["source"] =
        json!({ "connector": { "name": config.connector_name(), "state": state }, "tasks": tasks });
    report["sinks"] = json!(sinks);
    report["consumer_lag"] = json!([]);
    report["coordinator"] = service(&config.coordinator.base_url(), Err(failure.clone()));
    report
}

async fn limited<T>(
    limit: Duration,
    name: &str,
    address: &str,
    probe: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, probe).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {limit:?}");
        Err(Failure::unreachable(name, address, &cause))
    })
}

fn service(address: &str, answer: Result<String, Failure>) -> Value {
    match answer {
        Ok(detail) => json!({ "address": address, "state": "up", "detail": detail }),
        Err(failure) => json!({ "address": address, "state": "down", "error": failure.message }),
    }
}

/// What is wrong, as the coordinator would list it.
#[derive(Debug, Default)]
struct Reasons(Vec<Value>);

impl Reasons {
    fn add(&mut self, severity: &str, code: &str, failure: &Failure) {
        let mut reason = json!({ "severity": severity, "code": code, "message": failure.message });
        if let Some(hint) = &failure.hint {
            reason["way_out"] = json!(hint);
        }
        self.0.push(reason);
    }

    fn service(&mut self, severity: &str, code: &str, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.add(severity, code, failure);
        }
    }

    fn coordinator(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.add("unknown", "coordinator_down", failure);
        }
    }

    fn connector(&mut self, name: &str, found: &Connector) {
        let settled = match found {
            Connector::Unknown => return,
            Connector::Absent => None,
            Connector::Found(status) => Some(status.settled()),
        };
        let (severity, code, message, hint) = match settled {
            Some(Settled::Running) => return,
            None => (
                "critical",
                "connector_absent",
                format!("connector {name} does not exist"),
                "cdc deploy FILE",
            ),
            Some(Settled::Failed(reason)) => (
                "critical",
                "connector_failed",
                format!("connector {name} has failed: {}", reason.replace("\n  ", "; ")),
                "remove the cause, then cdc deploy FILE",
            ),
            Some(Settled::Held(state) | Settled::NotYet(state)) => (
                "degraded",
                "connector_not_running",
                format!("connector {name} does not run: {state}"),
                "resume it in Kafka Connect",
            ),
        };
        self.add(severity, code, &Failure::new(Exit::Unavailable, message).hint(hint));
    }

    /// Critical before all; and without the coordinator nothing is known to be merely degraded.
    fn verdict(&self) -> &'static str {
        ["critical", "unknown", "degraded"]
            .into_iter()
            .find(|verdict| self.0.iter().any(|reason| reason["severity"] == *verdict))
            .unwrap_or("ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::{ConnectorStatus, TaskStatus};

    fn away() -> Failure {
        Failure::unreachable("the coordinator", "http://c", "refused").hint("start it")
    }

    fn found(state: &str) -> Connector {
        let part = TaskStatus { state: state.into(), ..TaskStatus::default() };
        Connector::Found(ConnectorStatus { connector: part.clone(), tasks: vec![part] })
    }

    #[test]
    fn the_verdict_says_the_worst_and_unknown_where_the_coordinator_is_away() {
        let verdict = |state: Option<&str>, coordinator: Option<&Failure>, down: bool| {
            let mut reasons = Reasons::default();
            reasons.service("critical", "kafka_down", down.then(away).as_ref());
            reasons.connector("c", &state.map_or(Connector::Absent, found));
            reasons.coordinator(coordinator);
            reasons.verdict()
        };
        let away = away();
        assert_eq!(verdict(Some("RUNNING"), None, false), "ok");
        assert_eq!(verdict(Some("RUNNING"), None, true), "critical");
        assert_eq!(verdict(Some("RUNNING"), Some(&away), false), "unknown");
        assert_eq!(verdict(Some("PAUSED"), None, false), "degraded");
        assert_eq!(verdict(Some("PAUSED"), Some(&away), false), "unknown");
        assert_eq!(verdict(Some("FAILED"), Some(&away), false), "critical");
        assert_eq!(verdict(None, Some(&away), false), "critical");
    }

    #[test]
    fn the_report_keeps_the_promised_shape_without_a_coordinator() {
        let mut config = PipelineConfig { pipeline_id: "demo".into(), ..PipelineConfig::default() };
        config.sinks.push(cdc_shared::config::SinkConfig {
            sink_id: "wh".into(),
            ..cdc_shared::config::SinkConfig::default()
        });
        let report = shape(&config, &Reasons::default(), Some(&away()), &found("RUNNING"));
        assert_eq!(report["pipeline_id"], "demo");
        assert_eq!(report["source"]["connector"]["state"], "RUNNING");
        assert_eq!(report["source"]["tasks"][0]["state"], "RUNNING");
        assert_eq!(report["sinks"][0]["sink_id"], "wh");
        assert_eq!(report["sinks"][0]["status"], "unknown");
        assert!(report["consumer_lag"].as_array().unwrap().is_empty());
        assert_eq!(report["coordinator"]["state"], "down");
    }

    #[tokio::test]
    async fn a_service_that_hangs_is_given_up() {
        let hung = std::future::pending::<Result<(), Failure>>();
        let failure = limited(Duration::from_millis(5), "Kafka", "k:1", hung).await.unwrap_err();
        assert_eq!(failure.message, "cannot reach Kafka at k:1: no answer within 5ms");
    }
}
