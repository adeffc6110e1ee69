//! What the types of a request cannot say. Sinks, topics and texts become keys and values of Redis
//! and of the control topic, and lines of logs: what does not belong there is refused here.

use cdc_shared::api::{Command, CommandRequest, Heartbeat};
use cdc_shared::schema::topic_of;

/// Longest name of anything in a request.
const MAX_NAME: usize = 300;
/// No log is as long, and sums over all partitions stay numbers.
const MAX_OFFSET: i64 = 1 << 48;
/// No clock tells such a time, in Unix ms (the year 5138), nor one so long before 1970.
const MAX_MS: i64 = 100_000_000_000_000;
/// Longest text of a person, in characters.
const MAX_TEXT: usize = 1000;

/// What is wrong with a heartbeat.
pub(super) fn heartbeat(heartbeat: &Heartbeat) -> Result<(), String> {
    if !is_id(&heartbeat.sink_id) {
        return Err(format!("sink_id {:?} is no id of a sink", shortened(&heartbeat.sink_id)));
    }
    if !is_name(&heartbeat.worker.id) {
        return Err(format!("worker.id {:?} is no name", shortened(&heartbeat.worker.id)));
    }
    for report in &heartbeat.partitions {
        let (topic, partition) = (&report.topic, report.partition);
        if !is_topic(topic) || partition < 0 {
            return Err(format!("{:?}[{partition}] is no partition", shortened(topic)));
        }
        let next = report.position.as_ref().map_or(0, |position| position.next.get());
        if next > MAX_OFFSET {
            return Err(format!("{topic}[{partition}]: {next} is no offset"));
        }
        let mut times = [report.last_flush_ms, report.next_source_ms].into_iter().flatten();
        if let Some(ms) = times.find(|ms| !(-MAX_MS..=MAX_MS).contains(ms)) {
            return Err(format!("{topic}[{partition}]: {ms} is no time"));
        }
        let id = report.position.as_ref().map(|position| &position.topic_id.0);
        if let Some(id) = id.filter(|id| !is_name(id)) {
            return Err(format!("{topic}[{partition}]: {:?} is no topic id", shortened(id)));
        }
    }
    for question in &heartbeat.schema_questions {
        if topic_of(&question.subject).is_none_or(|(topic, _)| !is_topic(topic)) {
            return Err(format!("{:?} is no subject of a topic", shortened(&question.subject)));
        }
    }
    for report in &heartbeat.replays {
        let (topic, partition) = (&report.topic, report.partition);
        if !is_topic(topic) || partition < 0 || !is_name(&report.task) {
            return Err(format!("replays: {:?}[{partition}] is no partition", shortened(topic)));
        }
    }
    Ok(())
}

/// What is wrong with a command.
pub(super) fn command(request: &CommandRequest) -> Result<(), String> {
    let reason = match &request.command {
        Command::Pause { reason, .. }
        | Command::Stop { reason, .. }
        | Command::Restart { reason, .. }
        | Command::Skip { reason, .. }
        | Command::Rewind { reason, .. }
        | Command::DropLetters { reason, .. }
        | Command::AcceptSchema { reason, .. } => reason.as_str(),
        Command::Resume { .. }
        | Command::RemoveSink { .. }
        | Command::StartTask { .. }
        | Command::Replay { .. }
        | Command::CancelTask { .. } => "",
    };
    for (name, text) in [("by", request.by.as_str()), ("reason", reason)] {
        if text.chars().count() > MAX_TEXT {
            return Err(format!("{name} is longer than {MAX_TEXT} characters"));
        }
        if text.contains(char::is_control) {
            return Err(format!("{name} holds a control character: write it in one line"));
        }
    }
    Ok(())
}

fn is_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= MAX_NAME
        && text.starts_with(allowed)
        && text.chars().all(|c| allowed(c) || matches!(c, '_' | '-'))
}

fn is_topic(text: &str) -> bool {
    is_name(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Visible characters without a space: a watermark's parts are told apart by spaces.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
