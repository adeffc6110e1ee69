//! What a rewind writes: a pure rule.
//!
//! The record is the intent. Each partition's owner takes it up by itself, whenever it comes to it:
//! it writes the sink's own record, then group S, in the new incarnation, and progress of a lower one
//! counts for nothing from here on. So every step can be repeated.

use cdc_shared::api::{Command, CommandRequest, RewindTarget};
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::offset::{Incarnation, NextOffset, Position, TopicPartition};

use super::Change;
use super::commands::{Effect, Known, Refusal, partition_range, refuse};

/// Decides it, for one topic.
///
/// # Errors
/// A target that the log does not hold, or rows that would come twice.
pub(super) fn decide(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
) -> Result<Effect, Refusal> {
    let Command::Rewind { sink, topic, partition, to, reason, dry_run, repeat_rows } =
        &request.command
    else {
        return refuse("invalid", "not a rewind".to_owned(), "");
    };
    let count = known.topic.as_ref().map_or(0, |now| now.ranges.len()) as i32;
    let partitions: Vec<i32> = match partition {
        Some(partition) => vec![*partition],
        None => (0..count.max(1)).collect(),
    };
    let (mut changes, mut told) = (Vec::new(), Vec::new());
    for partition in partitions {
        let (now, (start, end)) = partition_range(known, topic, partition)?;
        let at_time = known.at_time.get(&partition).copied();
        let next = target(*to, start, end, at_time).ok_or_else(|| Refusal {
            code: "invalid_offset",
            message: format!("{topic}[{partition}] holds {start} to {end} (exclusive)"),
            hint: Some("choose an offset in that range, or beginning, or end".to_owned()),
        })?;
        let found = known.positions.get(&partition);
        let here = found.filter(|position| position.topic_id == now.id);
        if known.repeats.contains(sink) && !repeat_rows {
            refuse_repeats(sink, &format!("{topic}[{partition}]"), here, next)?;
        }
        told.push(step(partition, here, next));
        let tp = TopicPartition::new(topic.as_str(), partition);
        let found = found.map(|position| position.incarnation).unwrap_or_default();
        let pending = control.rewind(sink, &tp);
        // Asked twice before the sink has taken it over: one rewind, not two.
        let repeated = pending.is_some_and(|(incarnation, topic_id, at)| {
            incarnation > found && *topic_id == now.id && at == next
        });
        if repeated {
            continue;
        }
        let highest: Incarnation = pending.map_or(found, |(pending, _, _)| pending.max(found));
        changes.push(Change::put(ControlRecord::Rewind {
            sink: sink.clone(),
            tp,
            topic_id: now.id.clone(),
            incarnation: highest.next(),
            to: next,
            reason: reason.clone(),
            by: request.by.clone(),
            at_ms: known.now_ms,
        }));
    }
    let told = told.join(", ");
    Ok(if *dry_run {
        Effect::of(Vec::new(), format!("sink {sink} would go on with {topic}: {told}"))
    } else {
        Effect::of(changes, format!("sink {sink} goes on with {topic}: {told}: {reason}"))
    })
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

fn refuse_repeats(
    sink: &str,
    place: &str,
    here: Option<&Position>,
    next: NextOffset,
) -> Result<(), Refusal> {
    if here.is_none_or(|here| next >= here.next) {
        return Ok(());
    }
    refuse(
        "rows_would_repeat",
        format!("sink {sink} appends: the rows of {place} from {next} on would be there twice"),
        "roll the table back, which takes the sink back with it; or, for a table that lacks them, \
         --repeat-rows",
    )
}

fn target(to: RewindTarget, start: i64, end: i64, at_time: Option<i64>) -> Option<NextOffset> {
    match to {
        RewindTarget::Beginning => NextOffset::new(start),
        RewindTarget::End => NextOffset::new(end),
        // Behind everything that there is.
        RewindTarget::Timestamp(_) => NextOffset::new(at_time.unwrap_or(end).clamp(start, end)),
        RewindTarget::Offset(next) => (start..=end).contains(&next.get()).then_some(next),
    }
}
