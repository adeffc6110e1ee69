//! `health`: the coordinator's answer, or what can be seen without it.

mod probed;
pub(super) mod table;
pub(super) mod view;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use cdc_shared::api::HEALTH_PATH;
use cdc_shared::config::{PipelineConfig, Sections};
use serde::Deserialize as _;
use serde_json::Value;

use super::Failure;
use super::args::{HealthArgs, Target};
use super::client::Coordinator;
use super::load::{load, load_for, load_platform};
use crate::health::HealthReport;

/// Longest time for all questions together: with start and end the command takes three seconds.
const LIMIT: Duration = Duration::from_millis(2500);
/// The coordinator answers from memory. When it has not by then, the services are asked as well,
/// while it may still answer.
const HEAD_START: Duration = Duration::from_millis(300);
/// What is left to the services then.
const SERVICES_LIMIT: Duration = Duration::from_millis(2200);

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
        return Ok(Box::pin(probed::services(platform(args)?, LIMIT)).await.report(None));
    };
    let target = Target { config: config.clone(), platform_config: args.platform_config.clone() };
    // Whoever may only look has no other secrets than the coordinator's token.
    let client = load_for(&target, Sections::Client)?.config;
    let coordinator = Coordinator::new(&client)?;
    let mut asked = pin!(coordinator.get_within(HEALTH_PATH, LIMIT));
    let early = tokio::time::timeout(HEAD_START, &mut asked).await;
    if let Ok(Ok(report)) = early {
        return Ok(report);
    }
    let answered = async {
        let answer = if let Ok(answer) = early { answer } else { asked.await };
        // The coordinator's report ends the waiting for the services: hence the other way round.
        answer.map_or_else(Ok, Err)
    };
    let services = async {
        Ok(match load(&target) {
            Ok(config) => Ok(Box::pin(probed::services(config, SERVICES_LIMIT)).await),
            Err(wrong) => Err(wrong),
        })
    };
    Ok(match tokio::try_join!(answered, Box::pin(services)) {
        Err(report) => report,
        Ok((failure, Ok(services))) => services.report(Some(&failure)),
        Ok((failure, Err(wrong))) => probed::unprobed(&client, &failure, &wrong),
    })
}

/// The addresses of the command line on top of the platform's settings.
fn platform(args: &HealthArgs) -> Result<PipelineConfig, Failure> {
    let mut config = load_platform(args.platform_config.as_deref())?;
    if let Some(servers) = &args.bootstrap_servers {
        config.kafka.bootstrap_servers.clone_from(servers);
    }
    if let Some(url) = &args.schema_registry_url {
        config.kafka.schema_registry_url.clone_from(url);
    }
    if let Some(url) = &args.connect_url {
        config.connector.connect_url.clone_from(url);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_verdict_is_the_exit_code() {
        let code = |status: &str| Verdict::of(&json!({ "verdict": status })) as u8;
        assert_eq!(["ok", "degraded", "critical", "?"].map(code), [0, 1, 2, 3]);
        assert_eq!(Verdict::of(&Value::Null), Verdict::Unknown);
    }
}
