//! What P should be, as pure rules.

use std::collections::{BTreeMap, BTreeSet};

use cdc_shared::api::TopicShape;
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::offset::{Incarnation, NextOffset, Position, TopicId, TopicPartition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Members, Observation};
use crate::control::Change;
use crate::kafka::{Committed, CommittedOffsets};

/// What a sink's stored position is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It counts.
    Known(NextOffset),
    /// It does not, or there is none.
    Unknown(String),
}

/// A position against the topic as it is and the rewind in force.
///
/// | position | rewind in force | outcome |
/// |---|---|---|
/// | none | any | unknown |
/// | of another topic | any | unknown |
/// | of this topic | none, or not newer than the position | known |
/// | of this topic | newer | known: the lower of both, until the sink has adopted it |
/// | beyond the log's end | any | unknown |
pub fn judge(
    position: Option<&Position>,
    rewind: Option<(Incarnation, &TopicId, NextOffset)>,
    live: &TopicId,
    end: Option<i64>,
) -> Progress {
    let Some(position) = position else {
        return Progress::Unknown("no position reported yet".to_owned());
    };
    if position.topic_id != *live {
        return Progress::Unknown(format!(
            "its position {} belongs to topic id {}, the topic is now {live}",
            position.next, position.topic_id
        ));
    }
    if let Some(end) = end.filter(|end| position.next.get() > *end) {
        return Progress::Unknown(format!(
            "its position {} lies beyond the log's end {end}",
            position.next
        ));
    }
    match rewind {
        Some((incarnation, topic_id, to))
            if incarnation > position.incarnation && topic_id == live =>
        {
            Progress::Known(to.min(position.next))
        }
        _ => Progress::Known(position.next),
    }
}

/// A position found in the commit of a sink's group: worth something only if no rewind has made
/// it old.
pub fn commit_counts(
    position: &Position,
    rewind: Option<(Incarnation, &TopicId, NextOffset)>,
    live: &TopicId,
) -> bool {
    position.topic_id == *live
        && rewind.is_none_or(|(incarnation, _, _)| position.incarnation >= incarnation)
}

/// A partition for which P waits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GroupHold {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The sink it waits for.
    pub sink_id: String,
    /// Why.
    pub reason: String,
}

/// What P should be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The offset of each partition that has one.
    pub offsets: BTreeMap<TopicPartition, NextOffset>,
    /// What keeps the others.
    pub holds: Vec<GroupHold>,
}

/// The minimum over all members, for every partition where every member is known.
pub fn plan(members: &Members, observation: &Observation, control: &ControlState) -> Plan {
    let mut plan = Plan::default();
    for (topic, facts) in &observation.topics {
        let sinks: Vec<&str> =
            members.iter().filter(|(_, of)| of == topic).map(|(sink, _)| sink.as_str()).collect();
        for partition in 0..facts.partitions {
            let tp = TopicPartition::new(topic.as_str(), partition);
            let mut lowest: Option<NextOffset> = None;
            let holds = plan.holds.len();
            for sink in &sinks {
                let end = observation.ends.get(&tp).copied();
                let progress = if let Some(Err(error)) = observation.watermarks.get(*sink) {
                    Progress::Unknown(error.clone())
                } else {
                    let position = observation.position(sink, &tp);
                    judge(position, control.rewind(sink, &tp), &facts.id, end)
                };
                match progress {
                    Progress::Known(next) => {
                        lowest = Some(lowest.map_or(next, |lowest| lowest.min(next)));
                    }
                    Progress::Unknown(reason) => plan.holds.push(GroupHold {
                        topic: topic.clone(),
                        partition,
                        sink_id: (*sink).to_owned(),
                        reason,
                    }),
                }
            }
            if plan.holds.len() == holds
                && let Some(lowest) = lowest
            {
                plan.offsets.insert(tp, lowest);
            }
        }
    }
    plan
}

/// What is to be committed: what differs from P as it is, and what would expire. A partition that P
/// waits for keeps the offset that it has. `copied` tells whether P's former offset is in the
/// control topic, before which nothing may be committed; `stale` what was not committed for long.
pub fn due(
    plan: &Plan,
    committed: &CommittedOffsets,
    copied: impl Fn(&TopicPartition) -> bool,
    stale: impl Fn(&TopicPartition) -> bool,
) -> CommittedOffsets {
    let wanted = plan
        .offsets
        .iter()
        .filter(|(tp, next)| {
            stale(tp) || committed.get(tp).is_none_or(|stored| stored.next != **next)
        })
        .map(|(tp, next)| (tp.clone(), Committed { next: *next, metadata: String::new() }));
    let kept = committed
        .iter()
        .filter(|(tp, _)| !plan.offsets.contains_key(tp) && stale(tp))
        .map(|(tp, stored)| (tp.clone(), stored.clone()));
    wanted.chain(kept).filter(|(tp, _)| copied(tp)).collect()
}

/// What the control topic should say and does not yet: new members, what P had before us, and how
/// far each sink has begun.
pub fn missing_records(
    members: &Members,
    observation: &Observation,
    control: &ControlState,
    now_ms: i64,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let known: BTreeSet<(&str, &str)> = control.members().collect();
    for (sink, topic) in members {
        if !known.contains(&(sink.as_str(), topic.as_str())) {
            changes.push(Change::put(ControlRecord::Member {
                sink: sink.clone(),
                topic: topic.clone(),
                since_ms: now_ms,
            }));
        }
        changes.extend(started_mark(sink, topic, observation, control));
    }
    for (topic, facts) in &observation.topics {
        for partition in 0..facts.partitions {
            let tp = TopicPartition::new(topic.as_str(), partition);
            if control.group_start(&tp).is_none() {
                let offset = observation.committed.get(&tp).map(|committed| committed.next);
                let topic_id = facts.id.clone();
                changes.push(Change::put(ControlRecord::GroupStart { tp, topic_id, offset }));
            }
        }
    }
    changes
}

/// A mark covers the partitions from 0 that all have a position in the topic as it is: one beyond
/// it is new, and begins at its log's start. So there is none before every partition that is there
/// has begun, by `start` of the sink: one that takes longer than the others is not new.
fn started_mark(
    sink: &str,
    topic: &str,
    observation: &Observation,
    control: &ControlState,
) -> Option<Change> {
    let facts = observation.topics.get(topic)?;
    let begun = (0..facts.partitions)
        .take_while(|partition| {
            observation
                .position(sink, &TopicPartition::new(topic, *partition))
                .is_some_and(|position| position.topic_id == facts.id)
        })
        .count() as i32;
    let covered = control
        .started(sink, topic)
        .filter(|shape| shape.topic_id == facts.id)
        .map_or((facts.partitions - 1).max(0), |shape| shape.partitions);
    (begun > covered).then(|| {
        Change::put(ControlRecord::Started {
            sink: sink.to_owned(),
            topic: topic.to_owned(),
            shape: TopicShape { topic_id: facts.id.clone(), partitions: begun },
        })
    })
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
