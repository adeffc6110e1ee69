//! `cdc rewind`: tells what comes again and what that means for this sink, asks, and has it done.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use cdc_shared::api::{Command, RewindTarget};
use cdc_shared::config::{PipelineConfig, PostgresWriteMode, SinkConfig, SinkType};
use cdc_shared::offset::NextOffset;
use clap::Args;

use super::args::Target;
use super::client::Coordinator;
use super::operate::{client_config, topic_of};
use super::{Exit, Failure};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct RewindArgs {
    #[command(flatten)]
    target: Target,
    /// The sink's id.
    #[arg(long)]
    sink: String,
    /// Only this table. Default: every table of the sink.
    #[arg(long, value_name = "SCHEMA.TABLE", conflicts_with = "topic")]
    table: Option<String>,
    /// Only this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// `beginning`, `end`, a time (2026-01-31T08:00:00Z), a place in the source's log (0/16B3748,
    /// binlog.000003:1234, or the id of a transaction), or an offset (which needs --partition and a
    /// table).
    #[arg(long)]
    to: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Webhook: give what comes again other ids than before, so that receivers take it anew.
    #[arg(long)]
    new_ids: bool,
    /// The topic is another one than the sink's progress counts in (Kafka was lost, or the topic
    /// created again): take it as it is now.
    #[arg(long)]
    accept_new_topic: bool,
    /// Kept in the audit trail.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn run(args: &RewindArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let to = target(&args.to, args)?;
    let topics = topics(&config, args)?;
    let coordinator = Coordinator::new(&config)?;
    let command = |topic: &str, dry_run| Command::Rewind {
        sink: args.sink.clone(),
        topic: topic.to_owned(),
        partition: args.partition,
        to: to.clone(),
        reason: args.reason.clone(),
        dry_run,
        new_ids: args.new_ids,
        accept_new_topic: args.accept_new_topic,
    };
    if args.dry_run || !args.yes {
        for topic in &topics {
            super::say(&coordinator.command(command(topic, true)).await?.message)?;
        }
        if let Some(meaning) = config.sink(&args.sink).and_then(|sink| meaning(sink, args.new_ids))
        {
            super::say(&meaning)?;
        }
    }
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        ask()?;
    }
    for topic in &topics {
        super::say(&coordinator.command(command(topic, false)).await?.message)?;
    }
    Ok(())
}

fn topics(config: &PipelineConfig, args: &RewindArgs) -> Result<Vec<String>, Failure> {
    if let Some(topic) = &args.topic {
        return Ok(vec![topic.clone()]);
    }
    if let Some(topic) = topic_of(config, args.table.as_deref())? {
        return Ok(vec![topic]);
    }
    let Some(sink) = config.sink(&args.sink) else {
        let message = format!("--sink {}: not one of sinks", args.sink);
        return Err(Failure::new(Exit::Usage, message)
            .hint("of a sink that is not in the file, name the --topic"));
    };
    Ok(config.sink_tables(sink).iter().map(|table| config.topic(table)).collect())
}

/// What a second delivery means for a sink.
fn meaning(sink: &SinkConfig, new_ids: bool) -> Option<&'static str> {
    Some(match (sink.sink_type, &sink.postgres) {
        (SinkType::Webhook, _) if new_ids => {
            "the same events come again, each with another webhook-id than before"
        }
        (SinkType::Webhook, _) => "the same events come again, with the same webhook-id and body",
        (SinkType::Postgres, Some(postgres)) => match postgres.write_mode {
            PostgresWriteMode::Replica => {
                "rows have old states again until the sink has caught up; rows that it skips on its \
                 way forward are not updated (cdc resync puts them right)"
            }
            PostgresWriteMode::Events if postgres.upsert => {
                "rows that come again replace those that are there"
            }
            PostgresWriteMode::Events => {
                "rows that come again are first removed, in the transaction that takes the sink back"
            }
        },
        (SinkType::Iceberg, _) if sink.is_keyed() => {
            "rows that are newer than what comes stay as they are; rows that were deleted later are \
             there again until the sink has caught up"
        }
        (SinkType::Iceberg, _) => {
            "rows that come again are first taken away, in the snapshot that takes the sink back; \
             older snapshots keep them"
        }
        (SinkType::Postgres, None) => return None,
    })
}

fn ask() -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let message = "nobody can be asked whether to go on";
        return Err(Failure::new(Exit::Usage, message).hint("give --yes"));
    }
    let mut stderr = std::io::stderr().lock();
    // Without a question there may still be an answer.
    let _ = write!(stderr, "Go on? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::TempFail, "nothing was done"))
}

/// An offset belongs to one partition; the log's ends and a time belong to each.
fn target(to: &str, args: &RewindArgs) -> Result<RewindTarget, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    match to {
        "beginning" => return Ok(RewindTarget::Beginning),
        "end" => return Ok(RewindTarget::End),
        _ => {}
    }
    if let Ok(time) = to.parse::<jiff::Timestamp>() {
        return Ok(RewindTarget::Timestamp(time.as_millisecond()));
    }
    if to.parse::<jiff::civil::Date>().is_ok() {
        return Err(usage(format!(
            "--to {to}: give the time of that day as well ({to}T08:00:00Z)"
        )));
    }
    if let Ok(place) = to.parse() {
        return Ok(RewindTarget::SourcePosition(place));
    }
    let Some(offset) = to.parse().ok().and_then(NextOffset::new) else {
        return Err(usage(format!(
            "--to {to}: neither beginning, end, a time (2026-01-31T08:00:00Z), a place in the \
             source's log (0/16B3748, binlog.000003:1234, a transaction's id), nor an offset"
        )));
    };
    if args.partition.is_none() || (args.table.is_none() && args.topic.is_none()) {
        return Err(usage("an offset needs its --table (or --topic) and --partition".to_owned()));
    }
    Ok(RewindTarget::Offset(offset))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: RewindArgs,
    }

    fn goes_to(line: &str) -> Result<RewindTarget, Failure> {
        let words = format!("cdc p.yaml --sink s {line}");
        let line = Line::try_parse_from(words.split_whitespace()).unwrap();
        target(&line.args.to.clone(), &line.args)
    }

    #[test]
    fn a_rewind_goes_to_an_end_a_time_or_an_offset_of_one_partition() {
        assert_eq!(goes_to("--to beginning"), Ok(RewindTarget::Beginning));
        assert_eq!(goes_to("--to end --partition 1"), Ok(RewindTarget::End));
        assert_eq!(goes_to("--to 1970-01-01T00:00:01Z"), Ok(RewindTarget::Timestamp(1000)));
        let place = RewindTarget::SourcePosition("0/16B3748".parse().unwrap());
        assert_eq!(goes_to("--to 0/16B3748"), Ok(place));
        let offset = NextOffset::new(7).unwrap();
        let to = "--to 7 --partition 1 --table public.t";
        assert_eq!(goes_to(to), Ok(RewindTarget::Offset(offset)));
        for wrong in
            ["--to 2026-11-28", "--to 7 --table t", "--to 7 --partition 1", "--to start", "--to=-7"]
        {
            assert_eq!(goes_to(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
