//! A session: from known starts until something sends the task back to look for them.
//!
//! One biased `select!`, as in `pipeline::running`. Records are read as they come, and stay in
//! memory up to a bound. Beyond it fetching pauses, unless nothing is complete without more: then
//! what comes goes to disk.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use cdc_shared::api::{DirectiveState, ErrorReport, PartitionState};
use cdc_shared::clock::unix_ms;
use cdc_shared::registry::RegistryError;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::assembler::{Assembler, Horizon, Waiting};
use super::depart::{sum, table_positions, tables};
use super::part::Part;
use super::release::{Flight, Landing, Parcel};
use super::spill::{Spill, Stored};
use super::task::{Next, WholeCommand, WholeTask, report_holds};
use crate::pipeline::decode::Decoder;
use crate::sink::retry::{Trouble, TroubleReporter};
use crate::source::slots::Chunk;

/// How often a range without effect is written to the sink's own record.
pub(super) const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two reports.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// How long records or marks that may have been passed before the session are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a connector commits at once becomes visible in each partition for itself, one after the
/// other; this much later it is in all of them. A longer delay costs no record: a transaction at
/// the beginning of the session may come in parts then.
const SETTLE: Duration = Duration::from_millis(500);
/// Marks read ahead of what they wait for.
pub(super) const MARKS_AHEAD: usize = 10_000;

pub(super) type Fetching = BoxFuture<'static, Result<(), RegistryError>>;

/// What a session holds beside the partitions.
pub(super) struct Session {
    pub(super) assembler: Assembler<Stored>,
    /// Whether the log may lack something that the session's start has passed.
    pub(super) is_apart: bool,
    pub(super) spill: Spill,
    /// Bytes in memory.
    pub(super) memory: usize,
    pub(super) decoder: Decoder,
    /// Complete, in order.
    pub(super) ready: VecDeque<Parcel>,
    /// So many of the next parcels go one by one.
    pub(super) narrow: usize,
    /// The first of `ready` cannot be delivered.
    pub(super) is_stuck: bool,
    pub(super) flight: Option<Flight>,
    pub(super) fetching: Option<Fetching>,
    pub(super) trouble: (TroubleReporter, watch::Receiver<Trouble>),
    /// When something last came or went.
    pub(super) moved: Instant,
    pub(super) last_position: Instant,
    pub(super) reported: Instant,
    pub(super) told: bool,
}

impl WholeTask {
    pub(super) async fn session(&mut self, parts: &mut [Part]) -> Next {
        let mut session = match self.open(parts).await {
            Ok(session) => session,
            Err(next) => return next,
        };
        for part in parts.iter_mut() {
            part.start(&self.shared);
        }
        let mut control = self.shared.control.clone();
        let mut replies = self.shared.replies.clone();
        control.borrow_and_update();
        loop {
            if let Err(next) = self.step(&mut session, parts) {
                return next;
            }
            let is_blocked = session.fetching.is_some();
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    let Some(command) = command else { return Next::Ended };
                    if let WholeCommand::Finish { grace, lost, .. } = &command
                        && !*lost
                    {
                        self.finish(&mut session, parts, *grace).await;
                    }
                    return Next::Obey(command);
                }
                Ok(()) = control.changed() => {
                    if let Some(next) = self.heed(&mut session, parts) {
                        return next;
                    }
                }
                Ok(()) = replies.changed() => {
                    if let Some(next) = self.heed(&mut session, parts) {
                        return next;
                    }
                }
                landing = landed(&mut session.flight) => {
                    if let Some(next) = self.landed(&mut session, parts, landing).await {
                        return next;
                    }
                }
                fetched = fetched(&mut session.fetching), if is_blocked => {
                    self.fetched(&fetched);
                }
                (place, chunk) = next_chunk(parts) => {
                    if !chunk.records.is_empty() {
                        session.moved = Instant::now();
                    }
                    if let Some(part) = parts.get_mut(place) {
                        part.take(chunk);
                    }
                }
                () = tokio::time::sleep(REPORT_PAUSE) => {}
            }
        }
    }

    /// Looks whether the positions belong together, and where the log ends if they do not.
    async fn open(&self, parts: &[Part]) -> Result<Session, Next> {
        let (topics, positions) = (self.topics(parts), table_positions(parts));
        let marks = parts.last().and_then(Part::position);
        let is_whole =
            marks.is_some_and(|marks| marks.schemas.value == Some(sum(positions.into_iter())));
        let horizon = if is_whole {
            Horizon::default()
        } else {
            self.horizon(parts).await.map_err(|why| {
                tracing::warn!(error = %why, "the log's ends cannot be read");
                Next::Again
            })?
        };
        if is_whole {
            tracing::info!(sink = %self.shared.sink_id, "pipeline.transactions_whole");
        } else {
            tracing::info!(sink = %self.shared.sink_id, ?horizon,
                "the positions do not belong together yet");
        }
        let (reporter, trouble) = TroubleReporter::new(self.shared.retry, false);
        let now = Instant::now();
        Ok(Session {
            assembler: Assembler::new(&topics, horizon),
            is_apart: !is_whole,
            spill: Spill::new(&self.options.spill_directory),
            memory: 0,
            decoder: Decoder::new(self.shared.json.clone()),
            ready: VecDeque::new(),
            narrow: 0,
            is_stuck: false,
            flight: None,
            fetching: None,
            trouble: (reporter, trouble),
            moved: now,
            last_position: now,
            reported: now,
            told: false,
        })
    }

    /// The place of each table partition's topic in the options.
    fn topics(&self, parts: &[Part]) -> Vec<usize> {
        let place = |part: &Part| {
            let mut tables = self.options.tables.iter();
            tables.position(|(_, topic)| **topic == *part.tp().topic).unwrap_or(usize::MAX)
        };
        tables(parts).iter().map(place).collect()
    }

    async fn horizon(&self, parts: &[Part]) -> Result<Horizon, String> {
        let probe = &self.shared.probe;
        let end = async |topic: &str, partition: i32| {
            let ends = probe.ends(topic).await.map_err(|error| error.to_string())?;
            Ok::<i64, String>(ends.high.get(partition as usize).copied().unwrap_or(0))
        };
        let before = end(&self.options.marks, 0).await?;
        tokio::time::sleep(SETTLE).await;
        let mut partitions = Vec::new();
        for part in tables(parts) {
            partitions.push(end(&part.tp().topic, part.tp().partition).await?);
        }
        tokio::time::sleep(SETTLE).await;
        let after = end(&self.options.marks, 0).await?;
        Ok(Horizon { marks: (before, after), partitions })
    }

    /// Reads what came, and starts what is complete.
    fn step(&self, session: &mut Session, parts: &mut [Part]) -> Result<(), Next> {
        for place in 0..parts.len() {
            self.take_in(session, parts, place)?;
        }
        let rows = self.shared.sink.batch_limits().rows;
        let patient = !session.is_apart || session.moved.elapsed() < PATIENCE;
        while session.ready.iter().map(|parcel| parcel.records).sum::<usize>() < rows {
            let Some(group) = session.assembler.next(patient) else { break };
            session.moved = Instant::now();
            session.ready.push_back(Parcel::new(group));
        }
        self.depart(session, parts);
        let is_starving = session.flight.is_none() && session.ready.is_empty();
        if is_starving || session.memory < self.options.memory {
            parts.iter_mut().for_each(Part::settle_debts);
        }
        self.publish(session, parts);
        Ok(())
    }

    /// Directives, rewinds, restarts, and what ends a hold.
    fn heed(&self, session: &mut Session, parts: &mut [Part]) -> Option<Next> {
        let shared = &self.shared;
        let is_held = |part: &Part| shared.directive(part.tp()).state != DirectiveState::Run;
        if parts.iter().any(|part| part.starts_anew(shared) || is_held(part)) {
            return Some(Next::Again);
        }
        for part in parts.iter_mut() {
            if !part.is_released(shared) {
                continue;
            }
            let resolve = part.hold.take().is_some_and(|hold| hold.resolve);
            session.is_stuck = false;
            if resolve {
                return Some(Next::Again);
            }
        }
        None
    }

    /// Waits for what is in flight.
    async fn finish(&self, session: &mut Session, parts: &mut [Part], grace: Duration) {
        if session.trouble.1.borrow().is_some() {
            return;
        }
        let landing = tokio::time::timeout(grace, landed(&mut session.flight)).await;
        if session.flight.is_some()
            && let Ok(Landing::Durable) = landing
        {
            let _ = self.landed(session, parts, Landing::Durable).await;
        }
    }

    fn publish(&self, session: &mut Session, parts: &[Part]) {
        if session.reported.elapsed() < REPORT_PAUSE {
            return;
        }
        session.reported = Instant::now();
        if parts.iter().any(|part| part.hold.is_some()) {
            return report_holds(&self.shared, parts);
        }
        let trouble = session.trouble.1.borrow().clone();
        let state = match &trouble {
            Some(trouble) if trouble.exhausted => PartitionState::Degraded,
            _ => PartitionState::Running,
        };
        if let Some(trouble) = trouble {
            let report =
                ErrorReport { code: trouble.code, message: trouble.message, at_ms: unix_ms() };
            self.shared.status.set_error(Some(report));
        }
        self.tell_of_waiting(session, parts);
        for part in parts {
            part.report(&self.shared, state, None);
        }
    }

    /// Says once what the head of the line waits for, when nothing moves.
    fn tell_of_waiting(&self, session: &mut Session, parts: &[Part]) {
        let is_still = session.moved.elapsed() >= 2 * PATIENCE && session.flight.is_none();
        if !is_still {
            session.told = false;
            return;
        }
        let Some(waiting) = session.assembler.waiting().filter(|_| !session.told) else { return };
        session.told = true;
        let name = |topic: usize| self.options.tables.get(topic).map_or("?", |(table, _)| table);
        let what = match waiting {
            Waiting::Records { transaction, topic, counts: (found, count) } => format!(
                "transaction {transaction} has {count} changes of {}, and {found} of them are \
                 there",
                name(topic)
            ),
            Waiting::End { transaction, partition } => {
                let tp = parts.get(partition).map(|part| part.tp().to_string());
                format!("transaction {transaction} at {} has no end yet", tp.unwrap_or_default())
            }
        };
        let marks = &self.options.marks;
        self.told(
            "waiting_for_transaction",
            &format!(
                "{what}; if the connector runs and it does not come, cdc rewind FILE --sink ID \
             --topic {marks} --to end delivers what is there"
            ),
        );
    }
}

/// Pending for ever when nothing is under way.
async fn landed(flight: &mut Option<Flight>) -> Landing {
    match flight {
        Some(flight) => flight.landed().await.unwrap_or(Landing::Moved),
        None => std::future::pending().await,
    }
}

/// As [`landed`].
async fn fetched(fetching: &mut Option<Fetching>) -> Result<(), RegistryError> {
    match fetching {
        Some(future) => {
            let fetched = future.await;
            *fetching = None;
            fetched
        }
        None => std::future::pending().await,
    }
}

/// The next records of any partition.
async fn next_chunk(parts: &mut [Part]) -> (usize, Chunk) {
    poll_fn(|context| {
        for (place, part) in parts.iter_mut().enumerate() {
            if let Poll::Ready(Some(chunk)) = part.chunks.poll_recv(context) {
                return Poll::Ready((place, chunk));
            }
        }
        Poll::Pending
    })
    .await
}
