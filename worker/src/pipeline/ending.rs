//! How a delivery ends: drained, or held at a record once everything before it is durable.

use std::time::Duration;

use tokio::time::Instant;

use super::hold::{Hold, Release};
use super::partition::{PartitionTask, Phase};
use super::running::{Delivery, Unblocked, wait};
use crate::sink::Progress;

impl Delivery {
    /// Holds at a record that waits for something, but not the records before it: a hold drops what
    /// is under way, so it begins when they are durable. Of two such records the first counts.
    pub(super) fn end_with(&mut self, hold: Hold) {
        let is_first =
            self.ending.as_ref().is_none_or(|ending| hold.report.offset <= ending.report.offset);
        if is_first {
            self.ending = Some(hold);
        }
    }
}

impl PartitionTask {
    /// Whether there is a next record to offer, and it stands before the one that holds.
    pub(super) fn is_before_end(&mut self, delivery: &Delivery) -> bool {
        let Some(next) = self.backlog.to_offer().map(|entry| entry.record.offset) else {
            return false;
        };
        delivery.ending.as_ref().is_none_or(|ending| Some(next) < ending.report.offset)
    }

    /// The hold, once nothing before its record is missing. One that only an operator ends is not
    /// hidden by a record before it that goes on failing.
    pub(super) fn end_of(&mut self, delivery: &mut Delivery) -> Option<Phase> {
        let ending = delivery.ending.as_ref()?;
        let offset = ending.report.offset;
        let first = self.backlog.head().map(|entry| entry.record.offset);
        let is_stuck = ending.needs_operator()
            && delivery.trouble.borrow().as_ref().is_some_and(|trouble| trouble.exhausted);
        if first < offset && first.is_some() && !is_stuck {
            return None;
        }
        delivery.ending.take().map(Phase::Held)
    }

    /// Ends: what is with the sink is finished, the rest is left to the next owner.
    pub(super) async fn finish(
        &mut self,
        mut delivery: Delivery,
        grace: Duration,
        lost: bool,
    ) -> Phase {
        let deadline = Instant::now() + grace;
        if lost || delivery.trouble.borrow().is_some() {
            return Phase::Ended;
        }
        loop {
            if delivery.has_next_reject() && self.next_reject(&mut delivery).is_some() {
                return Phase::Ended;
            }
            // Nothing passes a record that only an operator lets go on.
            if delivery.ending.as_ref().is_some_and(|hold| hold.release == Release::Operator) {
                return Phase::Ended;
            }
            if !delivery.writer.in_flight() {
                let behind =
                    self.position().is_some_and(|position| delivery.covered > position.next);
                let unsent = delivery.open.rows > 0
                    || self.backlog.covers().is_some_and(|next| next > delivery.covered);
                if unsent && delivery.blocked.is_none() {
                    self.flush(&mut delivery);
                } else if !behind {
                    let left = tokio::time::timeout_at(deadline, delivery.writer.leave());
                    if left.await.is_err() {
                        tracing::info!(tp = %self.question.tp, "no time to leave anything for the next owner");
                    }
                    return Phase::Ended;
                }
            }
            let progress = tokio::select! {
                biased;
                unblocked = wait(&mut delivery.blocked) => match unblocked {
                    Unblocked::DeadLettered(offset, Ok(())) => {
                        self.dead_lettered(&mut delivery, offset);
                        continue;
                    }
                    Unblocked::DeadLettered(_, Err(_)) => return Phase::Ended,
                    // Nothing more is offered.
                    Unblocked::Schema(_) => continue,
                    Unblocked::Replayed(replayed) => {
                        let _ = self.replayed(&mut delivery, replayed);
                        continue;
                    }
                },
                progress = delivery.writer.progress() => progress,
                () = tokio::time::sleep_until(deadline) => return Phase::Ended,
                Ok(()) = delivery.trouble.changed() => {
                    if delivery.trouble.borrow().is_some() {
                        return Phase::Ended;
                    }
                    continue;
                }
            };
            match progress {
                Progress::Durable(next) => self.durable(&mut delivery, next),
                // Whatever is open is flushed above.
                Progress::Wanted => {}
                // Met again, and dealt with, by the next owner.
                _ => return Phase::Ended,
            }
        }
    }
}
