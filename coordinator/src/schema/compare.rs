//! What changed between two schemas, field by field, and what that means for who reads the records:
//! a pure rule.
//!
//! Of a change event only the row counts; what changed in the envelope around it is told beside.
//! Fields are told apart by their names, so that a rename is a removal and an addition.

use std::collections::BTreeSet;

use cdc_shared::avro::{Column, Kind, NodeId, Plan};
use cdc_shared::envelope::ValueSchema;
use cdc_shared::registry::Schema;
use cdc_shared::schema::{FieldChange, FieldEffect};

use super::types;

/// Fields of an envelope that hold a row.
const IMAGES: [&str; 2] = ["before", "after"];

/// Every difference between the schemas of two values of one topic. `generated`: the columns that
/// the source computes, by the source's names.
pub fn values(old: &Schema, new: &Schema, generated: &BTreeSet<String>) -> Vec<FieldChange> {
    let mut found = Vec::new();
    match (&old.kind, &new.kind) {
        (ValueSchema::Envelope(_), ValueSchema::Envelope(_)) => {
            envelopes(&old.plan, &new.plan, generated, &mut found);
        }
        (ValueSchema::Envelope(_), _) | (_, ValueSchema::Envelope(_)) => {
            let was = matches!(old.kind, ValueSchema::Envelope(_));
            let detail = if was { "no change event any more" } else { "a change event now" };
            found.push(change("", FieldEffect::Schema, detail));
        }
        _ => roots(&old.plan, &new.plan, generated, &mut found),
    }
    settled(found)
}

/// Every difference between the schemas of two keys of one topic. There is always one: the key's
/// bytes begin with the schema's id, and the bytes choose the partition.
pub fn keys(old: &Schema, new: &Schema) -> Vec<FieldChange> {
    let mut found = Vec::new();
    roots(&old.plan, &new.plan, &BTreeSet::new(), &mut found);
    let detail = "keys with another schema go to other partitions";
    found.push(change("", FieldEffect::Key, detail));
    settled(found)
}

/// Whether a reader of the former schema can live with all of it.
pub fn is_compatible(changes: &[FieldChange]) -> bool {
    changes.iter().all(|change| change.effect.is_compatible())
}

fn change(field: &str, effect: FieldEffect, detail: impl Into<String>) -> FieldChange {
    FieldChange { field: field.to_owned(), effect, detail: detail.into() }
}

/// Both images of a row tell the same.
fn settled(found: Vec<FieldChange>) -> Vec<FieldChange> {
    let mut told: Vec<FieldChange> = Vec::new();
    for change in found {
        if !told.iter().any(|t| t.field == change.field && t.effect == change.effect) {
            told.push(change);
        }
    }
    told.sort_by_key(|change| change.effect.is_compatible());
    told
}

fn envelopes(old: &Plan, new: &Plan, generated: &BTreeSet<String>, found: &mut Vec<FieldChange>) {
    let image = |plan: &Plan, name: &str| column(plan, plan.root(), name).map(|image| image.node);
    for name in IMAGES {
        match (image(old, name), image(new, name)) {
            (Some(before), Some(now)) => {
                rows((old, before), (new, now), &Scope { generated, ..Scope::default() }, found);
            }
            (Some(_), None) => found.push(change(name, FieldEffect::Removed, "of the envelope")),
            (None, Some(_)) => found.push(change(name, FieldEffect::Envelope, "added")),
            (None, None) => {}
        }
    }
    let mut around = Vec::new();
    let scope = Scope { left_out: &IMAGES, ..Scope::default() };
    rows((old, old.root()), (new, new.root()), &scope, &mut around);
    found.extend(around.into_iter().map(|told| {
        let detail = match told.detail.as_str() {
            "" => told.effect.name().to_owned(),
            detail => format!("{}: {detail}", told.effect.name()),
        };
        change(&told.field, FieldEffect::Envelope, detail)
    }));
}

fn roots(old: &Plan, new: &Plan, generated: &BTreeSet<String>, found: &mut Vec<FieldChange>) {
    let is_record = |plan: &Plan| matches!(plan.kind(plan.root()), Kind::Record { .. });
    if is_record(old) && is_record(new) {
        let scope = Scope { generated, ..Scope::default() };
        rows((old, old.root()), (new, new.root()), &scope, found);
    } else {
        types::nodes((old, old.root()), (new, new.root()), ("value", 0), found);
    }
}

fn column<'p>(plan: &'p Plan, record: NodeId, name: &str) -> Option<&'p Column> {
    plan.columns(record).iter().find(|column| column.name == name)
}

static NONE: BTreeSet<String> = BTreeSet::new();

/// Where two records stand that are compared.
pub(super) struct Scope<'a> {
    /// The way to them.
    pub(super) way: &'a str,
    /// How deep that is.
    pub(super) depth: u32,
    /// Columns that the source computes.
    pub(super) generated: &'a BTreeSet<String>,
    /// Fields that are compared by themselves.
    pub(super) left_out: &'a [&'a str],
}

impl Default for Scope<'_> {
    fn default() -> Self {
        Self { way: "", depth: 0, generated: &NONE, left_out: &[] }
    }
}

impl Scope<'_> {
    fn field(&self, name: &str) -> String {
        if self.way.is_empty() { name.to_owned() } else { format!("{}.{name}", self.way) }
    }

    /// A field that only one of the schemas has.
    fn lone(&self, column: &Column, effect: FieldEffect) -> FieldChange {
        let field = self.field(&column.name);
        if self.generated.contains(column.source_name()) {
            return change(&field, FieldEffect::Generated, "computed by the source");
        }
        change(&field, effect, "")
    }
}

/// Compares two records.
pub(super) fn rows(
    (old, old_record): (&Plan, NodeId),
    (new, new_record): (&Plan, NodeId),
    scope: &Scope<'_>,
    found: &mut Vec<FieldChange>,
) {
    let counts = |column: &&Column| !scope.left_out.contains(&column.name.as_str());
    for before in old.columns(old_record).iter().filter(counts) {
        match column(new, new_record, &before.name) {
            Some(now) => {
                let at = (scope.field(&before.name), scope.depth);
                types::fields((old, before), (new, now), (&at.0, at.1), found);
            }
            None => found.push(scope.lone(before, FieldEffect::Removed)),
        }
    }
    for now in new.columns(new_record).iter().filter(counts) {
        if column(old, old_record, &now.name).is_none() {
            found.push(scope.lone(now, FieldEffect::Added));
        }
    }
}
