//! Makes sure that the control topic is there in the shape that everybody relies on.

use std::time::Duration;

use cdc_shared::config::KafkaConfig;
use cdc_shared::kafka::client_config;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Creates the control topic (compacted, one partition) when it is absent and checks it otherwise.
///
/// # Errors
/// What Kafka answers, or what is wrong with a topic that is already there.
pub async fn ensure_topic(kafka: &KafkaConfig, topic: &str) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(kafka).create().map_err(|error| format!("kafka settings: {error}"))?;
    let options =
        AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let replication = TopicReplication::Fixed(i32::from(kafka.topics.replication_factor));
    let new = NewTopic::new(topic, 1, replication).set("cleanup.policy", "compact");
    let results = admin
        .create_topics([&new], &options)
        .await
        .map_err(|error| format!("create the control topic {topic}: {error}"))?;
    match results.into_iter().next() {
        Some(Ok(_)) => {
            tracing::info!(topic, "control topic created");
            return Ok(());
        }
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {}
        // Without the right to create, an existing topic is all we need.
        Some(Err((_, code))) if exists(&admin, topic) => {
            tracing::debug!(topic, %code, "control topic not created, it exists");
        }
        Some(Err((_, code))) => return Err(format!("create the control topic {topic}: {code}")),
    }
    check_shape(&admin, &options, topic).await
}

fn exists(admin: &AdminClient<DefaultClientContext>, topic: &str) -> bool {
    partitions(admin, topic).is_ok_and(|count| count > 0)
}

fn partitions(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<usize, String> {
    let metadata = admin
        .inner()
        .fetch_metadata(Some(topic), TIMEOUT)
        .map_err(|error| format!("describe the control topic {topic}: {error}"))?;
    Ok(metadata.topics().iter().map(|topic| topic.partitions().len()).sum())
}

async fn check_shape(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    topic: &str,
) -> Result<(), String> {
    let count = partitions(admin, topic)?;
    if count > 1 {
        return Err(format!(
            "the control topic {topic} has {count} partitions and needs exactly one: it was not \
             made by this platform; set another group_id, or delete it"
        ));
    }
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], options)
        .await
        .map_err(|error| format!("describe the control topic {topic}: {error}"))?;
    let policy = described.into_iter().flatten().find_map(|resource| {
        let entry = resource.entries.into_iter().find(|entry| entry.name == "cleanup.policy")?;
        (entry.source != ConfigSource::Unknown).then_some(entry.value).flatten()
    });
    match policy.as_deref() {
        Some("compact") | None => Ok(()),
        Some(other) => Err(format!(
            "the control topic {topic} has cleanup.policy={other}, under which it would forget \
             its records: set cleanup.policy=compact"
        )),
    }
}
