//! Reads the dead letter topics into the index, each time as far as they have grown. No group is
//! joined. Its calls block.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::consumer_config;
use cdc_shared::offset::{TopicId, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};

use super::index::{Index, Raw};
use crate::kafka::{Cluster, EndIsNoTrouble, KafkaTrouble, first_record, is_transient};

const POLL: Duration = Duration::from_millis(200);
/// Longest wait for the next record.
const SILENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Follower {
    kafka: KafkaConfig,
    group: String,
    /// First offset that was not read yet, and the first that there was.
    places: HashMap<TopicPartition, (i64, i64)>,
    ids: HashMap<String, TopicId>,
}

impl Follower {
    /// One that has read nothing. `group` is only a name.
    pub(super) fn new(kafka: &KafkaConfig, group: &str) -> Self {
        let (kafka, group) = (kafka.clone(), group.to_owned());
        Self { kafka, group, places: HashMap::new(), ids: HashMap::new() }
    }

    /// Reads what `topics` have beyond what was read.
    ///
    /// # Errors
    /// When Kafka cannot be read; what was read until then stays.
    pub(super) fn catch_up(
        &mut self,
        cluster: &Cluster,
        topics: &[String],
        index: &RwLock<Index>,
    ) -> Result<(), KafkaTrouble> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let found = cluster.topics(&names)?;
        let gone = topics.iter().filter(|topic| !found.contains_key(*topic));
        let renewed = found.iter().filter_map(|(topic, facts)| {
            let known = self.ids.insert(topic.clone(), facts.id.clone());
            known.is_some_and(|known| known != facts.id).then_some(topic)
        });
        let stale: Vec<String> = renewed.chain(gone).cloned().collect();
        for topic in stale {
            self.places.retain(|tp, _| *tp.topic != *topic);
            locked(index).forget_topic(&topic);
        }
        let partitions: Vec<TopicPartition> = found
            .iter()
            .flat_map(|(topic, facts)| {
                (0..facts.partitions).map(move |p| TopicPartition::new(topic.as_str(), p))
            })
            .collect();
        let (starts, ends) = (cluster.starts(&partitions)?, cluster.ends(&partitions)?);
        let mut ahead = BTreeMap::new();
        for tp in partitions {
            let (Some(&low), Some(&end)) = (starts.get(&tp), ends.get(&tp)) else { continue };
            let (next, first) = self.places.entry(tp.clone()).or_insert((low, low));
            if low > *first {
                *first = low;
                locked(index).forget_below(&tp.topic, tp.partition, low);
            }
            *next = low.max(*next);
            if *next < end {
                ahead.insert(tp, (*next, end));
            }
        }
        if ahead.is_empty() { Ok(()) } else { self.read(ahead, index) }
    }

    fn read(
        &mut self,
        mut ahead: BTreeMap<TopicPartition, (i64, i64)>,
        index: &RwLock<Index>,
    ) -> Result<(), KafkaTrouble> {
        let consumer = consumer(&self.kafka, &self.group)?;
        assign(&consumer, ahead.iter().map(|(tp, (from, _))| (tp, *from)))?;
        let mut heard = Instant::now();
        while !ahead.is_empty() {
            match consumer.poll(POLL) {
                Some(Ok(record)) => {
                    heard = Instant::now();
                    let tp = TopicPartition::new(record.topic(), record.partition());
                    let next = record.offset() + 1;
                    let Some((_, end)) = ahead.get(&tp) else { continue };
                    take(&record, &tp.topic, index);
                    if next >= *end {
                        ahead.remove(&tp);
                    }
                    self.reached(&tp, next);
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {
                    // The position tells, not the last record: a transaction's marker is an offset
                    // without a record.
                    self.look_at_position(&consumer, &mut ahead);
                    if heard.elapsed() > SILENCE {
                        let left = ahead.keys().next().map(ToString::to_string).unwrap_or_default();
                        let what = format!("read {left}: no record within {SILENCE:?}");
                        return Err(KafkaTrouble::Answer(what));
                    }
                }
                Some(Err(error)) if is_transient(&error) => {}
                Some(Err(cause)) => return Err(request("read dead letters", cause)),
            }
        }
        Ok(())
    }

    fn look_at_position(
        &mut self,
        consumer: &BaseConsumer<EndIsNoTrouble>,
        ahead: &mut BTreeMap<TopicPartition, (i64, i64)>,
    ) {
        let Ok(positions) = consumer.position() else { return };
        for element in positions.elements() {
            let tp = TopicPartition::new(element.topic(), element.partition());
            if let (Offset::Offset(at), Some((_, end))) = (element.offset(), ahead.get(&tp))
                && at >= *end
            {
                ahead.remove(&tp);
                self.reached(&tp, at);
            }
        }
    }

    fn reached(&mut self, tp: &TopicPartition, at: i64) {
        if let Some((next, _)) = self.places.get_mut(tp) {
            *next = at.max(*next);
        }
    }
}

fn locked(index: &RwLock<Index>) -> std::sync::RwLockWriteGuard<'_, Index> {
    index.write().unwrap_or_else(PoisonError::into_inner)
}

fn take(record: &BorrowedMessage<'_>, topic: &Arc<str>, index: &RwLock<Index>) {
    let headers: Vec<(&str, &[u8])> = record
        .headers()
        .into_iter()
        .flat_map(Headers::iter)
        .map(|header| (header.key, header.value.unwrap_or_default()))
        .collect();
    let raw = Raw {
        headers: &headers,
        key: record.key(),
        timestamp_ms: record.timestamp().to_millis().unwrap_or_default(),
        partition: record.partition(),
        offset: record.offset(),
    };
    locked(index).add(topic, &raw);
}

fn consumer(
    kafka: &KafkaConfig,
    group: &str,
) -> Result<BaseConsumer<EndIsNoTrouble>, KafkaTrouble> {
    consumer_config(kafka, group)
        .set("enable.partition.eof", "true")
        .create_with_context(EndIsNoTrouble)
        .map_err(|cause| request("create a client", cause))
}

fn assign<'t>(
    consumer: &BaseConsumer<EndIsNoTrouble>,
    from: impl Iterator<Item = (&'t TopicPartition, i64)>,
) -> Result<(), KafkaTrouble> {
    let mut list = TopicPartitionList::new();
    for (tp, offset) in from {
        list.add_partition_offset(&tp.topic, tp.partition, Offset::Offset(offset))
            .map_err(|cause| request(&format!("read {tp} at {offset}"), cause))?;
    }
    consumer.assign(&list).map_err(|cause| request("read dead letters", cause))
}

fn request(what: &str, cause: KafkaError) -> KafkaTrouble {
    KafkaTrouble::Request { what: what.to_owned(), cause }
}

/// The record at an offset; `None` when it is not there any more.
///
/// # Errors
/// When Kafka cannot be read.
pub(super) fn read_one(
    kafka: &KafkaConfig,
    group: &str,
    tp: &TopicPartition,
    offset: i64,
) -> Result<Option<OwnedMessage>, KafkaTrouble> {
    let found = first_record(kafka, group, tp, offset, SILENCE)?;
    Ok(found.filter(|record| record.offset() == offset))
}
