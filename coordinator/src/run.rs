//! Puts a coordinator together and runs it.
//!
//! Order of the start: what can be refused at once (address, tokens, settings), then HTTP, then
//! everything that may have to wait for a service. Order of the end: give up the lead, finish
//! HTTP requests, leave the groups.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_shared::config::{CoordinatorConfig, PipelineConfig, WatermarkStore as StoreKind};
use cdc_shared::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::control::{ControlLog, Reader};
use crate::dlq::DeadLetters;
use crate::error::CoordinatorError;
use crate::fleet::Fleet;
use crate::group::{GroupTicker, Members};
use crate::health::Probes;
use crate::http::{self, Access, Certificates, check_bind};
use crate::kafka::Cluster;
use crate::leader;
use crate::metrics::Metrics;
use crate::monitor::LagMonitor;
use crate::scaling::Scaling;
use crate::schema::SchemaMonitor;
use crate::state::Coordinator;
use crate::task::Ending;
use crate::watermark::{MemoryStore, RedisStore, WatermarkStore};

/// How the daemon is run, beside its configuration.
#[derive(Debug, Default)]
pub struct ServeOptions {
    /// Told the address once the coordinator listens (its leading may take seconds more).
    pub listening: Option<oneshot::Sender<SocketAddr>>,
    /// Its section of a configuration that was read again: tokens and certificates take effect,
    /// everything else waits for a restart.
    pub reloaded: Option<mpsc::Receiver<CoordinatorConfig>>,
}

/// Runs the coordinator until `stop` is cancelled.
///
/// # Errors
/// When it cannot start as it is configured, or a part of it fails for good. Services that are
/// away are no error: they show in health.
pub async fn run(
    config: Arc<PipelineConfig>,
    options: ServeOptions,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    cdc_shared::tls::install_crypto();
    let listener = listen(&config).await?;
    let store = open_store(&config).await?;
    let cluster = Cluster::new(&config.kafka, &config.group_id)?;
    let reader = Reader::start(&config.kafka, &config.group_id, &config.control_topic())?;
    let registry = Arc::new(Registry::new(&config.kafka)?);
    let certificates = config.coordinator.server_tls.as_ref().map(Certificates::new).transpose()?;
    let coordinator = Arc::new(Coordinator {
        access: Arc::new(Access::new(&config.coordinator.tokens)),
        certificates: certificates.map(Arc::new),
        control: ControlLog::new(&reader),
        fleet: Fleet::new(config.heartbeat_interval()),
        store,
        cluster,
        group: GroupTicker::default(),
        lag: LagMonitor::new(Arc::clone(&registry)),
        scaling: Scaling::default(),
        schemas: SchemaMonitor::new(Arc::clone(&registry)),
        letters: DeadLetters::new(&config, Arc::clone(&registry)),
        probes: Probes::new(&config, Arc::clone(&registry))?,
        registry,
        metrics: Metrics::default(),
        ending: Ending::default(),
        leading: AtomicBool::new(false),
        removed: Mutex::new(Members::new()),
        config,
    });
    if let (Some(listening), Ok(address)) = (options.listening, listener.local_addr()) {
        let _ = listening.send(address);
    }
    if let Some(mut reloaded) = options.reloaded {
        let (coordinator, place) = (Arc::clone(&coordinator), listener.local_addr());
        tokio::spawn(async move {
            while let Some(config) = reloaded.recv().await {
                reload(&coordinator, &config, place.as_ref().ok());
            }
        });
    }
    let served = serve(coordinator, &reader, listener, &stop).await;
    // Its thread ends within one poll; joining it is blocking work.
    let _ = tokio::task::spawn_blocking(move || drop(reader)).await;
    served
}

async fn serve(
    coordinator: Arc<Coordinator>,
    reader: &Reader,
    listener: TcpListener,
    stop: &CancellationToken,
) -> Result<(), CoordinatorError> {
    if let Ok(address) = listener.local_addr() {
        let pipeline = &coordinator.config.pipeline_id;
        tracing::info!(%address, pipeline, "coordinator listens");
    }
    // A child: what this coordinator ends is not what its embedder runs beside it.
    let all = stop.child_token();
    let mut http = tokio::spawn(http::serve(Arc::clone(&coordinator), listener, all.clone()));
    let parts = async {
        tokio::join!(
            leader::run(&coordinator, reader, &all),
            coordinator.group.run(&coordinator, &all),
            coordinator.lag.run(&coordinator, &all),
            coordinator.scaling.run(&coordinator, &all),
            coordinator.schemas.run(&coordinator, &all),
            coordinator.letters.run(&coordinator, &all),
            coordinator.probes.run(&coordinator, &all),
        );
    };
    tokio::pin!(parts);
    let ended = tokio::select! {
        ended = &mut http => {
            all.cancel();
            parts.await;
            ended
        }
        () = &mut parts => {
            // An open connection must not keep a stopped coordinator alive.
            tokio::time::timeout(HTTP_GRACE, &mut http).await.unwrap_or(Ok(()))
        }
    };
    http.abort();
    ended.map_err(|_| CoordinatorError::PartEnded("the HTTP server"))
}

/// Longest wait for requests that are under way at the end.
const HTTP_GRACE: Duration = Duration::from_secs(3);

/// Takes the tokens and certificates of a configuration that was read again, or none of it.
fn reload(coordinator: &Coordinator, config: &CoordinatorConfig, place: Option<&SocketAddr>) {
    let open = place.map_or(&[][..], std::slice::from_ref);
    let checked = check_bind(open, &config.tokens).map_err(|error| error.to_string());
    let taken = checked.and_then(|()| match (&coordinator.certificates, &config.server_tls) {
        (Some(certificates), Some(files)) => certificates.replace(files).map_err(|e| e.to_string()),
        (None, None) => Ok(()),
        _ => Err("server_tls comes or goes with a restart only".to_owned()),
    });
    match taken {
        Ok(()) => {
            coordinator.access.replace(&config.tokens);
            tracing::info!("coordinator.reloaded");
        }
        Err(error) => tracing::error!(error, "coordinator.reload_failed"),
    }
}

async fn listen(config: &PipelineConfig) -> Result<TcpListener, CoordinatorError> {
    let bind = config.coordinator.bind.as_str();
    let failed = |cause: &dyn std::fmt::Display| CoordinatorError::Bind {
        bind: bind.to_owned(),
        cause: cause.to_string(),
    };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(bind).await.map_err(|error| failed(&error))?.collect();
    check_bind(&addresses, &config.coordinator.tokens)?;
    TcpListener::bind(addresses.as_slice()).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => CoordinatorError::AddressInUse(bind.to_owned()),
        _ => failed(&error),
    })
}

async fn open_store(config: &PipelineConfig) -> Result<Arc<dyn WatermarkStore>, CoordinatorError> {
    if config.coordinator.watermark_store == StoreKind::Memory {
        return Ok(Arc::new(MemoryStore::default()));
    }
    let store = RedisStore::new(&config.redis, &config.pipeline_id)?;
    match store.check().await {
        Ok(check) => {
            if let Some(cause) = check.eviction {
                return Err(CoordinatorError::Eviction {
                    address: config.redis.url.clone(),
                    cause,
                });
            }
        }
        Err(error) => tracing::warn!(%error, "going on without watermarks until it answers"),
    }
    Ok(Arc::new(store))
}
