//! Writes the control topic in transactions that only one coordinator at a time can commit.

use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::producer_config;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};

use super::Change;

/// Longest time for a transaction as a whole.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another coordinator has taken over, by Kafka's word.
    #[error("another coordinator has taken over")]
    Fenced,
    /// Aborted; the next attempt may succeed.
    #[error("{0}")]
    Aborted(String),
    /// The producer cannot go on, or does not know what became of the transaction.
    #[error("{0}")]
    Fatal(String),
}

impl WriteError {
    /// Whether this producer is of no more use.
    pub fn ends_leadership(&self) -> bool {
        !matches!(self, Self::Aborted(_))
    }
}

/// The fenced producer of the leading coordinator. Its calls block.
pub struct Writer {
    producer: FutureProducer,
    topic: String,
}

impl Writer {
    /// Makes the producer and, by `init_transactions`, ends every other one of this pipeline:
    /// after it the topic holds no open transaction.
    ///
    /// # Errors
    /// When Kafka does not answer in time or refuses.
    pub fn take_over(kafka: &KafkaConfig, topic: &str) -> Result<Self, KafkaError> {
        let producer: FutureProducer = producer_config(kafka)
            .set("transactional.id", topic)
            .set("transaction.timeout.ms", "10000")
            .set("message.timeout.ms", "10000")
            .set("linger.ms", "0")
            .create()?;
        producer.init_transactions(TIMEOUT)?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Writes all changes or none. Returns the offset of the last one.
    ///
    /// # Errors
    /// See [`WriteError`]: only after [`WriteError::Aborted`] may the same producer go on.
    pub fn write(&self, changes: &[Change]) -> Result<i64, WriteError> {
        let deadline = Instant::now() + TIMEOUT;
        self.producer.begin_transaction().map_err(|error| classify(&error))?;
        let sent: Result<Vec<_>, _> = changes.iter().map(|change| self.send(change)).collect();
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.abort(&error)),
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.producer.commit_transaction(left) {
                Ok(()) => break,
                // The outcome is open: only asking again tells it.
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                    if Instant::now() >= deadline {
                        return Err(WriteError::Fatal(format!(
                            "no answer to the commit within {TIMEOUT:?}"
                        )));
                    }
                }
                Err(error) => return Err(self.abort(&error)),
            }
        }
        last_offset(sent)
    }

    fn send(&self, change: &Change) -> Result<DeliveryFuture, KafkaError> {
        let key = change.key();
        let value = match change {
            Change::Put(record) => Some(serde_json::to_vec(record).map_err(|error| {
                KafkaError::ClientCreation(format!("write {key} as JSON: {error}"))
            })?),
            Change::Remove(_) => None,
        };
        let mut record: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(&self.topic).key(key.as_str()).partition(0);
        record.payload = value.as_deref();
        self.producer.send_result(record).map_err(|(error, _)| error)
    }

    fn abort(&self, error: &KafkaError) -> WriteError {
        let found = classify(error);
        if found.ends_leadership() {
            return found;
        }
        match self.producer.abort_transaction(TIMEOUT) {
            Ok(()) => found,
            Err(error) => match classify(&error) {
                WriteError::Fenced => WriteError::Fenced,
                other => WriteError::Fatal(other.to_string()),
            },
        }
    }
}

fn classify(error: &KafkaError) -> WriteError {
    let fenced = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::TransactionCoordinatorFenced
        )
    );
    match error {
        _ if fenced => WriteError::Fenced,
        KafkaError::Transaction(inner) if inner.is_fatal() => WriteError::Fatal(error.to_string()),
        _ if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal)) => {
            WriteError::Fatal(error.to_string())
        }
        _ => WriteError::Aborted(error.to_string()),
    }
}

fn last_offset(sent: Vec<DeliveryFuture>) -> Result<i64, WriteError> {
    let mut last = -1;
    for delivery in sent {
        match futures::executor::block_on(delivery) {
            Ok(Ok(delivery)) => last = last.max(delivery.offset),
            Ok(Err((error, _))) => return Err(WriteError::Fatal(error.to_string())),
            Err(_) => return Err(WriteError::Fatal("the producer has ended".to_owned())),
        }
    }
    Ok(last)
}
