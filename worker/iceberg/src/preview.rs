//! What becomes of a source's column and of one value of it, without a table.

use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use cdc_shared::avro::{Column, Plan, Value};

use crate::column::ColumnBuilder;
use crate::types::{Codec, FieldType, TypeOptions, Unmappable, choose};

/// The type of a column in a table, and the way of its values there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnPreview {
    ty: FieldType,
    codec: Codec,
}

impl ColumnPreview {
    /// For a column of the source's row.
    ///
    /// # Errors
    /// When its values cannot be kept exactly.
    pub fn of(plan: &Plan, column: &Column, options: TypeOptions) -> Result<Self, Unmappable> {
        let (ty, codec) = choose(plan, column, options)?;
        Ok(Self { ty, codec })
    }

    /// The type as Iceberg writes it.
    pub fn type_text(&self) -> String {
        self.ty.to_string()
    }

    /// A value as the table would hold it; `None` for NULL.
    ///
    /// # Errors
    /// The code of the fault for which a record with it is refused.
    pub fn value(&self, value: Value<'_, '_>) -> Result<Option<String>, &'static str> {
        let array = self.array(value)?;
        let options = FormatOptions::new().with_null("NULL");
        let formatter = ArrayFormatter::try_new(&array, &options).map_err(|_| "internal")?;
        Ok((!array.is_null(0)).then(|| formatter.value(0).to_string()))
    }

    /// The same as it is compared with the source's.
    ///
    /// # Errors
    /// The code of the fault for which a record with it is refused, or a type without such a text.
    pub fn compared(&self, value: Value<'_, '_>) -> Result<Option<String>, &'static str> {
        crate::text::text(&self.array(value)?, 0).map_err(|_| "no_text")
    }

    fn array(&self, value: Value<'_, '_>) -> Result<ArrayRef, &'static str> {
        let mut builder = ColumnBuilder::new(&self.codec, &self.ty);
        builder.push(&self.codec, value).map_err(|fault| fault.code)?;
        builder.finish().map_err(|_| "internal")
    }
}
