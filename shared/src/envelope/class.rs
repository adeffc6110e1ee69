//! What kind of record a value schema describes.

use std::sync::Arc;

use super::EnvelopePlan;
use super::fields::{Fields, position};
use crate::avro::Plan;

/// What a value schema is for. Only an envelope changes rows; the others are told apart so
/// that they are skipped, or stopped at, by name.
#[derive(Debug, Clone)]
pub enum ValueSchema {
    /// Change events of a table.
    Envelope(Box<EnvelopePlan>),
    /// `io.debezium.connector.common.Heartbeat`.
    Heartbeat,
    /// DDL of the source (topic named like the topic prefix).
    SchemaChange,
    /// BEGIN and END of transactions.
    Transaction,
    /// `io.debezium.connector.common.Notification`: progress of snapshots.
    Notification,
    /// Logical decoding messages (`pg_logical_emit_message`).
    LogicalMessage,
    /// Not Debezium's, or flattened by a transform.
    Other,
}

impl ValueSchema {
    /// By shape where the shape tells, by the schema's name where it must: names are the
    /// user's to change (`schema.name.adjustment.mode`, transforms), shapes hardly are.
    pub fn of(plan: Arc<Plan>) -> Self {
        if let Some(fields) = Fields::of(&plan) {
            return Self::Envelope(Box::new(EnvelopePlan { plan, fields }));
        }
        let has =
            |names: &[&str]| names.iter().all(|name| position(&plan, plan.root(), name).is_some());
        let name = plan.name().unwrap_or("");
        let ours = name.starts_with("io.debezium.connector.");
        let last = name.rsplit('.').next().unwrap_or("");
        match last {
            "Heartbeat" if ours => Self::Heartbeat,
            "Notification" if ours => Self::Notification,
            "SchemaChangeValue" => Self::SchemaChange,
            "TransactionMetadataValue" => Self::Transaction,
            "MessageValue" if ours => Self::LogicalMessage,
            _ if has(&["ddl", "tableChanges"]) => Self::SchemaChange,
            _ if has(&["status", "id", "event_count", "data_collections"]) => Self::Transaction,
            _ if has(&["op", "source", "message"]) => Self::LogicalMessage,
            _ => Self::Other,
        }
    }

    /// The envelope, if it is one.
    pub fn envelope(&self) -> Option<&EnvelopePlan> {
        match self {
            Self::Envelope(plan) => Some(plan),
            _ => None,
        }
    }
}
