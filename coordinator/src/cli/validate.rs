//! `validate`: the configuration alone, and on demand everything it reaches.

use std::process::ExitCode;
use std::time::Duration;

use cdc_shared::config::{PipelineConfig, Sections};
use serde::Serialize;

use super::args::ValidateArgs;
use super::load::load_for;
use super::{Exit, Failure, probe};
use crate::connect::Connect;
use crate::deploy::{self, connector::PIPELINE_MARK, topics};
use crate::source::{self, Finding, Level};

/// What was found about one part.
#[derive(Debug, Serialize)]
struct Part {
    part: &'static str,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Report {
    pipeline_id: String,
    valid: bool,
    parts: Vec<Part>,
}

pub(super) async fn run(args: &ValidateArgs) -> Result<ExitCode, Failure> {
    let loaded = load_for(&args.target, Sections::All)?;
    let config = &loaded.config;
    let mut parts = vec![Part { part: "configuration", findings: own(config, &loaded.warnings) }];
    let mut exit = None;
    if args.connect {
        for (part, result) in reached(config).await {
            let findings = result.unwrap_or_else(|failure| {
                exit.get_or_insert(failure.exit);
                vec![Finding { level: Level::Error, message: failure.message, hint: failure.hint }]
            });
            parts.push(Part { part, findings });
        }
    }
    let errors = parts.iter().flat_map(|p| &p.findings).filter(|f| f.level == Level::Error).count();
    let report = Report { pipeline_id: config.pipeline_id.clone(), valid: errors == 0, parts };
    super::print(args.json, &report, &report)?;
    match (errors, exit) {
        (0, _) => Ok(ExitCode::SUCCESS),
        // One service that cannot be reached is what a script wants to tell from a wrong setting.
        (1, Some(exit)) => Ok(exit.into()),
        _ => Ok(Exit::Config.into()),
    }
}

/// What the configuration alone says.
fn own(config: &PipelineConfig, warnings: &[String]) -> Vec<Finding> {
    let enabled = config.sinks.iter().filter(|sink| sink.enabled).count();
    let mut findings = vec![Finding::ok(format!(
        "pipeline {}: {} tables, {enabled} of {} sinks enabled",
        config.pipeline_id,
        config.source.tables.len(),
        config.sinks.len()
    ))];
    findings.extend(topics::name_collisions(config).into_iter().map(Finding::error));
    findings.extend(warnings.iter().map(Finding::warning));
    findings
}

/// Longest time for Kafka to answer.
const PATIENCE: Duration = Duration::from_secs(12);

type Reached = Vec<(&'static str, Result<Vec<Finding>, Failure>)>;

async fn reached(config: &PipelineConfig) -> Reached {
    let (source, kafka, registry, connect) = tokio::join!(
        source::inspect(config),
        probe::kafka(&config.kafka, PATIENCE),
        probe::registry(&config.kafka),
        connect(config)
    );
    let answered = |what: &str, address: &str, answer: Result<String, Failure>| {
        answer.map(|detail| vec![Finding::ok(format!("{what} at {address} answers: {detail}"))])
    };
    vec![
        ("source", source),
        ("kafka", answered("Kafka", &config.kafka.bootstrap_servers, kafka)),
        ("schema registry", {
            answered("the schema registry", &config.kafka.schema_registry_url, registry)
        }),
        ("kafka connect", connect),
    ]
}

async fn connect(config: &PipelineConfig) -> Result<Vec<Finding>, Failure> {
    let connect = Connect::new(&config.connector)?;
    let at = connect.address();
    let version = connect.version().await?;
    let mut findings = vec![Finding::ok(format!("Kafka Connect {version} at {at} answers"))];
    let missing = deploy::missing_plugins(config, &connect.plugins().await?);
    if missing.is_empty() {
        findings.push(Finding::ok("connector, converter and transform are there"));
    }
    findings.extend(missing.iter().map(|class| {
        Finding::error(format!("Kafka Connect at {at} lacks {class}"))
            .hint("put its jar in plugin.path of the Connect workers and restart them")
    }));
    let name = config.connector_name();
    let all = connect.connectors().await?;
    findings.extend(deploy::conflicts(config, &all)?.into_iter().map(Finding::error));
    match all.get(&name) {
        None => findings.push(Finding::info(format!("connector {name} is not deployed yet"))),
        Some(existing) if existing.contains_key(PIPELINE_MARK) => {
            let status = connect.status(&name).await?.unwrap_or_default();
            findings.push(Finding::info(format!("{name}: {}", status.describe())));
        }
        Some(existing) => {
            findings.push(
                Finding::warning(format!("connector {name} was not made by this program"))
                    .hint("deploy --adopt takes it over"),
            );
            let lost = deploy::settings_that_lose(existing);
            findings.extend(lost.into_iter().map(|l| Finding::error(format!("{name}: {l}"))));
        }
    }
    Ok(findings)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.parts {
            writeln!(f, "{}", part.part)?;
            for finding in &part.findings {
                let mark = match finding.level {
                    Level::Ok => "ok     ",
                    Level::Info => "info   ",
                    Level::Warning => "warning",
                    Level::Error => "error  ",
                };
                writeln!(f, "  {mark}  {}", finding.message)?;
                if let Some(hint) = &finding.hint {
                    writeln!(f, "           way out: {hint}")?;
                }
            }
        }
        write!(f, "{}", if self.valid { "valid" } else { "not valid" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_shows_every_level_and_its_way_out() {
        let report = Report {
            pipeline_id: "demo".into(),
            valid: false,
            parts: vec![Part {
                part: "source",
                findings: vec![Finding::ok("fine"), Finding::error("bad").hint("mend it")],
            }],
        };
        assert_eq!(
            report.to_string(),
            "source\n  ok       fine\n  error    bad\n           way out: mend it\nnot valid"
        );
    }
}
