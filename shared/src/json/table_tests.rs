//! Every row of `docs/json-types.md`.

use apache_avro::types::Value as Avro;

use super::*;
use crate::avro::oracle::encode;
use crate::avro::{CellBuf, Plan};

const AS_SENT: JsonOptions =
    JsonOptions { int64: Int64::Number, temporal: Temporal::AsSent, unavailable_placeholder: None };
const ISO: JsonOptions = JsonOptions { temporal: Temporal::Iso8601, ..AS_SENT };
const STRINGS: JsonOptions = JsonOptions { int64: Int64::String, ..AS_SENT };

fn json_by(options: &JsonOptions, schema: &str, value: Avro) -> String {
    let datum = encode(schema, value);
    let plan = Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap();
    let mut cells = CellBuf::new();
    let root = plan.decode(&datum, &mut cells).unwrap();
    let mut out = Vec::new();
    write_value(plan.view(root, &cells), options, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    text
}

fn json(schema: &str, value: impl Into<Avro>) -> String {
    json_by(&AS_SENT, schema, value.into())
}

fn named(avro: &str, name: &str) -> String {
    format!(r#"{{"type":"{avro}","connect.name":"{name}"}}"#)
}

fn record(fields: &[(&str, Avro)]) -> Avro {
    Avro::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

#[test]
fn avro_types() {
    assert_eq!(json(r#""null""#, Avro::Null), "null");
    assert_eq!(json(r#""boolean""#, true), "true");
    assert_eq!(json(r#""boolean""#, false), "false");
    assert_eq!(json(r#""int""#, -7), "-7");
    assert_eq!(json(r#"{"type":"int","connect.type":"int16"}"#, -7), "-7");
    assert_eq!(json(r#""long""#, 9_007_199_254_740_993_i64), "9007199254740993");
    assert_eq!(json(r#""long""#, i64::MIN), "-9223372036854775808");
    let as_string = json_by(&STRINGS, r#""long""#, Avro::Long(9_007_199_254_740_993));
    assert_eq!(as_string, r#""9007199254740993""#);
    assert_eq!(json_by(&STRINGS, r#""int""#, Avro::Int(5)), "5");
    assert_eq!(json(r#""float""#, 0.1_f32), "0.1");
    assert_eq!(json(r#""double""#, 0.1_f64), "0.1");
    for (number, text) in
        [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity")]
    {
        assert_eq!(json(r#""double""#, number), format!("\"{text}\""));
        assert_eq!(json(r#""float""#, number as f32), format!("\"{text}\""));
    }
    assert_eq!(json(r#""string""#, "a \"b\""), r#""a \"b\"""#);
    assert_eq!(json(r#""bytes""#, Avro::Bytes(vec![0, 1, 2])), r#""AAEC""#);
    let fixed = r#"{"type":"fixed","name":"F","size":3}"#;
    assert_eq!(json(fixed, Avro::Fixed(3, vec![0xff; 3])), r#""////""#);
    let colour = r#"{"type":"enum","name":"C","symbols":["RED","BLUE"]}"#;
    assert_eq!(json(colour, Avro::Enum(0, "RED".into())), r#""RED""#);
    let optional = |value| Avro::Union(0, Box::new(value));
    let list = r#"{"type":"array","items":["int","null"]}"#;
    let items = vec![optional(Avro::Int(1)), Avro::Union(1, Box::new(Avro::Null))];
    assert_eq!(json(list, Avro::Array(items)), "[1,null]");
    let map = Avro::Map([("a".to_owned(), Avro::Int(1))].into());
    assert_eq!(json(r#"{"type":"map","values":"int"}"#, map), r#"{"a":1}"#);
    let point = r#"{"type":"record","name":"P","fields":[{"name":"x","type":"int"}]}"#;
    assert_eq!(json(point, record(&[("x", Avro::Int(1))])), r#"{"x":1}"#);
    let union = r#"["int","string","null"]"#;
    let branch = Avro::Union(1, Box::new(Avro::String("text".into())));
    assert_eq!(json(union, branch), r#""text""#);
}

#[test]
fn decimals() {
    let connect = r#"{"type":"bytes","scale":2,"precision":64,"logicalType":"decimal",
        "connect.name":"org.apache.kafka.connect.data.Decimal"}"#;
    let value = Avro::Decimal(vec![0x02, 0x26].into());
    assert_eq!(json(connect, value.clone()), r#""5.50""#);
    assert_eq!(json_by(&ISO, connect, value), r#""5.50""#);
    let fixed =
        r#"{"type":"fixed","name":"D","size":2,"logicalType":"decimal","precision":4,"scale":1}"#;
    assert_eq!(json(fixed, Avro::Decimal(vec![0xff, 0xfe].into())), r#""-0.2""#);
    let variable = r#"{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data",
        "fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}"#;
    let value = record(&[("scale", Avro::Int(3)), ("value", Avro::Bytes(vec![0xff]))]);
    assert_eq!(json(variable, value), r#""-0.001""#);
    for text in ["NAN", "POSITIVE_INFINITY", "1.50"] {
        assert_eq!(json(r#""string""#, text), format!("\"{text}\""));
    }
}

#[test]
fn a_decimal_beyond_any_source_is_an_error_and_leaves_nothing_behind() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":
        {"type":"bytes","logicalType":"decimal","precision":9,"scale":0}}]}"#;
    let plan = Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap();
    let mut datum = vec![0x82, 0x80, 0x08];
    datum.resize(3 + 65_537, 1);
    let mut cells = CellBuf::new();
    let root = plan.decode(&datum, &mut cells).unwrap();
    let mut out = b"before".to_vec();
    assert!(write_value(plan.view(root, &cells), &AS_SENT, &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn temporal_numbers() {
    let debezium = |name: &str| format!("io.debezium.time.{name}");
    let connect = |name: &str| format!("org.apache.kafka.connect.data.{name}");
    let (millis, micros, nanos) = (47_109_500, 47_109_500_000, 47_109_500_000_000);
    let (days, day) = (19_782, 19_782 * 86_400_000_i64);
    let stamp = "2024-02-29T13:05:09.5";
    let rows = [
        ("int", debezium("Date"), days, "2024-02-29"),
        ("int", connect("Date"), days, "2024-02-29"),
        ("int", debezium("Time"), millis, "13:05:09.5"),
        ("int", connect("Time"), millis, "13:05:09.5"),
        ("long", debezium("MicroTime"), micros, "13:05:09.5"),
        ("long", debezium("NanoTime"), nanos, "13:05:09.5"),
        ("long", debezium("Timestamp"), day + millis, stamp),
        ("long", connect("Timestamp"), day + millis, stamp),
        ("long", debezium("MicroTimestamp"), day * 1_000 + micros, stamp),
        ("long", debezium("NanoTimestamp"), day * 1_000_000 + nanos, stamp),
        ("long", debezium("MicroDuration"), 3_723_500_000, "PT1H2M3.5S"),
        ("long", debezium("NanoDuration"), 3_723_500_000_000, "PT1H2M3.5S"),
        ("int", debezium("Year"), 2024, "2024"),
    ];
    for (avro, name, number, iso) in rows {
        let schema = named(avro, &name);
        let value = if avro == "int" { Avro::Int(number as i32) } else { Avro::Long(number) };
        assert_eq!(json(&schema, value.clone()), number.to_string(), "{name}");
        assert_eq!(json_by(&ISO, &schema, value.clone()), format!("\"{iso}\""), "{name}");
        let quote = if avro == "long" { "\"" } else { "" };
        assert_eq!(json_by(&STRINGS, &schema, value), format!("{quote}{number}{quote}"), "{name}");
    }
    let plain = json_by(&ISO, r#""long""#, Avro::Long(5));
    assert_eq!(plain, "5", "ts_ms has no name and stays a number");
}

#[test]
fn avro_logical_times() {
    let logical = |avro: &str, name: &str| format!(r#"{{"type":"{avro}","logicalType":"{name}"}}"#);
    let day = 19_782 * 86_400_000_i64 + 47_109_500;
    let rows = [
        (logical("int", "date"), Avro::Date(19_782), "2024-02-29"),
        (logical("int", "time-millis"), Avro::TimeMillis(47_109_500), "13:05:09.5"),
        (logical("long", "time-micros"), Avro::TimeMicros(47_109_500_000), "13:05:09.5"),
        (logical("long", "timestamp-millis"), Avro::TimestampMillis(day), "2024-02-29T13:05:09.5Z"),
        (
            logical("long", "timestamp-micros"),
            Avro::TimestampMicros(day * 1_000),
            "2024-02-29T13:05:09.5Z",
        ),
        (
            logical("long", "timestamp-nanos"),
            Avro::TimestampNanos(day * 1_000_000),
            "2024-02-29T13:05:09.5Z",
        ),
        (
            logical("long", "local-timestamp-millis"),
            Avro::LocalTimestampMillis(day),
            "2024-02-29T13:05:09.5",
        ),
        (
            logical("long", "local-timestamp-micros"),
            Avro::LocalTimestampMicros(day * 1_000),
            "2024-02-29T13:05:09.5",
        ),
        (
            logical("long", "local-timestamp-nanos"),
            Avro::LocalTimestampNanos(day * 1_000_000),
            "2024-02-29T13:05:09.5",
        ),
    ];
    for (schema, value, iso) in rows {
        assert_eq!(json_by(&ISO, &schema, value), format!("\"{iso}\""), "{schema}");
    }
}

#[test]
fn infinity_in_iso() {
    let rows = [
        ("int", "Date", -2_147_472_692, "infinity"),
        ("int", "Date", -2_147_472_691, "-infinity"),
        ("long", "MicroTimestamp", 9_223_372_036_825_200_000, "infinity"),
        ("long", "MicroTimestamp", -9_223_372_036_832_400_000, "-infinity"),
        ("long", "NanoTimestamp", i64::MAX, "infinity"),
    ];
    for (avro, name, number, iso) in rows {
        let schema = named(avro, &format!("io.debezium.time.{name}"));
        let value = if avro == "int" { Avro::Int(number as i32) } else { Avro::Long(number) };
        assert_eq!(json_by(&ISO, &schema, value.clone()), format!("\"{iso}\""));
        assert_eq!(json(&schema, value), number.to_string());
    }
}

#[test]
fn text_is_passed_on() {
    let rows = [
        ("time.ZonedTime", "13:05:09.5Z"),
        ("time.ZonedTimestamp", "2024-02-29T13:05:09.5Z"),
        ("time.IsoDate", "2017-09-15Z"),
        ("time.IsoTime", "13:05:09Z"),
        ("time.IsoTimestamp", "2017-09-15T13:05:09Z"),
        ("time.Interval", "P0Y1M2DT0H0M0S"),
        ("data.Xml", "<a/>"),
        ("data.Ltree", "a.b.c"),
        ("data.Tsvector", "'a':1"),
        ("data.Uuid", "6f1e2a3c-0001-4002-8003-000000000004"),
        ("data.Enum", "new"),
        ("data.EnumSet", "a,b"),
        ("data.Unknown", "x"),
    ];
    for (name, text) in rows {
        let schema = named("string", &format!("io.debezium.{name}"));
        for options in [&AS_SENT, &ISO, &STRINGS] {
            let written = json_by(options, &schema, Avro::String(text.into()));
            assert_eq!(written, format!("\"{text}\""), "{name}");
        }
    }
    let schema = named("string", "io.debezium.data.Json");
    assert_eq!(json(&schema, r#"{"b":1.0,"a":2}"#), r#""{\"b\":1.0,\"a\":2}""#);
    let bits = named("bytes", "io.debezium.data.Bits");
    assert_eq!(json(&bits, Avro::Bytes(vec![0x05, 0x01])), r#""BQE=""#);
}

#[test]
fn uuid_as_fixed() {
    let schema = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;
    let plan = Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap();
    let datum: Vec<u8> = (0..16).collect();
    let mut cells = CellBuf::new();
    let root = plan.decode(&datum, &mut cells).unwrap();
    let mut out = Vec::new();
    write_value(plan.view(root, &cells), &AS_SENT, &mut out).unwrap();
    assert_eq!(out, br#""00010203-0405-0607-0809-0a0b0c0d0e0f""#);
}

#[test]
fn vectors_geometry_and_maps() {
    for (avro, name) in [("double", "DoubleVector"), ("float", "FloatVector")] {
        let schema = format!(
            r#"{{"type":"array","items":"{avro}","connect.name":"io.debezium.data.{name}"}}"#
        );
        let item = if avro == "double" { Avro::Double(0.5) } else { Avro::Float(0.5) };
        assert_eq!(json(&schema, Avro::Array(vec![item])), "[0.5]");
    }
    let entry = r#"{"type":"record","name":"MapEntry","namespace":"io.confluent.connect.avro",
        "fields":[{"name":"key","type":"int"},{"name":"value","type":"double"}]}"#;
    let entries = Avro::Array(vec![record(&[("key", Avro::Int(3)), ("value", Avro::Double(0.5))])]);
    let array = format!(r#"{{"type":"array","items":{entry}}}"#);
    assert_eq!(json(&array, entries.clone()), r#"[{"key":3,"value":0.5}]"#);
    for name in ["SparseDoubleVector", "SparseVector"] {
        let sparse = format!(
            r#"{{"type":"record","name":"{name}","namespace":"io.debezium.data","fields":[
                {{"name":"dimensions","type":"int"}},{{"name":"vector","type":{array}}}]}}"#
        );
        let value = record(&[("dimensions", Avro::Int(9)), ("vector", entries.clone())]);
        assert_eq!(json(&sparse, value), r#"{"dimensions":9,"vector":[{"key":3,"value":0.5}]}"#);
    }
    for name in ["Point", "Geometry", "Geography"] {
        let schema = format!(
            r#"{{"type":"record","name":"{name}","namespace":"io.debezium.data.geometry","fields":[
                {{"name":"wkb","type":"bytes"}},{{"name":"srid","type":["null","int"]}}]}}"#
        );
        let srid = Avro::Union(1, Box::new(Avro::Int(4326)));
        let value = record(&[("wkb", Avro::Bytes(vec![1])), ("srid", srid)]);
        assert_eq!(json(&schema, value), r#"{"wkb":"AQ==","srid":4326}"#);
    }
    let hstore = r#"{"type":"map","values":["null","string"]}"#;
    let value = Avro::Map([("k".to_owned(), Avro::Union(0, Box::new(Avro::Null)))].into());
    assert_eq!(json(hstore, value), r#"{"k":null}"#);
}

/// A name that is in the table and not here, or the other way round, is a gap.
#[test]
fn the_table_names_every_semantic_type() {
    let table = include_str!("../../../docs/json-types.md");
    for name in [
        "Decimal",
        "VariableScaleDecimal",
        "Date",
        "Time",
        "MicroTime",
        "NanoTime",
        "Timestamp",
        "MicroTimestamp",
        "NanoTimestamp",
        "ZonedTime",
        "ZonedTimestamp",
        "IsoDate",
        "IsoTime",
        "IsoTimestamp",
        "MicroDuration",
        "NanoDuration",
        "Interval",
        "Year",
        "Bits",
        "Json",
        "Xml",
        "Ltree",
        "Tsvector",
        "Uuid",
        "Enum",
        "EnumSet",
        "DoubleVector",
        "FloatVector",
        "SparseDoubleVector",
        "Point",
        "Geometry",
        "Geography",
        "MapEntry",
    ] {
        let named = table.contains(&format!(".{name}`")) || table.contains(&format!("`{name}`"));
        assert!(named, "{name}");
    }
}
