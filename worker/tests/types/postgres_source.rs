//! PostgreSQL as the source. Ids from 12 on are the rows of 1 to 11 again, streamed.

use std::collections::BTreeSet;

use cdc_worker::sink::postgres::replica::types::{EnumHandling, TypeOptions};

use super::recorded::{Mirrored, Recording};

const EXTENSIONS: [&str; 3] = ["hstore", "citext", "ltree"];

/// Columns that are refused in every mode.
const REFUSED: [&str; 5] = ["a_time", "a_timetz", "c_name", "c_varbit", "c_varbit_64"];

/// Columns whose type is another than the source's, in every mode.
const OTHER_TYPES: [(&str, &str); 8] = [
    ("a_mood", "text[]"),
    ("c_colour", "text"),
    ("c_email", "text"),
    ("c_interval_3", "interval"),
    ("c_interval_ym", "interval"),
    ("c_mixed", "text"),
    ("c_mood", "text"),
    ("c_small", "smallint"),
];

/// Values that the connector has changed before, in every mode.
const CHANGED: [(i64, &str, &str); 6] = [
    (2, "c_timetz", "11:05:09.123456+00"),
    (2, "c_timetz_3", "18:35:09.123+00"),
    (5, "c_date", "0044-03-15"),
    (5, "c_timetz", "15:59:00.000001+00"),
    (7, "c_date", "4714-11-24"),
    (8, "c_date", "1582-10-20"),
];

/// What a mode adds to the lists above.
#[derive(Default)]
struct Expected<'e> {
    refused: &'e [&'e str],
    types: &'e [(&'e str, &'e str)],
    changed: &'e [(i64, &'e str, &'e str)],
    rejected: &'e [(i64, &'e str, &'static str)],
}

fn check(recording: &Recording, mirrored: &Mirrored, expected: &Expected<'_>) {
    let refused: BTreeSet<&str> = mirrored
        .types
        .iter()
        .filter(|(_, ty)| ty.is_err())
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(refused, REFUSED.iter().chain(expected.refused).copied().collect());
    for (name, ty) in &mirrored.types {
        let Ok(ty) = ty else { continue };
        let other = expected.types.iter().chain(&OTHER_TYPES).find(|(other, _)| other == name);
        let wanted = other.map_or(recording.types[name].as_str(), |(_, wanted)| wanted);
        assert_eq!(
            ty.sql.replace("\"public\".", "").replace('"', ""),
            wanted.replace('"', ""),
            "{name}"
        );
    }
    let rejected: BTreeSet<_> =
        expected.rejected.iter().map(|(id, name, code)| (*id, (*name).to_owned(), *code)).collect();
    assert_eq!(mirrored.refused, rejected);
    for ((id, name), source) in recording.texts() {
        let Some(mirror) = mirrored.texts.get(&(id, name.clone())) else { continue };
        let is = |(at, column, _): &&(i64, &str, &str)| *at == id && *column == name;
        if expected.rejected.iter().any(|(at, column, _)| *at == id && *column == name) {
            continue;
        }
        let changed = expected.changed.iter().chain(&CHANGED).find(is);
        let wanted = changed.map(|(.., text)| (*text).to_owned()).or(source);
        assert_eq!(*mirror, wanted, "{name} of row {id}");
    }
}

#[tokio::test]
async fn every_value_arrives_with_the_modes_that_deploy_sets() {
    let recording = Recording::read(include_str!("recorded/postgres-deploy.json"));
    let mirrored = recording.mirror(&recording.options(), &EXTENSIONS).await;
    let expected = Expected {
        types: &[("c_price", "numeric(12,2)"), ("c_stamp", "timestamp without time zone")],
        changed: &[
            (13, "c_timetz", "11:05:09.123456+00"),
            (13, "c_timetz_3", "18:35:09.123+00"),
            (16, "c_timetz", "15:59:00.000001+00"),
        ],
        // The connector's number for it is beyond its own range.
        rejected: &[(11, "c_ts", "out_of_range"), (22, "c_ts", "out_of_range")],
        ..Expected::default()
    };
    check(&recording, &mirrored, &expected);
    assert!(recording.texts().len() > 2000);
}

#[tokio::test]
async fn without_the_extensions_the_nearest_types_hold_the_values() {
    let recording = Recording::read(include_str!("recorded/postgres-deploy.json"));
    let mirrored = recording.mirror(&recording.options(), &[]).await;
    for (name, wanted) in
        [("c_hstore", "jsonb"), ("a_hstore", "jsonb[]"), ("c_citext", "text"), ("c_ltree", "text")]
    {
        assert_eq!(mirrored.types[name].as_ref().unwrap().sql, wanted);
    }
    let text = |id: i64, name: &str| mirrored.texts[&(id, name.to_owned())].clone().unwrap();
    for id in [2, 13] {
        let json = r#"{"a": "1", "b c": null, "q\"uote": "back\\slash"}"#;
        assert_eq!(text(id, "c_hstore"), json);
        assert_eq!(text(id, "a_hstore"), r#"{"{\"a\": \"1\"}",NULL}"#);
        assert_eq!(text(id, "c_citext"), "CiText");
    }
}

#[tokio::test]
async fn enums_can_be_made_in_the_target() {
    let recording = Recording::read(include_str!("recorded/postgres-deploy.json"));
    let enums = EnumHandling::Create { schema: "public".into(), table: "t".into() };
    let options = TypeOptions { enums, ..recording.options() };
    let mirrored = recording.mirror(&options, &EXTENSIONS).await;
    let source = recording.texts();
    for name in ["c_mood", "c_mixed", "c_colour", "a_mood"] {
        assert_eq!(mirrored.types[name].as_ref().unwrap().enum_type().unwrap().schema, "public");
        for id in [2, 13] {
            let key = (id, name.to_owned());
            assert_eq!(mirrored.texts[&key], source[&key]);
        }
    }
    assert_eq!(mirrored.types["a_mood"].as_ref().unwrap().sql, "\"public\".\"mood\"[]");
}

#[tokio::test]
async fn precise_decimals_adaptive_times_maps_and_base64_arrive() {
    let recording = Recording::read(include_str!("recorded/postgres-precise-adaptive.json"));
    let mirrored = recording.mirror(&recording.options(), &EXTENSIONS).await;
    let expected = Expected {
        types: &[("c_price", "numeric(12,2)"), ("c_stamp", "timestamp(3) without time zone")],
        // Zeros behind the point are lost where the column has no scale.
        changed: &[(2, "a_numeric", "{1.5,NULL,-0.001}"), (10, "c_numeric", "0")],
        rejected: &[(11, "c_ts", "out_of_range")],
        ..Expected::default()
    };
    check(&recording, &mirrored, &expected);
}

#[tokio::test]
async fn what_doubles_and_numeric_intervals_have_lost_is_refused_and_texts_arrive() {
    let recording = Recording::read(include_str!("recorded/postgres-double-isostring.json"));
    let mirrored = recording.mirror(&recording.options(), &EXTENSIONS).await;
    let expected = Expected {
        refused: &[
            "a_numeric",
            "c_interval",
            "c_interval_3",
            "c_interval_ym",
            "c_money",
            "c_numeric",
            "c_numeric_1000",
        ],
        types: &[("c_price", "numeric(12,2)"), ("c_stamp", "timestamp without time zone")],
        changed: &[(3, "c_time", "00:00:00")],
        ..Expected::default()
    };
    check(&recording, &mirrored, &expected);
}

#[tokio::test]
async fn times_that_connect_has_cut_are_refused() {
    let recording = Recording::read(include_str!("recorded/postgres-string-connect.json"));
    let mirrored = recording.mirror(&recording.options(), &EXTENSIONS).await;
    let expected = Expected {
        refused: &["a_ts", "c_time", "c_ts"],
        types: &[("c_price", "numeric(12,2)"), ("c_stamp", "timestamp(3) without time zone")],
        ..Expected::default()
    };
    check(&recording, &mirrored, &expected);
}

#[tokio::test]
async fn nanoseconds_arrive() {
    let recording = Recording::read(include_str!("recorded/postgres-nanoseconds.json"));
    let mirrored = recording.mirror(&recording.options(), &EXTENSIONS).await;
    let expected = Expected {
        types: &[("c_price", "numeric(12,2)"), ("c_stamp", "timestamp without time zone")],
        changed: &[(2, "a_numeric", "{1.5,NULL,-0.001}")],
        ..Expected::default()
    };
    check(&recording, &mirrored, &expected);
}
