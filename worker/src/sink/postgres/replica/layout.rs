//! What the rows of one value schema look like in the mirror: worked out once per schema.

use cdc_shared::avro::{Column, Plan};
use cdc_shared::envelope::Envelope;

use super::naming::{NamePattern, SourceTable};
use super::types::{ColumnType, EnumHandling, NotConstant, TypeOptions, default_sql};
use crate::sink::Rejection;
use crate::sink::name::TableName;

/// Rows of one value schema, keyed by one key schema.
#[derive(Debug)]
pub(super) struct Layout {
    /// Registry id of the value's schema.
    pub(super) schema_id: i32,
    /// Registry id of the key's schema.
    pub(super) key_schema_id: i32,
    /// The table at the source.
    pub(super) source: SourceTable,
    /// Its mirror.
    pub(super) target: TableName,
    /// Columns, in the order of the schema.
    pub(super) columns: Vec<LayoutColumn>,
    /// Positions of the key's columns, in the order of the Kafka key.
    pub(super) key: Vec<usize>,
    /// Whether values can be missing from its rows.
    pub(super) may_miss_values: bool,
}

/// One column of a layout.
#[derive(Debug)]
pub(super) struct LayoutColumn {
    /// Its name at the source and in the mirror.
    pub(super) name: String,
    /// Its type in the mirror.
    pub(super) ty: ColumnType,
    /// Whether the source refuses NULL.
    pub(super) required: bool,
    /// Whether a value can be missing because it did not change.
    pub(super) may_be_missing: bool,
    /// What the source gave to the rows that were there when it added the column; `Err`: why that
    /// is not known.
    pub(super) default: Result<Option<String>, NotConstant>,
}

/// What layouts depend on beside the schemas.
#[derive(Clone, Debug)]
pub(super) struct LayoutOptions {
    /// Names of the mirrors.
    pub(super) names: NamePattern,
    /// How types are chosen; without the enums' own.
    pub(super) types: TypeOptions,
    /// Whether enums become types of the target.
    pub(super) creates_enums: bool,
}

impl LayoutOptions {
    fn types_of(&self, target: &TableName) -> TypeOptions {
        let TableName { schema, table } = target.clone();
        let enums = if self.creates_enums {
            EnumHandling::Create { schema, table }
        } else {
            EnumHandling::Text
        };
        TypeOptions { enums, ..self.types.clone() }
    }

    /// The mirror of a table.
    ///
    /// # Errors
    /// A name that PostgreSQL would cut.
    pub(super) fn target(&self, source: &SourceTable) -> Result<TableName, Rejection> {
        self.names.of(source).map_err(|why| {
            let message = format!("the mirror of table {source} cannot have its name: {why}");
            Rejection::stop("name_refused", message, "set target_table to a shorter pattern")
        })
    }
}

impl Layout {
    /// The layout of an event's value and key.
    ///
    /// # Errors
    /// A table or column that cannot be mirrored: a stop by name.
    pub(super) fn of(
        options: &LayoutOptions,
        envelope: &Envelope<'_, '_>,
        key: &Plan,
    ) -> Result<Self, Rejection> {
        let plan = envelope.record().plan();
        let source = source_table(envelope)?;
        let target = options.target(&source)?;
        let types = options.types_of(&target);
        let columns: Result<Vec<_>, _> = envelope
            .table_columns()
            .iter()
            .map(|column| LayoutColumn::of(&types, plan, column, &source))
            .collect();
        let columns = columns?;
        let key_columns = key.columns(key.root());
        let position = |column: &Column| {
            let found = envelope.table_columns().iter().position(|c| c.name == column.name);
            found.ok_or_else(|| {
                let message = format!(
                    "the key of table {source} has a column {} that its rows do not have",
                    column.name
                );
                let way_out = "correct message.key.columns of the connector, or leave the table \
                               out of the sink's tables";
                Rejection::stop("key_unknown", message, way_out)
            })
        };
        let key: Result<Vec<_>, _> = key_columns.iter().map(position).collect();
        let layout = Self {
            schema_id: plan.schema_id(),
            key_schema_id: 0,
            source,
            target,
            may_miss_values: columns.iter().any(|column| column.may_be_missing),
            columns,
            key: key?,
        };
        if layout.key.is_empty() { Err(no_key(&layout.source)) } else { Ok(layout) }
    }

    /// The layout with the id of its key's schema.
    pub(super) fn keyed_by(self, key_schema_id: i32) -> Self {
        Self { key_schema_id, ..self }
    }

    /// Names of the columns.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }
}

/// Events without a key cannot be mirrored.
pub(super) fn no_key(source: &SourceTable) -> Rejection {
    let message = format!("table {source} has no primary key: its events name no row");
    let way_out = "give the table a primary key or set message.key.columns in \
                   source.connector_properties, deploy and take a new snapshot, or leave it out of \
                   the sink's tables; then cdc skip passes the records without key";
    Rejection::stop("no_primary_key", message, way_out)
}

/// The table that an event is about.
pub(super) fn source_table(envelope: &Envelope<'_, '_>) -> Result<SourceTable, Rejection> {
    let schema = envelope.schema().or_else(|| envelope.database());
    match (schema, envelope.table()) {
        (Some(schema), Some(table)) => {
            Ok(SourceTable { schema: schema.to_owned(), table: table.to_owned() })
        }
        _ => Err(Rejection::stop(
            "source_unknown",
            "the event does not say which table it is of (its source block has no schema and table)",
            "take the transform off the connector that removes the source block",
        )),
    }
}

impl LayoutColumn {
    fn of(
        types: &TypeOptions,
        plan: &Plan,
        column: &Column,
        source: &SourceTable,
    ) -> Result<Self, Rejection> {
        let ty = ColumnType::of(plan, column, types).map_err(|why| {
            let message = format!("table {source}: {why}");
            Rejection::stop("type_refused", message, why.way_out)
        })?;
        let name = column.source_name().to_owned();
        let default = default_sql(&ty, plan, column);
        Ok(Self {
            name,
            required: !column.nullable,
            may_be_missing: column.toast != cdc_shared::avro::ToastShape::Never,
            default,
            ty,
        })
    }
}
