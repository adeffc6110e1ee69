//! `cdc-worker`: serves one sink of a pipeline.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cdc_shared::config::{LoadOptions, Loaded, Sections, load, process_variables};
use cdc_shared::exit::Exit;
use cdc_shared::{telemetry, tls};
use cdc_worker::exit::Failure;
use cdc_worker::run::{RunOptions, Stops, run};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serves one sink of a pipeline: from its Kafka topics to a webhook or a database.
#[derive(Parser)]
#[command(name = "cdc-worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Deliver until SIGTERM.
    #[command(after_help = "Example: cdc-worker run pipeline.yaml --sink webhook-notifications")]
    Run(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The pipeline file.
    config: PathBuf,
    /// The sink to serve (`sink_id`).
    #[arg(long)]
    sink: String,
    /// A file with the platform's settings (Kafka, registry, coordinator).
    #[arg(long)]
    platform_config: Option<PathBuf>,
    /// Address for /livez, /readyz, /metrics [default: `worker.bind` and `worker.port_base` plus
    /// the sink's place in the list].
    #[arg(long)]
    admin: Option<String>,
    /// Also drain when standard input ends: for a supervisor that keeps it open and may be killed.
    #[arg(long)]
    until_stdin_ends: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for; anything else is a wrong command line.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return exit.into();
        }
    };
    let Command::Run(args) = cli.command;
    match start(args) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            // Nobody may be left to be told.
            let _ = writeln!(std::io::stderr(), "cdc-worker: {failure}");
            failure.exit().into()
        }
    }
}

/// Everything fallible and synchronous comes before the runtime exists.
fn start(args: RunArgs) -> Result<(), Failure> {
    tls::install_crypto();
    let loaded = load(&LoadOptions {
        pipeline: args.config,
        platform: args.platform_config,
        variables: process_variables(),
        sections: Sections::Worker { sink_id: args.sink.clone() },
    })?;
    let config = &loaded.config;
    telemetry::init(&config.log_level, config.log_format).map_err(Failure::Setting)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let admin_address = args.admin.unwrap_or_else(|| default_admin(&loaded, &args.sink));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Task(format!("runtime: {error}")))?;
    let options = RunOptions { sink_id: args.sink, admin_address };
    let until_stdin_ends = args.until_stdin_ends;
    let outcome = runtime.block_on(async {
        let stops = Stops::default();
        tokio::spawn(signals(stops.clone()));
        if until_stdin_ends {
            drain_when_stdin_ends(stops.drain.clone());
        }
        // Boxed: the whole worker is one future.
        Box::pin(run(loaded, options, stops)).await
    });
    // What is still running was told to end; a blocking call to Kafka is not waited for.
    runtime.shutdown_background();
    outcome
}

fn default_admin(loaded: &Loaded, sink: &str) -> String {
    let config = &loaded.config;
    let place = config.sinks.iter().position(|entry| entry.sink_id == sink).unwrap_or(0);
    let port = usize::from(config.worker.port_base) + place;
    format!("{}:{port}", config.worker.bind)
}

/// On a thread of its own: reading standard input cannot be given up.
fn drain_when_stdin_ends(drain: CancellationToken) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        if !drain.is_cancelled() {
            tracing::warn!("standard input has ended: whoever started this worker is gone");
            drain.cancel();
        }
    });
}

async fn signals(stops: Stops) {
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be caught: SIGTERM ends this process without a drain");
        return;
    };
    for stop in [stops.drain, stops.now] {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    }
}
