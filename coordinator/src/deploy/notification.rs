//! What the connector tells of its snapshots, in the notification topic.

use std::time::{Duration, Instant};

use cdc_shared::config::PipelineConfig;
use cdc_shared::registry::Registry;
use rdkafka::Message;
use serde_json::Value;

use super::topics::notification_topic;
use crate::cli::{Exit, Failure};
use crate::consume::{From, Reader, decode};

/// Follows the notifications from the moment it is opened.
pub(super) struct Watch {
    reader: Reader,
    registry: Registry,
    prefix: String,
}

/// What one notification means to somebody who waits for tables.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Scanned(String),
    Done,
    GivenUp(String),
    Other,
}

impl Watch {
    pub(super) async fn open(config: &PipelineConfig) -> Result<Self, Failure> {
        let topics = [notification_topic(&config.topic_prefix)];
        let reader = Reader::open(&config.kafka, &topics, From::End).await?;
        let registry = Registry::new(&config.kafka)
            .map_err(|e| Failure::new(Exit::Config, format!("kafka.schema_registry.tls: {e}")))?;
        let prefix = match config.source.source_type {
            // Debezium names a PostgreSQL table with its database in front.
            cdc_shared::config::SourceType::Postgres => format!("{}.", config.source.database),
            _ => String::new(),
        };
        Ok(Self { reader, registry, prefix })
    }

    /// Waits until the snapshot has ended, and every table in it has been scanned.
    pub(super) async fn done(
        &mut self,
        tables: &[String],
        limit: Duration,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut waiting: Vec<&String> = tables.iter().collect();
        while begun.elapsed() < limit {
            match self.step().await? {
                Step::Scanned(table) => {
                    let table = table.strip_prefix(&self.prefix).unwrap_or(&table);
                    if waiting.iter().any(|wanted| *wanted == table) {
                        progress(&format!("table {table} has been read"));
                        waiting.retain(|wanted| *wanted != table);
                    }
                }
                Step::Done if waiting.is_empty() => return Ok(()),
                Step::Done => {
                    let left: Vec<&str> = waiting.iter().map(|table| table.as_str()).collect();
                    let message = format!("the snapshot ended without {}", left.join(", "));
                    return Err(
                        Failure::new(Exit::Software, message).hint("see the log of Kafka Connect")
                    );
                }
                Step::GivenUp(reason) => {
                    let message = format!("the connector gave the snapshot up: {reason}");
                    return Err(Failure::new(Exit::Software, message));
                }
                Step::Other => {}
            }
        }
        let message = format!("the snapshot has not ended after {} s", limit.as_secs());
        Err(Failure::new(Exit::TempFail, message)
            .hint("it goes on without us; see it arrive with consume --follow"))
    }

    async fn step(&mut self) -> Result<Step, Failure> {
        let Some(record) = self.reader.next().await? else { return Ok(Step::Other) };
        let Some(bytes) = record.payload() else { return Ok(Step::Other) };
        let decoded = decode(&self.registry, bytes).await?;
        Ok(decoded.map_or(Step::Other, |decoded| step(&decoded.json)))
    }
}

/// Reads one notification: `aggregate_type`, `type`, `additional_data`.
fn step(notification: &Value) -> Step {
    if notification["aggregate_type"] != "Incremental Snapshot" {
        return Step::Other;
    }
    let data = &notification["additional_data"];
    match notification["type"].as_str() {
        Some("TABLE_SCAN_COMPLETED") => {
            let table = data["current_collection_in_progress"]
                .as_str()
                .or_else(|| data["scanned_collection"].as_str());
            table.map_or(Step::Other, |table| match data["status"].as_str() {
                None | Some("SUCCEEDED" | "EMPTY") => Step::Scanned(table.to_owned()),
                Some(status) => Step::GivenUp(format!("{table}: {status}")),
            })
        }
        Some("COMPLETED") => Step::Done,
        Some(kind @ ("ABORTED" | "SKIPPED")) => Step::GivenUp(kind.to_lowercase()),
        _ => Step::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notifications_of_incremental_snapshots_are_understood() {
        let of = |kind: &str, data: Value| {
            step(&json!({
                "aggregate_type": "Incremental Snapshot", "type": kind, "additional_data": data
            }))
        };
        let scanned = json!({ "scanned_collection": "shop.public.a", "status": "SUCCEEDED" });
        assert_eq!(of("TABLE_SCAN_COMPLETED", scanned), Step::Scanned("shop.public.a".into()));
        let failed = json!({ "scanned_collection": "a", "status": "NO_PRIMARY_KEY" });
        assert_eq!(of("TABLE_SCAN_COMPLETED", failed), Step::GivenUp("a: NO_PRIMARY_KEY".into()));
        assert_eq!(of("COMPLETED", Value::Null), Step::Done);
        assert_eq!(of("ABORTED", Value::Null), Step::GivenUp("aborted".into()));
        assert_eq!(of("IN_PROGRESS", Value::Null), Step::Other);
        let initial = json!({ "aggregate_type": "Initial Snapshot", "type": "COMPLETED" });
        assert_eq!(step(&initial), Step::Other);
    }
}
