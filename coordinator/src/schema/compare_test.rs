//! What counts as which change.

use std::sync::Arc;

use cdc_shared::avro::Plan;
use cdc_shared::schema::FieldChange;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn schema(id: i32, json: &Value) -> cdc_shared::registry::Schema {
    let none: [(&str, &str); 0] = [];
    let plan = Arc::new(Plan::compile(id, &json.to_string(), &none).unwrap());
    cdc_shared::registry::Schema {
        kind: cdc_shared::envelope::ValueSchema::of(Arc::clone(&plan)),
        plan,
    }
}

/// An envelope around rows of these fields.
fn envelope(fields: &[Value]) -> Value {
    json!({"type": "record", "name": "Envelope", "namespace": "shop.t", "fields": [
        {"name": "before", "type": ["null", {
            "type": "record", "name": "Value", "fields": fields,
        }], "default": null},
        {"name": "after", "type": ["null", "Value"], "default": null},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "ts_ms", "type": "long"}, {"name": "lsn", "type": ["null", "long"]},
        ]}},
        {"name": "op", "type": "string"},
    ]})
}

fn told(changes: &[FieldChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn generated(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// What changed between rows of these fields, and whether that is compatible.
fn between(old: &[Value], new: &[Value]) -> (bool, String) {
    let changes = values(&schema(1, &envelope(old)), &schema(2, &envelope(new)), &BTreeSet::new());
    (is_compatible(&changes), told(&changes))
}

fn field(ty: &Value) -> Value {
    json!({"name": "c", "type": ty})
}

/// A column as Debezium describes it.
fn column(avro: &str, source: &str, length: Option<i64>, scale: Option<i64>) -> Value {
    let mut parameters = json!({
        "__debezium.source.column.type": source, "__debezium.source.column.name": "c",
    });
    for (name, number) in [("length", length), ("scale", scale)] {
        if let Some(number) = number {
            parameters[format!("__debezium.source.column.{name}")] = json!(number.to_string());
        }
    }
    field(&json!({"type": avro, "connect.parameters": parameters}))
}

#[track_caller]
fn is(old: &Value, new: &Value, compatible: bool, expected: &str) {
    let found = between(std::slice::from_ref(old), std::slice::from_ref(new));
    assert_eq!(found, (compatible, expected.to_owned()), "{old} → {new}");
}

#[test]
fn fields_come_go_and_may_be_null() {
    let (a, b) = (json!({"name": "a", "type": "int"}), json!({"name": "b", "type": "int"}));
    let both = [a.clone(), b.clone()];
    assert_eq!(between(&both, &both), (true, String::new()));
    assert_eq!(between(&both, &[b.clone(), a.clone()]), (true, String::new()), "order is nothing");
    assert_eq!(between(std::slice::from_ref(&a), &both), (true, "b added".into()));
    assert_eq!(between(&both, std::slice::from_ref(&a)), (false, "b removed".into()));
    assert_eq!(between(&[a], &[b]), (false, "a removed; b added".into()), "a rename");
    let (required, optional) = (field(&json!("int")), field(&json!(["null", "int"])));
    is(&required, &optional, true, "c made optional");
    is(&optional, &required, false, "c made required");
    let dated = json!({"name": "c", "type": "int", "default": 7});
    is(&required, &dated, true, "c other default");
}

#[test]
fn numbers_widen_and_narrow() {
    let int16 = json!({"type": "int", "connect.type": "int16"});
    for (old, new, word) in [
        (json!("int"), json!("long"), "int → long"),
        (int16.clone(), json!("int"), "int16 → int"),
        (int16, json!("long"), "int16 → long"),
        (json!("float"), json!("double"), "float → double"),
        (json!("int"), json!("double"), "int → double"),
    ] {
        is(&field(&old), &field(&new), true, &format!("c widened ({word})"));
        let (from, to) = word.split_once(" → ").unwrap();
        is(&field(&new), &field(&old), false, &format!("c narrowed ({to} → {from})"));
    }
    is(&field(&json!("long")), &field(&json!("double")), false, "c other type (long → double)");
    is(&field(&json!("int")), &field(&json!("string")), false, "c other type (int → string)");
}

#[test]
fn decimals_are_compared_by_their_digits() {
    let decimal = |digits: u32, scale: i32| {
        field(&json!({
            "type": "bytes", "logicalType": "decimal", "precision": digits, "scale": scale,
        }))
    };
    is(&decimal(8, 2), &decimal(12, 2), true, "c widened (decimal(8,2) → decimal(12,2))");
    is(&decimal(8, 2), &decimal(9, 3), true, "c widened (decimal(8,2) → decimal(9,3))");
    is(&decimal(8, 2), &decimal(8, 3), false, "c narrowed (decimal(8,2) → decimal(8,3))");
    is(&decimal(8, 2), &decimal(9, 1), false, "c narrowed (decimal(8,2) → decimal(9,1))");
}

#[test]
fn the_meaning_counts_not_the_bytes() {
    let named = |avro: &str, name: &str| field(&json!({"type": avro, "connect.name": name}));
    let (micro, milli) = ("io.debezium.time.MicroTimestamp", "io.debezium.time.Timestamp");
    is(
        &named("long", milli),
        &named("long", micro),
        false,
        "c other type (long Timestamp → long MicroTimestamp)",
    );
    is(
        &named("string", "io.debezium.data.Json"),
        &field(&json!("string")),
        false,
        "c other type (string Json → string)",
    );
    is(
        &named("string", "my.own.A"),
        &named("string", "my.own.B"),
        false,
        "c other type (string my.own.A → string my.own.B)",
    );
    let enumeration = |allowed: &str| {
        field(&json!({
            "type": "string", "connect.name": "io.debezium.data.Enum",
            "connect.parameters": {"allowed": allowed},
        }))
    };
    is(&enumeration("a,b"), &enumeration("b,c,a"), true, "c new label (now also c)");
    is(&enumeration("a,b"), &enumeration("a"), false, "c narrowed (no longer b)");
    is(
        &enumeration("a,b"),
        &enumeration("a,c"),
        false,
        "c narrowed (no longer b); c new label (now also c)",
    );
    let bits = |length: &str| {
        field(&json!({
            "type": "bytes", "connect.name": "io.debezium.data.Bits",
            "connect.parameters": {"length": length},
        }))
    };
    is(&bits("3"), &bits("5"), true, "c widened (bits(3) → bits(5))");
    is(&bits("5"), &bits("3"), false, "c narrowed (bits(5) → bits(3))");
}

#[test]
fn the_source_knows_the_exact_type() {
    let varchar = |length| column("string", "VARCHAR", Some(length), None);
    is(&varchar(40), &varchar(80), true, "c widened (varchar(40) → varchar(80))");
    is(&varchar(40), &varchar(20), false, "c narrowed (varchar(40) → varchar(20))");
    let text = column("string", "TEXT", Some(2_147_483_647), None);
    is(&varchar(40), &text, true, "c widened (varchar(40) → text)");
    is(&text, &varchar(40), false, "c narrowed (text → varchar(40))");
    let citext = column("string", "CITEXT", None, None);
    is(&text, &citext, false, "c other type (text → citext)");
    let numeric = |digits, scale| column("string", "NUMERIC", Some(digits), scale);
    is(
        &numeric(8, Some(2)),
        &numeric(6, Some(2)),
        false,
        "c narrowed (numeric(8,2) → numeric(6,2))",
    );
    // The same unbounded number, in a snapshot and while streaming.
    is(&numeric(0, None), &numeric(131_089, Some(0)), true, "");
    is(&numeric(8, Some(2)), &numeric(0, None), true, "c widened (numeric(8,2) → numeric)");
    let int = |avro, name| column(avro, name, None, None);
    is(&int("int", "INT4"), &int("long", "INT8"), true, "c widened (int4 → int8)");
    is(&int("int", "INT4"), &int("double", "FLOAT8"), false, "c other type (int4 → float8)");
    is(&int("int", "INT"), &int("long", "INT UNSIGNED"), false, "c narrowed (int → int unsigned)");
    is(
        &int("int", "TINYINT UNSIGNED"),
        &int("int", "SMALLINT"),
        true,
        "c widened (tinyint unsigned → smallint)",
    );
    let clock = |scale| column("string", "TIMESTAMPTZ", Some(35), Some(scale));
    is(&clock(6), &clock(3), false, "c narrowed (timestamptz(6) → timestamptz(3))");
    is(
        &int("string", "TEXT"),
        &field(&json!("string")),
        false,
        "c other type (TEXT → a type that is not told)",
    );
    is(&field(&json!("string")), &int("string", "TEXT"), true, "");
    let mut renamed = int("string", "TEXT");
    renamed["type"]["connect.parameters"]["__debezium.source.column.name"] = json!("c-");
    let expected = "c other type (column c of the source → column c-)";
    is(&int("string", "TEXT"), &renamed, false, expected);
}

#[test]
fn what_is_inside_of_a_field_counts() {
    let list = |item: Value| field(&json!({"type": "array", "items": item}));
    is(&list(json!("int")), &list(json!("long")), true, "c[] widened (int → long)");
    is(&list(json!(["null", "int"])), &list(json!("int")), false, "c[] made required");
    let record = |name: &str| {
        field(&json!({"type": "record", "name": "R", "fields": [{"name": name, "type": "int"}]}))
    };
    is(&record("x"), &record("y"), false, "c.x removed; c.y added");
    let symbols =
        |symbols: &[&str]| field(&json!({"type": "enum", "name": "E", "symbols": symbols}));
    is(&symbols(&["A"]), &symbols(&["A", "B"]), true, "c new label (now also B)");
    // A type that holds itself has an end.
    let endless = |ty: &str| {
        field(&json!({"type": "record", "name": "R", "fields": [
            {"name": "next", "type": ["null", "R"]}, {"name": "v", "type": ty},
        ]}))
    };
    let (compatible, told) = between(&[endless("long")], &[endless("int")]);
    assert!(!compatible && told.starts_with("c.next"), "{told}");
}

#[test]
fn a_column_that_the_source_computes_does_not_count() {
    let (a, b) = (
        json!({"name": "a", "type": "int"}),
        json!({"name": "b_", "type": {
            "type": "int", "connect.parameters": {"__debezium.source.column.name": "b"},
        }}),
    );
    let old = schema(1, &envelope(&[a.clone(), b]));
    let new = schema(2, &envelope(&[a]));
    let changes = values(&old, &new, &generated(&["b"]));
    assert!(is_compatible(&changes));
    assert_eq!(told(&changes), "b_ generated (computed by the source)");
    assert!(!is_compatible(&values(&old, &new, &generated(&["a"]))));
    assert!(is_compatible(&values(&new, &old, &generated(&["b"]))));
}

#[test]
fn the_envelope_is_told_and_does_not_count_but_for_its_images() {
    let old = envelope(&[field(&json!("int"))]);
    let mut new = old.clone();
    new["fields"][2]["type"]["fields"][1] = json!({"name": "pos", "type": "string"});
    let changes = values(&schema(1, &old), &schema(2, &new), &BTreeSet::new());
    assert!(is_compatible(&changes));
    assert_eq!(told(&changes), "source.lsn envelope (removed); source.pos envelope (added)");
    let mut blind = old.clone();
    blind["fields"].as_array_mut().unwrap().remove(1);
    let changes = values(&schema(1, &old), &schema(2, &blind), &BTreeSet::new());
    assert_eq!(
        (is_compatible(&changes), told(&changes).as_str()),
        (false, "after removed (of the envelope)",)
    );
    // A transform that takes the envelope away.
    let flat = json!({"type": "record", "name": "Value", "fields": [field(&json!("int"))]});
    let changes = values(&schema(1, &old), &schema(2, &flat), &BTreeSet::new());
    assert_eq!(
        (is_compatible(&changes), told(&changes).as_str()),
        (false, "no change event any more",)
    );
    let changes = values(&schema(1, &flat), &schema(2, &flat), &BTreeSet::new());
    assert_eq!(told(&changes), "");
}

#[test]
fn every_change_of_a_key_is_incompatible() {
    let key =
        |fields: &[Value]| schema(1, &json!({"type": "record", "name": "Key", "fields": fields}));
    let id = |ty: &str| json!({"name": "id", "type": ty});
    for (old, new, expected) in [
        ([id("int")].as_slice(), [id("long")].as_slice(), "id widened (int → long)"),
        (&[id("int")], &[id("int"), field(&json!("int"))], "c added"),
        (&[id("int")], &[id("int")], ""),
    ] {
        let changes = keys(&key(old), &key(new));
        assert!(!is_compatible(&changes));
        let whole = "keys with another schema go to other partitions";
        let expected = format!("{whole}; {expected}");
        assert_eq!(told(&changes), expected.trim_end_matches("; "));
    }
}

fn any_field() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        Just(json!("int")),
        Just(json!("long")),
        Just(json!("string")),
        Just(json!("double")),
        Just(json!({"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2})),
        Just(json!({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3})),
        Just(json!({"type": "array", "items": "int"})),
    ];
    (0..6_u8, types, any::<bool>()).prop_map(|(name, ty, optional)| {
        let ty = if optional { json!(["null", ty]) } else { ty };
        json!({"name": format!("f{name}"), "type": ty})
    })
}

fn any_row() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(any_field(), 1..6).prop_map(|mut fields| {
        let mut names = BTreeSet::new();
        fields.retain(|field| names.insert(field["name"].to_string()));
        fields
    })
}

proptest! {
    /// The way back undoes what the way there did: only a schema with the same fields and types is
    /// compatible both ways.
    #[test]
    fn a_change_and_its_way_back(old in any_row(), new in any_row()) {
        let (there, told) = between(&old, &new);
        let (back, undone) = between(&new, &old);
        prop_assert_eq!(told.is_empty(), undone.is_empty());
        if !told.is_empty() {
            prop_assert!(!(there && back), "{} and {}", told, undone);
        }
        let same = |rows: &[Value]| {
            let mut rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
            rows.sort_unstable();
            rows
        };
        prop_assert_eq!(told.is_empty(), same(&old) == same(&new));
    }

    /// Steps that are compatible lead to what is compatible with the first.
    #[test]
    fn compatible_steps_add_up(rows in prop::collection::vec(any_row(), 3)) {
        let step = |a: usize, b: usize| between(&rows[a], &rows[b]).0;
        if step(0, 1) && step(1, 2) {
            prop_assert!(step(0, 2));
        }
    }
}
