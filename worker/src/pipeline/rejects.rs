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
}

impl PartitionTask {
    /// A record is rejected: to the DLQ, or stop by name. Nothing more is offered until it is
    /// settled.
    pub(super) fn reject(&mut self, delivery: &mut Delivery, reject: Reject) -> Option<Phase> {
        let Reject { offset, code, message, way_out } = reject;
        tracing::error!(tp = %self.question.tp, offset, code, error = %message,
            "pipeline.sink_write_error");
        let since = self.shared.control_offset();
        if let Some(way_out) = way_out {
            let mut hold = Hold::stopped(&code, message, Some(offset), since);
            hold.report.way_out = way_out;
            return Some(Phase::Held(hold));
        }
        if self.shared.on_reject == OnReject::Stop {
            let message = format!("offset {offset} can never be delivered: {code}: {message}");
            return Some(Phase::Held(Hold::stopped(
                "rejected_record",
                message,
                Some(offset),
                since,
            )));
        }
        if self.breaker.rejected() {
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

    pub(super) fn dead_lettered(&mut self, delivery: &mut Delivery, offset: i64) -> Option<Phase> {
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
        match delivery.rejects.pop_front() {
            Some(reject) => self.reject(delivery, reject),
            None => None,
        }
    }

    pub(super) fn rejected(
        &mut self,
        delivery: &mut Delivery,
        offset: Option<i64>,
        error: SinkError,
    ) -> Option<Phase> {
        let SinkError { code, message, hint, disposition, .. } = error;
        let way_out = hint.filter(|_| disposition == Disposition::RejectAndStop);
        let offset = offset.or_else(|| self.culprit(delivery));
        let Some(offset) = offset else {
            self.offer_again(delivery);
            return None;
        };
        let reject = Reject { offset, code, message, way_out };
        if delivery.blocked.is_some() {
            delivery.rejects.push_back(reject);
            return None;
        }
        self.reject(delivery, reject)
    }

    /// The only record of a rejected batch; otherwise the next batches are half as large.
    fn culprit(&mut self, delivery: &mut Delivery) -> Option<i64> {
        let end = delivery.in_flight.take()?;
        let (rows, first) = {
            let mut pushed = self.backlog.pushed(end);
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
