//! Types and values against recordings of what Debezium sends, with the source's own texts.

use std::collections::{BTreeMap, BTreeSet};

use cdc_iceberg::{ColumnPreview, TypeOptions};

use crate::support::postgres::Cluster;
use crate::types::recorded::{Recording, Refused, Texts};

/// What becomes of a recording.
struct Seen {
    /// Iceberg's type by the source's, for columns that have one.
    types: BTreeMap<String, BTreeSet<String>>,
    /// Columns that have none.
    refused: BTreeSet<String>,
    /// Values that the type does not hold.
    rejected: Refused,
    texts: Texts,
}

fn see(recording: &Recording) -> Seen {
    let options = TypeOptions::new(&recording.source());
    let (mut types, mut refused) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeSet::new());
    let (mut rejected, mut texts) = (Refused::new(), Texts::new());
    recording.values(&recording.plans(), |id, plan, column, value| {
        let name = column.name.clone();
        let Ok(preview) = ColumnPreview::of(plan, column, options) else {
            refused.insert(name);
            return;
        };
        types.entry(recording.types[&name].clone()).or_default().insert(preview.type_text());
        match preview.value(value) {
            Ok(text) => drop(texts.insert((id, name), text)),
            Err(code) => drop(rejected.insert((id, name, code))),
        }
    });
    Seen { types, refused, rejected, texts }
}

#[track_caller]
fn is(seen: &Seen, expected: &[(&str, &str)]) {
    for (source, wanted) in expected {
        let found = seen.types.get(*source).unwrap_or_else(|| panic!("{source} was not recorded"));
        assert_eq!(found, &BTreeSet::from([(*wanted).to_owned()]), "{source}");
    }
}

#[test]
fn types_of_postgresql() {
    let seen = see(&Recording::read(include_str!("../types/recorded/postgres-deploy.json")));
    is(
        &seen,
        &[
            ("boolean", "boolean"),
            ("bit(1)", "boolean"),
            ("bit(11)", "string"),
            ("smallint", "int"),
            ("bigint", "long"),
            ("oid", "long"),
            ("real", "float"),
            ("double precision", "double"),
            ("numeric", "string"),
            ("numeric(12,2)", "decimal(12, 2)"),
            ("numeric(5,0)", "decimal(5, 0)"),
            ("numeric(1000,500)", "string"),
            ("numeric(2,4)", "string"),
            ("numeric(5,-2)", "string"),
            ("price", "decimal(12, 2)"),
            ("money", "decimal(19, 2)"),
            ("date", "date"),
            ("time without time zone", "time"),
            ("time with time zone", "string"),
            ("timestamp without time zone", "timestamp"),
            ("timestamp(3) with time zone", "timestamptz"),
            ("interval", "string"),
            ("bytea", "binary"),
            ("uuid", "uuid"),
            ("jsonb", "string"),
            ("hstore", "string"),
            ("mood", "string"),
            ("point", "struct<x: double, y: double, wkb: binary, srid: int>"),
            ("text[]", "list<string>"),
            ("uuid[]", "list<uuid>"),
            ("numeric[]", "list<string>"),
            ("numeric(12,2)[]", "list<decimal(12, 2)>"),
            ("timestamp with time zone[]", "list<timestamptz>"),
            ("bytea[]", "list<binary>"),
        ],
    );
    let refused = ["a_time", "a_timetz", "c_name", "c_varbit", "c_varbit_64"];
    assert_eq!(seen.refused, refused.map(str::to_owned).into());
}

#[test]
fn what_a_type_has_no_value_for_is_refused_and_nothing_else() {
    let seen = see(&Recording::read(include_str!("../types/recorded/postgres-deploy.json")));
    let mut expected = Refused::new();
    for (id, column, code) in [
        (3, "a_date", "infinite_value"),
        (3, "a_ts", "infinite_value"),
        (3, "c_date", "infinite_value"),
        (4, "c_date", "infinite_value"),
        (3, "c_ts_3", "infinite_value"),
        (4, "c_ts_3", "infinite_value"),
        (3, "c_time", "value_out_of_range"),
        (3, "c_ts", "infinite_value"),
        (4, "c_ts", "infinite_value"),
        (3, "c_tstz", "infinite_value"),
        (4, "c_tstz", "infinite_value"),
        // Beyond what the connector can count: its number has wrapped round, its text is read.
        (11, "c_ts", "value_out_of_range"),
        (6, "c_tstz", "value_out_of_range"),
    ] {
        // Rows of the snapshot, and the same streamed.
        expected.insert((id, column.to_owned(), code));
        expected.insert((id + 11, column.to_owned(), code));
    }
    assert_eq!(seen.rejected, expected);
}

/// PostgreSQL reads what Iceberg has: the same value as the source's.
#[tokio::test]
async fn values_of_postgresql_are_the_sources() {
    let recording = Recording::read(include_str!("../types/recorded/postgres-deploy.json"));
    let (seen, of_source) = (see(&recording), recording.texts());
    let (_, admin) = Cluster::shared().database().await;
    admin.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 1").await.unwrap();
    let mut compared = BTreeMap::<&str, u32>::new();
    for ((id, column), found) in &seen.texts {
        let source = recording.types[column].as_str();
        let ty = match source {
            // Types that others made, of extensions, or shown in another form: see the other tests.
            "money" | "hstore" | "point" | "price" | "stamp" | "small" => continue,
            "bytea" | "uuid" | "date" | "json" | "jsonb" | "interval" | "real" | "bit(11)" => {
                source
            }
            _ if source.ends_with("[]") || source.contains("with time zone[]") => continue,
            // The connector moves it to UTC.
            _ if source.ends_with(" with time zone") && !source.starts_with("timestamp") => {
                continue;
            }
            _ if source.starts_with("time") || source.starts_with("numeric") => source,
            "smallint" | "integer" | "bigint" | "double precision" | "boolean" => source,
            _ if source.starts_with("character varying") || source == "text" => "text",
            _ => continue,
        };
        let text = &of_source[&(*id, column.clone())];
        let (Some(found), Some(text)) = (found, text) else {
            assert_eq!(found, text, "{id} {column}");
            continue;
        };
        // Years of five digits, and before Christ, which PostgreSQL writes in a way of its own.
        let is_far = text.ends_with("BC") || text.len() > 29 || text.contains("-infinity");
        let is_moment = source.starts_with("timestamp") || source == "date";
        if is_moment && (is_far || text.find('-') != Some(4) || text.starts_with("1582")) {
            continue;
        }
        let found = if source == "bytea" { format!("\\x{found}") } else { found.clone() };
        let sql = format!("SELECT $1::text::{ty}::text");
        let read: String = admin.query_one(&sql, &[&found]).await.unwrap().get(0);
        let same = format!("SELECT $1::text::{ty}::text");
        let text: String = admin.query_one(&same, &[text]).await.unwrap().get(0);
        assert_eq!(read, text, "{id} {column}: {found}");
        *compared.entry(source).or_default() += 1;
    }
    for source in [
        "bytea",
        "uuid",
        "date",
        "numeric",
        "numeric(12,2)",
        "time without time zone",
        "timestamp without time zone",
        "timestamp with time zone",
        "interval",
        "jsonb",
        "text",
    ] {
        assert!(compared.contains_key(source), "{source} was not compared: {compared:?}");
    }
}

#[test]
fn types_and_values_of_mysql_and_mariadb() {
    for text in [
        include_str!("../types/recorded/mysql-deploy.json"),
        include_str!("../types/recorded/mariadb-deploy.json"),
    ] {
        let recording = Recording::read(text);
        let (seen, of_source) = (see(&recording), recording.texts());
        let find = |of: &str| {
            let column = recording.types.iter().find(|(_, ty)| ty.starts_with(of));
            column.unwrap_or_else(|| panic!("{of}: {:?}", recording.types)).1.clone()
        };
        for (source, wanted) in [
            ("bigint(20) unsigned", "decimal(20, 0)"),
            ("decimal(12,2)", "decimal(12, 2)"),
            ("decimal(65,30)", "string"),
            ("bit(64)", "string"),
            ("datetime(6)", "timestamp"),
            ("timestamp(6)", "timestamptz"),
            ("time(6)", "string"),
            ("year", "int"),
            ("int(10) unsigned", "long"),
            ("varbinary(8)", "binary"),
            ("geometry", "struct<wkb: binary, srid: int>"),
        ] {
            is(&seen, &[(&find(source), wanted)]);
        }
        assert_eq!((&seen.refused, &seen.rejected), (&BTreeSet::new(), &Refused::new()));
        for column in ["c_bigu", "c_dec", "c_dec65", "c_bit64", "c_date", "c_int", "c_varchar"] {
            let texts = |texts: &Texts| -> Vec<Option<String>> {
                let of_column = texts.iter().filter(|((_, name), _)| name == column);
                of_column.map(|(_, text)| text.clone()).collect()
            };
            assert_eq!(texts(&seen.texts), texts(&of_source), "{column}");
        }
    }
}
