//! Commands to a running pipeline, by the coordinator's API.

use cdc_shared::api::Command;
use cdc_shared::config::{PipelineConfig, Sections};

use super::args::{HoldArgs, SinkArgs, SinkCommand, SinkCommandArgs, SkipArgs, StopArgs, Target};
use super::client::Coordinator;
use super::load::load_for;
use super::{Exit, Failure};

pub(super) async fn pause(args: &HoldArgs) -> Result<(), Failure> {
    let config = client_config(&args.on.target)?;
    let topic = topic_of(&config, args.on.table.as_deref())?;
    let sink = args.on.sink.clone();
    send(&config, Command::Pause { sink, topic, reason: args.reason.clone() }).await
}

pub(super) async fn resume(args: &SinkArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let topic = topic_of(&config, args.table.as_deref())?;
    send(&config, Command::Resume { sink: args.sink.clone(), topic }).await
}

pub(super) async fn restart(args: &HoldArgs) -> Result<(), Failure> {
    let config = client_config(&args.on.target)?;
    let topic = topic_of(&config, args.on.table.as_deref())?;
    let (sink, reason) = (args.on.sink.clone(), args.reason.clone());
    send(&config, Command::Restart { sink, topic, reason }).await
}

pub(super) async fn stop(args: &StopArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let (sink, reason) = (args.sink.clone(), args.reason.clone());
    send(&config, Command::Stop { sink, reason }).await
}

pub(super) async fn skip(args: &SkipArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let to = args.to.unwrap_or(args.offset.saturating_add(1));
    if args.offset < 0 || to <= args.offset {
        let message = format!("nothing lies between --offset {} and --to {to}", args.offset);
        return Err(Failure::new(Exit::Usage, message));
    }
    let command = Command::Skip {
        sink: args.sink.clone(),
        topic: place(&config, args.table.as_deref(), args.topic.as_deref())?,
        partition: args.partition,
        from: args.offset,
        to,
        reason: args.reason.clone(),
    };
    send(&config, command).await
}

pub(super) async fn sink(args: &SinkCommandArgs) -> Result<(), Failure> {
    let SinkCommand::Remove(args) = &args.command;
    let config = client_config(&args.target)?;
    // The coordinator completes a table's name: it may be one that is no longer in the file.
    let topic = args.table.clone();
    send(&config, Command::RemoveSink { sink: args.sink.clone(), topic }).await
}

pub(super) fn client_config(target: &Target) -> Result<PipelineConfig, Failure> {
    Ok(load_for(target, Sections::Client)?.config)
}

pub(super) async fn send(config: &PipelineConfig, command: Command) -> Result<(), Failure> {
    let reply = Coordinator::new(config)?.command(command).await?;
    super::say(&reply.message)
}

/// The topic of a table that the pipeline captures. Health names topics: they are taken as well.
pub(super) fn topic_of(
    config: &PipelineConfig,
    table: Option<&str>,
) -> Result<Option<String>, Failure> {
    let Some(table) = table else { return Ok(None) };
    let known = &config.source.tables;
    let named = |known: &&String| **known == table || config.topic(known) == table;
    if let Some(known) = known.iter().find(named) {
        return Ok(Some(config.topic(known)));
    }
    let message = format!("--table {table}: not one of source.tables");
    Err(Failure::new(Exit::Usage, message).hint(format!("one of {}", known.join(", "))))
}

/// The topic that a command names, by its table or by itself.
pub(super) fn place(
    config: &PipelineConfig,
    table: Option<&str>,
    topic: Option<&str>,
) -> Result<String, Failure> {
    match topic {
        Some(topic) => Ok(topic.to_owned()),
        None => Ok(topic_of(config, table)?.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_must_be_one_of_the_pipelines() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["public.a".into()];
        assert_eq!(topic_of(&config, Some("public.a")), Ok(Some("cdc.public.a".into())));
        assert_eq!(topic_of(&config, Some("cdc.public.a")), Ok(Some("cdc.public.a".into())));
        assert_eq!(topic_of(&config, Some("public.b")).unwrap_err().exit, Exit::Usage);
        assert_eq!(place(&config, None, Some("x")), Ok("x".into()));
    }
}
