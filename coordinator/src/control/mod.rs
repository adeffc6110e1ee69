//! The control topic: read by every coordinator, written by the leading one.
//!
//! There is one way into the state: the reader. A write is done when the reader has met it, so
//! what this process acts on is exactly what every worker can read.

pub mod commands;
pub mod letters;
mod reader;
mod rewind;
mod tasks;
mod topic;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use cdc_shared::control::{ControlRecord, ControlState};
use tokio::sync::{Mutex, watch};

pub use reader::{Reader, ReaderStatus};
pub use tasks::finish as finish_task;
pub use topic::ensure_topic;
pub use writer::{WriteError, Writer};

/// Longest wait for an own record to come back.
const READ_BACK: Duration = Duration::from_secs(10);

/// One change of the topic: a record, or the end of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The newest truth for its key.
    Put(Box<ControlRecord>),
    /// The key's record no longer counts.
    Remove(String),
}

impl Change {
    /// A record to write.
    pub fn put(record: ControlRecord) -> Self {
        Self::Put(Box::new(record))
    }

    /// The compaction key.
    pub fn key(&self) -> String {
        match self {
            Self::Put(record) => record.key(),
            Self::Remove(key) => key.clone(),
        }
    }
}

/// The control topic as this process knows it, and the right to write while it leads.
pub struct ControlLog {
    state: watch::Receiver<Arc<ControlState>>,
    status: watch::Receiver<ReaderStatus>,
    writer: Mutex<Option<Arc<Writer>>>,
    fenced: tokio::sync::Notify,
}

/// Why a change was not written.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another coordinator leads.
    #[error("this coordinator does not lead")]
    NotLeader,
    /// Kafka did not take it; nothing of it is in the topic.
    #[error("write to the control topic: {0}")]
    Write(WriteError),
    /// Written, but not met by our own reader in time.
    #[error("the control topic took the change, but reading it back took too long")]
    ReadBack,
}

impl ControlLog {
    /// Around what a [`Reader`] publishes.
    pub fn new(reader: &Reader) -> Arc<Self> {
        Arc::new(Self {
            state: reader.state(),
            status: reader.status(),
            writer: Mutex::new(None),
            fenced: tokio::sync::Notify::new(),
        })
    }

    /// What the topic says, as far as it was read.
    pub fn state(&self) -> Arc<ControlState> {
        Arc::clone(&self.state.borrow())
    }

    /// How reading goes.
    pub fn status(&self) -> ReaderStatus {
        self.status.borrow().clone()
    }

    /// Begins or ends leading.
    pub async fn set_writer(&self, writer: Option<Arc<Writer>>) {
        retire(std::mem::replace(&mut *self.writer.lock().await, writer));
    }

    /// Ends when a write has found another leader.
    pub async fn fenced(&self) {
        self.fenced.notified().await;
    }

    /// Decides changes on the newest state and writes them in one transaction. Nobody else writes
    /// in between. Returns what `decide` answers with the topic's offset that reflects it.
    ///
    /// # Errors
    /// `E` from `decide` (nothing is written), or a [`ControlError`].
    pub async fn write<T, E: From<ControlError>>(
        &self,
        decide: impl FnOnce(&ControlState) -> Result<(Vec<Change>, T), E>,
    ) -> Result<(T, i64), E> {
        let mut slot = self.writer.lock().await;
        let Some(writer) = slot.clone() else { return Err(ControlError::NotLeader.into()) };
        let (changes, answer) = decide(&self.state())?;
        if changes.is_empty() {
            return Ok((answer, self.state().offset()));
        }
        let written = tokio::task::spawn_blocking(move || writer.write(&changes))
            .await
            .unwrap_or_else(|error| Err(WriteError::Fatal(error.to_string())));
        match written {
            Ok(last) => {
                // Still inside the lock: the next decision must see this one.
                let mut state = self.state.clone();
                let seen = state.wait_for(|state| state.offset() > last);
                match tokio::time::timeout(READ_BACK, seen).await {
                    Ok(Ok(state)) => Ok((answer, state.offset())),
                    _ => Err(ControlError::ReadBack.into()),
                }
            }
            Err(error) => {
                if error.ends_leadership() {
                    retire(slot.take());
                    self.fenced.notify_one();
                }
                Err(ControlError::Write(error).into())
            }
        }
    }
}

/// Closing a producer waits for its threads.
fn retire(writer: Option<Arc<Writer>>) {
    tokio::task::spawn_blocking(move || drop(writer));
}
