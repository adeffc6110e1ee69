//! What `deploy` did, for a person and as JSON.

use std::fmt;

use cdc_shared::config::HIDDEN;
use serde::Serialize;

use super::connector::{Properties, is_secret};
use super::topics::TopicOutcome;

/// Everything that `deploy` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeployReport {
    /// Name of the connector.
    pub connector: String,
    /// What happened to it.
    pub outcome: ConnectorOutcome,
    /// What happened to each topic.
    pub topics: Vec<(String, TopicOutcome)>,
    /// What deserves attention.
    pub notes: Vec<String>,
}

/// What happened to the connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ConnectorOutcome {
    /// It was not there.
    Created,
    /// It was there with other properties.
    Updated {
        /// Which.
        changes: Vec<Change>,
    },
    /// It was as it should be, and running.
    Unchanged,
    /// It was as it should be, but had failed.
    Restarted,
}

/// One property that changed; the values of secrets are hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub property: String,
    /// Before; absent when it is new.
    pub before: Option<String>,
    /// After; absent when it is gone.
    pub after: Option<String>,
}

/// What has to change to come from one set of properties to the other. Connect adds `name` itself.
pub(super) fn changes(name: &str, existing: &Properties, ours: &Properties) -> Vec<Change> {
    let mut names: Vec<&String> = existing.keys().chain(ours.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|property| existing.get(*property) != ours.get(*property))
        .filter(|property| *property != "name" || existing.get("name").is_some_and(|n| n != name))
        .map(|property| {
            let shown = |value: Option<&String>| {
                value.map(|v| if is_secret(property) { HIDDEN.to_owned() } else { v.clone() })
            };
            Change {
                property: property.clone(),
                before: shown(existing.get(property)),
                after: shown(ours.get(property)),
            }
        })
        .collect()
}

impl fmt::Display for DeployReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unchanged = 0;
        for (topic, outcome) in &self.topics {
            match outcome {
                TopicOutcome::Created { partitions } => {
                    writeln!(f, "topic {topic}: created, {}", count(*partitions, "partition"))?;
                }
                TopicOutcome::Unchanged => unchanged += 1,
                TopicOutcome::Differs { differences } => {
                    for difference in differences {
                        writeln!(f, "topic {topic}: differs: {difference}")?;
                    }
                }
            }
        }
        if unchanged > 0 {
            writeln!(f, "{}: unchanged", count(unchanged, "topic"))?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let what = &self.outcome;
        write!(f, "connector {}: {what}, its task runs", self.connector)?;
        if let ConnectorOutcome::Updated { changes } = what {
            for change in changes {
                let before = change.before.as_deref().unwrap_or("(none)");
                let after = change.after.as_deref().unwrap_or("(none)");
                write!(f, "\n  {}: {before} → {after}", change.property)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ConnectorOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Updated { .. } => "updated",
            Self::Unchanged => "unchanged",
            Self::Restarted => "unchanged, it had failed and was started again",
        })
    }
}

/// A number with its noun.
fn count(number: i32, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn changes_are_named_and_secrets_hidden() {
        let existing =
            properties(&[("name", "c"), ("a", "1"), ("database.password", "x"), ("old", "y")]);
        assert!(changes("c", &existing, &existing).is_empty());
        let ours = properties(&[("a", "2"), ("database.password", "z"), ("new", "n")]);
        let report = DeployReport {
            connector: "c".into(),
            outcome: ConnectorOutcome::Updated { changes: changes("c", &existing, &ours) },
            topics: vec![],
            notes: vec![],
        };
        assert_eq!(
            report.to_string(),
            "connector c: updated, its task runs\n  a: 1 → 2\n  database.password: *** → ***\n  \
             new: (none) → n\n  old: y → (none)"
        );
    }

    #[test]
    fn the_report_is_short_where_nothing_happened() {
        let report = DeployReport {
            connector: "cdc-demo".into(),
            outcome: ConnectorOutcome::Unchanged,
            topics: vec![
                ("t".into(), TopicOutcome::Unchanged),
                ("u".into(), TopicOutcome::Unchanged),
                ("v".into(), TopicOutcome::Created { partitions: 1 }),
            ],
            notes: vec![],
        };
        assert_eq!(
            report.to_string(),
            "topic v: created, 1 partition\n2 topics: unchanged\nconnector cdc-demo: unchanged, \
             its task runs"
        );
    }
}
