//! Kafka of the stack: topics, records, offsets.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use cdc_shared::offset::TopicId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::stack::Stack;
use crate::wait;

const TIMEOUT: Duration = Duration::from_secs(20);

fn config() -> ClientConfig {
    config_at(Stack::get().kafka())
}

fn config_at(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config().create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

/// Kafka's ids of topics.
pub fn topic_ids(topics: &[&str]) -> HashMap<String, TopicId> {
    cdc_shared::kafka::topic_ids(reader().client(), topics, TIMEOUT).unwrap().into_iter().collect()
}

/// Creates a topic, waiting for the end of a namesake's deletion.
pub async fn create_topic(topic: &str, partitions: i32) {
    create_topic_at(Stack::get().kafka(), topic, partitions).await;
    wait_for_leaders(topic, partitions).await;
}

/// Creates a topic of other brokers.
pub async fn create_topic_at(brokers: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config_at(brokers).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    wait::until("the topic is created", wait::SOON, async || {
        let answer = admin.create_topics([&new], &options()).await.unwrap();
        answer.into_iter().next().unwrap().map_err(|(topic, code)| format!("{topic}: {code}"))
    })
    .await;
}

async fn wait_for_leaders(topic: &str, partitions: i32) {
    let consumer = reader();
    wait::until("every partition has a leader", wait::SOON, async || {
        for partition in 0..partitions {
            consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        }
        Ok::<_, KafkaError>(())
    })
    .await;
}

/// Deletes topics.
pub async fn delete_topics(topics: &[&str]) {
    admin().delete_topics(topics, &options()).await.unwrap();
}

/// Every topic whose name begins so.
pub fn topics_with(prefix: &str) -> Vec<String> {
    let metadata = reader().fetch_metadata(None, TIMEOUT).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Removes the records below an offset.
pub async fn delete_records_below(topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    admin().delete_records(&list, &options()).await.unwrap();
    let consumer = reader();
    wait::until("the log begins later", wait::SOON, async || {
        let (low, _) = consumer.fetch_watermarks(topic, partition, TIMEOUT).unwrap();
        wait::check(low == offset, low)
    })
    .await;
}

/// Deletes a consumer group, which must have no members.
pub async fn delete_group(group: &str) {
    wait::until("the group is deleted", wait::SOON, async || {
        let answer = admin().delete_groups(&[group], &options()).await.unwrap();
        match answer.into_iter().next().unwrap() {
            Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => Ok(()),
            Err((group, code)) => Err(format!("{group}: {code}")),
        }
    })
    .await;
}

fn reader() -> BaseConsumer {
    group_reader("e2e-reader")
}

fn group_reader(group: &str) -> BaseConsumer {
    config()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

/// What a group has committed on a partition.
pub fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let found = group_reader(group).committed_offsets(list, TIMEOUT).ok()?;
    match found.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// A consumer that has joined a group; it leaves when it is dropped.
pub async fn member(group: &str, topic: &str) -> BaseConsumer {
    let consumer = group_reader(group);
    consumer.subscribe(&[topic]).unwrap();
    wait::until("the consumer has joined", wait::SOON, async || {
        let _ = consumer.poll(Duration::from_millis(100));
        let assigned = consumer.assignment().unwrap().count();
        wait::check(assigned > 0, assigned)
    })
    .await;
    consumer
}

/// What a group has committed on each partition that it has committed anything on.
pub fn committed_all(group: &str, topic: &str, partitions: i32) -> Vec<(i32, i64)> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let Ok(found) = group_reader(group).committed_offsets(list, TIMEOUT) else {
        return Vec::new();
    };
    let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    let elements = found.elements();
    elements.iter().filter_map(|e| Some((e.partition(), offset(e.offset())?))).collect()
}

/// Commits for a group that has no members, as a consumer that assigns its partitions itself does.
pub fn commit(group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    group_reader(group).commit(&list, CommitMode::Sync).unwrap();
}

/// The assignment protocol that the members of a classic group agreed on; empty for a group of
/// another kind.
pub fn classic_protocol(group: &str) -> String {
    let list = reader().fetch_group_list(Some(group), TIMEOUT).unwrap();
    list.groups().first().map(|group| group.protocol().to_owned()).unwrap_or_default()
}

/// How many members a group of the classic protocol has, by the broker's word.
pub fn classic_members(group: &str) -> usize {
    let list = reader().fetch_group_list(Some(group), TIMEOUT).unwrap();
    list.groups().first().map_or(0, |group| group.members().len())
}

/// First offset and end of a partition.
pub fn bounds(topic: &str, partition: i32) -> (i64, i64) {
    reader().fetch_watermarks(topic, partition, TIMEOUT).unwrap()
}

/// Every committed record of a topic's partitions, from the log's beginning to its present end.
pub fn read_all(topic: &str, partitions: i32) -> Vec<OwnedMessage> {
    let consumer = reader();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut found, mut ended) = (Vec::new(), BTreeSet::new());
    let deadline = Instant::now() + wait::SOON;
    while ended.len() < partitions as usize {
        assert!(Instant::now() < deadline, "{topic} could not be read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.push(message.detach()),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(_)) | None => {}
        }
    }
    found
}

/// Partition and offset of every committed record of a topic.
pub fn events(topic: &str, partitions: i32) -> BTreeSet<(i32, i64)> {
    read_all(topic, partitions).iter().map(|m| (m.partition(), m.offset())).collect()
}

/// A header's text.
pub fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    String::from_utf8(found.value?.to_vec()).ok()
}

/// Produces raw records.
pub struct Producer(BaseProducer);

impl Default for Producer {
    fn default() -> Self {
        Self::at(Stack::get().kafka())
    }
}

impl Producer {
    /// Of other brokers.
    pub fn at(brokers: &str) -> Self {
        let mut config = config_at(brokers);
        config.set("enable.idempotence", "true").set("linger.ms", "2");
        config.set("message.max.bytes", "20000000");
        Self(config.create().unwrap())
    }

    /// Queues one record.
    pub fn send(&self, topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        record.key = key;
        record.payload = value;
        self.0.send(record).map_err(|(error, _)| error).unwrap();
        self.0.poll(Duration::ZERO);
    }

    /// Waits until everything queued is acknowledged.
    pub fn flush(&self) {
        self.0.flush(TIMEOUT).unwrap();
    }

    /// One record, acknowledged.
    pub fn put(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) {
        self.send(topic, partition, Some(key), Some(value));
        self.flush();
    }
}
