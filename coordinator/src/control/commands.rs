//! What an operator's command writes: pure rules over what is known.

use std::collections::{BTreeMap, BTreeSet};

use cdc_shared::api::{Command, CommandRequest, Directive, DirectiveState};
use cdc_shared::audit::AuditedChange;
use cdc_shared::config::SinkType;
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::offset::{Position, TopicId, TopicPartition};
use cdc_shared::schema::Acceptance;

use super::{Change, letters, rewind, tasks};
use crate::dlq::index::Chosen;
use crate::schema;

/// A topic that a command names, as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicNow {
    /// Kafka's id.
    pub id: TopicId,
    /// First and last offset (exclusive) of each partition, from 0.
    pub ranges: Vec<(i64, i64)>,
}

/// What is known when a command arrives, beside the control topic.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Sinks and the topics each of them has or had to do with.
    pub sinks: BTreeMap<String, Vec<String>>,
    /// First part of the topics' names, so that a table may be named instead.
    pub topic_prefix: String,
    /// The topic of a skip or rewind.
    pub topic: Option<TopicNow>,
    /// For a rewind to a point in time, or to a place in the source's log: the first offset of each
    /// partition at or after it.
    pub first_at: BTreeMap<i32, i64>,
    /// The sink's position per partition: the highest, wherever one was found.
    pub positions: BTreeMap<i32, Position>,
    /// Partitions of that topic that a live worker of the sink holds, because its progress counts in
    /// another topic of the name.
    pub recreated: BTreeSet<i32>,
    /// What kind each configured sink is of.
    pub types: BTreeMap<String, SinkType>,
    /// Sinks with live workers, and the topics that these have to do with.
    pub live: BTreeMap<String, BTreeSet<String>>,
    /// The dead letters that a command means, whatever their state.
    pub letters: Vec<Chosen>,
    /// Unix ms.
    pub now_ms: i64,
}

/// Why a command is not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable code.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What a command does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// What is written, in one transaction; empty when all of it is so already.
    pub changes: Vec<Change>,
    /// One line for the person who asked.
    pub message: String,
    /// Id of the task that was posted.
    pub task: Option<String>,
}

impl Effect {
    pub(super) fn of(changes: Vec<Change>, message: String) -> Self {
        Self { changes, message, task: None }
    }
}

impl Known {
    /// The command with its topic's full name, after sink and topic were found to exist.
    ///
    /// # Errors
    /// A name that nobody knows, with the nearest one.
    pub fn resolve(&self, command: &Command) -> Result<Command, Refusal> {
        let mut command = command.clone();
        let (sink, places): (_, Vec<&mut String>) = match &mut command {
            Command::Stop { sink, .. } | Command::CancelTask { sink, .. } => (&*sink, Vec::new()),
            Command::StartTask { sink, kind } => {
                (&*sink, kind.topics_mut().into_iter().flatten().collect())
            }
            Command::Replay { filter, .. } | Command::DropLetters { filter, .. } => {
                let Some(sink) = &filter.sink else {
                    let hint = "its letters are meant";
                    return refuse("invalid", "no sink is named".to_owned(), hint);
                };
                (sink, filter.topic.iter_mut().collect())
            }
            Command::Pause { sink, topic, .. }
            | Command::Resume { sink, topic }
            | Command::Restart { sink, topic, .. }
            | Command::RemoveSink { sink, topic } => (&*sink, topic.iter_mut().collect()),
            Command::Skip { sink, topic, .. } | Command::Rewind { sink, topic, .. } => {
                (&*sink, vec![topic])
            }
            Command::AcceptSchema { topic, .. } => {
                let topics: Vec<String> = self.sinks.values().flatten().cloned().collect();
                self.complete(topic, &topics)?;
                return Ok(command);
            }
        };
        let Some(topics) = self.sinks.get(sink) else {
            let names = self.sinks.keys().map(String::as_str);
            return Err(unknown("unknown_sink", "sink", sink, sink, names));
        };
        for topic in places {
            self.complete(topic, topics)?;
        }
        Ok(command)
    }

    /// Makes a table's name the name of its topic, unless it is one.
    fn complete(&self, topic: &mut String, known: &[String]) -> Result<(), Refusal> {
        if known.contains(topic) {
            return Ok(());
        }
        let full = format!("{}.{topic}", self.topic_prefix);
        if !known.contains(&full) {
            let names = known.iter().map(String::as_str);
            return Err(unknown("unknown_topic", "topic", topic, &full, names));
        }
        *topic = full;
        Ok(())
    }
}

fn unknown<'a>(
    code: &'static str,
    what: &str,
    name: &str,
    like: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Refusal {
    let near = known
        .clone()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, like), candidate))
        .filter(|(distance, _)| *distance <= (like.len() / 3).max(1))
        .min();
    let hint = match near {
        Some((_, candidate)) => format!("did you mean {candidate:?}?"),
        None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Refusal { code, message: format!("no {what} {name:?}"), hint: Some(hint) }
}

pub(super) fn refuse<T>(code: &'static str, message: String, hint: &str) -> Result<T, Refusal> {
    Err(Refusal { code, message, hint: Some(hint.to_owned()) })
}

/// Decides a command that was [resolved](Known::resolve).
///
/// # Errors
/// Why it is refused.
pub fn decide(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
) -> Result<Effect, Refusal> {
    let mut effect = match &request.command {
        Command::Pause { sink, topic, reason } => directive(
            request,
            known,
            control,
            (sink, topic.as_deref()),
            DirectiveState::Pause,
            reason,
        ),
        Command::Stop { sink, reason } => {
            directive(request, known, control, (sink, None), DirectiveState::Stop, reason)
        }
        Command::Resume { sink, topic } => resume(request, known, control, sink, topic.as_deref()),
        Command::Restart { sink, topic, reason } => {
            restart(request, known, control, (sink, topic.as_deref()), reason)
        }
        Command::Skip { .. } => skip(request, known, control)?,
        Command::Rewind { .. } => rewind::decide(request, known, control)?,
        Command::RemoveSink { sink, topic } => remove(known, control, sink, topic.as_deref())?,
        Command::AcceptSchema { topic, id, reason } => {
            let (by, at_ms, reason) = (request.by.clone(), known.now_ms, reason.clone());
            schema::accept(control, topic, *id, &Acceptance { by, at_ms, reason })?
        }
        Command::StartTask { sink, kind } => tasks::post(request, known, control, sink, kind)?,
        Command::Replay { filter, dry_run, rate } => {
            letters::replay(request, known, control, filter, (*dry_run, *rate))?
        }
        Command::DropLetters { filter, reason } => {
            letters::drop_letters(request, known, control, filter, reason)?
        }
        Command::CancelTask { sink, id } => tasks::cancel(request, known, control, sink, id)?,
    };
    if !effect.changes.is_empty() {
        effect.changes.push(Change::put(ControlRecord::Audit {
            by: request.by.clone(),
            at_ms: known.now_ms,
            action: effect.message.clone(),
            changes: audited(&effect.changes, control),
        }));
    }
    Ok(effect)
}

/// Changes of one command that the audit trail holds one by one.
const MOST_AUDITED: usize = 50;
/// Longest record that it holds, in bytes of JSON: together they must fit into a message.
const MOST_AUDITED_BYTES: usize = 4096;

fn audited(changes: &[Change], control: &ControlState) -> Vec<AuditedChange> {
    let told = |record: &ControlRecord| {
        let value = serde_json::to_value(record).ok()?;
        let length = value.to_string().len();
        Some(if length > MOST_AUDITED_BYTES {
            serde_json::Value::from(format!("{length} bytes, left out"))
        } else {
            value
        })
    };
    let one = |change: &Change| {
        let key = change.key();
        let before = control.record(&key).and_then(told);
        let after = match change {
            Change::Put(record) => told(record),
            Change::Remove(_) => None,
        };
        AuditedChange { key, before, after }
    };
    let mut audited: Vec<_> = changes.iter().take(MOST_AUDITED).map(one).collect();
    if let Some(more) = changes.len().checked_sub(MOST_AUDITED).filter(|more| *more > 0) {
        let key = format!("and {more} more records, left out");
        audited.push(AuditedChange { key, before: None, after: None });
    }
    audited
}

fn scope(sink: &str, topic: Option<&str>) -> String {
    match topic {
        Some(topic) => format!("{topic} of sink {sink}"),
        None => format!("sink {sink}"),
    }
}

fn own_directive<'a>(
    control: &'a ControlState,
    sink: &str,
    topic: Option<&str>,
) -> Option<&'a Directive> {
    control.records().find_map(|record| match record {
        ControlRecord::Directive { sink: of, topic: of_topic, directive, .. }
            if of == sink && of_topic.as_deref() == topic =>
        {
            Some(directive)
        }
        _ => None,
    })
}

fn directive(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    (sink, topic): (&str, Option<&str>),
    state: DirectiveState,
    reason: &str,
) -> Effect {
    let done = if state == DirectiveState::Stop { "stopped" } else { "paused" };
    let what = scope(sink, topic);
    let wanted = Directive { state, reason: reason.to_owned() };
    if own_directive(control, sink, topic) == Some(&wanted) {
        return Effect::of(Vec::new(), format!("{what} is {done} already"));
    }
    let record = ControlRecord::Directive {
        sink: sink.to_owned(),
        topic: topic.map(ToOwned::to_owned),
        directive: wanted,
        by: request.by.clone(),
        at_ms: known.now_ms,
    };
    Effect::of(vec![Change::put(record)], format!("{what} {done}: {reason}"))
}

/// Every resume is written, even one that changes no directive: it is one more try for what was
/// stopped by name.
fn resume(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    sink: &str,
    topic: Option<&str>,
) -> Effect {
    let (by, at_ms) = (request.by.clone(), known.now_ms);
    let (owned_sink, owned_topic) = (sink.to_owned(), topic.map(ToOwned::to_owned));
    let mut changes = Vec::new();
    if own_directive(control, sink, topic).is_some_and(|own| own.state != DirectiveState::Run) {
        changes.push(Change::put(ControlRecord::Directive {
            sink: owned_sink.clone(),
            topic: owned_topic.clone(),
            directive: Directive::run(),
            by: by.clone(),
            at_ms,
        }));
    }
    changes.push(Change::put(ControlRecord::Resume {
        sink: owned_sink,
        topic: owned_topic,
        by,
        at_ms,
    }));
    let message = format!("{} resumed{}", scope(sink, topic), still_held(control, sink, topic));
    Effect::of(changes, message)
}

/// What a resume leaves held.
fn still_held(control: &ControlState, sink: &str, topic: Option<&str>) -> String {
    let whole = control.directive(sink, None).state;
    let tables = control.table_directives(sink);
    if topic.is_some() && whole != DirectiveState::Run {
        "; the sink as a whole is still held".to_owned()
    } else if topic.is_none() && !tables.is_empty() {
        let names: Vec<&str> = tables.iter().map(|(topic, _)| topic.as_str()).collect();
        format!("; still held: {}", names.join(", "))
    } else {
        String::new()
    }
}

/// A resume that also has what runs let go and begin again. Workers that start later have begun
/// anew as it is: only who read the control topic before takes it up.
fn restart(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    (sink, topic): (&str, Option<&str>),
    reason: &str,
) -> Effect {
    let mut effect = resume(request, known, control, sink, topic);
    effect.changes.push(Change::put(ControlRecord::Restart {
        sink: sink.to_owned(),
        topic: topic.map(ToOwned::to_owned),
        reason: reason.to_owned(),
        by: request.by.clone(),
        at_ms: known.now_ms,
    }));
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let held = still_held(control, sink, topic);
    effect.message = format!("{} restarted{held}{because}", scope(sink, topic));
    effect
}

pub(super) fn partition_range<'a>(
    known: &'a Known,
    topic: &str,
    partition: i32,
) -> Result<(&'a TopicNow, (i64, i64)), Refusal> {
    let Some(now) = &known.topic else {
        return refuse(
            "unknown_topic",
            format!("topic {topic:?} does not exist in Kafka"),
            "cdc deploy creates it",
        );
    };
    match usize::try_from(partition).ok().and_then(|index| now.ranges.get(index)) {
        Some(range) => Ok((now, *range)),
        None => refuse(
            "unknown_partition",
            format!("topic {topic:?} has no partition {partition}"),
            &format!("it has partitions 0 to {}", now.ranges.len().saturating_sub(1)),
        ),
    }
}

fn skip(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
) -> Result<Effect, Refusal> {
    let Command::Skip { sink, topic, partition, from, to, reason } = &request.command else {
        return refuse("invalid", "not a skip".to_owned(), "");
    };
    let (now, (_, end)) = partition_range(known, topic, *partition)?;
    if *from < 0 || from >= to || *to > end {
        return refuse(
            "invalid_range",
            format!("cannot skip from {from} to {to} (exclusive) of {topic}[{partition}]"),
            &format!("from must be below to, and to at most {end}, the log's end"),
        );
    }
    let tp = TopicPartition::new(topic.as_str(), *partition);
    let message = format!("sink {sink} skips {tp} from {from} to {to} (exclusive): {reason}");
    let covered = control.records().any(|record| {
        matches!(record, ControlRecord::Skip { sink: s, tp: p, topic_id, from: f, to: t, .. }
            if s == sink && *p == tp && *topic_id == now.id && f == from && t == to)
    });
    if covered {
        return Ok(Effect::of(Vec::new(), format!("already so: {message}")));
    }
    let record = ControlRecord::Skip {
        sink: sink.clone(),
        tp,
        topic_id: now.id.clone(),
        from: *from,
        to: *to,
        reason: reason.clone(),
        by: request.by.clone(),
        at_ms: known.now_ms,
    };
    Ok(Effect::of(vec![Change::put(record)], message))
}

/// Everything kept about the sink goes, except its rewinds: they hold the incarnation below which
/// old progress must not count again if the sink comes back under the same id.
fn remove(
    known: &Known,
    control: &ControlState,
    sink: &str,
    topic: Option<&str>,
) -> Result<Effect, Refusal> {
    let live = known.live.get(sink);
    if let Some(topic) = topic.filter(|topic| live.is_some_and(|topics| topics.contains(*topic))) {
        return refuse(
            "sink_live",
            format!("live workers of sink {sink} still consume {topic}"),
            "take the table out of the sink's tables and restart its workers first: they would \
             report it again at once",
        );
    }
    if live.is_some() && topic.is_none() {
        return refuse(
            "sink_live",
            format!("sink {sink} still has live workers"),
            "stop its workers for good first: they would report it again at once",
        );
    }
    let changes: Vec<Change> = control
        .records()
        .filter(|record| {
            let (of, of_topic) = match record {
                ControlRecord::Member { sink, topic, .. }
                | ControlRecord::Started { sink, topic, .. } => (sink, Some(topic.as_str())),
                ControlRecord::Directive { sink, topic, .. }
                | ControlRecord::Resume { sink, topic, .. }
                | ControlRecord::Restart { sink, topic, .. } => (sink, topic.as_deref()),
                ControlRecord::Skip { sink, tp, .. }
                | ControlRecord::DeadLetters { sink, tp, .. } => (sink, Some(tp.topic.as_ref())),
                ControlRecord::Task { task } => (&task.sink, None),
                ControlRecord::Rewind { .. }
                | ControlRecord::GroupStart { .. }
                | ControlRecord::SchemaSubject { .. }
                | ControlRecord::SchemaVerdict { .. }
                | ControlRecord::Leader { .. }
                | ControlRecord::Audit { .. } => return false,
            };
            of == sink && (topic.is_none() || of_topic == topic)
        })
        .map(|record| Change::Remove(record.key()))
        .collect();
    let what = scope(sink, topic);
    let message = if changes.is_empty() {
        format!("{what} is removed already")
    } else {
        format!("{what} removed: it no longer counts for the pipeline's group")
    };
    Ok(Effect::of(changes, message))
}

#[cfg(test)]
#[path = "commands_test.rs"]
mod tests;
