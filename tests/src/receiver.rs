//! A webhook receiver that answers as it is told and remembers what came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::wait;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The header `webhook-id`.
    pub id: String,
    /// The whole body.
    pub body: Value,
    /// `key` of the body.
    pub key: Value,
    /// `metadata.topic`.
    pub topic: String,
    /// `metadata.partition`.
    pub partition: i32,
    /// `metadata.offset`.
    pub offset: i64,
    /// The status it was answered with; 0: taken and not answered (yet).
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
}

impl Delivery {
    /// What names the event.
    pub fn event(&self) -> (i32, i64) {
        (self.partition, self.offset)
    }
}

type Answer = Arc<dyn Fn(&Delivery) -> u16 + Send + Sync>;

struct Inner {
    deliveries: Mutex<Vec<Delivery>>,
    answer: Mutex<Answer>,
    mute: watch::Sender<bool>,
}

/// The receiver. It stops listening when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    inner: Arc<Inner>,
    stop: CancellationToken,
}

impl Receiver {
    /// Listens on a free port of loopback and answers 204.
    pub async fn start() -> Self {
        let inner = Inner {
            deliveries: Mutex::default(),
            answer: Mutex::new(Arc::new(|_: &Delivery| 204)),
            mute: watch::Sender::new(false),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, inner: Arc::new(inner), stop: CancellationToken::new() };
        receiver.serve(listener);
        receiver
    }

    fn serve(&self, listener: TcpListener) {
        let app = Router::new().fallback(take).with_state(Arc::clone(&self.inner));
        let stop = self.stop.clone();
        tokio::spawn(async move {
            // Not graceful: open connections end too.
            let _ = stop.run_until_cancelled(async { axum::serve(listener, app).await }).await;
        });
    }

    /// Where events are to be sent.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Chooses the status of every further answer.
    pub fn answer(&self, answer: impl Fn(&Delivery) -> u16 + Send + Sync + 'static) {
        *self.inner.answer.lock().unwrap() = Arc::new(answer);
    }

    /// Takes requests without answering them; unmuted, it answers those whose sender still waits.
    pub fn mute(&self, mute: bool) {
        self.inner.mute.send_replace(mute);
    }

    /// Refuses connections from now on.
    pub fn go_away(&mut self) {
        self.stop.cancel();
        self.stop = CancellationToken::new();
        // Kept-alive connections are served by tasks of their own: they get no answer of worth.
        self.answer(|_| 503);
    }

    /// Listens again at the same address and answers 204.
    pub async fn come_back(&self) {
        self.answer(|_| 204);
        let listener = wait::until("the receiver's port is free again", wait::SOON, async || {
            TcpListener::bind(self.address).await
        })
        .await;
        self.serve(listener);
    }

    /// Everything that came, in order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().unwrap().clone()
    }

    /// Events answered with 2xx, by partition and offset.
    pub fn acknowledged(&self) -> BTreeSet<(i32, i64)> {
        let deliveries = self.inner.deliveries.lock().unwrap();
        let taken = deliveries.iter().filter(|delivery| (200..300).contains(&delivery.status));
        taken.map(Delivery::event).collect()
    }

    /// Waits until exactly these events were taken.
    pub async fn has(&self, expected: &BTreeSet<(i32, i64)>) {
        wait::until("the webhook has every event", wait::SOON, async || {
            let got = self.acknowledged();
            let missing: Vec<_> = expected.difference(&got).take(5).copied().collect();
            let extra: Vec<_> = got.difference(expected).take(5).copied().collect();
            wait::check(missing.is_empty() && extra.is_empty(), (got.len(), missing, extra))
        })
        .await;
    }

    /// Checks what at-least-once promises: one id per event, ids of different events differ, the
    /// same body at each repetition, first deliveries in order per key and partition.
    pub fn check_promise(&self) {
        let mut ids: BTreeMap<(String, i32, i64), (String, Value)> = BTreeMap::new();
        let mut events: BTreeMap<String, (String, i32, i64)> = BTreeMap::new();
        let mut last: BTreeMap<(String, i32, String), i64> = BTreeMap::new();
        for delivery in self.deliveries() {
            let event = (delivery.topic.clone(), delivery.partition, delivery.offset);
            let first = !ids.contains_key(&event);
            let (id, body) = ids
                .entry(event.clone())
                .or_insert_with(|| (delivery.id.clone(), delivery.body.clone()));
            assert_eq!(*id, delivery.id, "event {event:?} came with two ids");
            assert_eq!(*body, delivery.body, "event {event:?} came with two bodies");
            let named = events.entry(delivery.id.clone()).or_insert_with(|| event.clone());
            assert_eq!(*named, event, "two events share the id {}", delivery.id);
            if first {
                let key = (delivery.topic.clone(), delivery.partition, delivery.key.to_string());
                let before = last.insert(key, delivery.offset);
                assert!(
                    before.is_none_or(|before| before < delivery.offset),
                    "key {} of {}[{}]: offset {} was first delivered after {before:?}",
                    delivery.key,
                    delivery.topic,
                    delivery.partition,
                    delivery.offset
                );
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST };
    let metadata = &body["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut delivery = Delivery {
        id: headers
            .get("webhook-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        key: body["key"].clone(),
        topic: text(&metadata["topic"]),
        partition: metadata["partition"].as_i64().unwrap_or(-1) as i32,
        offset: metadata["offset"].as_i64().unwrap_or(-1),
        status: 0,
        headers,
        body,
    };
    let answer = inner.answer.lock().unwrap().clone();
    let status = answer(&delivery);
    let mut mute = inner.mute.subscribe();
    let is_mute = *mute.borrow_and_update();
    delivery.status = if is_mute { 0 } else { status };
    let place = {
        let mut deliveries = inner.deliveries.lock().unwrap();
        deliveries.push(delivery);
        deliveries.len() - 1
    };
    // Dropped here when its sender hangs up.
    if is_mute && mute.wait_for(|mute| !mute).await.is_ok() {
        inner.deliveries.lock().unwrap()[place].status = status;
    }
    StatusCode::from_u16(status).unwrap()
}
