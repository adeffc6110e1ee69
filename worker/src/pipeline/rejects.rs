//! What becomes of a record that the sink will never take: the DLQ, or a stop by name. While that is
//! not settled nothing behind it is offered, so that the watermark never passes it unsettled.
//!
//! A sink that takes batches may not know which record it refused. Then batches are halved until
//! the culprit stands alone.

use cdc_shared::config::OnReject;

use super::backlog::Stage;
use super::decode::schema_ids;
use super::dlq::DeadLetter;
use super::hold::Hold;
use super::partition::{PartitionTask, Phase};
use super::running::{Delivery, Unblocked};
use crate::sink::{Disposition, SinkError};

/// A record that the sink will never take.
#[derive(Debug)]
pub(super) struct Reject {
    pub(super) offset: i64,
    pub(super) code: String,
    pub(super) message: String,
    /// Set where the partition must stop.
    pub(super) way_out: Option<String>,
    /// The operator wants every such record in the DLQ, whatever becomes of other rejects.
    pub(super) by_choice: bool,
}

impl Delivery {
    /// Whether a rejected record waits for its turn, and nothing else is waited for.
    pub(super) fn has_next_reject(&self) -> bool {
        self.blocked.is_none() && !self.rejects.is_empty()
    }
}

impl PartitionTask {
    /// A record is rejected: to the DLQ, or stop by name. Nothing more is offered until it is
    /// settled. Only called while nothing blocks.
    pub(super) fn reject(&mut self, delivery: &mut Delivery, reject: Reject) -> Option<Phase> {
        let Reject { offset, code, message, way_out, by_choice } = reject;
        tracing::error!(tp = %self.question.tp, offset, code, error = %message,
            "pipeline.sink_write_error");
        let since = self.shared.control_offset();
        if let Some(way_out) = way_out {
            let mut hold = Hold::stopped(&code, message, Some(offset), since);
            hold.report.way_out = way_out;
            delivery.end_with(hold);
            return None;
        }
        if self.shared.on_reject == OnReject::Stop && !by_choice {
            // Until everything before it is durable an earlier one may be rejected too.
            let message = format!("offset {offset} can never be delivered: {code}: {message}");
            delivery.end_with(Hold::stopped("rejected_record", message, Some(offset), since));
            return None;
        }
        if !by_choice && self.breaker.rejected() {
            let message =
                format!("too many records are rejected; the last, offset {offset}: {message}");
            return Some(Phase::Held(Hold::stopped("breaker", message, Some(offset), since)));
        }
        let topic_id = self.question.last.as_ref()?.topic_id.clone();
        let record = self.backlog.find(offset)?.record.clone();
        let (shared, tp) = (self.shared.clone(), self.question.tp.clone());
        let attempts = delivery.trouble.borrow().as_ref().map_or(1, |trouble| trouble.attempts);
        delivery.blocked = Some(Box::pin(async move {
            let letter = DeadLetter {
                tp: &tp,
                topic_id: &topic_id,
                record: &record,
                schema_id: schema_ids(&record).value,
                error_type: &code,
                error_message: &message,
                cause: None,
                attempts,
            };
            Unblocked::DeadLettered(offset, shared.dlq.send(letter).await)
        }));
        None
    }

    /// The record has its dead letter.
    pub(super) fn dead_lettered(&mut self, delivery: &mut Delivery, offset: i64) {
        let order = std::sync::atomic::Ordering::Relaxed;
        self.shared.status.dead_lettered.fetch_add(1, order);
        let was_pushed = match self.backlog.find(offset) {
            Some(entry) => {
                let was_pushed = entry.stage == Stage::Pushed;
                entry.stage = Stage::DeadLettered;
                was_pushed
            }
            None => false,
        };
        if was_pushed && !delivery.writer.settle(offset) {
            self.offer_again(delivery);
        }
    }

    pub(super) fn rejected(
        &mut self,
        delivery: &mut Delivery,
        offset: Option<i64>,
        error: SinkError,
    ) {
        let SinkError { code, message, hint, disposition, .. } = error;
        let way_out = hint.filter(|_| disposition == Disposition::RejectAndStop);
        let is_named = offset.is_some();
        let offset = offset.or_else(|| self.culprit(delivery));
        if !is_named {
            // Nothing of the batch was written, and a batch is open behind it: were that one sent,
            // the position would pass this one.
            self.offer_again(delivery);
        }
        if let Some(offset) = offset {
            delivery.rejects.push_back(Reject { offset, code, message, way_out, by_choice: false });
        }
    }

    /// The next of several records that were rejected; taken only after the sink was asked for its
    /// progress, so that the breaker knows what it took in between.
    pub(super) fn next_reject(&mut self, delivery: &mut Delivery) -> Option<Phase> {
        let reject = delivery.rejects.pop_front()?;
        self.reject(delivery, reject)
    }

    /// Takes back records that the sink has and an operator gives up by now.
    pub(super) fn heed_skips(&mut self, delivery: &mut Delivery) {
        let control = self.control.borrow().state.clone();
        let Some(position) = self.position().filter(|_| control.has_skips()) else { return };
        let (sink, tp, topic_id) = (&self.shared.sink_id, &self.question.tp, &position.topic_id);
        let is_skipped = |offset| control.skip_to(sink, tp, topic_id, offset).is_some();
        delivery.rejects.retain(|reject| !is_skipped(reject.offset));
        let skipped: Vec<_> =
            self.backlog.pushed().map(|e| e.record.offset).filter(|o| is_skipped(*o)).collect();
        let mut all_forgotten = true;
        for offset in skipped {
            tracing::warn!(%tp, offset, "skipped by an operator");
            if let Some(entry) = self.backlog.find(offset) {
                entry.stage = Stage::Passed;
            }
            all_forgotten &= delivery.writer.settle(offset);
        }
        if !all_forgotten {
            self.offer_again(delivery);
        }
    }

    /// The only record of a rejected batch; otherwise the next batches are half as large.
    fn culprit(&mut self, delivery: &mut Delivery) -> Option<i64> {
        let end = delivery.in_flight.take()?;
        let (rows, first) = {
            let mut pushed =
                self.backlog.pushed().take_while(|entry| entry.record.offset < end.get());
            let first = pushed.next().map(|entry| entry.record.offset);
            (usize::from(first.is_some()) + pushed.count(), first)
        };
        if rows <= 1 {
            return first;
        }
        let until = delivery.halving.map_or(end, |(_, until)| until.max(end));
        delivery.halving = Some((rows.div_ceil(2), until));
        None
    }
}
