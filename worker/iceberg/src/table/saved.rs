//! The index of a partition in a file beside its table, so that whoever has the partition next reads
//! only what the table has become since.
//!
//! A file that is old, torn or gone costs time and nothing else: what it says of a data file counts
//! only if it accounts for each of its rows (`index.rs`).

use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use cdc_shared::offset::TopicPartition;
use iceberg::io::FileIO;
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::index::{Former, Indexed, PartitionIndex};
use super::offsets::Owner;
use super::{LakeTable, Loaded};
use crate::error::{LakeError, Result};
use crate::upsert::Builder;

/// Format, and the way keys are hashed.
const MAGIC: &[u8; 8] = b"cdcidx01";
const CHECKSUM: usize = 16;

/// What stands before the rows.
#[derive(Serialize, Deserialize)]
struct Head {
    table: uuid::Uuid,
    partition: TopicPartition,
    key: Vec<String>,
    files: Vec<Arc<str>>,
}

impl LakeTable {
    /// Saves the index of a partition, if rows came to it since it was saved: any, or, where it is
    /// only `if_due`, so many that saving it costs less than reading them again.
    ///
    /// # Errors
    /// What cannot be written. The index is as it was.
    pub async fn save_index(&self, index: &PartitionIndex, if_due: bool) -> Result<()> {
        let state = index.lock().await;
        let least = |indexed: &Indexed| if if_due { indexed.keys.len() as u64 / 2 } else { 0 };
        if state.as_ref().is_none_or(|indexed| indexed.unsaved <= least(indexed)) {
            return Ok(());
        }
        let Some(loaded) = self.load().await? else { return Ok(()) };
        let partition = index.partition().clone();
        let path = path(&loaded, &self.lake.owner, &partition);
        let encoded = tokio::task::spawn_blocking(move || {
            let bytes = state.as_ref().map(|indexed| encode(indexed, partition));
            (state, bytes)
        });
        let failed = |error| LakeError::internal("saving an index", error);
        let (mut state, bytes) = encoded.await.map_err(failed)?;
        let (Some(indexed), Some(bytes)) = (state.as_mut(), bytes) else { return Ok(()) };
        let bytes = bytes.map_err(|error| LakeError::internal("saving an index", error))?;
        let (size, written) = (bytes.len(), write(&loaded.io, &path, bytes).await);
        written.map_err(|error| LakeError::warehouse(&format!("writing {path}"), error))?;
        indexed.unsaved = 0;
        tracing::debug!(table = %self.name, tp = %index.partition(), size, "index saved");
        Ok(())
    }

    /// What was saved of a partition's index.
    pub(super) async fn saved_index(
        &self,
        loaded: &Loaded,
        tp: &TopicPartition,
        key: &[String],
    ) -> Option<Former> {
        let path = path(loaded, &self.lake.owner, tp);
        // What cannot be read is made anew, whether it is not there or why ever.
        let bytes = loaded.io.new_input(&path).ok()?.read().await.ok()?;
        let decoded = tokio::task::spawn_blocking(move || decode(&bytes)).await.ok()?;
        let Some((head, rows)) = decoded else {
            tracing::warn!(table = %self.name, %tp, path, "the saved index is torn, it is made anew");
            return None;
        };
        let fits = head.table == loaded.metadata.uuid() && head.partition == *tp && head.key == key;
        fits.then_some(Former { files: head.files, rows })
    }
}

/// Beside data and metadata, where nobody looks for files of the table.
fn path(loaded: &Loaded, owner: &Owner, tp: &TopicPartition) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(owner.key().as_bytes());
    hasher.write_u8(0);
    hasher.write(tp.topic.as_bytes());
    let name = hasher.finish128().as_u128();
    format!("{}/index/{name:032x}-p{}.idx", loaded.metadata.location(), tp.partition)
}

async fn write(io: &FileIO, path: &str, bytes: Vec<u8>) -> iceberg::Result<()> {
    io.new_output(path)?.write(Bytes::from(bytes)).await
}

fn encode(indexed: &Indexed, partition: TopicPartition) -> serde_json::Result<Vec<u8>> {
    let head = serde_json::to_vec(&Head {
        table: indexed.table,
        partition,
        key: indexed.key.clone(),
        files: indexed.files.clone(),
    })?;
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(head.len() as u64).to_le_bytes());
    out.extend_from_slice(&head);
    indexed.keys.encode(&mut out);
    let checksum = checksum(&out);
    out.extend_from_slice(&checksum);
    Ok(out)
}

fn decode(bytes: &[u8]) -> Option<(Head, Builder)> {
    let (body, found) = bytes.split_last_chunk::<CHECKSUM>()?;
    if checksum(body) != *found {
        return None;
    }
    let (length, rest) = body.strip_prefix(MAGIC)?.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (head, rows) = rest.split_at_checked(length)?;
    Some((serde_json::from_slice(head).ok()?, Builder::decode(rows)?))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_bytes()
}
