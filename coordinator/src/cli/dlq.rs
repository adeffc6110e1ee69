//! `cdc dlq …`: dead letters listed, shown, sent again, given up. Looking needs no coordinator.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use cdc_shared::api::Command;
use cdc_shared::clock::unix_ms;
use cdc_shared::config::PipelineConfig;
use cdc_shared::control::ControlState;
use cdc_shared::dlq::{LetterFilter, LetterState, MOST_AT_ONCE};
use cdc_shared::registry::Registry;
use cdc_shared::task::TaskStatus;
use clap::{Args, Subcommand, ValueEnum};

use super::args::Target;
use super::client::Coordinator;
use super::load::load;
use super::operate::{client_config, place, topic_of};
use super::{Exit, Failure, task};
use crate::control::Reader;
use crate::dlq::{DeadLetters, MOST_SHOWN, configured_topics};
use crate::kafka::{Cluster, KafkaTrouble, ask};

#[derive(Debug, Args)]
pub(super) struct DlqCommandArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List dead letters, and count them by sink and code. Needs no coordinator.
    #[command(after_help = "Example:\n  cdc dlq list pipeline.yaml --sink webhook --since 2h \
                            --state open")]
    List(ListArgs),
    /// Show one dead letter: key and value decoded, the error, every header. Needs no coordinator.
    #[command(after_help = "Example:\n  cdc dlq show pipeline.yaml --sink webhook \
                            --table public.orders --partition 2 --offset 1041")]
    Show(ShowArgs),
    /// Have the sink's workers send dead letters again, in the order of each key.
    #[command(after_help = "Example:\n  cdc dlq replay pipeline.yaml --sink webhook \
                            --error-type http_400\n\nExit codes: 0 done, 1 letters stay open. What \
                            was replayed already is not sent again.")]
    Replay(ReplayArgs),
    /// Mark dead letters as given up. Nothing is deleted from Kafka.
    #[command(after_help = "Example:\n  cdc dlq drop pipeline.yaml --sink webhook --until 7d \
                            --reason 'test data'")]
    Drop(DropArgs),
}

/// Which letters, beside their sink.
#[derive(Debug, Args)]
struct Which {
    /// Only of this table.
    #[arg(long, value_name = "SCHEMA.TABLE", conflicts_with = "topic")]
    table: Option<String>,
    /// Only of this source topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only of this partition of it.
    #[arg(long)]
    partition: Option<i32>,
    /// Only at this offset of it.
    #[arg(long)]
    offset: Option<i64>,
    /// Only with this code.
    #[arg(long, value_name = "CODE")]
    error_type: Option<String>,
    /// Only rejected since then: 2026-01-31T08:00:00Z, or 30m, 2h, 7d ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only rejected before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only whose key has these fields, as JSON: {"id":7}.
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    target: Target,
    /// Only of this sink.
    #[arg(long)]
    sink: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Only in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Show at most so many; the counts are of all.
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Nobody has done anything about it.
    Open,
    /// The sink has taken it.
    Replayed,
    /// The sink has something newer.
    Superseded,
    /// Given up.
    Dropped,
}

#[derive(Debug, Args)]
#[group(id = "where", required = true, multiple = false, args = ["table", "topic"])]
struct ShowArgs {
    #[command(flatten)]
    target: Target,
    /// The sink's id.
    #[arg(long)]
    sink: String,
    /// The table whose topic it came from.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,
    /// The topic itself.
    #[arg(long)]
    topic: Option<String>,
    /// The partition.
    #[arg(long)]
    partition: i32,
    /// The offset.
    #[arg(long)]
    offset: i64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    target: Target,
    /// The sink's id.
    #[arg(long)]
    sink: String,
    #[command(flatten)]
    which: Which,
    /// Those that were dropped, instead of the open ones.
    #[arg(long)]
    dropped: bool,
    /// At most so many in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only say what would be done: the workers look each of them up and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DropArgs {
    #[command(flatten)]
    target: Target,
    /// The sink's id.
    #[arg(long)]
    sink: String,
    #[command(flatten)]
    which: Which,
    /// Kept with the letters and in the audit trail.
    #[arg(long)]
    reason: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &DlqCommandArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        DlqCommand::List(args) => list(args).await?,
        DlqCommand::Show(args) => show(args).await?,
        DlqCommand::Drop(args) => drop_letters(args).await?,
        DlqCommand::Replay(args) => return replay(args).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let config = load(&args.target)?;
    let filter = LetterFilter {
        state: args.state.map(LetterState::from),
        ..args.which.filter(&config, args.sink.as_deref())?
    };
    let (letters, control) = read(&config).await?;
    let found = letters.list(&control, &filter, args.limit.min(MOST_SHOWN)).await;
    super::print(args.json, &found, &found)
}

async fn show(args: &ShowArgs) -> Result<(), Failure> {
    let config = load(&args.target)?;
    let topic = place(&config, args.table.as_deref(), args.topic.as_deref())?;
    let filter = LetterFilter {
        sink: Some(args.sink.clone()),
        topic: Some(topic.clone()),
        partition: Some(args.partition),
        offset: Some(args.offset),
        ..LetterFilter::default()
    };
    let (letters, control) = read(&config).await?;
    let found = letters.show(&control, &filter).await.map_err(|error| trouble(&config, &error))?;
    let Some(found) = found else {
        let place = format!("{topic}[{}]@{}", args.partition, args.offset);
        let message = format!("sink {} has no dead letter of {place}", args.sink);
        return Err(Failure::new(Exit::Data, message).hint("see cdc dlq list"));
    };
    super::print(args.json, &found, &found)
}

async fn replay(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let config = client_config(&args.target)?;
    let filter = LetterFilter {
        state: args.dropped.then_some(LetterState::Dropped),
        ..args.which.filter(&config, Some(&args.sink))?
    };
    let coordinator = Coordinator::new(&config)?;
    loop {
        let (filter, dry_run, rate) = (filter.clone(), args.dry_run, args.rate);
        let reply = coordinator.command(Command::Replay { filter, dry_run, rate }).await?;
        let Some(id) = reply.task.clone() else {
            super::print(args.json, &reply, &reply.message)?;
            return Ok(ExitCode::SUCCESS);
        };
        let ended = task::follow(&coordinator, &args.sink, &id, &reply.message).await?;
        let is_done = ended.end.as_ref().is_some_and(|end| end.status == TaskStatus::Done);
        let count = ended.kind.replay().map_or(0, |options| options.count);
        let is_full = count == MOST_AT_ONCE as u64;
        if !(is_full && is_done) || dry_run {
            return task::report(args.json, &ended);
        }
        if let Some(end) = &ended.end {
            super::complain(&end.message);
        }
    }
}

async fn drop_letters(args: &DropArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let filter = args.which.filter(&config, Some(&args.sink))?;
    let command = Command::DropLetters { filter, reason: args.reason.clone() };
    let reply = Coordinator::new(&config)?.command(command).await?;
    super::print(args.json, &reply, &reply.message)
}

/// Every dead letter, and what the control topic says of them.
async fn read(config: &PipelineConfig) -> Result<(Arc<DeadLetters>, Arc<ControlState>), Failure> {
    let software = |error: &dyn std::fmt::Display| Failure::new(Exit::Software, error.to_string());
    let registry = Registry::new(&config.kafka)
        .map_err(|e| Failure::new(Exit::Config, format!("kafka.schema_registry.tls: {e}")))?;
    let letters = DeadLetters::new(config, Arc::new(registry));
    let cluster = Cluster::new(&config.kafka, &config.group_id)
        .map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
    let control = control(config, &cluster).await?;
    // Tables that left the configuration may have letters too.
    let members = control.members().map(|(_, topic)| topic.to_owned());
    let topics: BTreeSet<String> = members.chain(configured_topics(config)).collect();
    letters.refresh(&cluster, topics).await.map_err(|error| trouble(config, &error))?;
    // Its threads end without anybody waiting for them.
    tokio::task::spawn_blocking(move || drop(cluster)).await.map_err(|e| software(&e))?;
    Ok((letters, control))
}

async fn control(
    config: &PipelineConfig,
    cluster: &Arc<Cluster>,
) -> Result<Arc<ControlState>, Failure> {
    let topic = config.control_topic();
    let name = topic.clone();
    let found = ask(cluster, move |cluster| cluster.topics(&[&name])).await;
    if found.map_err(|error| trouble(config, &error))?.is_empty() {
        // No coordinator has run yet: nothing was settled.
        return Ok(Arc::default());
    }
    let reader = Reader::start(&config.kafka, &config.group_id, &topic)
        .map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
    if !reader.catch_up().await {
        let cause = format!("the control topic {topic} cannot be read");
        return Err(Failure::unreachable("Kafka", &config.kafka.bootstrap_servers, &cause));
    }
    let state = Arc::clone(&reader.state().borrow());
    let ended = tokio::task::spawn_blocking(move || drop(reader)).await;
    ended.map_err(|error| Failure::new(Exit::Software, error.to_string()))?;
    Ok(state)
}

fn trouble(config: &PipelineConfig, error: &KafkaTrouble) -> Failure {
    Failure::unreachable("Kafka", &config.kafka.bootstrap_servers, &error.to_string())
}

impl Which {
    fn filter(&self, config: &PipelineConfig, sink: Option<&str>) -> Result<LetterFilter, Failure> {
        let now_ms = unix_ms();
        let time = |name: &str, text: &Option<String>| {
            text.as_deref().map(|text| point(name, text, now_ms)).transpose()
        };
        let key = self.key.as_deref().map(|text| {
            serde_json::from_str(text).map_err(|error| {
                Failure::new(Exit::Usage, format!("--key {text}: not JSON: {error}"))
            })
        });
        Ok(LetterFilter {
            sink: sink.map(ToOwned::to_owned),
            topic: match &self.topic {
                Some(topic) => Some(topic.clone()),
                None => topic_of(config, self.table.as_deref())?,
            },
            partition: self.partition,
            offset: self.offset,
            error_type: self.error_type.clone(),
            since_ms: time("--since", &self.since)?,
            until_ms: time("--until", &self.until)?,
            key: key.transpose()?,
            state: None,
        })
    }
}

impl From<State> for LetterState {
    fn from(state: State) -> Self {
        match state {
            State::Open => Self::Open,
            State::Replayed => Self::Replayed,
            State::Superseded => Self::Superseded,
            State::Dropped => Self::Dropped,
        }
    }
}

/// A point in time, or how long ago it was, in Unix ms.
fn point(name: &str, text: &str, now_ms: i64) -> Result<i64, Failure> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let ago = text.char_indices().last().and_then(|(at, unit)| {
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return None,
        };
        text.get(..at)?.parse::<u32>().ok().map(|count| i64::from(count) * seconds * 1000)
    });
    ago.map(|ago| now_ms - ago).ok_or_else(|| {
        let message = format!("{name} {text}: neither 2026-01-31T08:00:00Z nor 30m, 2h, 7d");
        Failure::new(Exit::Usage, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_point_or_so_long_ago() {
        let at = |text: &str| point("--since", text, 1_000_000_000);
        assert_eq!(at("1970-01-02T00:00:00Z"), Ok(86_400_000));
        assert_eq!(at("30s"), Ok(999_970_000));
        assert_eq!(at("2h"), Ok(992_800_000));
        assert_eq!(at("1d"), Ok(913_600_000));
        for wrong in ["", "h", "yesterday", "-1h", "3ä"] {
            assert_eq!(at(wrong).unwrap_err().exit, Exit::Usage, "{wrong:?}");
        }
    }
}
