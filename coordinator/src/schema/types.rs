//! What changed in the type of one field.

use std::collections::{BTreeMap, BTreeSet};

use cdc_shared::avro::{Column, Kind, NodeId, Plan, Semantic, Type};
use cdc_shared::schema::{FieldChange, FieldEffect};

use super::compare::{Scope, rows};
use super::declared::{self, Fit};

/// Deepest nesting that is compared; a type that holds itself would have no end.
const MAX_DEPTH: u32 = 16;

/// The parameter of our Connect transform that carries a column's default.
const DEFAULT: &str = "cdc.default";

/// Parameters that are compared by what they mean.
const KNOWN: [&str; 5] = ["allowed", DEFAULT, "scale", "length", "connect.decimal.precision"];

/// What the source says of a column; its type is compared by what it means, its comment not at all.
const OF_SOURCE: &str = "__debezium.source.column.";

/// Compares two fields of one name.
pub(super) fn fields(
    (old, before): (&Plan, &Column),
    (new, now): (&Plan, &Column),
    (way, depth): (&str, u32),
    found: &mut Vec<FieldChange>,
) {
    let first = found.len();
    let mut tell = |effect, detail: String| {
        found.push(FieldChange { field: way.to_owned(), effect, detail });
    };
    match (before.nullable, now.nullable) {
        (true, false) => tell(FieldEffect::MadeRequired, String::new()),
        (false, true) => tell(FieldEffect::MadeOptional, String::new()),
        _ => {}
    }
    let is_record = matches!(new.kind(now.node), Kind::Record { .. });
    let declared = declared::compare(&before.source, &now.source, is_record);
    if let Some((fit, detail)) = declared {
        tell(effect(fit), detail);
    }
    nodes((old, before.node), (new, now.node), (way, depth), found);
    merge(found, first);
    if found.len() == first && defaults(old, before) != defaults(new, now) {
        let (effect, detail) = (FieldEffect::OtherDefault, String::new());
        found.push(FieldChange { field: way.to_owned(), effect, detail });
    }
}

/// The source's word and Avro's on one field: each effect once, and of two that contradict each
/// other the worse.
fn merge(found: &mut Vec<FieldChange>, first: usize) {
    let told: Vec<FieldChange> = found.drain(first..).collect();
    for change in &told {
        let of_field = || told.iter().filter(|other| other.field == change.field);
        let is_outdone = change.effect == FieldEffect::Widened
            && of_field().any(|other| {
                matches!(other.effect, FieldEffect::Narrowed | FieldEffect::OtherType)
            });
        let again = found[first..]
            .iter()
            .any(|told| told.field == change.field && told.effect == change.effect);
        if !is_outdone && !again {
            found.push(change.clone());
        }
    }
}

fn effect(fit: Fit) -> FieldEffect {
    match fit {
        Fit::Wider => FieldEffect::Widened,
        Fit::Narrower => FieldEffect::Narrowed,
        Fit::Other => FieldEffect::OtherType,
    }
}

/// A column's default, in each of the places where one may stand.
fn defaults(plan: &Plan, column: &Column) -> [String; 3] {
    let ty = plan.ty(column.node);
    let text = |json: &Option<serde_json::Value>| match json {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(value) => value.to_string(),
    };
    let ours = ty.parameters.get(DEFAULT).cloned().unwrap_or_default();
    [text(&column.default), text(&ty.connect_default), ours]
}

/// A node with its `Optional` taken off, and whether it had one.
fn inner(plan: &Plan, node: NodeId) -> (NodeId, bool) {
    match plan.kind(node) {
        Kind::Optional { inner, .. } => (inner, true),
        _ => (node, false),
    }
}

/// Compares two types.
pub(super) fn nodes(
    (old, before): (&Plan, NodeId),
    (new, now): (&Plan, NodeId),
    (way, depth): (&str, u32),
    found: &mut Vec<FieldChange>,
) {
    let mut tell = |effect, detail: String| {
        found.push(FieldChange { field: way.to_owned(), effect, detail });
    };
    let ((before, was_null), (now, is_null)) = (inner(old, before), inner(new, now));
    match (was_null, is_null) {
        (true, false) => tell(FieldEffect::MadeRequired, String::new()),
        (false, true) => tell(FieldEffect::MadeOptional, String::new()),
        _ => {}
    }
    let (old_type, new_type) = (old.ty(before), new.ty(now));
    let (from, to) = (old.kind(before), new.kind(now));
    if let Some((fit, detail)) = meanings((from, old_type), (to, new_type)) {
        tell(effect(fit), detail);
        if fit == Fit::Other {
            return;
        }
    }
    match (from, to) {
        (Kind::Array(before), Kind::Array(now)) if depth < MAX_DEPTH => {
            nodes((old, before), (new, now), (&format!("{way}[]"), depth + 1), found);
        }
        (Kind::Map(before), Kind::Map(now)) if depth < MAX_DEPTH => {
            nodes((old, before), (new, now), (&format!("{way}{{}}"), depth + 1), found);
        }
        (Kind::Record { .. }, Kind::Record { .. }) => {
            if depth + 1 < MAX_DEPTH {
                let scope = Scope { way, depth: depth + 1, ..Scope::default() };
                rows((old, before), (new, now), &scope, found);
            }
        }
        (Kind::Enum(_), Kind::Enum(_)) => {
            let set = |ty: &Type| ty.symbols.iter().cloned().collect();
            labels(way, &set(old_type), &set(new_type), found);
        }
        (Kind::Union { .. }, Kind::Union { .. }) => {
            let set = |plan: &Plan, node| {
                plan.branches(node).iter().map(|b| format!("{:?}", plan.kind(*b))).collect()
            };
            labels(way, &set(old, before), &set(new, now), found);
        }
        _ => {
            let allowed = |ty: &Type| {
                let listed = ty.parameters.get("allowed").map(String::as_str).unwrap_or_default();
                listed.split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect()
            };
            labels(way, &allowed(old_type), &allowed(new_type), found);
        }
    }
}

fn labels(way: &str, old: &BTreeSet<String>, new: &BTreeSet<String>, found: &mut Vec<FieldChange>) {
    let list = |these: &BTreeSet<String>, those: &BTreeSet<String>| {
        these.difference(those).cloned().collect::<Vec<_>>().join(", ")
    };
    for (effect, names, word) in [
        (FieldEffect::Narrowed, list(old, new), "no longer"),
        (FieldEffect::NewLabel, list(new, old), "now also"),
    ] {
        if !names.is_empty() {
            let detail = format!("{word} {names}");
            found.push(FieldChange { field: way.to_owned(), effect, detail });
        }
    }
}

/// Compares what values mean and how they are written; not what is inside of them.
fn meanings((from, old): (Kind, &Type), (to, new): (Kind, &Type)) -> Option<(Fit, String)> {
    let detail = || format!("{} → {}", described(from, old), described(to, new));
    match (old.semantic, new.semantic) {
        (
            Semantic::Decimal { scale: a, precision: p },
            Semantic::Decimal { scale: b, precision: q },
        ) => {
            return declared::digits((p, a), (q, b)).map(|fit| (fit, detail()));
        }
        (Semantic::Bits { length: a }, Semantic::Bits { length: b }) if a != b => {
            let fit = if b.unwrap_or(u32::MAX) > a.unwrap_or(u32::MAX) {
                Fit::Wider
            } else {
                Fit::Narrower
            };
            return Some((fit, detail()));
        }
        (a, b) if a != b => return Some((Fit::Other, detail())),
        _ => {}
    }
    let named = |kind| matches!(kind, Kind::Record { .. } | Kind::Enum(_) | Kind::Fixed(_));
    if !named(from) && !named(to) {
        if old.connect_name != new.connect_name || old.connect_version != new.connect_version {
            return Some((Fit::Other, detail()));
        }
        // On a named type the parameters are those of its first use.
        let (a, b) = (others(&old.parameters), others(&new.parameters));
        if a != b {
            return Some((Fit::Other, format!("parameters {a:?} → {b:?}")));
        }
    }
    kinds((from, old), (to, new)).map(|fit| (fit, detail()))
}

fn others(parameters: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let is_known = |name: &str| KNOWN.contains(&name) || name.starts_with(OF_SOURCE);
    parameters
        .iter()
        .filter(|(name, _)| !is_known(name))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn kinds((from, old): (Kind, &Type), (to, new): (Kind, &Type)) -> Option<Fit> {
    let bits = |kind, ty: &Type| match (kind, ty.connect_type.as_deref()) {
        (Kind::Int, Some("int8")) => Some(8),
        (Kind::Int, Some("int16")) => Some(16),
        (Kind::Int, _) => Some(32),
        (Kind::Long, _) => Some(64),
        _ => None,
    };
    if let (Some(a), Some(b)) = (bits(from, old), bits(to, new)) {
        return match a.cmp(&b) {
            std::cmp::Ordering::Less => Some(Fit::Wider),
            std::cmp::Ordering::Greater => Some(Fit::Narrower),
            std::cmp::Ordering::Equal => None,
        };
    }
    match (from, to) {
        // A double holds every float and every 32-bit integer.
        (Kind::Float | Kind::Int, Kind::Double) => Some(Fit::Wider),
        (Kind::Double, Kind::Float | Kind::Int) => Some(Fit::Narrower),
        (Kind::Fixed(a), Kind::Fixed(b)) => (a != b).then_some(Fit::Other),
        (a, b) if std::mem::discriminant(&a) == std::mem::discriminant(&b) => None,
        _ => Some(Fit::Other),
    }
}

fn described(kind: Kind, ty: &Type) -> String {
    let plain = match kind {
        Kind::Null => "null",
        Kind::Boolean => "boolean",
        Kind::Int => ty.connect_type.as_deref().unwrap_or("int"),
        Kind::Long => "long",
        Kind::Float => "float",
        Kind::Double => "double",
        Kind::Bytes => "bytes",
        Kind::String => "string",
        Kind::Fixed(_) => "fixed",
        Kind::Enum(_) => "enum",
        Kind::Array(_) => "array",
        Kind::Map(_) => "map",
        Kind::Record { .. } => "record",
        Kind::Optional { .. } => "optional",
        Kind::Union { .. } => "union",
    };
    match (ty.semantic, &ty.connect_name) {
        (Semantic::Decimal { scale, precision: Some(digits) }, _) => {
            format!("decimal({digits},{scale})")
        }
        (Semantic::Decimal { scale, precision: None }, _) => format!("decimal(scale {scale})"),
        (Semantic::Bits { length: Some(length) }, _) => format!("bits({length})"),
        (Semantic::Plain, None) => plain.to_owned(),
        (Semantic::Plain, Some(name)) => format!("{plain} {name}"),
        (semantic, name) => match name {
            Some(name) => format!("{plain} {}", name.rsplit('.').next().unwrap_or(name)),
            None => format!("{plain} {semantic:?}"),
        },
    }
}
