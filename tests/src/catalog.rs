//! What stands between a worker and the REST catalog in a test: it gives tokens for a client's
//! secret and asks for them, and fails commits as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::proxy::forward;
use crate::record::http;

/// The client's id and secret that tokens are given for.
pub const CREDENTIAL: &str = "worker:let me in";

/// What happens to a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is not done: somebody else was faster.
    Conflict,
    /// It is not done, and the catalog is in trouble.
    Fails,
    /// It is done, and the catalog is in trouble.
    FailsAfter,
    /// It is done, and there is never an answer.
    Silent,
    /// It is sent on twice, and the second answer is given.
    Twice,
}

/// All of them.
pub const FAULTS: [Fault; 5] =
    [Fault::Conflict, Fault::Fails, Fault::FailsAfter, Fault::Silent, Fault::Twice];

struct Inner {
    upstream: String,
    client: reqwest::Client,
    lifetime: u64,
    tokens: Mutex<Vec<String>>,
    given: AtomicUsize,
    commits: AtomicUsize,
    faults: Mutex<VecDeque<Fault>>,
}

/// The proxy; it lives as long as the runtime that started it.
pub struct CatalogProxy {
    address: String,
    inner: Arc<Inner>,
}

impl CatalogProxy {
    /// Listens in front of a catalog. Its tokens hold for so many seconds, as it says.
    pub async fn start(upstream: &str, lifetime: u64) -> Self {
        let inner = Arc::new(Inner {
            upstream: upstream.to_owned(),
            client: http(),
            lifetime,
            tokens: Mutex::default(),
            given: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            faults: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/oauth/tokens", post(token))
            .fallback(pass)
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, inner }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes no token any more that it gave so far.
    pub fn revoke(&self) {
        self.inner.tokens.lock().unwrap().clear();
    }

    /// Tokens that it gave.
    pub fn given(&self) -> usize {
        self.inner.given.load(Ordering::Relaxed)
    }

    /// Commits that were asked for.
    pub fn commits(&self) -> usize {
        self.inner.commits.load(Ordering::Relaxed)
    }

    /// What happens to the next commit that has no fault yet.
    pub fn fail(&self, fault: Fault) {
        self.inner.faults.lock().unwrap().push_back(fault);
    }

    /// Faults that have not happened yet.
    pub fn faults(&self) -> usize {
        self.inner.faults.lock().unwrap().len()
    }
}

/// Gives a token, as the standard has it.
async fn token(State(inner): State<Arc<Inner>>, body: String) -> Response {
    let (id, secret) = CREDENTIAL.split_once(':').unwrap();
    let has = |name: &str, value: &str| {
        let value = value.replace(' ', "+");
        body.split('&').any(|pair| pair == format!("{name}={value}"))
    };
    let is_right = has("grant_type", "client_credentials")
        && has("client_id", id)
        && has("client_secret", secret)
        && has("scope", "catalog");
    if !is_right {
        let refusal = json!({"error": "invalid_client", "error_description": "unknown client"});
        return (StatusCode::UNAUTHORIZED, Json(refusal)).into_response();
    }
    let token = format!("token-{}", inner.given.fetch_add(1, Ordering::Relaxed));
    inner.tokens.lock().unwrap().push(token.clone());
    let lifetime = inner.lifetime;
    Json(json!({"access_token": token, "token_type": "bearer", "expires_in": lifetime}))
        .into_response()
}

async fn pass(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|text| text.strip_prefix("Bearer "));
    let is_known = inner.tokens.lock().unwrap().iter().any(|token| Some(token.as_str()) == given);
    if !is_known {
        return answer(StatusCode::UNAUTHORIZED, "NotAuthorizedException", "who are you?");
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", inner.upstream);
    let send = || forward(&inner.client, &url, method.clone(), &headers, body.clone());
    // A table's own path is under `tables/`; what ends there makes one.
    if method != Method::POST || !path.contains("/tables/") {
        return send().await;
    }
    inner.commits.fetch_add(1, Ordering::Relaxed);
    let fault = inner.faults.lock().unwrap().pop_front();
    match fault {
        None => send().await,
        Some(Fault::Conflict) => answer(StatusCode::CONFLICT, "CommitFailedException", "too late"),
        Some(Fault::Fails) => answer(StatusCode::BAD_GATEWAY, "InternalServerError", "trouble"),
        Some(Fault::FailsAfter) => {
            send().await;
            answer(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "trouble afterwards")
        }
        Some(Fault::Silent) => {
            send().await;
            std::future::pending().await
        }
        Some(Fault::Twice) => {
            send().await;
            send().await
        }
    }
}

/// An error as the protocol has it.
fn answer(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({"message": message, "type": kind, "code": status.as_u16()});
    (status, Json(json!({"error": error}))).into_response()
}
