//! Tasks as the coordinator shows them, and the ends that workers report.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cdc_shared::api::Heartbeat;
use cdc_shared::clock::unix_ms;
use cdc_shared::dlq::ReplayReport;
use cdc_shared::task::{Task, TaskEnd, TaskKind, TaskReport, TaskView};

use crate::control::{ControlError, finish_task, letters};
use crate::fleet::Worker;
use crate::state::Coordinator;

/// Ends that are being written: a heartbeat repeats its report until the control topic has it.
#[derive(Debug, Default)]
pub struct Ending(Mutex<BTreeSet<String>>);

impl Ending {
    fn begin(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }

    fn done(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Keeps the ends that a worker reports, beside its heartbeat: a Kafka that is slow must not
/// delay the answer.
pub fn take_ends(coordinator: &Arc<Coordinator>, heartbeat: &Heartbeat) {
    for report in &heartbeat.tasks {
        let Some(end) = report.end.clone() else { continue };
        let control = coordinator.control.state();
        let open = finish_task(&control, &heartbeat.sink_id, &report.id, &end).is_some();
        if open && coordinator.ending.begin(&report.id) {
            let (coordinator, sink) = (Arc::clone(coordinator), heartbeat.sink_id.clone());
            let id = report.id.clone();
            tokio::spawn(async move {
                keep(&coordinator, &sink, &id, &end).await;
                coordinator.ending.done(&id);
            });
        }
    }
}

async fn keep(coordinator: &Coordinator, sink: &str, id: &str, end: &TaskEnd) {
    let written = coordinator
        .control
        .write::<(), ControlError>(|control| {
            Ok((finish_task(control, sink, id, end).into_iter().collect(), ()))
        })
        .await;
    match written {
        Ok(_) => tracing::info!(sink, task = id, "task ended: {}", end.message),
        Err(error) => tracing::warn!(sink, task = id, %error, "keep the end of a task"),
    }
}

/// Keeps what workers have done of a sink's replays, and the end of those that are through.
pub fn take_replays(coordinator: &Arc<Coordinator>, sink: &str, told: &[ReplayReport]) {
    let control = coordinator.control.state();
    for task in control.tasks(Some(sink)) {
        let is_told = task.end.is_none() && told.iter().any(|report| report.task == task.id);
        if !is_told || !coordinator.ending.begin(&task.id) {
            continue;
        }
        let (coordinator, task) = (Arc::clone(coordinator), task.clone());
        tokio::spawn(async move {
            if let Err(error) = keep_replay(&coordinator, &task).await {
                tracing::warn!(task = task.id, %error, "keep what was replayed");
            }
            coordinator.ending.done(&task.id);
        });
    }
}

async fn keep_replay(coordinator: &Coordinator, task: &Task) -> Result<(), ControlError> {
    let workers = coordinator.fleet.workers(Instant::now());
    let reports = reports(&workers, &task.id);
    let now_ms = unix_ms();
    let write = coordinator.control.write::<Option<String>, ControlError>(|control| {
        let open = control.tasks(Some(&task.sink)).into_iter();
        let still_open = open.filter(|found| found.end.is_none()).any(|found| found.id == task.id);
        let Some(found) = letters::progress(control, task, &reports, now_ms).filter(|_| still_open)
        else {
            return Ok((Vec::new(), None));
        };
        let mut changes = found.changes;
        if found.open > 0 {
            return Ok((changes, None));
        }
        let end = letters::end(task, found.totals, now_ms);
        changes.extend(finish_task(control, &task.sink, &task.id, &end));
        Ok((changes, Some(end.message)))
    });
    if let (Some(message), _) = write.await? {
        tracing::info!(sink = task.sink, task = task.id, "task ended: {message}");
    }
    Ok(())
}

/// What all workers, live or not, have told of a replay.
fn reports(workers: &[Worker], task: &str) -> Vec<ReplayReport> {
    let told = workers.iter().flat_map(|worker| &worker.heartbeat.replays);
    told.filter(|report| report.task == task).cloned().collect()
}

/// How a replay goes, which several workers may share.
fn replay_progress(
    coordinator: &Coordinator,
    workers: &[Worker],
    task: &Task,
) -> Option<TaskReport> {
    let options = task.kind.replay().filter(|_| task.end.is_none())?;
    let reports = reports(workers, &task.id);
    if reports.is_empty() {
        return None;
    }
    let control = coordinator.control.state();
    let found = letters::progress(&control, task, &reports, unix_ms())?;
    let done = options.count.saturating_sub(found.open);
    Some(TaskReport {
        id: task.id.clone(),
        began_ms: task.at_ms,
        step: "replaying dead letters".to_owned(),
        rows: done,
        rows_expected: options.count,
        end: None,
    })
}

/// Every task, with what its worker last told.
pub fn views(coordinator: &Coordinator) -> Vec<TaskView> {
    let workers = coordinator.fleet.workers(Instant::now());
    let control = coordinator.control.state();
    control
        .tasks(None)
        .into_iter()
        .map(|task| {
            let live = workers.iter().filter(|w| w.live && w.heartbeat.sink_id == task.sink);
            // Two may tell of it for a moment: the one that began last goes on.
            let told = live
                .clone()
                .flat_map(|w| w.heartbeat.tasks.iter().map(|r| (r, &w.heartbeat.worker.id)))
                .filter(|(report, _)| report.id == task.id && task.end.is_none())
                .max_by_key(|(report, _)| report.began_ms);
            let progress = match task.kind.replay() {
                Some(_) => replay_progress(coordinator, &workers, task),
                None => told.map(|(report, _)| report.clone()),
            };
            TaskView {
                task: without_letters(task),
                progress,
                worker: told.map(|(_, worker)| worker.clone()),
                sink_live: live.count() > 0,
            }
        })
        .collect()
}

/// Lists need not name each letter.
fn without_letters(task: &Task) -> Task {
    let mut task = task.clone();
    if let TaskKind::Replay(options) = &mut task.kind {
        options.partitions.clear();
    }
    task
}
