//! Heartbeats: the whole state of this worker at an interval, and what the coordinator wants of it.
//!
//! The coordinator is never needed to go on: while it is away the last directive stays in force,
//! and the control topic says the same a little later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cdc_shared::api::{Directive, Heartbeat, HeartbeatReply, WorkerIdentity};
use cdc_shared::config::PipelineConfig;
use cdc_shared::control::ControlState;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::client::{ClientError, CoordinatorClient};
use crate::source::control::ControlView;
use crate::status::SharedStatus;

/// Longest time for the last report of a worker that leaves.
const FINAL_DEADLINE: Duration = Duration::from_secs(1);

/// What the coordinator last answered; `None` before its first answer.
pub type LatestReply = Option<HeartbeatReply>;

/// The directive in force for a sink, or for one topic of it: the control topic's, unless the
/// coordinator's answer reflects more of that topic than we have read ourselves.
pub fn directive_in_force(
    control: &ControlState,
    reply: Option<&HeartbeatReply>,
    sink: &str,
    topic: Option<&str>,
) -> Directive {
    let Some(reply) = reply.filter(|reply| reply.control_offset > control.offset()) else {
        return control.directive(sink, topic);
    };
    let table = topic.and_then(|topic| reply.tables.iter().find(|table| table.topic == topic));
    match table {
        Some(table) if table.directive.state > reply.directive.state => table.directive.clone(),
        _ => reply.directive.clone(),
    }
}

/// The task that reports.
pub struct Reporter {
    client: CoordinatorClient,
    status: SharedStatus,
    identity: WorkerIdentity,
    pipeline_id: String,
    sink_id: String,
    interval: Duration,
    control: watch::Receiver<ControlView>,
    replies: watch::Sender<LatestReply>,
    /// Kind of the trouble that was told.
    trouble: Option<String>,
    sequence: AtomicU64,
}

impl Reporter {
    /// A reporter for one sink, and where its coordinator's latest answer is found.
    pub fn new(
        client: CoordinatorClient,
        config: &PipelineConfig,
        sink_id: &str,
        identity: WorkerIdentity,
        status: SharedStatus,
        control: watch::Receiver<ControlView>,
    ) -> (Self, watch::Receiver<LatestReply>) {
        let (replies, latest) = watch::channel(None);
        let reporter = Self {
            client,
            status,
            identity,
            pipeline_id: config.pipeline_id.clone(),
            sink_id: sink_id.to_owned(),
            interval: config.heartbeat_interval().max(Duration::from_millis(10)),
            control,
            replies,
            trouble: None,
            sequence: AtomicU64::new(0),
        };
        (reporter, latest)
    }

    /// Reports at `coordinator.heartbeat_interval_seconds` until `stop`, then once more. Cancel
    /// `stop` only when the drain is over, so that the last report holds the last watermark.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                // Records wait for the answer.
                () = self.status.asked.notified() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.report() => {}
            }
        }
        let last = self.heartbeat();
        let leader = self.leader();
        let farewell = self.client.heartbeat(&last, leader.as_deref());
        match tokio::time::timeout(FINAL_DEADLINE, farewell).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "last report not taken"),
            Err(_) => tracing::debug!(deadline = ?FINAL_DEADLINE, "last report not taken in time"),
        }
    }

    async fn report(&mut self) {
        let heartbeat = self.heartbeat();
        let leader = self.leader();
        match self.client.heartbeat(&heartbeat, leader.as_deref()).await {
            Ok(reply) => {
                self.recovered();
                self.take(reply);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn leader(&self) -> Option<String> {
        self.control.borrow().state.leader().map(ToOwned::to_owned)
    }

    /// Keeps an answer, unless we have read more of the control topic than it reflects.
    fn take(&self, reply: HeartbeatReply) {
        if reply.control_offset < self.control.borrow().state.offset() {
            tracing::debug!(offset = reply.control_offset, "answer older than the control topic");
            return;
        }
        self.replies.send_if_modified(|latest| {
            let changed = latest.as_ref() != Some(&reply);
            *latest = Some(reply);
            changed
        });
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(address = self.client.address(), "coordinator answers again");
        }
    }

    fn failed(&mut self, error: &ClientError) {
        if self.trouble.as_deref() == Some(error.kind()) {
            tracing::debug!(%error, "heartbeat not taken");
        } else {
            tracing::warn!(%error, "heartbeat not taken; delivery goes on, last directive stays");
            self.trouble = Some(error.kind().to_owned());
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            pipeline_id: self.pipeline_id.clone(),
            worker: self.identity.clone(),
            sink_id: self.sink_id.clone(),
            state: self.status.state(),
            partitions: self.status.partitions(),
            counters: self.status.counters(),
            last_error: self.status.last_error(),
            control_offset: self.control.borrow().state.offset(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            tasks: self.status.tasks(),
            schema_questions: self.status.questions(),
            replays: self.status.replays(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use axum::{Json, Router};
    use cdc_shared::api::{DirectiveState, ErrorBody, HEARTBEAT_PATH, TableDirective, WorkerState};
    use cdc_shared::control::ControlRecord;
    use tokio::sync::mpsc;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn directive(state: DirectiveState) -> Directive {
        Directive { state, reason: "because".into() }
    }

    fn reply(state: DirectiveState, control_offset: i64) -> HeartbeatReply {
        HeartbeatReply { directive: directive(state), tables: Vec::new(), control_offset }
    }

    /// A control topic read up to `offset`, which says `state`.
    fn control(state: DirectiveState, offset: i64) -> ControlState {
        let record = ControlRecord::Directive {
            sink: "wh".into(),
            topic: None,
            directive: directive(state),
            by: "op".into(),
            at_ms: 1,
        };
        let mut control = ControlState::default();
        let value = serde_json::to_vec(&record).unwrap();
        control.apply(offset - 1, &record.key(), Some(&value)).unwrap();
        control
    }

    #[test]
    fn whoever_has_read_further_decides() {
        use DirectiveState::{Pause, Run, Stop};
        let state = |control: &ControlState, reply: Option<&HeartbeatReply>, topic| {
            directive_in_force(control, reply, "wh", topic).state
        };
        let control = control(Pause, 10);
        assert_eq!(state(&control, None, None), Pause);
        assert_eq!(state(&control, Some(&reply(Run, 9)), None), Pause);
        assert_eq!(state(&control, Some(&reply(Run, 10)), None), Pause);
        let mut newer = reply(Run, 11);
        assert_eq!(state(&control, Some(&newer), None), Run);
        newer.tables = vec![TableDirective { topic: "t".into(), directive: directive(Stop) }];
        assert_eq!(state(&control, Some(&newer), Some("t")), Stop, "the stricter holds");
        assert_eq!(state(&control, Some(&newer), Some("u")), Run);
    }

    type Answer = Result<HeartbeatReply, ErrorBody>;

    #[derive(Clone)]
    struct Stub {
        heard: mpsc::Sender<(Option<String>, Heartbeat)>,
        answer: watch::Receiver<Answer>,
    }

    async fn hear(
        State(stub): State<Stub>,
        headers: HeaderMap,
        Json(heartbeat): Json<Heartbeat>,
    ) -> Result<Json<HeartbeatReply>, (StatusCode, Json<ErrorBody>)> {
        let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let _ = stub.heard.try_send((token, heartbeat));
        let answer = stub.answer.borrow().clone();
        answer.map(Json).map_err(|body| (StatusCode::UNAUTHORIZED, Json(body)))
    }

    struct Coordinator {
        url: String,
        heard: mpsc::Receiver<(Option<String>, Heartbeat)>,
        answer: watch::Sender<Answer>,
    }

    async fn coordinator(first: Answer) -> Coordinator {
        let (heard_by, heard) = mpsc::channel(1024);
        let (answer, answers) = watch::channel(first);
        let stub = Stub { heard: heard_by, answer: answers };
        let router = Router::new().route(HEARTBEAT_PATH, post(hear)).with_state(stub);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Coordinator { url, heard, answer }
    }

    fn config(url: &str) -> PipelineConfig {
        let mut config = PipelineConfig { pipeline_id: "p".into(), ..PipelineConfig::default() };
        config.coordinator.url = Some(url.to_owned());
        config.coordinator.tokens.worker = Some("worker-token".into());
        config.coordinator.heartbeat_interval_seconds = 0.02;
        config
    }

    fn client(config: &PipelineConfig) -> CoordinatorClient {
        cdc_shared::tls::install_crypto();
        CoordinatorClient::new(config).unwrap()
    }

    fn reporter(
        config: &PipelineConfig,
        status: &SharedStatus,
        view: watch::Receiver<ControlView>,
    ) -> (Reporter, watch::Receiver<LatestReply>) {
        let identity = WorkerIdentity {
            id: "host-1".into(),
            version: "0".into(),
            config_hash: "h".into(),
            admin_address: "127.0.0.1:1".into(),
        };
        Reporter::new(client(config), config, "wh", identity, status.clone(), view)
    }

    async fn within<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(DEADLINE, what).await.expect("in time")
    }

    #[tokio::test]
    async fn it_reports_takes_newer_answers_and_says_farewell() {
        use DirectiveState::{Pause, Run, Stop};
        let mut coordinator = coordinator(Ok(reply(Pause, 12))).await;
        let config = config(&coordinator.url);
        let state = Arc::new(control(Run, 10));
        let (view, views) = watch::channel(ControlView { state, complete: true });
        let status = SharedStatus::default();
        let (reporter, mut latest) = reporter(&config, &status, views);
        let stop = CancellationToken::new();
        let task = tokio::spawn(reporter.run(stop.clone()));

        let (token, heartbeat) = within(coordinator.heard.recv()).await.unwrap();
        assert_eq!(token.as_deref(), Some("Bearer worker-token"));
        let told = (heartbeat.pipeline_id.as_str(), heartbeat.sink_id.as_str());
        assert_eq!((told, heartbeat.control_offset), (("p", "wh"), 10));
        let is = |state: DirectiveState| {
            move |latest: &LatestReply| latest.as_ref().is_some_and(|r| r.directive.state == state)
        };
        within(latest.wait_for(is(Pause))).await.unwrap();

        // We read past the coordinator's knowledge: its answers are old news until it caught up.
        view.send_replace(ControlView { state: Arc::new(control(Run, 20)), complete: true });
        let _ = coordinator.answer.send_replace(Ok(reply(Stop, 19)));
        while within(coordinator.heard.recv()).await.unwrap().1.control_offset < 20 {}
        within(coordinator.heard.recv()).await.unwrap();
        assert!(is(Pause)(&latest.borrow()));
        let _ = coordinator.answer.send_replace(Ok(reply(Stop, 21)));
        within(latest.wait_for(is(Stop))).await.unwrap();

        status.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        stop.cancel();
        within(task).await.unwrap();
        let mut last = None;
        while let Ok((_, heartbeat)) = coordinator.heard.try_recv() {
            last = Some(heartbeat.state);
        }
        assert_eq!(last, Some(WorkerState::Draining), "the last report is of the end");
    }

    #[tokio::test]
    async fn a_coordinator_that_is_away_changes_nothing_and_delays_no_end() {
        let config = config("http://127.0.0.1:1");
        let (_view, views) = watch::channel(ControlView::default());
        let (reporter, latest) = reporter(&config, &SharedStatus::default(), views);
        let stop = CancellationToken::new();
        let task = tokio::spawn(reporter.run(stop.clone()));
        stop.cancel();
        within(task).await.unwrap();
        assert_eq!(*latest.borrow(), None);
        let error = client(&config).watermarks("wh").await.unwrap_err();
        assert_eq!(error.kind(), "unreachable");
        assert!(error.to_string().starts_with("coordinator at http://127.0.0.1:1: "), "{error}");
    }

    #[tokio::test]
    async fn where_the_configured_coordinator_does_not_lead_the_leader_is_told() {
        use DirectiveState::Run;
        let body = ErrorBody {
            code: "not_leader".into(),
            message: "another leads".into(),
            hint: None,
            leader: None,
        };
        let standby = coordinator(Err(body.clone())).await;
        let leads = coordinator(Ok(reply(Run, 3))).await;
        let config = config(&standby.url);
        let (_view, views) = watch::channel(ControlView::default());
        let (reporter, _latest) = reporter(&config, &SharedStatus::default(), views);
        let beat = async |leader: Option<&str>| {
            let heartbeat = reporter.heartbeat();
            reporter.client.heartbeat(&heartbeat, leader).await.map(|reply| reply.control_offset)
        };
        assert_eq!(beat(None).await.unwrap_err().kind(), "not_leader");
        assert_eq!(beat(Some(&leads.url)).await.unwrap(), 3);
        // It stays there, until the first one leads again.
        standby.answer.send(Ok(reply(Run, 4))).unwrap();
        assert_eq!(beat(Some(&leads.url)).await.unwrap(), 3);
        leads.answer.send(Err(body)).unwrap();
        assert_eq!(beat(Some(&leads.url)).await.unwrap(), 4);
        assert_eq!(beat(Some("http://127.0.0.1:1")).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_shows_no_token() {
        let body = ErrorBody {
            code: "bad_token".into(),
            message: "unknown token".into(),
            hint: Some("set coordinator.tokens.worker".into()),
            leader: None,
        };
        let coordinator = coordinator(Err(body)).await;
        let config = config(&coordinator.url);
        let (_view, views) = watch::channel(ControlView::default());
        let (reporter, _latest) = reporter(&config, &SharedStatus::default(), views);
        let error = reporter.client.heartbeat(&reporter.heartbeat(), None).await.unwrap_err();
        assert_eq!(error.kind(), "bad_token");
        let text = format!("{error} {error:?} {:?}", reporter.client);
        assert!(text.contains("unknown token (set coordinator.tokens.worker)"), "{text}");
        assert!(text.contains(&coordinator.url) && !text.contains("worker-token"), "{text}");
    }
}
