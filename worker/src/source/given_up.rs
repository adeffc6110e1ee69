//! Keys of the records that a sink gave up: rejected into the dead letter queue, or skipped by an
//! operator. Read once, without a group.

use std::time::{Duration, Instant};

use cdc_shared::config::{DlqConfig, KafkaConfig};
use cdc_shared::control::ControlState;
use cdc_shared::dlq::header as names;
use cdc_shared::kafka::consumer_config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::probe::ProbeError;

/// Longest wait for an answer, and for the next record.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);
/// Most keys that are gathered.
const MOST: usize = 100_000;

/// Records of one partition that an operator let the sink pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// First offset that is not skipped.
    pub to: i64,
}

impl Skipped {
    /// Every skip of a sink.
    pub fn of(control: &ControlState, sink: &str) -> Vec<Self> {
        control
            .skips(sink)
            .map(|(tp, from, to)| Self {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                from,
                to,
            })
            .collect()
    }
}

/// Where given-up records are looked for.
#[derive(Clone, Debug)]
pub struct GivenUp {
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The sink's group, as a name only.
    pub group: String,
    /// The dead letter queue.
    pub dlq: DlqConfig,
    /// The sink.
    pub sink_id: String,
    /// What operators let it pass.
    pub skipped: Vec<Skipped>,
}

impl GivenUp {
    /// The key's bytes of each given-up record of a topic.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn keys(&self, topic: &str) -> Result<Vec<Vec<u8>>, ProbeError> {
        let (asked, name) = (self.clone(), topic.to_owned());
        let answer = tokio::task::spawn_blocking(move || {
            asked.keys_blocking(&name).map_err(|error| unanswered(&name, &error))
        });
        answer.await.unwrap_or_else(|error| Err(unanswered(topic, &error)))
    }

    fn keys_blocking(&self, topic: &str) -> Result<Vec<Vec<u8>>, KafkaError> {
        let consumer: BaseConsumer = consumer_config(&self.kafka, &self.group)
            .set("enable.partition.eof", "true")
            .create()?;
        let mut keys = Vec::new();
        let letters = self.dlq.topic(topic);
        let metadata = consumer.fetch_metadata(Some(&letters), TIMEOUT)?;
        let found = metadata.topics().iter().filter(|topic| topic.error().is_none());
        for partition in 0..found.map(|topic| topic.partitions().len()).sum::<usize>() as i32 {
            let (low, high) = consumer.fetch_watermarks(&letters, partition, TIMEOUT)?;
            read(&consumer, (&letters, partition), (low, high), |letter| {
                if keys.len() < MOST
                    && header(letter, names::SINK) == Some(self.sink_id.as_bytes())
                    && header(letter, names::TOPIC) == Some(topic.as_bytes())
                {
                    keys.extend(letter.key().map(<[u8]>::to_vec));
                }
            })?;
        }
        for skip in self.skipped.iter().filter(|skip| skip.topic == topic) {
            let (low, high) = consumer.fetch_watermarks(topic, skip.partition, TIMEOUT)?;
            let range = (skip.from.max(low), skip.to.min(high));
            read(&consumer, (topic, skip.partition), range, |record| {
                if keys.len() < MOST {
                    keys.extend(record.key().map(<[u8]>::to_vec));
                }
            })?;
        }
        Ok(keys)
    }
}

/// Reads a range of offsets, the second exclusive.
fn read(
    consumer: &BaseConsumer,
    (topic, partition): (&str, i32),
    (from, to): (i64, i64),
    mut take: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), KafkaError> {
    if from >= to {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(from))?;
    consumer.assign(&list)?;
    let mut heard = Instant::now();
    while heard.elapsed() < TIMEOUT {
        match consumer.poll(POLL) {
            Some(Ok(record)) if record.offset() >= to => return Ok(()),
            Some(Ok(record)) => {
                take(&record);
                heard = Instant::now();
                if record.offset() + 1 >= to {
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut))
}

fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m [u8]> {
    message.headers()?.iter().find(|header| header.key == name)?.value
}

fn unanswered(about: &str, error: &dyn std::fmt::Display) -> ProbeError {
    ProbeError::About { about: about.to_owned(), reason: error.to_string() }
}
