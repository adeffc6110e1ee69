//! Follows the control topic on a thread of its own, leader or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::control::ControlState;
use cdc_shared::kafka::consumer_config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::CoordinatorError;
use crate::kafka::{EndIsNoTrouble, is_transient};

const POLL: Duration = Duration::from_millis(100);
/// Longest time to reach the end of the topic.
const CATCH_UP: Duration = Duration::from_secs(30);

/// How reading goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReaderStatus {
    /// Whether the end was reached once since the start.
    pub complete: bool,
    /// What is wrong now.
    pub error: Option<String>,
}

/// The thread that reads.
pub struct Reader {
    state: watch::Receiver<Arc<ControlState>>,
    status: watch::Receiver<ReaderStatus>,
    requests: mpsc::Sender<oneshot::Sender<bool>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Follower {
    consumer: BaseConsumer<EndIsNoTrouble>,
    topic: String,
    state: ControlState,
    published: watch::Sender<Arc<ControlState>>,
    status: watch::Sender<ReaderStatus>,
    requests: mpsc::Receiver<oneshot::Sender<bool>>,
    waiting: Vec<oneshot::Sender<bool>>,
    /// Whether more was read than published.
    unpublished: bool,
    since: Instant,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Starts to read `topic`, which may appear later.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn start(kafka: &KafkaConfig, group: &str, topic: &str) -> Result<Self, CoordinatorError> {
        let settings = |error: &dyn std::fmt::Display| {
            CoordinatorError::KafkaSettings(format!("read the control topic: {error}"))
        };
        let consumer: BaseConsumer<EndIsNoTrouble> = consumer_config(kafka, group)
            .set("enable.partition.eof", "true")
            .set("topic.metadata.refresh.interval.ms", "2000")
            .create_with_context(EndIsNoTrouble)
            .map_err(|error| settings(&error))?;
        let (published, state) = watch::channel(Arc::default());
        let (status_out, status) = watch::channel(ReaderStatus::default());
        let (requests, requests_in) = mpsc::channel(4);
        let stop = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            consumer,
            topic: topic.to_owned(),
            state: ControlState::default(),
            published,
            status: status_out,
            requests: requests_in,
            waiting: Vec::new(),
            unpublished: false,
            since: Instant::now(),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("control-reader".to_owned())
            .spawn(move || follower.run())
            .map_err(|error| settings(&error))?;
        Ok(Self { state, status, requests, stop, thread: Some(thread) })
    }

    /// What was read, newest first served.
    pub fn state(&self) -> watch::Receiver<Arc<ControlState>> {
        self.state.clone()
    }

    /// How it goes.
    pub fn status(&self) -> watch::Receiver<ReaderStatus> {
        self.status.clone()
    }

    /// Reads to what is the end of the topic now. `false` when that takes too long.
    pub async fn catch_up(&self) -> bool {
        let (done, wait) = oneshot::channel();
        if self.requests.send(done).await.is_err() {
            return false;
        }
        matches!(tokio::time::timeout(CATCH_UP, wait).await, Ok(Ok(true)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Follower {
    fn run(mut self) {
        self.assign();
        while !self.stop.load(Ordering::Relaxed) {
            self.take_requests();
            // The message borrows the consumer, which is only ever used through `&self`.
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let (offset, key) = (message.offset(), message.key().unwrap_or_default());
                    let key = String::from_utf8_lossy(key).into_owned();
                    let value = message.payload().map(<[u8]>::to_vec);
                    drop(message);
                    self.apply(offset, &key, value.as_deref());
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.at_end(),
                Some(Err(error)) => self.trouble(&error),
                None => self.publish(),
            }
        }
    }

    /// A new assignment makes the client drop what it has fetched: the next end it tells is one
    /// that it meets from now on.
    fn assign(&mut self) {
        self.since = Instant::now();
        let mut list = TopicPartitionList::with_capacity(1);
        let from = match self.state.offset() {
            0 => Offset::Beginning,
            offset => Offset::Offset(offset),
        };
        let assigned = list
            .add_partition_offset(&self.topic, 0, from)
            .and_then(|()| self.consumer.assign(&list));
        if let Err(error) = assigned {
            self.trouble(&error);
        }
    }

    fn take_requests(&mut self) {
        let before = self.waiting.len();
        while let Ok(request) = self.requests.try_recv() {
            self.waiting.push(request);
        }
        if self.waiting.len() > before {
            self.assign();
        }
        if !self.waiting.is_empty() && self.since.elapsed() > CATCH_UP {
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(false);
            }
        }
    }

    fn apply(&mut self, offset: i64, key: &str, value: Option<&[u8]>) {
        if let Err(error) = self.state.apply(offset, key, value) {
            tracing::warn!(topic = self.topic, offset, key, %error,
                "control record not understood: written by a newer version?");
        }
        self.unpublished = true;
    }

    /// At the end of what is there, not with each record: a copy of the state costs as much as it
    /// is large, and one transaction may hold thousands of records.
    fn publish(&mut self) {
        // Nobody acts before the first end.
        if self.unpublished && self.status.borrow().complete {
            self.unpublished = false;
            self.published.send_replace(Arc::new(self.state.clone()));
        }
    }

    fn at_end(&mut self) {
        if !self.status.borrow().complete {
            self.unpublished = false;
            self.published.send_replace(Arc::new(self.state.clone()));
        }
        self.publish();
        self.set_status(ReaderStatus { complete: true, error: None });
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(true);
        }
    }

    fn trouble(&mut self, error: &KafkaError) {
        let unknown = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
        );
        let complete = self.status.borrow().complete;
        let news = self.set_status(ReaderStatus { complete, error: Some(error.to_string()) });
        if unknown || !is_transient(error) {
            if news {
                tracing::warn!(topic = self.topic, %error, "read the control topic");
            }
            std::thread::sleep(POLL);
            self.assign();
        }
    }

    /// Whether it is another than before.
    fn set_status(&mut self, status: ReaderStatus) -> bool {
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        })
    }
}
