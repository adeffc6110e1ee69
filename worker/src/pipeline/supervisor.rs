//! Starts a task for every assigned partition and ends it when the partition is revoked.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_shared::api::{DirectiveState, PartitionReport};
use cdc_shared::offset::{TopicId, TopicPartition};
use futures::future::{BoxFuture, join_all};
use rdkafka::error::KafkaError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::partition::{PartitionCommand, PartitionTask};
use crate::progress::reporter::directive_in_force;
use crate::sink::SinkError;
use crate::source::consumer::SourceCommand;
use crate::source::rebalance::SourceEvent;
use crate::source::slots::Assignment;
use crate::whole::task::{WholeCommand, WholeOptions, WholeTask};

/// How often Kafka is asked whether the topics are still those that are read. The client goes on
/// at its old offset in a topic that was deleted and created again under its name, and tells only
/// when that offset is not there.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(5);

/// Why delivering ended before it was asked to.
#[derive(Debug)]
pub enum Ended {
    /// As asked.
    Asked,
    /// The Kafka client is beyond repair.
    Kafka(KafkaError),
    /// The sink says that this process cannot serve it.
    Sink(SinkError),
}

struct Running {
    epoch: u64,
    commands: mpsc::Sender<PartitionCommand>,
    task: JoinHandle<()>,
}

/// The task of a sink that delivers whole transactions.
struct Whole {
    /// Whether this worker is the one to have all partitions.
    leads: watch::Receiver<bool>,
    commands: mpsc::Sender<WholeCommand>,
    task: JoinHandle<()>,
}

/// See the module.
pub struct Supervisor {
    shared: Arc<Shared>,
    events: mpsc::Receiver<SourceEvent>,
    fatal: mpsc::Receiver<SinkError>,
    running: HashMap<TopicPartition, Running>,
    /// Where one task owns all partitions: its commands.
    whole: Option<Whole>,
    /// Whether the worker stays outside the group; `None` until the control topic was read: a
    /// worker of a stopped sink must not join it even for a moment.
    outside: Option<bool>,
    /// Offset of the latest restart that this process has carried out, or was started behind.
    restarted: i64,
}

impl Supervisor {
    /// A supervisor for what the consumer thread says in `events`.
    pub fn new(
        shared: Arc<Shared>,
        events: mpsc::Receiver<SourceEvent>,
        fatal: mpsc::Receiver<SinkError>,
    ) -> Self {
        let running = HashMap::new();
        Self { shared, events, fatal, running, whole: None, outside: None, restarted: -1 }
    }

    /// Has one task own all partitions, where the sink is set to it.
    #[must_use]
    pub fn whole(mut self, options: WholeOptions, leads: watch::Receiver<bool>) -> Self {
        if let Some(sink) = self.shared.sink.whole() {
            let (commands, receiver) = mpsc::channel(4);
            let task = WholeTask::new(self.shared.clone(), options, sink, receiver);
            self.whole = Some(Whole { leads, commands, task: tokio::spawn(task.run()) });
        }
        self
    }

    /// Runs until `stop`, then leaves the group, which ends every task within the drain time.
    pub async fn run(mut self, stop: CancellationToken) -> Ended {
        let mut control = self.shared.control.clone();
        let mut replies = self.shared.replies.clone();
        let mut identities = self.identities();
        let mut leads = self.whole.as_ref().map(|whole| whole.leads.clone());
        loop {
            self.heed_directive();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(error) = self.fatal.recv() => {
                    self.leave().await;
                    return Ended::Sink(error);
                }
                event = self.events.recv() => match event {
                    None => return Ended::Asked,
                    Some(SourceEvent::Fatal(error)) => return Ended::Kafka(error),
                    Some(event) => self.handle(event).await,
                },
                Ok(()) = control.changed() => {}
                Ok(()) = replies.changed() => {}
                Some(Ok(())) = changed(&mut leads) => {}
                ids = &mut identities => {
                    self.compare(&ids);
                    identities = self.identities();
                }
            }
        }
        self.leave().await;
        Ended::Asked
    }

    /// The ids of the topics that are read, after a pause.
    fn identities(&self) -> BoxFuture<'static, HashMap<String, TopicId>> {
        let partitions = self.shared.status.partitions();
        let topics: BTreeSet<_> =
            partitions.into_iter().map(|report| Arc::from(report.topic)).collect();
        let probe = self.shared.probe.clone();
        Box::pin(async move {
            tokio::time::sleep(IDENTITY_INTERVAL).await;
            probe.topic_ids(topics.into_iter().collect()).await
        })
    }

    fn compare(&self, ids: &HashMap<String, TopicId>) {
        for tp in created_again(&self.shared.status.partitions(), ids) {
            if let Some(whole) = &self.whole {
                let _ = whole.commands.try_send(WholeCommand::CheckLog);
            }
            if let Some(running) = self.running.get(&tp) {
                let _ = running.commands.try_send(PartitionCommand::CheckLog);
            }
        }
    }

    /// The consumer revokes everything, commits, and ends its thread.
    async fn leave(&mut self) {
        self.shared.source.send(SourceCommand::End);
        while let Some(event) = self.events.recv().await {
            match event {
                SourceEvent::Fatal(error) => {
                    tracing::warn!(%error, "kafka client while leaving");
                    break;
                }
                event => self.handle(event).await,
            }
        }
        let left = self.running.keys().cloned().collect();
        self.end(left, Duration::ZERO, true).await;
        if let Some(Whole { commands, task, .. }) = self.whole.take() {
            drop(commands);
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        }
    }

    async fn handle(&mut self, event: SourceEvent) {
        if let Some(whole) = &self.whole {
            return whole.handle(event).await;
        }
        match event {
            SourceEvent::Assigned(assignments) => {
                for assignment in assignments {
                    self.spawn(assignment);
                }
            }
            SourceEvent::Revoked { partitions, lost, grace, reply } => {
                let ours = partitions
                    .into_iter()
                    .filter(|(tp, epoch)| {
                        self.running.get(tp).is_some_and(|running| running.epoch == *epoch)
                    })
                    .map(|(tp, _)| tp)
                    .collect();
                self.end(ours, grace, lost).await;
                // The consumer thread may have stopped waiting.
                let _ = reply.try_send(());
            }
            SourceEvent::OutOfRange => {
                for running in self.running.values() {
                    // A task that is busy has the command in its queue; a full queue holds one
                    // already.
                    let _ = running.commands.try_send(PartitionCommand::CheckLog);
                }
            }
            SourceEvent::Fatal(_) => {}
        }
    }

    fn spawn(&mut self, assignment: Assignment) {
        let (commands, receiver) = mpsc::channel(4);
        let (tp, epoch) = (assignment.tp.clone(), assignment.epoch);
        let task = PartitionTask::new(self.shared.clone(), assignment, receiver);
        let task = tokio::spawn(task.run());
        self.running.insert(tp, Running { epoch, commands, task });
    }

    async fn end(&mut self, partitions: Vec<TopicPartition>, grace: Duration, lost: bool) {
        let ending = partitions.into_iter().filter_map(|tp| self.running.remove_entry(&tp));
        let ended = ending.map(|(tp, mut running)| async move {
            let finish = PartitionCommand::Finish { grace, lost };
            let told = running.commands.send(finish);
            let limit = grace + Duration::from_millis(500);
            let done = async {
                // A task that has ended already needs no telling.
                let _ = told.await;
                (&mut running.task).await
            };
            let outcome = tokio::time::timeout(limit, done).await;
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%tp, %error, "partition task failed"),
                Err(_) => running.task.abort(),
            }
            tp
        });
        for tp in join_all(ended).await {
            self.shared.status.forget(&tp);
        }
    }

    /// A stopped sink leaves the group, or does not join it, and stays up; a resumed one joins; one
    /// that is restarted does both.
    fn heed_directive(&mut self) {
        let control = self.shared.control.borrow().clone();
        if !control.complete {
            return;
        }
        let reply = self.shared.replies.borrow().clone();
        let directive =
            directive_in_force(&control.state, reply.as_ref(), &self.shared.sink_id, None);
        let stopped = directive.state == DirectiveState::Stop;
        self.shared.status.stopped.store(stopped, Ordering::Relaxed);
        let stands_by = self.whole.as_ref().is_some_and(|whole| !*whole.leads.borrow());
        let outside = stopped || stands_by;
        let restart = control.state.restart_offset(&self.shared.sink_id, None);
        let is_restart = std::mem::replace(&mut self.restarted, restart) < restart;
        if self.outside == Some(outside) {
            if is_restart && !outside {
                tracing::info!("restarted by an operator");
                self.shared.source.send(SourceCommand::Rejoin);
            }
            return;
        }
        let before = self.outside.replace(outside);
        if outside || before.is_some() {
            tracing::info!(outside, reason = %directive.reason, "directive");
        }
        match (outside, before) {
            (false, _) => self.shared.source.send(SourceCommand::Join),
            (true, Some(_)) => self.shared.source.send(SourceCommand::Leave),
            (true, None) => {}
        }
    }
}

/// Pending for ever where there is nothing that changes.
async fn changed<T>(
    watched: &mut Option<watch::Receiver<T>>,
) -> Option<Result<(), watch::error::RecvError>> {
    match watched {
        Some(watched) => Some(watched.changed().await),
        None => std::future::pending().await,
    }
}

impl Whole {
    async fn handle(&self, event: SourceEvent) {
        let command = match event {
            SourceEvent::Assigned(assignments) => WholeCommand::Assigned(assignments),
            SourceEvent::OutOfRange => WholeCommand::CheckLog,
            SourceEvent::Fatal(_) => return,
            SourceEvent::Revoked { partitions, lost, grace, reply } => {
                let (done, ended) = oneshot::channel();
                let command = WholeCommand::Finish { partitions, grace, lost, done };
                let told = async {
                    // A task that has ended needs no telling.
                    let _ = self.commands.send(command).await;
                    let _ = ended.await;
                };
                let _ = tokio::time::timeout(grace + Duration::from_millis(500), told).await;
                // The consumer thread may have stopped waiting.
                let _ = reply.try_send(());
                return;
            }
        };
        // As above.
        let _ = self.commands.send(command).await;
    }
}

/// The partitions whose progress counts in another topic than the one that has its name now.
fn created_again(
    partitions: &[PartitionReport],
    ids: &HashMap<String, TopicId>,
) -> Vec<TopicPartition> {
    let is_another = |report: &&PartitionReport| {
        let position = report.position.as_ref();
        position.is_some_and(|position| {
            ids.get(&report.topic).is_some_and(|id| *id != position.topic_id)
        })
    };
    let changed = partitions.iter().filter(is_another);
    changed.map(|report| TopicPartition::new(report.topic.as_str(), report.partition)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::api::PartitionState;
    use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds};

    #[test]
    fn only_a_topic_with_another_id_was_created_again() {
        let report = |topic: &str, id: Option<&str>| PartitionReport {
            topic: topic.into(),
            partition: 3,
            position: id.map(|id| Position {
                next: NextOffset::ZERO,
                incarnation: Incarnation(0),
                topic_id: TopicId(id.into()),
                schemas: SchemaIds::default(),
            }),
            state: PartitionState::Running,
            hold: None,
            queue_depth: 0,
            last_flush_ms: None,
            next_source_ms: None,
        };
        let reports = [
            report("a", Some("1")),
            report("b", Some("2")),
            report("c", Some("3")),
            report("a", None),
        ];
        let ids = [("a", "1"), ("b", "9")].map(|(t, id)| (t.to_owned(), TopicId(id.into())));
        let changed = created_again(&reports, &ids.into());
        assert_eq!(changed, [TopicPartition::new("b", 3)], "c is gone, which Kafka tells itself");
    }
}
