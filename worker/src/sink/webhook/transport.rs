//! The HTTP client of the sink: hyper's own, which `reqwest` is made of. One request per event is
//! all that this sink does, and it pays for what `reqwest` adds to each (redirects, the address
//! parsed again).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::address::Resolver;

/// Longest time for a TCP connection to come up.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// An idle connection is closed before the 60 seconds after which common load balancers do it.
const IDLE: Duration = Duration::from_secs(50);
/// How often an idle TCP connection asks whether the other side still lives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// The time of one attempt was over.
    #[error("timed out")]
    Timeout,
    /// The request could not be sent, or its answer not be read.
    #[error(transparent)]
    Request(#[from] hyper_util::client::legacy::Error),
}

/// Connections to the receiver. Redirects are not followed, and no proxy is used.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    timeout: Duration,
}

impl Transport {
    /// Keeps up to `max_idle` connections; `timeout` is that of one attempt, up to the head of its
    /// answer.
    pub(super) fn new(
        tls: rustls::ClientConfig,
        resolver: Resolver,
        max_idle: usize,
        timeout: Duration,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_connect_timeout(Some(timeout.min(CONNECT)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(max_idle)
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { client, timeout }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When no answer came in time, or none at all.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TransportError> {
        match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(TransportError::Timeout),
        }
    }
}
