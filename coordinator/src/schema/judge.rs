//! Judges one step of a subject: fetches both schemas, and asks the source which columns it
//! computes where the answer depends on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use cdc_shared::clock::unix_ms;
use cdc_shared::registry::{RegistryError, Schema};
use cdc_shared::schema::{FieldChange, FieldEffect, SchemaSubject, SchemaVerdict, topic_of};

use super::{SchemaMonitor, compare};
use crate::source;
use crate::state::Coordinator;

impl SchemaMonitor {
    /// The verdict on the step from `previous` to `this`.
    ///
    /// # Errors
    /// What is missing for one, and may come.
    pub(super) async fn judge(
        &self,
        coordinator: &Coordinator,
        subject: &SchemaSubject,
        previous: i32,
        this: i32,
    ) -> Result<SchemaVerdict, String> {
        let new = match self.registry.schema(this).await {
            Ok(schema) => Ok(schema),
            Err(RegistryError::Invalid { reason, .. }) => Err(format!("cannot be read: {reason}")),
            Err(error) => return Err(error.to_string()),
        };
        let old = match self.registry.schema(previous).await {
            Ok(schema) => Ok(schema),
            Err(error @ RegistryError::Unavailable { .. }) => return Err(error.to_string()),
            Err(error) => Err(format!("cannot be compared with the former: {error}")),
        };
        let changes = match (old, new) {
            (Ok(old), Ok(new)) => self.compare(coordinator, &subject.subject, &old, &new).await?,
            (Err(detail), _) | (_, Err(detail)) => {
                vec![FieldChange { field: String::new(), effect: FieldEffect::Schema, detail }]
            }
        };
        let this_version = subject.version_of(this);
        let asked = self.registry.is_compatible(&subject.subject, this_version, previous).await;
        Ok(SchemaVerdict {
            subject: subject.subject.clone(),
            previous,
            this,
            previous_version: subject.version_of(previous),
            this_version,
            compatible: compare::is_compatible(&changes),
            changes,
            registry_compatible: asked.unwrap_or_default(),
            at_ms: unix_ms(),
            accepted: None,
        })
    }

    async fn compare(
        &self,
        coordinator: &Coordinator,
        subject: &str,
        old: &Arc<Schema>,
        new: &Arc<Schema>,
    ) -> Result<Vec<FieldChange>, String> {
        let Some((topic, is_key)) = topic_of(subject) else {
            return Err(format!("subject {subject} belongs to no topic"));
        };
        if is_key {
            return Ok(compare::keys(old, new));
        }
        let changes = compare::values(old, new, &BTreeSet::new());
        // Only then does it matter what the source computes.
        if !changes.iter().any(|change| change.effect == FieldEffect::Removed) {
            return Ok(changes);
        }
        let generated = generated(coordinator, topic).await?;
        Ok(compare::values(old, new, &generated))
    }
}

/// The columns of a topic's table that the source computes.
async fn generated(coordinator: &Coordinator, topic: &str) -> Result<BTreeSet<String>, String> {
    let config = &coordinator.config;
    let table = topic.strip_prefix(&format!("{}.", config.topic_prefix)).unwrap_or(topic);
    if config.source.password_is_connects() {
        tracing::warn!(
            table,
            "the source's password is known to Kafka Connect only: a column that \
            is gone counts as removed, though the source may compute it"
        );
        return Ok(BTreeSet::new());
    }
    let names =
        source::generated_columns(config, &[table.to_owned()]).await.map_err(|failure| {
            format!("the source cannot be asked which columns of {table} it computes: {failure}")
        })?;
    let own = format!("{table}.");
    Ok(names.iter().filter_map(|name| name.strip_prefix(&own)).map(str::to_owned).collect())
}
