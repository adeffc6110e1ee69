//! Records of some topics in the order they come, by a consumer that is only assigned.

use std::collections::HashMap;
use std::time::Duration;

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::consumer_config;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::{Offset, TopicPartitionList};

use super::From;
use crate::cli::{Exit, Failure};
use crate::deploy::broker::Broker;

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// First and last offset (exclusive) of partitions.
type Ends = HashMap<(String, i32), (i64, i64)>;

/// A reader of topics.
pub(crate) struct Reader {
    consumer: StreamConsumer,
    /// Where each partition ended when we began, less what was read.
    ahead: HashMap<(String, i32), i64>,
    address: String,
}

impl Reader {
    /// Assigns every partition of those topics that exist.
    pub(crate) async fn open(
        kafka: &KafkaConfig,
        topics: &[String],
        from: From,
    ) -> Result<Self, Failure> {
        let known = Broker::new(kafka)?.metadata().await?;
        let missing: Vec<&str> =
            topics.iter().filter(|topic| !known.contains_key(*topic)).map(String::as_str).collect();
        if !missing.is_empty() {
            let message =
                format!("Kafka at {} has no topic {}", kafka.bootstrap_servers, missing.join(", "));
            return Err(Failure::new(Exit::Data, message).hint("run deploy"));
        }
        let partitions: Vec<(String, i32)> = topics
            .iter()
            .flat_map(|topic| (0..known[topic]).map(move |partition| (topic.clone(), partition)))
            .collect();
        let failed = |error: &KafkaError| {
            Failure::unreachable("Kafka", &kafka.bootstrap_servers, &error.to_string())
        };
        let config = {
            // Never joined nor committed: librdkafka only wants it named.
            let mut config = consumer_config(kafka, "cdc-consume");
            config.set("enable.partition.eof", "false");
            config
        };
        let consumer: StreamConsumer = config.create().map_err(|e| failed(&e))?;
        let ends = {
            let probe: BaseConsumer = config.create().map_err(|e| failed(&e))?;
            tokio::task::spawn_blocking(move || ends(&probe, &partitions))
                .await
                .map_err(|e| Failure::new(Exit::Software, e.to_string()))?
                .map_err(|e| failed(&e))?
        };
        let mut list = TopicPartitionList::new();
        let mut ahead = HashMap::new();
        for ((topic, partition), (low, high)) in ends {
            let start = if from == From::Beginning { low } else { high };
            list.add_partition_offset(&topic, partition, Offset::Offset(start))
                .map_err(|e| failed(&e))?;
            if start < high {
                ahead.insert((topic, partition), high);
            }
        }
        consumer.assign(&list).map_err(|e| failed(&e))?;
        Ok(Self { consumer, ahead, address: kafka.bootstrap_servers.clone() })
    }

    /// Whether everything that was there at the beginning has been read. The position tells, not
    /// the last record: a transaction's marker is an offset without a record.
    pub(crate) fn at_end(&mut self) -> bool {
        if self.ahead.is_empty() {
            return true;
        }
        if let Ok(positions) = self.consumer.position() {
            for element in positions.elements() {
                let tp = (element.topic().to_owned(), element.partition());
                if let (Offset::Offset(at), Some(&end)) = (element.offset(), self.ahead.get(&tp))
                    && at >= end
                {
                    self.ahead.remove(&tp);
                }
            }
        }
        self.ahead.is_empty()
    }

    /// Leaves the rest of a partition unread.
    pub(crate) fn leave(&mut self, topic: &str, partition: i32) {
        self.ahead.remove(&(topic.to_owned(), partition));
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        if let Err(error) = self.consumer.pause(&list) {
            tracing::debug!(%error, topic, partition, "pause");
        }
    }

    /// The next record; `None` when none came for a moment.
    pub(crate) async fn next(&mut self) -> Result<Option<OwnedMessage>, Failure> {
        match tokio::time::timeout(Duration::from_millis(200), self.consumer.recv()).await {
            Err(_) => Ok(None),
            Ok(Ok(message)) => Ok(Some(message.detach())),
            Ok(Err(error)) => Err(Failure::unreachable("Kafka", &self.address, &error.to_string())),
        }
    }
}

fn ends(consumer: &BaseConsumer, partitions: &[(String, i32)]) -> Result<Ends, KafkaError> {
    partitions
        .iter()
        .map(|(topic, partition)| {
            let ends = consumer.fetch_watermarks(topic, *partition, TIMEOUT)?;
            Ok(((topic.clone(), *partition), ends))
        })
        .collect()
}
