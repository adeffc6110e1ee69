//! The only list of sinks.

use std::sync::Arc;

use cdc_shared::config::{
    Int64Json, PipelineConfig, PostgresWriteMode, SinkConfig, SinkType, TemporalJson,
};
use cdc_shared::envelope::Placeholder;
use cdc_shared::json::{Int64, JsonOptions, Temporal};
use cdc_shared::task::{LakeOptions, LakeReport, TableReport};

use super::postgres::{self, PostgresEvents, PostgresReplica};
use super::verify::TaskFailure;
use super::webhook::WebhookSink;
use super::{Disposition, Sink, SinkError};
use crate::task::{TaskContext, Tell};

/// Builds the sink of an entry of `sinks:`. Nothing is connected yet.
///
/// # Errors
/// What is wrong with a setting that only its use can prove wrong (a certificate file, a secret).
pub fn open(config: &PipelineConfig, sink: &SinkConfig) -> Result<Arc<dyn Sink>, SinkError> {
    match (sink.sink_type, &sink.webhook, &sink.postgres) {
        (SinkType::Iceberg, ..) => open_iceberg(config, sink),
        (SinkType::Webhook, Some(webhook), _) => Ok(Arc::new(WebhookSink::new(webhook)?)),
        (SinkType::Postgres, _, Some(postgres)) => match postgres.write_mode {
            PostgresWriteMode::Events => {
                Ok(Arc::new(PostgresEvents::new(&config.pipeline_id, &sink.sink_id, postgres)?))
            }
            PostgresWriteMode::Replica => {
                Ok(Arc::new(PostgresReplica::new(config, &sink.sink_id, postgres)?))
            }
        },
        (kind, ..) => Err(refused(&format!("section {} is missing", kind.name()))),
    }
}

#[cfg(feature = "iceberg")]
fn open_iceberg(config: &PipelineConfig, sink: &SinkConfig) -> Result<Arc<dyn Sink>, SinkError> {
    match &sink.iceberg {
        Some(iceberg) => Ok(Arc::new(super::iceberg::IcebergSink::new(config, sink, iceberg)?)),
        None => Err(refused("section iceberg is missing")),
    }
}

#[cfg(not(feature = "iceberg"))]
fn open_iceberg(_: &PipelineConfig, _: &SinkConfig) -> Result<Arc<dyn Sink>, SinkError> {
    Err(refused("this cdc-worker was built without sink_type iceberg (its feature `iceberg`)"))
}

/// Carries a task out.
///
/// # Errors
/// Why it came to no end; a sink that keeps no mirror has nothing to compare.
pub async fn carry_out(
    context: &TaskContext,
    reports: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    match &context.sink.postgres {
        Some(postgres) if context.sink.is_keyed() => {
            postgres::verify::carry_out(context, postgres, reports).await
        }
        _ => carry_out_on_lake(context, reports).await,
    }
}

#[cfg(feature = "iceberg")]
async fn carry_out_on_lake(
    context: &TaskContext,
    reports: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    match &context.sink.iceberg {
        Some(iceberg) => super::iceberg::verify::carry_out(context, iceberg, reports).await,
        None => Err(no_mirror(&context.sink)),
    }
}

#[cfg(not(feature = "iceberg"))]
#[expect(clippy::unused_async, reason = "as where there is a lake")]
async fn carry_out_on_lake(
    context: &TaskContext,
    _: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    Err(no_mirror(&context.sink))
}

fn no_mirror(sink: &SinkConfig) -> TaskFailure {
    let message = format!("sink {} keeps no mirror of the source to compare", sink.sink_id);
    TaskFailure::failed(message)
        .hint("only a postgres sink with write_mode: replica, and an iceberg sink, do")
}

/// Upkeep of the tables of an `iceberg` sink.
///
/// # Errors
/// Why it came to no end; a sink without such tables.
#[cfg(feature = "iceberg")]
pub async fn upkeep(
    config: &PipelineConfig,
    sink: &SinkConfig,
    options: &LakeOptions,
    tell: &Tell,
    reports: &mut Vec<LakeReport>,
) -> Result<(), TaskFailure> {
    let Some(iceberg) = &sink.iceberg else { return Err(no_lake(sink)) };
    let lake = super::iceberg::IcebergSink::new(config, sink, iceberg)?;
    let topics = config.sink_tables(sink).iter().map(|table| config.topic(table));
    let topics: Vec<String> = topics
        .filter(|topic| options.topics.is_empty() || options.topics.contains(topic))
        .collect();
    Ok(lake.upkeep(&topics, &options.action, tell, reports).await?)
}

/// See above.
///
/// # Errors
/// Always: this program has no lake.
#[cfg(not(feature = "iceberg"))]
#[expect(clippy::unused_async, reason = "as where there is a lake")]
pub async fn upkeep(
    _: &PipelineConfig,
    sink: &SinkConfig,
    _: &LakeOptions,
    _: &Tell,
    _: &mut Vec<LakeReport>,
) -> Result<(), TaskFailure> {
    Err(no_lake(sink))
}

fn no_lake(sink: &SinkConfig) -> TaskFailure {
    let message = format!("sink {} keeps no Iceberg tables", sink.sink_id);
    TaskFailure::failed(message).hint("only a sink with sink_type: iceberg does")
}

fn refused(message: &str) -> SinkError {
    SinkError {
        code: "configuration".to_owned(),
        message: message.to_owned(),
        hint: None,
        disposition: Disposition::Fatal,
        source: None,
    }
}

/// How the sink wants its JSON.
pub fn json_options(config: &PipelineConfig, sink: &SinkConfig) -> JsonOptions {
    let chosen = sink.webhook.as_ref().map(|webhook| &webhook.json);
    JsonOptions {
        int64: match chosen.map(|json| json.int64) {
            Some(Int64Json::String) => Int64::String,
            _ => Int64::Number,
        },
        temporal: match chosen.map(|json| json.temporal) {
            Some(TemporalJson::Iso8601) => Temporal::Iso8601,
            _ => Temporal::AsSent,
        },
        unavailable_placeholder: Some(Placeholder::new(&config.source.unavailable_placeholder)),
    }
}
