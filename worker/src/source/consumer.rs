//! The one Kafka consumer of a worker, on a thread of its own.
//!
//! It never blocks on a sink: a partition that is full is waited for a moment (`room.rs`), then
//! paused and polling goes on, so that a slow sink never costs a rebalance. It decides nothing: where
//! a partition starts, when it holds and what may be committed come from the partition's task.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdc_shared::config::{GroupProtocol, KafkaConfig};
use cdc_shared::kafka;
use cdc_shared::offset::{NextOffset, TopicPartition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::client::create;
use super::rebalance::{RebalanceContext, SourceEvent, add_commit};
use super::record::copy;
use super::room::{Room, Waiting};
use super::slots::{Gate, Offered};
use crate::status::SharedStatus;

/// How long an idle poll waits; commands wait at most as long.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// The same while some partition waits to be sought or resumed.
const BUSY_POLL: Duration = Duration::from_millis(2);
/// Records taken between two looks at the commands.
const BURST: usize = 2000;
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between two looks at a full partition that is waited for.
const ROOM_LOOK: Duration = Duration::from_millis(1);

/// What partition tasks and the supervisor ask of the consumer thread.
#[derive(Debug)]
pub enum SourceCommand {
    /// Fetch a partition from `next`; `run` comes back with its chunks.
    Start {
        /// Which.
        tp: TopicPartition,
        /// Of which assignment.
        epoch: u64,
        /// From where.
        next: NextOffset,
        /// Number of this start.
        run: u64,
    },
    /// Stop fetching a partition.
    Hold {
        /// Which.
        tp: TopicPartition,
        /// Of which assignment.
        epoch: u64,
    },
    /// Commit what the partition's progress cell holds, now, and say when the broker has it.
    Commit {
        /// Which.
        tp: TopicPartition,
        /// Of which assignment.
        epoch: u64,
        /// The broker's answer.
        reply: oneshot::Sender<Result<(), KafkaError>>,
    },
    /// Leave the group (directive `stop`).
    Leave,
    /// Join it.
    Join,
    /// Leave it and join it again.
    Rejoin,
    /// Leave and end the thread.
    End,
}

/// Sends commands to the consumer thread.
#[derive(Clone, Debug)]
pub struct SourceHandle {
    commands: mpsc::Sender<SourceCommand>,
}

impl SourceHandle {
    /// A handle on whoever receives these commands.
    pub fn new(commands: mpsc::Sender<SourceCommand>) -> Self {
        Self { commands }
    }

    /// Sends a command; the thread picks it up within tens of milliseconds. After the thread has
    /// ended commands go nowhere.
    pub fn send(&self, command: SourceCommand) {
        let _ = self.commands.send(command);
    }
}

/// What the consumer needs.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Kafka.
    pub kafka: KafkaConfig,
    /// Group S.
    pub group: String,
    /// Topics of the sink.
    pub topics: Vec<String>,
    /// Records a partition may hold.
    pub max_records: usize,
    /// Bytes the process may hold.
    pub max_bytes: u64,
    /// Time for a partition task to finish when its partition is revoked.
    pub grace: Duration,
}

/// Starts the consumer thread, outside the group: [`SourceCommand::Join`] joins it.
///
/// # Errors
/// When the client cannot be created from the configuration.
pub fn start(
    options: &SourceOptions,
    status: &SharedStatus,
    events: tokio::sync::mpsc::Sender<SourceEvent>,
) -> Result<(SourceHandle, JoinHandle<()>), KafkaError> {
    let (commands, receiver) = mpsc::channel();
    let source = Source {
        consumer: create(options, status, &events, false)?,
        options: options.clone(),
        status: status.clone(),
        events,
        commands: receiver,
        last_commit: Instant::now(),
        room: None,
        fallen_back: false,
        ended: false,
    };
    let thread = std::thread::Builder::new()
        .name("kafka-consumer".to_owned())
        .spawn(move || source.run())
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok((SourceHandle::new(commands), thread))
}

struct Source {
    consumer: BaseConsumer<RebalanceContext>,
    options: SourceOptions,
    status: SharedStatus,
    events: tokio::sync::mpsc::Sender<SourceEvent>,
    commands: mpsc::Receiver<SourceCommand>,
    last_commit: Instant,
    /// A partition that is full and waited for.
    room: Option<Room>,
    fallen_back: bool,
    ended: bool,
}

impl Source {
    fn run(mut self) {
        while !self.ended {
            self.obey();
            self.start_partitions();
            self.resume_drained();
            self.commit_due();
            self.lives();
            match self.room.take() {
                Some(room) => self.wait_for(room),
                None => self.poll(),
            }
        }
        self.leave();
    }

    /// Leaves the group, to the end: a client that is closed between giving its partitions up and
    /// leaving ends without a word to the broker (librdkafka 2.12, classic protocol), and nobody
    /// gets the partitions before the session times out.
    fn leave(&self) {
        self.consumer.unsubscribe();
        let deadline = Instant::now() + self.options.grace + Duration::from_secs(3);
        // The revoke callback runs inside poll; after it nothing is assigned.
        while (!self.consumer.context().slots().is_empty() || self.is_classic_member())
            && Instant::now() < deadline
        {
            let _ = self.consumer.poll(IDLE_POLL);
            self.lives();
        }
    }

    fn lives(&self) {
        let now = cdc_shared::clock::unix_ms();
        self.status.last_poll_ms.store(now, Ordering::Relaxed);
    }

    fn is_classic_member(&self) -> bool {
        let classic =
            self.fallen_back || self.options.kafka.group_protocol == GroupProtocol::Classic;
        classic && kafka::member_id(self.consumer.client()).is_some()
    }

    fn join(&mut self) {
        let topics: Vec<_> = self.options.topics.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            self.tell(SourceEvent::Fatal(error));
        }
    }

    fn tell(&self, event: SourceEvent) {
        // Nobody listens any more when the process is ending.
        let _ = self.events.blocking_send(event);
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey_one(command);
        }
    }

    fn obey_one(&mut self, command: SourceCommand) {
        match command {
            SourceCommand::Start { tp, epoch, next, run } => {
                if let Some(slot) = self.consumer.context().slots().current(&tp, epoch) {
                    slot.hold();
                    slot.run = run;
                    slot.gate = Gate::Starting(next);
                }
            }
            SourceCommand::Hold { tp, epoch } => self.hold(&tp, epoch),
            SourceCommand::Commit { tp, epoch, reply } => {
                let _ = reply.send(self.commit_now(&tp, epoch));
            }
            SourceCommand::Leave => self.consumer.unsubscribe(),
            SourceCommand::Join => self.join(),
            SourceCommand::Rejoin => {
                self.leave();
                self.join();
            }
            SourceCommand::End => self.ended = true,
        }
    }

    /// Takes nothing from the client for a moment, so that a partition that got full need not be
    /// paused.
    fn wait_for(&mut self, room: Room) {
        let waiting = room.look(&mut self.consumer.context().slots(), Instant::now());
        match waiting {
            Waiting::Over => {}
            Waiting::Vain => self.pause(&room.tp),
            Waiting::On => {
                self.room = Some(room);
                if let Ok(command) = self.commands.recv_timeout(ROOM_LOOK) {
                    self.obey_one(command);
                }
            }
        }
    }

    fn pause(&self, tp: &TopicPartition) {
        if let Err(error) = self.consumer.pause(&list(tp)) {
            // A record that comes all the same is dropped by its slot.
            tracing::debug!(%error, %tp, "pause");
        }
    }

    fn hold(&self, tp: &TopicPartition, epoch: u64) {
        let held = match self.consumer.context().slots().current(tp, epoch) {
            Some(slot) => {
                slot.hold();
                true
            }
            None => false,
        };
        if held {
            self.pause(tp);
        }
    }

    fn commit_now(&self, tp: &TopicPartition, epoch: u64) -> Result<(), KafkaError> {
        let position = self
            .consumer
            .context()
            .slots()
            .current(tp, epoch)
            .and_then(|slot| slot.progress.get())
            .ok_or(KafkaError::ConsumerCommit(RDKafkaErrorCode::State))?;
        let mut offsets = TopicPartitionList::new();
        add_commit(&mut offsets, tp, &position);
        self.consumer.commit(&offsets, CommitMode::Sync)?;
        if let Some(slot) = self.consumer.context().slots().current(tp, epoch) {
            slot.committed = Some(position);
        }
        Ok(())
    }

    /// Seeks and resumes partitions whose start is known. A partition that the client does not
    /// fetch yet refuses the seek and is tried again at the next turn.
    fn start_partitions(&self) {
        let starting: Vec<_> = {
            let mut slots = self.consumer.context().slots();
            let starting = slots.iter_mut().filter_map(|slot| match slot.gate {
                Gate::Starting(next) => Some((slot.tp.clone(), slot.epoch, next)),
                _ => None,
            });
            starting.collect()
        };
        for (tp, epoch, next) in starting {
            self.open(&tp, epoch, next);
        }
    }

    /// Lets partitions go on that were full and have drained.
    fn resume_drained(&self) {
        let drained: Vec<_> = {
            let mut slots = self.consumer.context().slots();
            let drained = slots.iter_mut().filter_map(|slot| match slot.gate {
                Gate::Full(next) if slot.flow.has_drained() => {
                    Some((slot.tp.clone(), slot.epoch, next))
                }
                _ => None,
            });
            drained.collect()
        };
        for (tp, epoch, next) in drained {
            self.open(&tp, epoch, next);
        }
    }

    fn open(&self, tp: &TopicPartition, epoch: u64, next: NextOffset) {
        let mut target = TopicPartitionList::new();
        if target.add_partition_offset(&tp.topic, tp.partition, Offset::Offset(next.get())).is_err()
        {
            return;
        }
        // Resumed before it is sought: only a seek wakes the client's thread that fetches. After a
        // resume alone it may sleep on for up to a second when there is nothing else to fetch
        // (librdkafka 2.12). What would be fetched from elsewhere in between is outdated by the
        // seek.
        if let Err(error) = self.consumer.resume(&target) {
            tracing::warn!(%error, %tp, "resume");
        }
        let sought = self.consumer.seek_partitions(target, SEEK_TIMEOUT);
        let refused = match &sought {
            Ok(list) => list.elements().iter().any(|element| element.error().is_err()),
            Err(_) => true,
        };
        if refused {
            tracing::debug!(%tp, next = next.get(), ?sought, "seek refused; again");
            return self.pause(tp);
        }
        if let Some(slot) = self.consumer.context().slots().current(tp, epoch) {
            slot.opened(next);
        }
    }

    fn commit_due(&mut self) {
        let interval = Duration::from_millis(u64::from(self.options.kafka.commit_interval_ms));
        if self.last_commit.elapsed() < interval {
            return;
        }
        self.last_commit = Instant::now();
        let mut offsets = TopicPartitionList::new();
        for slot in self.consumer.context().slots().iter_mut() {
            if let Some(position) =
                slot.progress.get().filter(|p| slot.committed.as_ref() != Some(p))
            {
                add_commit(&mut offsets, &slot.tp, &position);
                slot.committed = Some(position);
            }
        }
        if offsets.count() > 0
            && let Err(error) = self.consumer.commit(&offsets, CommitMode::Async)
        {
            tracing::debug!(%error, "commit; repeated with the next one");
            for slot in self.consumer.context().slots().iter_mut() {
                slot.committed = None;
            }
        }
    }

    fn poll(&mut self) {
        let busy = self
            .consumer
            .context()
            .slots()
            .iter_mut()
            .any(|slot| matches!(slot.gate, Gate::Starting(_) | Gate::Full(_)));
        let mut timeout = if busy { BUSY_POLL } else { IDLE_POLL };
        let mut failure = None;
        let mut full = Vec::new();
        let began = Instant::now();
        let mut idle = true;
        for _ in 0..BURST {
            match self.consumer.poll(timeout) {
                Some(Ok(message)) => match dispatch(self.consumer.context(), &message) {
                    Dispatched::Pause(tp) => full.push(tp),
                    Dispatched::Full(room) => {
                        self.room = Some(room);
                        idle = false;
                        break;
                    }
                    Dispatched::Done => {}
                },
                Some(Err(error)) => {
                    failure = Some(error);
                    break;
                }
                None => break,
            }
            idle = false;
            timeout = Duration::ZERO;
        }
        // Waited in vain for the whole time: the client's queue was empty.
        let quiet = idle && failure.is_none() && began.elapsed() >= timeout;
        for slot in self.consumer.context().slots().iter_mut() {
            if !slot.hand_over() {
                full.push(slot.tp.clone());
            }
            if quiet {
                slot.quiet();
            }
        }
        for tp in full {
            self.pause(&tp);
        }
        if let Some(error) = failure {
            self.failed(error);
        }
    }

    fn failed(&mut self, error: KafkaError) {
        let code = error.rdkafka_error_code();
        let unsupported = matches!(
            code,
            Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature)
        );
        if unsupported
            && !self.fallen_back
            && self.options.kafka.group_protocol == GroupProtocol::Auto
        {
            return self.fall_back();
        }
        match (&error, code) {
            (KafkaError::MessageConsumptionFatal(_), _) => self.tell(SourceEvent::Fatal(error)),
            (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
                self.tell(SourceEvent::OutOfRange);
            }
            _ => tracing::warn!(%error, "kafka consumer"),
        }
    }

    /// The broker does not know KIP-848: the same consumer with the classic protocol.
    fn fall_back(&mut self) {
        tracing::info!("the broker has no KIP-848 groups; using the classic protocol");
        self.fallen_back = true;
        match create(&self.options, &self.status, &self.events, true) {
            Ok(consumer) => {
                self.consumer = consumer;
                self.join();
            }
            Err(error) => self.tell(SourceEvent::Fatal(error)),
        }
    }
}

/// What is to be done after a record.
enum Dispatched {
    Done,
    /// Its partition must be paused.
    Pause(TopicPartition),
    /// Its partition is full with it.
    Full(Room),
}

/// Puts a record into its partition's open chunk.
fn dispatch(context: &Arc<RebalanceContext>, message: &BorrowedMessage<'_>) -> Dispatched {
    let mut slots = context.slots();
    let Some(slot) = slots.get(message.topic(), message.partition()) else {
        return Dispatched::Done;
    };
    let offered = match slot.wants(message.offset()) {
        Offered::Taken => slot.take(copy(message)),
        other => other,
    };
    match offered {
        Offered::ChunkFull if !slot.hand_over() => Dispatched::Pause(slot.tp.clone()),
        Offered::PauseBefore => Dispatched::Pause(slot.tp.clone()),
        Offered::Taken | Offered::ChunkFull if slot.flow.is_full() => {
            Dispatched::Full(Room::new(slot, Instant::now()))
        }
        _ => Dispatched::Done,
    }
}

fn list(tp: &TopicPartition) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&tp.topic, tp.partition);
    list
}
