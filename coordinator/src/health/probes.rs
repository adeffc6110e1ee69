//! Asks the services around, all at once and each with a time limit, and keeps the answers: health
//! never waits for a service that hangs.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_shared::config::{PipelineConfig, SourceType, seconds};
use cdc_shared::offset::TopicPartition;
use cdc_shared::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::report::{
    ConnectorHealth, ServiceHealth, ServiceState, SlotHealth, SourceHealth, TaskHealth,
};
use crate::cli::Failure;
use crate::connect::{Connect, ConnectorStatus, TaskStatus, first_lines};
use crate::deploy::Mend;
use crate::deploy::topics::heartbeat_topic;
use crate::error::CoordinatorError;
use crate::kafka::{Cluster, ask};
use crate::monitor::{Pulse, Restarts};
use crate::source::{self, Slot};
use crate::state::Coordinator;
use crate::watermark::WatermarkStore;

/// Time between two rounds.
const TICK: Duration = Duration::from_secs(3);
/// Longest time for one answer.
const LIMIT: Duration = Duration::from_secs(4);

/// The latest answers.
#[derive(Clone, Debug, Default)]
pub struct ProbeFacts {
    /// Kafka.
    pub kafka: ServiceHealth,
    /// The schema registry.
    pub registry: ServiceHealth,
    /// Kafka Connect.
    pub connect: ServiceHealth,
    /// Redis.
    pub redis: ServiceHealth,
    /// The connector, its tasks, the slot.
    pub source: SourceHealth,
}

/// Asks and remembers.
pub struct Probes {
    connect: Connect,
    registry: Arc<Registry>,
    facts: watch::Sender<Arc<ProbeFacts>>,
    control_trouble: Mutex<Option<String>>,
    restarts: Mutex<Restarts>,
    pulse: Mutex<Pulse>,
}

impl Probes {
    /// For the services of this pipeline.
    ///
    /// # Errors
    /// When TLS files cannot be used.
    pub fn new(config: &PipelineConfig, registry: Arc<Registry>) -> Result<Self, CoordinatorError> {
        Ok(Self {
            connect: Connect::new(&config.connector)?.impatient(),
            registry,
            facts: watch::Sender::default(),
            control_trouble: Mutex::new(None),
            restarts: Mutex::default(),
            pulse: Mutex::default(),
        })
    }

    /// The latest answers.
    pub fn facts(&self) -> Arc<ProbeFacts> {
        Arc::clone(&self.facts.borrow())
    }

    /// What keeps the control topic from being used.
    pub fn control_trouble(&self) -> Option<String> {
        self.control_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells what keeps the control topic from being used.
    pub fn set_control_trouble(&self, trouble: Option<String>) {
        *self.control_trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Asks again and again until `stop`.
    pub async fn run(&self, coordinator: &Coordinator, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // Boxed: it holds every client's request at once.
                facts = Box::pin(self.round(coordinator)) => {
                    self.facts.send_replace(Arc::new(facts));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn round(&self, coordinator: &Coordinator) -> ProbeFacts {
        let config = &coordinator.config;
        let name = config.connector_name();
        let (kafka, registry, connector, redis, slot, written) = tokio::join!(
            limited(async {
                ask(&coordinator.cluster, Cluster::brokers).await.map_err(|error| error.to_string())
            }),
            limited(async { self.registry.check().await.map_err(|error| error.to_string()) }),
            limited(async { self.connect.status(&name).await.map_err(|f| f.message) }),
            limited(check_store(coordinator.store.as_ref())),
            limited(async { slot(config).await.map_err(|failure| failure.message) }),
            limited(written(coordinator)),
        );
        let kafka = kafka.map_err(|error| match coordinator.cluster.last_word() {
            Some(reason) => format!("{error}: {reason}"),
            None => error,
        });
        let mut facts = ProbeFacts {
            kafka: ServiceHealth { brokers: kafka.as_ref().ok().copied(), ..service(&kafka) },
            registry: service(&registry),
            connect: ServiceHealth::default(),
            redis: redis.unwrap_or_else(|error| service(&Err::<(), _>(error))),
            source: SourceHealth::default(),
        };
        facts.source = connector_health(&name, connector.as_ref().map(Option::as_ref));
        facts.connect = service(&connector);
        facts.source.restarts = self.restart(coordinator, &name, &connector).await;
        if let Ok(Some(ends)) = written {
            self.hear(coordinator, &mut facts.source, ends);
        }
        match slot {
            Ok(slot) => facts.source.slot = slot,
            Err(error) => facts.source.error = Some(error),
        }
        facts
    }
}

impl Probes {
    /// Starts a connector again that has failed, when it is time; how often that was done.
    async fn restart(
        &self,
        coordinator: &Coordinator,
        name: &str,
        status: &Result<Option<ConnectorStatus>, String>,
    ) -> usize {
        let Ok(status) = status else { return self.restarts().made() };
        let failed = status.as_ref().filter(|status| status.has_failed());
        let most = if coordinator.leads() { coordinator.config.connector.auto_restart } else { 0 };
        let due = self.restarts().due(failed.is_some(), most, Instant::now());
        if let Some(failed) = failed.filter(|_| due) {
            let mend = Mend::of(&coordinator.config, failed);
            let told = mend.told();
            // It goes on when its answer is not waited for any longer.
            let (connect, named) = (self.connect.clone(), name.to_owned());
            let start = tokio::spawn(async move { mend.start(&connect, &named).await });
            let started = limited(async move {
                let ended = start.await.map_err(|error| error.to_string())?;
                ended.map_err(|failure| failure.message)
            });
            match started.await {
                Ok(()) => tracing::warn!(connector = name, how = told, "connector.restarted"),
                Err(error) => tracing::warn!(connector = name, error, "connector.restart_failed"),
            }
        }
        self.restarts().made()
    }

    /// Whether the connector still writes.
    fn hear(&self, coordinator: &Coordinator, source: &mut SourceHealth, ends: i64) {
        let silence = {
            let mut pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
            pulse.look(ends, Instant::now())
        };
        let limit = seconds(coordinator.config.lag.heartbeat_seconds);
        source.silent_seconds = Some(silence.as_secs_f64());
        source.silent = !limit.is_zero() && silence >= limit;
        let is_news = source.silent != self.facts().source.silent;
        if is_news && coordinator.leads() && source.connector.state == "RUNNING" {
            let (connector, seconds) = (&source.connector.name, silence.as_secs());
            if source.silent {
                let event = "connector.heartbeats_missing";
                tracing::warn!(event, connector, seconds, "the connector writes nothing any more");
            } else {
                tracing::info!(event = "connector.heard", connector, "the connector writes again");
            }
        }
    }

    fn restarts(&self) -> std::sync::MutexGuard<'_, Restarts> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn limited<T>(probe: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(LIMIT, probe)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
}

/// Sum of the ends of all logs that the connector writes; `None` where its heart does not beat.
async fn written(coordinator: &Coordinator) -> Result<Option<i64>, String> {
    let config = &coordinator.config;
    if config.source.heartbeat_interval_ms == 0 {
        return Ok(None);
    }
    let topic = heartbeat_topic(&config.topic_prefix);
    let beats = ask(&coordinator.cluster, move |cluster| {
        if !cluster.topics(&[&topic])?.contains_key(&topic) {
            return Ok(None);
        }
        let ends = cluster.ends(&[TopicPartition::new(topic.as_str(), 0)])?;
        Ok(Some(ends.values().sum::<i64>()))
    });
    let view = coordinator.group.view();
    let changes: i64 = view.seen.iter().flat_map(|seen| seen.ends.values()).sum();
    Ok(beats.await.map_err(|error| error.to_string())?.map(|beats| beats + changes))
}

async fn check_store(store: &dyn WatermarkStore) -> Result<ServiceHealth, String> {
    if store.kind() == "memory" {
        return Ok(ServiceHealth { state: ServiceState::Unused, ..ServiceHealth::default() });
    }
    let check = store.check().await.map_err(|error| error.to_string())?;
    Ok(ServiceHealth { state: ServiceState::Up, error: check.eviction, brokers: None })
}

fn service<T>(answer: &Result<T, String>) -> ServiceHealth {
    match answer {
        Ok(_) => ServiceHealth { state: ServiceState::Up, ..ServiceHealth::default() },
        Err(error) => ServiceHealth {
            state: ServiceState::Down,
            error: Some(error.clone()),
            ..ServiceHealth::default()
        },
    }
}

/// The slot that the source should have; `None` where there is nothing to ask for.
pub(crate) async fn slot(config: &PipelineConfig) -> Result<Option<SlotHealth>, Failure> {
    let source = &config.source;
    if source.source_type != SourceType::Postgres || source.password_is_connects() {
        return Ok(None);
    }
    let (slot, _) = source::slot_and_publication(config).await?;
    Ok(Some(slot_health(&source.slot_name, slot)))
}

fn connector_health(name: &str, found: Result<Option<&ConnectorStatus>, &String>) -> SourceHealth {
    let state = |state: &str| SourceHealth {
        connector: ConnectorHealth { name: name.to_owned(), state: state.to_owned(), trace: None },
        ..SourceHealth::default()
    };
    match found {
        Err(_) => state("UNKNOWN"),
        Ok(None) => state("ABSENT"),
        Ok(Some(ConnectorStatus { connector, tasks })) => {
            let mut health = state(&connector.state);
            health.connector.trace = trace(connector);
            health.tasks = tasks
                .iter()
                .map(|task| TaskHealth {
                    id: task.id.and_then(|id| i32::try_from(id).ok()).unwrap_or_default(),
                    state: task.state.clone(),
                    trace: trace(task),
                })
                .collect();
            health
        }
    }
}

/// The sentences of a failure, in one line.
fn trace(part: &TaskStatus) -> Option<String> {
    let trace = part.trace.as_ref().filter(|_| part.state == "FAILED")?;
    Some(first_lines(trace).replace("\n  ", "; "))
}

fn slot_health(name: &str, slot: Option<Slot>) -> SlotHealth {
    SlotHealth {
        name: name.to_owned(),
        exists: slot.is_some(),
        active: slot.as_ref().is_some_and(|slot| slot.active_pid.is_some()),
        retained_bytes: slot.as_ref().and_then(|slot| slot.retained_bytes),
        wal_status: slot.map(|slot| slot.wal_status).filter(|status| !status.is_empty()),
    }
}
