//! `cdc lake …`: upkeep of the tables of an `iceberg` sink, which one of its workers does.

use std::process::ExitCode;

use cdc_shared::task::{LakeAction, LakeOptions, TaskKind};
use clap::{Args, Subcommand};

use super::Failure;
use super::args::Target;
use super::client::Coordinator;
use super::operate::{client_config, topic_of};
use super::task::{carry_out, report};

const HOUR: u64 = 3600;

#[derive(Debug, Args)]
pub(super) struct LakeCommandArgs {
    #[command(subcommand)]
    command: LakeCommand,
}

#[derive(Debug, Subcommand)]
enum LakeCommand {
    /// List the snapshots that the tables keep.
    #[command(after_help = "Example:\n  cdc lake snapshots pipeline.yaml --sink lake")]
    Snapshots(OnArgs),
    /// Join small files and leave deleted rows out. Writers and readers go on meanwhile.
    #[command(after_help = "Example:\n  cdc lake compact pipeline.yaml --sink lake --table \
                            public.orders")]
    Compact(CompactArgs),
    /// Give old snapshots up, and files with them that no other refers to. Tags and other branches
    /// keep what they name. What they held cannot be read, or gone back to, any more.
    #[command(after_help = "Example:\n  cdc lake expire pipeline.yaml --sink lake \
                            --older-than-hours 48 --keep 5")]
    Expire(ExpireArgs),
    /// Remove files in the tables' folders that nothing refers to: what killed workers and
    /// interrupted upkeep leave.
    #[command(after_help = "Example:\n  cdc lake clean pipeline.yaml --sink lake --dry-run")]
    Clean(CleanArgs),
    /// Make a snapshot the newest of its table again. The sink goes back with it, and delivers again
    /// what came after.
    #[command(after_help = "Example:\n  cdc lake rollback pipeline.yaml --sink lake --table \
                            public.orders --to 7310594720384412345")]
    Rollback(RollbackArgs),
}

/// Which tables.
#[derive(Debug, Args)]
struct OnArgs {
    #[command(flatten)]
    target: Target,
    /// The sink's id.
    #[arg(long)]
    sink: String,
    /// Only the table of this source table; may be given several times.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CompactArgs {
    #[command(flatten)]
    on: OnArgs,
    /// Size that files are brought to [default: the sink's `target_file_size`].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..))]
    target_file_size: Option<u64>,
}

#[derive(Debug, Args)]
struct ExpireArgs {
    #[command(flatten)]
    on: OnArgs,
    /// Those that are older.
    #[arg(long, value_name = "HOURS", default_value_t = 120)]
    older_than_hours: u64,
    /// How many stay at least.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    keep: u64,
}

#[derive(Debug, Args)]
struct CleanArgs {
    #[command(flatten)]
    on: OnArgs,
    /// Those that were not written to for so long: a worker may be about to commit what is younger.
    #[arg(long, value_name = "HOURS", default_value_t = 72,
          value_parser = clap::value_parser!(u64).range(1..))]
    older_than_hours: u64,
    /// Only say which.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RollbackArgs {
    #[command(flatten)]
    on: OnArgs,
    /// The snapshot, of `cdc lake snapshots`.
    #[arg(long, value_name = "SNAPSHOT")]
    to: i64,
}

/// Runs the command.
pub(super) async fn run(args: &LakeCommandArgs) -> Result<ExitCode, Failure> {
    let (on, action) = match &args.command {
        LakeCommand::Snapshots(on) => (on, LakeAction::Snapshots),
        LakeCommand::Compact(args) => {
            (&args.on, LakeAction::Compact { target_file_size: args.target_file_size })
        }
        LakeCommand::Expire(args) => {
            let older_than_seconds = args.older_than_hours.saturating_mul(HOUR);
            (&args.on, LakeAction::Expire { older_than_seconds, keep: args.keep })
        }
        LakeCommand::Clean(args) => {
            let older_than_seconds = args.older_than_hours.saturating_mul(HOUR);
            (&args.on, LakeAction::Clean { older_than_seconds, dry_run: args.dry_run })
        }
        LakeCommand::Rollback(args) => (&args.on, LakeAction::Rollback { snapshot: args.to }),
    };
    let config = client_config(&on.target)?;
    let mut topics = Vec::new();
    for table in &on.table {
        topics.extend(topic_of(&config, Some(table))?);
    }
    let kind = TaskKind::Lake(LakeOptions { topics, action });
    report(on.json, &carry_out(&Coordinator::new(&config)?, &on.sink, kind).await?)
}
