//! Drives a writer as a partition task does, and checks on the way what must always be true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::WebhookConfig;
use cdc_shared::json::JsonOptions;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use cdc_worker::change::{Change, Operation};
use cdc_worker::sink::retry::{Trouble, TroubleReporter};
use cdc_worker::sink::webhook::WebhookSink;
use cdc_worker::sink::{PartitionWriter, Progress, Sink, SinkError};
use tokio::sync::watch;

use super::receiver::{Delivery, Receiver};

pub(crate) const TOPIC: &str = "cdc.public.customers";

static JSON: LazyLock<JsonOptions> = LazyLock::new(JsonOptions::default);

/// Waits short enough for tests.
pub(crate) const QUICK: RetryPolicy = RetryPolicy {
    max_attempts: 5,
    initial_wait: Duration::from_millis(5),
    max_wait: Duration::from_millis(20),
    multiplier: 2.0,
    jitter: true,
};

pub(crate) fn config(url: &str) -> WebhookConfig {
    WebhookConfig { url: url.to_owned(), timeout_seconds: 10.0, ..WebhookConfig::default() }
}

pub(crate) fn position(next: i64) -> Position {
    Position {
        next: NextOffset::new(next).unwrap(),
        incarnation: Incarnation::default(),
        topic_id: TopicId("Zm9vYmFyYmF6cXV4cXV1eA".into()),
        schemas: SchemaIds::default(),
    }
}

/// One partition's task, in small.
pub(crate) struct Driver {
    pub(crate) partition: i32,
    pub(crate) writer: Box<dyn PartitionWriter>,
    pub(crate) trouble: watch::Receiver<Trouble>,
    pub(crate) durable: i64,
    pub(crate) rejected: Vec<(i64, SinkError)>,
    pub(crate) stopped: Option<SinkError>,
    keys: BTreeMap<i64, String>,
    settled: BTreeSet<i64>,
    receiver: Receiver,
}

impl Driver {
    pub(crate) fn new(receiver: &Receiver) -> Self {
        let sink = WebhookSink::new(&config(&receiver.url())).unwrap();
        Self::on(&sink, receiver, 0, QUICK)
    }

    pub(crate) fn on(
        sink: &WebhookSink,
        receiver: &Receiver,
        partition: i32,
        policy: RetryPolicy,
    ) -> Self {
        Self::with(sink, receiver, partition, TroubleReporter::new(policy, false))
    }

    pub(crate) fn with(
        sink: &WebhookSink,
        receiver: &Receiver,
        partition: i32,
        (reporter, trouble): (TroubleReporter, watch::Receiver<Trouble>),
    ) -> Self {
        let writer = sink.writer(TopicPartition::new(TOPIC, partition), position(0), reporter);
        Self {
            partition,
            writer,
            trouble,
            durable: 0,
            rejected: Vec::new(),
            stopped: None,
            keys: BTreeMap::new(),
            settled: BTreeSet::new(),
            receiver: receiver.clone(),
        }
    }

    pub(crate) fn push(&mut self, offset: i64, key: &str) {
        self.keys.insert(offset, key.to_owned());
        self.writer.push(&change(offset, Some(key.as_bytes()), Operation::Create)).unwrap();
    }

    /// Checks against another receiver from here on.
    pub(crate) fn follow(&mut self, receiver: &Receiver) {
        self.receiver = receiver.clone();
    }

    /// Pushes `offsets`, going round over so many keys.
    pub(crate) fn push_all(&mut self, offsets: std::ops::Range<i64>, keys: i64) {
        for offset in offsets {
            self.push(offset, &format!("k{}", offset % keys));
        }
    }

    pub(crate) fn settle(&mut self, offset: i64) {
        self.settled.insert(offset);
        assert!(self.writer.settle(offset));
    }

    /// Goes on until `done`, which is asked again after everything that happens.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let mut changed = self.receiver.changed.subscribe();
        let mut trouble = self.trouble.clone();
        let deadline = tokio::time::sleep(Duration::from_secs(60));
        tokio::pin!(deadline);
        while !done(self) {
            tokio::select! {
                progress = self.writer.progress() => self.take(progress),
                _ = changed.changed() => {}
                _ = trouble.changed() => {}
                () = &mut deadline => panic!("not in time: {what}; durable {}", self.durable),
            }
        }
    }

    /// Until everything below `offset` is durable.
    pub(crate) async fn until_durable(&mut self, offset: i64) {
        self.until(&format!("durable {offset}"), |driver| driver.durable >= offset).await;
    }

    fn take(&mut self, progress: Progress) {
        match progress {
            Progress::Durable(next) => self.check_durable(next.get()),
            Progress::Rejected { offset, error } => self.rejected.push((offset.unwrap(), error)),
            Progress::Stop(error) => self.stopped = Some(error),
            other => panic!("{other:?}"),
        }
    }

    fn check_durable(&mut self, next: i64) {
        assert!(next > self.durable, "{next} after {}", self.durable);
        let acknowledged = self.receiver.acknowledged();
        for offset in self.keys.range(..next).map(|(offset, _)| *offset) {
            assert!(
                acknowledged.contains(&(self.partition, offset)) || self.settled.contains(&offset),
                "durable {next} without {offset}"
            );
        }
        self.durable = next;
    }

    /// Every attempt of an event is the same event, first attempts of a key are in offset order,
    /// and none begins before its predecessor was acknowledged.
    pub(crate) fn check_order(&self) {
        let mut first: BTreeMap<i64, Delivery> = BTreeMap::new();
        let mut last_of_key: BTreeMap<&str, i64> = BTreeMap::new();
        for delivery in self.receiver.deliveries() {
            if delivery.partition != self.partition {
                continue;
            }
            let offset = delivery.offset;
            if let Some(first) = first.get(&offset) {
                assert_eq!(delivery.header("webhook-id"), first.header("webhook-id"));
                assert_eq!(delivery.body, first.body);
                assert_eq!(last_of_key[self.keys[&offset].as_str()], offset, "{offset} again");
                continue;
            }
            let before = last_of_key.insert(&self.keys[&offset], offset);
            assert!(before.is_none_or(|before| before < offset), "{offset} after {before:?}");
            first.insert(offset, delivery);
        }
        let ids: BTreeSet<_> = first.values().map(|first| first.header("webhook-id")).collect();
        assert_eq!(ids.len(), first.len(), "an id for each event");
    }
}

/// A change without content.
pub(crate) fn change(offset: i64, key: Option<&[u8]>, operation: Operation) -> Change<'_> {
    Change {
        offset,
        timestamp_ms: 0,
        key_bytes: key,
        key_change: None,
        operation,
        key: None,
        envelope: None,
        json: &JSON,
    }
}
