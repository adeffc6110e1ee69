//! `cdc-worker`: serves one sink of a pipeline.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cdc_shared::config::{LoadOptions, Loaded, LogFormat, Sections, load, process_variables};
use cdc_shared::exit::Exit;
use cdc_shared::probe::probe;
use cdc_shared::task::{TaskKind, VerifyOptions};
use cdc_shared::{telemetry, tls};
use cdc_worker::exit::Failure;
use cdc_worker::run::{RunOptions, Stops, run};
use cdc_worker::task::{ConfigFiles, direct};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The system's allocator keeps an arena for each thread, and with them a third more memory than
/// is in use; this one is also quicker with many small pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Ask a worker whether it is ready: the health check of a container.
    #[command(
        after_help = "Example: cdc-worker probe 127.0.0.1:8091\n\nExit codes: 0 ready, 1 not \
                            ready (standard error has the reasons), 69 no answer."
    )]
    Probe(ProbeArgs),
    /// Compare the sink's mirror, or its Iceberg tables, with the source. Only while no worker of the
    /// sink lives; otherwise `cdc verify` has one do it.
    #[command(after_help = "Example: cdc-worker verify pipeline.yaml --sink analytics-db\n\n\
                            Exit codes: 0 equal, 1 differs, 3 the sink did not reach the source's \
                            position in time.")]
    Verify(TaskArgs),
    /// Compare, and remove from the mirror what the source does not have. Only while no worker of
    /// the sink lives; otherwise `cdc resync` has one do it, and more.
    #[command(after_help = "Example: cdc-worker resync pipeline.yaml --sink analytics-db\n\n\
                            Exit codes: as verify.")]
    Resync(TaskArgs),
}

/// Which pipeline and sink.
#[derive(Args)]
struct SinkArgs {
    /// The pipeline file.
    config: PathBuf,
    /// The sink to serve (`sink_id`).
    #[arg(long)]
    sink: String,
    /// A file with the platform's settings (Kafka, registry, coordinator).
    #[arg(long)]
    platform_config: Option<PathBuf>,
}

impl SinkArgs {
    fn load(&self) -> Result<Loaded, Failure> {
        Ok(load(&LoadOptions {
            pipeline: self.config.clone(),
            platform: self.platform_config.clone(),
            variables: process_variables(),
            sections: Sections::Worker { sink_id: self.sink.clone() },
        })?)
    }

    fn files(&self) -> ConfigFiles {
        ConfigFiles { pipeline: self.config.clone(), platform: self.platform_config.clone() }
    }
}

#[derive(Args)]
struct ProbeArgs {
    /// Where the worker serves /livez, /readyz and /metrics.
    #[arg(default_value = "127.0.0.1:8091")]
    address: String,
    /// Ask whether it lives instead: that is, whether a restart would help.
    #[arg(long)]
    live: bool,
}

#[derive(Args)]
struct TaskArgs {
    #[command(flatten)]
    on: SinkArgs,
    /// Only this table; may be given several times.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Vec<String>,
    /// Longest wait for the sink to reach a position of the source, in seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Also show the values that differ, not only their keys.
    #[arg(long)]
    show_values: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    on: SinkArgs,
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
    let ended = match cli.command {
        Command::Run(args) => start(args).map(|()| Exit::Done.code()),
        Command::Probe(args) => {
            let path = if args.live { "/livez" } else { "/readyz" };
            return probe(&args.address, path).tell("cdc-worker", &args.address);
        }
        Command::Verify(args) => compare(&args, TaskKind::Verify),
        Command::Resync(args) => compare(&args, TaskKind::Resync),
    };
    match ended {
        Ok(code) => code.into(),
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
    let loaded = args.on.load()?;
    let config = &loaded.config;
    telemetry::init(&config.log_level, config.log_format).map_err(Failure::Setting)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let admin_address = args.admin.unwrap_or_else(|| default_admin(&loaded, &args.on.sink));
    let runtime = runtime()?;
    let files = args.on.files();
    let options = RunOptions { sink_id: args.on.sink, admin_address, files };
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

/// The exit code is the comparison's.
fn compare(args: &TaskArgs, kind: fn(VerifyOptions) -> TaskKind) -> Result<u8, Failure> {
    tls::install_crypto();
    let loaded = args.on.load()?;
    telemetry::init("warn,rdkafka=off,librdkafka=off", LogFormat::Text)
        .map_err(Failure::Setting)?;
    let kind = kind(VerifyOptions {
        topics: args.table.clone(),
        timeout_seconds: args.timeout,
        show_values: args.show_values,
    });
    let runtime = runtime()?;
    let (files, sink) = (args.on.files(), args.on.sink.clone());
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = Box::pin(direct::run(loaded, &files, &sink, kind)) => ended,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_background();
    let end = ended?;
    if args.json {
        let text = serde_json::to_string_pretty(&end)
            .map_err(|error| Failure::Task(format!("write JSON: {error}")))?;
        println!("{text}");
    } else {
        println!("{end}");
    }
    Ok(end.status.exit_code())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Task(format!("runtime: {error}")))
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
