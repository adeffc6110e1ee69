//! Questions to Kafka beside the consumer: topic ids, the ends of the log, group S. It is never a
//! member of the group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka;
use cdc_shared::offset::{Position, TopicId, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
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
    /// What group S holds.
    pub committed: Committed,
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
        Ok(LogFacts { topic_id, low, high, committed })
    }
}

fn read_commit(offset: Offset, metadata: &str) -> Committed {
    match offset {
        Offset::Offset(offset) => Position::from_commit(offset, metadata)
            .map_or(Committed::WithoutIdentity(offset), Committed::Present),
        _ => Committed::Absent,
    }
}
