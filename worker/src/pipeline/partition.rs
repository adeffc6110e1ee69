//! The task of one partition: resolving its start, delivering, or held. Read `running.rs` next.
//!
//! ```text
//!            ┌────────────▸ Held ─────────┐ released
//!            │ stop by name   ▴           ▾
//!  assigned ─┴▸ Resolving ────┼──▸ Running ──▸ revoked or drained: end
//!                 ▴           │      │
//!                 └───────────┴──────┘ the compare-and-set missed, a rewind
//! ```
//!
//! A hold drops what is queued and gives its memory back; the partition stays assigned and nothing
//! passes it. When released it goes on from its watermark.

use std::sync::Arc;
use std::time::Duration;

use cdc_shared::api::{DirectiveState, HoldReport, PartitionReport, PartitionState};
use cdc_shared::clock::unix_ms;
use cdc_shared::control::ControlState;
use cdc_shared::offset::{NextOffset, Position};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Shared;
use super::backlog::Backlog;
use super::breaker::Breaker;
use super::hold::{Hold, Release, Wish};
use super::replay::Replay;
use super::resolve::{Question, Resolved, resolve};
use crate::progress::reporter::LatestReply;
use crate::source::consumer::SourceCommand;
use crate::source::control::ControlView;
use crate::source::slots::{Assignment, Chunk};

/// Least time between two reports of an unchanged state.
pub(super) const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// What the supervisor tells a partition task.
#[derive(Debug)]
pub enum PartitionCommand {
    /// End: finish what is in flight within `grace`, or drop it at once when `lost`.
    Finish {
        /// Time for it.
        grace: Duration,
        /// The partition is somebody else's already.
        lost: bool,
    },
    /// Some partition of the process asked for an offset that is gone: look whether it was this.
    CheckLog,
}

impl PartitionCommand {
    /// What it means to a task that delivers nothing at the moment.
    fn ends(&self) -> Option<Phase> {
        match self {
            Self::Finish { .. } => Some(Phase::Ended),
            Self::CheckLog => None,
        }
    }
}

/// What the task does now.
#[derive(Debug)]
pub(super) enum Phase {
    /// Finding the start.
    Resolving,
    /// Delivering.
    Running,
    /// Not moving.
    Held(Hold),
    /// Over.
    Ended,
}

/// One partition.
pub struct PartitionTask {
    pub(super) shared: Arc<Shared>,
    pub(super) question: Question,
    pub(super) commands: mpsc::Receiver<PartitionCommand>,
    pub(super) chunks: mpsc::Receiver<Chunk>,
    pub(super) control: watch::Receiver<ControlView>,
    pub(super) replies: watch::Receiver<LatestReply>,
    pub(super) backlog: Backlog,
    pub(super) breaker: Breaker,
    /// Dead letters that are to be sent again.
    pub(super) replay: Option<Replay>,
    /// Number of the latest start: chunks of an earlier one are dropped.
    pub(super) run: u64,
    pub(super) last_flush_ms: Option<i64>,
    reported: Option<(PartitionState, Instant)>,
}

impl PartitionTask {
    /// A task for a new assignment.
    pub fn new(
        shared: Arc<Shared>,
        assignment: Assignment,
        commands: mpsc::Receiver<PartitionCommand>,
    ) -> Self {
        let breaker = Breaker::new(shared.breaker);
        Self {
            question: Question {
                tp: assignment.tp,
                epoch: assignment.epoch,
                last: None,
                partitions: 0,
                seen: 0,
                progress: assignment.progress,
            },
            commands,
            chunks: assignment.chunks,
            control: shared.control.clone(),
            replies: shared.replies.clone(),
            backlog: Backlog::new(assignment.flow),
            breaker,
            replay: None,
            run: 0,
            last_flush_ms: None,
            reported: None,
            shared,
        }
    }

    /// Runs until the partition is revoked or the process ends.
    pub async fn run(mut self) {
        let mut phase = Phase::Resolving;
        loop {
            phase = match phase {
                Phase::Resolving => self.resolving().await,
                Phase::Running => Box::pin(self.running()).await,
                Phase::Held(hold) => self.held(hold).await,
                Phase::Ended => break,
            };
        }
        self.shared.status.forget(&self.question.tp);
    }

    /// The watermark, once known.
    pub(super) fn position(&self) -> Option<&Position> {
        self.question.last.as_ref()
    }

    async fn resolving(&mut self) -> Phase {
        if !self.control.borrow().complete {
            self.report(PartitionState::Resolving, None, true);
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => {
                    return command.ends().unwrap_or(Phase::Resolving);
                }
                changed = self.control.wait_for(|view| view.complete) => {
                    if changed.is_err() {
                        return Phase::Ended;
                    }
                }
            }
        }
        if self.reported.is_none() {
            self.report(PartitionState::Resolving, None, true);
        }
        self.question.seen = self.shared.control_offset();
        let (shared, question) = (self.shared.clone(), self.question.clone());
        let resolved = tokio::select! {
            biased;
            Some(command) = self.commands.recv() => {
                return command.ends().unwrap_or(Phase::Resolving);
            }
            resolved = resolve(&shared, &question) => resolved,
        };
        self.begin(resolved).await
    }

    async fn begin(&mut self, resolved: Resolved) -> Phase {
        let since = self.question.seen;
        match resolved {
            Resolved::From(position, partitions) => {
                self.question.last = Some(position);
                self.question.partitions = partitions;
                self.held_by_directive().unwrap_or(Phase::Running)
            }
            Resolved::Stop(cause) => Phase::Held(Hold::by_name(cause, since)),
            Resolved::Wait { code, message, way_out } => {
                let until = Instant::now() + Duration::from_millis(500);
                let hold = Hold::waiting(&code, message, way_out, until, since);
                Phase::Held(Hold { resolve: true, ..hold })
            }
            Resolved::Fatal(error) => {
                // The process ends; this task waits for its turn to be told so.
                let _ = self.shared.fatal.send(error).await;
                self.wait_for_end().await
            }
        }
    }

    pub(super) async fn wait_for_end(&mut self) -> Phase {
        while let Some(command) = self.commands.recv().await {
            if let Some(phase) = command.ends() {
                return phase;
            }
        }
        Phase::Ended
    }

    /// The hold that a directive demands, if one does.
    pub(super) fn held_by_directive(&self) -> Option<Phase> {
        let directive = self.shared.directive(&self.question.tp);
        (directive.state != DirectiveState::Run).then(|| {
            let since = self.shared.control_offset();
            Phase::Held(Hold::directive(directive.state, &directive.reason, since))
        })
    }

    /// What an operator wants, as far as `control` says it.
    fn wish<'a>(&'a self, control: &'a ControlState) -> Wish<'a> {
        Wish {
            control,
            directive: self.shared.directive(&self.question.tp).state,
            sink: &self.shared.sink_id,
            tp: &self.question.tp,
            position: self.position(),
            seen: self.question.seen,
        }
    }

    /// Whether a rewind or a restart asks for a new search for the start.
    pub(super) fn starts_anew(&self) -> bool {
        let control = self.control.borrow().state.clone();
        self.wish(&control).starts_anew()
    }

    /// Stops fetching and gives the memory back.
    pub(super) fn drop_queue(&mut self) {
        let (tp, epoch) = (self.question.tp.clone(), self.question.epoch);
        self.shared.source.send(SourceCommand::Hold { tp, epoch });
        self.run += 1;
        self.backlog.clear();
        self.drain_stale_chunks();
    }

    fn drain_stale_chunks(&mut self) {
        while let Ok(chunk) = self.chunks.try_recv() {
            self.drop_chunk(&chunk);
        }
    }

    pub(super) fn drop_chunk(&mut self, chunk: &Chunk) {
        self.backlog.discard(&chunk.records);
    }

    async fn held(&mut self, hold: Hold) -> Phase {
        self.drop_queue();
        let state = match hold.release {
            Release::Directive => PartitionState::Paused,
            _ if hold.needs_operator() => PartitionState::Stopped,
            _ => PartitionState::Waiting,
        };
        let is_new = self.reported.is_none_or(|(reported, _)| reported != state);
        if is_new && state == PartitionState::Stopped {
            tracing::error!(tp = %self.question.tp, code = %hold.report.code,
                reason = %hold.report.message, way_out = %hold.report.way_out,
                "partition stopped");
        } else if is_new {
            tracing::info!(tp = %self.question.tp, code = %hold.report.code,
                reason = %hold.report.message, "partition held");
        }
        self.report(state, Some(&hold.report), true);
        if let Release::Verdict(awaited) = &hold.release {
            self.shared.status.ask(&self.question.tp, awaited.questions.clone());
        }
        let released = self.wait_for_release(&hold).await;
        self.shared.status.ask(&self.question.tp, Vec::new());
        if matches!(released, Phase::Resolving | Phase::Running) {
            self.breaker.reset();
        }
        released
    }

    async fn wait_for_release(&mut self, hold: &Hold) -> Phase {
        let until = match hold.release {
            Release::After(until) => until,
            _ => Instant::now() + Duration::from_secs(3600),
        };
        loop {
            let control = self.control.borrow_and_update().state.clone();
            if hold.is_released(&self.wish(&control)) {
                return self.go_on(hold);
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(PartitionCommand::CheckLog) => {}
                    Some(PartitionCommand::Finish { .. }) | None => return Phase::Ended,
                },
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return Phase::Ended;
                    }
                }
                Ok(()) = self.replies.changed() => {}
                // On its way when the consumer thread was told to stop.
                Some(chunk) = self.chunks.recv() => self.drop_chunk(&chunk),
                () = tokio::time::sleep_until(until) => {
                    if matches!(hold.release, Release::After(_)) {
                        return self.go_on(hold);
                    }
                }
            }
        }
    }

    fn go_on(&self, hold: &Hold) -> Phase {
        if hold.resolve || self.question.last.is_none() || self.starts_anew() {
            Phase::Resolving
        } else {
            self.held_by_directive().unwrap_or(Phase::Running)
        }
    }

    /// Publishes the state; unless `now`, at most every [`REPORT_PAUSE`].
    pub(super) fn report(&mut self, state: PartitionState, hold: Option<&HoldReport>, now: bool) {
        let due = self
            .reported
            .is_none_or(|(before, at)| before != state || at.elapsed() >= REPORT_PAUSE);
        if !(now || due) {
            return;
        }
        self.reported = Some((state, Instant::now()));
        let head = self.backlog.head();
        let report = PartitionReport {
            topic: self.question.tp.topic.to_string(),
            partition: self.question.tp.partition,
            position: self.question.last.clone(),
            state,
            hold: hold.cloned(),
            queue_depth: self.backlog.len() as u64,
            last_flush_ms: self.last_flush_ms,
            next_source_ms: head.map(|entry| entry.source_ms.unwrap_or(entry.record.timestamp_ms)),
        };
        self.shared.status.report(&self.question.tp, report);
    }

    /// The watermark moves.
    pub(super) fn advance(&mut self, next: NextOffset) {
        let settled = self.backlog.settle(next);
        let Some(position) = self.question.last.as_mut() else { return };
        position.next = next;
        position.schemas.key = settled.schemas.key.or(position.schemas.key);
        position.schemas.value = settled.schemas.value.or(position.schemas.value);
        self.question.progress.set(position.clone());
        self.last_flush_ms = Some(unix_ms());
        let status = &self.shared.status;
        let order = std::sync::atomic::Ordering::Relaxed;
        status.delivered.fetch_add(settled.delivered, order);
        status.skipped.fetch_add(settled.skipped, order);
        if settled.delivered > 0 {
            status.delivered_once.store(true, order);
            self.breaker.accepted(settled.delivered as usize);
        }
    }
}

#[cfg(test)]
#[path = "partition_test.rs"]
mod tests;
