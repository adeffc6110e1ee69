//! The audit trail: who changed what, from what to what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One record of the control topic that a command has changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditedChange {
    /// The record's key.
    pub key: String,
    /// What it was; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// One command that changed something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// By whom: what the caller says of itself, whose token it bore, from where.
    pub by: String,
    /// When, Unix ms.
    pub at_ms: i64,
    /// What was done.
    pub action: String,
    /// What it changed.
    pub changes: Vec<AuditedChange>,
}

/// The newest commands, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditTrail {
    /// The pipeline.
    pub pipeline_id: String,
    /// Its commands.
    pub entries: Vec<AuditEntry>,
}
