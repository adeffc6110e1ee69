//! Status codes of failures live here and only here.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cdc_shared::api::ErrorBody;

use crate::control::ControlError;
use crate::control::commands::Refusal;
use crate::kafka::KafkaTrouble;
use crate::watermark::StoreError;

/// Every code of a refusal, with the statuses that it comes with.
pub(super) const CODES: &[(&str, &[u16])] = &[
    ("control_unavailable", &[503]),
    ("foreign_host", &[403]),
    ("internal", &[500]),
    ("invalid", &[400, 413, 415, 422]),
    ("invalid_offset", &[422]),
    ("invalid_range", &[422]),
    ("kafka_unavailable", &[503]),
    ("no_ids", &[422]),
    ("no_worker", &[409]),
    ("not_found", &[404]),
    ("not_leader", &[409]),
    ("replay_runs", &[409]),
    ("replay_unsupported", &[422]),
    ("rows_would_repeat", &[422]),
    ("search_failed", &[503]),
    ("sink_live", &[409]),
    ("store_unreadable", &[503]),
    ("timeout", &[503]),
    ("too_many_failures", &[429]),
    ("too_many_settled", &[422]),
    ("too_many_tasks", &[409]),
    ("topic_recreated", &[422]),
    ("unauthorized", &[401]),
    ("unknown_letter", &[404]),
    ("unknown_partition", &[404]),
    ("unknown_schema", &[404]),
    ("unknown_sink", &[404]),
    ("unknown_task", &[404]),
    ("unknown_topic", &[404]),
    ("wrong_method", &[405]),
    ("wrong_pipeline", &[422]),
];

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<Duration>,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: String, hint: Option<&str>) -> Self {
        let (code, hint) = (code.to_owned(), hint.map(ToOwned::to_owned));
        Self { status, body: ErrorBody { code, message, hint, leader: None }, retry_after: None }
    }

    pub(crate) fn not_found() -> Self {
        let hint = Some("see /v1/health, /v1/status");
        Self::new(StatusCode::NOT_FOUND, "not_found", "no such path".to_owned(), hint)
    }

    /// `leader`: where it is, as far as this one knows.
    pub(crate) fn not_leader(leader: Option<String>) -> Self {
        let hint = match &leader {
            Some(url) => format!("ask {url}, which led last, or again in a few seconds"),
            None => "ask the leading coordinator, or again in a few seconds".to_owned(),
        };
        let mut refusal = Self::new(
            StatusCode::CONFLICT,
            "not_leader",
            "this coordinator does not lead the pipeline (yet)".to_owned(),
            Some(&hint),
        );
        refusal.body.leader = leader;
        refusal
    }

    pub(crate) fn unauthorized(role: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            format!("this needs the {role} token"),
            Some("send it as Authorization: Bearer …; it is set in coordinator.tokens"),
        )
    }

    pub(crate) fn too_many_failures(wait: Duration) -> Self {
        let refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_failures",
            "too many wrong tokens have come from this address".to_owned(),
            Some("correct the token, and wait: a try comes back every second"),
        );
        Self { retry_after: Some(wait), ..refusal }
    }

    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            format!("this took longer than {limit:?} and was given up"),
            Some("try again: commands may be repeated"),
        )
    }

    pub(crate) fn wrong_pipeline(theirs: &str, ours: &str) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "wrong_pipeline",
            format!("this coordinator serves pipeline {ours:?}, not {theirs:?}"),
            Some("check coordinator.url and pipeline_id of the worker"),
        )
    }

    pub(crate) fn wrong_method() -> Self {
        let message = "this path does not take that method".to_owned();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message, None)
    }

    pub(crate) fn foreign_host() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "foreign_host",
            "without a token this answers only to an IP address or localhost as its host"
                .to_owned(),
            Some("call it by its address, or set coordinator.tokens"),
        )
    }

    pub(crate) fn invalid(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message, None)
    }

    pub(crate) fn store(error: &StoreError) -> Self {
        let hint = Some("wait until it answers; an unreadable watermark is not an absent one");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unreadable", error.to_string(), hint)
    }

    /// A topic that was not read to the place that a rewind names.
    pub(crate) fn unsearched(message: String) -> Self {
        let hint = Some("give a time, or an offset of each partition, instead");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "search_failed", message, hint)
    }

    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string(), None)
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotLeader => Self::not_leader(None),
            ControlError::Write(_) | ControlError::ReadBack => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "control_unavailable",
                error.to_string(),
                Some("try again: commands may be repeated"),
            ),
        }
    }
}

/// A body that is too large, of another type, no JSON, or other JSON.
impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let status = match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self::new(status, "invalid", rejection.body_text(), None)
    }
}

impl From<KafkaTrouble> for ApiError {
    fn from(error: KafkaTrouble) -> Self {
        let hint = Some("try again when Kafka answers");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "kafka_unavailable", error.to_string(), hint)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            "unknown_sink" | "unknown_topic" | "unknown_partition" | "unknown_task"
            | "unknown_schema" | "unknown_letter" => StatusCode::NOT_FOUND,
            "sink_live" | "no_worker" | "too_many_tasks" | "replay_runs" => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, refusal.code, refusal.message, refusal.hint.as_deref())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = HeaderValue::from(wait.as_secs().saturating_add(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}
