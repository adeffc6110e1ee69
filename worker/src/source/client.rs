//! The client of the one consumer: its settings.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use cdc_shared::kafka;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::consumer::SourceOptions;
use super::flow::Budget;
use super::rebalance::{RebalanceContext, SourceEvent};
use super::slots::Slots;
use crate::status::SharedStatus;

/// A client outside the group. `fallen_back`: the broker has refused the newer protocol.
pub(crate) fn create(
    options: &SourceOptions,
    status: &SharedStatus,
    events: &tokio::sync::mpsc::Sender<SourceEvent>,
    fallen_back: bool,
) -> Result<BaseConsumer<RebalanceContext>, KafkaError> {
    let context = RebalanceContext {
        slots: Mutex::new(Slots::default()),
        events: events.clone(),
        status: status.clone(),
        budget: Budget::new(options.max_bytes, status.clone()),
        max_records: options.max_records,
        grace: options.grace,
        epochs: AtomicU64::new(1),
    };
    let mut config = kafka::consumer_config(&options.kafka, &options.group);
    kafka::set_group_protocol(&mut config, options.kafka.group_protocol, fallen_back);
    let defaults = [
        // What the client prefetches is thrown away when a partition is paused, and lies before the
        // records of all others while a full one is waited for: keep it small.
        ("fetch.message.max.bytes", "524288".to_owned()),
        ("queued.min.messages", options.max_records.clamp(1000, 100_000).to_string()),
        ("queued.max.messages.kbytes", "8192".to_owned()),
        // A partition that is resumed waits for the fetch that is under way for the others, and
        // for the back-off it got when it was full: by default 1.5 s together, which made a sink
        // with the default buffer four times slower than it is.
        ("fetch.wait.max.ms", "20".to_owned()),
        ("fetch.queue.backoff.ms", "5".to_owned()),
        ("statistics.interval.ms", "1000".to_owned()),
    ];
    for (name, value) in defaults {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config.create_with_context(context)
}
