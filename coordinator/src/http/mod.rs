//! The HTTP interface: the only place where worker, command line and coordinator meet.

mod access;
mod checks;
mod commands;
mod connections;
mod console;
mod dlq;
mod error;
mod heartbeat;
mod limit;
mod listen;
mod openapi;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use cdc_shared::api::{
    AUDIT_PATH, COMMAND_PATH, DLQ_PATH, HEALTH_PATH, HEARTBEAT_PATH, LETTER_PATH, SCALING_PATH,
    SCHEMAS_PATH, STATUS_PATH, TASKS_PATH, WATERMARKS_PATH, WatermarkEntry, Watermarks,
};
use cdc_shared::audit::AuditTrail;
use cdc_shared::config::Role;
use cdc_shared::metrics::Page;
use cdc_shared::schema::SchemaReport;
use cdc_shared::task::Tasks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::connections::HEAD;
use self::error::ApiError;
use self::listen::TlsListener;
use crate::health::{HealthReport, StatusReport, health, status};
use crate::metrics;
use crate::scaling::ScalingReport;
use crate::state::Coordinator;
use crate::task;

pub(crate) use self::access::{Access, check_bind};
pub(crate) use self::listen::Certificates;

/// Largest request: a heartbeat with some ten thousand partitions.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Commands of the audit trail that one answer holds.
const MOST_ENTRIES: usize = 500;
/// Longest time for a request, its body included: more than a write of the control topic takes.
const LONGEST: Duration = Duration::from_secs(60);

type Shared = State<Arc<Coordinator>>;

/// Serves until `stop`, then finishes what is under way.
pub(crate) async fn serve(
    coordinator: Arc<Coordinator>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let certificates = coordinator.certificates.clone();
    let router = router(coordinator);
    match certificates {
        None => connections::serve(listener, router, HEAD, stop).await,
        Some(certificates) => {
            let listener = TlsListener::new(listener, certificates);
            connections::serve(listener, router, HEAD, stop).await;
        }
    }
}

/// Gives a request up that takes too long, slow bodies included.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(LONGEST, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::timeout(LONGEST).into_response())
}

fn router(coordinator: Arc<Coordinator>) -> Router {
    let access = |role: Role| {
        let state = (Arc::clone(&coordinator.access), role);
        middleware::from_fn_with_state(state, access::require)
    };
    let reader = Router::new()
        .route(HEALTH_PATH, get(get_health))
        .route(STATUS_PATH, get(get_status))
        .route(SCALING_PATH, get(get_scaling))
        .route(TASKS_PATH, get(get_tasks))
        .route(SCHEMAS_PATH, get(get_schemas))
        .route(AUDIT_PATH, get(get_audit))
        .route(DLQ_PATH, get(dlq::list))
        .route(LETTER_PATH, get(dlq::show))
        .route("/metrics", get(get_metrics))
        .route_layer(access(Role::Reader));
    let worker = Router::new()
        .route(HEARTBEAT_PATH, post(heartbeat::take))
        .route(WATERMARKS_PATH, get(get_watermarks))
        .route_layer(access(Role::Worker));
    let operator = Router::new()
        .route(COMMAND_PATH, post(commands::carry_out))
        .route_layer(access(Role::Operator));
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(get_ready))
        .route(openapi::OPENAPI_PATH, get(async || Json(&*openapi::DOCUMENT)))
        .merge(console::routes())
        .merge(reader)
        .merge(worker)
        .merge(operator)
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(in_time))
        .with_state(coordinator)
}

async fn get_health(State(coordinator): Shared) -> Json<HealthReport> {
    Json(health(&coordinator))
}

async fn get_status(State(coordinator): Shared) -> Json<StatusReport> {
    Json(status(&coordinator))
}

async fn get_scaling(State(coordinator): Shared) -> Json<ScalingReport> {
    let pipeline_id = coordinator.config.pipeline_id.clone();
    Json(ScalingReport { pipeline_id, sinks: coordinator.scaling.report() })
}

async fn get_schemas(State(coordinator): Shared) -> Json<SchemaReport> {
    Json(coordinator.schemas.report(&coordinator))
}

async fn get_audit(State(coordinator): Shared) -> Json<AuditTrail> {
    let entries = coordinator.control.state().audit().take(MOST_ENTRIES).collect();
    Json(AuditTrail { pipeline_id: coordinator.config.pipeline_id.clone(), entries })
}

async fn get_tasks(State(coordinator): Shared) -> Json<Tasks> {
    let pipeline_id = coordinator.config.pipeline_id.clone();
    Json(Tasks { pipeline_id, tasks: task::views(&coordinator) })
}

/// Ready means: the control topic was read, and the store and Kafka answer.
async fn get_ready(State(coordinator): Shared) -> Response {
    use crate::health::ServiceState::Down;
    let facts = coordinator.probes.facts();
    let mut reasons = Vec::new();
    if !coordinator.control.status().complete {
        reasons.push("the control topic has not been read yet".to_owned());
    }
    for (name, service) in [("kafka", &facts.kafka), ("watermark store", &facts.redis)] {
        if service.state == Down {
            let cause = service.error.as_deref().unwrap_or("no answer");
            reasons.push(format!("{name}: {cause}"));
        }
    }
    if reasons.is_empty() {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n")).into_response()
}

async fn get_metrics(State(coordinator): Shared) -> Result<Response, ApiError> {
    let text = metrics::encode(&coordinator, &health(&coordinator))
        .map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, Page::content_type())], text).into_response())
}

async fn get_watermarks(
    State(coordinator): Shared,
    Path(sink): Path<String>,
) -> Result<Json<Watermarks>, ApiError> {
    let stored = coordinator.store.read(&sink).await.map_err(|error| ApiError::store(&error))?;
    let entries = stored
        .into_iter()
        .map(|(tp, position)| WatermarkEntry {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            position,
        })
        .collect();
    Ok(Json(Watermarks { entries }))
}

fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
