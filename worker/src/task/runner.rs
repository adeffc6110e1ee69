//! Carries the sink's tasks out, one after the other, while this worker is the one to do it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_shared::config::{PipelineConfig, SinkConfig};
use cdc_shared::offset::TopicPartition;
use cdc_shared::task::{Task, TaskEnd, TaskKind, VerifyOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::upkeep::{self, Schedule};
use super::{ConfigFiles, TaskContext, Tell, carry_out, failed, sweeps};
use crate::source::control::ControlView;
use crate::source::given_up::Skipped;
use crate::source::probe::Probe;
use crate::status::SharedStatus;

/// How often ownership of the first partition is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// See the module.
pub struct TaskRunner {
    /// The pipeline.
    pub config: Arc<PipelineConfig>,
    /// The sink.
    pub sink: SinkConfig,
    /// Where the source's section is read.
    pub files: ConfigFiles,
    /// Questions to Kafka.
    pub probe: Probe,
    /// What the control topic says.
    pub control: watch::Receiver<ControlView>,
    /// Where progress is told, and what is assigned.
    pub status: SharedStatus,
}

impl TaskRunner {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let Some(first) = self.first_partition() else { return };
        let mut schedule = Schedule::new(&self.sink, Instant::now());
        while !stop.is_cancelled() {
            self.forget_ended();
            if let Some(task) = self.next(&first) {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.called_off(&task, &first) => {
                        tracing::info!(task = %task.id, "task ended before it was done");
                        self.status.forget_task(&task.id);
                    }
                    () = self.carry_out(&task) => {}
                }
                continue;
            }
            let due = self.status.owns(&first).then(|| schedule.due(Instant::now())).flatten();
            match due {
                Some(actions) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = upkeep::scheduled(&self.config, &self.sink, actions) => {}
                },
                None => self.wait(&stop).await,
            }
        }
    }

    /// Whoever has it does the tasks.
    fn first_partition(&self) -> Option<TopicPartition> {
        let tables = self.config.sink_tables(&self.sink);
        let topic = tables.iter().map(|table| self.config.topic(table)).min()?;
        Some(TopicPartition::new(topic, 0))
    }

    async fn wait(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            Ok(()) = self.control.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// The oldest task that is open and was not done here already.
    fn next(&self, first: &TopicPartition) -> Option<Task> {
        if !self.status.owns(first) {
            return None;
        }
        let done = self.status.tasks();
        let view = self.control.borrow();
        let tasks = view.state.tasks(Some(&self.sink.sink_id));
        // A replay is the partitions' own.
        let open = |task: &&Task| task.end.is_none() && task.kind.replay().is_none();
        let mut open = tasks.into_iter().filter(open);
        open.find(|task| done.iter().all(|report| report.id != task.id)).cloned()
    }

    /// What the control topic has the end of needs no more telling.
    fn forget_ended(&self) {
        let view = self.control.borrow();
        let tasks = view.state.tasks(Some(&self.sink.sink_id));
        self.status
            .retain_replays(|id| tasks.iter().any(|task| task.id == id && task.end.is_none()));
        for report in self.status.tasks() {
            let open = tasks.iter().any(|task| task.id == report.id && task.end.is_none());
            if !open {
                self.status.forget_task(&report.id);
            }
        }
    }

    /// Ends when the task is no longer ours to do: it has an end, or the partition went away.
    async fn called_off(&self, task: &Task, first: &TopicPartition) {
        let mut control = self.control.clone();
        loop {
            let open = {
                let view = control.borrow_and_update();
                let tasks = view.state.tasks(Some(&self.sink.sink_id));
                tasks.iter().any(|found| found.id == task.id && found.end.is_none())
            };
            if !open || !self.status.owns(first) {
                return;
            }
            tokio::select! {
                Ok(()) = control.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn carry_out(&self, task: &Task) {
        let status = self.status.clone();
        let tell = Tell::new(&task.id, move |report| status.report_task(report.clone()));
        tracing::info!(task = %task.id, by = %task.by, "task begins");
        let end = match &task.kind {
            TaskKind::Lake(options) => {
                Box::pin(upkeep::carry_out(&self.config, &self.sink, options, &tell)).await
            }
            TaskKind::Verify(options) | TaskKind::Resync(options) => {
                self.compare(&task.kind, options, &tell).await
            }
            TaskKind::Replay(_) => return,
        };
        tracing::info!(task = %task.id, status = ?end.status, "task done: {}", end.message);
        tell.end(end);
    }

    async fn compare(&self, kind: &TaskKind, options: &VerifyOptions, tell: &Tell) -> TaskEnd {
        let (source, connector) = match self.files.upstream(&self.sink.sink_id) {
            Ok(sections) => sections,
            Err(why) => {
                return failed(format!("the worker cannot read the source's settings: {why}"));
            }
        };
        let context = TaskContext {
            config: self.config.clone(),
            sink: self.sink.clone(),
            source,
            connector,
            probe: self.probe.clone(),
            options: options.clone(),
            sweep: sweeps(kind),
            skipped: Skipped::of(&self.control.borrow().state, &self.sink.sink_id),
            tell: tell.clone(),
        };
        Box::pin(carry_out(&context)).await
    }
}
