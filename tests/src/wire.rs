//! A TCP proxy that can hold what passes: the place between two steps of a program, made as long
//! as a test wants it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::wait;

/// Which half of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// What the client says: held, the server has not heard it.
    Requests,
    /// What the server says: held, it is done and the client does not know.
    Answers,
}

/// What is held: one half of every connection that was there at the time.
type Hold = Option<(Half, u64)>;

/// See the module. Connections that are made while it holds pass freely.
#[derive(Debug)]
pub struct Wire {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    hold: Arc<watch::Sender<Hold>>,
    connections: Arc<AtomicU64>,
    counts: Arc<Counts>,
    trap: Arc<Trap>,
}

/// What the client must say for a half to be held from then on.
#[derive(Debug, Default)]
struct Trap(Mutex<Option<(&'static str, Half)>>);

/// Since the latest hold, on the connections that it concerns.
#[derive(Debug, Default)]
struct Counts {
    before: AtomicU64,
    /// Bytes that were held.
    held: AtomicUsize,
    /// Bytes that the server said.
    answered: AtomicUsize,
}

impl Wire {
    /// A proxy in front of a port on loopback.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hold, holds) = watch::channel(None);
        let wire = Self {
            port,
            hold: Arc::new(hold),
            connections: Arc::default(),
            counts: Arc::default(),
            trap: Arc::default(),
        };
        let (connections, shared) = (Arc::clone(&wire.connections), wire.shared());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                // Each half ends on its own: a request that is held still reaches the server when
                // its client is dead, as one in the network's buffers does.
                for (half, from, to) in [
                    (Half::Requests, from_client, to_server),
                    (Half::Answers, from_server, to_client),
                ] {
                    tokio::spawn(pass(half, number, from, to, holds.clone(), shared.clone()));
                }
            }
        });
        wire
    }

    fn shared(&self) -> Shared {
        Shared {
            hold: Arc::clone(&self.hold),
            connections: Arc::clone(&self.connections),
            counts: Arc::clone(&self.counts),
            trap: Arc::clone(&self.trap),
        }
    }

    /// Holds one half of the connections that there are now.
    pub fn hold(&self, half: Half) {
        self.shared().begin(half);
    }

    /// The same from the moment that a client says this; what it says with it is held too when that
    /// half is its own.
    pub fn hold_when_said(&self, words: &'static str, half: Half) {
        self.counts.held.store(0, Ordering::SeqCst);
        *self.trap.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((words, half));
    }

    /// Lets everything pass, what was held first.
    pub fn release(&self) {
        self.hold.send_replace(None);
    }

    /// Waits until something is held.
    pub async fn holds_something(&self) {
        wait::until("something is held on the wire", wait::SOON, async || {
            let held = self.counts.held.load(Ordering::SeqCst);
            wait::check(held > 0, held)
        })
        .await;
    }

    /// Waits until the server has answered on a connection that was held.
    pub async fn is_answered(&self) {
        wait::until("what was held is answered", wait::SOON, async || {
            let answered = self.counts.answered.load(Ordering::SeqCst);
            wait::check(answered > 0, answered)
        })
        .await;
    }
}

/// What a wire and its connections share.
#[derive(Clone)]
struct Shared {
    hold: Arc<watch::Sender<Hold>>,
    connections: Arc<AtomicU64>,
    counts: Arc<Counts>,
    trap: Arc<Trap>,
}

impl Shared {
    fn begin(&self, half: Half) {
        let before = self.connections.load(Ordering::SeqCst);
        self.counts.before.store(before, Ordering::SeqCst);
        self.counts.held.store(0, Ordering::SeqCst);
        self.counts.answered.store(0, Ordering::SeqCst);
        self.hold.send_replace(Some((half, before)));
    }

    fn heard(&self, said: &[u8]) {
        let mut trap = self.trap.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sprung = trap.filter(|(words, _)| {
            said.windows(words.len()).any(|window| window == words.as_bytes())
        });
        if let Some((_, half)) = sprung {
            *trap = None;
            self.begin(half);
        }
    }
}

async fn pass(
    half: Half,
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut holds: watch::Receiver<Hold>,
    shared: Shared,
) {
    let counts = &shared.counts;
    let is_held = |hold: &Hold| hold.is_some_and(|(of, before)| of == half && number < before);
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if half == Half::Answers && number < counts.before.load(Ordering::SeqCst) {
            counts.answered.fetch_add(read, Ordering::SeqCst);
        }
        if half == Half::Requests {
            shared.heard(&buffer[..read]);
        }
        let held = is_held(&holds.borrow_and_update());
        if held {
            counts.held.fetch_add(read, Ordering::SeqCst);
            if holds.wait_for(|hold| !is_held(hold)).await.is_err() {
                return;
            }
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
