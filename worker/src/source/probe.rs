//! Questions to Kafka beside the consumer: topic ids, the ends of the log, group S. It is never a
//! member of the group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka;
use cdc_shared::offset::{Position, TopicId, TopicPartition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::start_position::Committed;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a question has no answer (yet).
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Kafka cannot be asked.
    #[error("ask Kafka about {tp}: {reason}")]
    Kafka {
        /// About which partition.
        tp: TopicPartition,
        /// What came back.
        reason: String,
    },
    /// Kafka cannot be asked about a topic or a group.
    #[error("ask Kafka about {about}: {reason}")]
    About {
        /// Its name.
        about: String,
        /// What came back.
        reason: String,
    },
    /// The topic is not there.
    #[error("topic {0} does not exist")]
    NoTopic(Arc<str>),
}

/// What Kafka says about a partition.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// Id of the topic.
    pub topic_id: TopicId,
    /// First offset.
    pub low: i64,
    /// Last stable offset.
    pub high: i64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// What group S holds.
    pub committed: Committed,
}

/// A topic and the ends of its partitions, from 0.
#[derive(Clone, Debug)]
pub struct TopicEnds {
    /// Id of the topic.
    pub topic_id: TopicId,
    /// Last stable offset of each.
    pub high: Vec<i64>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Probe {
    consumer: Arc<BaseConsumer>,
}

impl Probe {
    /// A client that asks in the name of group S.
    ///
    /// # Errors
    /// When the client cannot be created from the configuration.
    pub fn new(kafka: &KafkaConfig, group: &str) -> Result<Self, KafkaError> {
        let consumer = kafka::consumer_config(kafka, group).create()?;
        Ok(Self { consumer: Arc::new(consumer) })
    }

    /// Everything the start position needs of Kafka.
    ///
    /// # Errors
    /// When Kafka does not answer, or the topic does not exist.
    pub async fn facts(&self, tp: &TopicPartition) -> Result<LogFacts, ProbeError> {
        let (probe, asked) = (self.clone(), tp.clone());
        tokio::task::spawn_blocking(move || probe.facts_blocking(&asked))
            .await
            .map_err(|error| ProbeError::Kafka { tp: tp.clone(), reason: error.to_string() })?
    }

    /// The ids of those of `topics` that exist; empty when Kafka does not answer.
    pub async fn topic_ids(&self, topics: Vec<Arc<str>>) -> HashMap<String, TopicId> {
        let probe = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            kafka::topic_ids(probe.consumer.client(), &names, TIMEOUT).unwrap_or_default()
        });
        asked.await.unwrap_or_default()
    }

    /// Whether a topic exists.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn exists(&self, topic: &str) -> Result<bool, ProbeError> {
        match self.blocking(topic, Self::id_blocking).await {
            Ok(_) => Ok(true),
            Err(ProbeError::NoTopic(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ends of a topic's partitions.
    ///
    /// # Errors
    /// When Kafka does not answer, or the topic does not exist.
    pub async fn ends(&self, topic: &str) -> Result<TopicEnds, ProbeError> {
        self.blocking(topic, Self::ends_blocking).await
    }

    /// Whether the group has live members. A broker lets nobody else commit for it, which holds for
    /// both group protocols: so what it holds for one of these topics is committed again. A group
    /// that has never committed anything is asked for its members.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn has_members(&self, group: &str, topics: &[String]) -> Result<bool, ProbeError> {
        let (probe, group, topics) = (self.clone(), group.to_owned(), topics.to_vec());
        let about = group.clone();
        let answer =
            tokio::task::spawn_blocking(move || probe.has_members_blocking(&group, &topics)).await;
        answer.unwrap_or_else(|error| Err(unanswered(&about, &error)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        about: &str,
        ask: fn(&Self, &str) -> Result<T, ProbeError>,
    ) -> Result<T, ProbeError> {
        let (probe, name) = (self.clone(), about.to_owned());
        let answer = tokio::task::spawn_blocking(move || ask(&probe, &name)).await;
        answer.unwrap_or_else(|error| Err(unanswered(about, &error)))
    }

    fn id_blocking(&self, topic: &str) -> Result<TopicId, ProbeError> {
        let mut ids = kafka::topic_ids(self.consumer.client(), &[topic], TIMEOUT)
            .map_err(|error| unanswered(topic, &error))?;
        ids.remove(topic).ok_or_else(|| ProbeError::NoTopic(topic.into()))
    }

    fn ends_blocking(&self, topic: &str) -> Result<TopicEnds, ProbeError> {
        let topic_id = self.id_blocking(topic)?;
        let failed = |error: KafkaError| unanswered(topic, &error);
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT).map_err(failed)?;
        let partitions: usize = metadata.topics().iter().map(|t| t.partitions().len()).sum();
        let high = (0..partitions as i32)
            .map(|partition| {
                let bounds = self.consumer.fetch_watermarks(topic, partition, TIMEOUT);
                bounds.map(|(_, high)| high).map_err(failed)
            })
            .collect::<Result<_, _>>()?;
        Ok(TopicEnds { topic_id, high })
    }

    fn has_members_blocking(&self, group: &str, topics: &[String]) -> Result<bool, ProbeError> {
        let failed = |error: KafkaError| unanswered(group, &error);
        let list = self.consumer.fetch_group_list(Some(group), TIMEOUT).map_err(failed)?;
        if list.groups().iter().any(|group| !group.members().is_empty()) {
            return Ok(true);
        }
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            let ends = match self.ends_blocking(topic) {
                Ok(ends) => ends,
                Err(ProbeError::NoTopic(_)) => continue,
                Err(error) => return Err(error),
            };
            asked.add_partition_range(topic, 0, ends.high.len() as i32 - 1);
        }
        let held = self.consumer.committed_offsets(asked, TIMEOUT).map_err(failed)?;
        let mut again = TopicPartitionList::new();
        for element in held.elements() {
            if let Offset::Offset(_) = element.offset() {
                let (topic, partition) = (element.topic(), element.partition());
                let mut copy = again.add_partition(topic, partition);
                copy.set_offset(element.offset()).map_err(failed)?;
                copy.set_metadata(element.metadata());
                break;
            }
        }
        if again.count() == 0 {
            return Ok(false);
        }
        match self.consumer.commit(&again, CommitMode::Sync) {
            Ok(()) => Ok(false),
            Err(error) if is_of_a_member(&error) => Ok(true),
            Err(error) => Err(failed(error)),
        }
    }

    fn facts_blocking(&self, tp: &TopicPartition) -> Result<LogFacts, ProbeError> {
        let failed = |reason: String| ProbeError::Kafka { tp: tp.clone(), reason };
        let mut ids = kafka::topic_ids(self.consumer.client(), &[&tp.topic], TIMEOUT)
            .map_err(|error| failed(error.to_string()))?;
        let topic_id =
            ids.remove(&*tp.topic).ok_or_else(|| ProbeError::NoTopic(tp.topic.clone()))?;
        let (low, high) = self
            .consumer
            .fetch_watermarks(&tp.topic, tp.partition, TIMEOUT)
            .map_err(|error| failed(error.to_string()))?;
        let metadata = self
            .consumer
            .fetch_metadata(Some(&tp.topic), TIMEOUT)
            .map_err(|error| failed(error.to_string()))?;
        let partitions: usize = metadata.topics().iter().map(|t| t.partitions().len()).sum();
        let partitions = partitions as i32;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&tp.topic, tp.partition);
        let answer = self
            .consumer
            .committed_offsets(asked, TIMEOUT)
            .map_err(|error| failed(error.to_string()))?;
        let element = answer.find_partition(&tp.topic, tp.partition);
        let committed = match element {
            Some(element) => {
                element.error().map_err(|error| failed(error.to_string()))?;
                read_commit(element.offset(), element.metadata())
            }
            None => Committed::Absent,
        };
        Ok(LogFacts { topic_id, low, high, partitions, committed })
    }
}

/// The broker's word for a group that has members, of whom we are none.
fn is_of_a_member(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::RebalanceInProgress
                | Code::StaleMemberEpoch
                | Code::UnreleasedInstanceId
        )
    )
}

fn unanswered(about: &str, error: &dyn std::fmt::Display) -> ProbeError {
    ProbeError::About { about: about.to_owned(), reason: error.to_string() }
}

fn read_commit(offset: Offset, metadata: &str) -> Committed {
    match offset {
        Offset::Offset(offset) => Position::from_commit(offset, metadata)
            .map_or(Committed::WithoutIdentity(offset), Committed::Present),
        _ => Committed::Absent,
    }
}
