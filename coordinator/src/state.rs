//! What the parts of one coordinator share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cdc_shared::config::PipelineConfig;
use cdc_shared::control::ControlState;
use cdc_shared::registry::Registry;

use crate::control::ControlLog;
use crate::dlq::DeadLetters;
use crate::fleet::Fleet;
use crate::group::{self, GroupTicker, Members};
use crate::health::Probes;
use crate::http::{Access, Certificates};
use crate::kafka::Cluster;
use crate::metrics::Metrics;
use crate::monitor::LagMonitor;
use crate::scaling::Scaling;
use crate::schema::SchemaMonitor;
use crate::task::Ending;
use crate::watermark::WatermarkStore;

/// One running coordinator. Each field has one owner that changes it; the others read.
pub struct Coordinator {
    /// Settings.
    pub config: Arc<PipelineConfig>,
    /// Who may call.
    pub(crate) access: Arc<Access>,
    /// By which certificates it answers, where it does so by TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// The control topic.
    pub control: Arc<ControlLog>,
    /// Live workers.
    pub fleet: Fleet,
    /// Watermarks.
    pub store: Arc<dyn WatermarkStore>,
    /// Kafka.
    pub cluster: Arc<Cluster>,
    /// P.
    pub group: GroupTicker,
    /// The schema registry.
    pub registry: Arc<Registry>,
    /// Lag.
    pub lag: LagMonitor,
    /// How many workers each sink should have.
    pub scaling: Scaling,
    /// Schemas.
    pub schemas: SchemaMonitor,
    /// Dead letters.
    pub letters: Arc<DeadLetters>,
    /// The services around.
    pub probes: Probes,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// Ends of tasks on their way into the control topic.
    pub ending: Ending,
    pub(crate) leading: AtomicBool,
    pub(crate) removed: Mutex<Members>,
}

impl Coordinator {
    /// Whether this process leads, as far as it knows; Kafka knows better and fences.
    pub fn leads(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// Where the coordinator that leads is, when that is another one.
    pub fn other_leader(&self) -> Option<String> {
        let control = self.control.state();
        let leader = control.leader()?;
        (!self.leads() && leader != self.config.coordinator.own_url()).then(|| leader.to_owned())
    }

    /// The (sink, topic) pairs that count for P.
    pub fn members(&self, control: &ControlState) -> Members {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        group::members(&self.config, control, &self.fleet, &removed)
    }

    /// Keeps a removed sink, or one topic of it, from coming back by the configuration that this
    /// process was started with.
    pub fn remember_removed(&self, pairs: impl IntoIterator<Item = (String, String)>) {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).extend(pairs);
    }
}
