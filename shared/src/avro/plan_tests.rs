//! What a compiled plan says about a schema.

use super::*;

const ENVELOPE: &str = include_str!("../../benches/envelope.avsc");

fn none() -> [(&'static str, &'static str); 0] {
    []
}

fn plan(schema: &str) -> Plan {
    Plan::compile(1, schema, &none()).unwrap()
}

fn column<'p>(plan: &'p Plan, columns: &'p [Column], name: &str) -> (&'p Column, &'p Type) {
    let column = columns.iter().find(|column| column.name == name).unwrap();
    (column, plan.ty(column.node))
}

#[test]
fn a_debezium_envelope_keeps_names_meanings_and_source_types() {
    let plan = plan(ENVELOPE);
    assert_eq!(plan.name(), Some("shop.public.orders.Envelope"));
    let root = plan.columns(plan.root());
    let (before, after) = (&root[0], &root[1]);
    assert_eq!(before.node, after.node, "`after` refers to the type that `before` defines");
    assert!(before.nullable && after.nullable);

    let rows = plan.columns(after.node);
    assert_eq!(rows.len(), 12);
    let (amount, ty) = column(&plan, rows, "amount");
    assert_eq!(ty.semantic, Semantic::Decimal { scale: 2, precision: Some(12) });
    assert_eq!(
        amount.source,
        SourceType {
            type_name: Some("NUMERIC".into()),
            length: Some(12),
            scale: Some(2),
            column_name: Some("amount".into()),
        }
    );
    assert!(amount.nullable);
    let (status, ty) = column(&plan, rows, "status");
    assert!(status.nullable, "a default puts the type first and null second");
    assert_eq!(ty.semantic, Semantic::Enum);
    assert_eq!(ty.parameters["allowed"], "new,paid,shipped");
    assert_eq!(ty.connect_default, Some("new".into()));
    let (id, ty) = column(&plan, rows, "id");
    assert!(!id.nullable);
    assert_eq!((ty.semantic, id.default.clone()), (Semantic::Plain, Some(0.into())));
    assert_eq!(column(&plan, rows, "quantity").1.connect_type.as_deref(), Some("int16"));
    assert_eq!(column(&plan, rows, "created_at").1.semantic, Semantic::MicroTimestamp);
    assert_eq!(column(&plan, rows, "due").1.semantic, Semantic::Date);
    assert_eq!(column(&plan, rows, "extra").0.toast, ToastShape::Text);
    assert_eq!(column(&plan, rows, "updated_at").0.toast, ToastShape::Never);
    assert_eq!(column(&plan, rows, "status").0.toast, ToastShape::Never);
}

/// The reason for reading the JSON ourselves; if this fails, apache-avro has learnt it.
#[test]
fn apache_avro_still_drops_the_attributes_of_primitives() {
    let json = r#"{"type":"int","connect.name":"io.debezium.time.Date"}"#;
    let parsed = apache_avro::Schema::parse_str(json).unwrap();
    assert!(parsed.custom_attributes().is_none());
    assert_eq!(plan(json).ty(plan(json).root()).semantic, Semantic::Date);
}

#[test]
fn every_semantic_name_is_known() {
    let names = [
        ("int", "io.debezium.time.Date", Semantic::Date),
        ("int", "io.debezium.time.Time", Semantic::Time),
        ("long", "io.debezium.time.MicroTime", Semantic::MicroTime),
        ("long", "io.debezium.time.NanoTime", Semantic::NanoTime),
        ("long", "io.debezium.time.Timestamp", Semantic::Timestamp),
        ("long", "io.debezium.time.MicroTimestamp", Semantic::MicroTimestamp),
        ("long", "io.debezium.time.NanoTimestamp", Semantic::NanoTimestamp),
        ("string", "io.debezium.time.ZonedTime", Semantic::ZonedTime),
        ("string", "io.debezium.time.ZonedTimestamp", Semantic::ZonedTimestamp),
        ("long", "io.debezium.time.MicroDuration", Semantic::MicroDuration),
        ("long", "io.debezium.time.NanoDuration", Semantic::NanoDuration),
        ("string", "io.debezium.time.Interval", Semantic::Interval),
        ("int", "io.debezium.time.Year", Semantic::Year),
        ("string", "io.debezium.time.IsoDate", Semantic::IsoDate),
        ("string", "io.debezium.time.IsoTime", Semantic::IsoTime),
        ("string", "io.debezium.time.IsoTimestamp", Semantic::IsoTimestamp),
        ("int", "org.apache.kafka.connect.data.Date", Semantic::Date),
        ("int", "org.apache.kafka.connect.data.Time", Semantic::Time),
        ("long", "org.apache.kafka.connect.data.Timestamp", Semantic::Timestamp),
        ("bytes", "io.debezium.data.Bits", Semantic::Bits { length: None }),
        ("string", "io.debezium.data.Json", Semantic::Json),
        ("string", "io.debezium.data.Xml", Semantic::Xml),
        ("string", "io.debezium.data.Uuid", Semantic::Uuid),
        ("string", "io.debezium.data.Ltree", Semantic::Ltree),
        ("string", "io.debezium.data.Enum", Semantic::Enum),
        ("string", "io.debezium.data.EnumSet", Semantic::EnumSet),
        ("string", "io.debezium.data.Tsvector", Semantic::Tsvector),
        ("string", "com.example.Other", Semantic::Plain),
        // A name on a type that cannot hold it means nothing.
        ("string", "io.debezium.time.Date", Semantic::Plain),
        ("int", "io.debezium.time.MicroTime", Semantic::Plain),
    ];
    for (avro, name, semantic) in names {
        let json = format!(r#"["null",{{"type":"{avro}","connect.name":"{name}"}}]"#);
        let plan = plan(&json);
        let Kind::Optional { inner, .. } = plan.kind(plan.root()) else { panic!("{json}") };
        assert_eq!(plan.ty(inner).semantic, semantic, "{json}");
        assert_eq!(plan.ty(inner).connect_name.as_deref(), Some(name));
    }
}

#[test]
fn semantic_names_of_arrays_and_records_are_known() {
    let vectors = [
        ("double", "DoubleVector", Semantic::DoubleVector),
        ("float", "FloatVector", Semantic::FloatVector),
    ];
    for (item, name, semantic) in vectors {
        let plan = plan(&format!(
            r#"{{"type":"array","items":"{item}","connect.name":"io.debezium.data.{name}"}}"#
        ));
        assert_eq!(plan.ty(plan.root()).semantic, semantic);
    }
    let records = [
        ("io.debezium.data.SparseDoubleVector", Semantic::SparseVector),
        ("io.debezium.data.SparseVector", Semantic::SparseVector),
        ("io.debezium.data.geometry.Point", Semantic::Point),
        ("io.debezium.data.geometry.Geometry", Semantic::Geometry),
        ("io.debezium.data.geometry.Geography", Semantic::Geography),
        ("io.debezium.data.VariableScaleDecimal", Semantic::VariableScaleDecimal),
    ];
    for (name, semantic) in records {
        let plan = plan(&format!(
            r#"{{"type":"record","name":"{name}","fields":[
                {{"name":"scale","type":"int"}},{{"name":"value","type":"bytes"}}]}}"#
        ));
        assert_eq!(plan.ty(plan.root()).semantic, semantic, "by the record's own name");
    }
}

#[test]
fn logical_types_count_where_no_connect_name_does() {
    let logical = [
        ("int", "date", Semantic::Date),
        ("int", "time-millis", Semantic::Time),
        ("long", "time-micros", Semantic::MicroTime),
        ("long", "timestamp-millis", Semantic::InstantMillis),
        ("long", "timestamp-micros", Semantic::InstantMicros),
        ("long", "timestamp-nanos", Semantic::InstantNanos),
        ("long", "local-timestamp-millis", Semantic::Timestamp),
        ("long", "local-timestamp-micros", Semantic::MicroTimestamp),
        ("long", "local-timestamp-nanos", Semantic::NanoTimestamp),
        ("string", "uuid", Semantic::Uuid),
    ];
    for (avro, name, semantic) in logical {
        let plan = plan(&format!(r#"{{"type":"{avro}","logicalType":"{name}"}}"#));
        assert_eq!(plan.ty(plan.root()).semantic, semantic, "{name}");
    }
    let both = plan(
        r#"{"type":"long","logicalType":"timestamp-millis",
            "connect.name":"org.apache.kafka.connect.data.Timestamp"}"#,
    );
    assert_eq!(both.ty(both.root()).semantic, Semantic::Timestamp);
    let decimal = plan(r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}"#);
    let expected = Semantic::Decimal { scale: 3, precision: Some(9) };
    assert_eq!(decimal.ty(decimal.root()).semantic, expected);
    let without_logical = plan(
        r#"{"type":"bytes","connect.name":"org.apache.kafka.connect.data.Decimal",
            "connect.parameters":{"scale":"4"}}"#,
    );
    let expected = Semantic::Decimal { scale: 4, precision: None };
    assert_eq!(without_logical.ty(without_logical.root()).semantic, expected);
}

/// Seen from converters: a precision below the scale, a negative scale, none at all.
#[test]
fn odd_decimals_are_no_obstacle() {
    for (attributes, scale, precision) in [
        (r#""precision":2,"scale":5"#, 5, Some(2)),
        (r#""precision":9,"scale":-3"#, -3, Some(9)),
        (r#""precision":9"#, 0, Some(9)),
        (r#""scale":3"#, 3, None),
    ] {
        let plan =
            plan(&format!(r#"["null",{{"type":"bytes","logicalType":"decimal",{attributes}}}]"#));
        let Kind::Optional { inner, .. } = plan.kind(plan.root()) else { panic!("{attributes}") };
        let expected = Semantic::Decimal { scale, precision };
        assert_eq!(plan.ty(inner).semantic, expected, "{attributes}");
    }
}

#[test]
fn a_reused_type_does_not_lend_its_first_columns_parameters() {
    let point = r#"{"type":"record","name":"Point","namespace":"io.debezium.data.geometry",
        "connect.parameters":{"__debezium.source.column.name":"a"},
        "fields":[{"name":"x","type":"double"}]}"#;
    let plan = plan(&format!(
        r#"{{"type":"record","name":"Value","fields":[{{"name":"a","type":["null",{point}]}},
            {{"name":"b","type":["null","io.debezium.data.geometry.Point"]}}]}}"#
    ));
    let columns = plan.columns(plan.root());
    assert_eq!(columns[0].source.column_name.as_deref(), Some("a"));
    assert_eq!(columns[1].source, SourceType::default());
    assert_eq!(plan.ty(columns[1].node).semantic, Semantic::Point);
}

#[test]
fn references_are_resolved_in_any_order() {
    let main = r#"{"type":"record","name":"Envelope","namespace":"a.b","fields":[
        {"name":"before","type":["null","a.b.Value"]},{"name":"source","type":"c.Source"}]}"#;
    let value = r#"{"type":"record","name":"Value","namespace":"a.b","fields":[
        {"name":"block","type":"c.Block"}]}"#;
    let source = r#"{"type":"record","name":"Source","namespace":"c","fields":[
        {"name":"block","type":"Block"}]}"#;
    let block = r#"{"type":"record","name":"Block","namespace":"c","fields":[]}"#;
    let references = [("v", value), ("s", source), ("b", block), ("again", block)];
    let plan = Plan::compile(7, main, &references).unwrap();
    let root = plan.columns(plan.root());
    assert_eq!(plan.columns(root[0].node)[0].node, plan.columns(root[1].node)[0].node);

    let error = Plan::compile(7, main, &references[..2]).unwrap_err();
    assert!(error.to_string().contains("schema 7"), "{error}");
}

#[test]
fn a_default_that_only_another_library_reads_is_no_obstacle() {
    plan(
        r#"{"type":"record","name":"R","fields":[
            {"name":"a","type":["null","int"],"default":5},
            {"name":"b","type":"bytes","default":17}]}"#,
    );
}

#[test]
fn what_is_no_schema_is_said_with_its_id() {
    for bad in [
        "",
        "{",
        "17",
        "{}",
        r#"{"type":"record","name":"R"}"#,
        r#""nothing""#,
        r#"{"type":"fixed","name":"F"}"#,
        r#"{"type":"array"}"#,
        r#"["int","int"]"#,
    ] {
        let error = Plan::compile(42, bad, &none()).unwrap_err();
        assert!(error.to_string().contains("schema 42"), "{bad}: {error}");
    }
    let error = Plan::compile(42, r#""int""#, &[("shop.Value", "{")]).unwrap_err();
    assert!(error.to_string().contains("`shop.Value`"), "{error}");
}

#[test]
fn recursive_types_compile() {
    let plan = plan(
        r#"{"type":"record","name":"Tree","fields":[{"name":"left","type":["null","Tree"]},
            {"name":"all","type":{"type":"array","items":"Tree"}}]}"#,
    );
    let columns = plan.columns(plan.root());
    assert_eq!(columns[0].node, plan.root());
    assert!(columns[0].nullable);
}
