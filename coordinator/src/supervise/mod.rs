//! `run`: the whole pipeline on one machine, and `serve`: the coordinator alone.

mod child;
mod fleet;

use std::process::ExitCode;
use std::sync::Arc;

use cdc_shared::config::{CoordinatorConfig, PipelineConfig, Sections, WatermarkStore};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::args::{RunArgs, Target};
use crate::cli::{Exit, Failure, load, progress, say};
use crate::deploy::{self, DeployOptions};
use crate::{CoordinatorError, ServeOptions};

/// Logs as the configuration says.
pub(crate) fn log_by(config: &PipelineConfig) -> Result<(), Failure> {
    cdc_shared::telemetry::init(&config.log_level, config.log_format)
        .map_err(|error| Failure::new(Exit::Config, error))
}

/// The coordinator, until SIGTERM or Ctrl-C.
pub(crate) async fn serve(config: Arc<PipelineConfig>, target: &Target) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let mut signals = Signals::new()?;
    let asked = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        asked.cancel();
        signals.next().await;
        std::process::exit(130);
    });
    let options = ServeOptions { reloaded: Some(reloads(target)?), ..ServeOptions::default() };
    coordinator(config, options, stop).await
}

async fn coordinator(
    config: Arc<PipelineConfig>,
    options: ServeOptions,
    stop: CancellationToken,
) -> Result<(), Failure> {
    crate::run(config, options, stop).await.map_err(|e| coordinator_failed(&e))
}

/// Reads the configuration again at each SIGHUP. One that is wrong changes nothing.
fn reloads(target: &Target) -> Result<mpsc::Receiver<CoordinatorConfig>, Failure> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| no_signal(&error))?;
    let (sender, receiver) = mpsc::channel(1);
    let target = target.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match load::load(&target) {
                Ok(config) => {
                    if sender.send(config.coordinator).await.is_err() {
                        break;
                    }
                }
                Err(error) => tracing::error!(%error, "coordinator.reload_failed"),
            }
        }
    });
    Ok(receiver)
}

fn no_signal(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Software, format!("signals: {error}"))
}

fn coordinator_failed(error: &CoordinatorError) -> Failure {
    let exit = match error {
        CoordinatorError::PartEnded(_) => Exit::Software,
        // Whoever has the address now may be gone at the next start.
        CoordinatorError::AddressInUse(_) => Exit::Unavailable,
        CoordinatorError::Client(failure) => failure.exit,
        _ => Exit::Config,
    };
    Failure::new(exit, format!("the coordinator: {error}"))
}

/// Deploys, then runs coordinator and workers until a signal.
pub(crate) async fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    // Every section, so that a mistake in a sink is said now and not by its worker.
    let mut config = load::load_for(&args.target, Sections::All)?.config;
    if !load::names_watermark_store(&args.target) {
        config.coordinator.watermark_store = WatermarkStore::Memory;
    }
    let config = Arc::new(config);
    log_by(&config)?;
    if !args.no_deploy {
        let report = deploy::deploy(&config, DeployOptions::default(), &progress).await?;
        say(&report)?;
    }
    let program = fleet::worker_program()?;
    let fleet = fleet::Fleet::new(&config, &args.target, &program);
    let stop = CancellationToken::new();
    let options = ServeOptions { reloaded: Some(reloads(&args.target)?), ..Default::default() };
    let coordinator = tokio::spawn(coordinator(Arc::clone(&config), options, stop.clone()));
    fleet::supervise(fleet, coordinator, stop, Signals::new()?).await
}

/// SIGTERM and SIGINT, in the order they come.
pub(crate) struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            term: signal(SignalKind::terminate()).map_err(|error| no_signal(&error))?,
            interrupt: signal(SignalKind::interrupt()).map_err(|error| no_signal(&error))?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
