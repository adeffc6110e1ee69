//! Watermarks: how far each sink is, with identity, as the workers last reported it.
//!
//! The store promises only that a value never goes back within an incarnation. It is a memory, not
//! a truth: emptied, it is filled again by heartbeats and by the sinks' own groups. What cannot be
//! read is an error and never "no watermark".

mod memory;
mod redis;
pub mod rule;

use std::collections::BTreeMap;

use async_trait::async_trait;
use cdc_shared::offset::{Position, TopicPartition};

pub use self::memory::MemoryStore;
pub use self::redis::RedisStore;

/// The watermarks of one sink.
pub type SinkWatermarks = BTreeMap<TopicPartition, Position>;

/// Where watermarks are kept. Every call is one round trip and ends within a few seconds.
#[async_trait]
pub trait WatermarkStore: Send + Sync {
    /// Applies one report by [`rule::advance`], atomically per partition.
    async fn advance(
        &self,
        sink: &str,
        report: &[(TopicPartition, Position)],
    ) -> Result<(), StoreError>;

    /// Every watermark of a sink.
    async fn read(&self, sink: &str) -> Result<SinkWatermarks, StoreError>;

    /// Forgets a sink, or one topic of it.
    async fn forget(&self, sink: &str, topic: Option<&str>) -> Result<(), StoreError>;

    /// Whether the store answers and takes writes, and whether it might drop what it holds.
    async fn check(&self) -> Result<StoreCheck, StoreError>;

    /// Forgets what may be out of date because another coordinator may have led since. A store that
    /// all coordinators share is never out of date.
    fn taken_over(&self) {}

    /// `redis` or `memory`.
    fn kind(&self) -> &'static str;
}

/// What [`WatermarkStore::check`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreCheck {
    /// A setting under which the store would drop watermarks, with the way out.
    pub eviction: Option<String>,
}

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, no answer, or a refusal.
    #[error("watermark store {address}: {cause}")]
    Unavailable {
        /// Where it was looked for.
        address: String,
        /// What came back.
        cause: String,
    },
    /// An entry that is not ours.
    #[error("watermark store {address}: field {field:?} of {key} holds {value:?}, no watermark")]
    Garbled {
        /// Where the store is.
        address: String,
        /// Redis key.
        key: String,
        /// Hash field.
        field: String,
        /// What it holds.
        value: String,
    },
    /// The settings cannot be used.
    #[error("watermark store settings: {0}")]
    Settings(String),
}
