//! From a configuration to topics and a running connector, and back.

pub mod broker;
mod conflict;
pub mod connector;
mod first_start;
mod generated;
mod java_client;
mod notification;
mod outcome;
mod preflight;
mod snapshot;
pub mod topics;
mod undeploy;

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_shared::config::{PipelineConfig, seconds};

pub(crate) use first_start::Mend;
pub use outcome::{Change, ConnectorOutcome, DeployReport};
pub(crate) use preflight::missing_plugins;
pub use preflight::settings_that_lose;
pub use snapshot::{SnapshotReport, snapshot};
pub use undeploy::{UndeployReport, undeploy};

use crate::cli::{Exit, Failure};
use crate::connect::{Connect, ConnectorStatus};
use broker::Broker;
use connector::{Properties, connector_class, connector_properties};

/// How long a connector that was just created or changed must have run before it counts as
/// started: a task reports RUNNING before it has asked the database for anything, and a changed
/// one for a moment by its former state.
const SETTLE: Duration = Duration::from_secs(2);

/// What `deploy` may do beyond the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeployOptions {
    /// Take over a slot, publication or connector that this pipeline did not make.
    pub adopt: bool,
}

/// Creates what is missing, changes what differs, and waits until the connector's task runs.
/// `progress` is told each longer step.
///
/// # Errors
/// What is wrong, refused, taken by another pipeline or cannot be reached. Nothing is changed
/// before every check has passed.
pub async fn deploy(
    config: &PipelineConfig,
    options: DeployOptions,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<DeployReport, Failure> {
    let name = config.connector_name();
    let mut ours = connector_properties(config, &java_client::properties(&config.kafka)?);
    let connect = Connect::new(&config.connector)?;
    let broker = Broker::new(&config.kafka)?;

    progress("checking Kafka, Kafka Connect and the source");
    let mut notes = preflight::check(config, options, &ours, &connect, &broker).await?;
    let existing = connect.config(&name).await?;
    notes.extend(generated::leave_out(config, &mut ours, existing.as_ref()).await?);
    let changes = existing.as_ref().map(|existing| outcome::changes(&name, existing, &ours));
    if changes.as_ref().is_none_or(|changes| !changes.is_empty()) {
        progress("having Kafka Connect check the connector's settings");
        accepted(&connect, config, &name, &ours).await?;
    }

    progress("creating topics");
    let topics = broker.ensure(&topics::planned(config)).await?;
    let former = connect.status(&name).await?;
    let outcome = put(&connect, &name, &ours, changes, former.as_ref(), progress).await?;
    let limit = seconds(config.connector.task_start_timeout_seconds);
    progress("waiting for the connector's task");
    let (settle, former) = match outcome {
        ConnectorOutcome::Unchanged => (Duration::ZERO, None),
        _ => (SETTLE, former.as_ref()),
    };
    first_start::wait_running(&connect, config, (limit, settle), former, progress).await?;
    Ok(DeployReport { connector: name, outcome, topics, notes })
}

/// What other connectors already use of what this pipeline needs for itself, one sentence each.
///
/// # Errors
/// A certificate file of Kafka that cannot be read.
pub fn conflicts(
    config: &PipelineConfig,
    all: &BTreeMap<String, Properties>,
) -> Result<Vec<String>, Failure> {
    let ours = connector_properties(config, &java_client::properties(&config.kafka)?);
    Ok(conflict::with_others(&config.connector_name(), &ours, all))
}

/// Has Connect, and by it the connector, check the properties.
async fn accepted(
    connect: &Connect,
    config: &PipelineConfig,
    name: &str,
    ours: &Properties,
) -> Result<(), Failure> {
    let mut named = ours.clone();
    named.insert("name".to_owned(), name.to_owned());
    let class = connector_class(config.source.source_type);
    let complaints = connect.validate(class, &named).await?;
    if complaints.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        complaints.iter().map(|(field, error)| format!("\n  {field}: {error}")).collect();
    let at = connect.address();
    let message = format!("Kafka Connect at {at} rejects connector {name}:{}", lines.concat());
    Err(Failure::new(Exit::Config, message))
}

async fn put(
    connect: &Connect,
    name: &str,
    ours: &Properties,
    changes: Option<Vec<Change>>,
    former: Option<&ConnectorStatus>,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<ConnectorOutcome, Failure> {
    match changes {
        None => {
            progress("creating the connector");
            connect.put(name, ours).await?;
            Ok(ConnectorOutcome::Created)
        }
        Some(changes) if changes.is_empty() => {
            if !former.is_some_and(ConnectorStatus::has_failed) {
                return Ok(ConnectorOutcome::Unchanged);
            }
            progress("starting the failed connector again");
            connect.restart_failed(name).await?;
            Ok(ConnectorOutcome::Restarted)
        }
        Some(changes) => {
            progress("changing the connector");
            connect.put(name, ours).await?;
            Ok(ConnectorOutcome::Updated { changes })
        }
    }
}
