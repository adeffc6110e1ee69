//! What the connectors of every kind of source have in common.

use cdc_shared::config::{PipelineConfig, SignalChannel};

use super::{GROUP_MARK, PIPELINE_MARK, Properties, connector_class, map, prefixed};
use crate::deploy::topics;

/// How long Connect's producer tries to write a record before the task fails, in milliseconds.
///
/// Connect's own default is "for ever"; a bound is what lets a consumer know that no older record
/// can still arrive (`DESIGN` §4, keys that move). Five minutes outlast a rolling restart of the
/// brokers.
pub(crate) const DELIVERY_TIMEOUT_MS: u32 = 300_000;

/// Bytes that Debezium may hold in its own queue.
const QUEUE_BYTES: u32 = 64 * 1024 * 1024;

/// Rows that an incremental snapshot reads at a time. Where the source is only read, a chunk ends
/// with the next change or heartbeat: on a quiet database Debezium's default of 1024 rows would be
/// about a hundred rows a second.
const SNAPSHOT_CHUNK: u32 = 10_240;

pub(super) fn properties(config: &PipelineConfig, kafka: &Properties) -> Properties {
    let source = &config.source;
    let mut properties = map([
        ("connector.class", connector_class(source.source_type)),
        ("tasks.max", "1"),
        ("topic.prefix", &config.topic_prefix),
        (PIPELINE_MARK, &config.pipeline_id),
        (GROUP_MARK, &config.group_id),
        ("database.hostname", &source.host),
        ("database.user", &source.username),
        ("database.password", source.password.expose()),
        ("snapshot.mode", source.snapshot_mode.name()),
        ("errors.tolerance", "none"),
    ]);
    properties.extend(semantics(config));
    properties.extend(rates(config));
    properties.extend(signals(config, kafka));
    properties.extend(topic_creation(config));
    properties.extend(producer(config));
    if config.needs_transactions() {
        properties.extend(map([("provide.transaction.metadata", "true")]));
    }
    if config.connector.exactly_once {
        properties.extend(map([("exactly.once.support", "required")]));
    }
    properties
}

/// Every change arrives, and with it the exact type of every column (`DESIGN` §6).
fn semantics(config: &PipelineConfig) -> Properties {
    map([
        ("table.include.list", &include_list(&config.source.tables)),
        ("skipped.operations", "none"),
        ("tombstones.on.delete", "true"),
        ("column.propagate.source.type", ".*"),
        ("decimal.handling.mode", "string"),
        ("binary.handling.mode", "bytes"),
        ("event.processing.failure.handling.mode", "fail"),
        ("event.converting.failure.handling.mode", "fail"),
        ("schema.name.adjustment.mode", "avro"),
        ("field.name.adjustment.mode", "avro"),
    ])
}

/// Latency and memory: Debezium's default looks for changes twice a second only, and its queue is
/// bounded by records, not bytes.
fn rates(config: &PipelineConfig) -> Properties {
    map([
        ("poll.interval.ms", &config.source.poll_interval_ms.to_string()),
        ("heartbeat.interval.ms", &config.source.heartbeat_interval_ms.to_string()),
        ("max.batch.size", "2048"),
        ("max.queue.size", "8192"),
        ("max.queue.size.in.bytes", &QUEUE_BYTES.to_string()),
    ])
}

/// The way for snapshot requests in, and for word of their progress out.
fn signals(config: &PipelineConfig, kafka: &Properties) -> Properties {
    let mut properties = match config.source.signal {
        SignalChannel::Off => return Properties::new(),
        SignalChannel::Source => map([("signal.enabled.channels", "source")]),
        SignalChannel::Kafka => kafka_signals(config, kafka),
    };
    if let Some(table) = &config.source.signal_table {
        properties.extend(map([("signal.data.collection", table)]));
    }
    properties.extend(map([
        ("incremental.snapshot.chunk.size", &SNAPSHOT_CHUNK.to_string()),
        ("notification.enabled.channels", "sink"),
        ("notification.sink.topic.name", &topics::notification_topic(&config.topic_prefix)),
    ]));
    properties
}

fn kafka_signals(config: &PipelineConfig, kafka: &Properties) -> Properties {
    let mut properties = map([
        ("signal.enabled.channels", "kafka"),
        ("signal.kafka.topic", &topics::signal_topic(&config.topic_prefix)),
        ("signal.kafka.groupId", &format!("{}.~signal", config.group_id)),
        ("signal.kafka.bootstrap.servers", bootstrap_servers(config)),
        // Incremental snapshots without a signalling table: watermarks come from the server's
        // transaction ids instead of rows that the connector writes.
        ("read.only", "true"),
    ]);
    properties.extend(prefixed("signal.consumer.", kafka));
    properties
}

/// Kafka as Connect's own clients reach it.
pub(super) fn bootstrap_servers(config: &PipelineConfig) -> &str {
    config.connector.bootstrap_servers.as_deref().unwrap_or(&config.kafka.bootstrap_servers)
}

/// Should the connector need a topic that `deploy` did not make (a heartbeat, a table that came
/// later), it gets the same shape.
fn topic_creation(config: &PipelineConfig) -> Properties {
    let topics = &config.kafka.topics;
    map([
        ("topic.creation.default.partitions", &topics.partitions.to_string()),
        ("topic.creation.default.replication.factor", &topics.replication_factor.to_string()),
        ("topic.creation.default.cleanup.policy", "delete"),
        ("topic.creation.default.retention.ms", &topics.retention_ms.to_string()),
        ("topic.creation.default.max.message.bytes", &config.kafka.max_message_bytes.to_string()),
    ])
}

fn producer(config: &PipelineConfig) -> Properties {
    let largest = config.kafka.max_message_bytes;
    map([
        ("producer.override.acks", "all"),
        ("producer.override.enable.idempotence", "true"),
        ("producer.override.max.in.flight.requests.per.connection", "5"),
        ("producer.override.compression.type", "lz4"),
        ("producer.override.delivery.timeout.ms", &DELIVERY_TIMEOUT_MS.to_string()),
        ("producer.override.max.request.size", &largest.to_string()),
        // The buffer must hold at least one request of the largest size.
        (
            "producer.override.buffer.memory",
            &(2 * u64::from(largest)).max(32 * 1024 * 1024).to_string(),
        ),
    ])
}

/// Debezium reads its list of tables as regular expressions, matched whole.
fn include_list(tables: &[String]) -> String {
    tables.iter().map(|table| table_pattern(table)).collect::<Vec<_>>().join(",")
}

/// The expression that matches one table and nothing else.
pub fn table_pattern(table: &str) -> String {
    let mut pattern = String::with_capacity(table.len() + 4);
    for c in table.chars() {
        if r"\.+*?()|[]{}^$,".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
