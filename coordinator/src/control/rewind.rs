//! What a rewind writes: a pure rule.
//!
//! The record is the intent. Each partition's owner takes it up by itself, whenever it comes to it:
//! it writes the sink's own record, then group S, in the new incarnation, and progress of a lower one
//! counts for nothing from here on. So every step can be repeated.

use cdc_shared::api::{Command, CommandRequest, RewindTarget};
use cdc_shared::config::SinkType;
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::offset::{Incarnation, NextOffset, Position, TopicId, TopicPartition};

use super::Change;
use super::commands::{Effect, Known, Refusal, partition_range, refuse};

/// What is asked of each partition.
struct Asked<'a> {
    sink: &'a str,
    topic: &'a str,
    to: &'a RewindTarget,
    reason: &'a str,
    by: &'a str,
    new_ids: bool,
    accept_new_topic: bool,
}

/// Decides it, for one topic.
///
/// # Errors
/// A target that the log does not hold, or another topic than the one that progress counts in.
pub(super) fn decide(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
) -> Result<Effect, Refusal> {
    let Command::Rewind { sink, topic, partition, to, reason, dry_run, new_ids, accept_new_topic } =
        &request.command
    else {
        return refuse("invalid", "not a rewind".to_owned(), "");
    };
    let sink_type = known.types.get(sink).copied();
    if *new_ids && sink_type.is_some_and(|sink_type| sink_type != SinkType::Webhook) {
        let message = format!("sink {sink} gives no ids that could be new");
        return refuse("no_ids", message, "new ids are for webhooks");
    }
    let asked = Asked {
        sink,
        topic,
        to,
        reason,
        by: &request.by,
        new_ids: *new_ids,
        accept_new_topic: *accept_new_topic,
    };
    let count = known.topic.as_ref().map_or(0, |now| now.ranges.len()) as i32;
    let partitions: Vec<i32> = match partition {
        Some(partition) => vec![*partition],
        None => (0..count.max(1)).collect(),
    };
    let (mut changes, mut told) = (Vec::new(), Vec::new());
    for partition in partitions {
        let (record, step) = decide_one(&asked, partition, known, control)?;
        changes.extend(record.map(Change::put));
        told.push(step);
    }
    let told = told.join(", ");
    Ok(if *dry_run {
        Effect::of(Vec::new(), format!("sink {sink} would go on with {topic}: {told}"))
    } else {
        Effect::of(changes, format!("sink {sink} goes on with {topic}: {told}: {reason}"))
    })
}

/// What is written for one partition, unless it is so already, and what it means.
fn decide_one(
    asked: &Asked<'_>,
    partition: i32,
    known: &Known,
    control: &ControlState,
) -> Result<(Option<ControlRecord>, String), Refusal> {
    let &Asked { sink, topic, to, new_ids, accept_new_topic, .. } = asked;
    let (now, (start, end)) = partition_range(known, topic, partition)?;
    let first = known.first_at.get(&partition).copied();
    let next = target(to, start, end, first).ok_or_else(|| Refusal {
        code: "invalid_offset",
        message: format!("{topic}[{partition}] holds {start} to {end} (exclusive)"),
        hint: Some("choose an offset in that range, or beginning, or end".to_owned()),
    })?;
    let found = known.positions.get(&partition);
    let here = found.filter(|position| position.topic_id == now.id);
    if !accept_new_topic {
        refuse_new_topic(known, sink, topic, (partition, found, &now.id))?;
    }
    let step = step(partition, here, next);
    let tp = TopicPartition::new(topic, partition);
    let found = found.map(|position| position.incarnation).unwrap_or_default();
    let pending = control.rewind(sink, &tp);
    let generation = control.id_generation(sink, &tp, &now.id);
    // Asked twice before the sink has taken it over: one rewind, not two.
    let repeated = pending.is_some_and(|(incarnation, topic_id, at)| {
        let is_so = incarnation > found && *topic_id == now.id && at == next;
        is_so
            && control.accepts_new_topic(sink, &tp) == accept_new_topic
            && (!new_ids || generation == incarnation.0)
    });
    if repeated {
        return Ok((None, step));
    }
    let highest: Incarnation = pending.map_or(found, |(pending, _, _)| pending.max(found));
    let incarnation = highest.next();
    let record = ControlRecord::Rewind {
        sink: sink.to_owned(),
        tp,
        topic_id: now.id.clone(),
        incarnation,
        to: next,
        id_generation: if new_ids { incarnation.0 } else { generation },
        accept_new_topic,
        reason: asked.reason.to_owned(),
        by: asked.by.to_owned(),
        at_ms: known.now_ms,
    };
    Ok((Some(record), step))
}

/// Where one partition goes, and what that means.
fn step(partition: i32, here: Option<&Position>, next: NextOffset) -> String {
    let Some(here) = here.map(|position| position.next) else {
        return format!("{partition} to {next}");
    };
    let far = next.get().abs_diff(here.get());
    let meaning = match next.cmp(&here) {
        std::cmp::Ordering::Less => format!(" ({far} offsets come again)"),
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Greater => format!(" ({far} offsets are passed without delivery)"),
    };
    format!("{partition} from {here} to {next}{meaning}")
}

/// Another topic is another log: what was counted in the former one is given up only on demand.
fn refuse_new_topic(
    known: &Known,
    sink: &str,
    topic: &str,
    (partition, found, id): (i32, Option<&Position>, &TopicId),
) -> Result<(), Refusal> {
    let is_other = found.is_some_and(|position| position.topic_id != *id);
    if !is_other && !known.recreated.contains(&partition) {
        return Ok(());
    }
    refuse(
        "topic_recreated",
        format!(
            "progress of sink {sink} counts in another topic than {topic}[{partition}] is now (id \
             {id})"
        ),
        "--accept-new-topic takes the topic as it is now: where the sink was in the former one no \
         longer counts",
    )
}

fn target(to: &RewindTarget, start: i64, end: i64, first: Option<i64>) -> Option<NextOffset> {
    match to {
        RewindTarget::Beginning => NextOffset::new(start),
        RewindTarget::End => NextOffset::new(end),
        // Behind everything that there is.
        RewindTarget::Timestamp(_) | RewindTarget::SourcePosition(_) => {
            NextOffset::new(first.unwrap_or(end).clamp(start, end))
        }
        RewindTarget::Offset(next) => (start..=end).contains(&next.get()).then_some(*next),
    }
}
