//! The schema of a table, brought up to the rows that are to be written: columns are added, types
//! promoted as Iceberg allows; by field id, so that older files keep their meaning.

use std::sync::Arc;

use cdc_shared::config::IcebergWriteMode as WriteMode;
use iceberg::spec::{NestedField, Schema, TableMetadata};

use crate::catalog::TableName;
use crate::error::{Kind, LakeError, Result};
use crate::layout::{Layout, META, meta, meta_type};
use crate::types::{FieldType, Fit};

/// The columns that every table has.
pub(super) fn first_schema(mode: WriteMode) -> iceberg::Result<Schema> {
    let names = meta(mode);
    let mut last_id = names.len() as i32;
    let fields = names.iter().zip(1..).map(|(name, id)| {
        let ty = meta_type(name).with_ids(&mut last_id);
        Arc::new(NestedField::optional(id, *name, ty))
    });
    Schema::builder().with_fields(fields.collect::<Vec<_>>()).build()
}

/// A schema on its way to one that holds more.
pub(super) struct Evolving {
    fields: Vec<Arc<NestedField>>,
    last_id: i32,
    changes: Vec<String>,
}

impl Evolving {
    /// The schema as it is.
    pub(super) fn new(metadata: &TableMetadata) -> Self {
        Self {
            fields: metadata.current_schema().as_struct().fields().to_vec(),
            last_id: metadata.last_column_id(),
            changes: Vec::new(),
        }
    }

    /// Makes it hold rows of these layouts.
    ///
    /// # Errors
    /// A column that cannot hold its values. The schema is as before then.
    pub(super) fn take<'l>(
        &mut self,
        table: &TableName,
        layouts: impl Iterator<Item = &'l Layout>,
    ) -> Result<()> {
        let mut last: Option<&Layout> = None;
        let before = (self.fields.clone(), self.last_id, self.changes.len());
        for layout in layouts {
            if last.is_some_and(|last| std::ptr::eq(last, layout)) {
                continue;
            }
            last = Some(layout);
            if let Err(error) = self.take_one(table, layout) {
                (self.fields, self.last_id) = (before.0, before.1);
                self.changes.truncate(before.2);
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_one(&mut self, table: &TableName, layout: &Layout) -> Result<()> {
        for column in &layout.columns {
            self.column(table, &column.name, &column.ty)?;
        }
        for name in meta(layout.mode) {
            self.column(table, name, &meta_type(name))?;
        }
        self.optional();
        Ok(())
    }

    /// The schema; `None` when it is the table's.
    pub(super) fn schema(
        self,
        table: &TableName,
        metadata: &TableMetadata,
    ) -> Result<Option<Schema>> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        tracing::info!(%table, changes = %self.changes.join(", "), "schema evolves");
        let identifiers = metadata.current_schema().identifier_field_ids().collect::<Vec<_>>();
        let schema = Schema::builder()
            .with_fields(self.fields)
            .with_identifier_field_ids(identifiers)
            .build();
        schema.map(Some).map_err(|error| {
            let message = format!("table {table} cannot have the columns of the source");
            LakeError::new(Kind::Unfit, "table_unfit", message)
                .caused_by(error)
                .hint("let the sink create a table of its own, under another name")
        })
    }
}

impl Evolving {
    fn column(&mut self, table: &TableName, name: &str, wanted: &FieldType) -> Result<()> {
        let Some(found) = self.fields.iter_mut().find(|field| field.name == name) else {
            self.add(name, wanted);
            return Ok(());
        };
        match wanted.fit(&found.field_type) {
            Fit::Holds => Ok(()),
            Fit::Promote(ty) => {
                self.changes.push(format!("{name}: {} becomes {ty}", found.field_type));
                let field = NestedField { field_type: Box::new(ty), ..NestedField::clone(found) };
                *found = Arc::new(field);
                Ok(())
            }
            Fit::No => {
                let message = format!(
                    "column {name} of table {table} is {}, which does not hold the source's \
                     values of type {wanted}, and Iceberg does not promote it to that",
                    found.field_type
                );
                let error = LakeError::new(Kind::Unfit, "column_type", message);
                Err(error.hint(format!(
                    "rename the table's column {name}, so that one of the new type is added beside \
                     it, or let the source's column have its former type"
                )))
            }
        }
    }

    /// Columns of the source stand before those of every table.
    fn add(&mut self, name: &str, wanted: &FieldType) {
        self.last_id += 1;
        let id = self.last_id;
        let ty = wanted.with_ids(&mut self.last_id);
        self.changes.push(format!("{name} {wanted} is new"));
        let field = Arc::new(NestedField::optional(id, name, ty));
        let end = self.fields.iter().position(|field| META.contains(&field.name.as_str()));
        let end = end.filter(|_| !META.contains(&name)).unwrap_or(self.fields.len());
        self.fields.insert(end, field);
    }

    /// Rows may lack any column: a delete has its key only, and other tables may share this one.
    fn optional(&mut self) {
        for field in &mut self.fields {
            let always = META.iter().take(4).any(|name| *name == field.name);
            if field.required && !always {
                self.changes.push(format!("{} becomes optional", field.name));
                let field_of = NestedField { required: false, ..NestedField::clone(field) };
                *field = Arc::new(field_of);
            }
        }
    }
}
