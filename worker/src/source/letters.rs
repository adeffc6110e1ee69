//! Dead letters that are sent again: read where they are, without a group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::dlq::header;
use cdc_shared::kafka::consumer_config;
use cdc_shared::task::LetterPlace;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::record::{self, Record};

/// Longest wait for the next record.
const SILENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Letters that lie further apart are sought instead of read over.
const NEAR: i64 = 500;

/// Reads letters.
#[derive(Clone, Debug)]
pub struct LetterReader {
    kafka: KafkaConfig,
    group: String,
}

impl LetterReader {
    /// `group` is only a name.
    pub fn new(kafka: &KafkaConfig, group: &str) -> Self {
        Self { kafka: kafka.clone(), group: group.to_owned() }
    }

    /// The records of these letters as they came from the source, with the source's offsets, by
    /// which they are found in the answer. A letter that is gone is missing.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn read(
        &self,
        topic: &str,
        letters: &[LetterPlace],
    ) -> Result<BTreeMap<i64, Record>, KafkaError> {
        let (this, topic, letters) = (self.clone(), topic.to_owned(), letters.to_vec());
        let read = tokio::task::spawn_blocking(move || this.read_blocking(&topic, &letters));
        read.await.unwrap_or_else(|error| Err(KafkaError::ClientCreation(error.to_string())))
    }

    fn read_blocking(
        &self,
        topic: &str,
        letters: &[LetterPlace],
    ) -> Result<BTreeMap<i64, Record>, KafkaError> {
        let consumer: BaseConsumer = consumer_config(&self.kafka, &self.group)
            .set("enable.partition.eof", "true")
            .create()?;
        let mut wanted: BTreeMap<i32, BTreeMap<i64, i64>> = BTreeMap::new();
        for &LetterPlace(offset, partition, at) in letters {
            wanted.entry(partition).or_default().insert(at, offset);
        }
        let mut found = BTreeMap::new();
        for (partition, letters) in wanted {
            read_partition(&consumer, topic, partition, letters, &mut found)?;
        }
        Ok(found)
    }
}

/// Reads the letters at the keys of `wanted`, whose values are their source offsets.
fn read_partition(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    mut wanted: BTreeMap<i64, i64>,
    found: &mut BTreeMap<i64, Record>,
) -> Result<(), KafkaError> {
    let assign = |from: i64| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(from))?;
        consumer.assign(&list)
    };
    let Some((&first, _)) = wanted.first_key_value() else { return Ok(()) };
    assign(first)?;
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let at = message.offset();
                if let Some(offset) = wanted.remove(&at) {
                    let letter = record::copy(&message).at(offset);
                    if is_of(&letter, offset) {
                        found.insert(offset, letter);
                    }
                }
                // Those that were passed are gone.
                wanted = wanted.split_off(&at);
                match wanted.first_key_value() {
                    None => return Ok(()),
                    Some((&next, _)) if next > at + NEAR => assign(next)?,
                    Some(_) => {}
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut))
}

/// Whether it is the letter of this offset, and not one of a topic that was made anew.
fn is_of(letter: &Record, offset: i64) -> bool {
    let last = letter.headers().iter().rev().find(|(name, _)| name == header::OFFSET);
    last.is_some_and(|(_, value)| value == offset.to_string().as_bytes())
}
