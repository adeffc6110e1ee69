//! Recorded records, and their way into a table and back.

use std::collections::{BTreeMap, BTreeSet};

use cdc_shared::avro::{CellBuf, Column, Plan, Value, frame};
use cdc_shared::config::{SourceConfig, SourceType};
use cdc_worker::sink::postgres::replica::types::{
    ColumnType, EnumHandling, TargetTypes, TypeOptions, Unmappable,
};
use serde::Deserialize;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::arrays::ArrayParameter;
use crate::support::postgres::Cluster;

/// One recording.
#[derive(Debug, Deserialize)]
pub(crate) struct Recording {
    source: SourceType,
    /// Debezium's settings.
    mode: BTreeMap<String, String>,
    /// The source's types by column.
    pub(crate) types: BTreeMap<String, String>,
    columns: Vec<String>,
    schemas: BTreeMap<i32, serde_json::Value>,
    rows: Vec<Vec<Option<String>>>,
    records: Vec<String>,
}

/// Text of a value by row and column.
pub(crate) type Texts = BTreeMap<(i64, String), Option<String>>;

/// The type of each column, or why it has none.
pub(crate) type Types = BTreeMap<String, Result<ColumnType, Unmappable>>;

/// Values that were refused: row, column, code.
pub(crate) type Refused = BTreeSet<(i64, String, &'static str)>;

/// Encoded values of each column.
type Elements = BTreeMap<String, Vec<Option<Vec<u8>>>>;

/// What became of a recording.
#[derive(Debug)]
pub(crate) struct Mirrored {
    /// The type of each column, or why it has none.
    pub(crate) types: Types,
    /// Values that were refused: row, column, code.
    pub(crate) refused: Refused,
    /// The mirror's text of each value.
    pub(crate) texts: Texts,
}

impl Recording {
    /// Reads one.
    pub(crate) fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap()
    }

    /// Settings of the pipeline whose connector made the recording.
    pub(crate) fn source(&self) -> SourceConfig {
        let mut source = SourceConfig { source_type: self.source, ..SourceConfig::default() };
        source.connector_properties.0.extend(self.mode.clone());
        source
    }

    /// As the pipeline would have them whose connector made the recording.
    pub(crate) fn options(&self) -> TypeOptions {
        TypeOptions::new(&self.source(), EnumHandling::Text, TargetTypes::default())
    }

    /// The source's text of each value.
    pub(crate) fn texts(&self) -> Texts {
        let mut texts = Texts::new();
        for row in &self.rows {
            let id = row[0].as_ref().unwrap().parse().unwrap();
            for (column, text) in self.columns.iter().zip(row) {
                texts.insert((id, column.clone()), text.clone());
            }
        }
        texts
    }

    /// Plans of all schemas.
    pub(crate) fn plans(&self) -> BTreeMap<i32, Plan> {
        let compile = |(id, schema): (&i32, &serde_json::Value)| {
            (*id, Plan::compile(*id, &schema.to_string(), &[] as &[(&str, &str)]).unwrap())
        };
        self.schemas.iter().map(compile).collect()
    }

    /// Hands out every value of the records: the row's id, its column, the value.
    pub(crate) fn values(
        &self,
        plans: &BTreeMap<i32, Plan>,
        mut take: impl FnMut(i64, &Plan, &Column, Value<'_, '_>),
    ) {
        for record in &self.records {
            let record = unhex(record);
            let (id, datum) = frame(&record).unwrap();
            let plan = &plans[&id];
            let mut cells = CellBuf::new();
            let root = plan.decode(datum, &mut cells).unwrap();
            let envelope = plan.row(root, &cells).unwrap();
            let after = envelope.get(envelope.position("after").unwrap()).unwrap();
            let row = after.record().unwrap();
            let id = row.get(row.position("id").unwrap()).unwrap().as_i64().unwrap();
            for (column, value) in row.iter() {
                take(id, plan, column, value);
            }
        }
    }

    /// Writes the records into a new table of a new database, and reads them back.
    pub(crate) async fn mirror(&self, source: &TypeOptions, extensions: &[&str]) -> Mirrored {
        let (_, admin) = Cluster::shared().database().await;
        for extension in extensions {
            admin.batch_execute(&format!("CREATE EXTENSION {extension}")).await.unwrap();
        }
        let options = TypeOptions { target: target_types(&admin).await, ..source.clone() };
        let plans = self.plans();
        let types = same_in_all(&plans, &options);
        let (columns, refused) = self.encode(&plans, &types);
        create(&admin, &types).await;
        insert(&admin, &types, columns).await;
        let texts = read_back(&admin, &types).await;
        Mirrored { types, refused, texts }
    }

    /// Elements of each column, and what was refused, which is NULL then.
    fn encode(&self, plans: &BTreeMap<i32, Plan>, types: &Types) -> (Elements, Refused) {
        let mut columns = Elements::new();
        let mut refused = Refused::new();
        self.values(plans, |id, _, column, value| {
            let Ok(ty) = &types[&column.name] else { return };
            let elements = columns.entry(column.name.clone()).or_default();
            let mut element = Vec::new();
            if value.is_null() {
                elements.push(None);
            } else if let Err(rejection) = ty.encode(value, &mut element) {
                refused.insert((id, column.name.clone(), rejection.code));
                elements.push(None);
            } else {
                elements.push(Some(element));
            }
        });
        (columns, refused)
    }
}

/// What the database has, by our own query.
pub(crate) async fn target_types(admin: &Client) -> TargetTypes {
    let rows = admin.query(TargetTypes::QUERY, &[]).await.unwrap();
    let version = admin.query_one("SHOW server_version_num", &[]).await.unwrap();
    TargetTypes {
        version: version.get::<_, String>(0).parse().unwrap(),
        extensions: rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
    }
}

/// The row's columns.
pub(crate) fn columns(plan: &Plan) -> &[Column] {
    let envelope = plan.columns(plan.root());
    let after = envelope.iter().find(|column| column.name == "after").unwrap();
    plan.columns(after.node)
}

/// The snapshot's schema and the stream's differ in words; they must not in types.
fn same_in_all(plans: &BTreeMap<i32, Plan>, options: &TypeOptions) -> Types {
    let mut types = Types::new();
    for plan in plans.values() {
        for column in columns(plan) {
            let ty = ColumnType::of(plan, column, options);
            let sql =
                |ty: &Result<ColumnType, Unmappable>| ty.as_ref().map(|ty| ty.sql.clone()).ok();
            let known = types.entry(column.name.clone()).or_insert(ty.clone());
            assert_eq!(sql(known), sql(&ty), "{}", column.name);
        }
    }
    types
}

async fn create(admin: &Client, types: &Types) {
    let mapped = || types.iter().filter_map(|(name, ty)| Some((name, ty.as_ref().ok()?)));
    for (_, ty) in mapped() {
        if let Some(made) = ty.enum_type() {
            let there = admin
                .query_one("SELECT to_regtype($1) IS NOT NULL", &[&format!("\"{}\"", made.name)])
                .await
                .unwrap();
            if !there.get::<_, bool>(0) {
                admin.batch_execute(&made.create_sql()).await.unwrap();
            }
        }
    }
    let columns: Vec<String> =
        mapped().map(|(name, ty)| format!("\"{name}\" {}", ty.sql)).collect();
    admin.batch_execute(&format!("CREATE TABLE mirror ({})", columns.join(", "))).await.unwrap();
    // What we call a type is what the server calls it.
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
               WHERE attrelid = 'mirror'::regclass AND attnum > 0";
    for row in admin.query(sql, &[]).await.unwrap() {
        let (name, shown): (String, String) = (row.get(0), row.get(1));
        let ours = &types[&name].as_ref().unwrap().sql;
        let unqualified = ours.replace("\"public\".", "").replace('"', "");
        assert_eq!(unqualified, shown.replace('"', ""), "{name}");
    }
}

async fn insert(admin: &Client, types: &Types, columns: Elements) {
    let mut names = Vec::new();
    let mut selected = Vec::new();
    let mut arrays = Vec::new();
    let mut parameters = Vec::new();
    for (position, (name, elements)) in columns.into_iter().enumerate() {
        let ty = types[&name].as_ref().unwrap();
        names.push(format!("\"{name}\""));
        selected.push(format!("u.c{position}{}", ty.cast()));
        arrays.push(format!("${}::{}", position + 1, ty.wire.array()));
        parameters.push(ArrayParameter { wire: ty.wire, elements });
    }
    let aliases: Vec<String> = (0..names.len()).map(|position| format!("c{position}")).collect();
    let sql = format!(
        "INSERT INTO mirror ({}) SELECT {} FROM unnest({}) AS u({})",
        names.join(", "),
        selected.join(", "),
        arrays.join(", "),
        aliases.join(", ")
    );
    let parameters: Vec<&(dyn ToSql + Sync)> =
        parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect();
    admin.execute(&sql, &parameters).await.unwrap();
}

async fn read_back(admin: &Client, types: &Types) -> Texts {
    admin
        .batch_execute(
            "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'",
        )
        .await
        .unwrap();
    let names: Vec<&String> =
        types.iter().filter(|(_, ty)| ty.is_ok()).map(|(name, _)| name).collect();
    let selected: Vec<String> = names.iter().map(|name| format!("\"{name}\"::text")).collect();
    let sql = format!("SELECT id::bigint, ARRAY[{}] FROM mirror", selected.join(", "));
    let mut texts = Texts::new();
    for row in admin.query(&sql, &[]).await.unwrap() {
        let (id, values): (i64, Vec<Option<String>>) = (row.get(0), row.get(1));
        for (name, value) in names.iter().zip(values) {
            texts.insert((id, (*name).clone()), value);
        }
    }
    texts
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
