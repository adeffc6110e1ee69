//! Changes of schema as every part speaks of them: what a worker asks, what the coordinator's
//! verdict says, and what follows from the verdicts of a subject.
//!
//! A verdict belongs to a step: from one schema id to another. A partition may take the step from
//! the schema it last had to that of its next record when a way of steps leads there that are
//! compatible or accepted ([`Steps`]). A partition that never had a schema may begin with any of the
//! subject's baseline, the versions that were there when the monitor first looked. Between those a
//! step is judged like any other: a change that came just before the first look is held too.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The registry's subject of a topic's keys.
pub fn key_subject(topic: &str) -> String {
    format!("{topic}-key")
}

/// The registry's subject of a topic's values.
pub fn value_subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// The topic of a subject, and whether it is the keys'. `None`: not named after a topic.
pub fn topic_of(subject: &str) -> Option<(&str, bool)> {
    let key = subject.strip_suffix("-key").map(|topic| (topic, true));
    key.or_else(|| subject.strip_suffix("-value").map(|topic| (topic, false)))
}

/// May this partition take this step? What a worker asks that knows no verdict.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
pub struct SchemaQuestion {
    /// `{topic}-key` or `{topic}-value`.
    pub subject: String,
    /// Id that the partition last had; absent when it never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<i32>,
    /// Id of the record that waits.
    pub this: i32,
}

/// What happened to one field.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FieldEffect {
    /// It is there no more.
    Removed,
    /// It is new.
    Added,
    /// It takes less than before.
    Narrowed,
    /// It takes more than before.
    Widened,
    /// Null is no longer one of its values.
    MadeRequired,
    /// Null has become one of its values.
    MadeOptional,
    /// It means something else.
    OtherType,
    /// An enum has a label more.
    NewLabel,
    /// Its default is another.
    OtherDefault,
    /// The source computes it, so that it comes and goes without meaning.
    Generated,
    /// Part of the envelope around the row.
    Envelope,
    /// The key as a whole: keys of the new schema go to other partitions.
    Key,
    /// The schema as a whole.
    Schema,
}

impl FieldEffect {
    /// The words for a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Added => "added",
            Self::Narrowed => "narrowed",
            Self::Widened => "widened",
            Self::MadeRequired => "made required",
            Self::MadeOptional => "made optional",
            Self::OtherType => "other type",
            Self::NewLabel => "new label",
            Self::OtherDefault => "other default",
            Self::Generated => "generated",
            Self::Envelope => "envelope",
            Self::Key => "other key",
            Self::Schema => "other schema",
        }
    }

    /// Whether a reader of the former schema can live with it.
    pub fn is_compatible(self) -> bool {
        match self {
            Self::Removed
            | Self::Narrowed
            | Self::MadeRequired
            | Self::OtherType
            | Self::Key
            | Self::Schema => false,
            Self::Added
            | Self::Widened
            | Self::MadeOptional
            | Self::NewLabel
            | Self::OtherDefault
            | Self::Generated
            | Self::Envelope => true,
        }
    }
}

/// One difference between two schemas.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// The field, with the way to it (`address.street`, `tags[]`); empty for the whole.
    pub field: String,
    /// What happened to it.
    pub effect: FieldEffect,
    /// From what to what.
    pub detail: String,
}

impl std::fmt::Display for FieldChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (field, effect) = (&self.field, self.effect.name());
        match (field.is_empty(), self.detail.is_empty()) {
            (true, _) => f.write_str(&self.detail),
            (false, true) => write!(f, "{field} {effect}"),
            (false, false) => write!(f, "{field} {effect} ({})", self.detail),
        }
    }
}

/// Who took an incompatible change as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Acceptance {
    /// By whom.
    pub by: String,
    /// When, Unix ms.
    pub at_ms: i64,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// The verdict on one step of a subject.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SchemaVerdict {
    /// `{topic}-key` or `{topic}-value`.
    pub subject: String,
    /// Registry id of the former schema.
    pub previous: i32,
    /// Registry id of the new one.
    pub this: i32,
    /// The former one's version in the subject, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<i32>,
    /// The new one's version. Lower than the former's where an old schema came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub this_version: Option<i32>,
    /// Whether a reader of the former schema can live with the new one.
    pub compatible: bool,
    /// Every difference.
    pub changes: Vec<FieldChange>,
    /// What the registry itself says, by its own rule; only shown. Absent when it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_compatible: Option<bool>,
    /// When it was judged, Unix ms.
    pub at_ms: i64,
    /// Set once an operator took it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
}

impl SchemaVerdict {
    /// Whether records may take this step.
    pub fn passes(&self) -> bool {
        self.compatible || self.accepted.is_some()
    }

    /// The differences that make it incompatible, or all if none does, in one line.
    pub fn summary(&self) -> String {
        let broken = self.changes.iter().filter(|change| !change.effect.is_compatible());
        let mut told: Vec<String> = broken.map(ToString::to_string).collect();
        if told.is_empty() {
            told = self.changes.iter().map(ToString::to_string).collect();
        }
        if told.is_empty() {
            return "no field changed".to_owned();
        }
        told.join("; ")
    }
}

/// A subject as the monitor knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SchemaSubject {
    /// `{topic}-key` or `{topic}-value`.
    pub subject: String,
    /// Ids of the versions that were there at the monitor's first look, oldest first. Of a subject
    /// that did not exist then, its first version.
    pub baseline: Vec<i32>,
    /// Every version that was seen, oldest first.
    pub versions: Vec<SchemaVersion>,
    /// When the monitor first looked, Unix ms.
    pub since_ms: i64,
}

impl SchemaSubject {
    /// The version of an id in this subject.
    pub fn version_of(&self, id: i32) -> Option<i32> {
        self.versions.iter().rev().find(|version| version.id == id).map(|version| version.version)
    }
}

/// One version of a subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SchemaVersion {
    /// Its number.
    pub version: i32,
    /// Registry id of its schema.
    pub id: i32,
    /// When the monitor first saw it, Unix ms.
    pub at_ms: i64,
}

/// What the verdicts say of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'v> {
    /// Records may pass.
    Passes,
    /// They may not, until this one is accepted.
    Incompatible(&'v SchemaVerdict),
    /// Nobody has judged it.
    Unjudged,
}

/// The steps of one subject that are known.
#[derive(Clone, Debug)]
pub struct Steps<'v> {
    baseline: &'v [i32],
    verdicts: Vec<&'v SchemaVerdict>,
}

impl<'v> Steps<'v> {
    /// From the subject's baseline and all verdicts on it.
    pub fn new(baseline: &'v [i32], verdicts: Vec<&'v SchemaVerdict>) -> Self {
        Self { baseline, verdicts }
    }

    /// May a partition that last had `previous` take a record of `this`?
    pub fn answer(&self, previous: Option<i32>, this: i32) -> Answer<'v> {
        if previous == Some(this) || self.reachable(previous).contains(&this) {
            return Answer::Passes;
        }
        let is_asked = |verdict: &&&SchemaVerdict| {
            verdict.this == this && previous.is_none_or(|previous| previous == verdict.previous)
        };
        let held = self.verdicts.iter().filter(is_asked).find(|verdict| !verdict.passes());
        held.map_or(Answer::Unjudged, |verdict| Answer::Incompatible(verdict))
    }

    /// The newest schema that a partition without one may begin with: what one is judged against
    /// that comes to such a partition.
    pub fn newest(&self) -> Option<i32> {
        let accepted = self.reachable(None);
        let passed = self
            .verdicts
            .iter()
            .filter(|verdict| verdict.passes() && accepted.contains(&verdict.previous));
        let newest = passed.max_by_key(|verdict| verdict.at_ms).map(|verdict| verdict.this);
        newest.or_else(|| self.baseline.last().copied())
    }

    /// Every schema that passing steps lead to.
    fn reachable(&self, from: Option<i32>) -> BTreeSet<i32> {
        let mut waiting: Vec<i32> = match from {
            Some(id) => vec![id],
            None => self.baseline.to_vec(),
        };
        let mut found = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !found.insert(id) {
                continue;
            }
            let steps = self.verdicts.iter().filter(|v| v.previous == id && v.passes());
            waiting.extend(steps.map(|verdict| verdict.this));
        }
        found
    }
}

/// A question that the coordinator could not answer yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OpenQuestion {
    /// The question.
    #[serde(flatten)]
    pub question: SchemaQuestion,
    /// Why it is open.
    pub reason: String,
}

/// The answer of `GET /v1/schemas`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SchemaReport {
    /// Pipeline.
    pub pipeline_id: String,
    /// `stop_on_incompatible_schema`.
    pub stops: bool,
    /// Every subject that is watched.
    pub subjects: Vec<SchemaSubject>,
    /// Every change since the first look, oldest first.
    pub changes: Vec<SchemaVerdict>,
    /// Questions without an answer.
    #[serde(default)]
    pub open: Vec<OpenQuestion>,
    /// Why the registry could not be asked at the latest look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(previous: i32, this: i32, compatible: bool, accepted: bool) -> SchemaVerdict {
        SchemaVerdict {
            subject: "t-value".into(),
            previous,
            this,
            previous_version: None,
            this_version: None,
            compatible,
            changes: Vec::new(),
            registry_compatible: None,
            at_ms: i64::from(this),
            accepted: accepted.then(|| Acceptance {
                by: "op".into(),
                at_ms: 100,
                reason: String::new(),
            }),
        }
    }

    fn answer(baseline: &[i32], verdicts: &[SchemaVerdict], previous: i32, this: i32) -> String {
        let steps = Steps::new(baseline, verdicts.iter().collect());
        let previous = (previous != 0).then_some(previous);
        match steps.answer(previous, this) {
            Answer::Passes => "passes".to_owned(),
            Answer::Incompatible(v) => format!("{}→{}", v.previous, v.this),
            Answer::Unjudged => "unjudged".to_owned(),
        }
    }

    #[test]
    fn a_partition_without_a_schema_begins_at_the_baseline() {
        assert_eq!(answer(&[1, 2], &[], 0, 1), "passes");
        assert_eq!(answer(&[1, 2], &[], 0, 2), "passes");
        // Who met the first, and then meets the second, meets a change all the same.
        assert_eq!(answer(&[1, 2], &[], 1, 2), "unjudged");
        assert_eq!(answer(&[1, 2], &[], 0, 3), "unjudged");
        assert_eq!(answer(&[], &[], 0, 1), "unjudged");
        assert_eq!(answer(&[], &[], 7, 7), "passes", "no change needs no verdict");
    }

    #[test]
    fn an_old_schema_that_comes_back_is_a_step_of_its_own() {
        // A column added, and dropped again.
        let verdicts = [step(1, 5, true, false), step(5, 1, false, false)];
        assert_eq!(answer(&[1], &verdicts, 1, 5), "passes");
        assert_eq!(answer(&[1], &verdicts, 5, 1), "5→1");
        assert_eq!(answer(&[1], &verdicts, 0, 1), "passes");
        let accepted = [step(1, 5, true, false), step(5, 1, false, true)];
        assert_eq!(answer(&[1], &accepted, 5, 1), "passes");
    }

    #[test]
    fn what_follows_an_incompatible_schema_is_not_compatible_with_what_was_accepted() {
        let mut verdicts = vec![step(1, 2, false, false), step(2, 3, true, false)];
        assert_eq!(answer(&[1], &verdicts, 2, 3), "passes");
        assert_eq!(answer(&[1], &verdicts, 1, 3), "unjudged");
        assert_eq!(answer(&[1], &verdicts, 0, 3), "unjudged");
        assert_eq!(Steps::new(&[1], verdicts.iter().collect()).newest(), Some(1));
        verdicts.push(step(1, 3, false, false));
        assert_eq!(answer(&[1], &verdicts, 1, 3), "1→3");
        assert_eq!(answer(&[1], &verdicts, 0, 3), "1→3");
        // The removal accepted, all that follows from it passes.
        verdicts[0] = step(1, 2, false, true);
        assert_eq!(answer(&[1], &verdicts, 1, 3), "passes");
        assert_eq!(answer(&[1], &verdicts, 0, 3), "passes");
        assert_eq!(Steps::new(&[1], verdicts.iter().collect()).newest(), Some(3));
    }

    #[test]
    fn subjects_are_named_after_topics() {
        assert_eq!(topic_of("a.b-key"), Some(("a.b", true)));
        assert_eq!(topic_of(&value_subject("a-key")), Some(("a-key", false)));
        assert_eq!(topic_of("other"), None);
    }
}
