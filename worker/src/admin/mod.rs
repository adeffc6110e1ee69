//! What a worker answers to supervisors and monitors: `/livez`, `/readyz`, `/metrics`. No secrets,
//! no row data: it may listen beyond loopback without a token.

mod ready;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use cdc_shared::config::SinkType;
use cdc_shared::metrics::Page;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use ready::{Reason, STALL_LIMIT, Snapshot, StallWatch, reasons_against};

use crate::metrics::Metrics;
use crate::status::SharedStatus;

/// A consumer thread that took no turn for so long is dead, in milliseconds.
pub const POLL_LIMIT_MS: i64 = 30_000;

/// Why the address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It is in use, not ours, or no address.
    #[error(
        "cannot listen on {address} for /livez, /readyz and /metrics: {cause}; \
         change worker.bind or worker.port_base, or end what listens there"
    )]
    Bind {
        /// As it was given.
        address: String,
        /// What the system says.
        cause: std::io::Error,
    },
}

/// The bound server.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    status: SharedStatus,
    sink_type: SinkType,
    stalls: StallWatch,
    metrics: Metrics,
}

impl Admin {
    /// Binds `address` (`host:port`, port 0 for any free one).
    ///
    /// # Errors
    /// When the address cannot be had, naming it.
    pub async fn bind(
        address: &str,
        sink_type: SinkType,
        status: SharedStatus,
        metrics: Metrics,
    ) -> Result<Self, AdminError> {
        let failed = |cause| AdminError::Bind { address: address.to_owned(), cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let shared = Shared { status, sink_type, stalls: StallWatch::default(), metrics };
        Ok(Self { listener, address: bound, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, which comes after the drain: a draining worker still says so.
    pub async fn serve(self, stop: CancellationToken) {
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.shared);
        let listener = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "nodelay");
            }
        });
        tokio::select! {
            served = axum::serve(listener, router) => {
                if let Err(error) = served {
                    tracing::error!(address = %self.address, %error, "admin server ended");
                }
            }
            () = stop.cancelled() => {}
        }
    }
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    reasons: Vec<Reason>,
}

fn answer(good: &'static str, bad: &'static str, reasons: Vec<Reason>) -> Response {
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, good)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, bad)
    };
    (code, Json(Answer { status, reasons })).into_response()
}

/// Whether a restart is needed: nothing outside this process counts.
async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    let snapshot = Snapshot::take(&shared.status, shared.sink_type, &shared.stalls);
    answer("live", "dead", ready::polling(&snapshot).into_iter().collect())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let snapshot = Snapshot::take(&shared.status, shared.sink_type, &shared.stalls);
    answer("ready", "not_ready", reasons_against(&snapshot))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, Page::content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        cdc_shared::tls::install_crypto();
        let tls = cdc_shared::config::TlsConfig::default();
        let client = cdc_shared::http::client(&tls, std::time::Duration::from_secs(10)).unwrap();
        let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn it_answers_live_ready_and_metrics() {
        let status = SharedStatus::default();
        let metrics = Metrics::new("shop", "wh", status.clone());
        let bound = Admin::bind("127.0.0.1:0", SinkType::Webhook, status.clone(), metrics).await;
        let admin = bound.unwrap();
        let (address, stop) = (admin.address(), CancellationToken::new());
        let server = tokio::spawn(admin.serve(stop.clone()));

        assert_eq!(get(address, "/livez").await.0, 200, "a start may take long");
        let (code, body) = get(address, "/readyz").await;
        assert_eq!(code, 503);
        assert!(body.contains(r#""status":"not_ready""#), "{body}");
        assert!(body.contains(r#""code":"sink_unproven""#), "{body}");

        for flag in [&status.joined, &status.control_read, &status.proven] {
            flag.store(true, Ordering::Relaxed);
        }
        let (code, body) = get(address, "/readyz").await;
        assert_eq!((code, body.as_str()), (200, r#"{"status":"ready","reasons":[]}"#));

        status.last_poll_ms.store(1, Ordering::Relaxed);
        assert_eq!(get(address, "/livez").await.0, 503, "no turn since 1970");
        let (code, text) = get(address, "/metrics").await;
        assert_eq!(code, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let status = SharedStatus::default();
        let metrics = Metrics::new("shop", "wh", status.clone());
        let admin = Admin::bind(&address, SinkType::Webhook, status, metrics).await;
        let error = admin.err().unwrap().to_string();
        assert!(error.contains(&address) && error.contains("worker.bind"), "{error}");
    }
}
