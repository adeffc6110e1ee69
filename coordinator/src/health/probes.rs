//! Asks the services around, all at once and each with a time limit, and keeps the answers: health
//! never waits for a service that hangs.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdc_shared::config::PipelineConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::report::{
    ConnectorHealth, ServiceHealth, ServiceState, SlotHealth, SourceHealth, TaskHealth,
};
use crate::error::CoordinatorError;
use crate::ports::connect::{Connect, ConnectorStatus, Found, Part};
use crate::ports::kafka::ask;
use crate::ports::registry::Registry;
use crate::ports::source;
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
    registry: Registry,
    facts: watch::Sender<Arc<ProbeFacts>>,
    control_trouble: Mutex<Option<String>>,
}

impl Probes {
    /// For the services of this pipeline.
    ///
    /// # Errors
    /// When TLS files cannot be used.
    pub fn new(config: &PipelineConfig) -> Result<Self, CoordinatorError> {
        Ok(Self {
            connect: Connect::new(&config.connector, config.connector_name())?,
            registry: Registry::new(&config.kafka)?,
            facts: watch::Sender::default(),
            control_trouble: Mutex::new(None),
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
                facts = self.round(coordinator) => {
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
        let (kafka, registry, connector, redis, slot) = tokio::join!(
            limited(async {
                ask(&coordinator.cluster, crate::ports::kafka::Cluster::brokers)
                    .await
                    .map_err(|error| error.to_string())
            }),
            limited(self.registry.check()),
            limited(self.connect.status()),
            limited(check_store(coordinator.store.as_ref())),
            limited(async {
                if source::has_slot(&config.source) {
                    source::slot(&config.source).await.map(Some)
                } else {
                    Ok(None)
                }
            }),
        );
        let mut facts = ProbeFacts {
            kafka: ServiceHealth { brokers: kafka.as_ref().ok().copied(), ..service(&kafka) },
            registry: service(&registry),
            connect: ServiceHealth::default(),
            redis: redis.unwrap_or_else(|error| service(&Err::<(), _>(error))),
            source: SourceHealth::default(),
        };
        let name = config.connector_name();
        facts.source = connector_health(name, connector.as_ref().ok());
        facts.connect = service(&connector);
        match slot {
            Ok(None) => {}
            Ok(Some(slot)) => {
                facts.source.slot = Some(slot_health(&config.source.slot_name, slot));
            }
            Err(error) => facts.source.error = Some(error),
        }
        facts
    }
}

async fn limited<T>(probe: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(LIMIT, probe)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
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

fn connector_health(name: String, found: Option<&Found>) -> SourceHealth {
    let state = |state: &str| SourceHealth {
        connector: ConnectorHealth { name: name.clone(), state: state.to_owned(), trace: None },
        ..SourceHealth::default()
    };
    match found {
        None => state("UNKNOWN"),
        Some(Found::Absent) => state("ABSENT"),
        Some(Found::Connector(ConnectorStatus { connector, tasks })) => {
            let mut health = state(&connector.state);
            health.connector.trace = first_line(connector);
            health.tasks = tasks
                .iter()
                .map(|task| TaskHealth {
                    id: task.id.unwrap_or_default(),
                    state: task.state.clone(),
                    trace: first_line(task),
                })
                .collect();
            health
        }
    }
}

/// The root cause as far as the trace names one: the last `Caused by`, else the first line.
fn first_line(part: &Part) -> Option<String> {
    if part.state != "FAILED" {
        return None;
    }
    let trace = part.trace.as_ref()?;
    let first = trace.lines().next()?.trim();
    let cause = trace.lines().rev().find_map(|line| line.trim().strip_prefix("Caused by: "));
    Some(match cause {
        Some(cause) => format!("{first} (cause: {cause})"),
        None => first.to_owned(),
    })
}

fn slot_health(name: &str, slot: Option<source::Slot>) -> SlotHealth {
    let exists = slot.is_some();
    let slot =
        slot.unwrap_or(source::Slot { active: false, wal_status: None, retained_bytes: None });
    SlotHealth {
        name: name.to_owned(),
        exists,
        active: slot.active,
        retained_bytes: slot.retained_bytes,
        wal_status: slot.wal_status,
    }
}
