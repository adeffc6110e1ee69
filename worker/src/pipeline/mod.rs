//! What happens to the records of one partition between Kafka and the sink.
//!
//! ```text
//! consumer thread ──Assigned/Revoked──▸ supervisor ──spawns, ends──▸ partition task (one per tp)
//!        │  ▴                                                          │ decode ─▸ sink writer
//!        │  └──────────────── Start · Hold · Commit ───────────────────┤ backlog ─▸ watermark
//!        └───────────────────────── chunks of records ─────────────────┘
//! ```
//!
//! A partition task owns everything about its partition: the records that are not durable yet, the
//! sink's writer, the watermark. Begin with [`partition`].

pub mod backlog;
#[cfg(test)]
mod bench_test;
pub mod breaker;
pub mod decode;
pub mod dlq;
mod ending;
mod gate;
pub mod hold;
pub mod partition;
mod rejects;
mod replay;
pub mod resolve;
mod running;
pub mod supervisor;

use std::sync::Arc;

use cdc_shared::api::Directive;
use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{BreakerConfig, OnIncompatible, OnReject, StartPosition};
use cdc_shared::json::JsonOptions;
use cdc_shared::offset::{TopicId, TopicPartition};
use cdc_shared::registry::Registry;
use tokio::sync::{mpsc, watch};

use crate::progress::client::CoordinatorClient;
use crate::progress::reporter::{LatestReply, directive_in_force};
use crate::sink::{Sink, SinkError};
use crate::source::consumer::SourceHandle;
use crate::source::control::ControlView;
use crate::source::letters::LetterReader;
use crate::source::probe::Probe;
use crate::status::SharedStatus;

/// What every partition task of a process shares.
pub struct Shared {
    /// The one sink.
    pub sink_id: String,
    /// Where records go.
    pub sink: Arc<dyn Sink>,
    /// `start` of the sink.
    pub start: StartPosition,
    /// `on_reject` of the sink.
    pub on_reject: OnReject,
    /// `on_incompatible` of the sink; `None` without `stop_on_incompatible_schema`.
    pub on_incompatible: Option<OnIncompatible>,
    /// Backoff of the sink.
    pub retry: RetryPolicy,
    /// `retry.on_exhausted: dlq`.
    pub give_up: bool,
    /// Filters of the sink.
    pub filter: decode::Filter,
    /// How the sink wants its JSON.
    pub json: Arc<JsonOptions>,
    /// Dead letters.
    pub dlq: dlq::Dlq,
    /// When rejecting must stop.
    pub breaker: BreakerConfig,
    /// Dead letters that are sent again.
    pub letters: LetterReader,
    /// Schemas.
    pub registry: Registry,
    /// Questions to Kafka.
    pub probe: Probe,
    /// The consumer thread.
    pub source: SourceHandle,
    /// The coordinator.
    pub coordinator: CoordinatorClient,
    /// What the control topic says.
    pub control: watch::Receiver<ControlView>,
    /// What the coordinator last answered.
    pub replies: watch::Receiver<LatestReply>,
    /// Whether the sink took us once.
    pub proven: watch::Receiver<bool>,
    /// What this process knows of itself.
    pub status: SharedStatus,
    /// Tells of an end that no partition can survive.
    pub fatal: mpsc::Sender<SinkError>,
}

impl Shared {
    /// The directive for one topic.
    pub fn directive(&self, tp: &TopicPartition) -> Directive {
        let control = self.control.borrow().state.clone();
        let reply = self.replies.borrow().clone();
        directive_in_force(&control, reply.as_ref(), &self.sink_id, Some(&tp.topic))
    }

    /// Since which incarnation the records of a partition have new ids; 0: never.
    pub fn id_generation(&self, tp: &TopicPartition, topic_id: &TopicId) -> u64 {
        self.control.borrow().state.id_generation(&self.sink_id, tp, topic_id)
    }

    /// First offset of the control topic not read yet.
    pub fn control_offset(&self) -> i64 {
        self.control.borrow().state.offset()
    }
}
