//! The dead letters over HTTP, in answers of bounded length.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use cdc_shared::dlq::{LetterDetail, LetterFilter, LetterState, Letters};
use serde::Deserialize;

use super::error::ApiError;
use crate::control::commands::Refusal;
use crate::dlq::source_topics;
use crate::state::Coordinator;

/// Letters in an answer, unless another number is asked for.
const LIMIT: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    sink: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    error_type: Option<String>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    /// JSON.
    key: Option<String>,
    state: Option<LetterState>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(coordinator): State<Arc<Coordinator>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Letters>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let key = match query.key.as_deref().map(serde_json::from_str) {
        None => None,
        Some(Ok(key)) => Some(key),
        Some(Err(error)) => return Err(ApiError::invalid(format!("key: not JSON: {error}"))),
    };
    let filter = LetterFilter {
        sink: query.sink,
        topic: query.topic,
        partition: query.partition,
        offset: query.offset,
        error_type: query.error_type,
        since_ms: query.since_ms,
        until_ms: query.until_ms,
        key,
        state: query.state,
    };
    coordinator.letters.refresh(&coordinator.cluster, source_topics(&coordinator)).await?;
    let limit = query.limit.unwrap_or(LIMIT);
    Ok(Json(coordinator.letters.list(&coordinator.control.state(), &filter, limit).await))
}

pub(super) async fn show(
    State(coordinator): State<Arc<Coordinator>>,
    path: Result<Path<(String, String, i32, i64)>, PathRejection>,
) -> Result<Json<LetterDetail>, ApiError> {
    let Path((sink, topic, partition, offset)) =
        path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let filter = LetterFilter {
        sink: Some(sink.clone()),
        topic: Some(topic.clone()),
        partition: Some(partition),
        offset: Some(offset),
        ..LetterFilter::default()
    };
    coordinator.letters.refresh(&coordinator.cluster, source_topics(&coordinator)).await?;
    let found = coordinator.letters.show(&coordinator.control.state(), &filter).await?;
    found.map(Json).ok_or_else(|| {
        ApiError::from(Refusal {
            code: "unknown_letter",
            message: format!("sink {sink} has no dead letter of {topic}[{partition}]@{offset}"),
            hint: Some("see GET /v1/dlq".to_owned()),
        })
    })
}
