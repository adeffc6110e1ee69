//! The only list of sinks.

use std::sync::Arc;

use cdc_shared::config::{PipelineConfig, SinkConfig, SinkType};

use super::Sink;

/// Builds the sink of an entry of `sinks:`. Nothing is connected yet.
///
/// # Errors
/// What is wrong with a setting that only its use can prove wrong (a certificate file, a secret).
pub fn open(config: &PipelineConfig, sink: &SinkConfig) -> Result<Arc<dyn Sink>, String> {
    match sink.sink_type {
        SinkType::Webhook => Err(format!("sink {}: not merged", config.pipeline_id)),
        SinkType::Postgres => Err(format!("sink {}: not merged", config.pipeline_id)),
        SinkType::Iceberg => {
            Err(format!("sink {}: sink_type iceberg is not built yet", sink.sink_id))
        }
    }
}
