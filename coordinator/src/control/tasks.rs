//! What posting, calling off and ending a task write: pure rules.

use cdc_shared::api::CommandRequest;
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::task::{KEPT_TASKS, Task, TaskEnd, TaskKind, TaskStatus};

use super::Change;
use super::commands::{Effect, Known, Refusal};

/// How long an ended task is kept.
const KEPT_MS: i64 = 7 * 24 * 3600 * 1000;

/// Posts a task, and removes those that nobody will ask for any more.
///
/// # Errors
/// When no worker lives that could do it, or too many tasks wait already.
pub(super) fn post(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    sink: &str,
    kind: &TaskKind,
) -> Result<Effect, Refusal> {
    let name = kind.name();
    if !known.live.contains_key(sink) {
        return Err(Refusal {
            code: "no_worker",
            message: format!("sink {sink} has no live worker that could {name} it"),
            hint: Some(format!(
                "start one{}",
                match kind.comparison() {
                    Some(_) =>
                        format!(", or run cdc-worker {name} FILE --sink {sink}, which needs none"),
                    None => String::new(),
                }
            )),
        });
    }
    let old = control.tasks(Some(sink));
    let waiting = old.iter().filter(|task| task.end.is_none()).count();
    if waiting >= KEPT_TASKS {
        return Err(Refusal {
            code: "too_many_tasks",
            message: format!("{waiting} tasks of sink {sink} wait already"),
            hint: Some("wait for them, or cdc task cancel".to_owned()),
        });
    }
    let mut changes = prune(&old, known.now_ms);
    let mut number = known.now_ms;
    while old.iter().any(|task| task.id == format!("{name}-{number}")) {
        number += 1;
    }
    let id = format!("{name}-{number}");
    let task = Task {
        id: id.clone(),
        sink: sink.to_owned(),
        kind: kind.clone(),
        by: request.by.clone(),
        at_ms: known.now_ms,
        end: None,
    };
    changes.push(Change::put(ControlRecord::Task { task }));
    let message = format!("task {id} of sink {sink} posted");
    Ok(Effect { changes, message, task: Some(id) })
}

/// The oldest ended tasks go: those past their time, and as many as leave room for one more.
fn prune(tasks: &[&Task], now_ms: i64) -> Vec<Change> {
    let surplus = (tasks.len() + 1).saturating_sub(KEPT_TASKS);
    let ended: Vec<&&Task> = tasks.iter().filter(|task| task.end.is_some()).collect();
    let old = |task: &Task| task.end.as_ref().is_some_and(|end| end.at_ms + KEPT_MS < now_ms);
    ended
        .iter()
        .enumerate()
        .filter(|(place, task)| *place < surplus || old(task))
        .map(|(_, task)| Change::Remove(key(task)))
        .collect()
}

fn key(task: &Task) -> String {
    ControlRecord::Task { task: task.clone() }.key()
}

/// Calls a task off. One that has ended stays as it is.
///
/// # Errors
/// When there is no such task.
pub(super) fn cancel(
    request: &CommandRequest,
    known: &Known,
    control: &ControlState,
    sink: &str,
    id: &str,
) -> Result<Effect, Refusal> {
    let tasks = control.tasks(Some(sink));
    let Some(task) = tasks.iter().find(|task| task.id == id) else {
        return Err(Refusal {
            code: "unknown_task",
            message: format!("sink {sink} has no task {id}"),
            hint: Some("see cdc task list".to_owned()),
        });
    };
    let message = format!("called off by {}", request.by);
    let end = TaskEnd::new(known.now_ms, TaskStatus::Cancelled, message);
    let changes: Vec<Change> = finish(control, sink, id, &end).into_iter().collect();
    let message = match (changes.is_empty(), &task.end) {
        (true, Some(end)) => format!("task {id} has ended already: {}", end.message),
        _ => format!("task {id} of sink {sink} called off"),
    };
    Ok(Effect { changes, message, task: None })
}

/// Writes the end of a task, unless it has one.
pub fn finish(control: &ControlState, sink: &str, id: &str, end: &TaskEnd) -> Option<Change> {
    let tasks = control.tasks(Some(sink));
    let task = tasks.into_iter().find(|task| task.id == id && task.end.is_none())?;
    let mut task = Task { end: Some(end.clone()), ..task.clone() };
    if let TaskKind::Replay(options) = &mut task.kind {
        // Nobody needs the letters any more.
        options.partitions.clear();
    }
    Some(Change::put(ControlRecord::Task { task }))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cdc_shared::api::Command;
    use cdc_shared::task::VerifyOptions;

    use super::*;
    use crate::control::commands::decide;

    fn known(now_ms: i64) -> Known {
        let sinks = [("pg".to_owned(), vec!["cdc.public.orders".to_owned()])].into();
        let live = [("pg".to_owned(), BTreeSet::from(["cdc.public.orders".to_owned()]))].into();
        Known { sinks, topic_prefix: "cdc".into(), live, now_ms, ..Known::default() }
    }

    fn apply(control: &mut ControlState, changes: &[Change]) {
        for change in changes {
            let value = match change {
                Change::Put(record) => Some(serde_json::to_vec(record).unwrap()),
                Change::Remove(_) => None,
            };
            control.apply(control.offset(), &change.key(), value.as_deref()).unwrap();
        }
    }

    fn start(topics: &[&str]) -> Command {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let kind = TaskKind::Verify(VerifyOptions { topics, ..VerifyOptions::default() });
        Command::StartTask { sink: "pg".into(), kind }
    }

    fn run(
        control: &mut ControlState,
        known: &Known,
        command: &Command,
    ) -> Result<Effect, Refusal> {
        let command = known.resolve(command)?;
        let effect = decide(&CommandRequest { by: "me".into(), command }, known, control)?;
        apply(control, &effect.changes);
        Ok(effect)
    }

    fn ended(at_ms: i64) -> TaskEnd {
        TaskEnd::new(at_ms, TaskStatus::Equal, "equal".into())
    }

    #[test]
    fn two_tasks_of_one_moment_are_two_and_tables_may_be_named() {
        let (mut control, known) = (ControlState::default(), known(5));
        let first = run(&mut control, &known, &start(&["public.orders"])).unwrap().task.unwrap();
        let second = run(&mut control, &known, &start(&[])).unwrap().task.unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("verify-5", "verify-6"));
        let tasks = control.tasks(Some("pg"));
        assert_eq!(tasks[0].kind.comparison().unwrap().topics, ["cdc.public.orders"]);
        assert_eq!(tasks.len(), 2);
        assert!(control.tasks(Some("p")).is_empty());
        let refused = run(&mut control, &known, &start(&["public.order"])).unwrap_err();
        assert_eq!(refused.code, "unknown_topic");
    }

    #[test]
    fn nobody_waits_for_a_sink_without_workers() {
        let known = Known { live: BTreeMap::new(), ..known(5) };
        let refused = run(&mut ControlState::default(), &known, &start(&[])).unwrap_err();
        assert_eq!(refused.code, "no_worker");
        assert!(refused.hint.unwrap().contains("cdc-worker verify FILE --sink pg"));
    }

    #[test]
    fn an_end_is_written_once_and_a_task_called_off_stays_so() {
        let (mut control, known) = (ControlState::default(), known(5));
        let id = run(&mut control, &known, &start(&[])).unwrap().task.unwrap();
        let cancel = Command::CancelTask { sink: "pg".into(), id: id.clone() };
        assert!(run(&mut control, &known, &cancel).unwrap().message.contains("called off"));
        assert_eq!(finish(&control, "pg", &id, &ended(9)), None);
        let again = run(&mut control, &known, &cancel).unwrap();
        assert!(again.message.contains("has ended already"), "{}", again.message);
        let wrong = Command::CancelTask { sink: "pg".into(), id: "verify-1".into() };
        assert_eq!(run(&mut control, &known, &wrong).unwrap_err().code, "unknown_task");
    }

    #[test]
    fn old_tasks_go_and_waiting_ones_stay() {
        let mut control = ControlState::default();
        for now in 0..30 {
            let id = run(&mut control, &known(now), &start(&[])).unwrap().task.unwrap();
            if now != 3 {
                let change = finish(&control, "pg", &id, &ended(now)).unwrap();
                apply(&mut control, &[change]);
            }
        }
        let kept: Vec<&str> = control.tasks(None).iter().map(|task| task.id.as_str()).collect();
        assert_eq!(kept.len(), KEPT_TASKS);
        assert_eq!((kept[0], kept[19]), ("verify-3", "verify-29"));
        run(&mut control, &known(KEPT_MS + 100), &start(&[])).unwrap();
        assert_eq!(control.tasks(None).len(), 2, "the one that waits and the new one");
    }
}
