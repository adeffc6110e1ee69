//! The commits of one table: all partitions that flush at the same time share one.
//!
//! The first partition that flushes opens a round: the others of the table are told and add what
//! they have open, so that a table has one commit per flush, however many partitions feed it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cdc_iceberg::{Commit, LakeTable, Outcome, Part};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::error;
use crate::sink::SinkError;
use crate::sink::retry::Retrier;

/// How long a round waits for partitions that have rows open.
const GATHER: Duration = Duration::from_millis(250);

/// Flushes that wait for their round: more than a process has partitions.
const QUEUE: usize = 1 << 16;

/// What came of a flush.
#[derive(Debug)]
pub(super) struct Answer {
    /// The round that it was in.
    pub(super) round: u64,
    /// Its outcome.
    pub(super) outcome: Result<Outcome, Failure>,
}

/// A flush that was given up.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: SinkError,
    /// The record that is to blame, where that is known.
    pub(super) offset: Option<i64>,
}

/// What a partition adds to a round.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) part: Part,
    pub(super) retrier: Retrier,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// A partition that feeds the table.
#[derive(Debug, Default)]
pub(super) struct Member {
    has_rows: AtomicBool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Committer {
    submissions: mpsc::Sender<Submission>,
    rounds: watch::Sender<u64>,
    members: Arc<Mutex<Vec<Weak<Member>>>>,
    /// Rows that are open in all partitions.
    open: AtomicUsize,
    /// A round begins when so many are.
    limit: usize,
}

impl Committer {
    /// Starts the commits of a table. They end when the committer is dropped.
    pub(super) fn start(table: Arc<LakeTable>, limit: usize) -> Arc<Self> {
        let (submissions, receiver) = mpsc::channel(QUEUE);
        let rounds = watch::Sender::new(0);
        let members = Arc::<Mutex<Vec<Weak<Member>>>>::default();
        let loop_of = Rounds { table, receiver, numbers: rounds.clone(), members: members.clone() };
        tokio::spawn(loop_of.run());
        Arc::new(Self { submissions, rounds, members, open: AtomicUsize::new(0), limit })
    }

    /// A new member.
    pub(super) fn join(&self) -> Arc<Member> {
        let member = Arc::new(Member::default());
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(&member));
        member
    }

    /// Numbers of the rounds: a new one asks for what is open.
    pub(super) fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }

    /// A row of a member is open.
    pub(super) fn opened(&self, member: &Member) {
        member.has_rows.store(true, Ordering::Release);
        if self.open.fetch_add(1, Ordering::Relaxed) + 1 == self.limit {
            self.rounds.send_modify(|round| *round += 1);
        }
    }

    /// Rows of a member are not open any more.
    pub(super) fn closed(&self, member: &Member, rows: usize) {
        member.has_rows.store(false, Ordering::Release);
        self.open.fetch_sub(rows, Ordering::Relaxed);
    }

    /// Adds to the round. The reply is dropped when the process ends, or the queue is full, which it
    /// cannot be: a partition has one flush under way.
    pub(super) fn submit(&self, submission: Submission) {
        drop(self.submissions.try_send(submission));
    }
}

/// Commits one submission by itself: no other partition is asked for what it has.
pub(super) fn alone(table: &Arc<LakeTable>, submission: Submission) {
    tokio::spawn(Round::new(table, 0, vec![submission]).run());
}

/// The task.
struct Rounds {
    table: Arc<LakeTable>,
    receiver: mpsc::Receiver<Submission>,
    numbers: watch::Sender<u64>,
    members: Arc<Mutex<Vec<Weak<Member>>>>,
}

impl Rounds {
    async fn run(mut self) {
        while let Some(first) = self.receiver.recv().await {
            self.numbers.send_modify(|round| *round += 1);
            let gathered = self.gather(first).await;
            let round = *self.numbers.borrow();
            Round::new(&self.table, round, gathered).run().await;
        }
    }

    async fn gather(&mut self, first: Submission) -> Vec<Submission> {
        let deadline = Instant::now() + GATHER;
        let mut gathered = vec![first];
        loop {
            while let Ok(submission) = self.receiver.try_recv() {
                gathered.push(submission);
            }
            if !self.waits() {
                return gathered;
            }
            tokio::select! {
                submission = self.receiver.recv() => match submission {
                    Some(submission) => gathered.push(submission),
                    None => return gathered,
                },
                () = tokio::time::sleep_until(deadline) => return gathered,
            }
        }
    }

    /// Whether a member has rows that it has not added.
    fn waits(&self) -> bool {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members
            .iter()
            .filter_map(Weak::upgrade)
            .any(|member| member.has_rows.load(Ordering::Acquire))
    }
}

/// One commit, until every part of it has its answer.
struct Round {
    number: u64,
    doing: String,
    commit: Commit,
    waiting: BTreeMap<usize, (Retrier, oneshot::Sender<Answer>)>,
}

impl Round {
    fn new(table: &Arc<LakeTable>, number: u64, gathered: Vec<Submission>) -> Self {
        let mut parts = Vec::with_capacity(gathered.len());
        let mut waiting = BTreeMap::new();
        for (at, submission) in gathered.into_iter().enumerate() {
            parts.push(submission.part);
            waiting.insert(at, (submission.retrier, submission.reply));
        }
        let doing = format!("committing to table {}", table.name());
        Self { number, doing, commit: table.commit(parts), waiting }
    }

    async fn run(mut self) {
        loop {
            let attempt = self.commit.attempt().await;
            self.tell_settled();
            let wait = match attempt {
                Ok(()) => return,
                Err(error) => self.failed(&error),
            };
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return,
            }
        }
    }

    fn tell_settled(&mut self) {
        for (at, outcome) in self.commit.take_settled() {
            let outcome = match outcome {
                Outcome::Refused(why, offset) => {
                    Err(Failure { error: error::refused(&self.doing, why), offset })
                }
                Outcome::Stopped(why) => {
                    Err(Failure { error: error::sink_error(&self.doing, why), offset: None })
                }
                outcome => Ok(outcome),
            };
            self.answer(at, outcome);
        }
    }

    /// How long to wait before the next attempt; `None` when nobody waits for one.
    fn failed(&mut self, why: &cdc_iceberg::LakeError) -> Option<Duration> {
        let mut longest = None;
        for at in self.commit.pending() {
            let Some((retrier, _)) = self.waiting.get_mut(&at) else { continue };
            match retrier.failed(error::told(&self.doing, why), 0) {
                Ok(wait) => longest = longest.max(Some(wait)),
                Err(last) => {
                    self.commit.give_up(at);
                    self.answer(at, Err(Failure { error: last, offset: None }));
                }
            }
        }
        longest
    }

    fn answer(&mut self, at: usize, outcome: Result<Outcome, Failure>) {
        if let Some((retrier, reply)) = self.waiting.remove(&at) {
            retrier.succeeded();
            // A writer that was reset or dropped does not listen.
            drop(reply.send(Answer { round: self.number, outcome }));
        }
    }
}
