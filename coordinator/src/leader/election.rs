//! Membership in the coordinators' own group, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::consumer_config;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;

use crate::error::CoordinatorError;

/// How long a coordinator may be silent before another one is chosen.
///
/// The group speaks the classic protocol whatever the workers speak: there each member sets this
/// time itself, and a mix of versions cannot disagree about the protocol.
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// What the group says: `Some(true)` chosen, `Some(false)` not chosen, `None` ended.
type Verdict = Option<bool>;

struct Turns(watch::Sender<Verdict>);

impl ClientContext for Turns {}

impl ConsumerContext for Turns {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let lost = match rebalance {
            Rebalance::Revoke(partitions) => partitions.count() > 0,
            Rebalance::Assign(_) => false,
            Rebalance::Error(_) => true,
        };
        if lost {
            self.0.send_replace(Some(false));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && partitions.count() > 0
        {
            // Membership is all that is wanted; somebody else reads.
            let _ = consumer.pause(partitions);
            self.0.send_replace(Some(true));
        }
    }
}

/// A place in the election, given up when dropped.
pub struct Election {
    verdict: watch::Receiver<Verdict>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Election {
    /// Joins.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn join(kafka: &KafkaConfig, group: &str, topic: &str) -> Result<Self, CoordinatorError> {
        let settings = |error: &dyn std::fmt::Display| {
            CoordinatorError::KafkaSettings(format!("join group {group:?}: {error}"))
        };
        let (sender, verdict) = watch::channel(Some(false));
        let millis = ELECTION_TIMEOUT.as_millis().to_string();
        let consumer: BaseConsumer<Turns> = consumer_config(kafka, group)
            .set("group.protocol", "classic")
            // Whoever leads goes on leading when another joins.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", &millis)
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", &millis)
            .set("auto.offset.reset", "latest")
            .set("topic.metadata.refresh.interval.ms", "5000")
            .create_with_context(Turns(sender.clone()))
            .map_err(|error| settings(&error))?;
        consumer.subscribe(&[topic]).map_err(|error| settings(&error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("election".to_owned())
            .spawn(move || {
                poll(&consumer, &stopped);
                sender.send_replace(None);
            })
            .map_err(|error| settings(&error))?;
        Ok(Self { verdict, stop, thread: Some(thread) })
    }

    /// Waits until this process is chosen, or no longer is. `false` when the membership ended.
    pub async fn wait_for(&mut self, chosen: bool) -> bool {
        let found = self.verdict.wait_for(|verdict| *verdict == Some(chosen) || verdict.is_none());
        found.await.is_ok_and(|verdict| verdict.is_some())
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Polls until told to stop or until the client is of no more use.
fn poll(consumer: &BaseConsumer<Turns>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!(%error, "election of coordinators");
            let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_))
                || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
            if fatal || consumer.client().fatal_error().is_some() {
                tracing::warn!(%error, "the election of coordinators has to be joined anew");
                return;
            }
        }
    }
}
