//! Keys of given-up records, as the comparison writes keys.

use std::collections::HashSet;

use cdc_shared::avro::{CellBuf, frame};
use cdc_shared::json::{JsonOptions, write_value};
use cdc_shared::registry::{Registry, Schema};
use serde_json::Value;

use super::failure::TaskFailure;
use super::query::Key;

/// The keys, decoded. One that cannot be read, or whose text is not the server's (a point in time
/// is a number here), is left out: its row then counts as any other difference.
///
/// # Errors
/// The registry does not answer.
pub(in crate::sink) async fn decoded(
    registry: &Registry,
    keys: &[Vec<u8>],
    columns: &[String],
) -> Result<HashSet<Key>, TaskFailure> {
    let mut found = HashSet::new();
    for bytes in keys {
        let Ok((id, datum)) = frame(bytes) else { continue };
        let schema = registry.schema(id).await.map_err(|error| {
            TaskFailure::failed(format!("read the key of a rejected record: {error}"))
        })?;
        found.extend(texts(&schema, datum, columns));
    }
    Ok(found)
}

fn texts(schema: &Schema, datum: &[u8], columns: &[String]) -> Option<Key> {
    let mut cells = CellBuf::default();
    let root = schema.plan.decode(datum, &mut cells).ok()?;
    let mut json = Vec::new();
    write_value(schema.plan.view(root, &cells), &JsonOptions::default(), &mut json).ok()?;
    let key: Value = serde_json::from_slice(&json).ok()?;
    let text = |column: &String| match key.get(column)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    columns.iter().map(text).collect()
}
