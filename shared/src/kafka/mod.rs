//! How every process of ours reaches Kafka: one place for addresses, credentials and the settings
//! that correctness depends on.

mod member_id;
mod topic_id;

pub use member_id::member_id;
pub use topic_id::{TopicIdError, topic_ids};

use rdkafka::ClientConfig;

use crate::config::{GroupProtocol, KafkaConfig};

/// Settings that every client shares: address, security, pass-through properties.
pub fn client_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.properties.iter() {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &kafka.bootstrap_servers);
    config.set("security.protocol", kafka.security_protocol.name());
    config.set("topic.metadata.refresh.interval.ms", "30000");
    if kafka.security_protocol.uses_sasl() {
        config.set("sasl.mechanism", kafka.sasl.mechanism.name());
        config.set("sasl.username", &kafka.sasl.username);
        config.set("sasl.password", kafka.sasl.password.expose());
    }
    if kafka.security_protocol.uses_tls() {
        let tls = &kafka.tls;
        for (name, file) in [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ] {
            if let Some(file) = file {
                config.set(name, file.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            config.set("ssl.key.password", password.expose());
        }
        if tls.allow_insecure {
            config.set("enable.ssl.certificate.verification", "false");
        }
    }
    config
}

/// A consumer that commits nothing by itself, never jumps on its own (`auto.offset.reset=error`)
/// and reads only what is committed. `group` is needed by librdkafka even for assign-only use.
pub fn consumer_config(kafka: &KafkaConfig, group: &str) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("allow.auto.create.topics", "false");
    config
}

/// Settings that only a member of a classic group may bring.
const CLASSIC_ONLY: [&str; 4] = [
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "group.protocol.type",
];

/// The group protocol in librdkafka's words. `Auto` begins with KIP-848 (`consumer`): a broker
/// without it answers with a fatal error, on which the caller asks again with `auto_fallback`.
///
/// For `consumer` the broker decides what the classic protocol leaves to the client, and librdkafka
/// refuses a client that brings such settings: so `kafka.properties` may hold them for the time
/// when the classic protocol is spoken, and here they are left out.
pub fn set_group_protocol(config: &mut ClientConfig, protocol: GroupProtocol, auto_fallback: bool) {
    match (protocol, auto_fallback) {
        (GroupProtocol::Consumer, _) | (GroupProtocol::Auto, false) => {
            config.set("group.protocol", "consumer");
            for classic_only in CLASSIC_ONLY {
                config.remove(classic_only);
            }
        }
        (GroupProtocol::Classic, _) | (GroupProtocol::Auto, true) => {
            config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky");
        }
    }
}

/// A producer whose acknowledgement can be trusted: idempotent, all replicas.
pub fn producer_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = client_config(kafka);
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5").set(
        "message.max.bytes",
        (u64::from(kafka.max_message_bytes) + 1024 * 1024).min(1_000_000_000).to_string(),
    );
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SaslConfig, SecurityProtocol};

    #[test]
    fn security_reaches_the_client_and_own_settings_win() {
        let mut kafka = KafkaConfig {
            security_protocol: SecurityProtocol::SaslSsl,
            sasl: SaslConfig {
                username: "u".into(),
                password: "p".into(),
                ..SaslConfig::default()
            },
            ..KafkaConfig::default()
        };
        kafka.tls.ca_file = Some("/ca.pem".into());
        kafka.properties.insert("client.id".into(), "me".into());
        kafka.properties.insert("isolation.level".into(), "read_uncommitted".into());
        let config = consumer_config(&kafka, "g");
        let get = |name| config.get(name).unwrap_or_default().to_owned();
        assert_eq!(get("security.protocol"), "sasl_ssl");
        assert_eq!(get("sasl.username"), "u");
        assert_eq!(get("sasl.password"), "p");
        assert_eq!(get("ssl.ca.location"), "/ca.pem");
        assert_eq!(get("client.id"), "me");
        assert_eq!(get("isolation.level"), "read_committed");
    }

    #[test]
    fn classic_settings_do_not_keep_a_client_from_the_newer_protocol() {
        use rdkafka::consumer::BaseConsumer;
        let mut kafka = KafkaConfig::default();
        kafka.properties.insert("session.timeout.ms".into(), "6000".into());
        kafka.properties.insert("heartbeat.interval.ms".into(), "1000".into());
        for (protocol, fallback, session) in [
            (GroupProtocol::Auto, false, None),
            (GroupProtocol::Consumer, false, None),
            (GroupProtocol::Auto, true, Some("6000")),
            (GroupProtocol::Classic, false, Some("6000")),
        ] {
            let mut config = consumer_config(&kafka, "g");
            set_group_protocol(&mut config, protocol, fallback);
            assert_eq!(config.get("session.timeout.ms"), session, "{protocol:?}");
            config.create::<BaseConsumer>().unwrap();
        }
    }
}
