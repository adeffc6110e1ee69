//! The words of the command line. Every command has an example in its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::dlq::DlqCommandArgs;
use super::lake::LakeCommandArgs;
use super::rewind::RewindArgs;
use super::schema::SchemaCommandArgs;
use super::watch::WatchArgs;
use super::{Exit, Failure};
use crate::consume;

/// Streams database changes through Kafka to webhooks, PostgreSQL and Iceberg.
#[derive(Debug, Parser)]
#[command(name = "cdc", version, arg_required_else_help = true)]
#[command(after_help = "A pipeline from nothing:\n  cdc validate pipeline.yaml --connect\n  \
                        cdc run pipeline.yaml\n\nExit codes: 0 done; health: 0 ok, 1 degraded, \
                        2 critical, 3 unknown; others by sysexits.h: 64 usage, 65 data, 66 no \
                        input, 69 unavailable, 70 software, 75 try later, 77 no permission, 78 \
                        configuration.")]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a pipeline's configuration, and with --connect everything it reaches.
    #[command(after_help = "Example:\n  cdc validate pipeline.yaml --connect")]
    Validate(ValidateArgs),
    /// Create the topics and the Debezium connector, or bring them up to date.
    #[command(after_help = "Example:\n  cdc deploy pipeline.yaml --platform-config platform.yaml")]
    Deploy(DeployArgs),
    /// Remove the connector; its replication slot stays unless it is named.
    #[command(after_help = "Example:\n  cdc undeploy pipeline.yaml --drop-slot cdc_slot")]
    Undeploy(UndeployArgs),
    /// Have tables that were added to a deployed pipeline read in whole.
    #[command(after_help = "Example:\n  cdc deploy pipeline.yaml && \
                            cdc snapshot pipeline.yaml --table public.invoices")]
    Snapshot(SnapshotArgs),
    /// Ask the coordinator how the pipeline is; without one, try the services it needs.
    #[command(after_help = "Example:\n  cdc health pipeline.yaml --json\n\nExit codes: 0 ok, \
                            1 degraded, 2 critical, 3 unknown.")]
    Health(HealthArgs),
    /// Print change events from Kafka, decoded. No consumer group is touched.
    #[command(after_help = "Example:\n  cdc consume pipeline.yaml --table public.customers \
                            --key '{\"id\":7}' --follow")]
    Consume(ConsumeArgs),
    /// Run the whole pipeline on this machine: deploy, coordinator, one worker per enabled sink.
    #[command(after_help = "Example:\n  cdc run pipeline.yaml\n\nCtrl-C drains everything; a \
                            second one ends at once.")]
    Run(RunArgs),
    /// Run the coordinator.
    #[command(after_help = "Example:\n  cdc serve pipeline.yaml")]
    Serve(ServeArgs),
    /// Show the commands that changed something: who, when, from what to what.
    #[command(after_help = "Example:\n  cdc audit pipeline.yaml --json")]
    Audit(StatusArgs),
    /// Ask a coordinator whether it is ready: the health check of a container.
    #[command(
        after_help = "Example:\n  cdc-coordinator probe 127.0.0.1:8090\n\nExit codes: 0 ready, \
                            1 not ready (standard error has the reasons), 69 no answer."
    )]
    Probe(ProbeArgs),
    /// Show every sink, worker and partition as the coordinator knows them.
    #[command(after_help = "Example:\n  cdc status pipeline.yaml --watch")]
    Status(WatchArgs),
    /// Hold a sink, or one table of it. Its workers stay in their group.
    #[command(after_help = "Example:\n  cdc pause pipeline.yaml --sink analytics-db \
                            --reason 'migration'")]
    Pause(HoldArgs),
    /// End a pause, a stop, or a stop by name.
    #[command(after_help = "Example:\n  cdc resume pipeline.yaml --sink analytics-db")]
    Resume(SinkArgs),
    /// Have a sink's workers leave their group. They stay up and can be resumed.
    #[command(after_help = "Example:\n  cdc stop pipeline.yaml --sink analytics-db")]
    Stop(StopArgs),
    /// Have a sink's workers let go of everything, or of one table, and go on exactly there. It
    /// ends a pause and a stop.
    #[command(after_help = "Example:\n  cdc restart pipeline.yaml --sink analytics-db \
                            --reason 'new certificate'")]
    Restart(HoldArgs),
    /// Let a sink pass records that it is held at, without delivering them.
    #[command(after_help = "Example:\n  cdc skip pipeline.yaml --sink analytics-db \
                            --table public.orders --partition 2 --offset 1041")]
    Skip(SkipArgs),
    /// Take a sink back, or forward, on its tables or on one of them.
    #[command(after_help = "Example:\n  cdc rewind pipeline.yaml --sink analytics-db \
                            --table public.orders --to 2026-01-31T08:00:00Z --dry-run")]
    Rewind(RewindArgs),
    /// Compare a sink's mirror, or its Iceberg tables, with the source, while both live.
    #[command(after_help = "Example:\n  cdc verify pipeline.yaml --sink replica \
                            --table public.orders\n\nExit codes: 0 equal, 1 differs, 3 the sink \
                            did not reach the source's position in time.")]
    Verify(CompareArgs),
    /// Put a sink's mirror right: remove rows that the source does not have, and have the connector
    /// read the table again if rows are missing or differ.
    #[command(after_help = "Example:\n  cdc resync pipeline.yaml --sink replica \
                            --table public.orders\n\nExit codes: as verify, after it is done.")]
    Resync(CompareArgs),
    /// See or call off what workers do beside delivering.
    Task(TaskCommandArgs),
    /// Keep the tables of an `iceberg` sink small and quick.
    Lake(LakeCommandArgs),
    /// See how the tables' schemas changed, or take a change as it is.
    Schema(SchemaCommandArgs),
    /// See what sinks have rejected, send it again, or give it up.
    Dlq(DlqCommandArgs),
    /// Manage sinks that the pipeline knows.
    Sink(SinkCommandArgs),
}

/// Which pipeline.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The pipeline's file.
    pub(crate) config: PathBuf,
    /// A file with settings that several pipelines share.
    #[arg(long, value_name = "FILE")]
    pub(crate) platform_config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Also ask the source, Kafka, the schema registry and Kafka Connect.
    #[arg(long)]
    pub(super) connect: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeployArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Take over a slot, publication or connector that this pipeline did not make.
    #[arg(long)]
    pub(super) adopt: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct UndeployArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Also drop the replication slot, which must be named. A later deploy begins anew.
    #[arg(long, value_name = "NAME")]
    pub(super) drop_slot: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// A table of source.tables; may be given several times.
    #[arg(long, required = true, value_name = "SCHEMA.TABLE")]
    pub(super) table: Vec<String>,
    /// End as soon as the signal is sent.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Longest time to wait for the snapshot's end, in seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub(super) timeout_seconds: u64,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The pipeline's file. Without it only the services are tried that the platform file, the
    /// environment or the defaults name.
    pub(super) config: Option<PathBuf>,
    /// A file with settings that several pipelines share.
    #[arg(long, value_name = "FILE")]
    pub(super) platform_config: Option<PathBuf>,
    /// Print JSON: the coordinator's answer as it is.
    #[arg(long)]
    pub(super) json: bool,
    /// Kafka, when no pipeline is given.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub(super) bootstrap_servers: Option<String>,
    /// The schema registry, when no pipeline is given.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(super) schema_registry_url: Option<String>,
    /// Kafka Connect, when no pipeline is given.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(super) connect_url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ConsumeArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Only this table; may be given several times.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Vec<String>,
    /// Only events whose key has these fields, as JSON: {"id":7}.
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
    /// Where to begin.
    #[arg(long, value_enum, default_value_t = consume::From::Beginning)]
    from: consume::From,
    /// Go on with what arrives later, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl ConsumeArgs {
    /// The options of `consume`, with the key's JSON read.
    pub(super) fn options(&self) -> Result<consume::Options, Failure> {
        let key = match &self.key {
            None => None,
            Some(text) => Some(serde_json::from_str(text).map_err(|error| {
                Failure::new(Exit::Usage, format!("--key {text}: not JSON: {error}"))
            })?),
        };
        Ok(consume::Options {
            tables: self.table.clone(),
            key,
            from: self.from,
            follow: self.follow,
            json: self.json,
            limit: self.limit,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Leave topics and connector as they are.
    #[arg(long)]
    pub(crate) no_deploy: bool,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Where the coordinator listens.
    #[arg(default_value = "127.0.0.1:8090")]
    pub(super) address: String,
    /// Ask whether it lives instead: that is, whether a restart would help.
    #[arg(long)]
    pub(super) live: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Print JSON: the coordinator's answer as it is.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SinkArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// The sink's id.
    #[arg(long)]
    pub(super) sink: String,
    /// Only this table.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(super) table: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct HoldArgs {
    #[command(flatten)]
    pub(super) on: SinkArgs,
    /// Shown in health and kept in the audit trail.
    #[arg(long, default_value = "")]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// The sink's id.
    #[arg(long)]
    pub(super) sink: String,
    /// Shown in health and kept in the audit trail.
    #[arg(long, default_value = "")]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
#[group(id = "where", required = true, multiple = false, args = ["table", "topic"])]
pub(super) struct SkipArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// The sink's id.
    #[arg(long)]
    pub(super) sink: String,
    /// The table whose topic it is.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(super) table: Option<String>,
    /// The topic itself.
    #[arg(long)]
    pub(super) topic: Option<String>,
    /// The partition.
    #[arg(long)]
    pub(super) partition: i32,
    /// First offset to skip.
    #[arg(long)]
    pub(super) offset: i64,
    /// First offset not to skip. Default: the one after --offset.
    #[arg(long)]
    pub(super) to: Option<i64>,
    /// Kept in the audit trail.
    #[arg(long, default_value = "")]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// The sink's id.
    #[arg(long)]
    pub(super) sink: String,
    /// Only this table; may be given several times.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(super) table: Vec<String>,
    /// Longest wait for the sink to reach a position of the source, in seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(super) timeout: u64,
    /// Also show the values that differ, not only their keys. They are kept in the control topic
    /// with the result.
    #[arg(long)]
    pub(super) show_values: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TaskCommandArgs {
    #[command(subcommand)]
    pub(super) command: TaskCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Show the pipeline's tasks, oldest first.
    #[command(after_help = "Example:\n  cdc task list pipeline.yaml")]
    List(StatusArgs),
    /// Tell how a task goes until it has ended; the exit code is the task's.
    #[command(
        after_help = "Example:\n  cdc task watch verify-1767225600000 pipeline.yaml --sink replica"
    )]
    Watch(TaskArgs),
    /// Call a task off.
    #[command(
        after_help = "Example:\n  cdc task cancel verify-1767225600000 pipeline.yaml --sink replica"
    )]
    Cancel(TaskArgs),
}

#[derive(Debug, Args)]
pub(super) struct TaskArgs {
    /// The task's id.
    pub(super) id: String,
    #[command(flatten)]
    pub(super) target: Target,
    /// The sink's id.
    #[arg(long)]
    pub(super) sink: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SinkCommandArgs {
    #[command(subcommand)]
    pub(super) command: SinkCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SinkCommand {
    /// Forget a sink, or one table of it: the pipeline's offsets no longer wait for it.
    #[command(after_help = "Example:\n  cdc sink remove old-webhook pipeline.yaml")]
    Remove(SinkRemoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct SinkRemoveArgs {
    /// The sink's id.
    pub(super) sink: String,
    #[command(flatten)]
    pub(super) target: Target,
    /// Only this table.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(super) table: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command that ends the tree.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                found.push((path, sub.clone()));
            }
        }
    }

    #[test]
    fn the_tree_holds_and_every_command_has_an_example_that_parses() {
        Cli::command().debug_assert();
        let mut found = Vec::new();
        leaves(&Cli::command(), "cdc", &mut found);
        assert_eq!(found.len(), 35);
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, example) = help.split_once("Example:\n  ").expect(&path);
            let line = example.lines().next().unwrap().rsplit("&& ").next().unwrap();
            let words: Vec<String> = line
                .split('\'')
                .enumerate()
                .flat_map(|(i, part)| match i % 2 {
                    0 => part.split_whitespace().map(str::to_owned).collect(),
                    _ => vec![part.to_owned()],
                })
                .collect();
            Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn a_place_is_a_table_or_a_topic_and_not_both() {
        let parse = |more: &str| {
            let line = format!("cdc skip p.yaml --sink s --partition 0 --offset 1 {more}");
            Cli::try_parse_from(line.split_whitespace()).is_ok()
        };
        assert!(parse("--table a.b") && parse("--topic cdc.a.b"));
        assert!(!parse("") && !parse("--table a.b --topic cdc.a.b"));
    }

    #[test]
    fn a_key_must_be_json() {
        let line = "cdc consume p.yaml --key {id:7}";
        let Command::Consume(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("consume")
        };
        let failure = args.options().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with("--key {id:7}: not JSON"));
    }
}
