//! All workers of a pipeline and the coordinator beside them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{LogFormat, PipelineConfig};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::child::{Ended, Stop, Worker};
use crate::cli::args::Target;
use crate::cli::{Exit, Failure};

/// What a worker may take beyond its own drain time before it is killed.
const MARGIN: Duration = Duration::from_secs(5);

/// The worker binary, which is installed beside this one.
pub(super) fn worker_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|e| Failure::new(Exit::Software, format!("find our own program: {e}")))?;
    let program = own.with_file_name("cdc-worker");
    if program.exists() {
        return Ok(program);
    }
    Err(Failure::new(Exit::NoInput, format!("{} does not exist", program.display()))
        .hint("install cdc-worker beside this program (cargo build builds both)"))
}

/// The workers to run, one per enabled sink.
pub(super) struct Fleet {
    workers: Vec<Worker>,
}

impl Fleet {
    pub(super) fn new(config: &PipelineConfig, target: &Target, program: &Path) -> Self {
        let enabled = || config.sinks.iter().filter(|sink| sink.enabled);
        let width = enabled().map(|sink| sink.sink_id.len()).max().unwrap_or(0);
        let workers = enabled()
            .map(|sink| Worker {
                sink: sink.sink_id.clone(),
                program: program.to_owned(),
                arguments: arguments(target, &sink.sink_id),
                prefix: match config.log_format {
                    LogFormat::Text => format!("{:<width$} | ", sink.sink_id),
                    LogFormat::Json => String::new(),
                },
                grace: config.drain() + MARGIN,
            })
            .collect();
        Self { workers }
    }
}

fn arguments(target: &Target, sink: &str) -> Vec<String> {
    let mut arguments =
        vec!["run".into(), target.config.display().to_string(), "--sink".into(), sink.into()];
    arguments.push("--until-stdin-ends".into());
    if let Some(file) = &target.platform_config {
        arguments.extend(["--platform-config".into(), file.display().to_string()]);
    }
    arguments
}

/// Runs everything until a signal, or until nothing is left to run.
pub(super) async fn supervise(
    fleet: Fleet,
    mut coordinator: JoinHandle<Result<(), Failure>>,
    stop_coordinator: CancellationToken,
    mut signals: Signals,
) -> Result<ExitCode, Failure> {
    let stop = Stop::default();
    let backoff = RetryPolicy {
        initial_wait: Duration::from_millis(500),
        max_wait: Duration::from_secs(30),
        ..RetryPolicy::default()
    };
    let mut workers = JoinSet::new();
    for worker in fleet.workers {
        let sink = worker.sink.clone();
        let ended = worker.supervise(stop.clone(), backoff);
        workers.spawn(async move { (sink, ended.await) });
    }
    let mut outcome = Outcome::default();
    let mut failure = None;
    while !workers.is_empty() || (!outcome.stopping && outcome.misconfigured == 0) {
        tokio::select! {
            ended = workers.join_next(), if !workers.is_empty() => outcome.note(ended),
            done = &mut coordinator, if failure.is_none() && !stop_coordinator.is_cancelled() => {
                failure = Some(coordinator_ended(done));
                outcome.stopping = true;
                stop.drain.cancel();
            }
            () = signals.next() => {
                if outcome.stopping {
                    tracing::warn!("second signal: ending at once");
                    stop.kill.cancel();
                } else {
                    tracing::info!("draining; a second signal ends at once");
                    outcome.stopping = true;
                    stop.drain.cancel();
                }
            }
        }
    }
    // Last, so that it still heard the workers' final reports.
    stop_coordinator.cancel();
    if let Some(failure) = failure {
        return Err(failure);
    }
    if let Ok(Err(error)) = coordinator.await {
        tracing::warn!(%error, "coordinator");
    }
    Ok(outcome.code())
}

fn coordinator_ended(done: Result<Result<(), Failure>, tokio::task::JoinError>) -> Failure {
    match done {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => Failure::new(Exit::Software, "the coordinator ended by itself"),
        Err(error) => Failure::new(Exit::Software, format!("the coordinator failed: {error}")),
    }
}

/// What happened to the workers so far.
#[derive(Debug, Default)]
struct Outcome {
    stopping: bool,
    killed: usize,
    misconfigured: usize,
}

impl Outcome {
    fn note(&mut self, ended: Option<Result<(String, Ended), tokio::task::JoinError>>) {
        match ended {
            Some(Ok((sink, Ended::Drained))) => tracing::info!(%sink, "worker drained"),
            Some(Ok((sink, Ended::Killed))) => {
                tracing::warn!(%sink, "worker killed; what it held will be delivered again");
                self.killed += 1;
            }
            Some(Ok((sink, Ended::Misconfigured(reason)))) => {
                tracing::error!(%sink, %reason,
                    "worker refuses its configuration (see its lines above); it is not started \
                     again, the others go on");
                self.misconfigured += 1;
            }
            Some(Err(error)) => tracing::error!(%error, "supervision ended"),
            None => {}
        }
    }

    fn code(&self) -> ExitCode {
        match (self.misconfigured, self.killed) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => Exit::TempFail.into(),
            _ => Exit::Config.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::SinkConfig;

    use super::*;

    #[test]
    fn every_enabled_sink_gets_its_worker() {
        let sink =
            |id: &str, enabled| SinkConfig { sink_id: id.into(), enabled, ..SinkConfig::default() };
        let config = PipelineConfig {
            sinks: vec![sink("wh", true), sink("off", false), sink("analytics", true)],
            ..PipelineConfig::default()
        };
        let target =
            Target { config: "p.yaml".into(), platform_config: Some("platform.yaml".into()) };
        let fleet = Fleet::new(&config, &target, Path::new("/x/cdc-worker"));
        let lines: Vec<String> = fleet
            .workers
            .iter()
            .map(|w| format!("{}{}", w.prefix, w.arguments.join(" ")))
            .collect();
        assert_eq!(
            lines,
            [
                "wh        | run p.yaml --sink wh --until-stdin-ends --platform-config \
                 platform.yaml",
                "analytics | run p.yaml --sink analytics --until-stdin-ends --platform-config \
                 platform.yaml",
            ]
        );
    }
}
