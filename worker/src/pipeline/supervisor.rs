//! Starts a task for every assigned partition and ends it when the partition is revoked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_shared::api::DirectiveState;
use cdc_shared::offset::TopicPartition;
use futures::future::join_all;
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::partition::{PartitionCommand, PartitionTask};
use crate::progress::reporter::directive_in_force;
use crate::sink::SinkError;
use crate::source::consumer::SourceCommand;
use crate::source::rebalance::SourceEvent;
use crate::source::slots::Assignment;

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

/// See the module.
pub struct Supervisor {
    shared: Arc<Shared>,
    events: mpsc::Receiver<SourceEvent>,
    fatal: mpsc::Receiver<SinkError>,
    running: HashMap<TopicPartition, Running>,
    /// Whether the worker stays outside the group; `None` until the control topic was read: a
    /// worker of a stopped sink must not join it even for a moment.
    outside: Option<bool>,
}

impl Supervisor {
    /// A supervisor for what the consumer thread says in `events`.
    pub fn new(
        shared: Arc<Shared>,
        events: mpsc::Receiver<SourceEvent>,
        fatal: mpsc::Receiver<SinkError>,
    ) -> Self {
        Self { shared, events, fatal, running: HashMap::new(), outside: None }
    }

    /// Runs until `stop`, then leaves the group, which ends every task within the drain time.
    pub async fn run(mut self, stop: CancellationToken) -> Ended {
        let mut control = self.shared.control.clone();
        let mut replies = self.shared.replies.clone();
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
            }
        }
        self.leave().await;
        Ended::Asked
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
    }

    async fn handle(&mut self, event: SourceEvent) {
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

    /// A stopped sink leaves the group, or does not join it, and stays up; a resumed one joins.
    fn heed_directive(&mut self) {
        let control = self.shared.control.borrow().clone();
        if !control.complete {
            return;
        }
        let reply = self.shared.replies.borrow().clone();
        let directive =
            directive_in_force(&control.state, reply.as_ref(), &self.shared.sink_id, None);
        let outside = directive.state == DirectiveState::Stop;
        if self.outside == Some(outside) {
            return;
        }
        let before = self.outside.replace(outside);
        self.shared.status.stopped.store(outside, Ordering::Relaxed);
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
