//! Defaults of a PostgreSQL source, as its connector states them and as its catalog has them.

use std::collections::BTreeMap;

use cdc_shared::avro::Plan;
use cdc_worker::sink::postgres::replica::types::{
    ColumnType, SourceDefault, TypeOptions, default_sql,
};

use super::recorded::columns;
use crate::support::postgres::Cluster;

/// What the old rows of the source have, for each column whose stated default is taken: the
/// connector's word is compared with it on a server. `d_quote` and `d_concat` are the two that
/// cannot be told apart.
const TAKEN: [(&str, &str); 34] = [
    ("d_text", "hello"),
    ("d_quote", "it"),
    ("d_back", "a\\b"),
    ("d_concat", "a"),
    ("d_varchar", "x"),
    ("d_char", "ab   "),
    ("d_bool", "true"),
    ("d_int4", "5"),
    ("d_neg", "-5"),
    ("d_int8", "9223372036854775807"),
    ("d_int2", "7"),
    ("d_float8", "1.5"),
    ("d_nan", "NaN"),
    ("d_float4", "0.1"),
    ("d_num", "5.50"),
    ("d_num2", "5.50"),
    ("d_numneg", "-0.01"),
    ("d_date", "2024-02-29"),
    ("d_ts", "2024-02-29 13:05:09.123456"),
    ("d_tz", "2024-02-29 11:05:09.5+00"),
    ("d_time", "13:05:09"),
    ("d_int", "1 day 02:00:00"),
    ("d_uuid", "6f1e2a3c-0001-4002-8003-000000000004"),
    ("d_json", "{\"a\": 1}"),
    ("d_jsonb", "{\"a\": 1}"),
    ("d_mood", "ok"),
    ("d_moodq", "it's \"fine\""),
    ("d_bit", "1"),
    ("d_bit8", "10110001"),
    ("d_xml", "<a/>"),
    ("r_text", "hello"),
    ("r_int", "5"),
    ("r_num", "5.50"),
    ("r_bool", "true"),
];

/// What may stand for an expression.
const REFUSED: [&str; 23] = [
    "d_boole",
    "d_boolf",
    "d_dinf",
    "d_empty",
    "d_intz",
    "d_jsonq",
    "d_lower",
    "d_md5",
    "d_now",
    "d_random",
    "d_serial",
    "d_tinf",
    "d_today",
    "d_tzadd",
    "d_tzclock",
    "d_tzcur",
    "d_tznow",
    "d_user",
    "d_uuidg",
    "d_version",
    "r_date",
    "r_now",
    "r_uuid",
];

fn plan() -> Plan {
    let schema = include_str!("recorded/postgres-defaults.json");
    Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap()
}

#[tokio::test]
async fn a_stated_default_is_taken_unless_it_may_stand_for_an_expression() {
    let plan = plan();
    let (_, admin) = Cluster::shared().database().await;
    admin.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let mut taken = BTreeMap::new();
    let mut refused: Vec<String> = Vec::new();
    for column in columns(&plan) {
        let Ok(ty) = ColumnType::of(&plan, column, &TypeOptions::default()) else { continue };
        match default_sql(&ty, &plan, column) {
            Ok(None) => {}
            Ok(Some(sql)) => {
                let table = format!(
                    "CREATE TEMPORARY TABLE x (c {}); INSERT INTO x VALUES ({sql})",
                    ty.sql
                );
                admin.batch_execute(&table).await.unwrap();
                let row = admin.query_one("SELECT format('%s', c) FROM x", &[]).await.unwrap();
                let text = row.get::<_, String>(0);
                admin.batch_execute("DROP TABLE x").await.unwrap();
                taken.insert(column.name.clone(), text);
            }
            Err(_) => refused.push(column.name.clone()),
        }
    }
    refused.sort();
    let wanted: BTreeMap<String, String> = TAKEN
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).replace("true", "t")))
        .collect();
    assert_eq!(taken.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    assert_eq!(taken, wanted);
    assert_eq!(refused, REFUSED);
}

#[tokio::test]
async fn the_source_catalog_knows_what_old_rows_have() {
    let (_, admin) = Cluster::shared().database().await;
    admin
        .batch_execute(
            "CREATE TABLE d (id int); INSERT INTO d VALUES (1); \
             ALTER TABLE d ADD d_random float8 DEFAULT random(); \
             ALTER TABLE d ADD d_quote text DEFAULT 'it''s', ADD d_empty text DEFAULT '', \
                 ADD d_concat text DEFAULT 'a' || 'b', ADD d_tznow timestamptz DEFAULT now(), \
                 ADD d_arr int[] DEFAULT '{1,2}', ADD d_boolf bool DEFAULT false, \
                 ADD d_tinf timestamp DEFAULT 'infinity', ADD d_text text, ADD d_int4 int, \
                 ADD d_bytea bytea DEFAULT '\\x00ff'; \
             ALTER TABLE d ALTER d_int4 SET DEFAULT 5",
        )
        .await
        .unwrap();
    let plan = plan();
    let mut sqls = BTreeMap::new();
    for column in columns(&plan) {
        let row = admin.query_opt(SourceDefault::QUERY, &[&"\"public\".\"d\"", &column.name]).await;
        let Some(row) = row.unwrap() else { continue };
        let Ok(ty) = ColumnType::of(&plan, column, &TypeOptions::default()) else { continue };
        let found = SourceDefault { missing: row.get(0), expression: row.get(1) };
        sqls.insert(column.name.clone(), found.of_old_rows(&ty));
    }
    sqls.remove("id");
    for name in ["d_random", "d_int4"] {
        // Each row has its own; and: set later, which a rewritten table hides.
        assert!(sqls.remove(name).unwrap().is_err(), "{name}");
    }
    for (name, sql) in &sqls {
        let sql = sql.clone().unwrap().unwrap_or_else(|| "NULL".to_owned());
        let same = format!("SELECT \"{name}\" IS NOT DISTINCT FROM ({sql}) FROM d WHERE id = 1");
        assert!(admin.query_one(&same, &[]).await.unwrap().get::<_, bool>(0), "{name}: {sql}");
    }
    assert_eq!(sqls.remove("d_text").unwrap(), Ok(None));
    assert_eq!(sqls.len(), 8, "{:?}", sqls.keys());
}
