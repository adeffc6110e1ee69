//! Watermarks in the process: the embedded default of `cdc run`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use cdc_shared::offset::{Position, TopicPartition};

use super::{SinkWatermarks, StoreCheck, StoreError, WatermarkStore, rule};

/// Watermarks that last as long as the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    sinks: Mutex<HashMap<String, SinkWatermarks>>,
}

impl MemoryStore {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, SinkWatermarks>) -> T) -> T {
        act(&mut self.sinks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl WatermarkStore for MemoryStore {
    async fn advance(
        &self,
        sink: &str,
        report: &[(TopicPartition, Position)],
    ) -> Result<(), StoreError> {
        self.with(|sinks| {
            let stored = sinks.entry(sink.to_owned()).or_default();
            for (tp, position) in report {
                if rule::advance(stored.get(tp), position) {
                    stored.insert(tp.clone(), position.clone());
                }
            }
        });
        Ok(())
    }

    async fn read(&self, sink: &str) -> Result<SinkWatermarks, StoreError> {
        Ok(self.with(|sinks| sinks.get(sink).cloned().unwrap_or_default()))
    }

    async fn forget(&self, sink: &str, topic: Option<&str>) -> Result<(), StoreError> {
        self.with(|sinks| match topic {
            None => {
                sinks.remove(sink);
            }
            Some(topic) => {
                if let Some(stored) = sinks.get_mut(sink) {
                    stored.retain(|tp, _| tp.topic.as_ref() != topic);
                }
            }
        });
        Ok(())
    }

    async fn check(&self) -> Result<StoreCheck, StoreError> {
        Ok(StoreCheck::default())
    }

    fn taken_over(&self) {
        self.with(HashMap::clear);
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::rule::tests::position;

    #[tokio::test]
    async fn what_was_remembered_from_an_earlier_lead_is_forgotten() {
        let store = MemoryStore::default();
        let tp = TopicPartition::new("t", 0);
        store.advance("s", &[(tp, position(0, "a", 1000))]).await.unwrap();
        assert_eq!(store.read("s").await.unwrap().len(), 1);
        // Meanwhile, under another leader, the sink was found behind itself.
        store.taken_over();
        assert!(store.read("s").await.unwrap().is_empty());
    }
}
