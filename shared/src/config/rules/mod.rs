//! What the types alone cannot say: settings that need or exclude each other, addresses, names.

mod connections;
mod iceberg;
mod sinks;
mod source;

use std::collections::BTreeSet;

use super::error::ConfigError;
use super::sections::{Usage, covers};
use super::tree::Node;
use super::{LagConfig, PipelineConfig};

/// Collects what the rules find, with the place of each setting.
pub(super) struct Findings<'a> {
    tree: &'a Node,
    usage: &'a Usage,
    unresolved: &'a BTreeSet<String>,
    errors: &'a mut Vec<ConfigError>,
    /// Paths that were wrong before: a rule about a default in their place would only confuse.
    failed: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(
        tree: &'a Node,
        usage: &'a Usage,
        unresolved: &'a BTreeSet<String>,
        errors: &'a mut Vec<ConfigError>,
    ) -> Self {
        let failed = errors.iter().map(|error| error.path.clone()).collect();
        Self { tree, usage, unresolved, errors, failed, warnings: Vec::new() }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Something is wrong with the setting at `path`.
    fn error(&mut self, path: &str, message: impl Into<String>) {
        let silent = self.unresolved.contains(path)
            || self
                .failed
                .iter()
                .any(|failed| !failed.is_empty() && (covers(failed, path) || covers(path, failed)));
        if !silent {
            let place = self.tree.place_of(path).clone();
            self.errors.push(ConfigError { place, path: path.to_owned(), message: message.into() });
        }
    }

    /// The setting at `path` deserves attention.
    fn warning(&mut self, path: &str, message: &str) {
        self.warnings.push(format!("{}: {path}: {message}", self.tree.place_of(path)));
    }

    /// Reports the error, if there is one.
    fn check(&mut self, path: &str, result: Result<(), String>) {
        if let Err(message) = result {
            self.error(path, message);
        }
    }

    /// Whether the process uses the setting.
    fn uses(&self, path: &str) -> bool {
        self.usage.uses(path)
    }
}

/// Applies every rule.
pub(super) fn check(config: &PipelineConfig, findings: &mut Findings<'_>) {
    source::check(config, findings);
    connections::check(config, findings);
    sinks::check(config, findings);
    log_level(&config.log_level, findings);
    lag(&config.lag, findings);
    let between = f64::from(config.source.heartbeat_interval_ms) / 1000.0;
    let silence = config.lag.heartbeat_seconds;
    if silence > 0.0 && silence < 2.0 * between {
        let message = "must be at least twice source.heartbeat_interval_ms, or 0";
        findings.error("lag.heartbeat_seconds", message);
    }
    for (path, retry) in retries(config) {
        if retry.max_wait_seconds < retry.initial_wait_seconds {
            let message = format!(
                "must not be less than initial_wait_seconds ({})",
                retry.initial_wait_seconds
            );
            findings.error(&format!("{path}.max_wait_seconds"), message);
        }
        if retry.on_exhausted == super::OnExhausted::Dlq && !config.dlq.enabled {
            findings.error(&format!("{path}.on_exhausted"), "dlq needs dlq.enabled: true");
        }
    }
}

fn retries(config: &PipelineConfig) -> impl Iterator<Item = (String, &super::RetryConfig)> {
    let of_sinks = config.sinks.iter().enumerate();
    // With sinks, each has the pipeline's fields laid under its own, so they are judged there.
    let own = config.sinks.is_empty().then(|| ("retry".to_owned(), &config.retry));
    own.into_iter()
        .chain(of_sinks.map(|(index, sink)| (format!("sinks[{index}].retry"), &sink.retry)))
}

/// What is critical is worth a warning before.
fn lag(lag: &LagConfig, findings: &mut Findings<'_>) {
    let LagConfig { warning, critical, .. } = lag;
    let below = |critical: Option<f64>, warning: Option<f64>| {
        critical.zip(warning).is_some_and(|(critical, warning)| critical < warning)
    };
    if below(critical.seconds, warning.seconds) {
        findings.error("lag.critical.seconds", "must not be less than lag.warning.seconds");
    }
    let number = |records: Option<u64>| records.map(|n| n as f64);
    if below(number(critical.records), number(warning.records)) {
        findings.error("lag.critical.records", "must not be less than lag.warning.records");
    }
}

fn log_level(level: &str, findings: &mut Findings<'_>) {
    const LEVELS: [&str; 7] = ["off", "error", "warn", "warning", "info", "debug", "trace"];
    let is_filter = level.contains(['=', ',']);
    if !is_filter && !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
        let message = format!(
            "expected one of ERROR, WARN, INFO, DEBUG, TRACE or a filter such as \
             info,rdkafka=debug, found `{level}`"
        );
        findings.error("log_level", message);
    }
}
