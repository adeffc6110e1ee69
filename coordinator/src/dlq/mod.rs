//! Dead letters: read, chosen, shown. The daemon keeps an index of them; the command line makes one
//! for itself, so that it needs no coordinator.

mod follower;
pub mod index;
mod show;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cdc_shared::clock::unix_ms;
use cdc_shared::config::{DlqConfig, PipelineConfig};
use cdc_shared::control::ControlState;
use cdc_shared::dlq::{LetterCount, LetterFilter, LetterView, Letters};
use cdc_shared::registry::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::follower::Follower;
use self::index::{Chosen, Index, count};
use crate::consume;
use crate::kafka::{Cluster, KafkaTrouble};
use crate::state::Coordinator;

/// How often the daemon looks.
const LOOK: Duration = Duration::from_secs(10);
/// Most letters in one answer.
pub const MOST_SHOWN: usize = 1_000;

/// See the module.
pub struct DeadLetters {
    pipeline_id: String,
    kafka: cdc_shared::config::KafkaConfig,
    group: String,
    dlq: DlqConfig,
    registry: Arc<Registry>,
    index: RwLock<Index>,
    follower: Mutex<Follower>,
    counts: Mutex<Arc<Vec<LetterCount>>>,
}

impl DeadLetters {
    /// Of a pipeline; nothing is read yet.
    pub fn new(config: &PipelineConfig, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            pipeline_id: config.pipeline_id.clone(),
            kafka: config.kafka.clone(),
            group: config.group_id.clone(),
            dlq: config.dlq.clone(),
            registry,
            index: RwLock::default(),
            follower: Mutex::new(Follower::new(&config.kafka, &config.group_id)),
            counts: Mutex::default(),
        })
    }

    /// Reads what came since the last time. `topics`: the source's.
    ///
    /// # Errors
    /// When Kafka cannot be read.
    pub async fn refresh(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        topics: BTreeSet<String>,
    ) -> Result<(), KafkaTrouble> {
        let (this, cluster) = (Arc::clone(self), Arc::clone(cluster));
        let letters: Vec<String> = topics.iter().map(|topic| self.dlq.topic(topic)).collect();
        let read = tokio::task::spawn_blocking(move || {
            let mut follower = this.follower.lock().unwrap_or_else(PoisonError::into_inner);
            follower.catch_up(&cluster, &letters, &this.index)
        });
        read.await.unwrap_or_else(|error| Err(KafkaTrouble::Answer(error.to_string())))
    }

    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The letters that are meant.
    pub async fn choose(&self, control: &ControlState, filter: &LetterFilter) -> Vec<Chosen> {
        let mut chosen = self.index().choose(control, filter);
        let Some(wanted) = &filter.key else { return chosen };
        let mut matching = Vec::new();
        for letter in chosen.drain(..) {
            let key = self.key(&letter).await;
            if key.is_some_and(|key| consume::matches(wanted, &key)) {
                matching.push(letter);
            }
        }
        matching
    }

    async fn key(&self, chosen: &Chosen) -> Option<Value> {
        let bytes = chosen.letter.key.as_deref()?;
        Some(consume::decode(&self.registry, bytes).await.ok()?.ok()?.json)
    }

    async fn view(&self, chosen: &Chosen) -> LetterView {
        let Chosen { identity, letter, state, settled } = chosen;
        let (by, at, reason) = match settled.clone() {
            Some((by, at, reason)) => (Some(by), Some(at), Some(reason)),
            None => (None, None, None),
        };
        LetterView {
            sink: identity.sink.to_string(),
            topic: identity.tp.topic.to_string(),
            topic_id: identity.topic_id.clone(),
            partition: identity.tp.partition,
            offset: identity.offset,
            error_type: letter.error_type.to_string(),
            error_message: letter.error_message.clone(),
            attempts: letter.attempts,
            at_ms: letter.at_ms,
            copies: letter.copies,
            dlq_topic: letter.place.0.to_string(),
            dlq_partition: letter.place.1,
            dlq_offset: letter.place.2,
            key: self.key(chosen).await,
            state: *state,
            settled_by: by,
            settled_ms: at,
            settled_reason: reason.filter(|reason| !reason.is_empty()),
        }
    }

    /// The letters that are meant, as an answer of bounded length.
    pub async fn list(
        &self,
        control: &ControlState,
        filter: &LetterFilter,
        limit: usize,
    ) -> Letters {
        let chosen = self.choose(control, filter).await;
        let shown = chosen.len().min(limit).min(MOST_SHOWN);
        let mut letters = Vec::with_capacity(shown);
        for letter in chosen.iter().take(shown) {
            letters.push(self.view(letter).await);
        }
        let (unreadable, forgotten) = {
            let index = self.index();
            (index.unreadable, index.forgotten)
        };
        Letters {
            pipeline_id: self.pipeline_id.clone(),
            letters,
            left_off: (chosen.len() - shown) as u64,
            counts: count(&chosen, unix_ms()),
            unreadable,
            forgotten,
        }
    }

    /// How many letters each sink has, as of the last look.
    pub fn counts(&self) -> Arc<Vec<LetterCount>> {
        Arc::clone(&self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at an interval, until `stop`.
    pub async fn run(self: &Arc<Self>, coordinator: &Coordinator, stop: &CancellationToken) {
        let mut told = false;
        loop {
            let topics = source_topics(coordinator);
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = self.refresh(&coordinator.cluster, topics) => read,
            };
            match read {
                Ok(()) => told = false,
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!(%error, "read the dead letter topics");
                }
                Err(_) => {}
            }
            self.recount(&coordinator.control.state());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn recount(&self, control: &ControlState) {
        let chosen = self.index().choose(control, &LetterFilter::default());
        let counts = Arc::new(count(&chosen, unix_ms()));
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// The topics whose records may be dead letters.
pub fn source_topics(coordinator: &Coordinator) -> BTreeSet<String> {
    let members = coordinator.members(&coordinator.control.state());
    let configured = configured_topics(&coordinator.config);
    members.into_iter().map(|(_, topic)| topic).chain(configured).collect()
}

/// The same, as far as the configuration knows.
pub fn configured_topics(config: &PipelineConfig) -> BTreeSet<String> {
    config.source.tables.iter().map(|table| config.topic(table)).collect()
}
