//! `cdc schema …`: what changed in the schemas of the pipeline's topics, and taking it as it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use cdc_shared::api::{Command, SCHEMAS_PATH};
use cdc_shared::clock::moment;
use cdc_shared::registry::{Registry, RegistryError, Schema, Version};
use cdc_shared::schema::{
    FieldChange, SchemaReport, SchemaSubject, SchemaVerdict, key_subject, value_subject,
};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::{StatusArgs, Target};
use super::client::Coordinator;
use super::load::load;
use super::operate::{client_config, topic_of};
use super::{Exit, Failure};
use crate::schema;

#[derive(Debug, Args)]
pub(super) struct SchemaCommandArgs {
    #[command(subcommand)]
    command: SchemaCommand,
}

#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Show every schema, its changes since the pipeline first ran, and the verdict on each.
    #[command(after_help = "Example:\n  cdc schema list pipeline.yaml")]
    List(StatusArgs),
    /// Show what changed between two schemas of a table, field by field. Needs no coordinator.
    #[command(
        after_help = "Example:\n  cdc schema diff pipeline.yaml --table public.customers\n\n\
                            Without ids, the newest two versions. A column that the source \
                            computes is shown as removed or added here, and not counted by the \
                            coordinator."
    )]
    Diff(DiffArgs),
    /// Take the incompatible changes of a table as they are: what they hold goes on where it
    /// stopped.
    #[command(after_help = "Example:\n  cdc schema accept pipeline.yaml --table public.customers \
                            --reason 'column dropped on purpose'")]
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
struct DiffArgs {
    #[command(flatten)]
    target: Target,
    /// The table.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: String,
    /// Of the key instead of the row.
    #[arg(long)]
    key: bool,
    /// Registry id of the former schema. Default: of the version before --to.
    #[arg(long, value_name = "ID")]
    from: Option<i32>,
    /// Registry id of the later schema. Default: of the newest version.
    #[arg(long, value_name = "ID")]
    to: Option<i32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AcceptArgs {
    #[command(flatten)]
    target: Target,
    /// The table.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: String,
    /// Only changes to the schema with this registry id. Default: every one that waits.
    #[arg(long, value_name = "ID")]
    id: Option<i32>,
    /// Kept with the change and in the audit trail.
    #[arg(long, default_value = "")]
    reason: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &SchemaCommandArgs) -> Result<(), Failure> {
    match &args.command {
        SchemaCommand::List(args) => list(args).await,
        SchemaCommand::Diff(args) => diff(args).await,
        SchemaCommand::Accept(args) => accept(args).await,
    }
}

async fn list(args: &StatusArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let (body, report) = Coordinator::new(&config)?.get_as(SCHEMAS_PATH, "list of schemas").await?;
    super::print(args.json, &body, &listed(&report))
}

async fn accept(args: &AcceptArgs) -> Result<(), Failure> {
    let config = client_config(&args.target)?;
    let topic = topic_of(&config, Some(&args.table))?.unwrap_or_default();
    let command = Command::AcceptSchema { topic, id: args.id, reason: args.reason.clone() };
    let reply = Coordinator::new(&config)?.command(command).await?;
    super::print(args.json, &reply, &reply.message)
}

/// What changed between two schemas.
#[derive(Debug, Serialize)]
struct Diff {
    subject: String,
    previous: i32,
    this: i32,
    compatible: bool,
    changes: Vec<FieldChange>,
}

async fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let config = load(&args.target)?;
    let topic = topic_of(&config, Some(&args.table))?.unwrap_or_default();
    let subject = if args.key { key_subject(&topic) } else { value_subject(&topic) };
    let registry = Registry::new(&config.kafka).map_err(|error| {
        Failure::new(Exit::Config, format!("kafka.schema_registry.tls: {error}"))
    })?;
    let versions = registry.versions(&subject, 0).await.map_err(|error| failed(&error))?;
    let (previous, this) = chosen(&subject, &versions, args.from, args.to)?;
    let (old, new) = (fetch(&registry, previous).await?, fetch(&registry, this).await?);
    let changes = if previous == this {
        Vec::new()
    } else if args.key {
        schema::keys(&old, &new)
    } else {
        schema::values(&old, &new, &BTreeSet::new())
    };
    let compatible = schema::is_compatible(&changes);
    let diff = Diff { subject, previous, this, compatible, changes };
    let word = if compatible { "compatible" } else { "incompatible" };
    let mut text = format!("{}: schema {previous} → {this}: {word}", diff.subject);
    told(&diff.changes, "  ", &mut text);
    super::print(args.json, &diff, &text)
}

fn chosen(
    subject: &str,
    versions: &[Version],
    from: Option<i32>,
    to: Option<i32>,
) -> Result<(i32, i32), Failure> {
    let missing = |what: &str| {
        let message = format!("subject {subject} has no {what}");
        Failure::new(Exit::Data, message).hint("name the ids with --from and --to")
    };
    let to = to.or(versions.last().map(|version| version.id));
    let to = to.ok_or_else(|| missing("version"))?;
    let before = || {
        let place = versions.iter().rposition(|version| version.id == to)?;
        versions.get(place.checked_sub(1)?).map(|version| version.id)
    };
    let from = from.or_else(before).ok_or_else(|| missing("version before it"))?;
    Ok((from, to))
}

async fn fetch(registry: &Registry, id: i32) -> Result<Arc<Schema>, Failure> {
    registry.schema(id).await.map_err(|error| failed(&error))
}

fn failed(error: &RegistryError) -> Failure {
    let exit = match error {
        RegistryError::Unavailable { refused: true, .. } => Exit::NoPerm,
        RegistryError::Unavailable { .. } => Exit::Unavailable,
        _ => Exit::Data,
    };
    Failure::new(exit, error.to_string())
}

fn listed(report: &SchemaReport) -> String {
    let mut text = String::new();
    for subject in &report.subjects {
        let _ = writeln!(text, "{}: {}", subject.subject, newest(subject));
        for verdict in report.changes.iter().filter(|v| v.subject == subject.subject) {
            let _ = writeln!(text, "  {}", headline(verdict));
            told(&verdict.changes, "    ", &mut text);
        }
    }
    for open in &report.open {
        let (subject, this) = (&open.question.subject, open.question.this);
        let _ = writeln!(text, "not judged: {subject} schema {this}: {}", open.reason);
    }
    if let Some(error) = &report.error {
        let _ = writeln!(text, "the latest look failed: {error}");
    }
    if report.subjects.is_empty() {
        text.push_str("no schema is known yet");
    }
    let effect = if report.stops { "hold their sinks" } else { "hold nothing" };
    let (stops, setting) = (report.stops, "stop_on_incompatible_schema");
    let _ = write!(text, "\nincompatible changes {effect} ({setting}: {stops})");
    text
}

fn newest(subject: &SchemaSubject) -> String {
    match subject.versions.last() {
        Some(last) => format!("version {}, schema {}", last.version, last.id),
        None => "not in the registry".to_owned(),
    }
}

/// A change in one line.
fn headline(verdict: &SchemaVerdict) -> String {
    let SchemaVerdict { previous, this, previous_version, this_version, .. } = verdict;
    let version = |version: &Option<i32>| version.map_or("?".to_owned(), |v| v.to_string());
    let word = match (&verdict.accepted, verdict.compatible) {
        (_, true) => "compatible".to_owned(),
        (None, false) => "INCOMPATIBLE".to_owned(),
        (Some(accepted), false) => {
            let because = match accepted.reason.as_str() {
                "" => String::new(),
                reason => format!(": {reason}"),
            };
            let at = moment(accepted.at_ms);
            format!("incompatible, accepted {at} by {}{because}", accepted.by)
        }
    };
    let registry = match verdict.registry_compatible {
        Some(true) => "compatible",
        Some(false) => "incompatible",
        None => "no answer",
    };
    let (from, to) = (version(previous_version), version(this_version));
    format!(
        "{}  version {from} → {to}, schema {previous} → {this}: {word} (the registry's own rule: \
         {registry})",
        moment(verdict.at_ms)
    )
}

fn told(changes: &[FieldChange], indent: &str, text: &mut String) {
    let is_line_open = !text.is_empty() && !text.ends_with('\n');
    let mut lines: Vec<String> = changes.iter().map(|change| format!("{indent}{change}")).collect();
    if lines.is_empty() {
        lines.push(format!("{indent}no field changed"));
    }
    if is_line_open {
        text.push('\n');
        text.push_str(&lines.join("\n"));
    } else {
        let _ = writeln!(text, "{}", lines.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_shared::schema::{FieldEffect, SchemaVersion};

    #[test]
    fn the_history_reads_as_subjects_changes_and_fields() {
        let change = |field: &str, effect| FieldChange {
            field: field.into(),
            effect,
            detail: String::new(),
        };
        let verdict = SchemaVerdict {
            subject: "cdc.public.t-value".into(),
            previous: 7,
            this: 9,
            previous_version: Some(1),
            this_version: Some(2),
            compatible: false,
            changes: vec![
                change("name", FieldEffect::Removed),
                change("label", FieldEffect::Added),
            ],
            registry_compatible: Some(true),
            at_ms: 1_700_000_000_123,
            accepted: None,
        };
        let versions =
            [(1, 7), (2, 9)].map(|(version, id)| SchemaVersion { version, id, at_ms: 0 });
        let subject = SchemaSubject {
            subject: verdict.subject.clone(),
            baseline: vec![7],
            versions: versions.to_vec(),
            since_ms: 0,
        };
        let report = SchemaReport {
            pipeline_id: "demo".into(),
            stops: true,
            subjects: vec![subject],
            changes: vec![verdict],
            ..SchemaReport::default()
        };
        assert_eq!(
            listed(&report),
            "cdc.public.t-value: version 2, schema 9\n  \
             2023-11-14T22:13:20Z  version 1 → 2, schema 7 → 9: INCOMPATIBLE (the registry's own \
             rule: compatible)\n    name removed\n    label added\n\n\
             incompatible changes hold their sinks (stop_on_incompatible_schema: true)"
        );
    }

    #[test]
    fn without_ids_the_newest_two_versions_are_compared() {
        let versions = [(1, 7), (2, 9), (3, 8)].map(|(version, id)| Version { version, id });
        let of = |from, to| chosen("t-value", &versions, from, to).map_err(|f| f.message);
        assert_eq!(of(None, None), Ok((9, 8)));
        assert_eq!(of(None, Some(9)), Ok((7, 9)));
        assert_eq!(of(Some(7), None), Ok((7, 8)));
        assert_eq!(of(Some(8), Some(7)), Ok((8, 7)), "an old one that came back");
        assert!(of(None, Some(7)).unwrap_err().contains("no version before it"));
        assert!(chosen("t-value", &[], None, None).is_err());
    }
}
