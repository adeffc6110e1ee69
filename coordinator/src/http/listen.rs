//! Where the interface listens: plain, or by TLS with certificates that can be replaced.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::serve::Listener;
use cdc_shared::config::ServerTlsConfig;
use cdc_shared::tls::{self, TlsError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest time for a caller to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Callers that may be agreeing at once; further ones wait.
const MOST_HANDSHAKES: usize = 256;

/// Address of a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The certificates in use.
pub(crate) struct Certificates {
    acceptor: RwLock<TlsAcceptor>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(crate) fn new(config: &ServerTlsConfig) -> Result<Self, TlsError> {
        Ok(Self { acceptor: RwLock::new(acceptor(config)?) })
    }

    /// Reads the files again; connections that are open stay as they are.
    ///
    /// # Errors
    /// When one of them cannot be used: then nothing has changed.
    pub(crate) fn replace(&self, config: &ServerTlsConfig) -> Result<(), TlsError> {
        let new = acceptor(config)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn current(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn acceptor(config: &ServerTlsConfig) -> Result<TlsAcceptor, TlsError> {
    let mut server = tls::server_config(config)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Accepts by TLS. A caller that is slow to agree on keys keeps nobody else waiting.
pub(crate) struct TlsListener {
    tcp: TcpListener,
    certificates: Arc<Certificates>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(crate) fn new(tcp: TcpListener, certificates: Arc<Certificates>) -> Self {
        Self { tcp, certificates, handshakes: JoinSet::new() }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        let acceptor = self.certificates.current();
        self.handshakes.spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Some((stream, peer)),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "no TLS with a caller");
                    None
                }
                Err(_) => None,
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let has_room = self.handshakes.len() < MOST_HANDSHAKES;
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = ended {
                        return accepted;
                    }
                }
                // Waits by itself when the process has no file left.
                (stream, peer) = Listener::accept(&mut self.tcp), if has_room => {
                    self.begin(stream, peer);
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
