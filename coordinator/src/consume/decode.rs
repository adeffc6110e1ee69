//! Bytes of a record as JSON.

use cdc_shared::avro::{CellBuf, frame};
use cdc_shared::envelope::Op;
use cdc_shared::json::{JsonOptions, Unavailable, write_envelope, write_value};
use cdc_shared::registry::{Registry, RegistryError, Schema};
use serde_json::Value;

use crate::cli::Failure;

/// A decoded key or value.
pub(crate) struct Decoded {
    pub(crate) json: Value,
    /// What happened to the row, for a person.
    pub(crate) what: &'static str,
    /// Columns whose values were not sent.
    pub(crate) unavailable: Vec<String>,
}

/// Decodes a framed datum. Bytes that cannot be decoded are the inner error; the outer one is a
/// registry that does not answer.
pub(crate) async fn decode(
    registry: &Registry,
    bytes: &[u8],
) -> Result<Result<Decoded, String>, Failure> {
    let (id, datum) = match frame(bytes) {
        Ok(framed) => framed,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match registry.schema(id).await {
        Ok(schema) => Ok(by_schema(&schema, datum)),
        Err(RegistryError::Unavailable { address, reason, .. }) => {
            Err(Failure::unreachable("the schema registry", &address, &reason))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn by_schema(schema: &Schema, datum: &[u8]) -> Result<Decoded, String> {
    let mut cells = CellBuf::default();
    let root = schema.plan.decode(datum, &mut cells).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    let mut what = "record";
    let mut unavailable = Unavailable::default();
    if let Some(plan) = schema.kind.envelope() {
        let envelope = plan.envelope(root, &cells).map_err(|e| e.to_string())?;
        what = name(envelope.op());
        write_envelope(&envelope, &JsonOptions::default(), &mut out, &mut unavailable)
            .map_err(|e| e.to_string())?;
    } else {
        write_value(schema.plan.view(root, &cells), &JsonOptions::default(), &mut out)
            .map_err(|e| e.to_string())?;
    }
    let json = serde_json::from_slice(&out).map_err(|e| e.to_string())?;
    let images = [("before", &unavailable.before), ("after", &unavailable.after)];
    let unavailable = images
        .into_iter()
        .flat_map(|(image, columns)| columns.iter().map(move |c| format!("{image}.{c}")))
        .collect();
    Ok(Decoded { json, what, unavailable })
}

fn name(op: Op) -> &'static str {
    match op {
        Op::Create => "create",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Read => "snapshot",
        Op::Truncate => "truncate",
        Op::Message => "message",
    }
}
