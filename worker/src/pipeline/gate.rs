//! The gate: no record of a schema that nobody has judged compatible, or accepted, is offered to
//! the sink.
//!
//! Only a *change* of schema is looked at: the ids that the partition last had stand with its
//! position, so that a worker whose schemas are known needs neither coordinator nor registry.

use cdc_shared::config::OnIncompatible;
use cdc_shared::offset::SchemaIds;
use cdc_shared::schema::{Answer, SchemaQuestion, key_subject, topic_of, value_subject};

use super::hold::{Awaited, Hold, Release};
use super::partition::{PartitionTask, Phase};
use super::rejects::Reject;
use super::running::Delivery;

/// Code of a stop, and of a dead letter, by an incompatible change of schema.
pub(super) const INCOMPATIBLE: &str = "schema_incompatible";

/// Why a record is not offered.
pub(super) enum Barred {
    /// Its partition waits.
    Held(Hold),
    /// It goes to the DLQ.
    Rejected(Reject),
}

impl PartitionTask {
    /// Whether the record at `offset` may not be offered behind records of the schemas `before`.
    pub(super) fn gate(&self, found: SchemaIds, offset: i64, before: SchemaIds) -> Option<Barred> {
        let policy = self.shared.on_incompatible?;
        if policy == OnIncompatible::Continue {
            return None;
        }
        let control = self.control.borrow().state.clone();
        let questions = questions(&self.question.tp.topic, found, before);
        let mut open = Vec::new();
        let mut told = Vec::new();
        for question in questions {
            match control.schema_answer(&question) {
                Answer::Passes => {}
                Answer::Incompatible(verdict) => {
                    told.push((verdict.summary(), question));
                }
                Answer::Unjudged => open.push(question),
            }
        }
        if told.is_empty() && open.is_empty() {
            return None;
        }
        let since = self.shared.control_offset();
        if told.is_empty() {
            return Some(Barred::Held(unjudged(open, offset, since)));
        }
        let message =
            told.iter().map(|(summary, question)| format!("{}: {summary}", named(question)));
        let message = message.collect::<Vec<_>>().join("; and ");
        if policy == OnIncompatible::Dlq {
            let code = INCOMPATIBLE.to_owned();
            let reject = Reject { offset, code, message, way_out: None, by_choice: true };
            return Some(Barred::Rejected(reject));
        }
        let message = format!("offset {offset} has an incompatible schema: {message}");
        let mut hold = Hold::stopped(INCOMPATIBLE, message, Some(offset), since);
        hold.report.way_out = format!(
            "cdc schema accept FILE --table {} takes the change as it is, then delivery goes on \
             here; or cdc skip gives the record up",
            self.question.tp.topic
        );
        let questions = told.into_iter().map(|(_, question)| question).chain(open).collect();
        hold.release = Release::Verdict(Box::new(Awaited { questions, forbidden: true }));
        Some(Barred::Held(hold))
    }

    /// Does what the gate says.
    pub(super) fn bar(&mut self, delivery: &mut Delivery, barred: Barred) -> Option<Phase> {
        match barred {
            Barred::Held(hold) => {
                delivery.end_with(hold);
                None
            }
            Barred::Rejected(reject) => self.reject(delivery, reject),
        }
    }
}

fn unjudged(open: Vec<SchemaQuestion>, offset: i64, since: i64) -> Hold {
    let steps = open.iter().map(named).collect::<Vec<_>>().join("; ");
    let message =
        format!("offset {offset} waits for the coordinator's verdict on its schema: {steps}");
    let mut hold = Hold::stopped("schema_unjudged", message, Some(offset), since);
    "start the coordinator, and make it reach the schema registry: it judges by itself"
        .clone_into(&mut hold.report.way_out);
    hold.release = Release::Verdict(Box::new(Awaited { questions: open, forbidden: false }));
    hold
}

/// The changes of schema that a record brings behind records of the schemas `before`.
pub(super) fn questions(topic: &str, found: SchemaIds, before: SchemaIds) -> Vec<SchemaQuestion> {
    let parts = [
        (key_subject(topic), before.key, found.key),
        (value_subject(topic), before.value, found.value),
    ];
    let asked = parts.into_iter().filter_map(|(subject, previous, this)| {
        let this = this.filter(|this| previous != Some(*this))?;
        Some(SchemaQuestion { subject, previous, this })
    });
    asked.collect()
}

fn named(question: &SchemaQuestion) -> String {
    let of = match topic_of(&question.subject) {
        Some((_, true)) => "key",
        _ => "value",
    };
    match question.previous {
        Some(previous) => format!("{of} schema {previous} → {}", question.this),
        None => format!("{of} schema {}", question.this),
    }
}
