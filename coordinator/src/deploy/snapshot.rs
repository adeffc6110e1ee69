//! Asking a running connector for the snapshot of tables that came later.

use std::time::Duration;

use cdc_shared::clock::unix_ms;
use cdc_shared::config::{PipelineConfig, SignalChannel};
use cdc_shared::kafka::producer_config;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Serialize;
use serde_json::json;

use super::connector::table_pattern;
use super::notification::Watch;
use super::topics::signal_topic;
use crate::cli::{Exit, Failure};
use crate::connect::{Connect, Settled};
use crate::source;

/// What `snapshot` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// Id of the signal, which Connect's log names.
    pub signal: String,
    /// The tables.
    pub tables: Vec<String>,
    /// Whether the connector has said that it is done; `false` when nobody waited.
    pub completed: bool,
}

impl std::fmt::Display for SnapshotReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tables = self.tables.join(", ");
        let how = if self.completed { "done" } else { "asked for" };
        write!(f, "snapshot of {tables}: {how} (signal {})", self.signal)
    }
}

/// Sends the signal for an incremental snapshot of these tables, and waits for its end when asked.
///
/// # Errors
/// A table that is not captured, a connector that does not run or gives up the snapshot, or a
/// channel that is off.
pub async fn snapshot(
    config: &PipelineConfig,
    tables: &[String],
    wait: Option<Duration>,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<SnapshotReport, Failure> {
    captured(config, tables)?;
    ready(config, tables).await?;
    // Opened before the signal is sent, so that the answer cannot be missed.
    let mut watch = Watch::open(config).await?;
    let (signal, payload) = signal(tables);
    match config.source.signal {
        SignalChannel::Kafka => by_kafka(config, &signal, &payload).await?,
        SignalChannel::Source => by_table(config, &signal, &payload).await?,
        SignalChannel::Off => {
            return Err(Failure::new(Exit::Config, "source.signal is off")
                .hint("set source.signal to kafka or source and deploy"));
        }
    }
    let mut report = SnapshotReport { signal, tables: tables.to_vec(), completed: false };
    if let Some(limit) = wait {
        progress("waiting for the connector to finish the snapshot");
        watch.done(tables, limit, progress).await?;
        report.completed = true;
    }
    Ok(report)
}

/// The connector runs and captures the tables.
async fn ready(config: &PipelineConfig, tables: &[String]) -> Result<(), Failure> {
    let connect = Connect::new(&config.connector)?;
    let name = config.connector_name();
    let Some(existing) = connect.config(&name).await? else {
        return Err(Failure::new(Exit::Config, format!("connector {name} does not exist"))
            .hint("run deploy first"));
    };
    let include = existing.get("table.include.list").map_or("", String::as_str);
    for table in tables {
        let wanted = table_pattern(table);
        if !include.split(',').any(|pattern| pattern == wanted) {
            let message = format!("connector {name} does not capture {table} yet");
            return Err(Failure::new(Exit::Config, message).hint("run deploy first"));
        }
    }
    let status = connect.status(&name).await?.unwrap_or_default();
    if status.settled() == Settled::Running {
        return Ok(());
    }
    let message = format!("connector {name} does not run: {}", status.describe());
    Err(Failure::new(Exit::TempFail, message))
}

fn captured(config: &PipelineConfig, tables: &[String]) -> Result<(), Failure> {
    match tables.iter().find(|table| !config.source.tables.contains(table)) {
        Some(table) => {
            Err(Failure::new(Exit::Config, format!("table {table} is not in source.tables"))
                .hint("add it to the configuration and run deploy first"))
        }
        None => Ok(()),
    }
}

/// Id and data of the signal.
fn signal(tables: &[String]) -> (String, String) {
    let millis = unix_ms();
    let patterns: Vec<String> = tables.iter().map(|table| table_pattern(table)).collect();
    let data = json!({ "data-collections": patterns, "type": "INCREMENTAL" });
    (format!("cdc-{millis}"), data.to_string())
}

async fn by_kafka(config: &PipelineConfig, id: &str, data: &str) -> Result<(), Failure> {
    let topic = signal_topic(&config.topic_prefix);
    let producer: FutureProducer = producer_config(&config.kafka)
        .set("message.timeout.ms", "10000")
        .create()
        .map_err(|e| Failure::new(Exit::Config, format!("kafka: {e}")))?;
    let value = format!(r#"{{"id":"{id}","type":"execute-snapshot","data":{data}}}"#);
    let record = FutureRecord::to(&topic).key(&config.topic_prefix).payload(&value).partition(0);
    producer.send(record, Duration::from_secs(10)).await.map(drop).map_err(|(error, _)| {
        let at = &config.kafka.bootstrap_servers;
        Failure::new(Exit::Unavailable, format!("write to topic {topic} at {at}: {error}"))
    })
}

async fn by_table(config: &PipelineConfig, id: &str, data: &str) -> Result<(), Failure> {
    let Some(table) = &config.source.signal_table else {
        return Err(Failure::new(Exit::Config, "source.signal_table is not set"));
    };
    source::signal(&config.source, table, [id, "execute-snapshot", data]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_captured_tables_are_asked_for() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["public.a".into()];
        assert!(captured(&config, &["public.a".into()]).is_ok());
        let failure = captured(&config, &["public.b".into()]).unwrap_err();
        assert_eq!(failure.message, "table public.b is not in source.tables");
    }

    #[test]
    fn the_signal_names_tables_as_patterns() {
        let (id, data) = signal(&["public.a".into()]);
        assert!(id.starts_with("cdc-"));
        assert_eq!(data, r#"{"data-collections":["public\\.a"],"type":"INCREMENTAL"}"#);
    }
}
