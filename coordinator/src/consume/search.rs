//! Looks for a place in the source's log.

use std::collections::BTreeMap;

use cdc_shared::avro::{CellBuf, frame};
use cdc_shared::config::KafkaConfig;
use cdc_shared::registry::{Registry, RegistryError, Schema};
use cdc_shared::source_position::SourcePosition;
use rdkafka::message::Message as _;

use super::{From, Reader};
use crate::cli::Failure;

/// The first record of each partition of `topic` that lies at `place` or behind it, of those that
/// have one. Every record before is read: a connector that repeats itself leaves no order to halve.
///
/// # Errors
/// Kafka or the registry cannot be reached.
pub(crate) async fn first_at(
    kafka: &KafkaConfig,
    registry: &Registry,
    topic: &str,
    place: &SourcePosition,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut reader = Reader::open(kafka, &[topic.to_owned()], From::Beginning).await?;
    let mut found = BTreeMap::new();
    while !reader.at_end() {
        let Some(record) = reader.next().await? else { continue };
        let Some(Ok((id, datum))) = record.payload().map(frame) else { continue };
        let schema = match registry.schema(id).await {
            Ok(schema) => schema,
            Err(RegistryError::Unavailable { address, reason, .. }) => {
                return Err(Failure::unreachable("the schema registry", &address, &reason));
            }
            Err(error) => {
                tracing::debug!(%error, offset = record.offset(), "passed in a search");
                continue;
            }
        };
        if reaches(&schema, datum, place) {
            found.entry(record.partition()).or_insert_with(|| record.offset());
            reader.leave(topic, record.partition());
        }
    }
    Ok(found)
}

fn reaches(schema: &Schema, datum: &[u8], place: &SourcePosition) -> bool {
    let Some(plan) = schema.kind.envelope() else { return false };
    let mut cells = CellBuf::new();
    let Ok(root) = schema.plan.decode(datum, &mut cells) else { return false };
    let Ok(event) = plan.envelope(root, &cells) else { return false };
    place.is_reached_by(&event) == Some(true)
}
