//! The topics of a pipeline: their names, their shape, and how far what exists differs from it.
//! Pure; `super::broker` does the asking and creating.

use std::collections::BTreeMap;

use cdc_shared::config::{PipelineConfig, SignalChannel, SourceType};
use serde::Serialize;

/// The topic into which the connector writes the messages that programs leave in PostgreSQL's log,
/// as `verify` does.
pub fn message_topic(prefix: &str) -> String {
    format!("{prefix}.message")
}

/// The topic into which the connector writes its heartbeats.
pub fn heartbeat_topic(prefix: &str) -> String {
    format!("__debezium-heartbeat.{prefix}")
}

/// The topic by which a running connector is asked for snapshots.
pub fn signal_topic(prefix: &str) -> String {
    format!("__debezium-signal.{prefix}")
}

/// The topic in which the connector tells how its snapshots go.
pub fn notification_topic(prefix: &str) -> String {
    format!("__debezium-notification.{prefix}")
}

/// The topic in which a MySQL or MariaDB connector keeps the history of table definitions.
pub fn history_topic(prefix: &str) -> String {
    format!("__debezium-history.{prefix}")
}

/// The topic that Debezium writes a table's changes to: characters that Kafka does not take become
/// `_`, so two tables may end in one topic.
pub fn debezium_topic(prefix: &str, table: &str) -> String {
    format!("{prefix}.{table}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect()
}

/// What is wrong with the tables' names as topics, one sentence each.
pub fn name_collisions(config: &PipelineConfig) -> Vec<String> {
    let mut by_topic: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for table in &config.source.tables {
        by_topic.entry(debezium_topic(&config.topic_prefix, table)).or_default().push(table);
    }
    let mut found = Vec::new();
    for (topic, tables) in by_topic {
        if tables.len() > 1 {
            let tables = tables.join(" and ");
            found.push(format!("tables {tables} would share the topic {topic}"));
        } else if topic != config.topic(tables[0]) {
            found.push(format!(
                "table {}: its name holds characters that no topic may have; Debezium would write \
                 to {topic}, where no sink looks",
                tables[0]
            ));
        }
    }
    found
}

/// One topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Copies of each.
    pub replication: i32,
    /// Topic settings that matter to us.
    pub settings: BTreeMap<&'static str, String>,
}

/// One topic as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFound {
    /// Number of partitions.
    pub partitions: i32,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
}

/// What happened to one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TopicOutcome {
    /// It was not there and is now.
    Created {
        /// Number of partitions.
        partitions: i32,
    },
    /// It is as planned.
    Unchanged,
    /// It is otherwise than planned and was left alone.
    Differs {
        /// One sentence per difference.
        differences: Vec<String>,
    },
}

/// Every topic of a pipeline, in a stable order.
pub fn planned(config: &PipelineConfig) -> Vec<TopicPlan> {
    let prefix = &config.topic_prefix;
    let partitions = i32::try_from(config.kafka.topics.partitions).unwrap_or(i32::MAX);
    let retention = config.kafka.topics.retention_ms;
    let mut plans = Vec::new();
    for table in &config.source.tables {
        let topic = config.topic(table);
        plans.push(plan(config, topic.clone(), partitions, "delete", retention));
        if config.dlq.enabled {
            plans.push(plan(config, config.dlq.topic(&topic), partitions, "delete", -1));
        }
    }
    plans.push(plan(config, heartbeat_topic(prefix), 1, "delete", retention));
    if config.source.signal != SignalChannel::Off {
        plans.push(plan(config, notification_topic(prefix), 1, "delete", retention));
    }
    if config.source.signal == SignalChannel::Kafka {
        // Debezium demands one partition: signals have an order.
        plans.push(plan(config, signal_topic(prefix), 1, "delete", retention));
    }
    if config.needs_transactions() {
        // One partition: the order of the commits is what it is for.
        plans.push(plan(config, config.transaction_topic(), 1, "delete", retention));
    }
    if config.source.source_type == SourceType::Postgres {
        plans.push(plan(config, message_topic(prefix), 1, "delete", retention));
    } else {
        plans.push(plan(config, history_topic(prefix), 1, "delete", -1));
        // Schema changes, in a topic named like the prefix.
        plans.push(plan(config, prefix.clone(), 1, "delete", retention));
    }
    let mut control = plan(config, config.control_topic(), 1, "compact", -1);
    control.settings.remove("retention.ms");
    plans.push(control);
    plans
}

fn plan(
    config: &PipelineConfig,
    name: String,
    partitions: i32,
    cleanup: &str,
    retention_ms: i64,
) -> TopicPlan {
    let largest = u64::from(config.kafka.max_message_bytes);
    // A dead letter carries the record and headers of its own.
    let room = if retention_ms == -1 { 1024 * 1024 } else { 0 };
    let largest = (largest + room).min(i32::MAX as u64);
    let settings = BTreeMap::from([
        ("cleanup.policy", cleanup.to_owned()),
        ("retention.ms", retention_ms.to_string()),
        ("max.message.bytes", largest.to_string()),
    ]);
    let replication = i32::from(config.kafka.topics.replication_factor);
    TopicPlan { name, partitions, replication, settings }
}

impl TopicPlan {
    /// How far the topic that exists is from this plan.
    pub fn compare(&self, found: &TopicFound) -> TopicOutcome {
        let mut differences = Vec::new();
        if found.partitions != self.partitions {
            differences.push(format!(
                "has {} partitions, the configuration says {}; it is left so, because more \
                 partitions move keys",
                found.partitions, self.partitions
            ));
        }
        for (name, planned) in &self.settings {
            match found.settings.get(*name) {
                Some(is) if is != planned => {
                    differences.push(format!("has {name}={is}, the configuration says {planned}"));
                }
                _ => {}
            }
        }
        if differences.is_empty() {
            TopicOutcome::Unchanged
        } else {
            TopicOutcome::Differs { differences }
        }
    }
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::SourceConfig;

    use super::*;

    fn config(kind: SourceType, tables: &[&str]) -> PipelineConfig {
        PipelineConfig {
            group_id: "cdc-demo".into(),
            source: SourceConfig {
                source_type: kind,
                tables: tables.iter().map(|&t| t.into()).collect(),
                ..SourceConfig::default()
            },
            ..PipelineConfig::default()
        }
    }

    #[test]
    fn every_topic_of_a_pipeline_is_planned() {
        let lines = |kind| -> Vec<String> {
            planned(&config(kind, &["public.customers"]))
                .iter()
                .map(|p| {
                    let get = |name| p.settings.get(name).map_or("-", String::as_str);
                    let (cleanup, retention) = (get("cleanup.policy"), get("retention.ms"));
                    format!("{} {} {cleanup} {retention}", p.name, p.partitions)
                })
                .collect()
        };
        assert_eq!(
            lines(SourceType::Postgres),
            [
                "cdc.public.customers 4 delete 604800000",
                "cdc.public.customers.dlq 4 delete -1",
                "__debezium-heartbeat.cdc 1 delete 604800000",
                "__debezium-notification.cdc 1 delete 604800000",
                "__debezium-signal.cdc 1 delete 604800000",
                "cdc.message 1 delete 604800000",
                "cdc-demo.control 1 compact -",
            ]
        );
        let mysql = lines(SourceType::Mysql);
        assert!(mysql.contains(&"__debezium-history.cdc 1 delete -1".to_owned()));
        assert!(mysql.contains(&"cdc 1 delete 604800000".to_owned()));
    }

    #[test]
    fn a_topic_that_exists_is_compared_not_changed() {
        let plan = planned(&config(SourceType::Postgres, &["public.a"])).remove(0);
        let mut found = TopicFound {
            partitions: 4,
            settings: plan.settings.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        };
        assert_eq!(plan.compare(&found), TopicOutcome::Unchanged);
        found.partitions = 1;
        found.settings.insert("retention.ms".into(), "1000".into());
        let TopicOutcome::Differs { differences } = plan.compare(&found) else {
            panic!("two differences")
        };
        assert!(differences[0].starts_with("has 1 partitions, the configuration says 4"));
        assert_eq!(differences[1], "has retention.ms=1000, the configuration says 604800000");
    }

    #[test]
    fn names_that_kafka_cannot_hold_are_found() {
        let config =
            config(SourceType::Postgres, &["public.a b", "public.a$b", "public.ok", "s.ü"]);
        let found = name_collisions(&config);
        assert_eq!(
            found[0],
            "tables public.a b and public.a$b would share the topic cdc.public.a_b"
        );
        assert!(found[1].starts_with("table s.ü: its name holds characters"));
        assert_eq!(found.len(), 2);
    }
}
