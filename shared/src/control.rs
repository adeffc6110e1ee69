//! The records of the control topic `{group_id}.control`.
//!
//! The topic is compacted with one partition: the newest record of a key is the truth, a
//! tombstone removes it. Only the leading coordinator writes, in transactions; everybody reads it
//! `read_committed` and to its end before acting. Keys are text, values JSON.

mod record;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::api::{Directive, DirectiveState, TopicShape};
use crate::audit::AuditEntry;
use crate::dlq::{BLOCK, Settled};
use crate::offset::{Incarnation, NextOffset, TopicId, TopicPartition};
use crate::schema::{Answer, SchemaQuestion, SchemaSubject, SchemaVerdict, Steps};
use crate::task::Task;

pub use record::ControlRecord;
use record::letters_key;

/// The control topic of a pipeline with this consumer group.
pub fn control_topic(group_id: &str) -> String {
    format!("{group_id}.control")
}

/// The consumer group of one sink.
pub fn sink_group(group_id: &str, sink_id: &str) -> String {
    format!("{group_id}.{sink_id}")
}

/// Everything the control topic says, as of [`ControlState::offset`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ControlState {
    records: BTreeMap<String, (i64, ControlRecord)>,
    offset: i64,
}

impl ControlState {
    /// Applies the record at `offset`: `None` as a value is a tombstone. Text that cannot be read
    /// (written by a newer version) is kept out and told to the caller.
    ///
    /// # Errors
    /// The reason the value cannot be read; the state has still moved past the offset.
    pub fn apply(
        &mut self,
        offset: i64,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), serde_json::Error> {
        self.offset = self.offset.max(offset + 1);
        match value {
            None => {
                self.records.remove(key);
            }
            Some(bytes) => {
                let record = serde_json::from_slice(bytes)?;
                self.records.insert(key.to_owned(), (offset, record));
            }
        }
        Ok(())
    }

    /// First offset not yet applied.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Moves the read position over offsets that hold no record (transaction markers).
    pub fn advance_to(&mut self, offset: i64) {
        self.offset = self.offset.max(offset);
    }

    /// Every live record.
    pub fn records(&self) -> impl Iterator<Item = &ControlRecord> {
        self.records.values().map(|(_, record)| record)
    }

    /// The record of a key.
    pub fn record(&self, key: &str) -> Option<&ControlRecord> {
        self.records.get(key).map(|(_, record)| record)
    }

    /// Where the coordinator that leads, or led last, is reached.
    pub fn leader(&self) -> Option<&str> {
        match self.record("leader")? {
            ControlRecord::Leader { url } => Some(url),
            _ => None,
        }
    }

    /// What commands have changed, newest first.
    pub fn audit(&self) -> impl Iterator<Item = AuditEntry> {
        let trail = (Bound::Included("audit/"), Bound::Excluded("audit0"));
        self.records.range::<str, _>(trail).rev().filter_map(|(_, (_, record))| match record {
            ControlRecord::Audit { by, at_ms, action, changes } => Some(AuditEntry {
                by: by.clone(),
                at_ms: *at_ms,
                action: action.clone(),
                changes: changes.clone(),
            }),
            _ => None,
        })
    }

    /// The stricter of the sink's directive and the topic's.
    pub fn directive(&self, sink: &str, topic: Option<&str>) -> Directive {
        let of = |key: String| match self.records.get(&key) {
            Some((_, ControlRecord::Directive { directive, .. })) => Some(directive.clone()),
            _ => None,
        };
        let whole = of(format!("directive/{sink}")).unwrap_or_else(Directive::run);
        let table = topic.and_then(|topic| of(format!("directive/{sink}/{topic}")));
        match table {
            Some(table) if table.state > whole.state => table,
            _ => whole,
        }
    }

    /// Every topic of `sink` that has a directive of its own other than run.
    pub fn table_directives(&self, sink: &str) -> Vec<(String, Directive)> {
        self.records()
            .filter_map(|record| match record {
                ControlRecord::Directive { sink: of, topic: Some(topic), directive, .. }
                    if of == sink && directive.state != DirectiveState::Run =>
                {
                    Some((topic.clone(), directive.clone()))
                }
                _ => None,
            })
            .collect()
    }

    /// Offset of the newest resume that concerns `topic` of `sink`; -1 when there was none.
    pub fn resume_offset(&self, sink: &str, topic: &str) -> i64 {
        let at = |key: String| self.records.get(&key).map_or(-1, |(offset, _)| *offset);
        at(format!("resume/{sink}")).max(at(format!("resume/{sink}/{topic}")))
    }

    /// Offset of the newest restart of a sink as a whole, or of one topic of it; -1 when there was
    /// none.
    pub fn restart_offset(&self, sink: &str, topic: Option<&str>) -> i64 {
        let key = match topic {
            Some(topic) => format!("restart/{sink}/{topic}"),
            None => format!("restart/{sink}"),
        };
        self.records.get(&key).map_or(-1, |(offset, _)| *offset)
    }

    /// The skip that covers `offset`, as its exclusive end.
    pub fn skip_to(
        &self,
        sink: &str,
        tp: &TopicPartition,
        topic_id: &TopicId,
        offset: i64,
    ) -> Option<i64> {
        let prefix = format!("skip/{sink}/{}/{}/", tp.topic, tp.partition);
        self.records
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(_, (_, record))| match record {
                ControlRecord::Skip { topic_id: of, from, to, .. }
                    if of == topic_id && *from <= offset && offset < *to =>
                {
                    Some(*to)
                }
                _ => None,
            })
            .max()
    }

    /// Every skip of a sink: partition, first offset, and the first that is not skipped.
    pub fn skips<'s>(
        &'s self,
        of: &'s str,
    ) -> impl Iterator<Item = (&'s TopicPartition, i64, i64)> {
        self.records().filter_map(move |record| match record {
            ControlRecord::Skip { sink, tp, from, to, .. } if sink == of => Some((tp, *from, *to)),
            _ => None,
        })
    }

    /// Whether any skip is in force at all; hardly ever, so that most records need not ask.
    pub fn has_skips(&self) -> bool {
        let mut from = self.records.range::<str, _>((Bound::Included("skip/"), Bound::Unbounded));
        from.next().is_some_and(|(key, _)| key.starts_with("skip/"))
    }

    /// The rewind in force for a partition: incarnation, topic id and where to.
    pub fn rewind(
        &self,
        sink: &str,
        tp: &TopicPartition,
    ) -> Option<(Incarnation, &TopicId, NextOffset)> {
        match self.records.get(&format!("rewind/{sink}/{}/{}", tp.topic, tp.partition)) {
            Some((_, ControlRecord::Rewind { incarnation, topic_id, to, .. })) => {
                Some((*incarnation, topic_id, *to))
            }
            _ => None,
        }
    }

    /// Offset of the rewind of a partition; -1 when there is none.
    pub fn rewind_offset(&self, sink: &str, tp: &TopicPartition) -> i64 {
        let key = format!("rewind/{sink}/{}/{}", tp.topic, tp.partition);
        self.records.get(&key).map_or(-1, |(offset, _)| *offset)
    }

    /// Whether the rewind of a partition passes over progress in another topic of this name.
    pub fn accepts_new_topic(&self, sink: &str, tp: &TopicPartition) -> bool {
        let record = self.record(&format!("rewind/{sink}/{}/{}", tp.topic, tp.partition));
        matches!(record, Some(ControlRecord::Rewind { accept_new_topic: true, .. }))
    }

    /// Since which incarnation the records of a partition have new ids, in this topic; 0: never.
    pub fn id_generation(&self, sink: &str, tp: &TopicPartition, topic: &TopicId) -> u64 {
        match self.record(&format!("rewind/{sink}/{}/{}", tp.topic, tp.partition)) {
            Some(ControlRecord::Rewind { topic_id, id_generation, .. }) if topic_id == topic => {
                *id_generation
            }
            _ => 0,
        }
    }

    /// The started mark of a sink on a topic.
    pub fn started(&self, sink: &str, topic: &str) -> Option<&TopicShape> {
        match self.records.get(&format!("started/{sink}/{topic}")) {
            Some((_, ControlRecord::Started { shape, .. })) => Some(shape),
            _ => None,
        }
    }

    /// Every (sink, topic) that counts for P.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.records().filter_map(|record| match record {
            ControlRecord::Member { sink, topic, .. } => Some((sink.as_str(), topic.as_str())),
            _ => None,
        })
    }

    /// The tasks of a sink, or of all, in the order of posting.
    pub fn tasks(&self, sink: Option<&str>) -> Vec<&Task> {
        let mut tasks: Vec<&Task> = self
            .records
            .range::<str, _>((Bound::Included("task/"), Bound::Excluded("task0")))
            .filter_map(|(_, (_, record))| match record {
                ControlRecord::Task { task } if sink.is_none_or(|sink| sink == task.sink) => {
                    Some(task)
                }
                _ => None,
            })
            .collect();
        tasks.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
        tasks
    }

    /// What became of the dead letters of a partition in the block of `offset`.
    pub fn settled_letters(
        &self,
        sink: &str,
        tp: &TopicPartition,
        topic_id: &TopicId,
        offset: i64,
    ) -> &[Settled] {
        match self.records.get(&letters_key(sink, tp, topic_id, offset.div_euclid(BLOCK))) {
            Some((_, ControlRecord::DeadLetters { settled, .. })) => settled,
            _ => &[],
        }
    }

    /// What settled a dead letter that was written at `letter_ms`, the latest of it.
    pub fn letter_settled(
        &self,
        sink: &str,
        tp: &TopicPartition,
        topic_id: &TopicId,
        (offset, letter_ms): (i64, i64),
    ) -> Option<&Settled> {
        let settled = self.settled_letters(sink, tp, topic_id, offset).iter();
        settled
            .filter(|settled| settled.at_ms >= letter_ms)
            .filter(|settled| settled.offsets.binary_search(&offset).is_ok())
            .max_by_key(|settled| settled.at_ms)
    }

    /// How many settled dead letters of a sink are remembered.
    pub fn count_settled_letters(&self, of: &str) -> usize {
        let settled = self.records().filter_map(|record| match record {
            ControlRecord::DeadLetters { sink, settled, .. } if sink == of => Some(settled),
            _ => None,
        });
        settled.flatten().map(|settled| settled.offsets.len()).sum()
    }

    /// What is known of a registry subject.
    pub fn schema_subject(&self, subject: &str) -> Option<&SchemaSubject> {
        match self.records.get(&format!("subject/{subject}")) {
            Some((_, ControlRecord::SchemaSubject { subject })) => Some(subject),
            _ => None,
        }
    }

    /// Every registry subject that is watched.
    pub fn schema_subjects(&self) -> impl Iterator<Item = &SchemaSubject> {
        self.records
            .range::<str, _>((Bound::Included("subject/"), Bound::Excluded("subject0")))
            .filter_map(|(_, (_, record))| match record {
                ControlRecord::SchemaSubject { subject } => Some(subject),
                _ => None,
            })
    }

    /// The verdicts on the changes of a subject, or of all.
    pub fn schema_verdicts(&self, subject: Option<&str>) -> impl Iterator<Item = &SchemaVerdict> {
        let prefix = subject.map_or_else(|| "schema/".to_owned(), |of| format!("schema/{of}/"));
        self.records
            .range(prefix.clone()..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .filter_map(|(_, (_, record))| match record {
                ControlRecord::SchemaVerdict { verdict } => Some(verdict),
                _ => None,
            })
    }

    /// The steps of a subject that are known.
    pub fn schema_steps(&self, subject: &str) -> Steps<'_> {
        let baseline = self.schema_subject(subject).map_or(&[][..], |known| &known.baseline);
        Steps::new(baseline, self.schema_verdicts(Some(subject)).collect())
    }

    /// Whether a partition may take this change of schema.
    pub fn schema_answer(&self, question: &SchemaQuestion) -> Answer<'_> {
        self.schema_steps(&question.subject).answer(question.previous, question.this)
    }

    /// The copied position of P: outer `None` when it was never copied.
    pub fn group_start(&self, tp: &TopicPartition) -> Option<(&TopicId, Option<NextOffset>)> {
        match self.records.get(&format!("group/{}/{}", tp.topic, tp.partition)) {
            Some((_, ControlRecord::GroupStart { topic_id, offset, .. })) => {
                Some((topic_id, *offset))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
