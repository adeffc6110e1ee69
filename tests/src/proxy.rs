//! A reverse proxy in front of an HTTP service: asks for a password, and hides what it is told to.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use tokio::net::TcpListener;

use crate::record::http;

struct Inner {
    upstream: String,
    authorization: Option<String>,
    hidden: Mutex<Option<(String, u16)>>,
    client: reqwest::Client,
}

/// The proxy; it lives as long as the runtime that started it.
pub struct Proxy {
    address: String,
    inner: Arc<Inner>,
}

impl Proxy {
    /// Listens in front of `upstream` (scheme, host, port), asking for user and password if given.
    pub async fn start(upstream: &str, basic: Option<(&str, &str)>) -> Self {
        let authorization = basic.map(|(user, password)| {
            let text = format!("{user}:{password}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
        });
        let inner = Arc::new(Inner {
            upstream: upstream.trim_end_matches('/').to_owned(),
            authorization,
            hidden: Mutex::default(),
            client: http(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(pass).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, inner }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Answers `status` to every path that contains `part`, or shows everything again.
    pub fn hide(&self, hidden: Option<(&str, u16)>) {
        *self.inner.hidden.lock().unwrap() = hidden.map(|(part, status)| (part.to_owned(), status));
    }
}

async fn pass(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if inner.authorization.is_some() && given != inner.authorization.as_deref() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let hidden = inner.hidden.lock().unwrap().clone();
    if let Some((part, status)) = hidden
        && path.contains(&part)
    {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    forward(&inner.client, &format!("{}{path}", inner.upstream), method, &headers, body).await
}

/// Sends a request on, and gives the answer.
pub(crate) async fn forward(
    client: &reqwest::Client,
    url: &str,
    method: Method,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let mut request = client.request(method, url).body(body);
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = headers.get(&name) {
            request = request.header(name, value);
        }
    }
    match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
            let kind = kind.into_iter().map(|kind| (header::CONTENT_TYPE, kind));
            let headers: HeaderMap = kind.collect();
            (status, headers, answer.bytes().await.unwrap_or_default()).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
