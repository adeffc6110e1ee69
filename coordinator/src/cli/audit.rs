//! `cdc audit`: who changed what.

use std::fmt::Write as _;

use cdc_shared::api::AUDIT_PATH;
use cdc_shared::audit::AuditTrail;
use cdc_shared::clock::moment;

use super::Failure;
use super::args::StatusArgs;
use super::client::Coordinator;
use super::operate::client_config;

pub(super) async fn run(args: &StatusArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let (body, trail) = Coordinator::new(&config)?.get_as(AUDIT_PATH, "audit trail").await?;
    super::print(args.json, &body, &shown(&trail))
}

fn shown(trail: &AuditTrail) -> String {
    if trail.entries.is_empty() {
        return "nothing was changed by command yet".to_owned();
    }
    let mut text = String::new();
    for entry in &trail.entries {
        let _ = writeln!(text, "{}  {}\n    by {}", moment(entry.at_ms), entry.action, entry.by);
        for change in &entry.changes {
            let value = |value: &Option<serde_json::Value>| {
                value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
            };
            let (before, after) = (value(&change.before), value(&change.after));
            let _ = writeln!(text, "    {}: {before} -> {after}", change.key);
        }
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use cdc_shared::audit::{AuditEntry, AuditedChange};
    use serde_json::json;

    use super::*;

    #[test]
    fn each_command_shows_who_and_from_what_to_what() {
        let change = AuditedChange {
            key: "directive/wh".to_owned(),
            before: None,
            after: Some(json!({"state": "pause"})),
        };
        let entry = AuditEntry {
            by: "root@host".to_owned(),
            at_ms: 1_764_000_000_000,
            action: "sink wh paused".to_owned(),
            changes: vec![change],
        };
        let trail = AuditTrail { pipeline_id: "demo".to_owned(), entries: vec![entry] };
        assert_eq!(
            shown(&trail),
            "2025-11-24T16:00:00Z  sink wh paused\n    by root@host\n    \
             directive/wh: nothing -> {\"state\":\"pause\"}"
        );
    }
}
