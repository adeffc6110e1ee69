//! Tasks as the coordinator shows them, and the ends that workers report.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cdc_shared::api::Heartbeat;
use cdc_shared::task::{TaskEnd, TaskView};

use crate::control::{ControlError, finish_task};
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
            TaskView {
                task: task.clone(),
                progress: told.map(|(report, _)| report.clone()),
                worker: told.map(|(_, worker)| worker.clone()),
                sink_live: live.count() > 0,
            }
        })
        .collect()
}
