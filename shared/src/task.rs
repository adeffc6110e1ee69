//! Tasks: work on a sink that one of its workers does beside delivering (`DESIGN` §1).
//!
//! A task is posted by the coordinator as a record of the control topic; the worker that owns the
//! sink's first partition carries it out and tells how it goes with its heartbeats; the coordinator
//! writes the end into the record. A worker that dies leaves the record as it is, so whoever owns
//! the partition next begins again: every task can be repeated.

mod lake;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::lake::{LakeAction, LakeOptions, LakeReport, LakeSnapshot};
use crate::offset::{TopicId, TopicPartition};

/// Most tasks of one sink that are kept, those that wait included.
pub const KEPT_TASKS: usize = 20;

/// One task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// Unique in the pipeline; the kind and the time of posting.
    pub id: String,
    /// Sink whose worker does it.
    pub sink: String,
    /// What is to be done.
    pub kind: TaskKind,
    /// By whom.
    pub by: String,
    /// When it was posted, Unix ms.
    pub at_ms: i64,
    /// Absent until it has ended.
    #[serde(default)]
    pub end: Option<TaskEnd>,
}

/// What is to be done, with its arguments.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TaskKind {
    /// Compare the mirror with the source.
    Verify(VerifyOptions),
    /// Compare, then remove from the mirror what the source does not have.
    Resync(VerifyOptions),
    /// Send dead letters again; each worker does it for the partitions that it owns.
    Replay(ReplayOptions),
    /// Upkeep of the tables of an `iceberg` sink.
    Lake(LakeOptions),
}

impl TaskKind {
    /// The word in ids and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verify(_) => "verify",
            Self::Resync(_) => "resync",
            Self::Replay(_) => "replay",
            Self::Lake(_) => "lake",
        }
    }

    /// The arguments of a comparison.
    pub fn comparison(&self) -> Option<&VerifyOptions> {
        match self {
            Self::Verify(options) | Self::Resync(options) => Some(options),
            Self::Replay(_) | Self::Lake(_) => None,
        }
    }

    /// The topics that are meant, to change them.
    pub fn topics_mut(&mut self) -> Option<&mut Vec<String>> {
        match self {
            Self::Verify(options) | Self::Resync(options) => Some(&mut options.topics),
            Self::Lake(options) => Some(&mut options.topics),
            Self::Replay(_) => None,
        }
    }

    /// The arguments of a replay.
    pub fn replay(&self) -> Option<&ReplayOptions> {
        match self {
            Self::Replay(options) => Some(options),
            Self::Verify(_) | Self::Resync(_) | Self::Lake(_) => None,
        }
    }
}

/// Arguments of a replay.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReplayOptions {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Most letters in a second, over all partitions.
    #[serde(default)]
    pub rate: Option<u32>,
    /// How many letters there are.
    pub count: u64,
    /// The letters, until the task has ended.
    #[serde(default)]
    pub partitions: Vec<PartitionLetters>,
}

/// The letters of one partition in a replay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartitionLetters {
    /// Where the records came from.
    pub tp: TopicPartition,
    /// The topic their offsets count in.
    pub topic_id: TopicId,
    /// Where the letters are.
    pub dlq_topic: String,
    /// By offset, rising.
    pub letters: Vec<LetterPlace>,
}

/// Where one letter is: its source offset, partition and offset in the dead letter topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LetterPlace(pub i64, pub i32, pub i64);

/// Arguments of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct VerifyOptions {
    /// Topics whose tables are compared; empty: all of the sink.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Longest wait for the sink to reach a position of the source, in seconds.
    pub timeout_seconds: u64,
    /// Whether the values of differing rows are reported, not only their keys. They are then kept
    /// in the control topic with the result.
    #[serde(default)]
    pub show_values: bool,
}

/// How a task ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskEnd {
    /// When, Unix ms.
    pub at_ms: i64,
    /// In one word.
    pub status: TaskStatus,
    /// One sentence: what came of it, or why it failed.
    pub message: String,
    /// What to do about a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was found, table by table, as far as it came.
    #[serde(default)]
    pub tables: Vec<TableReport>,
    /// Of a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letters: Option<ReplayTotals>,
    /// Of the upkeep of Iceberg tables, table by table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lake: Vec<LakeReport>,
}

impl TaskEnd {
    /// An end that has nothing more to say.
    pub fn new(at_ms: i64, status: TaskStatus, message: String) -> Self {
        Self {
            at_ms,
            status,
            message,
            hint: None,
            tables: Vec::new(),
            letters: None,
            lake: Vec::new(),
        }
    }
}

/// The end of a task in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Done: the mirror is equal, or was made so.
    Equal,
    /// Done: the mirror differs.
    Differs,
    /// The sink did not reach the source's position in time.
    NotReached,
    /// It could not be done.
    Failed,
    /// Called off by an operator.
    Cancelled,
    /// Done, all of it.
    Done,
    /// Done, and some dead letters stay open.
    LeftOpen,
}

impl TaskStatus {
    /// Exit code of the command that asked for the task.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Equal | Self::Done => 0,
            Self::Differs | Self::LeftOpen => 1,
            Self::NotReached => 3,
            // EX_SOFTWARE and EX_TEMPFAIL.
            Self::Failed => 70,
            Self::Cancelled => 75,
        }
    }
}

/// What a replay came to, so far or at its end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReplayTotals {
    /// Letters that the sink has taken (in a dry run: that it would be sent).
    pub replayed: u64,
    /// Letters that the sink has something newer of.
    pub superseded: u64,
    /// Letters that stay open.
    pub failed: u64,
    /// The first of those, with why.
    #[serde(default)]
    pub failures: Vec<String>,
}

/// What a worker tells of a task with each heartbeat, until the control topic has its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskReport {
    /// Which task.
    pub id: String,
    /// When this worker began it, Unix ms.
    pub began_ms: i64,
    /// What it does at the moment, for a person.
    pub step: String,
    /// Rows compared so far.
    pub rows: u64,
    /// Rows in all, as the source's statistics have it.
    #[serde(default)]
    pub rows_expected: u64,
    /// Present when it has ended.
    #[serde(default)]
    pub end: Option<TaskEnd>,
}

/// A task as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// The record.
    #[serde(flatten)]
    pub task: Task,
    /// What its worker last told; absent while no live worker has it.
    #[serde(default)]
    pub progress: Option<TaskReport>,
    /// The worker that told it.
    #[serde(default)]
    pub worker: Option<String>,
    /// Whether the sink has a live worker at all.
    pub sink_live: bool,
}

/// The answer to `GET /v1/tasks`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tasks {
    /// The pipeline.
    pub pipeline_id: String,
    /// Its tasks, oldest first.
    pub tasks: Vec<TaskView>,
}

/// One table, compared.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct TableReport {
    /// Table at the source.
    pub table: String,
    /// Table of the mirror.
    pub mirror: String,
    /// Position of the source that the mirror had reached when it was last compared.
    pub position: String,
    /// Rows of the source that were compared.
    pub rows: u64,
    /// Rows whose difference passed while both were read again: changes on their way.
    pub settled: u64,
    /// Rows that the mirror lacks.
    pub missing: u64,
    /// Rows of the mirror that the source does not have.
    pub extra: u64,
    /// Rows with another content.
    pub changed: u64,
    /// Rows that changed too often to be compared.
    pub unsettled: u64,
    /// Differing rows whose key has a rejected or skipped record; counted nowhere else.
    pub given_up: u64,
    /// Extra rows that were removed.
    #[serde(default)]
    pub removed: u64,
    /// Too many rows differ: the comparison ended before the table's end.
    pub cut_short: bool,
    /// What a person should know: columns that were not compared.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The first differing rows.
    #[serde(default)]
    pub differences: Vec<Difference>,
}

impl TableReport {
    /// Rows that differ for sure.
    pub fn different(&self) -> u64 {
        self.missing + self.extra + self.changed
    }
}

/// One differing row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// See [`DifferenceKind`].
    pub kind: DifferenceKind,
    /// The key's columns.
    pub key: Vec<Field>,
    /// Columns with another content, with their values where asked for.
    #[serde(default)]
    pub columns: Vec<ColumnDifference>,
}

/// Kind of a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The mirror lacks the row.
    Missing,
    /// The source does not have the row.
    Extra,
    /// The row has another content.
    Changed,
    /// Too restless to say.
    Unsettled,
    /// A record of the key was rejected or skipped.
    GivenUp,
}

/// A column of a key, as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    /// Column.
    pub column: String,
    /// Its text; absent for NULL.
    pub text: Option<String>,
}

/// A column that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ColumnDifference {
    /// Column.
    pub column: String,
    /// Values, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<TwoValues>,
}

/// The two values of a column, cut where they are long.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TwoValues {
    /// At the source; absent for NULL.
    pub source: Option<String>,
    /// In the mirror; absent for NULL.
    pub mirror: Option<String>,
}

impl std::fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        for failure in self.letters.iter().flat_map(|letters| &letters.failures) {
            writeln!(f, "{failure}")?;
        }
        for table in &self.lake {
            writeln!(f, "{table}")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  way out: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for TableReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, mirror, rows, .. } = self;
        write!(f, "{table} and {mirror} at {}: {rows} rows", self.position)?;
        let counts = [
            ("missing in the mirror", self.missing),
            ("extra in the mirror", self.extra),
            ("with other content", self.changed),
            ("too restless to compare", self.unsettled),
            ("with rejected or skipped records", self.given_up),
            ("removed", self.removed),
        ];
        let told: Vec<(&str, u64)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        if told.is_empty() {
            f.write_str(", equal")?;
        }
        for (what, count) in told {
            write!(f, ", {count} {what}")?;
        }
        if self.settled > 0 {
            write!(f, " ({} changed meanwhile)", self.settled)?;
        }
        if self.cut_short {
            f.write_str("; the comparison ended early")?;
        }
        for note in &self.notes {
            write!(f, "\n    note: {note}")?;
        }
        for difference in &self.differences {
            write!(f, "\n    {difference}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Extra => "extra",
            DifferenceKind::Changed => "differs",
            DifferenceKind::Unsettled => "unsettled",
            DifferenceKind::GivenUp => "given up",
        };
        f.write_str(kind)?;
        for Field { column, text } in &self.key {
            write!(f, " {column}={}", shown(text.as_deref()))?;
        }
        for (place, ColumnDifference { column, values }) in self.columns.iter().enumerate() {
            write!(f, "{}{column}", if place == 0 { ": " } else { ", " })?;
            if let Some(TwoValues { source, mirror }) = values {
                write!(f, " {} → {}", shown(source.as_deref()), shown(mirror.as_deref()))?;
            }
        }
        Ok(())
    }
}

/// A text with its control characters escaped, NULL without quotes.
fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), |text| format!("{text:?}"))
}
