//! Kafka, as `deploy`, `validate` and `health` ask it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::client_config;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use tokio::task::{JoinError, spawn_blocking};

use super::topics::{TopicFound, TopicOutcome, TopicPlan};
use crate::cli::{Exit, Failure};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client is watched for the reason of a failure.
const WATCH: Duration = Duration::from_secs(3);

/// Remembers a client's last complaint of a connection.
#[derive(Debug, Clone, Default)]
struct LastComplaint(Arc<Mutex<Option<String>>>);

impl LastComplaint {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for LastComplaint {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
        }
    }

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for LastComplaint {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Why no broker answers. A request only says that it timed out; the reason, such as a refused
/// password, is told to a client that is polled, which an admin client is not.
fn complaint(mut settings: ClientConfig, watch: Duration) -> Option<String> {
    settings.set_log_level(RDKafkaLogLevel::Error);
    let context = LastComplaint::default();
    let probe: BaseProducer<LastComplaint> = settings.create_with_context(context.clone()).ok()?;
    let begun = Instant::now();
    // Asking for metadata makes it connect.
    let _ = probe.client().fetch_metadata(None, watch / 3);
    while context.get().is_none() && begun.elapsed() < watch {
        probe.poll(watch / 10);
    }
    context.get()
}

/// A client of the brokers.
pub struct Broker {
    admin: Arc<AdminClient<DefaultClientContext>>,
    settings: ClientConfig,
    address: String,
}

impl Broker {
    /// A client by configuration. Nothing is asked yet.
    ///
    /// # Errors
    /// Settings that the client does not take.
    pub fn new(config: &KafkaConfig) -> Result<Self, Failure> {
        let settings = client_config(config);
        let admin: AdminClient<DefaultClientContext> = settings.create().map_err(|error| {
            Failure::new(Exit::Config, format!("kafka: {error}")).hint("check kafka.properties")
        })?;
        Ok(Self { admin: Arc::new(admin), settings, address: config.bootstrap_servers.clone() })
    }

    /// Brokers and topics, which is also the proof that Kafka answers and takes our credentials.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub async fn metadata(&self) -> Result<BTreeMap<String, i32>, Failure> {
        let settings = self.settings.clone();
        let reason = async { spawn_blocking(move || complaint(settings, WATCH)).await };
        self.metadata_or(TIMEOUT, reason).await
    }

    /// The same for somebody who does not wait: the reason is looked for meanwhile.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub async fn metadata_within(&self, limit: Duration) -> Result<BTreeMap<String, i32>, Failure> {
        let settings = self.settings.clone();
        // A little less each: they are to end before the caller gives them up.
        let limit = limit * 4 / 5;
        let reason = spawn_blocking(move || complaint(settings, limit));
        self.metadata_or(limit, reason).await
    }

    async fn metadata_or(
        &self,
        limit: Duration,
        reason: impl Future<Output = Result<Option<String>, JoinError>>,
    ) -> Result<BTreeMap<String, i32>, Failure> {
        let admin = Arc::clone(&self.admin);
        let fetched = spawn_blocking(move || admin.inner().fetch_metadata(None, limit)).await;
        match fetched {
            Ok(Ok(metadata)) => Ok(partition_counts(&metadata)),
            Ok(Err(error)) => {
                let found = reason.await.ok().flatten();
                Err(self.because(&found.unwrap_or_else(|| error.to_string())))
            }
            Err(error) => Err(Failure::new(Exit::Software, error.to_string())),
        }
    }

    /// Live members of a consumer group, by client id.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses.
    pub async fn group_members(&self, group: &str) -> Result<Vec<String>, Failure> {
        let admin = Arc::clone(&self.admin);
        let name = group.to_owned();
        let fetched = spawn_blocking(move || {
            admin.inner().fetch_group_list(Some(&name), TIMEOUT).map(|list| {
                let members = list.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
                members.map(|member| member.client_id().to_owned()).collect()
            })
        })
        .await;
        match fetched {
            Ok(Ok(members)) => Ok(members),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(error) => Err(Failure::new(Exit::Software, error.to_string())),
        }
    }

    /// Creates what is missing of the planned topics and compares the others.
    ///
    /// # Errors
    /// Kafka cannot be reached, or refuses to create a topic.
    pub async fn ensure(
        &self,
        plans: &[TopicPlan],
    ) -> Result<Vec<(String, TopicOutcome)>, Failure> {
        let existing = self.metadata().await?;
        let (present, missing): (Vec<_>, Vec<_>) =
            plans.iter().partition(|plan| existing.contains_key(&plan.name));
        self.create(&missing).await?;
        let settings = self.settings(&present).await?;
        Ok(plans
            .iter()
            .map(|plan| {
                let outcome = match existing.get(&plan.name) {
                    None => TopicOutcome::Created { partitions: plan.partitions },
                    Some(&partitions) => plan.compare(&TopicFound {
                        partitions,
                        settings: settings.get(&plan.name).cloned().unwrap_or_default(),
                    }),
                };
                (plan.name.clone(), outcome)
            })
            .collect())
    }

    async fn create(&self, plans: &[&TopicPlan]) -> Result<(), Failure> {
        if plans.is_empty() {
            return Ok(());
        }
        let topics: Vec<NewTopic<'_>> = plans.iter().map(|plan| new_topic(plan)).collect();
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let results =
            self.admin.create_topics(&topics, &options).await.map_err(|e| self.failed(&e))?;
        for result in results {
            match result {
                // Somebody else made it in the meantime, which is as good.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(self.not_created(&topic, code)),
            }
        }
        Ok(())
    }

    fn not_created(&self, topic: &str, code: RDKafkaErrorCode) -> Failure {
        let message = format!("Kafka at {} does not create topic {topic}: {code}", self.address);
        match code {
            RDKafkaErrorCode::InvalidReplicationFactor => Failure::new(Exit::Config, message)
                .hint("lower kafka.topics.replication_factor to the number of brokers"),
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => Failure::new(Exit::NoPerm, message)
                .hint("give our user the right to create topics, or create it beforehand"),
            _ => Failure::new(Exit::Software, message),
        }
    }

    async fn settings(
        &self,
        plans: &[&TopicPlan],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Failure> {
        if plans.is_empty() {
            return Ok(BTreeMap::new());
        }
        let topics: Vec<_> =
            plans.iter().map(|plan| ResourceSpecifier::Topic(&plan.name)).collect();
        let described = self
            .admin
            .describe_configs(&topics, &AdminOptions::new())
            .await
            .map_err(|e| self.failed(&e))?;
        Ok(described.into_iter().filter_map(|resource| topic_settings(resource.ok()?)).collect())
    }

    fn failed(&self, error: &KafkaError) -> Failure {
        self.because(&error.to_string())
    }

    fn because(&self, reason: &str) -> Failure {
        let reason = tidy(reason);
        if reason.contains("uthentication") || reason.contains("SASL") {
            let message = format!("Kafka at {} refuses our credentials: {reason}", self.address);
            return Failure::new(Exit::NoPerm, message)
                .hint("check kafka.sasl and kafka.security_protocol");
        }
        let message = format!("cannot reach Kafka at {}: {reason}", self.address);
        Failure::new(Exit::Unavailable, message)
            .hint("check kafka.bootstrap_servers and that the brokers run")
    }
}

fn partition_counts(metadata: &Metadata) -> BTreeMap<String, i32> {
    metadata
        .topics()
        .iter()
        .map(|topic| {
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            (topic.name().to_owned(), count)
        })
        .collect()
}

fn new_topic(plan: &TopicPlan) -> NewTopic<'_> {
    let replication = TopicReplication::Fixed(plan.replication);
    let topic = NewTopic::new(&plan.name, plan.partitions, replication);
    plan.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
}

fn topic_settings(resource: ConfigResource) -> Option<(String, BTreeMap<String, String>)> {
    let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
    let settings =
        resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
    Some((name, settings.collect()))
}

/// librdkafka's sentence without the name of its thread and what it did so far.
fn tidy(reason: &str) -> String {
    let (head, rest) = reason.split_once("]: ").unwrap_or(("", reason));
    let reason = if head.starts_with("[thrd:") { rest } else { reason };
    let end = reason.find(" (after ").unwrap_or(reason.len());
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_broker_is_explained() {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", "127.0.0.1:1");
        let said = complaint(settings, WATCH).expect("a reason");
        assert!(said.contains("127.0.0.1:1") && said.contains("Connection refused"), "{said}");
    }

    #[test]
    fn the_clients_complaint_is_readable() {
        let said = "localhost:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused \
                    (after 0ms in state CONNECT)";
        assert_eq!(
            tidy(said),
            "localhost:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"
        );
        assert_eq!(tidy("[thrd:x]: plain"), "plain");
    }
}
