//! The composition root: builds everything a worker is made of, and says in which order it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_shared::api::{ErrorReport, WorkerIdentity};
use cdc_shared::backoff::RetryPolicy;
use cdc_shared::clock::unix_ms;
use cdc_shared::config::{Loaded, OnExhausted, PipelineConfig, RetryConfig, SinkConfig};
use cdc_shared::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::exit::Failure;
use crate::metrics::Metrics;
use crate::pipeline::Shared;
use crate::pipeline::decode::Filter;
use crate::pipeline::dlq::Dlq;
use crate::pipeline::supervisor::{Ended, Supervisor};
use crate::progress::client::CoordinatorClient;
use crate::progress::reporter::Reporter;
use crate::sink::open::{json_options, open};
use crate::sink::{Disposition, Sink, SinkError};
use crate::source::consumer::{self, SourceOptions};
use crate::source::control::{ControlFollower, ControlView};
use crate::source::letters::LetterReader;
use crate::source::probe::Probe;
use crate::status::{SharedStatus, Status};
use crate::task::{ConfigFiles, TaskRunner};
use crate::whole::leader;
use crate::whole::task::WholeOptions;

/// What the command line adds to the configuration.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The one sink to serve.
    pub sink_id: String,
    /// Where `/livez`, `/readyz`, `/metrics` answer.
    pub admin_address: String,
    /// Where the configuration came from.
    pub files: ConfigFiles,
}

/// The two stops: asked to drain, and told to end at once.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    /// First signal: drain.
    pub drain: CancellationToken,
    /// Second signal: end at once, which is safe: what is not durable is read again.
    pub now: CancellationToken,
}

/// Serves one sink until it is asked to stop.
///
/// Stop order: readiness red, the group is left (each partition finishes what is with its sink,
/// S is committed), the last heartbeat, the admin server.
///
/// # Errors
/// Why the process must end by itself; see [`Failure::exit`].
pub async fn run(loaded: Loaded, options: RunOptions, stops: Stops) -> Result<(), Failure> {
    let config = Arc::new(loaded.config);
    let sink_config = config.sink(&options.sink_id).cloned().ok_or_else(|| {
        Failure::Usage(format!("sink {} is not in the configuration", options.sink_id))
    })?;
    let status: SharedStatus = Arc::new(Status::default());
    let metrics = Metrics::new(&config.pipeline_id, &options.sink_id, status.clone());
    let sink_type = sink_config.sink_type;
    let admin = Admin::bind(&options.admin_address, sink_type, status.clone(), metrics).await?;
    let identity = identity(&loaded.hash, &admin.address().to_string());
    tracing::info!(worker = %identity.id, sink = %options.sink_id, admin = %admin.address(),
        "worker starts");
    let last = CancellationToken::new();
    let admin = tokio::spawn(admin.serve(last.clone()));
    let worker =
        Worker { config, sink_config, status, identity, files: options.files, last: last.clone() };
    let drain = worker.config.drain();
    let ended = worker.serve(&stops, drain).await;
    last.cancel();
    // Both end with `last`; a failure of theirs must not hide ours.
    let _ = admin.await;
    ended
}

fn identity(hash: &str, admin_address: &str) -> WorkerIdentity {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "host" } else { host.trim() };
    WorkerIdentity {
        id: format!("{host}-{}-{:x}", std::process::id(), unix_ms()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: hash.to_owned(),
        admin_address: admin_address.to_owned(),
    }
}

struct Worker {
    config: Arc<PipelineConfig>,
    sink_config: SinkConfig,
    status: SharedStatus,
    identity: WorkerIdentity,
    files: ConfigFiles,
    last: CancellationToken,
}

impl Worker {
    async fn serve(self, stops: &Stops, drain: Duration) -> Result<(), Failure> {
        let setting = |error: &dyn std::fmt::Display| Failure::Setting(error.to_string());
        let sink_id = self.sink_config.sink_id.clone();
        let sink = open(&self.config, &self.sink_config)
            .map_err(|error| Failure::Sink { sink_id: sink_id.clone(), error: Box::new(error) })?;
        let (kafka, group_id) = (&self.config.kafka, &self.config.group_id);
        let group = self.config.sink_group(&sink_id);
        let control = ControlFollower::start(kafka, group_id, &group, self.last.clone())
            .map_err(|error| setting(&error))?;
        let coordinator = CoordinatorClient::new(&self.config).map_err(|error| setting(&error))?;
        let (reporter, replies) = Reporter::new(
            coordinator.clone(),
            &self.config,
            &sink_id,
            self.identity.clone(),
            self.status.clone(),
            control.clone(),
        );
        let reporter = tokio::spawn(reporter.run(self.last.clone()));
        let (fatal, fatal_events) = mpsc::channel(1);
        let proven = self.prove(&sink, control.clone(), fatal.clone());
        let (events, source_events) = mpsc::channel(64);
        let (source, thread) = consumer::start(&self.source_options(), &self.status, events)
            .map_err(|error| setting(&error))?;
        let probe = Probe::new(kafka, &group).map_err(|error| setting(&error))?;
        tokio::spawn(self.task_runner(&probe, &control).run(self.last.clone()));
        let retry = policy(&self.sink_config.retry);
        let shared = Arc::new(Shared {
            json: Arc::new(json_options(&self.config, &self.sink_config)),
            sink,
            start: self.sink_config.start,
            on_reject: self.sink_config.reject_policy(),
            on_incompatible: self.config.on_incompatible(&self.sink_config),
            retry,
            give_up: self.sink_config.retry.on_exhausted == OnExhausted::Dlq,
            filter: Filter::of(&self.sink_config),
            dlq: Dlq::new(&self.config.kafka, &self.config.dlq, &sink_id, retry),
            letters: LetterReader::new(kafka, &group),
            breaker: self.config.dlq.breaker,
            registry: Registry::new(kafka).map_err(|error| setting(&error))?,
            probe,
            source,
            coordinator,
            control: control.clone(),
            replies,
            proven,
            status: self.status.clone(),
            fatal,
            sink_id: sink_id.clone(),
        });
        self.watch_control(control);
        let supervisor = self.whole(Supervisor::new(shared, source_events, fatal_events))?;
        let outcome = self.supervise(supervisor, stops, drain).await;
        if outcome.is_ok() {
            join(thread).await;
        }
        self.last.cancel();
        let _ = reporter.await;
        ended(outcome?, sink_id)
    }

    fn task_runner(&self, probe: &Probe, control: &watch::Receiver<ControlView>) -> TaskRunner {
        TaskRunner {
            config: self.config.clone(),
            sink: self.sink_config.clone(),
            files: self.files.clone(),
            probe: probe.clone(),
            control: control.clone(),
            status: self.status.clone(),
        }
    }

    /// Has one task deliver whole transactions, where the sink is set to it.
    fn whole(&self, supervisor: Supervisor) -> Result<Supervisor, Failure> {
        let Some(options) = self.whole_options() else { return Ok(supervisor) };
        let (status, last) = (self.status.clone(), self.last.clone());
        let group = self.config.sink_group(&self.sink_config.sink_id);
        let leads = leader::join(&self.config.kafka, &group, &options.marks, status, last)
            .map_err(|error| Failure::Setting(error.to_string()))?;
        Ok(supervisor.whole(options, leads))
    }

    /// Where the sink delivers whole transactions: what that needs.
    fn whole_options(&self) -> Option<WholeOptions> {
        let postgres = self.sink_config.postgres.as_ref();
        let postgres = postgres.filter(|_| self.sink_config.keeps_transactions())?;
        let tables = self.config.sink_tables(&self.sink_config).iter();
        Some(WholeOptions {
            tables: tables.map(|table| (table.clone(), self.config.topic(table))).collect(),
            marks: self.config.transaction_topic(),
            memory: usize::try_from(self.config.max_buffered_bytes).unwrap_or(usize::MAX),
            spill_directory: postgres.spill_directory(),
        })
    }

    fn source_options(&self) -> SourceOptions {
        let tables = self.config.sink_tables(&self.sink_config);
        SourceOptions {
            kafka: self.config.kafka.clone(),
            group: self.config.sink_group(&self.sink_config.sink_id),
            topics: tables
                .iter()
                .map(|table| self.config.topic(table))
                .chain(
                    self.sink_config.keeps_transactions().then(|| self.config.transaction_topic()),
                )
                .collect(),
            max_records: self.config.max_buffered_messages as usize,
            max_bytes: self.config.max_buffered_bytes,
            grace: self.config.drain().min(Duration::from_secs(20)),
        }
    }

    /// Proves the sink, for as long as it takes. The answer turns true once and stays.
    fn prove(
        &self,
        sink: &Arc<dyn Sink>,
        mut control: watch::Receiver<ControlView>,
        fatal: mpsc::Sender<SinkError>,
    ) -> watch::Receiver<bool> {
        let (proven, answer) = watch::channel(false);
        let (sink, status, last) = (sink.clone(), self.status.clone(), self.last.clone());
        let retry = policy(&self.sink_config.retry);
        tokio::spawn(async move {
            let mut failures = 0;
            loop {
                let error = tokio::select! {
                    () = last.cancelled() => return,
                    outcome = sink.prove() => match outcome {
                        Ok(()) => break,
                        Err(error) => error,
                    },
                };
                failures += 1;
                let pause = retry.delay(failures, fastrand::f64()).min(Duration::from_secs(30));
                unproven(&status, &error);
                if error.disposition == Disposition::Fatal {
                    let _ = fatal.send(error).await;
                    return;
                }
                tokio::select! {
                    () = last.cancelled() => return,
                    // A resume, among others, is a reason to look at once.
                    Ok(()) = control.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            status.set_error(None);
            status.proven.store(true, Ordering::Relaxed);
            proven.send_replace(true);
            // Held until the end, so that the channel does not close.
            last.cancelled().await;
        });
        answer
    }

    fn watch_control(&self, mut control: watch::Receiver<ControlView>) {
        let status = self.status.clone();
        tokio::spawn(async move {
            if control.wait_for(|view| view.complete).await.is_ok() {
                status.control_read.store(true, Ordering::Relaxed);
            }
        });
    }

    async fn supervise(
        &self,
        supervisor: Supervisor,
        stops: &Stops,
        drain: Duration,
    ) -> Result<Ended, Failure> {
        let status = self.status.clone();
        let (asked, now) = (stops.drain.clone(), stops.now.clone());
        let deadline = async move {
            asked.cancelled().await;
            status.draining.store(true, Ordering::Relaxed);
            // The group's own time-outs come on top of the partitions' grace.
            tokio::time::sleep(drain + Duration::from_secs(5)).await;
        };
        tokio::select! {
            ended = supervisor.run(stops.drain.clone()) => Ok(ended),
            () = deadline => Err(Failure::DrainTimeout(drain)),
            () = now.cancelled() => Err(Failure::Interrupted),
        }
    }
}

/// The thread ends after its last commit.
async fn join(thread: std::thread::JoinHandle<()>) {
    let joined = tokio::task::spawn_blocking(move || thread.join());
    let _ = tokio::time::timeout(Duration::from_secs(5), joined).await;
}

fn ended(ended: Ended, sink_id: String) -> Result<(), Failure> {
    match ended {
        Ended::Asked => Ok(()),
        Ended::Kafka(error) => Err(Failure::KafkaFatal(error.to_string())),
        Ended::Sink(error) => Err(Failure::Sink { sink_id, error: Box::new(error) }),
    }
}

fn unproven(status: &Status, error: &SinkError) {
    tracing::warn!(code = %error.code, error = %error.message, hint = error.hint.as_deref(),
        "the sink does not take us yet");
    let report =
        ErrorReport { code: error.code.clone(), message: error.message.clone(), at_ms: unix_ms() };
    status.set_error(Some(report));
}

fn policy(retry: &RetryConfig) -> RetryPolicy {
    RetryPolicy {
        max_attempts: retry.max_attempts,
        initial_wait: retry.initial_wait(),
        max_wait: retry.max_wait(),
        multiplier: retry.multiplier,
        jitter: retry.jitter,
    }
}
