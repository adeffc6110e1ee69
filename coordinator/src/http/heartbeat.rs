//! Takes a worker's heartbeat and answers with the operator's will.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use cdc_shared::api::{Heartbeat, HeartbeatReply, TableDirective};
use cdc_shared::offset::{Position, TopicPartition};

use super::checks;
use super::error::ApiError;
use crate::state::Coordinator;
use crate::task;

pub(super) async fn take(
    State(coordinator): State<Arc<Coordinator>>,
    body: Result<Json<Heartbeat>, JsonRejection>,
) -> Result<Json<HeartbeatReply>, ApiError> {
    let Json(heartbeat) = body?;
    checks::heartbeat(&heartbeat).map_err(ApiError::invalid)?;
    let ours = &coordinator.config.pipeline_id;
    if heartbeat.pipeline_id != *ours {
        return Err(ApiError::wrong_pipeline(&heartbeat.pipeline_id, ours));
    }
    if !coordinator.leads() {
        return Err(ApiError::not_leader(coordinator.other_leader()));
    }
    super::count(&coordinator.metrics.heartbeats);
    let sink = heartbeat.sink_id.clone();
    let report: Vec<(TopicPartition, Position)> = heartbeat
        .partitions
        .iter()
        .filter_map(|report| {
            let position = report.position.clone()?;
            Some((TopicPartition::new(report.topic.as_str(), report.partition), position))
        })
        .collect();
    task::take_ends(&coordinator, &heartbeat);
    let prefix = format!("{}.", coordinator.config.topic_prefix);
    coordinator.schemas.hear(&heartbeat, &coordinator.control.state(), &prefix);
    let replays = heartbeat.replays.clone();
    if coordinator.fleet.beat(heartbeat, Instant::now()) {
        coordinator.group.nudge();
    }
    task::take_replays(&coordinator, &sink, &replays);
    // Without the store the worker still needs its answer; the next heartbeat repeats the report.
    if let Err(error) = coordinator.store.advance(&sink, &report).await {
        tracing::warn!(sink, %error, "store watermarks");
    }
    let control = coordinator.control.state();
    let tables = control
        .table_directives(&sink)
        .into_iter()
        .map(|(topic, directive)| TableDirective { topic, directive })
        .collect();
    Ok(Json(HeartbeatReply {
        directive: control.directive(&sink, None),
        tables,
        control_offset: control.offset(),
    }))
}
