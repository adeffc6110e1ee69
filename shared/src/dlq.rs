//! Dead letters: their headers, how they are chosen and shown, and what became of them.
//!
//! A letter is one record of a dead letter topic. What identifies it is where it came from: sink,
//! topic with its id, partition and offset. Letters are at least once, so two of one identity are
//! one; nothing is ever deleted from the topic, what became of a letter stands in the control topic.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::offset::TopicId;

/// Names of the headers of a letter.
pub mod header {
    /// Topic that the record came from.
    pub const TOPIC: &str = "dlq.source_topic";
    /// Its partition.
    pub const PARTITION: &str = "dlq.source_partition";
    /// Its offset.
    pub const OFFSET: &str = "dlq.source_offset";
    /// Kafka's id of the topic that the offset counts in.
    pub const TOPIC_ID: &str = "dlq.topic_id";
    /// Sink that rejected it.
    pub const SINK: &str = "dlq.sink_id";
    /// Stable code of the rejection.
    pub const ERROR_TYPE: &str = "dlq.error_type";
    /// What was wrong.
    pub const ERROR_MESSAGE: &str = "dlq.error_message";
    /// When, as ISO 8601.
    pub const TIMESTAMP: &str = "dlq.timestamp";
    /// How often it was tried.
    pub const ATTEMPTS: &str = "dlq.attempts";
    /// Registry id in the value's framing.
    pub const SCHEMA_ID: &str = "dlq.schema_id";
    /// The chain of causes.
    pub const STACKTRACE: &str = "dlq.stacktrace";
}

/// Most letters that one task replays, or one command drops.
pub const MOST_AT_ONCE: usize = 5_000;
/// Most settled letters of one sink that the control topic remembers.
pub const MOST_SETTLED: usize = 200_000;
/// Offsets whose settled letters share a record of the control topic.
pub const BLOCK: i64 = 10_000;

/// What became of a letter.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The sink has taken it.
    Replayed,
    /// The sink has something newer of its key: it was not sent again.
    Superseded,
    /// An operator gave it up.
    Dropped,
}

/// Letters of one partition that one task or command settled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Settled {
    /// How.
    pub fate: Fate,
    /// When, Unix ms. A letter that is younger is open again: the record was rejected anew.
    pub at_ms: i64,
    /// The task's id, or who dropped them.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Their offsets, rising.
    pub offsets: Vec<i64>,
}

/// Where a letter stands.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Nobody has done anything about it.
    Open,
    /// See [`Fate::Replayed`].
    Replayed,
    /// See [`Fate::Superseded`].
    Superseded,
    /// See [`Fate::Dropped`].
    Dropped,
}

impl LetterState {
    /// The word in JSON, metrics and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Superseded => "superseded",
            Self::Dropped => "dropped",
        }
    }
}

impl From<Fate> for LetterState {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Replayed => Self::Replayed,
            Fate::Superseded => Self::Superseded,
            Fate::Dropped => Self::Dropped,
        }
    }
}

/// Which letters are meant. Everything that is set must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LetterFilter {
    /// Of this sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// Of this source topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Of this partition of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// At this offset of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// With this code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// Rejected at or after this time, Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Rejected before this time, Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Whose key has these fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<LetterState>,
}

/// One letter, as lists show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LetterView {
    /// Sink that rejected the record.
    pub sink: String,
    /// Where the record came from.
    pub topic: String,
    /// The topic its offset counts in; empty in a letter of another program.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Stable code of the rejection.
    pub error_type: String,
    /// What was wrong.
    pub error_message: String,
    /// How often it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// When it was last rejected, Unix ms.
    pub at_ms: i64,
    /// How many letters it has.
    pub copies: u32,
    /// Topic of the newest letter.
    pub dlq_topic: String,
    /// Its partition.
    pub dlq_partition: i32,
    /// Its offset.
    pub dlq_offset: i64,
    /// The decoded key, where it can be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// Where it stands.
    pub state: LetterState,
    /// What settled it: a task, or a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
    /// When, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_ms: Option<i64>,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_reason: Option<String>,
}

/// How many letters of one sink have one code.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct LetterCount {
    /// Sink.
    pub sink: String,
    /// Stable code of the rejection.
    pub error_type: String,
    /// Letters that nobody has done anything about.
    pub open: u64,
    /// Replayed ones.
    pub replayed: u64,
    /// Superseded ones.
    pub superseded: u64,
    /// Dropped ones.
    pub dropped: u64,
    /// Letters of the last ten minutes.
    #[serde(default)]
    pub recent: u64,
}

impl LetterCount {
    /// Counts one in.
    pub fn add(&mut self, state: LetterState) {
        let count = match state {
            LetterState::Open => &mut self.open,
            LetterState::Replayed => &mut self.replayed,
            LetterState::Superseded => &mut self.superseded,
            LetterState::Dropped => &mut self.dropped,
        };
        *count += 1;
    }
}

/// The answer to `GET /v1/dlq`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Letters {
    /// The pipeline.
    pub pipeline_id: String,
    /// The letters that are meant, in the order of sink, topic, partition and offset.
    pub letters: Vec<LetterView>,
    /// Letters that are meant and left off, to keep the answer short.
    pub left_off: u64,
    /// How many of those that are meant have which code.
    pub counts: Vec<LetterCount>,
    /// Records of the dead letter topics that do not say where they came from.
    pub unreadable: u64,
    /// Letters beyond those that this process keeps in mind.
    pub forgotten: u64,
}

/// A key or a value of a letter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Datum {
    /// Registry id in its framing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_id: Option<i32>,
    /// Decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The bytes as they are, where they cannot be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Length in bytes; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

/// One header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LetterHeader {
    /// Name.
    pub name: String,
    /// As text, or in hex where it is none.
    pub value: String,
}

/// The answer to `GET /v1/dlq/{sink}/{topic}/{partition}/{offset}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LetterDetail {
    /// The pipeline.
    pub pipeline_id: String,
    /// The letter.
    #[serde(flatten)]
    pub letter: LetterView,
    /// Its key.
    pub key_datum: Datum,
    /// Its value.
    pub value_datum: Datum,
    /// All its headers, in their order.
    pub headers: Vec<LetterHeader>,
}

/// What a worker tells of its part in a replay, until the task has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReplayReport {
    /// The task.
    pub task: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offsets of letters that the sink has taken.
    #[serde(default)]
    pub replayed: Vec<i64>,
    /// Offsets of letters that the sink has something newer of.
    #[serde(default)]
    pub superseded: Vec<i64>,
    /// Letters that stay open.
    #[serde(default)]
    pub failed: Vec<FailedLetter>,
}

/// A letter that was not taken again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FailedLetter {
    /// Its offset.
    pub offset: i64,
    /// Stable code.
    pub code: String,
    /// Why.
    pub message: String,
}

impl ReplayReport {
    /// Whether the letter at `offset` is dealt with.
    pub fn knows(&self, offset: i64) -> bool {
        self.replayed.contains(&offset)
            || self.superseded.contains(&offset)
            || self.failed.iter().any(|failed| failed.offset == offset)
    }

    /// Letters that are dealt with.
    pub fn count(&self) -> usize {
        self.replayed.len() + self.superseded.len() + self.failed.len()
    }
}

impl fmt::Display for LetterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sink, topic, partition, offset, error_type, .. } = self;
        let at = jiff::Timestamp::from_millisecond(self.at_ms).unwrap_or_default();
        write!(f, "{sink}  {topic}[{partition}]@{offset}  {at:.0}  {error_type}")?;
        if let Some(key) = &self.key {
            write!(f, "  key {key}")?;
        }
        match (&self.settled_by, self.settled_reason.as_deref()) {
            (None, _) => {}
            (Some(by), None | Some("")) => write!(f, "  {} by {by}", self.state.name())?,
            (Some(by), Some(why)) => write!(f, "  {} by {by}: {why}", self.state.name())?,
        }
        write!(f, "\n    {}", self.error_message)
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in &self.letters {
            writeln!(f, "{letter}")?;
        }
        if self.left_off > 0 {
            writeln!(f, "… and {} more (--limit)", self.left_off)?;
        }
        for count in &self.counts {
            let LetterCount { sink, error_type, open, replayed, superseded, dropped, .. } = count;
            writeln!(
                f,
                "{sink}: {error_type}: {open} open, {replayed} replayed, {superseded} superseded, \
                 {dropped} dropped"
            )?;
        }
        if self.unreadable > 0 {
            writeln!(f, "{} records do not say where they came from", self.unreadable)?;
        }
        if self.forgotten > 0 {
            writeln!(f, "{} letters more were not looked at", self.forgotten)?;
        }
        if self.counts.is_empty() {
            return f.write_str("no dead letters");
        }
        let open: u64 = self.counts.iter().map(|count| count.open).sum();
        write!(f, "{open} open")
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.json, &self.hex) {
            (Some(json), _) => write!(f, "{json:#}"),
            (None, Some(hex)) => {
                let why = self.error.as_deref().unwrap_or_default();
                write!(f, "{hex}\n  (not decoded: {why})")
            }
            (None, None) => f.write_str("none"),
        }
    }
}

impl fmt::Display for LetterDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = &self.letter;
        writeln!(f, "{letter}")?;
        let tried = letter.attempts.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let LetterView { copies, dlq_topic, dlq_partition, dlq_offset, .. } = letter;
        writeln!(
            f,
            "attempts {tried}, letters {copies}, the newest at \
             {dlq_topic}[{dlq_partition}]@{dlq_offset}, {}",
            letter.state.name()
        )?;
        writeln!(f, "key {}", self.key_datum)?;
        writeln!(f, "value {}", self.value_datum)?;
        f.write_str("headers")?;
        for LetterHeader { name, value } in &self.headers {
            write!(f, "\n  {name}: {}", value.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}
