//! What one record of the control topic can say.

use serde::{Deserialize, Serialize};

use crate::api::{Directive, TopicShape};
use crate::audit::AuditedChange;
use crate::dlq::Settled;
use crate::offset::{Incarnation, NextOffset, TopicId, TopicPartition};
use crate::schema::{SchemaSubject, SchemaVerdict};
use crate::task::Task;

/// One record of the control topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ControlRecord {
    /// (sink, topic) counts for P, from its first enabling until `sink remove`.
    Member {
        /// Sink.
        sink: String,
        /// Topic.
        topic: String,
        /// When it entered, Unix ms.
        since_ms: i64,
    },
    /// The sink has begun on this topic: a later absence of its own record is a loss, not a start.
    Started {
        /// Sink.
        sink: String,
        /// Topic.
        topic: String,
        /// Topic id and number of partitions that had begun; partitions beyond are new.
        shape: TopicShape,
    },
    /// What the operator wants of a sink or of one topic of it.
    Directive {
        /// Sink.
        sink: String,
        /// Only this topic.
        topic: Option<String>,
        /// What is wanted.
        directive: Directive,
        /// By whom.
        by: String,
        /// When, Unix ms.
        at_ms: i64,
    },
    /// Ends stops by name; each new record (its own offset tells it apart) is one more try.
    Resume {
        /// Sink.
        sink: String,
        /// Only this topic.
        topic: Option<String>,
        /// By whom.
        by: String,
        /// When, Unix ms.
        at_ms: i64,
    },
    /// Has the sink's workers let go of what they have and take it up again; each new record (its
    /// own offset tells it apart) is one more time.
    Restart {
        /// Sink.
        sink: String,
        /// Only this topic.
        topic: Option<String>,
        /// Why.
        reason: String,
        /// By whom.
        by: String,
        /// When, Unix ms.
        at_ms: i64,
    },
    /// The sink may pass these records without delivering them.
    Skip {
        /// Sink.
        sink: String,
        /// Partition.
        tp: TopicPartition,
        /// The topic the offsets count in; ignored for another.
        topic_id: TopicId,
        /// First offset to skip.
        from: i64,
        /// First offset not to skip.
        to: i64,
        /// Why.
        reason: String,
        /// By whom.
        by: String,
        /// When, Unix ms.
        at_ms: i64,
    },
    /// The sink's progress on a partition is set, in a new incarnation (rewind, new topic
    /// accepted). Progress of a lower incarnation or of another topic id is ignored from here on.
    Rewind {
        /// Sink.
        sink: String,
        /// Partition.
        tp: TopicPartition,
        /// The topic the offset counts in.
        topic_id: TopicId,
        /// The new incarnation.
        incarnation: Incarnation,
        /// Where delivery goes on.
        to: NextOffset,
        /// The incarnation in which records were last given new ids, which is part of each id. 0:
        /// never.
        #[serde(default)]
        id_generation: u64,
        /// Progress in another topic of this name is passed over, on the operator's word.
        #[serde(default)]
        accept_new_topic: bool,
        /// Why.
        reason: String,
        /// By whom.
        by: String,
        /// When, Unix ms.
        at_ms: i64,
    },
    /// The pipeline group's position before our first commit of it, for `start: group`.
    GroupStart {
        /// Partition.
        tp: TopicPartition,
        /// The topic the offset counts in.
        topic_id: TopicId,
        /// Committed offset of P, absent when it had none.
        offset: Option<NextOffset>,
    },
    /// Work for one worker of a sink, and its end.
    Task {
        /// The task.
        task: Task,
    },
    /// What became of dead letters of a partition, for [`BLOCK`](crate::dlq::BLOCK) offsets of it.
    DeadLetters {
        /// Sink.
        sink: String,
        /// Partition that the records came from.
        tp: TopicPartition,
        /// The topic the offsets count in.
        topic_id: TopicId,
        /// The offsets' quotient by [`BLOCK`](crate::dlq::BLOCK).
        block: i64,
        /// The settled letters, by what settled them.
        settled: Vec<Settled>,
    },
    /// A subject of the schema registry as the monitor knows it.
    SchemaSubject {
        /// The subject.
        subject: SchemaSubject,
    },
    /// The verdict on a change of schema, and whether it was accepted.
    SchemaVerdict {
        /// The verdict.
        verdict: SchemaVerdict,
    },
    /// Where the coordinator that leads is reached.
    Leader {
        /// Its address.
        url: String,
    },
    /// A line of the audit trail.
    Audit {
        /// By whom.
        by: String,
        /// When, Unix ms.
        at_ms: i64,
        /// What was done.
        action: String,
        /// The records that it changed. Older versions did not tell.
        #[serde(default)]
        changes: Vec<AuditedChange>,
    },
}

impl ControlRecord {
    /// The compaction key.
    pub fn key(&self) -> String {
        let scoped = |kind: &str, sink: &str, topic: Option<&str>| match topic {
            Some(topic) => format!("{kind}/{sink}/{topic}"),
            None => format!("{kind}/{sink}"),
        };
        match self {
            Self::Member { sink, topic, .. } => format!("member/{sink}/{topic}"),
            Self::Started { sink, topic, .. } => format!("started/{sink}/{topic}"),
            Self::Directive { sink, topic, .. } => scoped("directive", sink, topic.as_deref()),
            Self::Resume { sink, topic, .. } => scoped("resume", sink, topic.as_deref()),
            Self::Restart { sink, topic, .. } => scoped("restart", sink, topic.as_deref()),
            Self::Skip { sink, tp, from, .. } => {
                format!("skip/{sink}/{}/{}/{from}", tp.topic, tp.partition)
            }
            Self::Rewind { sink, tp, .. } => {
                format!("rewind/{sink}/{}/{}", tp.topic, tp.partition)
            }
            Self::GroupStart { tp, .. } => format!("group/{}/{}", tp.topic, tp.partition),
            Self::Task { task } => format!("task/{}/{}", task.sink, task.id),
            Self::DeadLetters { sink, tp, topic_id, block, .. } => {
                letters_key(sink, tp, topic_id, *block)
            }
            Self::SchemaSubject { subject } => format!("subject/{}", subject.subject),
            Self::SchemaVerdict { verdict } => {
                format!("schema/{}/{}/{}", verdict.subject, verdict.previous, verdict.this)
            }
            Self::Leader { .. } => "leader".to_owned(),
            Self::Audit { at_ms, action, .. } => format!("audit/{at_ms:013}/{action}"),
        }
    }
}

pub(super) fn letters_key(
    sink: &str,
    tp: &TopicPartition,
    topic_id: &TopicId,
    block: i64,
) -> String {
    format!("letters/{sink}/{}/{}/{topic_id}/{block}", tp.topic, tp.partition)
}
