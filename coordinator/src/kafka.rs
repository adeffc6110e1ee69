//! Kafka as the coordinator sees it: offsets of groups, ends of logs, ids of topics.
//!
//! Every call blocks inside the client and therefore runs on a blocking thread. The client is
//! assign-only: it carries the name of the pipeline's group and never joins it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::control::control_topic;
use cdc_shared::kafka::{TopicIdError, consumer_config, topic_ids};
use cdc_shared::offset::{NextOffset, TopicId, TopicPartition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::error::CoordinatorError;

/// Longest time for one question.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Why Kafka gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum KafkaTrouble {
    /// The client or a broker refused.
    #[error("{what}: {cause}")]
    Request {
        /// What was asked.
        what: String,
        /// What came back.
        cause: KafkaError,
    },
    /// Topic ids could not be read.
    #[error(transparent)]
    TopicIds(#[from] TopicIdError),
    /// The group has a live member, so that nobody outside may commit for it.
    #[error("group {0:?} has a live member")]
    GroupInUse(String),
    /// Answered for another partition or in another shape than asked.
    #[error("{0}")]
    Answer(String),
}

/// What exists of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicFacts {
    /// Kafka's id.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
}

/// An offset that a group has committed, with what stands beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// First offset not yet consumed.
    pub next: NextOffset,
    /// Free text of whoever committed.
    pub metadata: String,
}

/// Committed offsets of some partitions; those without are missing.
pub type CommittedOffsets = BTreeMap<TopicPartition, Committed>;

/// How long what a client has said of itself counts: librdkafka says the same of a broker again only
/// after 30 s.
const RECENT: Duration = Duration::from_secs(40);

/// How long what a client has to say is waited for.
const DRAIN: Duration = Duration::from_millis(1);

/// Remembers what a client last said of its connections: a question that is not answered only says
/// that it took too long.
#[derive(Clone, Default)]
pub struct LastWord(Arc<Mutex<Option<(Instant, String)>>>);

impl ClientContext for LastWord {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        let mut word = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = word.as_ref().is_some_and(|(at, _)| at.elapsed() < RECENT);
        // What follows on the reason says none.
        let says_none = matches!(error, KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        if !(is_known && says_none) {
            *word = Some((Instant::now(), reason.to_owned()));
        }
    }
}

impl ConsumerContext for LastWord {}

/// Passes on what the client says, less the end of a partition, which we ask for.
pub struct EndIsNoTrouble;

impl ClientContext for EndIsNoTrouble {
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::warn!(%error, reason, "kafka client");
        }
    }
}

impl ConsumerContext for EndIsNoTrouble {}

/// Asks Kafka.
pub struct Cluster {
    config: KafkaConfig,
    group_id: String,
    groups: Mutex<HashMap<String, Arc<BaseConsumer<LastWord>>>>,
    word: LastWord,
}

impl Cluster {
    /// Prepares the clients; the pipeline's group gets its own at once.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn new(config: &KafkaConfig, group_id: &str) -> Result<Arc<Self>, CoordinatorError> {
        let cluster = Self {
            config: config.clone(),
            group_id: group_id.to_owned(),
            groups: Mutex::new(HashMap::new()),
            word: LastWord::default(),
        };
        cluster
            .client(group_id)
            .map_err(|error| CoordinatorError::KafkaSettings(error.to_string()))?;
        Ok(Arc::new(cluster))
    }

    /// What a client has lately said of its connections.
    pub fn last_word(&self) -> Option<String> {
        let word = self.word.0.lock().unwrap_or_else(PoisonError::into_inner);
        word.as_ref().filter(|(at, _)| at.elapsed() < RECENT).map(|(_, reason)| reason.clone())
    }

    fn client(&self, group: &str) -> Result<Arc<BaseConsumer<LastWord>>, KafkaTrouble> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = groups.get(group).map(Arc::clone) {
            drop(groups);
            // What it says of an unreachable broker queues up in a client that nobody polls. Asked
            // without any time, it stops behind the first line of its log.
            while client.poll(DRAIN).is_some() {}
            return Ok(client);
        }
        let client: BaseConsumer<LastWord> = consumer_config(&self.config, group)
            .create_with_context(self.word.clone())
            .map_err(|cause| KafkaTrouble::Request { what: "create a client".to_owned(), cause })?;
        let client = Arc::new(client);
        groups.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    fn own(&self) -> Result<Arc<BaseConsumer<LastWord>>, KafkaTrouble> {
        self.client(&self.group_id)
    }

    /// Number of brokers.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn brokers(&self) -> Result<usize, KafkaTrouble> {
        let metadata = self
            .own()?
            .fetch_metadata(Some(&control_topic(&self.group_id)), TIMEOUT)
            .map_err(|cause| request("ask the brokers", cause))?;
        Ok(metadata.brokers().len())
    }

    /// Those of `topics` that exist.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn topics(&self, topics: &[&str]) -> Result<BTreeMap<String, TopicFacts>, KafkaTrouble> {
        let client = self.own()?;
        let ids = topic_ids(client.client(), topics, TIMEOUT)?;
        let mut facts = BTreeMap::new();
        for (topic, id) in ids {
            let metadata = client
                .fetch_metadata(Some(&topic), TIMEOUT)
                .map_err(|cause| request(&format!("describe topic {topic}"), cause))?;
            let partitions = metadata
                .topics()
                .iter()
                .find(|found| found.name() == topic && found.error().is_none())
                .map_or(0, |found| found.partitions().len());
            facts.insert(topic, TopicFacts { id, partitions: partitions as i32 });
        }
        Ok(facts)
    }

    /// The end of what is committed in each log (its last stable offset).
    ///
    /// # Errors
    /// When a partition's end cannot be read.
    pub fn ends(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaTrouble> {
        self.list_offsets(partitions, Offset::End)
    }

    /// The first offset that each log still holds.
    ///
    /// # Errors
    /// When a partition's start cannot be read.
    pub fn starts(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaTrouble> {
        self.list_offsets(partitions, Offset::Beginning)
    }

    /// The first offset at or after a time, in Unix ms, of each partition that has one.
    ///
    /// # Errors
    /// When Kafka does not say it for every partition.
    pub fn at_time(
        &self,
        partitions: &[TopicPartition],
        ms: i64,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaTrouble> {
        let what = "look up offsets by time";
        let answer = self
            .own()?
            .offsets_for_times(list(partitions, Offset::Offset(ms.max(0))), TIMEOUT)
            .map_err(|cause| request(what, cause))?;
        let mut found = BTreeMap::new();
        for element in answer.elements() {
            element.error().map_err(|cause| request(what, cause))?;
            // Nothing is as young: the end.
            if let Offset::Offset(offset) = element.offset() {
                found.insert(TopicPartition::new(element.topic(), element.partition()), offset);
            }
        }
        Ok(found)
    }

    /// One question to each broker for all its partitions: the client hands the special offset
    /// on as the special time that Kafka knows for it.
    fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        which: Offset,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaTrouble> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let what = "list the offsets of the logs";
        let answer = self
            .own()?
            .offsets_for_times(list(partitions, which), TIMEOUT)
            .map_err(|cause| request(what, cause))?;
        let mut ends = BTreeMap::new();
        for element in answer.elements() {
            element.error().map_err(|cause| request(what, cause))?;
            let tp = TopicPartition::new(element.topic(), element.partition());
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                other => {
                    return Err(KafkaTrouble::Answer(format!("end of {tp}: {other:?}")));
                }
            };
            ends.insert(tp, offset);
        }
        Ok(ends)
    }

    /// What `group` has committed.
    ///
    /// # Errors
    /// When it cannot be read for every partition asked: unreadable is not absent.
    pub fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<CommittedOffsets, KafkaTrouble> {
        if partitions.is_empty() {
            return Ok(CommittedOffsets::new());
        }
        let what = format!("read the offsets of group {group:?}");
        let answer = self
            .client(group)?
            .committed_offsets(list(partitions, Offset::Invalid), TIMEOUT)
            .map_err(|cause| request(&what, cause))?;
        let mut committed = CommittedOffsets::new();
        for element in answer.elements() {
            element.error().map_err(|cause| request(&what, cause))?;
            if let Offset::Offset(offset) = element.offset()
                && let Some(next) = NextOffset::new(offset)
            {
                let tp = TopicPartition::new(element.topic(), element.partition());
                let metadata = element.metadata().to_owned();
                committed.insert(tp, Committed { next, metadata });
            }
        }
        Ok(committed)
    }

    /// Commits for `group`, which must have no live member.
    ///
    /// # Errors
    /// [`KafkaTrouble::GroupInUse`] when it has one; otherwise what Kafka answered.
    pub fn commit(&self, group: &str, offsets: &CommittedOffsets) -> Result<(), KafkaTrouble> {
        if offsets.is_empty() {
            return Ok(());
        }
        let what = format!("commit the offsets of group {group:?}");
        let mut wanted = TopicPartitionList::with_capacity(offsets.len());
        for (tp, committed) in offsets {
            let mut element = wanted.add_partition(&tp.topic, tp.partition);
            element
                .set_offset(Offset::Offset(committed.next.get()))
                .map_err(|cause| request(&what, cause))?;
            element.set_metadata(&committed.metadata);
        }
        self.client(group)?.commit(&wanted, CommitMode::Sync).map_err(|cause| {
            match cause.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::StaleMemberEpoch,
                ) => KafkaTrouble::GroupInUse(group.to_owned()),
                _ => request(&what, cause),
            }
        })
    }

    /// Live members of `group`, as `client at host`, as far as the broker tells them.
    pub fn members(&self, group: &str) -> Vec<String> {
        let Ok(client) = self.own() else { return Vec::new() };
        let Ok(list) = client.fetch_group_list(Some(group), TIMEOUT) else { return Vec::new() };
        list.groups()
            .iter()
            .flat_map(rdkafka::groups::GroupInfo::members)
            .map(|member| format!("{} at {}", member.client_id(), member.client_host()))
            .collect()
    }

    /// See [`first_record`].
    ///
    /// # Errors
    /// When the log cannot be read there.
    pub fn next_record(
        &self,
        tp: &TopicPartition,
        from: i64,
        timeout: Duration,
    ) -> Result<Option<OwnedMessage>, KafkaTrouble> {
        first_record(&self.config, &self.group_id, tp, from, timeout)
    }
}

/// The first record at or after `from`, or `None` when the log holds none. Blocks. `group` is only a
/// name.
///
/// # Errors
/// When the log cannot be read there.
pub fn first_record(
    config: &KafkaConfig,
    group: &str,
    tp: &TopicPartition,
    from: i64,
    timeout: Duration,
) -> Result<Option<OwnedMessage>, KafkaTrouble> {
    let what = format!("read {tp} at {from}");
    let client: BaseConsumer<EndIsNoTrouble> = consumer_config(config, group)
        .set("enable.partition.eof", "true")
        .set("fetch.message.max.bytes", "65536")
        .create_with_context(EndIsNoTrouble)
        .map_err(|cause| request(&what, cause))?;
    let mut assignment = TopicPartitionList::with_capacity(1);
    assignment
        .add_partition_offset(&tp.topic, tp.partition, Offset::Offset(from))
        .and_then(|()| client.assign(&assignment))
        .map_err(|cause| request(&what, cause))?;
    let deadline = std::time::Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(KafkaTrouble::Answer(format!("{what}: no answer in {timeout:?}")));
        }
        match client.poll(left) {
            Some(Ok(message)) => return Ok(Some(message.detach())),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(cause)) if is_transient(&cause) => {}
            Some(Err(cause)) => return Err(request(&what, cause)),
            None => {}
        }
    }
}

/// Whether the client itself goes on trying.
pub fn is_transient(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::RequestTimedOut
        )
    )
}

fn request(what: &str, cause: KafkaError) -> KafkaTrouble {
    KafkaTrouble::Request { what: what.to_owned(), cause }
}

fn list(partitions: &[TopicPartition], offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for tp in partitions {
        // Only an offset below -2000 is refused, and this one is one of the client's own names.
        let _ = list.add_partition_offset(&tp.topic, tp.partition, offset);
    }
    list
}

/// Runs a blocking question on a thread for such.
///
/// # Errors
/// What the question answers; a panic in it becomes an error too.
pub async fn ask<T, F>(cluster: &Arc<Cluster>, question: F) -> Result<T, KafkaTrouble>
where
    T: Send + 'static,
    F: FnOnce(&Cluster) -> Result<T, KafkaTrouble> + Send + 'static,
{
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || question(&cluster))
        .await
        .unwrap_or_else(|error| Err(KafkaTrouble::Answer(error.to_string())))
}
