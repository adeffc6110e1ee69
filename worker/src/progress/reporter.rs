//! Heartbeats: the whole state of this worker at an interval, and what the coordinator wants of it.
//!
//! The coordinator is never needed to go on: while it is away the last directive stays in force,
//! and the control topic says the same a little later.

use std::time::Duration;

use cdc_shared::api::{Directive, Heartbeat, HeartbeatReply, WorkerIdentity};
use cdc_shared::config::PipelineConfig;
use cdc_shared::control::ControlState;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::client::{ClientError, CoordinatorClient};
use crate::source::control::ControlView;
use crate::status::SharedStatus;

/// Longest time for the last report of a worker that leaves.
const FINAL_DEADLINE: Duration = Duration::from_secs(1);

/// What the coordinator last answered; `None` before its first answer.
pub type LatestReply = Option<HeartbeatReply>;

/// The directive in force for a sink, or for one topic of it: the control topic's, unless the
/// coordinator's answer reflects more of that topic than we have read ourselves.
pub fn directive_in_force(
    control: &ControlState,
    reply: Option<&HeartbeatReply>,
    sink: &str,
    topic: Option<&str>,
) -> Directive {
    let Some(reply) = reply.filter(|reply| reply.control_offset > control.offset()) else {
        return control.directive(sink, topic);
    };
    let table = topic.and_then(|topic| reply.tables.iter().find(|table| table.topic == topic));
    match table {
        Some(table) if table.directive.state > reply.directive.state => table.directive.clone(),
        _ => reply.directive.clone(),
    }
}

/// The task that reports.
pub struct Reporter {
    client: CoordinatorClient,
    status: SharedStatus,
    identity: WorkerIdentity,
    pipeline_id: String,
    sink_id: String,
    interval: Duration,
    control: watch::Receiver<ControlView>,
    replies: watch::Sender<LatestReply>,
    /// Kind of the trouble that was told.
    trouble: Option<String>,
}

impl Reporter {
    /// A reporter for one sink, and where its coordinator's latest answer is found.
    pub fn new(
        client: CoordinatorClient,
        config: &PipelineConfig,
        sink_id: &str,
        identity: WorkerIdentity,
        status: SharedStatus,
        control: watch::Receiver<ControlView>,
    ) -> (Self, watch::Receiver<LatestReply>) {
        let (replies, latest) = watch::channel(None);
        let reporter = Self {
            client,
            status,
            identity,
            pipeline_id: config.pipeline_id.clone(),
            sink_id: sink_id.to_owned(),
            interval: config.heartbeat_interval().max(Duration::from_millis(10)),
            control,
            replies,
            trouble: None,
        };
        (reporter, latest)
    }

    /// Reports at `coordinator.heartbeat_interval_seconds` until `stop`, then once more. Cancel
    /// `stop` only when the drain is over, so that the last report holds the last watermark.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.report() => {}
            }
        }
        let last = self.heartbeat();
        match tokio::time::timeout(FINAL_DEADLINE, self.client.heartbeat(&last)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "last report not taken"),
            Err(_) => tracing::debug!(deadline = ?FINAL_DEADLINE, "last report not taken in time"),
        }
    }

    async fn report(&mut self) {
        let heartbeat = self.heartbeat();
        match self.client.heartbeat(&heartbeat).await {
            Ok(reply) => {
                self.recovered();
                self.take(reply);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Keeps an answer, unless we have read more of the control topic than it reflects.
    fn take(&self, reply: HeartbeatReply) {
        if reply.control_offset < self.control.borrow().state.offset() {
            tracing::debug!(offset = reply.control_offset, "answer older than the control topic");
            return;
        }
        self.replies.send_if_modified(|latest| {
            let changed = latest.as_ref() != Some(&reply);
            *latest = Some(reply);
            changed
        });
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(address = self.client.address(), "coordinator answers again");
        }
    }

    fn failed(&mut self, error: &ClientError) {
        if self.trouble.as_deref() == Some(error.kind()) {
            tracing::debug!(%error, "heartbeat not taken");
        } else {
            tracing::warn!(%error, "heartbeat not taken; delivery goes on, last directive stays");
            self.trouble = Some(error.kind().to_owned());
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            pipeline_id: self.pipeline_id.clone(),
            worker: self.identity.clone(),
            sink_id: self.sink_id.clone(),
            state: self.status.state(),
            partitions: self.status.partitions(),
            counters: self.status.counters(),
            last_error: self.status.last_error(),
            control_offset: self.control.borrow().state.offset(),
        }
    }
}
