//! One partition's deliveries: a state machine that its task drives by polling.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cdc_shared::offset::{Position, TopicPartition};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, Sleep};

use super::Endpoint;
use super::gate::{Counted, Failure, Turn};
use super::order::{Order, Seq};
use super::request::{self, EventForm};
use super::response;
use crate::change::{Change, Operation};
use crate::sink::retry::{Retrier, TroubleReporter};
use crate::sink::{Disposition, PartitionWriter, Progress, Rejection, SinkError};

/// Most events of a partition that are not durable: how far other keys run ahead of one that
/// fails.
pub(super) const WINDOW_RECORDS: usize = 4096;
/// Most bytes of bodies of a partition that are not delivered.
pub(super) const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// An event that is not delivered yet.
#[derive(Debug)]
struct Event {
    body: Bytes,
    /// Once it failed.
    failing: Option<Box<Failing>>,
}

#[derive(Debug)]
struct Failing {
    retrier: Retrier,
    counted: Counted,
}

/// An event that waits for its next attempt; sorted by time.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Delayed {
    at: Instant,
    seq: Seq,
    /// Not before this, even when the receiver is back: it asked for it.
    floor: Instant,
}

struct Outcome {
    seq: Seq,
    offset: i64,
    result: Result<(), SinkError>,
    turn: Turn,
}

/// See [`super::WebhookSink`].
pub(super) struct WebhookWriter {
    endpoint: Arc<Endpoint>,
    trouble: TroubleReporter,
    form: EventForm,
    lanes: RandomState,
    order: Order<Event>,
    /// Bytes of the bodies in `order`.
    bytes: usize,
    in_flight: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// The place in the queue for the next attempt.
    turn: Option<BoxFuture<'static, Option<Turn>>>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// Runs to the first of `delayed`.
    timer: Pin<Box<Sleep>>,
    /// Ends when a failing receiver is back, while anything is delayed.
    recovery: Option<BoxFuture<'static, ()>>,
    /// Events that failed and are not done.
    failing: usize,
    /// Found, but not handed out yet.
    reports: VecDeque<Progress>,
    /// The receiver is gone: nothing is sent any more.
    stopped: bool,
}

impl WebhookWriter {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        tp: &TopicPartition,
        start: Position,
        trouble: TroubleReporter,
    ) -> Self {
        Self {
            endpoint,
            trouble,
            form: EventForm::new(tp, start.topic_id),
            lanes: RandomState::new(),
            order: Order::new(start.next),
            bytes: 0,
            in_flight: FuturesUnordered::new(),
            turn: None,
            delayed: BinaryHeap::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            recovery: None,
            failing: 0,
            reports: VecDeque::new(),
            stopped: false,
        }
    }

    /// Does whatever can be done and says what is to be known. All state is in `self`, so not
    /// polling again loses nothing.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        loop {
            let mut moved = false;
            while let Poll::Ready(Some(outcome)) = self.in_flight.poll_next_unpin(cx) {
                self.take_outcome(outcome);
                moved = true;
            }
            moved |= self.poll_delayed(cx);
            moved |= self.poll_start(cx);
            if !moved {
                break;
            }
        }
        if let Some(next) = self.order.advance() {
            return Poll::Ready(Progress::Durable(next));
        }
        self.reports.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    /// Makes events whose time has come ready; whether there were any.
    fn poll_delayed(&mut self, cx: &mut Context<'_>) -> bool {
        let recovered = self.recovery.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if recovered {
            self.hurry();
        }
        let mut moved = recovered;
        while let Some(Reverse(first)) = self.delayed.peek() {
            if self.timer.deadline() != first.at {
                self.timer.as_mut().reset(first.at);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return moved;
            }
            if let Some(Reverse(first)) = self.delayed.pop() {
                self.order.retry(first.seq);
            }
            moved = true;
        }
        self.recovery = None;
        moved
    }

    /// The receiver is back: what waited for that need wait no longer.
    fn hurry(&mut self) {
        self.recovery = Some(self.endpoint.gate.recovery());
        let delayed = std::mem::take(&mut self.delayed).into_iter();
        let hurried =
            |Reverse(delayed): Reverse<Delayed>| Reverse(Delayed { at: delayed.floor, ..delayed });
        self.delayed = delayed.map(hurried).collect();
    }

    /// Starts what may be sent; whether there was anything.
    fn poll_start(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.stopped && self.order.has_ready() {
            let turn = match &mut self.turn {
                None => self.endpoint.gate.try_turn(),
                Some(waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Ready(turn) => {
                        self.turn = None;
                        turn
                    }
                    Poll::Pending => return moved,
                },
            };
            match turn {
                Some(turn) => self.start(turn),
                None => self.turn = Some(Box::pin(self.endpoint.gate.clone().turn())),
            }
            moved = true;
        }
        // A place in the queue that nobody needs would be a slot that nobody uses.
        self.turn = None;
        moved
    }

    fn start(&mut self, turn: Turn) {
        let Some((seq, offset, event)) = self.order.start() else { return };
        let id = self.form.id(offset);
        let body = event.body.clone();
        let endpoint = self.endpoint.clone();
        self.in_flight.push(Box::pin(async move {
            let result = endpoint.attempt(&id, body).await;
            Outcome { seq, offset, result, turn }
        }));
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        let Outcome { seq, offset, result, turn } = outcome;
        let error = match result {
            Ok(()) => {
                self.endpoint.gate.answered();
                let event = self.order.done(seq);
                return self.forget(event);
            }
            Err(error) => error,
        };
        match error.disposition {
            Disposition::Retry(asked) => self.failed(seq, offset, error, asked, &turn),
            Disposition::Stop => {
                // Held without a time: only a reset goes on.
                let settled = self.order.delay(seq);
                self.forget(settled);
                if !std::mem::replace(&mut self.stopped, true) {
                    self.reports.push_back(Progress::Stop(error));
                }
            }
            Disposition::Reject
            | Disposition::RejectAndStop
            | Disposition::Moved
            | Disposition::Fatal => {
                self.endpoint.gate.answered();
                self.rejected(seq, offset, error);
            }
        }
    }

    fn failed(
        &mut self,
        seq: Seq,
        offset: i64,
        error: SinkError,
        asked: Option<Duration>,
        turn: &Turn,
    ) {
        let Some(event) = self.order.event(seq) else { return };
        let failing = event.failing.get_or_insert_with(|| {
            self.failing += 1;
            Box::new(Failing { retrier: self.trouble.retrier(), counted: Counted::default() })
        });
        let gate = &self.endpoint.gate;
        // An event with a limit of attempts ends by itself, and holds no other up until then.
        let failure = if failing.retrier.gives_up() {
            Failure { shared: 0, paces: false }
        } else {
            gate.failed(&mut failing.counted, turn.is_probe())
        };
        let delay = match failing.retrier.failed(error, failure.shared) {
            Ok(delay) => delay,
            Err(error) => return self.rejected(seq, offset, error),
        };
        if failure.paces {
            gate.pace(delay);
        }
        let settled = self.order.delay(seq);
        if settled.is_some() {
            return self.forget(settled);
        }
        let now = Instant::now();
        let floor = now + asked.unwrap_or_default();
        self.delayed.push(Reverse(Delayed { at: now + delay, seq, floor }));
        self.recovery.get_or_insert_with(|| gate.recovery());
    }

    fn rejected(&mut self, seq: Seq, offset: i64, error: SinkError) {
        match self.order.reject(seq) {
            Some(settled) => self.forget(Some(settled)),
            None => {
                self.reports.push_back(Progress::Rejected { offset: Some(offset), error });
            }
        }
    }

    /// Counts an event that is done out.
    fn forget(&mut self, event: Option<Event>) {
        let Some(event) = event else { return };
        self.bytes -= event.body.len();
        if let Some(failing) = event.failing {
            self.failing -= 1;
            // One that goes through does not hide another that still fails.
            if self.failing == 0 {
                failing.retrier.succeeded();
            }
        }
    }
}

impl Endpoint {
    async fn attempt(&self, id: &str, body: Bytes) -> Result<(), SinkError> {
        let request = request::request(&self.options, id, body);
        match self.transport.send(request).await {
            Ok(answer) => {
                response::outcome(answer, &self.address, self.options.max_response_bytes).await
            }
            Err(error) => Err(response::unanswered(error, &self.address)),
        }
    }
}

#[async_trait]
impl PartitionWriter for WebhookWriter {
    fn has_room(&self) -> bool {
        self.order.len() < WINDOW_RECORDS && self.bytes < WINDOW_BYTES
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        if change.operation == Operation::Tombstone && !self.endpoint.options.send_tombstones {
            self.order.push_done(change.offset);
            return Ok(());
        }
        let body = self.form.body(change)?;
        self.bytes += body.len();
        // Two keys with one hash share a lane, which only costs them running side by side.
        let lane = self.lanes.hash_one(change.key_bytes);
        self.order.push(change.offset, lane, Event { body, failing: None });
        Ok(())
    }

    fn flush(&mut self, covers: Position) {
        self.order.cover(covers.next);
    }

    fn in_flight(&self) -> bool {
        false
    }

    async fn progress(&mut self) -> Progress {
        std::future::poll_fn(|cx| self.poll_progress(cx)).await
    }

    fn settle(&mut self, offset: i64) -> bool {
        let event = self.order.settle(offset);
        self.forget(event);
        true
    }

    fn has_ids_of(&mut self, generation: u64) {
        self.form.set_generation(generation);
    }

    fn reset(&mut self, position: Position) {
        self.in_flight = FuturesUnordered::new();
        self.turn = None;
        self.delayed.clear();
        self.recovery = None;
        self.reports.clear();
        self.stopped = false;
        self.bytes = 0;
        self.failing = 0;
        self.trouble.retrier().succeeded();
        self.order = Order::new(position.next);
        self.form.set_topic_id(position.topic_id);
    }
}

impl std::fmt::Debug for WebhookWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookWriter")
            .field("open", &self.order.len())
            .field("in_flight", &self.in_flight.len())
            .field("delayed", &self.delayed.len())
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
