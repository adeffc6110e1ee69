//! Removing the connector, and on demand what it leaves at the source.

use std::time::{Duration, Instant};

use cdc_shared::config::{PipelineConfig, SourceType};
use serde::Serialize;

use super::conflict;
use super::connector::{Properties, connector_properties};
use crate::cli::{Exit, Failure};
use crate::connect::Connect;
use crate::source::{self, Slot};

/// How long the slot may stay in use after the connector is gone.
const RELEASE: Duration = Duration::from_secs(30);

/// What `undeploy` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndeployReport {
    /// Name of the connector.
    pub connector: String,
    /// Whether there was one.
    pub removed: bool,
    /// The slot that is still there.
    pub slot: Option<Slot>,
    /// The slot that was dropped.
    pub dropped_slot: Option<String>,
    /// What deserves attention.
    pub notes: Vec<String>,
}

/// Removes the connector. The slot stays, so that a later `deploy` goes on without a gap, unless
/// `drop_slot` names it; then the connector's offsets go as well, and a later `deploy` begins with
/// a new snapshot.
///
/// # Errors
/// Connect or the source cannot be reached or refuse; `drop_slot` names another slot.
pub async fn undeploy(
    config: &PipelineConfig,
    drop_slot: Option<&str>,
) -> Result<UndeployReport, Failure> {
    named_right(config, drop_slot)?;
    let name = config.connector_name();
    let connect = Connect::new(&config.connector)?;
    if let Some(existing) = connect.config(&name).await? {
        let ours = connector_properties(config, &Properties::new());
        if let Some(reason) = conflict::with_namesake(&name, &ours, &existing) {
            return Err(Failure::new(Exit::Config, reason)
                .hint("remove it in Kafka Connect if that is what you want"));
        }
        if drop_slot.is_some() {
            connect.forget_offsets(&name).await?;
        }
    }
    let removed = connect.delete(&name).await?;
    let mut report = UndeployReport {
        connector: name,
        removed,
        slot: None,
        dropped_slot: None,
        notes: Vec::new(),
    };
    if config.source.source_type != SourceType::Postgres {
        return Ok(report);
    }
    match drop_slot {
        Some(slot) => {
            if released(config).await? {
                source::drop_slot(&config.source, slot).await?;
                report.dropped_slot = Some(slot.to_owned());
            } else {
                report.notes.push(format!("slot {slot} does not exist (any more)"));
            }
        }
        None => match source::slot_and_publication(config).await {
            Ok((slot, _)) => report.slot = slot,
            Err(failure) => report.notes.push(format!(
                "slot {} was not looked at: {}",
                config.source.slot_name, failure.message
            )),
        },
    }
    Ok(report)
}

fn named_right(config: &PipelineConfig, drop_slot: Option<&str>) -> Result<(), Failure> {
    let ours = &config.source.slot_name;
    match drop_slot {
        Some(_) if config.source.source_type != SourceType::Postgres => {
            let kind = config.source.source_type.name();
            Err(Failure::new(Exit::Usage, format!("a {kind} source has no replication slot")))
        }
        Some(slot) if slot != ours => Err(Failure::new(
            Exit::Usage,
            format!("--drop-slot {slot}: this pipeline's slot is {ours}"),
        )),
        _ => Ok(()),
    }
}

/// Waits until the server no longer streams from the slot; `false` when there is none.
async fn released(config: &PipelineConfig) -> Result<bool, Failure> {
    let begun = Instant::now();
    loop {
        let (slot, _) = source::slot_and_publication(config).await?;
        let Some(slot) = slot else { return Ok(false) };
        let Some(pid) = slot.active_pid else { return Ok(true) };
        if begun.elapsed() > RELEASE {
            let user = slot.used_by.as_deref().unwrap_or("unnamed");
            let message = format!("slot {} is still in use by process {pid} ({user})", slot.name);
            return Err(Failure::new(Exit::TempFail, message));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

impl std::fmt::Display for UndeployReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.removed { "removed" } else { "was not there" };
        write!(f, "connector {}: {what}", self.connector)?;
        if let Some(name) = &self.dropped_slot {
            write!(
                f,
                "\nslot {name}: dropped; a later deploy begins with a new snapshot. Publication and \
                 topics are kept."
            )?;
        }
        if let Some(slot) = &self.slot {
            let kept = source::bytes(slot.retained_bytes.unwrap_or(0));
            write!(
                f,
                "\nwarning: slot {} is kept, so that a later deploy goes on without a gap. Until \
                 then the server keeps all WAL from here on ({kept} so far) and its disk may fill.\n  \
                 to give it up: undeploy --drop-slot {}",
                slot.name, slot.name
            )?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_to_drop_must_be_named_right() {
        let mut config = PipelineConfig::default();
        assert!(named_right(&config, None).is_ok());
        assert!(named_right(&config, Some("cdc_slot")).is_ok());
        let failure = named_right(&config, Some("other")).unwrap_err();
        assert_eq!(failure.message, "--drop-slot other: this pipeline's slot is cdc_slot");
        config.source.source_type = SourceType::Mysql;
        assert_eq!(named_right(&config, Some("cdc_slot")).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn keeping_a_slot_is_said_with_its_price() {
        let report = UndeployReport {
            connector: "c".into(),
            removed: true,
            slot: Some(Slot {
                name: "s".into(),
                plugin: "pgoutput".into(),
                database: "d".into(),
                active_pid: None,
                used_by: None,
                retained_bytes: Some(3 * 1024 * 1024),
                wal_status: "reserved".into(),
            }),
            dropped_slot: None,
            notes: vec![],
        };
        let text = report.to_string();
        assert!(text.contains("slot s is kept") && text.contains("(3.0 MiB so far)"), "{text}");
    }
}
