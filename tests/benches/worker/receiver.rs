//! A receiver that answers 200 to everything, on a thread of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use tokio::sync::{Notify, oneshot};

use super::Error;

#[derive(Default)]
struct Seen {
    expected: usize,
    count: usize,
    first: Option<Instant>,
    last: Option<Instant>,
}

#[derive(Default)]
struct Counter {
    seen: Mutex<Seen>,
    complete: Notify,
}

/// See the module.
pub(crate) struct Receiver {
    counter: Arc<Counter>,
    /// Where it listens.
    pub(crate) url: String,
}

impl Receiver {
    /// Starts it; it lives as long as the process.
    pub(crate) async fn start() -> Result<Self, Error> {
        let counter = Arc::new(Counter::default());
        let router = Router::new().route("/events", post(receive)).with_state(counter.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (listening, address) = oneshot::channel();
        std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
                let _ = listening.send(listener.local_addr()?);
                axum::serve(listener, router).await
            })
        })?;
        let url = format!("http://{}/events", address.await?);
        Ok(Self { counter, url })
    }

    /// Counts anew, up to so many.
    pub(crate) fn expect(&self, expected: usize) {
        *self.counter.seen() = Seen { expected, ..Seen::default() };
    }

    /// Ends when all came: when the first and when the last did.
    pub(crate) async fn complete(&self) -> (Instant, Instant) {
        loop {
            let complete = self.counter.complete.notified();
            let (first, last) = {
                let seen = self.counter.seen();
                (seen.first, seen.last)
            };
            if let (Some(first), Some(last)) = (first, last) {
                return (first, last);
            }
            complete.await;
        }
    }

    /// How many came.
    pub(crate) fn count(&self) -> usize {
        self.counter.seen().count
    }
}

impl Counter {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(counter): State<Arc<Counter>>, body: Bytes) {
    drop(body);
    let mut seen = counter.seen();
    seen.count += 1;
    if seen.count == 1 {
        seen.first = Some(Instant::now());
    }
    if seen.count == seen.expected {
        seen.last = Some(Instant::now());
        counter.complete.notify_waiters();
    }
}
