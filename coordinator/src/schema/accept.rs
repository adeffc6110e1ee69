//! `cdc schema accept`: what it writes, a pure rule.

use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::schema::{Acceptance, SchemaVerdict, key_subject, value_subject};

use crate::control::Change;
use crate::control::commands::{Effect, Refusal};

/// Accepts the incompatible changes of a topic's schemas that wait for it, or only those to the
/// schema `id`.
///
/// # Errors
/// When no change of the topic leads to `id`.
pub fn accept(
    control: &ControlState,
    topic: &str,
    id: Option<i32>,
    acceptance: &Acceptance,
) -> Result<Effect, Refusal> {
    let subjects = [key_subject(topic), value_subject(topic)];
    let all = || subjects.iter().flat_map(|subject| control.schema_verdicts(Some(subject)));
    let of_id = |verdict: &&SchemaVerdict| id.is_none_or(|id| id == verdict.this);
    if let Some(id) = id.filter(|_| !all().any(|verdict| of_id(&verdict))) {
        return Err(Refusal {
            code: "unknown_schema",
            message: format!("no change of {topic} leads to schema {id}"),
            hint: Some("see cdc schema list".to_owned()),
        });
    }
    let mut told = Vec::new();
    let mut changes = Vec::new();
    for verdict in all().filter(of_id).filter(|verdict| !verdict.passes()) {
        let (subject, previous, this) = (&verdict.subject, verdict.previous, verdict.this);
        told.push(format!("{subject} {previous} → {this}: {}", verdict.summary()));
        let verdict = SchemaVerdict { accepted: Some(acceptance.clone()), ..verdict.clone() };
        changes.push(Change::put(ControlRecord::SchemaVerdict { verdict }));
    }
    let message = if told.is_empty() {
        format!("no change of {topic} waits to be accepted")
    } else {
        format!("accepted: {}", told.join("; "))
    };
    Ok(Effect { changes, message, task: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(subject: &str, previous: i32, this: i32, compatible: bool) -> ControlRecord {
        let verdict = SchemaVerdict {
            subject: subject.into(),
            previous,
            this,
            previous_version: None,
            this_version: None,
            compatible,
            changes: Vec::new(),
            registry_compatible: None,
            at_ms: 1,
            accepted: None,
        };
        ControlRecord::SchemaVerdict { verdict }
    }

    #[test]
    fn only_what_waits_is_accepted_and_only_of_its_topic() {
        let mut control = ControlState::default();
        for (offset, record) in [
            verdict("t-key", 1, 2, false),
            verdict("t-value", 3, 4, true),
            verdict("t-value", 4, 5, false),
            verdict("t2-value", 4, 5, false),
        ]
        .iter()
        .enumerate()
        {
            let value = serde_json::to_vec(record).unwrap();
            control.apply(offset as i64, &record.key(), Some(&value)).unwrap();
        }
        let by = Acceptance { by: "op".into(), at_ms: 9, reason: "known".into() };
        let keys = |effect: Effect| effect.changes.iter().map(Change::key).collect::<Vec<_>>();
        let all = accept(&control, "t", None, &by).unwrap();
        assert_eq!(keys(all), ["schema/t-key/1/2", "schema/t-value/4/5"]);
        assert_eq!(keys(accept(&control, "t", Some(5), &by).unwrap()), ["schema/t-value/4/5"]);
        let nothing = accept(&control, "t", Some(4), &by).unwrap();
        assert!(nothing.changes.is_empty(), "it passes already: {}", nothing.message);
        assert_eq!(accept(&control, "t", Some(7), &by).unwrap_err().code, "unknown_schema");
    }
}
