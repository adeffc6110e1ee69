//! The one task that owns every partition of a sink with `consistency: transaction`: gathers them,
//! finds where they begin, and runs sessions (`session.rs`) over them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_shared::api::{DirectiveState, PartitionState};
use cdc_shared::offset::TopicPartition;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::part::Part;
use crate::pipeline::Shared;
use crate::pipeline::hold::{Hold, Release};
use crate::pipeline::resolve::{Resolved, resolve};
use crate::sink::whole::WholeSink;
use crate::source::slots::Assignment;

/// Pause before something that did not work is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// What the task needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct WholeOptions {
    /// The sink's tables, as marks name them, with their topics.
    pub tables: Vec<(String, String)>,
    /// The transaction topic.
    pub marks: String,
    /// Bytes of records in memory; what is beyond goes to disk.
    pub memory: usize,
    /// Where to.
    pub spill_directory: PathBuf,
}

/// What the supervisor tells the task.
#[derive(Debug)]
pub enum WholeCommand {
    /// Partitions are ours.
    Assigned(Vec<Assignment>),
    /// Partitions are given away: finish what is in flight within `grace`.
    Finish {
        /// Which, with the epoch of their assignment.
        partitions: Vec<(TopicPartition, u64)>,
        /// Time for it.
        grace: Duration,
        /// They are somebody else's already.
        lost: bool,
        /// Told when they have been let go.
        done: oneshot::Sender<()>,
    },
    /// The log of some partition may be another: look where each begins.
    CheckLog,
}

/// What comes after a step.
pub(super) enum Next {
    /// Look at everything anew.
    Again,
    /// The same after a pause.
    Later,
    /// Obey, then look at everything anew.
    Obey(WholeCommand),
    /// The process ends.
    Ended,
}

/// See the module.
pub struct WholeTask {
    pub(super) shared: Arc<Shared>,
    pub(super) options: WholeOptions,
    pub(super) sink: Arc<dyn WholeSink>,
    pub(super) commands: mpsc::Receiver<WholeCommand>,
    /// Ours, in the order of their names; the transaction topic is one of them.
    parts: BTreeMap<TopicPartition, Part>,
}

impl WholeTask {
    /// A task that obeys `commands`.
    pub fn new(
        shared: Arc<Shared>,
        options: WholeOptions,
        sink: Box<dyn WholeSink>,
        commands: mpsc::Receiver<WholeCommand>,
    ) -> Self {
        Self { shared, options, sink: sink.into(), commands, parts: BTreeMap::new() }
    }

    /// Runs until the supervisor is gone.
    pub async fn run(mut self) {
        loop {
            let next = match self.gathered().await {
                Ok(mut parts) => {
                    let next = self.serve(&mut parts).await;
                    for part in parts {
                        self.parts.insert(part.tp().clone(), part);
                    }
                    next
                }
                Err(next) => next,
            };
            match next {
                Next::Again => {}
                Next::Later => tokio::time::sleep(PAUSE).await,
                Next::Obey(command) => self.obey(command),
                Next::Ended => break,
            }
        }
        for tp in self.parts.keys() {
            self.shared.status.forget(tp);
        }
    }

    /// Obeys a command outside of a delivery.
    pub(super) fn obey(&mut self, command: WholeCommand) {
        match command {
            WholeCommand::Assigned(assignments) => {
                for assignment in assignments {
                    self.parts.insert(assignment.tp.clone(), Part::new(assignment));
                }
            }
            WholeCommand::Finish { partitions, done, .. } => {
                for (tp, epoch) in partitions {
                    if self.parts.get(&tp).is_some_and(|part| part.question.epoch == epoch) {
                        self.parts.remove(&tp);
                        self.shared.status.forget(&tp);
                    }
                }
                let _ = done.send(());
            }
            WholeCommand::CheckLog => {}
        }
    }

    /// Waits until every partition is ours and nothing holds them; tables first, the transaction
    /// topic last.
    async fn gathered(&mut self) -> Result<Vec<Part>, Next> {
        let mut control = self.shared.control.clone();
        let mut replies = self.shared.replies.clone();
        control.borrow_and_update();
        if control.borrow().complete && self.is_complete().await && !self.is_paused() {
            let parts = std::mem::take(&mut self.parts).into_values();
            let (marks, mut parts): (Vec<_>, Vec<_>) =
                parts.partition(|part| *part.tp().topic == *self.options.marks);
            parts.extend(marks);
            return Ok(parts);
        }
        tokio::select! {
            biased;
            command = self.commands.recv() => match command {
                Some(command) => self.obey(command),
                None => return Err(Next::Ended),
            },
            Ok(()) = control.changed() => {}
            Ok(()) = replies.changed() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
        Err(Next::Again)
    }

    /// Whether every partition of every topic is ours. Says of each what it waits for.
    async fn is_complete(&self) -> bool {
        if self.parts.is_empty() {
            return false;
        }
        let topics = self.options.tables.iter().map(|(_, topic)| topic);
        for topic in topics.chain([&self.options.marks]) {
            let (code, why) = match self.shared.probe.ends(topic).await {
                Ok(ends) => {
                    let count = ends.high.len() as i32;
                    let is_ours = |partition| {
                        self.parts.contains_key(&TopicPartition::new(topic.as_str(), partition))
                    };
                    match (0..count).find(|partition| !is_ours(*partition)) {
                        None => continue,
                        Some(partition) => (
                            "partitions_elsewhere",
                            format!("{topic}[{partition}] is not this worker's (yet)"),
                        ),
                    }
                }
                Err(error) => ("kafka_unreadable", error.to_string()),
            };
            let way_out = "with consistency: transaction one worker has every partition; this is \
                           looked at again";
            let hold = Hold::waiting(code, why, way_out, Instant::now(), 0);
            for part in self.parts.values() {
                part.report(&self.shared, PartitionState::Waiting, Some(&hold.report));
            }
            return false;
        }
        true
    }

    /// Whether a directive holds any partition; then all wait.
    pub(super) fn is_paused(&self) -> bool {
        let other = self.parts.keys().find_map(|tp| {
            let directive = self.shared.directive(tp);
            (directive.state != DirectiveState::Run).then_some(directive)
        });
        let Some(directive) = other else { return false };
        let since = self.shared.control_offset();
        let hold = Hold::directive(directive.state, &directive.reason, since);
        for part in self.parts.values() {
            part.report(&self.shared, PartitionState::Paused, Some(&hold.report));
        }
        true
    }

    /// Finds the starts and delivers.
    async fn serve(&mut self, parts: &mut [Part]) -> Next {
        loop {
            match self.resolved(parts).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(next) => return next,
            }
        }
        let next = Box::pin(self.session(parts)).await;
        for part in parts {
            part.stop(&self.shared);
        }
        next
    }

    /// Whether every partition knows its start. Those that do not are asked again after a pause,
    /// or after an operator has acted.
    async fn resolved(&mut self, parts: &mut [Part]) -> Result<bool, Next> {
        let mut is_resolved = true;
        for part in parts.iter_mut() {
            let is_stopped =
                part.hold.as_ref().is_some_and(|hold| hold.release == Release::Operator);
            if is_stopped && !part.is_released(&self.shared) {
                is_resolved = false;
                continue;
            }
            part.hold = None;
            part.question.seen = self.shared.control_offset();
            part.report(&self.shared, PartitionState::Resolving, None);
            let since = part.question.seen;
            match resolve(&self.shared, &part.question).await {
                Resolved::From(position, _) => part.question.last = Some(position),
                Resolved::Stop(cause) => part.hold = Some(Hold::by_name(cause, since)),
                Resolved::Wait { code, message, way_out } => {
                    let until = Instant::now() + PAUSE;
                    part.hold = Some(Hold::waiting(&code, message, way_out, until, since));
                }
                Resolved::Fatal(error) => {
                    let _ = self.shared.fatal.send(error).await;
                }
            }
            is_resolved &= part.hold.is_none();
        }
        if is_resolved {
            return Ok(true);
        }
        report_holds(&self.shared, parts);
        tokio::select! {
            biased;
            command = self.commands.recv() => {
                let Some(command) = command else { return Err(Next::Ended) };
                return Err(Next::Obey(command));
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
        Ok(false)
    }
}

/// Says of each partition why it does not move; those that nothing holds wait for the others.
pub(super) fn report_holds(shared: &Shared, parts: &[Part]) {
    let first = parts.iter().find(|part| part.hold.is_some());
    let Some(first) = first else { return };
    let others = Hold::waiting(
        "waiting_for_partition",
        format!("{} is held, and transactions are delivered in order", first.tp()),
        "see there",
        Instant::now(),
        0,
    );
    for part in parts {
        let hold = part.hold.as_ref();
        let state = match hold.map(|hold| &hold.release) {
            Some(Release::Operator) => PartitionState::Stopped,
            _ => PartitionState::Waiting,
        };
        part.report(shared, state, Some(hold.map_or(&others.report, |hold| &hold.report)));
    }
}
