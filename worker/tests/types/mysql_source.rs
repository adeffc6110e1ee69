//! MySQL and MariaDB as the source.

use super::recorded::{Mirrored, Recording};

/// Type of each column.
const TYPES: [(&str, &str); 60] = [
    ("id", "integer"),
    ("c_bool", "smallint"),
    ("c_tiny", "smallint"),
    ("c_tiny1", "smallint"),
    ("c_tinyu", "smallint"),
    ("c_small", "smallint"),
    ("c_smallu", "integer"),
    ("c_med", "integer"),
    ("c_medu", "integer"),
    ("c_int", "integer"),
    ("c_intu", "bigint"),
    ("c_intz", "bigint"),
    ("c_big", "bigint"),
    ("c_bigu", "numeric(20,0)"),
    ("c_dec", "numeric(12,2)"),
    ("c_dec65", "numeric(65,30)"),
    ("c_decu", "numeric(10,2)"),
    ("c_dec0", "numeric(10,0)"),
    ("c_numeric", "numeric(8,3)"),
    ("c_float", "real"),
    ("c_floatmd", "real"),
    ("c_float53", "double precision"),
    ("c_double", "double precision"),
    ("c_real", "double precision"),
    ("c_doublemd", "double precision"),
    ("c_char", "character varying(5)"),
    ("c_varchar", "character varying(40)"),
    ("c_tinytext", "text"),
    ("c_text", "text"),
    ("c_mediumtext", "text"),
    ("c_longtext", "text"),
    ("c_latin", "character varying(20)"),
    ("c_charbin", "character varying(10)"),
    ("c_binary", "bytea"),
    ("c_varbinary", "bytea"),
    ("c_tinyblob", "bytea"),
    ("c_blob", "bytea"),
    ("c_mediumblob", "bytea"),
    ("c_longblob", "bytea"),
    ("c_bit1", "boolean"),
    ("c_bit5", "bit(5)"),
    ("c_bit64", "bit(64)"),
    ("c_date", "date"),
    ("c_time", "interval"),
    ("c_time3", "interval"),
    ("c_time6", "interval"),
    ("c_datetime", "timestamp(0) without time zone"),
    ("c_datetime3", "timestamp(3) without time zone"),
    ("c_datetime6", "timestamp without time zone"),
    ("c_timestamp", "timestamp(0) with time zone"),
    ("c_timestamp3", "timestamp(3) with time zone"),
    ("c_timestamp6", "timestamp with time zone"),
    ("c_year", "integer"),
    ("c_enum", "text"),
    ("c_set", "text"),
    ("c_json", "jsonb"),
    ("c_point", "bytea"),
    ("c_geometry", "bytea"),
    ("c_linestring", "bytea"),
    ("c_polygon", "bytea"),
];

/// MySQL's text of a value as PostgreSQL would write it.
fn as_postgres(name: &str, text: &str) -> String {
    match name {
        "c_bit1" => (text == "1").to_string(),
        "c_intz" => text.trim_start_matches('0').to_owned(),
        "c_float" | "c_float53" | "c_double" if !text.contains("e-") => text.replace('e', "e+"),
        "c_time" | "c_time3" | "c_time6" | "c_datetime3" | "c_datetime6" if text.contains('.') => {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ if name.starts_with("c_timestamp") => format!("{text}+00"),
        // The SRID and the bytes.
        "c_point" | "c_linestring" | "c_polygon" => text.replace("0 ", "\\x"),
        _ => text.to_owned(),
    }
}

/// Every value of the mirror is the source's, but those that the connector has changed.
fn check(recording: &Recording, mirrored: &Mirrored, changed: &[(i64, &str, &str)]) {
    assert_eq!(mirrored.types.len(), TYPES.len());
    for (name, wanted) in TYPES {
        if let Ok(ty) = &mirrored.types[name] {
            assert!(
                ty.sql == wanted || (name == "c_json" && ty.sql == "text"),
                "{name} {}",
                ty.sql
            );
        }
    }
    assert!(mirrored.refused.is_empty(), "{:?}", mirrored.refused);
    for ((id, name), source) in recording.texts() {
        let Some(mirror) = mirrored.texts.get(&(id, name.clone())) else { continue };
        let is = |(at, column, _): &&(i64, &str, &str)| *at == id && *column == name;
        let changed = changed.iter().find(is).map(|(.., text)| (*text).to_owned());
        let wanted = changed.or(source.map(|text| as_postgres(&name, &text)));
        if name == "c_json" {
            let parse = |text: &Option<String>| {
                text.as_ref().map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap())
            };
            assert_eq!(parse(mirror), parse(&wanted), "{name} of row {id}");
            continue;
        }
        assert_eq!(*mirror, wanted, "{name} of row {id}");
    }
}

/// Well-known binary with the SRID 4326 put in.
const LAT_LONG: &str = "\\x0101000020e6100000000000000000f03f0000000000000040";
/// The same in the order of storage, which MySQL turns for display.
const LONG_LAT: &str = "\\x0101000020e61000000000000000000040000000000000f03f";

#[tokio::test]
async fn every_value_of_mysql_arrives() {
    let recording = Recording::read(include_str!("recorded/mysql-deploy.json"));
    let mirrored = recording.mirror(&recording.options(), &[]).await;
    let changed = [
        (2, "c_geometry", LONG_LAT),
        (12, "c_geometry", LONG_LAT),
        (4, "c_datetime6", "1582-10-20 00:00:00"),
        (14, "c_datetime6", "1582-10-10 00:00:00"),
    ];
    check(&recording, &mirrored, &changed);
}

#[tokio::test]
async fn every_value_of_mariadb_arrives() {
    let recording = Recording::read(include_str!("recorded/mariadb-deploy.json"));
    let mirrored = recording.mirror(&recording.options(), &[]).await;
    let changed = [
        (2, "c_geometry", LAT_LONG),
        (12, "c_geometry", LAT_LONG),
        (4, "c_datetime6", "1582-10-20 00:00:00"),
        (14, "c_datetime6", "1582-10-10 00:00:00"),
    ];
    check(&recording, &mirrored, &changed);
}

#[tokio::test]
async fn wrapped_integers_texts_and_base64_of_mysql_arrive() {
    let recording = Recording::read(include_str!("recorded/mysql-precise-isostring.json"));
    let mirrored = recording.mirror(&recording.options(), &[]).await;
    check(&recording, &mirrored, &[(2, "c_geometry", LONG_LAT)]);
    let unsigned = mirrored.texts[&(2, "c_bigu".to_owned())].as_deref();
    assert_eq!(unsigned, Some("18446744073709551615"));
}

#[tokio::test]
async fn what_mysql_has_lost_in_doubles_and_milliseconds_is_refused() {
    let recording = Recording::read(include_str!("recorded/mysql-double-connect.json"));
    let mirrored = recording.mirror(&recording.options(), &[]).await;
    check(&recording, &mirrored, &[(2, "c_geometry", LONG_LAT)]);
    let refused = mirrored.types.iter().filter(|(_, ty)| ty.is_err());
    let refused: Vec<&str> = refused.map(|(name, _)| name.as_str()).collect();
    assert_eq!(refused, ["c_datetime6", "c_dec65", "c_time6"]);
}
