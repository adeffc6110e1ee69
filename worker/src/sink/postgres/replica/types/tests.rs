//! Every type and mode by what its schema says; rules as properties.

use cdc_shared::avro::{CellBuf, Plan};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// A record with one field `c`, of the Avro type given.
fn plan(ty: &Json) -> Plan {
    let schema = json!({"type": "record", "name": "Row", "fields": [{"name": "c", "type": ty}]});
    Plan::compile(1, &schema.to_string(), &[] as &[(&str, &str)]).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "a schema is written where it is used")]
fn of(ty: Json, options: &TypeOptions) -> Result<ColumnType, Unmappable> {
    let plan = plan(&ty);
    ColumnType::of(&plan, &plan.columns(plan.root())[0], options)
}

/// The Avro type with a meaning and the source's name of its type.
fn avro(kind: &str, name: &str, declared: (&str, Option<i64>, Option<i64>)) -> Json {
    let mut parameters = serde_json::Map::new();
    let (declared, length, scale) = declared;
    if !declared.is_empty() {
        parameters.insert("__debezium.source.column.type".into(), declared.into());
    }
    for (key, number) in [("length", length), ("scale", scale)] {
        if let Some(number) = number {
            let key = format!("__debezium.source.column.{key}");
            parameters.insert(key, number.to_string().into());
        }
    }
    let mut ty = json!({"type": kind, "connect.parameters": parameters});
    if !name.is_empty() {
        ty["connect.name"] = name.into();
    }
    ty
}

fn from(source: Source) -> TypeOptions {
    TypeOptions { source, ..TypeOptions::default() }
}

fn sql(ty: Json, source: Source) -> String {
    match of(ty, &from(source)) {
        Ok(ty) => ty.sql,
        Err(why) => format!("refused: {}", why.what),
    }
}

const PLAIN: (&str, Option<i64>, Option<i64>) = ("", None, None);
const TIME: &str = "io.debezium.time.";
const DATA: &str = "io.debezium.data.";

#[test]
fn each_meaning_alone_has_a_type() {
    let debezium_times = [
        ("int", "Date", "date"),
        ("string", "IsoDate", "date"),
        ("int", "Time", "time(3) without time zone"),
        ("long", "MicroTime", "time without time zone"),
        ("long", "NanoTime", "time without time zone"),
        ("string", "IsoTime", "time without time zone"),
        ("string", "ZonedTime", "time with time zone"),
        ("long", "Timestamp", "timestamp(3) without time zone"),
        ("long", "MicroTimestamp", "timestamp without time zone"),
        ("long", "NanoTimestamp", "timestamp without time zone"),
        ("string", "IsoTimestamp", "timestamp without time zone"),
        ("string", "ZonedTimestamp", "timestamp with time zone"),
        ("string", "Interval", "interval"),
        ("int", "Year", "integer"),
    ];
    for (kind, name, expected) in debezium_times {
        let ty = avro(kind, &format!("{TIME}{name}"), PLAIN);
        assert_eq!(sql(ty, Source::Postgres), expected, "{name}");
    }
    let data = [
        ("string", "Json", "json"),
        ("string", "Xml", "xml"),
        ("string", "Uuid", "uuid"),
        ("string", "Ltree", "text"),
        ("string", "Enum", "text"),
        ("string", "EnumSet", "text"),
        ("string", "Tsvector", "tsvector"),
    ];
    for (kind, name, expected) in data {
        let ty = avro(kind, &format!("{DATA}{name}"), PLAIN);
        assert_eq!(sql(ty, Source::Postgres), expected, "{name}");
    }
    let logical = [
        (json!({"type": "int", "logicalType": "date"}), "date"),
        (json!({"type": "int", "logicalType": "time-millis"}), "time(3) without time zone"),
        (json!({"type": "long", "logicalType": "timestamp-micros"}), "timestamp with time zone"),
        (json!({"type": "long", "logicalType": "timestamp-millis"}), "timestamp(3) with time zone"),
        (
            json!({"type": "long", "logicalType": "local-timestamp-micros"}),
            "timestamp without time zone",
        ),
        (json!({"type": "string", "logicalType": "uuid"}), "uuid"),
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
            "numeric(9,2)",
        ),
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 64, "scale": 2}),
            "numeric",
        ),
    ];
    for (ty, expected) in logical {
        assert_eq!(sql(ty.clone(), Source::Postgres), expected, "{ty}");
    }
}

#[test]
fn each_avro_type_alone_has_a_type() {
    let rows = [
        (json!("boolean"), "boolean"),
        (json!({"type": "int", "connect.type": "int16"}), "smallint"),
        (json!("int"), "integer"),
        (json!("long"), "bigint"),
        (json!("float"), "real"),
        (json!("double"), "double precision"),
        (json!("bytes"), "bytea"),
        (json!({"type": "fixed", "name": "F", "size": 3}), "bytea"),
        (json!("string"), "text"),
        (json!({"type": "enum", "name": "E", "symbols": ["a"]}), "text"),
        (json!({"type": "array", "items": ["null", "long"]}), "bigint[]"),
        (json!({"type": "map", "values": ["null", "string"]}), "jsonb"),
        (json!(["null", "int"]), "integer"),
        (json!({"type": "array", "items": {"type": "array", "items": "int"}}), REFUSED),
        (json!(["int", "string"]), REFUSED),
        (json!({"type": "record", "name": "R", "fields": []}), REFUSED),
    ];
    for (ty, expected) in rows {
        assert_eq!(sql(ty.clone(), Source::Postgres), expected, "{ty}");
    }
}

const REFUSED: &str = "refused: no PostgreSQL type holds what the connector sends";

#[test]
fn what_the_connector_has_changed_beyond_repair_is_refused_by_name() {
    let connect = "org.apache.kafka.connect.data.";
    let rows = [
        (avro("double", "", ("NUMERIC", Some(16), Some(2))), Source::Postgres, "15 digits"),
        (avro("double", "", ("NUMERIC", Some(131_089), Some(0))), Source::Postgres, "15 digits"),
        (avro("double", "", ("MONEY", None, None)), Source::Postgres, "15 digits"),
        (
            avro("long", &format!("{connect}Timestamp"), ("TIMESTAMP", Some(29), Some(6))),
            Source::Postgres,
            "drops microseconds",
        ),
        (
            avro("int", &format!("{connect}Time"), ("TIME", Some(15), Some(6))),
            Source::Postgres,
            "drops microseconds",
        ),
        (
            avro("long", &format!("{connect}Timestamp"), ("DATETIME", Some(6), None)),
            Source::Mysql,
            "drops microseconds",
        ),
        (
            avro("int", &format!("{connect}Time"), ("TIME", Some(6), None)),
            Source::Mysql,
            "drops microseconds",
        ),
        (avro("string", "", ("NAME", None, None)), Source::Postgres, "NULL for every value"),
        (
            avro("long", &format!("{TIME}MicroDuration"), ("INTERVAL", None, None)),
            Source::Postgres,
            "months and days",
        ),
        (
            avro("bytes", &format!("{DATA}Bits"), ("VARBIT", Some(64), Some(0))),
            Source::Postgres,
            "how many bits",
        ),
        (avro("string", "", ("BYTEA", None, None)), Source::Postgres, "base64 or hex"),
    ];
    for (ty, source, expected) in rows {
        let why = of(ty.clone(), &from(source)).unwrap_err();
        assert!(why.what.contains(expected), "{ty}: {why}");
        assert!(why.to_string().starts_with("column c ("), "{why}");
    }
    // Up to 15 digits a double gives back the decimal, and up to 3 a millisecond the time.
    let exact = avro("double", "", ("NUMERIC", Some(15), Some(2)));
    assert_eq!(sql(exact, Source::Postgres), "numeric(15,2)");
    let exact = avro("long", &format!("{connect}Timestamp"), ("TIMESTAMP", Some(26), Some(3)));
    assert_eq!(sql(exact, Source::Postgres), "timestamp(3) without time zone");
}

#[test]
fn domains_show_their_digits_and_converted_columns_what_they_are() {
    let price = avro("string", "", ("PRICE", Some(12), Some(2)));
    assert_eq!(sql(price, Source::Postgres), "numeric(12,2)");
    let any = avro("string", "", ("AMOUNT", Some(131_089), Some(0)));
    assert_eq!(sql(any, Source::Postgres), "numeric");
    let double = avro("double", "", ("PRICE", Some(12), Some(2)));
    assert_eq!(sql(double, Source::Postgres), "numeric(12,2)");
    let float = avro("double", "", ("RATIO", Some(17), Some(17)));
    assert_eq!(sql(float, Source::Postgres), "double precision");
    let email = avro("string", "", ("EMAIL", Some(40), Some(0)));
    assert_eq!(sql(email, Source::Postgres), "text");
    let flag = avro("boolean", "", ("TINYINT", Some(1), None));
    assert_eq!(sql(flag, Source::Mysql), "boolean");
    let masked = avro("string", "", ("INT4", Some(10), Some(0)));
    assert_eq!(sql(masked, Source::Postgres), "text");
}

#[test]
fn extensions_and_versions_of_the_target_decide() {
    let hstore = || avro("string", &format!("{DATA}Json"), ("HSTORE", None, None));
    assert_eq!(sql(hstore(), Source::Postgres), "jsonb");
    let mut options = TypeOptions::default();
    options.target.extensions.insert("hstore".into(), "ext".into());
    let ty = of(hstore(), &options).unwrap();
    assert_eq!((ty.sql.as_str(), ty.cast()), ("\"ext\".\"hstore\"", "::\"ext\".\"hstore\""));
    let rounded = || avro("string", "", ("NUMERIC", Some(5), Some(2046)));
    assert_eq!(sql(rounded(), Source::Postgres), "numeric(5,-2)");
    options.target.version = 140_010;
    assert_eq!(of(rounded(), &options).unwrap().sql, "numeric");
}

#[test]
fn enums_are_made_on_demand() {
    let mut ty = avro("string", &format!("{DATA}Enum"), ("\"AUX\".\"MOOD\"", None, None));
    ty["connect.parameters"]["allowed"] = "sad,it's".into();
    let create = || EnumHandling::Create { schema: "s".into(), table: "t".into() };
    let options = TypeOptions { enums: create(), ..TypeOptions::default() };
    let column = of(ty.clone(), &options).unwrap();
    assert_eq!(column.cast(), "::\"s\".\"mood\"");
    let made = column.enum_type().unwrap();
    assert_eq!(made.create_sql(), r#"CREATE TYPE "s"."mood" AS ENUM ('sad', 'it''s')"#);
    assert_eq!(
        made.add_labels_sql(&["sad".into()]),
        [r#"ALTER TYPE "s"."mood" ADD VALUE IF NOT EXISTS 'it''s' AFTER 'sad'"#]
    );
    let items = json!({"type": "array", "items": ["null", ty]});
    let mysql = TypeOptions { source: Source::Mysql, ..options };
    assert_eq!(of(items, &mysql).unwrap().sql, "\"s\".\"t_c\"[]");
    ty["connect.parameters"]["allowed"] = "x".repeat(64).into();
    assert!(of(ty, &mysql).unwrap_err().what.contains("63 bytes"));
}

fn column(declared: (&str, Option<i64>, Option<i64>)) -> ColumnType {
    of(avro("string", "", declared), &TypeOptions::default()).unwrap()
}

#[test]
fn an_existing_column_is_the_same_wider_narrower_or_another() {
    let int = of(json!("int"), &TypeOptions::default()).unwrap();
    let bigint = of(json!("long"), &TypeOptions::default()).unwrap();
    let amount = column(("NUMERIC", Some(10), Some(2)));
    let varchar = column(("VARCHAR", Some(40), None));
    let text = column(("TEXT", None, None));
    let free = column(("EMAIL", Some(40), Some(0)));
    let rows = [
        (&int, "integer", Fit::Same),
        (&int, "bigint", Fit::Holds),
        (&int, "numeric(10,0)", Fit::Holds),
        (&int, "numeric(9,0)", Fit::No),
        (&int, "smallint", Fit::Widen),
        (&int, "text", Fit::No),
        (&int, "double precision", Fit::No),
        (&bigint, "integer", Fit::Widen),
        (&amount, "numeric(10,2)", Fit::Same),
        (&amount, "numeric(12,2)", Fit::Holds),
        (&amount, "numeric(12,4)", Fit::Holds),
        (&amount, "numeric(10,4)", Fit::No),
        (&amount, "numeric", Fit::Holds),
        (&amount, "numeric(8,2)", Fit::Widen),
        (&amount, "integer", Fit::No),
        (&varchar, "character varying(40)", Fit::Same),
        (&varchar, "character varying(80)", Fit::Holds),
        (&varchar, "text", Fit::Holds),
        (&varchar, "character varying(39)", Fit::Widen),
        (&varchar, "character(40)", Fit::No),
        (&text, "character varying", Fit::Holds),
        (&text, "character varying(40)", Fit::Widen),
        (&text, "jsonb", Fit::No),
        (&column(("JSONB", None, None)), "json", Fit::Holds),
        (&column(("JSON", None, None)), "jsonb", Fit::No),
        // Nobody but the user knows what is behind a domain.
        (&free, "text", Fit::Same),
        (&free, "numeric(12,2)", Fit::Holds),
        (&free, "\"My Type\"", Fit::Holds),
        (&free, "character varying(40)", Fit::Widen),
    ];
    for (wanted, found, expected) in rows {
        assert_eq!(fit(found, wanted), expected, "{} in {found}", wanted.sql);
        let writable = matches!(expected, Fit::Same | Fit::Holds);
        assert_eq!(wanted.in_column(found).is_some(), writable, "{} in {found}", wanted.sql);
    }
    let into_type = free.in_column("s.\"My Type\"").unwrap();
    assert_eq!(into_type.cast(), "::\"s\".\"My Type\"");
    let checked = free.in_column("numeric(12,2)").unwrap();
    assert_eq!((checked.wire, checked.cast()), (Wire::Numeric, ""));
}

#[expect(clippy::needless_pass_by_value, reason = "a schema is written where it is used")]
fn encoded(ty: Json, datum: &[u8], source: Source) -> Result<Vec<u8>, &'static str> {
    let plan = plan(&ty);
    let column = ColumnType::of(&plan, &plan.columns(plan.root())[0], &from(source)).unwrap();
    let mut cells = CellBuf::new();
    let root = plan.decode(datum, &mut cells).unwrap();
    let value = plan.row(root, &cells).unwrap().get(0).unwrap();
    let mut out = Vec::new();
    column.encode(value, &mut out).map(|()| out).map_err(|rejection| {
        assert!(rejection.message.starts_with("column c ("), "{rejection:?}");
        rejection.code
    })
}

fn string(text: &str) -> Vec<u8> {
    assert!(text.len() < 64);
    let mut datum = vec![text.len() as u8 * 2];
    datum.extend_from_slice(text.as_bytes());
    datum
}

#[test]
fn a_value_that_its_column_cannot_hold_is_refused_by_name() {
    let text = |declared, text: &str| {
        encoded(avro("string", "", declared), &string(text), Source::Postgres)
    };
    assert_eq!(text(("TEXT", None, None), "a\0b"), Err("nul_character"));
    assert_eq!(text(("JSONB", None, None), r#""\u0000""#), Err("nul_character"));
    assert!(text(("JSON", None, None), r#""\u0000""#).is_ok());
    let money = ("NUMERIC", Some(4), Some(2));
    assert!(text(money, "99.99").is_ok());
    assert!(text(money, "0099.9900").is_ok());
    assert_eq!(text(money, "99.991"), Err("too_many_digits"));
    assert_eq!(text(money, "100"), Err("too_many_digits"));
    assert_eq!(text(money, "x"), Err("malformed_value"));
    let rounded = ("NUMERIC", Some(3), Some(2046));
    assert!(text(rounded, "12300").is_ok());
    assert_eq!(text(rounded, "12340"), Err("too_many_digits"));
    let uuid = ("UUID", None, None);
    assert_eq!(text(uuid, "6f1e2a3c-0001"), Err("malformed_value"));
    let nanos = avro("long", &format!("{TIME}NanoTime"), PLAIN);
    assert_eq!(encoded(nanos, &[0x02], Source::Postgres), Err("too_many_digits"));
    let day = avro("int", &format!("{TIME}Date"), PLAIN);
    // The smallest int, which is no day of PostgreSQL's.
    let least = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(encoded(day, &least, Source::Postgres), Err("out_of_range"));
    let wrapped = avro("long", "", ("BIGINT UNSIGNED", Some(20), None));
    // −1 is 18446744073709551615: five groups of four digits.
    let expected = [0, 5, 0, 4, 0, 0, 0, 0];
    assert_eq!(encoded(wrapped, &[1], Source::Mysql).unwrap()[..8], expected);
}

proptest! {
    #[test]
    fn what_is_a_type_is_read_back_as_itself(
        precision in 1_u32..1000, scale in -1000_i32..1000, length in 1_u32..10_485_760, clock in 0_u8..6,
    ) {
        use super::pg_type::{Digits, PgType as T};
        let types = [
            T::Numeric(None), T::Numeric(Some(Digits { precision, scale })), T::Varchar(Some(length)),
            T::Varchar(None), T::Bpchar(Some(length)), T::Bpchar(None), T::Bit(length),
            T::Varbit(Some(length)), T::Time(Some(clock)), T::Timetz(None), T::Timestamp(Some(clock)),
            T::Timestamptz(None), T::Interval, T::Plain("char"), T::Plain("int4range"), T::Bool,
            T::Other { schema: Some("a.b".into()), name: "x\"y".into(), modifier: Some("3".into()) },
        ];
        for ty in types {
            prop_assert_eq!(T::parse(&ty.to_string()), ty.clone());
            let array = T::Array(Box::new(ty));
            prop_assert_eq!(T::parse(&array.to_string()), array);
        }
    }

    #[test]
    fn no_type_name_and_no_value_panics(found in ".{0,40}", text in ".{0,15}") {
        let _ = fit(&found, &column(("NUMERIC", Some(5), Some(2))));
        for (name, declared) in [("", "NUMERIC"), ("", "UUID"), ("", "JSONB"), ("", "INT4RANGE")] {
            let ty = avro("string", name, (declared, None, None));
            let _ = encoded(ty, &string(&text), Source::Postgres);
        }
        for name in ["ZonedTimestamp", "IsoDate", "IsoTime", "ZonedTime", "Interval", "IsoTimestamp"] {
            let ty = avro("string", &format!("{TIME}{name}"), PLAIN);
            let _ = encoded(ty, &string(&text), Source::Postgres);
        }
    }
}
