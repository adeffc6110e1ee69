//! The command line: one tree, two names (`cdc-coordinator`, and `cdc` for a person's fingers).

pub(crate) mod args;
mod audit;
mod client;
mod dlq;
mod failure;
mod health;
mod lake;
pub(crate) mod load;
mod operate;
mod probe;
mod rewind;
mod schema;
mod task;
mod validate;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use serde::Serialize;

pub use failure::{Exit, Failure};

use crate::deploy::{self, DeployOptions};
use crate::{consume, supervise};
use args::{Cli, Command, Target};
use load::load;

/// Entry of both binaries.
pub fn main() -> ExitCode {
    cdc_shared::tls::install_crypto();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => Exit::Usage.into(),
            };
            // Nobody is left to be told when standard error is gone.
            let _ = error.print();
            return code;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(Exit::Software, error.to_string())),
    };
    let ended = runtime.block_on(Box::pin(execute(cli.command)));
    // A service that hangs may still keep a blocking call, which nobody waits for.
    runtime.shutdown_background();
    ended.unwrap_or_else(|failure| fail(&failure))
}

fn fail(failure: &Failure) -> ExitCode {
    complain(&format_args!("error: {failure}"));
    failure.exit.into()
}

/// A line on standard error; when nobody is left to read it, that is no reason to fail.
pub(crate) fn complain(line: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Only commands that go on log by the configuration; the others answer and end.
fn quiet() {
    let _ = cdc_shared::telemetry::init(
        "warn,rdkafka=off,librdkafka=off",
        cdc_shared::config::LogFormat::Text,
    );
}

async fn execute(command: Command) -> Result<ExitCode, Failure> {
    if !matches!(command, Command::Serve(_) | Command::Run(_)) {
        quiet();
    }
    match command {
        Command::Validate(args) => return validate::run(&args).await,
        Command::Deploy(args) => deploy(&args).await?,
        Command::Undeploy(args) => undeploy(&args).await?,
        Command::Snapshot(args) => snapshot(&args).await?,
        Command::Health(args) => return health::run(&args).await,
        Command::Consume(args) => consume::run(&load(&args.target)?, &args.options()?).await?,
        Command::Serve(args) => serve(&args.target).await?,
        Command::Probe(args) => return Ok(ask(&args)),
        Command::Run(args) => return supervise::run(&args).await,
        Command::Status(args) => watch::run(&args).await?,
        Command::Pause(args) => operate::pause(&args).await?,
        Command::Resume(args) => operate::resume(&args).await?,
        Command::Stop(args) => operate::stop(&args).await?,
        Command::Restart(args) => operate::restart(&args).await?,
        Command::Skip(args) => operate::skip(&args).await?,
        Command::Rewind(args) => rewind::run(&args).await?,
        Command::Sink(args) => operate::sink(&args).await?,
        Command::Schema(args) => schema::run(&args).await?,
        Command::Audit(args) => audit::run(&args).await?,
        Command::Dlq(args) => return dlq::run(&args).await,
        Command::Verify(args) => return task::verify(&args).await,
        Command::Resync(args) => return task::resync(&args).await,
        Command::Task(args) => return task::task(&args).await,
        Command::Lake(args) => return lake::run(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Steps of a longer command, for a person who waits; standard output stays clean for the result.
pub(crate) fn progress(step: &str) {
    complain(&format_args!("{step} …"));
}

async fn deploy(args: &args::DeployArgs) -> Result<(), Failure> {
    let config = load(&args.target)?;
    let options = DeployOptions { adopt: args.adopt };
    let report = deploy::deploy(&config, options, &progress).await?;
    print(args.json, &report, &report)
}

async fn undeploy(args: &args::UndeployArgs) -> Result<(), Failure> {
    let config = load(&args.target)?;
    let report = deploy::undeploy(&config, args.drop_slot.as_deref()).await?;
    print(args.json, &report, &report)
}

async fn snapshot(args: &args::SnapshotArgs) -> Result<(), Failure> {
    let config = load(&args.target)?;
    let wait = (!args.no_wait).then(|| std::time::Duration::from_secs(args.timeout_seconds));
    let report = deploy::snapshot(&config, &args.table, wait, &progress).await?;
    print(args.json, &report, &report)
}

fn ask(args: &args::ProbeArgs) -> ExitCode {
    let path = if args.live { "/livez" } else { "/readyz" };
    cdc_shared::probe::probe(&args.address, path).tell("cdc-coordinator", &args.address)
}

async fn serve(target: &Target) -> Result<(), Failure> {
    let config = Arc::new(load(target)?);
    supervise::log_by(&config)?;
    supervise::serve(config, target).await
}

/// The result on standard output, as JSON when asked.
pub(crate) fn print(
    json: bool,
    data: &impl Serialize,
    text: &impl std::fmt::Display,
) -> Result<(), Failure> {
    if !json {
        return say(text);
    }
    let data = serde_json::to_string_pretty(data)
        .map_err(|e| Failure::new(Exit::Software, e.to_string()))?;
    say(&data)
}

/// A line on standard output. Whoever reads it may have seen enough (`| head`): then the command
/// ends, and nothing is wrong.
pub(crate) fn say(line: &dyn std::fmt::Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            Err(Failure::new(Exit::Software, format!("write to standard output: {error}")))
        }
    }
}
