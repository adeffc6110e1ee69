//! How the rows of one schema lie in a table: made once per schema, for all of its records.

use cdc_shared::avro::{Plan, Row, ToastShape, Value};
use cdc_shared::config::IcebergWriteMode as WriteMode;
use cdc_shared::envelope::Envelope;
use iceberg::spec::PrimitiveType;

use crate::types::{Codec, FieldType, TypeOptions, Unmappable, choose};

/// Columns that every row has beside those of the source's row.
pub(crate) const META: [&str; 6] =
    ["_cdc_topic", "_cdc_partition", "_cdc_offset", "_cdc_op", "_cdc_ts", "_cdc_unavailable"];

/// Those of a row in a table that is kept by key.
const ROW_META: usize = 3;

/// Columns that a table has beside those of the source's row.
pub(crate) fn meta(mode: WriteMode) -> &'static [&'static str] {
    match mode {
        WriteMode::Append => &META,
        WriteMode::Upsert => META.get(..ROW_META).unwrap_or_default(),
    }
}

/// Their types.
pub(crate) fn meta_type(name: &str) -> FieldType {
    let primitive = |ty| FieldType::Primitive(ty);
    match name {
        "_cdc_partition" => primitive(PrimitiveType::Int),
        "_cdc_offset" => primitive(PrimitiveType::Long),
        "_cdc_ts" => primitive(PrimitiveType::Timestamptz),
        "_cdc_unavailable" => FieldType::List(Box::new(primitive(PrimitiveType::String))),
        _ => primitive(PrimitiveType::String),
    }
}

/// A column of the source's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutColumn {
    /// Its name, in the table too.
    pub name: String,
    /// Its type.
    pub ty: FieldType,
    /// The way of its cells.
    pub codec: Codec,
}

/// A column of the key and the column of the row that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) column: usize,
    pub(crate) codec: Codec,
}

/// See the module.
#[derive(Debug)]
pub struct Layout {
    /// Registry ids of the value's and the key's schema.
    pub ids: (i32, Option<i32>),
    /// Columns of the row, in the order of the schema.
    pub columns: Vec<LayoutColumn>,
    pub(crate) key: Vec<KeyColumn>,
    is_key: Vec<bool>,
    /// Whether a delete has the whole row before it, always.
    has_before: bool,
    /// What the table is.
    pub mode: WriteMode,
    /// Whether values can be missing from its rows because they did not change.
    pub may_miss_values: bool,
}

/// Why there is no layout.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NoLayout {
    /// Stable code.
    pub code: &'static str,
    /// What is in the way.
    pub message: String,
    /// What to do.
    pub way_out: String,
}

impl Layout {
    /// For the rows of an event's schema, and keys of another.
    ///
    /// # Errors
    /// A column that no column of a table can be.
    pub fn of(
        envelope: &Envelope<'_, '_>,
        key: Option<&Plan>,
        options: TypeOptions,
        mode: WriteMode,
    ) -> Result<Self, NoLayout> {
        let plan = envelope.record().plan();
        let columns: Result<Vec<_>, _> = envelope
            .table_columns()
            .iter()
            .map(|column| {
                let (ty, codec) = choose(plan, column, options).map_err(|why| no_type(&why))?;
                let name = column.source_name().to_owned();
                if META.contains(&name.as_str()) {
                    return Err(taken(&name));
                }
                Ok(LayoutColumn { name, ty, codec })
            })
            .collect();
        let columns = columns?;
        let names = envelope.table_columns().iter().map(|column| column.name.as_str());
        let names: Vec<&str> = names.collect();
        let key_columns = match key {
            Some(plan) => key_columns(plan, &columns, &names, options, mode)?,
            None => Vec::new(),
        };
        if mode == WriteMode::Upsert && key_columns.is_empty() {
            return Err(no_key(envelope));
        }
        let mut is_key = vec![false; columns.len()];
        for column in &key_columns {
            if let Some(is_key) = is_key.get_mut(column.column) {
                *is_key = true;
            }
        }
        Ok(Self {
            ids: (plan.schema_id(), key.map(Plan::schema_id)),
            columns,
            key: key_columns,
            is_key,
            has_before: options.source != cdc_shared::config::SourceType::Postgres,
            mode,
            may_miss_values: envelope
                .table_columns()
                .iter()
                .any(|column| column.toast != ToastShape::Never),
        })
    }

    /// Names of the key's columns.
    pub(crate) fn key_names(&self) -> impl Iterator<Item = &str> {
        let columns = self.key.iter().filter_map(|of_key| self.columns.get(of_key.column));
        columns.map(|column| column.name.as_str())
    }

    /// Names of the key's columns, as the index takes them.
    pub fn key_columns(&self) -> Vec<String> {
        self.key_names().map(str::to_owned).collect()
    }

    /// Whether a column is of the key.
    pub(crate) fn is_of_key(&self, column: usize) -> bool {
        self.is_key.get(column).copied().unwrap_or(false)
    }

    /// The row before a delete, where the event has all of it.
    ///
    /// PostgreSQL sends it with REPLICA IDENTITY FULL only; otherwise all columns but the key's are
    /// NULL or, where they may not be, what the connector puts for nothing: 0, an empty text.
    pub(crate) fn before<'a, 'm>(&self, envelope: &Envelope<'a, 'm>) -> Option<Row<'a, 'm>> {
        let row = envelope.before()?;
        let is_real = self.has_before
            || row.iter().zip(&self.is_key).any(|((_, value), is_key)| !is_key && !is_zero(value));
        is_real.then_some(row)
    }
}

fn is_zero(value: Value<'_, '_>) -> bool {
    use cdc_shared::avro::Cell;
    match value.cell() {
        Cell::Null => true,
        Cell::Bool(is) => !is,
        Cell::Int(number) => number == 0,
        Cell::Long(number) => number == 0,
        Cell::Float(number) => number == 0.0,
        Cell::Double(number) => number == 0.0,
        Cell::Bytes(bytes) => bytes.iter().all(|byte| *byte == 0),
        Cell::Str(text) => matches!(text, "" | "0" | "1970-01-01T00:00:00Z" | "00:00:00Z"),
        Cell::Array { len, .. } | Cell::Map { len, .. } => len == 0,
        Cell::Enum(_) | Cell::Union { .. } => false,
        Cell::Record { .. } => {
            value.record().is_some_and(|row| row.iter().all(|(_, value)| is_zero(value)))
        }
    }
}

fn key_columns(
    plan: &Plan,
    columns: &[LayoutColumn],
    names: &[&str],
    options: TypeOptions,
    mode: WriteMode,
) -> Result<Vec<KeyColumn>, NoLayout> {
    let mut key = Vec::new();
    for column in plan.columns(plan.root()) {
        let (ty, codec) = choose(plan, column, options).map_err(|why| no_type(&why))?;
        // A key that message.key.columns takes from elsewhere has no column in the row.
        let Some(at) = names.iter().position(|name| *name == column.name) else {
            if mode == WriteMode::Upsert {
                return Err(unknown_key(&column.name));
            }
            continue;
        };
        if mode == WriteMode::Upsert && !matches!(ty, FieldType::Primitive(_)) {
            return Err(no_key_type(&column.name, &ty));
        }
        if columns.get(at).is_some_and(|of_row| of_row.ty == ty) {
            key.push(KeyColumn { column: at, codec });
        } else {
            return Err(NoLayout {
                code: "key_type_differs",
                message: format!(
                    "column {} has another type in the key than in the row",
                    column.name
                ),
                way_out: "give key and value the same converter settings in the connector"
                    .to_owned(),
            });
        }
    }
    Ok(key)
}

fn no_type(why: &Unmappable) -> NoLayout {
    NoLayout { code: "type_refused", message: why.to_string(), way_out: why.way_out.to_owned() }
}

fn taken(name: &str) -> NoLayout {
    NoLayout {
        code: "column_name_taken",
        message: format!("column {name} has the name of a column that the sink adds"),
        way_out: format!(
            "rename the source's column {name}, or leave it out (column.exclude.list)"
        ),
    }
}

/// Events without a key cannot be kept by it.
pub(crate) fn no_key(envelope: &Envelope<'_, '_>) -> NoLayout {
    let table = [envelope.schema().or_else(|| envelope.database()), envelope.table()];
    let table = table.map(|name| name.unwrap_or("?")).join(".");
    NoLayout {
        code: "no_primary_key",
        message: format!("table {table} has no primary key: its events name no row"),
        way_out: "give the table a primary key or set message.key.columns in \
                  source.connector_properties, deploy and take a new snapshot, or leave it out of \
                  the sink's tables; then cdc skip passes the records without key"
            .to_owned(),
    }
}

fn unknown_key(name: &str) -> NoLayout {
    NoLayout {
        code: "key_unknown",
        message: format!("the key has a column {name} that the rows do not have"),
        way_out: "correct message.key.columns of the connector, or leave the table out of the \
                  sink's tables"
            .to_owned(),
    }
}

fn no_key_type(name: &str, ty: &FieldType) -> NoLayout {
    NoLayout {
        code: "key_type",
        message: format!("column {name} of the key is {ty}, of which a table keeps no index"),
        way_out: "leave the table out of the sink's tables, or use write_mode: append".to_owned(),
    }
}
