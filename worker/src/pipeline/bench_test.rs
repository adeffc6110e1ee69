//! A partition task whose sink, registry and consumer thread are played by a test.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use cdc_shared::api::{Directive, DirectiveState, HeartbeatReply};
use cdc_shared::config::{
    BreakerConfig, DlqConfig, KafkaConfig, OnReject, PipelineConfig, SinkConfig, StartPosition,
};
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::json::JsonOptions;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use cdc_shared::registry::Registry;
use tokio::sync::{Notify, mpsc, watch};

use super::decode::Filter;
use super::dlq::Dlq;
use super::partition::{PartitionCommand, PartitionTask};
use super::{Shared, hold::Hold};
use crate::change::Change;
use crate::progress::client::CoordinatorClient;
use crate::progress::reporter::LatestReply;
use crate::sink::retry::TroubleReporter;
use crate::sink::{
    BatchLimits, Disposition, PartitionWriter, Progress, Rejection, Sink, SinkError,
};
use crate::source::consumer::{SourceCommand, SourceHandle};
use crate::source::control::ControlView;
use crate::source::flow::{Budget, Flow};
use crate::source::probe::Probe;
use crate::source::record::Record;
use crate::source::slots::{Assignment, Chunk, ProgressCell};
use crate::status::SharedStatus;

/// Longest wait for what must come.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// Schema that is there at once.
pub(super) const KNOWN: i32 = 1;
/// Schema that comes with [`Bench::release_schema`].
pub(super) const LATE: i32 = 2;
/// Schema that is not there.
pub(super) const UNKNOWN: i32 = 404;

const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"int"}]}]},
    {"name":"after","type":["null","Value"]},
    {"name":"source","type":{"type":"record","name":"Source","fields":[]}},
    {"name":"op","type":"string"}]}"#;

/// What the writer was asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Push(i64),
    Flush(i64),
    Settle(i64),
    Reset(i64),
}

/// What a test chooses.
pub(super) struct Choice {
    /// Whether the sink takes batches and keeps its position, or delivers record by record.
    pub(super) limits: BatchLimits,
    pub(super) batches: bool,
    pub(super) max_records: usize,
    pub(super) sink: SinkConfig,
    pub(super) breaker: BreakerConfig,
}

impl Default for Choice {
    /// Record by record.
    fn default() -> Self {
        Self {
            limits: BatchLimits { rows: 100, bytes: 1 << 20, age: Duration::ZERO },
            batches: false,
            max_records: 100,
            sink: SinkConfig::default(),
            breaker: BreakerConfig::default(),
        }
    }
}

impl Choice {
    /// Batches of `rows`, written at this age.
    pub(super) fn batches(rows: usize, age: Duration) -> Self {
        let limits = BatchLimits { rows, bytes: 1 << 20, age };
        Self { limits, batches: true, ..Self::default() }
    }
}

/// The other ends of everything that the task talks to.
pub(super) struct Bench {
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) answers: mpsc::Sender<Progress>,
    pub(super) chunks: mpsc::Sender<Chunk>,
    pub(super) commands: mpsc::Sender<PartitionCommand>,
    pub(super) control: watch::Sender<ControlView>,
    pub(super) replies: watch::Sender<LatestReply>,
    pub(super) flow: Arc<Flow>,
    _source: std::sync::mpsc::Receiver<SourceCommand>,
    late: Arc<Notify>,
}

impl Bench {
    /// A task that knows that it goes on from offset 0. The dead letter queue is switched off, so
    /// that a rejected record ends in the hold `dlq_disabled`.
    pub(super) async fn new(choice: Choice) -> (PartitionTask, Self) {
        cdc_shared::tls::install_crypto();
        let (calls, called) = mpsc::channel(1000);
        let (answers, answered) = mpsc::channel(1000);
        let late = Arc::new(Notify::new());
        let mut config = PipelineConfig {
            pipeline_id: "p".into(),
            dlq: DlqConfig { enabled: false, ..DlqConfig::default() },
            ..PipelineConfig::default()
        };
        config.kafka.schema_registry_url = registry(late.clone()).await;
        let (control, control_view) = watch::channel(complete(ControlState::default()));
        let (replies, latest) = watch::channel(None);
        let (commands_to_source, source) = std::sync::mpsc::channel();
        let ends = Ends {
            control: control_view,
            replies: latest,
            source: SourceHandle::new(commands_to_source),
        };
        let sink = StubSink {
            limits: choice.limits,
            batches: choice.batches,
            ends: Mutex::new(Some((calls, answered))),
        };
        let flow = Flow::new(choice.max_records, Budget::new(1 << 20, SharedStatus::default()));
        let shared = shared(&config, &choice, sink, ends);
        let (chunks, from_source) = mpsc::channel(100);
        let (commands, receiver) = mpsc::channel(4);
        let assignment = Assignment {
            tp: tp(),
            epoch: 1,
            flow: flow.clone(),
            chunks: from_source,
            progress: ProgressCell::default(),
        };
        let mut task = PartitionTask::new(shared, assignment, receiver);
        task.question.last = Some(position(0));
        let bench = Self {
            calls: called,
            answers,
            chunks,
            commands,
            control,
            replies,
            flow,
            _source: source,
            late,
        };
        (task, bench)
    }

    /// Records from `first`, one for each schema id, for the task's first start.
    pub(super) async fn feed(&self, first: i64, schemas: &[i32]) {
        self.feed_run(1, first, schemas).await;
    }

    pub(super) async fn feed_run(&self, run: u64, first: i64, schemas: &[i32]) {
        let records: Vec<_> =
            (first..).zip(schemas).map(|(offset, schema)| record(offset, *schema)).collect();
        for record in &records {
            self.flow.enter(record.weight());
        }
        self.chunks.send(Chunk { run, records, reached: None }).await.unwrap();
    }

    /// The next call of the writer.
    pub(super) async fn call(&mut self) -> Call {
        tokio::time::timeout(SOON, self.calls.recv()).await.expect("a call in time").unwrap()
    }

    /// Every call so far.
    pub(super) fn all_calls(&mut self) -> Vec<Call> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }

    pub(super) async fn answer(&self, progress: Progress) {
        self.answers.send(progress).await.unwrap();
    }

    pub(super) fn release_schema(&self) {
        self.late.notify_one();
    }

    /// What the control topic says from now on; the first record has this offset.
    pub(super) fn control_says(&self, first: i64, records: &[ControlRecord]) {
        self.control.send_replace(complete(control_state(first, records)));
    }

    /// The coordinator answers, having read more of the control topic than the worker.
    pub(super) fn reply(&self, state: DirectiveState) {
        let directive = Directive { state, reason: String::new() };
        let reply = HeartbeatReply { directive, tables: Vec::new(), control_offset: i64::MAX };
        self.replies.send_replace(Some(reply));
    }
}

/// Waits until something holds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("in time");
}

fn complete(state: ControlState) -> ControlView {
    ControlView { state: Arc::new(state), complete: true }
}

pub(super) fn control_state(first: i64, records: &[ControlRecord]) -> ControlState {
    let mut state = ControlState::default();
    for (offset, record) in (first..).zip(records) {
        let value = serde_json::to_vec(record).unwrap();
        state.apply(offset, &record.key(), Some(&value)).unwrap();
    }
    state
}

pub(super) fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

pub(super) fn next(offset: i64) -> NextOffset {
    NextOffset::new(offset).unwrap()
}

pub(super) fn position(offset: i64) -> Position {
    Position {
        next: next(offset),
        incarnation: Incarnation(1),
        topic_id: TopicId("id".into()),
        schemas: SchemaIds::default(),
    }
}

pub(super) fn skip(from: i64, to: i64) -> ControlRecord {
    ControlRecord::Skip {
        sink: "wh".into(),
        tp: tp(),
        topic_id: TopicId("id".into()),
        from,
        to,
        reason: String::new(),
        by: "op".into(),
        at_ms: 0,
    }
}

pub(super) fn refusal() -> SinkError {
    SinkError {
        code: "http_400".into(),
        message: "no".into(),
        hint: None,
        disposition: Disposition::Reject,
        source: None,
    }
}

/// The code and the offset of a hold.
pub(super) fn told(hold: &Hold) -> (&str, Option<i64>) {
    (&hold.report.code, hold.report.offset)
}

fn record(offset: i64, schema: i32) -> Record {
    let mut value = vec![0];
    value.extend_from_slice(&schema.to_be_bytes());
    // Avro: no `before`, `after` with id 1, an empty `source`, `op` c.
    value.extend_from_slice(&[0, 2, 2, 2, b'c']);
    Record::new(offset, 0, None, Some(&value))
}

async fn registry(late: Arc<Notify>) -> String {
    async fn schema(
        State(late): State<Arc<Notify>>,
        Path(id): Path<i32>,
    ) -> Result<String, StatusCode> {
        match id {
            KNOWN => {}
            LATE => late.notified().await,
            _ => return Err(StatusCode::NOT_FOUND),
        }
        Ok(serde_json::json!({ "schema": ENVELOPE }).to_string())
    }
    let router = Router::new().route("/r/schemas/ids/{id}", get(schema)).with_state(late);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/r")
}

struct Ends {
    control: watch::Receiver<ControlView>,
    replies: watch::Receiver<LatestReply>,
    source: SourceHandle,
}

fn shared(config: &PipelineConfig, choice: &Choice, sink: StubSink, ends: Ends) -> Arc<Shared> {
    // Nobody listens there: what would ask Kafka waits.
    let kafka = KafkaConfig { bootstrap_servers: "127.0.0.1:1".into(), ..config.kafka.clone() };
    let retry = cdc_shared::backoff::RetryPolicy::default();
    Arc::new(Shared {
        sink_id: "wh".into(),
        sink: Arc::new(sink),
        start: StartPosition::Beginning,
        on_reject: OnReject::Dlq,
        on_incompatible: None,
        retry,
        give_up: false,
        filter: Filter::of(&choice.sink),
        json: Arc::new(JsonOptions::default()),
        dlq: Dlq::new(&kafka, &config.dlq, "wh", retry),
        letters: crate::source::letters::LetterReader::new(&kafka, "g"),
        breaker: choice.breaker,
        registry: Registry::new(&config.kafka).unwrap(),
        probe: Probe::new(&kafka, "g").unwrap(),
        source: ends.source,
        coordinator: CoordinatorClient::new(config).unwrap(),
        control: ends.control,
        replies: ends.replies,
        proven: watch::channel(true).1,
        status: SharedStatus::default(),
        fatal: mpsc::channel(1).0,
    })
}

type WriterEnds = (mpsc::Sender<Call>, mpsc::Receiver<Progress>);

struct StubSink {
    limits: BatchLimits,
    batches: bool,
    ends: Mutex<Option<WriterEnds>>,
}

#[async_trait]
impl Sink for StubSink {
    async fn prove(&self) -> Result<(), SinkError> {
        Ok(())
    }

    fn keeps_position(&self) -> bool {
        self.batches
    }

    async fn read_position(&self, _: &TopicPartition) -> Result<Option<Position>, SinkError> {
        Ok(None)
    }

    async fn replace_position(
        &self,
        _: &TopicPartition,
        _: Option<&Position>,
        _: &Position,
    ) -> Result<bool, SinkError> {
        Ok(true)
    }

    fn writer(
        &self,
        _: TopicPartition,
        _: Position,
        _: TroubleReporter,
    ) -> Box<dyn PartitionWriter> {
        let (calls, answers) = self.ends.lock().unwrap().take().expect("one writer");
        let settled = HashSet::new();
        Box::new(StubWriter { batches: self.batches, in_flight: false, calls, answers, settled })
    }

    fn batch_limits(&self) -> BatchLimits {
        self.limits
    }
}

struct StubWriter {
    batches: bool,
    in_flight: bool,
    calls: mpsc::Sender<Call>,
    answers: mpsc::Receiver<Progress>,
    settled: HashSet<i64>,
}

impl StubWriter {
    fn tell(&self, call: Call) {
        self.calls.try_send(call).unwrap();
    }
}

#[async_trait]
impl PartitionWriter for StubWriter {
    fn has_room(&self) -> bool {
        true
    }

    fn push(&mut self, change: &Change<'_>) -> Result<(), Rejection> {
        self.tell(Call::Push(change.offset));
        Ok(())
    }

    fn flush(&mut self, covers: Position) {
        assert!(!self.in_flight, "one batch at a time");
        self.in_flight = self.batches;
        self.tell(Call::Flush(covers.next.get()));
    }

    fn in_flight(&self) -> bool {
        self.in_flight
    }

    async fn progress(&mut self) -> Progress {
        if self.batches && !self.in_flight {
            return std::future::pending().await;
        }
        let Some(answer) = self.answers.recv().await else {
            return std::future::pending().await;
        };
        self.in_flight = false;
        answer
    }

    fn settle(&mut self, offset: i64) -> bool {
        self.settled.insert(offset);
        self.tell(Call::Settle(offset));
        !self.batches
    }

    fn reset(&mut self, position: Position) {
        self.in_flight = false;
        self.tell(Call::Reset(position.next.get()));
    }
}
