//! `health`: the coordinator's answer, or what can be seen without it.

pub(super) mod table;
pub(super) mod view;

use std::process::ExitCode;

use cdc_shared::api::HEALTH_PATH;
use cdc_shared::config::PipelineConfig;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::args::{HealthArgs, Target};
use super::client::Coordinator;
use super::load::load;
use super::{Failure, probe};
use crate::health::HealthReport;

/// How a pipeline is; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok = 0,
    Degraded = 1,
    Critical = 2,
    Unknown = 3,
}

impl Verdict {
    fn of(report: &Value) -> Self {
        match report["verdict"].as_str() {
            Some("ok") => Self::Ok,
            Some("degraded") => Self::Degraded,
            Some("critical") => Self::Critical,
            _ => Self::Unknown,
        }
    }
}

pub(super) async fn run(args: &HealthArgs) -> Result<ExitCode, Failure> {
    let report = report(args).await?;
    super::print(args.json, &report, &text(&report))?;
    Ok(ExitCode::from(Verdict::of(&report) as u8))
}

/// The coordinator's report in its own form; what another version or our own probes say, field by
/// field.
fn text(report: &Value) -> String {
    HealthReport::deserialize(report)
        .map_or_else(|_| table::outline(report), |report| view::health(&report))
}

async fn report(args: &HealthArgs) -> Result<Value, Failure> {
    let Some(config) = &args.config else {
        return Ok(probed(&without_file(args), None).await);
    };
    let target = Target { config: config.clone(), platform_config: args.platform_config.clone() };
    let config = load(&target)?;
    match Coordinator::new(&config)?.get(HEALTH_PATH).await {
        Ok(report) => Ok(report),
        Err(failure) => Ok(probed(&config, Some(&failure)).await),
    }
}

/// The addresses of the command line or the environment on top of the defaults.
fn without_file(args: &HealthArgs) -> PipelineConfig {
    let mut config = PipelineConfig::default();
    if let Some(servers) = &args.bootstrap_servers {
        config.kafka.bootstrap_servers.clone_from(servers);
    }
    if let Some(url) = &args.schema_registry_url {
        config.kafka.schema_registry_url.clone_from(url);
    }
    if let Some(url) = &args.connect_url {
        config.connector.connect_url.clone_from(url);
    }
    config
}

/// What can be seen without a coordinator. With one expected, the sinks are unknown.
async fn probed(config: &PipelineConfig, coordinator: Option<&Failure>) -> Value {
    let (kafka, registry, connect) = tokio::join!(
        probe::kafka(&config.kafka),
        probe::registry(&config.kafka),
        probe::connect(config)
    );
    let broken = kafka.is_err() || registry.is_err() || connect.is_err();
    let verdict = match (broken, coordinator) {
        (true, _) => "critical",
        (false, Some(_)) => "unknown",
        (false, None) => "ok",
    };
    let mut report = json!({
        "verdict": verdict,
        "kafka": service(&config.kafka.bootstrap_servers, kafka),
        "schema_registry": service(&config.kafka.schema_registry_url, registry),
        "connect": service(&config.connector.connect_url, connect),
    });
    if let Some(failure) = coordinator {
        report["pipeline_id"] = json!(config.pipeline_id);
        report["coordinator"] = service(&config.coordinator.base_url(), Err(failure.clone()));
    }
    report
}

fn service(address: &str, answer: Result<String, Failure>) -> Value {
    match answer {
        Ok(detail) => json!({ "address": address, "state": "up", "detail": detail }),
        Err(failure) => {
            json!({ "address": address, "state": "down", "detail": failure.message,
                    "way_out": failure.hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_exit_code() {
        let code = |status: &str| Verdict::of(&json!({ "verdict": status })) as u8;
        assert_eq!(["ok", "degraded", "critical", "?"].map(code), [0, 1, 2, 3]);
        assert_eq!(Verdict::of(&Value::Null), Verdict::Unknown);
    }

    #[test]
    fn a_service_that_fails_says_why() {
        let failure = Failure::unreachable("Kafka", "k:1", "refused").hint("start it");
        let report = service("k:1", Err(failure));
        assert_eq!(report["state"], "down");
        assert_eq!(report["detail"], "cannot reach Kafka at k:1: refused");
        assert_eq!(report["way_out"], "start it");
    }
}
