//! The dead letter queue of a source topic: the record as it came, with the reason in headers.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{DlqConfig, KafkaConfig};
use cdc_shared::dlq::header;
use cdc_shared::kafka::{producer_config, topic_ids};
use cdc_shared::offset::{TopicId, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::source::record::Record;

/// Longest wait for an answer about the topic.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for room in the client's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// After this the client gives a letter back and we say so; it is then sent again.
const DELIVERY_TIMEOUT_MS: &str = "30000";
/// Longest text in one header, in bytes: the letter must not outgrow the topic's limit by it.
const MAX_TEXT: usize = 8 * 1024;

/// A record that the sink can never take.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Where it came from.
    pub tp: &'a TopicPartition,
    /// The topic its offset counts in.
    pub topic_id: &'a TopicId,
    /// The record as it came.
    pub record: &'a Record,
    /// Registry id in the value's framing, when there is one.
    pub schema_id: Option<i32>,
    /// Stable code of the rejection.
    pub error_type: &'a str,
    /// What was wrong; never row data.
    pub error_message: &'a str,
    /// The causes beneath the message, outermost first.
    pub cause: Option<&'a (dyn Error + Send + Sync + 'static)>,
    /// How often it was tried.
    pub attempts: u32,
}

/// The dead letter queue cannot take letters until somebody acts: the partition holds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}; {way_out}")]
pub struct DlqUnavailable {
    /// Stable code: `dlq_disabled`, `dlq_topic_missing`, `dlq_not_authorized`,
    /// `dlq_record_too_large`, `dlq_refused`, `dlq_client`.
    pub code: &'static str,
    /// What is wrong, with the topic's name.
    pub message: String,
    /// What ends it.
    pub way_out: String,
}

/// Sends dead letters of one sink. The Kafka client is made with the first letter.
pub struct Dlq {
    client: ClientConfig,
    config: DlqConfig,
    sink_id: String,
    retry: RetryPolicy,
    producer: Mutex<Option<FutureProducer>>,
    /// Topics that were seen to exist.
    known: Mutex<HashSet<String>>,
}

enum Failed {
    ForGood(DlqUnavailable),
    ForNow(String),
}

impl Dlq {
    /// A queue that has not connected yet. `retry` gives the waits between attempts.
    pub fn new(kafka: &KafkaConfig, dlq: &DlqConfig, sink_id: &str, retry: RetryPolicy) -> Self {
        let mut client = producer_config(kafka);
        client
            .set("allow.auto.create.topics", "false")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MS)
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("linger.ms", "0");
        Self {
            client,
            config: dlq.clone(),
            sink_id: sink_id.to_owned(),
            retry,
            producer: Mutex::new(None),
            known: Mutex::new(HashSet::new()),
        }
    }

    /// Sends a letter and returns once all in-sync replicas have it. Trouble that passes is waited
    /// out, for as long as it takes; dropping the future ends that, and the letter may then arrive
    /// all the same (letters are at least once, told apart by topic id, partition and offset).
    ///
    /// # Errors
    /// When only a person can mend it; the caller holds the partition.
    pub async fn send(&self, letter: DeadLetter<'_>) -> Result<(), DlqUnavailable> {
        let topic = self.config.topic(&letter.tp.topic);
        if !self.config.enabled {
            return Err(DlqUnavailable {
                code: "dlq_disabled",
                message: format!("dlq.enabled is false, so {topic} takes no record"),
                way_out: "set dlq.enabled, or skip the record".to_owned(),
            });
        }
        let headers = self.headers(&letter);
        let mut failures = 0_u32;
        loop {
            let message = match self.attempt(&topic, letter.record, headers.clone()).await {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(unavailable)) => return Err(unavailable),
                Err(Failed::ForNow(message)) => message,
            };
            failures = failures.saturating_add(1);
            let delay = self.retry.delay(failures, fastrand::f64());
            tracing::warn!(topic, source = %letter.tp, offset = letter.record.offset, failures,
                ?delay, "dead letter not acknowledged, trying on: {message}");
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt(
        &self,
        topic: &str,
        record: &Record,
        headers: OwnedHeaders,
    ) -> Result<(), Failed> {
        let producer = self.producer(topic)?;
        if !locked(&self.known).contains(topic) {
            find(&producer, topic).await?;
            locked(&self.known).insert(topic.to_owned());
        }
        let mut letter = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        letter.key = record.key();
        letter.payload = record.value();
        match producer.send(letter, QUEUE_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                locked(&self.known).remove(topic);
                if producer.client().fatal_error().is_some() {
                    // An idempotent client that lost its place takes nothing any more.
                    locked(&self.producer).take();
                    return Err(Failed::ForNow(error.to_string()));
                }
                Err(judge(topic, &error))
            }
        }
    }

    fn producer(&self, topic: &str) -> Result<FutureProducer, Failed> {
        let mut slot = locked(&self.producer);
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = self.client.create().map_err(|error| {
            Failed::ForGood(DlqUnavailable {
                code: "dlq_client",
                message: format!("kafka client for {topic}: {error}"),
                way_out: "correct the kafka section of the configuration".to_owned(),
            })
        })?;
        *slot = Some(producer.clone());
        Ok(producer)
    }

    /// The record's own headers first, ours after them: a reader that takes the last of a name
    /// gets ours.
    fn headers(&self, letter: &DeadLetter<'_>) -> OwnedHeaders {
        let ours = self.own_headers(letter);
        let theirs = letter.record.headers();
        let mut headers = OwnedHeaders::new_with_capacity(theirs.len() + ours.len());
        for (key, value) in theirs {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        for (key, value) in &ours {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers
    }

    fn own_headers(&self, letter: &DeadLetter<'_>) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (header::TOPIC, letter.tp.topic.to_string()),
            (header::PARTITION, letter.tp.partition.to_string()),
            (header::OFFSET, letter.record.offset.to_string()),
            (header::TOPIC_ID, letter.topic_id.to_string()),
            (header::SINK, self.sink_id.clone()),
            (header::ERROR_TYPE, letter.error_type.to_owned()),
            (header::ERROR_MESSAGE, cut(letter.error_message.to_owned())),
            (header::TIMESTAMP, jiff::Timestamp::now().to_string()),
            (header::ATTEMPTS, letter.attempts.to_string()),
        ];
        if let Some(id) = letter.schema_id {
            headers.push((header::SCHEMA_ID, id.to_string()));
        }
        if self.config.include_stacktrace {
            headers.push((header::STACKTRACE, cut(chain(letter.error_message, letter.cause))));
        }
        headers
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each value behind these locks is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message and its causes, one a line.
fn chain(message: &str, cause: Option<&(dyn Error + Send + Sync + 'static)>) -> String {
    let mut text = message.to_owned();
    let mut cause = cause.map(|cause| cause as &dyn Error);
    while let Some(error) = cause {
        let _ = write!(text, "\ncaused by: {error}");
        cause = error.source();
    }
    text
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Makes sure that the topic exists, in a way that cannot create it.
async fn find(producer: &FutureProducer, topic: &str) -> Result<(), Failed> {
    let (producer, name) = (producer.clone(), topic.to_owned());
    let found = tokio::task::spawn_blocking(move || {
        let ids = topic_ids(producer.client(), &[&name], ASK_TIMEOUT).map_err(|e| e.to_string())?;
        if ids.contains_key(&name) {
            return Ok(None);
        }
        // Absent and forbidden look alike in the list of ids; the metadata tells them apart.
        let metadata = producer
            .client()
            .fetch_metadata(Some(&name), ASK_TIMEOUT)
            .map_err(|error| error.to_string())?;
        let error = metadata.topics().first().and_then(rdkafka::metadata::MetadataTopic::error);
        Ok(error.map(RDKafkaErrorCode::from))
    });
    match found.await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(code))) => Err(judge(topic, &KafkaError::MessageProduction(code))),
        Ok(Err(message)) => Err(Failed::ForNow(message)),
        Err(error) => Err(Failed::ForNow(error.to_string())),
    }
}

/// Whether an error passes by itself.
fn judge(topic: &str, error: &KafkaError) -> Failed {
    use RDKafkaErrorCode as Code;
    let for_good = |code, way_out: &str| {
        let message = match error.rdkafka_error_code() {
            Some(code) => format!("dead letter topic {topic}: {code}"),
            None => format!("dead letter topic {topic}: {error}"),
        };
        Failed::ForGood(DlqUnavailable { code, message, way_out: way_out.to_owned() })
    };
    match error.rdkafka_error_code() {
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::InvalidTopic,
        ) => for_good("dlq_topic_missing", "create it with `cdc deploy`"),
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => for_good(
            "dlq_not_authorized",
            "allow this user to write and describe the topic (and idempotent writes)",
        ),
        Some(Code::MessageSizeTooLarge) => for_good(
            "dlq_record_too_large",
            "raise max.message.bytes of the topic and kafka.max_message_bytes, or skip the record",
        ),
        Some(Code::PolicyViolation | Code::InvalidRecord) => {
            for_good("dlq_refused", "correct the topic's settings, or skip the record")
        }
        _ => Failed::ForNow(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_person_can_mend_is_for_good() {
        use RDKafkaErrorCode as Code;
        let code = |code| match judge("t.dlq", &KafkaError::MessageProduction(code)) {
            Failed::ForGood(unavailable) => {
                assert!(unavailable.message.contains("t.dlq"), "{unavailable}");
                unavailable.code
            }
            Failed::ForNow(_) => "",
        };
        let expected = [
            (Code::UnknownTopicOrPartition, "dlq_topic_missing"),
            (Code::UnknownTopic, "dlq_topic_missing"),
            (Code::TopicAuthorizationFailed, "dlq_not_authorized"),
            (Code::MessageSizeTooLarge, "dlq_record_too_large"),
            (Code::InvalidRecord, "dlq_refused"),
            (Code::MessageTimedOut, ""),
            (Code::NotEnoughReplicas, ""),
            (Code::AllBrokersDown, ""),
            (Code::SaslAuthenticationFailed, ""),
            (Code::QueueFull, ""),
            (Code::PurgeQueue, ""),
        ];
        for (given, wanted) in expected {
            assert_eq!(code(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = cut("ä".repeat(MAX_TEXT));
        assert_eq!(text.len(), MAX_TEXT);
        assert_eq!(cut("short".to_owned()), "short");
    }
}
