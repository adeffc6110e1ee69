//! The loop that delivers one partition: THE loop. Records come in at the bottom, the watermark
//! goes out at the top; in between the sink's writer has at most one batch open and one in flight
//! (or, for a sink that delivers record by record, a window).
//!
//! One biased `select!`: commands before the control topic before the sink's answers before new
//! records, so that nothing is started that was already called off.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use cdc_shared::api::{ErrorReport, PartitionState};
use cdc_shared::clock::unix_ms;
use cdc_shared::control::ControlState;
use cdc_shared::offset::{NextOffset, Position, SchemaIds};
use cdc_shared::registry::{RETRY_PAUSE, RegistryError};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backlog::Stage;
use super::decode::{Decoder, Outcome, schema_ids};
use super::dlq::DlqUnavailable;
use super::hold::Hold;
use super::partition::{PartitionCommand, PartitionTask, Phase, REPORT_PAUSE};
use super::rejects::Reject;
use super::replay::Replayed;
use crate::sink::retry::{Trouble, TroubleReporter};
use crate::sink::{BatchLimits, PartitionWriter, Progress, Rejection};
use crate::source::consumer::SourceCommand;
use crate::source::slots::Chunk;

/// Records offered in one turn, so that commands are never kept waiting for long.
const TURN: usize = 512;
/// Why nothing more is offered for the moment.
pub(super) type Blocked = BoxFuture<'static, Unblocked>;

/// What a blocked partition was waiting for.
pub(super) enum Unblocked {
    /// A schema was fetched, or was not.
    Schema(Result<(), RegistryError>),
    /// The DLQ has a record, or has not.
    DeadLettered(i64, Result<(), DlqUnavailable>),
    /// Dead letters were sent again.
    Replayed(Replayed),
}

/// What the loop holds beside the task's own state.
pub(super) struct Delivery {
    pub(super) writer: Box<dyn PartitionWriter>,
    limits: BatchLimits,
    pub(super) trouble: watch::Receiver<Trouble>,
    pub(super) reporter: TroubleReporter,
    /// Dead letters are with the sink, and nothing else may be.
    pub(super) replaying: bool,
    decoder: Decoder,
    pub(super) blocked: Option<Blocked>,
    /// Rejected records that are not dealt with yet.
    pub(super) rejects: VecDeque<Reject>,
    /// The hold that begins once every record before its own is durable.
    pub(super) ending: Option<Hold>,
    /// Records and bytes in the open batch, and since when.
    pub(super) open: Open,
    /// End of the batch in flight.
    pub(super) in_flight: Option<NextOffset>,
    /// While a culprit is looked for: batches of at most so many records, up to this offset.
    pub(super) halving: Option<(usize, NextOffset)>,
    /// The position last handed to the sink, durable or not.
    pub(super) covered: NextOffset,
    /// The schemas of the newest record that was offered.
    pub(super) schemas: SchemaIds,
    last_position: Instant,
}

#[derive(Default)]
pub(super) struct Open {
    pub(super) rows: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl PartitionTask {
    /// Delivers until something ends it.
    pub(super) async fn running(&mut self) -> Phase {
        let Some(position) = self.position().cloned() else { return Phase::Resolving };
        let mut delivery = self.start(&position);
        self.replay = None;
        self.heed_replays(&mut delivery);
        loop {
            let more = match self.pump(&mut delivery) {
                Ok(more) => more,
                Err(phase) => return phase,
            };
            self.publish(&delivery);
            let deadline = self.replay_deadline(delivery.deadline());
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(PartitionCommand::Finish { grace, lost }) => {
                        return self.finish(delivery, grace, lost).await;
                    }
                    // The client does not fetch a partition any more whose offset is gone, and
                    // does not say which one it was: each looks at the log and goes on from W.
                    Some(PartitionCommand::CheckLog) => return Phase::Resolving,
                    None => return Phase::Ended,
                },
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return Phase::Ended;
                    }
                    if let Some(phase) = self.heed() {
                        return phase;
                    }
                    self.heed_skips(&mut delivery);
                    self.heed_replays(&mut delivery);
                }
                Ok(()) = self.replies.changed() => {
                    if let Some(phase) = self.heed() {
                        return phase;
                    }
                }
                progress = delivery.writer.progress() => {
                    if let Some(phase) = self.progressed(&mut delivery, progress).await {
                        return phase;
                    }
                }
                unblocked = wait(&mut delivery.blocked) => {
                    if let Some(phase) = self.unblocked(&mut delivery, unblocked) {
                        return phase;
                    }
                }
                () = std::future::ready(()), if delivery.has_next_reject() => {
                    if let Some(phase) = self.next_reject(&mut delivery) {
                        return phase;
                    }
                }
                Ok(()) = delivery.trouble.changed() => {}
                Some(chunk) = self.chunks.recv() => self.take(chunk),
                () = tokio::task::yield_now(), if more => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    fn start(&mut self, position: &Position) -> Delivery {
        self.run += 1;
        self.backlog.clear();
        let (tp, epoch) = (self.question.tp.clone(), self.question.epoch);
        let (reporter, trouble) = TroubleReporter::new(self.shared.retry, self.shared.give_up);
        let sink = &self.shared.sink;
        let mut writer = sink.writer(tp.clone(), position.clone(), reporter.clone());
        writer.is_one_of(self.question.partitions);
        writer.has_ids_of(self.shared.id_generation(&tp, &position.topic_id));
        let (next, run, schemas) = (position.next, self.run, position.schemas);
        self.shared.source.send(SourceCommand::Start { tp, epoch, next, run });
        Delivery {
            writer,
            limits: self.shared.sink.batch_limits(),
            trouble,
            reporter,
            replaying: false,
            decoder: Decoder::new(self.shared.json.clone()),
            blocked: None,
            rejects: VecDeque::new(),
            ending: None,
            open: Open::default(),
            in_flight: None,
            halving: None,
            covered: next,
            schemas,
            last_position: Instant::now(),
        }
    }

    /// Directives, rewinds and restarts.
    fn heed(&self) -> Option<Phase> {
        if self.starts_anew() {
            tracing::info!(tp = %self.question.tp, "begins anew, as an operator asked");
            return Some(Phase::Resolving);
        }
        self.held_by_directive()
    }

    fn take(&mut self, chunk: Chunk) {
        if chunk.run == self.run {
            self.backlog.extend(chunk.records);
            if let Some(reached) = chunk.reached {
                self.backlog.reached(reached);
            }
        } else {
            self.drop_chunk(&chunk);
        }
    }

    /// Offers what can be offered and flushes what is due. `true`: there is more to offer at once.
    fn pump(&mut self, delivery: &mut Delivery) -> Result<bool, Phase> {
        let mut turns = 0;
        // A skip that comes during a turn counts from the next one on.
        let control = self.control.borrow().state.clone();
        let skips = control.has_skips().then_some(&*control);
        while self.can_offer(delivery) && turns < TURN {
            if let Some(phase) = self.offer(delivery, skips) {
                return Err(phase);
            }
            turns += 1;
        }
        self.pump_replay(delivery);
        let idle = self.backlog.is_offered() && self.chunks.is_empty();
        // Nothing more comes until some of it is durable.
        let is_stuck = idle && self.backlog.is_full() && delivery.open.rows > 0;
        if is_stuck || delivery.is_due(idle || delivery.ending.is_some()) {
            self.flush(delivery);
        }
        self.flush_position(delivery);
        match self.end_of(delivery) {
            Some(phase) => Err(phase),
            None => Ok(turns == TURN),
        }
    }

    fn can_offer(&mut self, delivery: &mut Delivery) -> bool {
        delivery.blocked.is_none()
            && !self.replay_is_due()
            && delivery.rejects.is_empty()
            && self.is_before_end(delivery)
            && (!delivery.is_full() || self.flush(delivery))
            && delivery.writer.has_room()
    }

    /// Offers the next record.
    fn offer(&mut self, delivery: &mut Delivery, skips: Option<&ControlState>) -> Option<Phase> {
        let topic_id = &self.question.last.as_ref()?.topic_id;
        let entry = self.backlog.to_offer()?;
        let offset = entry.record.offset;
        if entry.stage == Stage::DeadLettered {
            delivery.writer.given_up(offset, entry.record.key());
            self.backlog.offered();
            return None;
        }
        let (sink, tp) = (&self.shared.sink_id, &self.question.tp);
        if skips.is_some_and(|skips| skips.skip_to(sink, tp, topic_id, offset).is_some()) {
            tracing::warn!(tp = %self.question.tp, offset, "skipped by an operator");
            entry.stage = Stage::Passed;
            self.backlog.offered();
            return None;
        }
        let found = schema_ids(&entry.record);
        if found.differs(delivery.schemas)
            && let Some(barred) = self.gate(found, offset, delivery.schemas)
        {
            return self.bar(delivery, barred);
        }
        let entry = self.backlog.to_offer()?;
        let writer = &mut delivery.writer;
        let outcome = delivery.decoder.offer(
            &entry.record,
            &self.shared.registry,
            self.shared.filter,
            |change| writer.push(change),
        );
        match outcome {
            Outcome::Taken { source_ms } => {
                entry.stage = Stage::Pushed;
                entry.source_ms = source_ms;
                entry.schemas = found;
                delivery.schemas = found.or(delivery.schemas);
                delivery.open.add(entry.record.weight());
                self.backlog.offered();
            }
            Outcome::Passed => {
                entry.stage = Stage::Passed;
                entry.schemas = found;
                delivery.schemas = found.or(delivery.schemas);
                self.backlog.offered();
            }
            Outcome::NeedsSchema(id) => delivery.blocked = Some(self.fetch(id)),
            Outcome::Rejected(Rejection { code, message, way_out }) => {
                let code = code.to_owned();
                let reject = Reject { offset, code, message, way_out, by_choice: false };
                return self.reject(delivery, reject);
            }
        }
        None
    }

    fn fetch(&self, id: i32) -> Blocked {
        let shared = self.shared.clone();
        Box::pin(async move {
            let fetched = shared.registry.schema(id).await.map(|_| ());
            if matches!(fetched, Err(RegistryError::Unavailable { .. })) {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Unblocked::Schema(fetched)
        })
    }

    fn unblocked(&mut self, delivery: &mut Delivery, unblocked: Unblocked) -> Option<Phase> {
        let since = self.shared.control_offset();
        match unblocked {
            Unblocked::Schema(Ok(())) => {}
            Unblocked::Schema(Err(error @ RegistryError::Unavailable { .. })) => {
                self.told("registry_unavailable", &error);
            }
            Unblocked::Schema(Err(error)) => {
                let until = Instant::now() + 10 * RETRY_PAUSE;
                let way_out = "register the schema, or skip the record; this is tried again";
                let mut hold =
                    Hold::waiting("unknown_schema", error.to_string(), way_out, until, since);
                hold.report.offset = self.backlog.to_offer().map(|entry| entry.record.offset);
                delivery.end_with(hold);
            }
            Unblocked::DeadLettered(offset, Ok(())) => self.dead_lettered(delivery, offset),
            Unblocked::DeadLettered(offset, Err(error)) => {
                let until = Instant::now() + 10 * RETRY_PAUSE;
                let mut hold =
                    Hold::waiting(error.code, error.message, &error.way_out, until, since);
                hold.report.offset = Some(offset);
                delivery.end_with(hold);
            }
            Unblocked::Replayed(replayed) => return self.replayed(delivery, replayed),
        }
        None
    }

    /// Takes back what the writer holds, so that all of it is offered again.
    pub(super) fn offer_again(&mut self, delivery: &mut Delivery) {
        if let Some(position) = self.position().cloned() {
            delivery.covered = position.next;
            delivery.schemas = position.schemas;
            delivery.writer.reset(position);
        }
        delivery.open = Open::default();
        delivery.in_flight = None;
        self.backlog.rewind();
    }

    /// Sends the open batch. `false`: another one is still under way.
    pub(super) fn flush(&mut self, delivery: &mut Delivery) -> bool {
        if delivery.writer.in_flight() || delivery.replaying {
            return false;
        }
        let Some(position) = self.position() else { return false };
        let next = self.backlog.covers().unwrap_or(position.next).max(position.next);
        let schemas = self.backlog.schemas(position.schemas);
        let covers = Position { next, schemas, ..position.clone() };
        delivery.writer.flush(covers);
        delivery.in_flight = delivery.writer.in_flight().then_some(next);
        delivery.covered = next;
        delivery.open = Open::default();
        delivery.last_position = Instant::now();
        true
    }

    /// Tells the sink of a range without effect: at once where that costs nothing or nothing more
    /// fits in, else at an interval.
    fn flush_position(&mut self, delivery: &mut Delivery) {
        let Some(next) = self.backlog.covers() else { return };
        let waited = delivery.last_position.elapsed() >= self.shared.sink.position_interval()
            || !self.shared.sink.keeps_position()
            || delivery.ending.is_some()
            || self.backlog.is_full();
        if delivery.open.rows == 0 && next > delivery.covered && waited {
            self.flush(delivery);
        }
    }

    async fn progressed(&mut self, delivery: &mut Delivery, progress: Progress) -> Option<Phase> {
        let since = self.shared.control_offset();
        match progress {
            Progress::Wanted => {
                let next = self.backlog.covers();
                if delivery.open.rows > 0 || next.is_some_and(|next| next > delivery.covered) {
                    self.flush(delivery);
                }
                None
            }
            Progress::Durable(next) => {
                self.durable(delivery, next);
                None
            }
            Progress::Rejected { offset, error } => {
                self.rejected(delivery, offset, error);
                None
            }
            Progress::Moved => {
                self.shared.status.moved.fetch_add(1, Ordering::Relaxed);
                tracing::info!(tp = %self.question.tp, "the sink's record moved; reading it again");
                Some(Phase::Resolving)
            }
            Progress::Stop(error) => {
                let mut hold = Hold::stopped(&error.code, error.message, None, since);
                if let Some(hint) = error.hint {
                    hold.report.way_out = format!("{hint}, then cdc resume FILE --sink ID");
                }
                // The way out may be a correction of the sink's own record.
                hold.resolve = self.shared.sink.keeps_position();
                Some(Phase::Held(hold))
            }
            Progress::Fatal(error) => {
                // The process ends; the supervisor tells this task when.
                let _ = self.shared.fatal.send(error).await;
                Some(self.wait_for_end().await)
            }
        }
    }

    pub(super) fn durable(&mut self, delivery: &mut Delivery, next: NextOffset) {
        if delivery.in_flight.is_some_and(|end| end <= next) {
            delivery.in_flight = None;
        }
        match &mut delivery.halving {
            Some((_, until)) if *until <= next => delivery.halving = None,
            Some((rows, _)) => *rows = rows.saturating_mul(2),
            None => {}
        }
        if self.position().is_some_and(|position| position.next < next) {
            self.advance(next);
        }
        if delivery.trouble.borrow().is_none() {
            self.shared.status.set_error(None);
        }
    }

    pub(super) fn told(&self, code: &str, error: &dyn std::fmt::Display) {
        tracing::warn!(tp = %self.question.tp, code, %error, "waiting");
        let report =
            ErrorReport { code: code.to_owned(), message: error.to_string(), at_ms: unix_ms() };
        self.shared.status.set_error(Some(report));
    }

    fn publish(&mut self, delivery: &Delivery) {
        let trouble = delivery.trouble.borrow().clone();
        let state = match &trouble {
            Some(trouble) if trouble.exhausted => PartitionState::Degraded,
            _ => PartitionState::Running,
        };
        if let Some(trouble) = trouble {
            let report =
                ErrorReport { code: trouble.code, message: trouble.message, at_ms: unix_ms() };
            self.shared.status.set_error(Some(report));
        }
        self.report(state, None, false);
    }
}

impl Delivery {
    fn rows_limit(&self) -> usize {
        let rows = self.halving.map_or(self.limits.rows, |(rows, _)| rows.min(self.limits.rows));
        rows.max(1)
    }

    fn is_full(&self) -> bool {
        self.open.rows >= self.rows_limit() || self.open.bytes >= self.limits.bytes
    }

    fn is_due(&self, idle: bool) -> bool {
        let Some(since) = self.open.since else { return false };
        let aged =
            if self.limits.age.is_zero() { idle } else { since.elapsed() >= self.limits.age };
        aged || self.is_full() || self.ending.is_some()
    }

    fn deadline(&self) -> Instant {
        let waits = !self.limits.age.is_zero() && self.in_flight.is_none();
        let flush = self.open.since.filter(|_| waits);
        let flush = flush.map(|since| since + self.limits.age);
        let report = Instant::now() + REPORT_PAUSE * 10;
        flush.map_or(report, |flush| flush.max(Instant::now()).min(report))
    }
}

impl Open {
    fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
        self.since.get_or_insert_with(Instant::now);
    }
}

/// Pending for ever when nothing blocks.
pub(super) async fn wait(blocked: &mut Option<Blocked>) -> Unblocked {
    match blocked {
        Some(future) => {
            let unblocked = future.await;
            *blocked = None;
            unblocked
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "running_test.rs"]
mod tests;
