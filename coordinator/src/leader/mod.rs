//! Who leads: the coordinator that Kafka assigns the control topic's partition to.
//!
//! The assignment only says whose turn it is. What makes a leader is the fenced producer: taking
//! over ends every other one, so that a coordinator that was frozen and wakes up can no longer
//! write, whatever it believes.

mod election;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_shared::control::ControlRecord;
use tokio_util::sync::CancellationToken;

use crate::control::{Change, ControlError, Reader, Writer, ensure_topic};
use crate::state::Coordinator;

pub use election::{ELECTION_TIMEOUT, Election};

/// Pause after an attempt that came to nothing.
const RETRY: Duration = Duration::from_secs(2);

/// Takes part in the election and leads whenever it is this process's turn, until `stop`.
pub async fn run(coordinator: &Coordinator, reader: &Reader, stop: &CancellationToken) {
    let topic = coordinator.config.control_topic();
    if !prepare(coordinator, &topic, stop).await {
        return;
    }
    while !stop.is_cancelled() {
        let group = format!("{}.~coordinator", coordinator.config.group_id);
        match Election::join(&coordinator.config.kafka, &group, &topic) {
            Ok(mut election) => {
                while let Ended::Revoked = lead_once(coordinator, reader, &mut election, stop).await
                {
                }
                // Leaving the group waits for the broker.
                let _ = tokio::task::spawn_blocking(move || drop(election)).await;
            }
            Err(error) => tracing::warn!(%error, "join the election of coordinators"),
        }
        pause(stop).await;
    }
}

/// Makes sure of the control topic, for as long as it takes.
async fn prepare(coordinator: &Coordinator, topic: &str, stop: &CancellationToken) -> bool {
    loop {
        let made = tokio::select! {
            () = stop.cancelled() => return false,
            made = ensure_topic(&coordinator.config.kafka, topic) => made,
        };
        match made {
            Ok(()) => {
                coordinator.probes.set_control_trouble(None);
                return true;
            }
            Err(error) => {
                tracing::warn!(error, "prepare the control topic");
                coordinator.probes.set_control_trouble(Some(error));
                pause(stop).await;
            }
        }
        if stop.is_cancelled() {
            return false;
        }
    }
}

/// How one turn ended.
enum Ended {
    /// The partition went to another; this process stays in the election.
    Revoked,
    /// Fenced, failed or stopped: join anew.
    Leave,
}

async fn lead_once(
    coordinator: &Coordinator,
    reader: &Reader,
    election: &mut Election,
    stop: &CancellationToken,
) -> Ended {
    tokio::select! {
        () = stop.cancelled() => return Ended::Leave,
        chosen = election.wait_for(true) => if !chosen { return Ended::Leave },
    }
    let Some(writer) = take_over(coordinator, reader).await else { return Ended::Leave };
    coordinator.control.set_writer(Some(Arc::new(writer))).await;
    coordinator.store.taken_over();
    coordinator.leading.store(true, Ordering::Release);
    tracing::info!(control_offset = coordinator.control.state().offset(), "leading the pipeline");
    coordinator.group.nudge();
    coordinator.schemas.nudge();
    let ended = tokio::select! {
        () = stop.cancelled() => Ended::Leave,
        lost = election.wait_for(false) => if lost { Ended::Revoked } else { Ended::Leave },
        () = coordinator.control.fenced() => Ended::Leave,
        ended = announce(coordinator) => ended,
    };
    coordinator.leading.store(false, Ordering::Release);
    coordinator.control.set_writer(None).await;
    tracing::info!("no longer leading the pipeline");
    ended
}

/// Tells workers, commands and other coordinators where the leader is. Never ends: whatever becomes
/// of it, this process leads on.
async fn announce(coordinator: &Coordinator) -> Ended {
    let url = coordinator.config.coordinator.own_url();
    loop {
        let told = coordinator.control.write::<(), ControlError>(|control| {
            let is_known = control.leader() == Some(url.as_str());
            let change = || Change::put(ControlRecord::Leader { url: url.clone() });
            Ok(((!is_known).then(change).into_iter().collect(), ()))
        });
        match told.await {
            Ok(_) => return std::future::pending().await,
            Err(error) => tracing::warn!(%error, "tell where the leader is"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Fences the former leader, then reads what it has left.
async fn take_over(coordinator: &Coordinator, reader: &Reader) -> Option<Writer> {
    let kafka = coordinator.config.kafka.clone();
    let topic = coordinator.config.control_topic();
    let made = tokio::task::spawn_blocking(move || Writer::take_over(&kafka, &topic)).await;
    match made {
        Ok(Ok(writer)) => {
            if reader.catch_up().await {
                return Some(writer);
            }
            tracing::warn!("take over: the control topic could not be read to its end");
        }
        Ok(Err(error)) => tracing::warn!(%error, "take over: fence the former leader"),
        Err(error) => tracing::warn!(%error, "take over"),
    }
    None
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(RETRY) => {}
    }
}
