//! Progress: the one meaning an offset has, and the identity that travels with it.
//!
//! [`NextOffset`] is exclusive: the first offset that is not yet durable. Kafka offsets have holes
//! (transaction markers, compaction), so nothing here ever computes "offset minus one" to find a
//! record. [`Position`] is an offset *with* its identity (`DESIGN` §2.2); it is what a sink's own
//! record and the commit metadata of the sink's consumer group hold.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A partition of a topic. Cheap to clone.
#[derive(
    Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The first offset that is not yet durable: everything below it is done.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "i64", into = "i64")]
pub struct NextOffset(i64);

impl TryFrom<i64> for NextOffset {
    type Error = String;

    fn try_from(offset: i64) -> Result<Self, String> {
        Self::new(offset).ok_or_else(|| format!("{offset} is no offset: it is negative"))
    }
}

impl From<NextOffset> for i64 {
    fn from(next: NextOffset) -> Self {
        next.0
    }
}

impl NextOffset {
    /// The position before every record.
    pub const ZERO: Self = Self(0);

    /// From a number as Kafka commits it (the next offset to read). Negative is `None`.
    pub fn new(offset: i64) -> Option<Self> {
        (offset >= 0).then_some(Self(offset))
    }

    /// The position just after the record at `offset`.
    pub fn after(offset: i64) -> Self {
        Self(offset.max(-1) + 1)
    }

    /// The number, as Kafka commits it.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for NextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows by one each time a sink's progress on a partition is deliberately set back (the sink was
/// found behind itself, a rewind, an accepted new topic). Within one incarnation progress is
/// monotonic.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Kafka's id of a topic, in its usual base64 form. A topic deleted and created again under the
/// same name has another one.
#[derive(
    Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct TopicId(pub Arc<str>);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The last schema ids a sink accepted on a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SchemaIds {
    /// Registry id of the key schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<i32>,
    /// Registry id of the value schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i32>,
}

impl SchemaIds {
    /// These, and where there is none, the one from `before`.
    #[must_use]
    pub fn or(self, before: Self) -> Self {
        Self { key: self.key.or(before.key), value: self.value.or(before.value) }
    }

    /// Whether a schema is here that is not the one in `before`.
    pub fn differs(self, before: Self) -> bool {
        self.or(before) != before
    }
}

/// An offset with its identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// First offset not yet durable.
    pub next: NextOffset,
    /// Which run of monotonic progress this belongs to.
    pub incarnation: Incarnation,
    /// Which topic the offset counts in.
    pub topic_id: TopicId,
    /// Last accepted schema ids.
    #[serde(default)]
    pub schemas: SchemaIds,
}

impl Position {
    /// This position moved to another offset of the same topic and incarnation.
    #[must_use]
    pub fn at(&self, next: NextOffset) -> Self {
        Self { next, ..self.clone() }
    }
}

/// What group S carries in the metadata of a committed offset, beside the number itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct CommitMetadata {
    #[serde(rename = "i")]
    incarnation: Incarnation,
    #[serde(rename = "t")]
    topic_id: TopicId,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    key: Option<i32>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    value: Option<i32>,
}

impl Position {
    /// The metadata string that group S commits with [`Position::next`].
    pub fn commit_metadata(&self) -> String {
        let metadata = CommitMetadata {
            incarnation: self.incarnation,
            topic_id: self.topic_id.clone(),
            key: self.schemas.key,
            value: self.schemas.value,
        };
        serde_json::to_string(&metadata).unwrap_or_default()
    }

    /// Reads a committed offset back. `None` when the metadata is not ours: an offset without
    /// identity proves nothing about which topic it counts in.
    pub fn from_commit(offset: i64, metadata: &str) -> Option<Self> {
        let next = NextOffset::new(offset)?;
        let metadata: CommitMetadata = serde_json::from_str(metadata).ok()?;
        Some(Self {
            next,
            incarnation: metadata.incarnation,
            topic_id: metadata.topic_id,
            schemas: SchemaIds { key: metadata.key, value: metadata.value },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_metadata_reads_back() {
        let position = Position {
            next: NextOffset::after(41),
            incarnation: Incarnation(3),
            topic_id: TopicId("Zm9vYmFyYmF6cXV4cXV1eA".into()),
            schemas: SchemaIds { key: Some(7), value: None },
        };
        let text = position.commit_metadata();
        assert_eq!(text, r#"{"i":3,"t":"Zm9vYmFyYmF6cXV4cXV1eA","k":7}"#);
        assert_eq!(Position::from_commit(42, &text), Some(position));
    }

    #[test]
    fn a_negative_number_is_no_position() {
        assert_eq!(serde_json::from_str::<NextOffset>("7").unwrap().get(), 7);
        assert_eq!(serde_json::to_string(&NextOffset::after(6)).unwrap(), "7");
        let error = serde_json::from_str::<NextOffset>("-1001").unwrap_err().to_string();
        assert!(error.starts_with("-1001 is no offset"), "{error}");
        assert_eq!(Incarnation(u64::MAX).next(), Incarnation(u64::MAX));
    }

    #[test]
    fn a_foreign_commit_has_no_identity() {
        assert_eq!(Position::from_commit(42, ""), None);
        assert_eq!(Position::from_commit(-1001, r#"{"i":3,"t":"x"}"#), None);
    }
}
