//! Connections of callers: what axum's own loop lacks is a limit on how long somebody may take to say
//! what he wants.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use super::listen::Peer;

/// Longest time for the head of a request, and for a connection without one.
pub(super) const HEAD: Duration = Duration::from_secs(15);

/// Serves until `stop`, then finishes what is under way. A caller whose request's head is not complete
/// after `head` is cut off.
pub(super) async fn serve(
    mut listener: impl Listener<Addr = SocketAddr>,
    router: Router,
    head: Duration,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    // By pings, which whoever is gone does not answer.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head).keep_alive_timeout(head);
    let open = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let router = router.clone().layer(Extension(ConnectInfo(Peer(peer))));
        let service = TowerToHyperService::new(router);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error, "a connection has ended");
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}
