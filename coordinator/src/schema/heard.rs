//! Changes of schema as the positions of workers tell them: so that one is seen that no look at the
//! registry finds, because an old schema came back.

use std::collections::{BTreeMap, HashMap};

use cdc_shared::api::Heartbeat;
use cdc_shared::offset::{Incarnation, Position, SchemaIds};
use cdc_shared::schema::{SchemaQuestion, key_subject, value_subject};

type Partitions = HashMap<i32, (Incarnation, SchemaIds)>;

/// The schemas that each partition of each sink last had.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<String, HashMap<String, Partitions>>);

impl Heard {
    /// Remembers a heartbeat, and tells what changed since the one before.
    pub(super) fn changes(&mut self, heartbeat: &Heartbeat) -> Vec<SchemaQuestion> {
        let mut found = Vec::new();
        let topics = self.0.entry(heartbeat.sink_id.clone()).or_default();
        for report in &heartbeat.partitions {
            let Some(position) = &report.position else { continue };
            if !topics.contains_key(&report.topic) {
                topics.insert(report.topic.clone(), Partitions::new());
            }
            let Some(partitions) = topics.get_mut(&report.topic) else { continue };
            let now = (position.incarnation, position.schemas);
            let before = partitions.insert(report.partition, now);
            if before != Some(now) {
                steps(&report.topic, before, position, &mut found);
            }
        }
        found
    }
}

fn steps(
    topic: &str,
    before: Option<(Incarnation, SchemaIds)>,
    position: &Position,
    found: &mut Vec<SchemaQuestion>,
) {
    // Set back, a partition meets old schemas again.
    let before = before.filter(|(incarnation, _)| *incarnation == position.incarnation);
    let before = before.map(|(_, ids)| ids).unwrap_or_default();
    let now = position.schemas;
    for (subject, previous, this) in
        [(key_subject(topic), before.key, now.key), (value_subject(topic), before.value, now.value)]
    {
        if let Some(this) = this.filter(|this| previous != Some(*this)) {
            found.push(SchemaQuestion { subject, previous, this });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::heartbeat;

    #[test]
    fn a_change_is_told_once_and_a_rewind_is_none() {
        let mut heard = Heard::default();
        let mut beat = heartbeat("wh", "w", &[("t", 0, 5), ("t", 1, 5)]);
        let mut at = |partition: usize, incarnation, value: Option<i32>| {
            let position = beat.partitions[partition].position.as_mut().unwrap();
            position.incarnation = Incarnation(incarnation);
            position.schemas = SchemaIds { key: None, value };
            let told = heard.changes(&beat);
            told.into_iter().map(|q| (q.subject, q.previous, q.this)).collect::<Vec<_>>()
        };
        let step = |previous, this| vec![("t-value".to_owned(), previous, this)];
        assert_eq!(at(0, 1, Some(7)), step(None, 7));
        assert_eq!(at(0, 1, Some(7)), []);
        assert_eq!(at(0, 1, Some(9)), step(Some(7), 9));
        assert_eq!(at(1, 1, Some(9)), step(None, 9), "another partition");
        assert_eq!(at(0, 2, None), []);
        assert_eq!(at(0, 2, Some(7)), step(None, 7));
    }
}
