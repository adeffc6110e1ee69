//! Which worker of the sink has all partitions: the one that Kafka gives the transaction topic's
//! only partition to, in a group of its own. The others stay outside group S until it is gone. It
//! is no lock: two that both believe they lead share S's partitions, and neither has all of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::consumer_config;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::status::SharedStatus;

/// How long a worker may be silent before another one is chosen. The group speaks the classic
/// protocol whatever the sink's group speaks: there each member sets this time itself.
const SESSION: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

struct Turns {
    leads: watch::Sender<bool>,
    status: SharedStatus,
}

impl ClientContext for Turns {}

impl ConsumerContext for Turns {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let keeps = match rebalance {
            Rebalance::Revoke(partitions) => partitions.count() == 0,
            Rebalance::Assign(_) => true,
            Rebalance::Error(_) => false,
        };
        if !keeps {
            self.leads.send_replace(false);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(partitions) = rebalance else { return };
        // A standby is in a group too.
        self.status.joined.store(true, Ordering::Relaxed);
        if partitions.count() > 0 {
            // Membership is all that is wanted; the sink's own consumer reads.
            let _ = consumer.pause(partitions);
            self.leads.send_replace(true);
        }
    }
}

/// Joins, on a thread of its own, until `stop`.
///
/// # Errors
/// When the client refuses its settings.
pub fn join(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    status: SharedStatus,
    stop: CancellationToken,
) -> Result<watch::Receiver<bool>, KafkaError> {
    let (leads, answer) = watch::channel(false);
    let millis = SESSION.as_millis().to_string();
    let consumer: BaseConsumer<Turns> = consumer_config(kafka, &format!("{group}.~whole"))
        .set("group.protocol", "classic")
        // Whoever leads goes on leading when another joins.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", &millis)
        .set("heartbeat.interval.ms", "2000")
        .set("max.poll.interval.ms", &millis)
        .set("auto.offset.reset", "latest")
        .set("topic.metadata.refresh.interval.ms", "5000")
        .create_with_context(Turns { leads, status })?;
    consumer.subscribe(&[topic])?;
    std::thread::Builder::new()
        .name("whole-leader".to_owned())
        .spawn(move || {
            while !stop.is_cancelled() {
                if let Some(Err(error)) = consumer.poll(POLL) {
                    tracing::debug!(%error, "group of the workers that could lead");
                }
            }
        })
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(answer)
}
