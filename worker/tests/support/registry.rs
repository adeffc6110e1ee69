//! A schema registry that knows the versions of a subject, and nothing else.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

type Versions = Arc<Vec<(i32, String)>>;

async fn numbers(State(versions): State<Versions>) -> Result<String, StatusCode> {
    if versions.is_empty() {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(Value::from((1..=versions.len()).collect::<Vec<_>>()).to_string())
}

async fn version(
    State(versions): State<Versions>,
    Path((_, number)): Path<(String, usize)>,
) -> Result<String, StatusCode> {
    let (id, _) = versions.get(number - 1).ok_or(StatusCode::NOT_FOUND)?;
    Ok(json!({"version": number, "id": id}).to_string())
}

async fn schema(
    State(versions): State<Versions>,
    Path(wanted): Path<i32>,
) -> Result<String, StatusCode> {
    let found = versions.iter().find(|(id, _)| *id == wanted).ok_or(StatusCode::NOT_FOUND)?;
    Ok(json!({"schema": found.1}).to_string())
}

/// Starts it with a subject's schemas and their ids, oldest first; its address.
pub(crate) fn registry(versions: Vec<(i32, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new()
        .route("/subjects/{subject}/versions", get(numbers))
        .route("/subjects/{subject}/versions/{number}", get(version))
        .route("/schemas/ids/{id}", get(schema))
        .with_state(Arc::new(versions));
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}
