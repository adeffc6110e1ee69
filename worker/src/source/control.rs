//! Follows the control topic: everything it says, as a value that is replaced with each change.
//!
//! One thread of its own with a consumer that only assigns: it is member of no group and commits
//! nothing, so it can neither disturb the sink's group nor be disturbed by it. It never gives up;
//! what it last read stays in force while Kafka is away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::control::{ControlState, control_topic};
use cdc_shared::kafka::{consumer_config, topic_ids};
use cdc_shared::offset::TopicId;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One turn of the loop: how soon a stop is seen.
const TURN: Duration = Duration::from_millis(100);
/// Longest wait for an answer about the topic.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before asking again for a topic that is not there.
const MISSING_PAUSE: Duration = Duration::from_secs(1);
/// How often the topic is checked to be the one that was read.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(5);
/// Records applied before the view is published at the latest.
const MAX_BURST: usize = 1000;

/// What the control topic says.
#[derive(Clone, Debug, Default)]
pub struct ControlView {
    /// Its live records. Empty until `complete`.
    pub state: Arc<ControlState>,
    /// The topic was read to its end once. Never goes back to false: a topic that disappears or is
    /// created again leaves the last state in force until the new one is read to its end.
    pub complete: bool,
}

/// Why the follower could not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The client's settings.
    #[error("kafka client for control topic {topic}: {cause}")]
    Client {
        /// The control topic.
        topic: String,
        /// What the client says.
        cause: KafkaError,
    },
    /// The system gives no thread.
    #[error("thread for the control topic: {0}")]
    Thread(#[from] std::io::Error),
}

/// Says what the client says, less the end of the partition, which we ask for and is no trouble.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::warn!(%error, reason, "kafka client of the control topic");
        }
    }
}

impl ConsumerContext for Quiet {}

/// Reads `{group_id}.control` on its own thread.
#[derive(Debug)]
pub struct ControlFollower;

impl ControlFollower {
    /// Starts reading from the topic's beginning. The thread ends with `stop`, or when every
    /// receiver is gone. `asking`: the group in whose name it asks, which is the sink's, because
    /// the broker is asked for the right to it.
    ///
    /// # Errors
    /// When the client cannot be made; a Kafka that cannot be reached is waited for.
    pub fn start(
        kafka: &KafkaConfig,
        group_id: &str,
        asking: &str,
        stop: CancellationToken,
    ) -> Result<watch::Receiver<ControlView>, ControlError> {
        let topic = control_topic(group_id);
        let config = client_settings(kafka, asking);
        let consumer = config
            .create_with_context(Quiet)
            .map_err(|cause| ControlError::Client { topic: topic.clone(), cause })?;
        let (view, reader) = watch::channel(ControlView::default());
        let reading = Reading { config, consumer, topic, view, stop, complaints: HashSet::new() };
        std::thread::Builder::new()
            .name("control-topic".to_owned())
            .spawn(move || reading.run())?;
        Ok(reader)
    }
}

fn client_settings(kafka: &KafkaConfig, asking: &str) -> ClientConfig {
    // librdkafka wants a group's name even of a consumer that only assigns.
    let mut config = consumer_config(kafka, asking);
    config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "4096");
    config
}

/// Why reading begins again.
enum Restart {
    /// The thread is to end.
    Stop,
    /// The topic must be found again.
    Topic(String),
    /// The client is beyond repair.
    Client(String),
}

struct Reading {
    config: ClientConfig,
    consumer: BaseConsumer<Quiet>,
    topic: String,
    view: watch::Sender<ControlView>,
    stop: CancellationToken,
    /// Troubles already told: each is said once until it is over.
    complaints: HashSet<String>,
}

impl Reading {
    fn run(mut self) {
        while !self.ended() {
            let Some(id) = self.find() else {
                self.pause(MISSING_PAUSE);
                continue;
            };
            let restart = self.follow(&id);
            // So that a pause can drain the client's events without meeting records.
            let _ = self.consumer.unassign();
            match restart {
                Restart::Stop => return,
                Restart::Topic(reason) => {
                    self.complain_once("restart", &format!("from its beginning again: {reason}"));
                    self.pause(MISSING_PAUSE);
                }
                Restart::Client(reason) => self.renew_client(&reason),
            }
        }
    }

    fn ended(&self) -> bool {
        self.stop.is_cancelled() || self.view.is_closed()
    }

    /// The id of the topic, once it exists.
    fn find(&mut self) -> Option<TopicId> {
        match topic_ids(self.consumer.client(), &[&self.topic], ASK_TIMEOUT) {
            Ok(mut ids) => {
                let id = ids.remove(&self.topic);
                if id.is_none() {
                    let reason = self.reason_for_absence();
                    self.complain_once("find", &format!("{reason}; `cdc deploy` creates it"));
                }
                id
            }
            Err(error) => {
                self.complain_once("find", &error.to_string());
                None
            }
        }
    }

    /// Absent and forbidden look alike in the list of ids; the metadata tells them apart.
    fn reason_for_absence(&self) -> String {
        let metadata = match self.consumer.fetch_metadata(Some(&self.topic), ASK_TIMEOUT) {
            Ok(metadata) => metadata,
            Err(error) => return error.to_string(),
        };
        let error = metadata.topics().first().and_then(rdkafka::metadata::MetadataTopic::error);
        error.map_or_else(
            || "the topic does not exist".to_owned(),
            |code| RDKafkaErrorCode::from(code).to_string(),
        )
    }

    /// Reads from the beginning and follows, until something makes that wrong.
    fn follow(&mut self, id: &TopicId) -> Restart {
        // With read_committed this is the last stable offset.
        let end = match self.consumer.fetch_watermarks(&self.topic, 0, ASK_TIMEOUT) {
            Ok((_, end)) => end,
            Err(error) => return Restart::Topic(error.to_string()),
        };
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(&self.topic, 0, Offset::Beginning)
            .and_then(|()| self.consumer.assign(&list));
        if let Err(error) = assigned {
            return Restart::Topic(error.to_string());
        }
        let mut progress = Progress { state: ControlState::default(), at_end: false, dirty: true };
        let mut checked = Instant::now();
        loop {
            if self.ended() {
                return Restart::Stop;
            }
            if let Err(restart) = self.turn(&mut progress, end) {
                return restart;
            }
            self.publish(&mut progress);
            if checked.elapsed() >= IDENTITY_INTERVAL {
                if let Some(reason) = self.changed(id) {
                    return Restart::Topic(reason);
                }
                checked = Instant::now();
            }
        }
    }

    /// Waits up to [`TURN`] for something, then takes all that is there.
    fn turn(&mut self, progress: &mut Progress, end: i64) -> Result<(), Restart> {
        let mut wait = TURN;
        for _ in 0..MAX_BURST {
            match self.consumer.poll(wait) {
                None => return Ok(()),
                Some(Ok(message)) => {
                    apply(&message, progress, &mut self.complaints);
                    wait = Duration::ZERO;
                }
                // Told when the position has reached the last stable offset, holes and all.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    if !progress.at_end {
                        progress.state.advance_to(end);
                        progress.at_end = true;
                        progress.dirty = true;
                        self.complaints.retain(|about| about.starts_with("key/"));
                        tracing::info!(topic = %self.topic, offset = progress.state.offset(),
                            "control topic read to its end");
                    }
                    return Ok(());
                }
                Some(Err(error)) => return self.judge(&error),
            }
        }
        Ok(())
    }

    fn judge(&mut self, error: &KafkaError) -> Result<(), Restart> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => Err(Restart::Client(error.to_string())),
            KafkaError::MessageConsumption(code) if is_about_the_log(*code) => {
                Err(Restart::Topic(error.to_string()))
            }
            // Transport trouble: librdkafka reconnects by itself.
            _ => {
                self.complain_once("read", &error.to_string());
                Ok(())
            }
        }
    }

    fn publish(&mut self, progress: &mut Progress) {
        if progress.at_end && std::mem::take(&mut progress.dirty) {
            let state = Arc::new(progress.state.clone());
            self.view.send_replace(ControlView { state, complete: true });
        }
    }

    /// Whether the topic is another than the one with this id. No answer is no change.
    fn changed(&mut self, id: &TopicId) -> Option<String> {
        let ids = topic_ids(self.consumer.client(), &[&self.topic], ASK_TIMEOUT).ok()?;
        // Kafka answers: the next trouble is news again.
        self.complaints.remove("read");
        match ids.get(&self.topic) {
            Some(found) if found == id => None,
            Some(found) => Some(format!("it was created again: id {found}, before {id}")),
            None => Some("it does not exist any more".to_owned()),
        }
    }

    fn renew_client(&mut self, reason: &str) {
        tracing::warn!(topic = %self.topic, reason, "kafka client is replaced");
        match self.config.create_with_context(Quiet) {
            Ok(consumer) => self.consumer = consumer,
            Err(error) => self.complain_once("client", &error.to_string()),
        }
        self.pause(MISSING_PAUSE);
    }

    fn complain_once(&mut self, about: &str, message: &str) {
        let (topic, kafka) = (&self.topic, self.config.get("bootstrap.servers"));
        if self.complaints.insert(about.to_owned()) {
            tracing::warn!(topic, kafka, "control topic cannot be read, trying on: {message}");
        } else {
            tracing::debug!(topic, kafka, "control topic cannot be read: {message}");
        }
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.ended() && Instant::now() < until {
            let _ = self.consumer.poll(TURN);
        }
    }
}

/// What was read since the last beginning.
struct Progress {
    state: ControlState,
    at_end: bool,
    dirty: bool,
}

fn apply(message: &BorrowedMessage<'_>, progress: &mut Progress, complaints: &mut HashSet<String>) {
    let key = String::from_utf8_lossy(message.key().unwrap_or_default());
    progress.dirty = true;
    match progress.state.apply(message.offset(), &key, message.payload()) {
        Ok(()) => {
            complaints.remove(&format!("key/{key}"));
        }
        Err(error) => {
            if complaints.insert(format!("key/{key}")) {
                tracing::warn!(topic = message.topic(), %key, offset = message.offset(), %error,
                    "control record cannot be read and has no effect; written by a newer version?");
            }
        }
    }
}

/// The log under the position is not the one that was read.
fn is_about_the_log(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AutoOffsetReset
            | Code::LogTruncation
            | Code::OffsetOutOfRange
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
    )
}
