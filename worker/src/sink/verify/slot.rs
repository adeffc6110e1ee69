//! How far Kafka has what a PostgreSQL source has written: by its replication slot.
//!
//! The connector confirms only what Kafka has acknowledged, so what lies below the slot's position is
//! in its topic. A slot moves only when something comes by it; on a quiet source that is a message
//! written to the log (`pg_logical_emit_message`), which touches no table and ends in topic
//! `{prefix}.message`.

use async_trait::async_trait;

use super::failure::TaskFailure;
use super::side::Side;
use super::upstream::{Arrival, Upstream};
use crate::source::probe::Probe;
use crate::task::Tell;

const POSITION: &str = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
     ELSE pg_current_wal_insert_lsn() END)::text, pg_is_in_recovery()";
const MARK: &str = "SELECT pg_logical_emit_message(true, 'cdc-verify', $1::text)::text";
/// Strictly behind it: a slot that was just made stands at the source's position while the
/// connector still reads the first snapshot.
const SLOT: &str = "SELECT confirmed_flush_lsn > $2::text::pg_lsn, confirmed_flush_lsn::text, \
     active FROM pg_replication_slots WHERE slot_name = $1";

/// See the module.
pub(in crate::sink) struct Slot<'s> {
    pub(in crate::sink) source: &'s Side,
    /// The connector's replication slot.
    pub(in crate::sink) name: String,
    /// The topic of messages, where a mark may be written.
    pub(in crate::sink) message_topic: String,
    /// What the mark says.
    pub(in crate::sink) mark: String,
    pub(in crate::sink) probe: Probe,
}

#[async_trait]
impl Upstream for Slot<'_> {
    async fn take(&self, tell: &Tell) -> Result<String, TaskFailure> {
        let rows = self.source.ask("take the position", POSITION, &[]).await?;
        let Some(row) = rows.first() else {
            return Err(TaskFailure::failed("the source tells no position"));
        };
        let (position, standby): (String, bool) = (row.get(0), row.get(1));
        // Without its topic the connector might fail to write the message.
        if !standby && self.probe.exists(&self.message_topic).await.unwrap_or(false) {
            let marked = self.source.ask("write a mark into the log", MARK, &[&self.mark]).await?;
            return Ok(marked.first().map_or(position, |row| row.get(0)));
        }
        tell.step(&format!(
            "no mark is written (topic {} does not exist, or the source is a standby): waiting \
             for the source's own changes",
            self.message_topic
        ));
        Ok(position)
    }

    async fn arrived(&self, position: &str) -> Result<Arrival, TaskFailure> {
        let rows = self.source.ask("look at the slot", SLOT, &[&self.name, &position]).await?;
        let Some(row) = rows.first() else {
            let message = format!("{} has no replication slot {}", self.source.place, self.name);
            return Err(TaskFailure::failed(message).hint("cdc deploy FILE makes it"));
        };
        let (reached, at): (Option<bool>, Option<String>) = (row.get(0), row.get(1));
        if reached == Some(true) {
            return Ok(Arrival::Complete);
        }
        let at = at.unwrap_or_else(|| "nothing".to_owned());
        let idle = if row.get::<_, bool>(2) { "" } else { "; no connector reads it" };
        Ok(Arrival::Pending(format!("slot {} has confirmed {at}{idle}", self.name)))
    }
}
