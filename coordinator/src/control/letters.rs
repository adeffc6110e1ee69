//! What replaying and dropping dead letters write: pure rules.

use std::collections::{BTreeMap, BTreeSet};

use cdc_shared::api::CommandRequest;
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::dlq::{
    BLOCK, Fate, LetterFilter, LetterState, MOST_AT_ONCE, MOST_SETTLED, ReplayReport, Settled,
};
use cdc_shared::offset::{TopicId, TopicPartition};
use cdc_shared::task::{
    LetterPlace, PartitionLetters, ReplayOptions, ReplayTotals, Task, TaskEnd, TaskKind, TaskStatus,
};

use super::commands::{Effect, Known, Refusal, refuse};
use super::{Change, tasks};
use crate::dlq::index::Chosen;

/// Failures that the end of a replay tells.
const FAILURES: usize = 20;

/// The letters of a selection that a command may act on, and what is said of the others.
struct Selection<'k> {
    letters: Vec<&'k Chosen>,
    /// Beyond what one command takes.
    left: usize,
    /// That are settled already, in words.
    settled: String,
}

fn select<'k>(known: &'k Known, filter: &LetterFilter) -> Selection<'k> {
    let mut counts: BTreeMap<LetterState, (usize, BTreeSet<&str>)> = BTreeMap::new();
    let wanted = filter.state.unwrap_or(LetterState::Open);
    let mut letters = Vec::new();
    for chosen in &known.letters {
        if chosen.state == wanted {
            letters.push(chosen);
        } else {
            let (count, by) = counts.entry(chosen.state).or_default();
            *count += 1;
            by.extend(chosen.settled.as_ref().map(|(by, ..)| by.as_str()));
        }
    }
    let settled = counts.into_iter().map(|(state, (count, by))| match by.first() {
        Some(first) if by.len() == 1 => format!("{count} {} already by {first}", state.name()),
        _ => format!("{count} {} already", state.name()),
    });
    let settled = settled.collect::<Vec<_>>().join(", ");
    let left = letters.len().saturating_sub(MOST_AT_ONCE);
    letters.truncate(MOST_AT_ONCE);
    Selection { letters, left, settled }
}

/// The sink, and whether more of its letters may be settled.
fn sink_of<'f>(
    filter: &'f LetterFilter,
    control: &ControlState,
    more: usize,
) -> Result<&'f str, Refusal> {
    let Some(sink) = &filter.sink else {
        return refuse("invalid", "no sink is named".to_owned(), "name the sink whose letters");
    };
    let remembered = control.count_settled_letters(sink);
    if more > 0 && remembered + more > MOST_SETTLED {
        return refuse(
            "too_many_settled",
            format!("{remembered} settled letters of sink {sink} are remembered already"),
            "have Kafka delete the oldest records of the dead letter topics \
             (kafka-delete-records); what is settled of them is then forgotten with the sink",
        );
    }
    Ok(sink)
}

fn nothing(done: &str, sink: &str, settled: &str) -> Effect {
    let message = if settled.is_empty() {
        format!("no dead letter of sink {sink} is meant: nothing to {done}")
    } else {
        format!("nothing to {done}: of sink {sink}, {settled}")
    };
    Effect { changes: Vec::new(), message, task: None }
}

/// Posts a replay.
///
/// # Errors
/// When the sink cannot do it, or does one already.
pub(super) fn replay(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    filter: &LetterFilter,
    (dry_run, rate): (bool, Option<u32>),
) -> Result<Effect, Refusal> {
    let Selection { letters, left, settled } = select(known, filter);
    let sink = sink_of(filter, control, if dry_run { 0 } else { letters.len() })?;
    if matches!(filter.state, Some(LetterState::Replayed | LetterState::Superseded)) {
        let message = "what was replayed or superseded is not sent again".to_owned();
        return refuse("invalid", message, "only open letters are, and with state dropped those");
    }
    let running = control.tasks(Some(sink)).into_iter();
    let mut running = running.filter(|task| task.end.is_none() && task.kind.replay().is_some());
    if let Some(task) = running.next() {
        let message = format!("{} replays letters of sink {sink} already", task.id);
        return refuse("replay_runs", message, "wait for it (cdc task watch), or cdc task cancel");
    }
    let (ours, foreign): (Vec<&Chosen>, Vec<&Chosen>) =
        letters.into_iter().partition(|chosen| !chosen.identity.topic_id.0.is_empty());
    if ours.is_empty() && foreign.is_empty() {
        return Ok(nothing("replay", sink, &settled));
    }
    if ours.is_empty() {
        let message =
            format!("{} letters of sink {sink} do not say their topic's id", foreign.len());
        return refuse("replay_unsupported", message, "they are of another program: cdc dlq drop");
    }
    let count = ours.len() as u64;
    // Not before its letters, whatever the clocks say.
    let newest = ours.iter().map(|chosen| chosen.letter.at_ms).max().unwrap_or_default();
    let known = Known { now_ms: known.now_ms.max(newest), ..known.clone() };
    let partitions = places(&ours);
    let kind = TaskKind::Replay(ReplayOptions { dry_run, rate, count, partitions });
    let mut effect = tasks::post(request, &known, control, sink, &kind)?;
    effect.message = format!("{}: {count} dead letters", effect.message);
    for more in [
        (left > 0).then(|| format!("{left} more are left for another")),
        (!settled.is_empty()).then_some(settled),
        (!foreign.is_empty()).then(|| format!("{} of another program left out", foreign.len())),
    ] {
        effect.message.extend(more.map(|more| format!("; {more}")));
    }
    Ok(effect)
}

fn places(chosen: &[&Chosen]) -> Vec<PartitionLetters> {
    let mut partitions: Vec<PartitionLetters> = Vec::new();
    for Chosen { identity, letter, .. } in chosen {
        let (dlq_topic, partition, offset) = &letter.place;
        let place = LetterPlace(identity.offset, *partition, *offset);
        match partitions.last_mut() {
            Some(last) if last.tp == identity.tp && last.topic_id == identity.topic_id => {
                last.letters.push(place);
            }
            _ => partitions.push(PartitionLetters {
                tp: identity.tp.clone(),
                topic_id: identity.topic_id.clone(),
                dlq_topic: dlq_topic.to_string(),
                letters: vec![place],
            }),
        }
    }
    partitions
}

/// Drops letters.
///
/// # Errors
/// When the sink is not named, or too many are remembered.
pub(super) fn drop_letters(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    filter: &LetterFilter,
    reason: &str,
) -> Result<Effect, Refusal> {
    if filter.state.is_some_and(|state| state != LetterState::Open) {
        let message = "only open letters can be dropped".to_owned();
        return refuse("invalid", message, "leave the state out");
    }
    let Selection { letters, left, settled } = select(known, filter);
    let sink = sink_of(filter, control, letters.len())?;
    if letters.is_empty() {
        return Ok(nothing("drop", sink, &settled));
    }
    let newest = letters.iter().map(|chosen| chosen.letter.at_ms).max().unwrap_or_default();
    let how = Settled {
        fate: Fate::Dropped,
        at_ms: known.now_ms.max(newest),
        by: request.by.clone(),
        reason: reason.to_owned(),
        offsets: Vec::new(),
    };
    let mut places: BTreeMap<(&TopicPartition, &TopicId), BTreeSet<i64>> = BTreeMap::new();
    for Chosen { identity, .. } in &letters {
        places.entry((&identity.tp, &identity.topic_id)).or_default().insert(identity.offset);
    }
    let changes = places.iter().flat_map(|((tp, id), offsets)| {
        settle(control, sink, (tp, id), &[(how.clone(), offsets.clone())])
    });
    let mut message = format!("{} dead letters of sink {sink} dropped: {reason}", letters.len());
    if left > 0 {
        message = format!("{message}; {left} more are left for another command");
    }
    if !settled.is_empty() {
        message = format!("{message}; {settled}");
    }
    Ok(Effect { changes: changes.collect(), message, task: None })
}

/// Writes what became of letters of one partition into the records that hold it.
fn settle(
    control: &ControlState,
    sink: &str,
    (tp, topic_id): (&TopicPartition, &TopicId),
    news: &[(Settled, BTreeSet<i64>)],
) -> Vec<Change> {
    let blocks: BTreeSet<i64> =
        news.iter().flat_map(|(_, offsets)| offsets).map(|at| at.div_euclid(BLOCK)).collect();
    let record = |block: i64| {
        let mut settled = control.settled_letters(sink, tp, topic_id, block * BLOCK).to_vec();
        for (how, offsets) in news {
            let new: BTreeSet<i64> =
                offsets.iter().copied().filter(|at| at.div_euclid(BLOCK) == block).collect();
            if !new.is_empty() {
                put(&mut settled, how, new);
            }
        }
        Change::put(ControlRecord::DeadLetters {
            sink: sink.to_owned(),
            tp: tp.clone(),
            topic_id: topic_id.clone(),
            block,
            settled,
        })
    };
    blocks.into_iter().map(record).collect()
}

/// What settled a letter before no longer counts.
fn put(settled: &mut Vec<Settled>, how: &Settled, mut new: BTreeSet<i64>) {
    let same = |old: &Settled| (old.fate, &old.by, &old.reason) == (how.fate, &how.by, &how.reason);
    for old in settled.iter_mut() {
        if same(old) && old.at_ms >= how.at_ms - 60_000 {
            new.extend(&old.offsets);
        }
        old.offsets.retain(|at| !new.contains(at));
    }
    settled.retain(|old| !old.offsets.is_empty());
    settled.push(Settled { offsets: new.into_iter().collect(), ..how.clone() });
}

/// How a replay stands by what the workers tell and what is written already.
pub struct Progress {
    /// What is to be written of it.
    pub changes: Vec<Change>,
    /// Letters by what became of them.
    pub totals: ReplayTotals,
    /// Letters of which nothing is known yet.
    pub open: u64,
}

/// What a replay came to so far.
pub fn progress(
    control: &ControlState,
    task: &Task,
    reports: &[ReplayReport],
    now_ms: i64,
) -> Option<Progress> {
    let options = task.kind.replay()?;
    let mut found = Progress { changes: Vec::new(), totals: ReplayTotals::default(), open: 0 };
    for part in &options.partitions {
        let PartitionLetters { tp, topic_id, letters, .. } = part;
        let ours: Vec<&ReplayReport> = reports
            .iter()
            .filter(|report| report.task == task.id && report.topic == *tp.topic)
            .filter(|report| report.partition == tp.partition)
            .collect();
        let mut news: BTreeMap<Fate, BTreeSet<i64>> = BTreeMap::new();
        for &LetterPlace(offset, ..) in letters {
            let at = (offset, task.at_ms);
            let known = control.letter_settled(&task.sink, tp, topic_id, at).map(|by| by.fate);
            let told = if ours.iter().any(|report| report.replayed.contains(&offset)) {
                Some(Fate::Replayed)
            } else if ours.iter().any(|report| report.superseded.contains(&offset)) {
                Some(Fate::Superseded)
            } else {
                None
            };
            match known.or(told) {
                Some(Fate::Replayed) => found.totals.replayed += 1,
                Some(Fate::Superseded | Fate::Dropped) => found.totals.superseded += 1,
                None => failed(&mut found, tp, offset, &ours),
            }
            if let (None, Some(fate), false) = (known, told, options.dry_run) {
                news.entry(fate).or_default().insert(offset);
            }
        }
        let news: Vec<(Settled, BTreeSet<i64>)> = news
            .into_iter()
            .map(|(fate, offsets)| (settled_by(task, fate, now_ms), offsets))
            .collect();
        found.changes.extend(settle(control, &task.sink, (tp, topic_id), &news));
    }
    Some(found)
}

fn settled_by(task: &Task, fate: Fate, now_ms: i64) -> Settled {
    Settled {
        fate,
        at_ms: now_ms.max(task.at_ms),
        by: task.id.clone(),
        reason: String::new(),
        offsets: Vec::new(),
    }
}

fn failed(found: &mut Progress, tp: &TopicPartition, offset: i64, reports: &[&ReplayReport]) {
    let told = reports.iter().flat_map(|report| &report.failed);
    let Some(failed) = told.rev().find(|failed| failed.offset == offset) else {
        found.open += 1;
        return;
    };
    found.totals.failed += 1;
    if found.totals.failures.len() < FAILURES {
        let line = format!("{tp}@{offset}: {}: {}", failed.code, failed.message);
        found.totals.failures.push(line);
    }
}

/// The end of a replay that has nothing open.
pub fn end(task: &Task, totals: ReplayTotals, now_ms: i64) -> TaskEnd {
    let dry_run = task.kind.replay().is_some_and(|options| options.dry_run);
    let would = if dry_run { "would be " } else { "" };
    let ReplayTotals { replayed, superseded, failed, .. } = totals;
    let message = format!(
        "{replayed} dead letters {would}replayed, {superseded} superseded by something newer, \
         {failed} stay open"
    );
    let status = if failed == 0 { TaskStatus::Done } else { TaskStatus::LeftOpen };
    let hint = (failed > 0)
        .then(|| "mend the cause and replay them again, or cdc dlq drop gives them up".to_owned());
    TaskEnd { hint, letters: Some(totals), ..TaskEnd::new(now_ms, status, message) }
}

#[cfg(test)]
#[path = "letters_test.rs"]
mod tests;
