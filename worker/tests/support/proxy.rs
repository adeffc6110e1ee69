//! A TCP proxy that can lose what passes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the proxy loses next, once; then it passes everything again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Lose {
    /// Nothing.
    Nothing = 0,
    /// The next thing the client says; the connection ends.
    Request = 1,
    /// The next thing the server says, which has therefore been done; the connection ends.
    Answer = 2,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    lose: Arc<AtomicU8>,
}

impl Proxy {
    /// A proxy in front of a port on localhost.
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lose = Arc::new(AtomicU8::new(0));
        let armed = lose.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to, armed.clone()));
            }
        });
        Self { port, lose }
    }

    /// Loses something next.
    pub(crate) fn lose(&self, what: Lose) {
        self.lose.store(what as u8, Ordering::SeqCst);
    }

    /// Whether what was to be lost is lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.lose.load(Ordering::SeqCst) == Lose::Nothing as u8
    }
}

async fn pass(mut client: TcpStream, to: u16, lose: Arc<AtomicU8>) {
    let Ok(mut server) = TcpStream::connect(("localhost", to)).await else { return };
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    let is_lost = |what: Lose| {
        lose.compare_exchange(what as u8, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(1..) = read else { return };
                if is_lost(Lose::Request) || server.write_all(&up[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(1..) = read else { return };
                if is_lost(Lose::Answer) || client.write_all(&down[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
        }
    }
}
