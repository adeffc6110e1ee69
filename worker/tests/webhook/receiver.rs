//! An HTTP receiver that answers by a script and remembers what it got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response};
use axum::serve::Listener;
use futures::stream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// What comes back for one request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(u16),
    With(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Never.
    Hang,
    /// The connection is closed without an answer.
    Cut,
    /// This status and a body without end.
    Endless(u16),
    /// This status and a body that never comes.
    Stuck(u16),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// From 1, per event.
    pub(crate) attempt: usize,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    /// Requests under way, with this one.
    pub(crate) concurrent: usize,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn event(&self) -> (i32, i64) {
        (self.partition, self.offset)
    }
}

/// What a receiver remembers.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) deliveries: Vec<Delivery>,
    /// Answered with success, by partition and offset.
    pub(crate) acknowledged: BTreeSet<(i32, i64)>,
    attempts: BTreeMap<(i32, i64), usize>,
    under_way: usize,
}

type Script = Arc<dyn Fn(&Delivery) -> Answer + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) changed: watch::Sender<u64>,
    script: Script,
}

impl Receiver {
    pub(crate) async fn start(
        script: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::serve(listener, address, script)
    }

    pub(crate) fn serve<L: Listener>(
        listener: L,
        address: SocketAddr,
        script: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self
    where
        L::Addr: std::fmt::Debug,
    {
        let receiver = Self {
            address,
            seen: Arc::default(),
            changed: watch::Sender::new(0),
            script: Arc::new(script),
        };
        let router = Router::new().fallback(answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/cdc-events?key=hunter2", self.address)
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.seen.lock().unwrap().deliveries.clone()
    }

    pub(crate) fn acknowledged(&self) -> BTreeSet<(i32, i64)> {
        self.seen.lock().unwrap().acknowledged.clone()
    }

    /// Attempts of one event.
    pub(crate) fn attempts(&self, offset: i64) -> Vec<Delivery> {
        self.deliveries().into_iter().filter(|delivery| delivery.offset == offset).collect()
    }

    fn took(&self, method: Method, headers: HeaderMap, body: Bytes) -> Delivery {
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let metadata = &value["metadata"];
        let partition = metadata["partition"].as_i64().unwrap() as i32;
        let offset = metadata["offset"].as_i64().unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.under_way += 1;
        let attempt = seen.attempts.entry((partition, offset)).or_default();
        *attempt += 1;
        let delivery = Delivery {
            topic: metadata["topic"].as_str().unwrap().to_owned(),
            partition,
            offset,
            attempt: *attempt,
            method,
            headers,
            body,
            at: Instant::now(),
            concurrent: seen.under_way,
        };
        seen.deliveries.push(delivery.clone());
        delivery
    }
}

/// Counts a request out when it ends, however it ends.
struct UnderWay(Receiver);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.seen.lock().unwrap().under_way -= 1;
        self.0.changed.send_modify(|count| *count += 1);
    }
}

async fn answer(
    State(receiver): State<Receiver>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let delivery = receiver.took(method, headers, body);
    receiver.changed.send_modify(|count| *count += 1);
    let _under_way = UnderWay(receiver.clone());
    // Lets other requests in, so that those under way at once can be seen.
    tokio::task::yield_now().await;
    let answer = (receiver.script)(&delivery);
    let acknowledged = |status: u16| {
        if (200..300).contains(&status) {
            receiver.seen.lock().unwrap().acknowledged.insert(delivery.event());
        }
        Response::builder().status(status)
    };
    match answer {
        Answer::Status(status) => acknowledged(status).body(Body::empty()).unwrap(),
        Answer::With(status, headers, body) => {
            let builder = headers
                .iter()
                .fold(acknowledged(status), |builder, (name, value)| builder.header(*name, *value));
            builder.body(Body::from(body)).unwrap()
        }
        Answer::Hang => std::future::pending().await,
        // Ends the connection's task without the message of a panic.
        Answer::Cut => std::panic::resume_unwind(Box::new("cut")),
        Answer::Endless(status) => {
            let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 1 << 14]));
            acknowledged(status).body(Body::from_stream(chunks)).unwrap()
        }
        Answer::Stuck(status) => {
            let nothing = stream::pending::<Result<Vec<u8>, std::io::Error>>();
            acknowledged(status).body(Body::from_stream(nothing)).unwrap()
        }
    }
}
