//! The offsets that a table holds: which records of which partitions are in it.
//!
//! They stand in the summary of every snapshot of ours, as of that snapshot, and in one property of
//! the table, with the snapshot that they belong to, so that neither the expiry of snapshots nor
//! commits of others lose them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use iceberg::spec::{SnapshotRef, TableMetadata};
use serde::{Deserialize, Serialize};

use super::take_back::goes_back;
use crate::error::{Kind, LakeError, Result};
use crate::upsert::{Again, AgainDocument, Moves, MovesDocument, Rejected, RejectedDocument};

/// Summary key of the id that names a commit of ours.
pub(super) const COMMIT_ID: &str = "cdc.commit-id";

/// What the names of all properties with offsets begin with.
pub(super) const OFFSETS: &str = "cdc.offsets.";

/// Whose offsets: the name of the property and of the summary's entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    key: String,
    what: String,
}

impl Owner {
    /// A sink of a pipeline.
    pub fn new(pipeline_id: &str, sink_id: &str) -> Self {
        Self {
            key: format!("{OFFSETS}{pipeline_id}.{sink_id}"),
            what: format!("sink {sink_id} of pipeline {pipeline_id}"),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// Position of every partition.
pub type Offsets = BTreeMap<TopicPartition, Position>;

/// What the property holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Stored {
    pub(super) offsets: Offsets,
    /// The snapshot of ours that holds the newest data, if any was written.
    pub(super) holder: Option<Holder>,
    /// Of a table that is kept by key.
    pub(super) keyed: Option<Keyed>,
}

/// What a table that is kept by key holds beside the offsets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Keyed {
    /// Partitions of the topic: another number sends keys to other partitions.
    pub(super) partitions: Option<i32>,
    /// Changes of keys of which one half is in the table.
    pub(super) moves: Moves,
    /// Partitions whose records come again up to where the sink was.
    pub(super) again: BTreeMap<i32, Again>,
    /// Partitions that may have rows of a former topic of their name.
    pub(super) former: BTreeSet<i32>,
    /// Records that the dead letter queue has, by their partitions.
    pub(super) rejected: BTreeMap<i32, Rejected>,
}

impl Keyed {
    /// A partition goes from one position to another.
    pub(super) fn go(&mut self, partition: i32, from: &Position, to: &Position) {
        if from.topic_id != to.topic_id {
            self.former.insert(partition);
            self.rejected.remove(&partition);
            self.again.remove(&partition);
        } else if goes_back(from, to) {
            let again = self.again.entry(partition).or_default();
            again.take_back(from.next.get(), to.next.get());
        } else if self.again.get(&partition).is_some_and(|again| again.until <= to.next.get()) {
            self.again.remove(&partition);
        }
    }
}

/// Its text.
#[derive(Debug, Serialize, Deserialize)]
struct KeyedDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    #[serde(flatten)]
    moves: MovesDocument,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    again: BTreeMap<i32, AgainDocument>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    former: BTreeSet<i32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rejected: BTreeMap<i32, RejectedDocument>,
}

/// A snapshot of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) snapshot: i64,
    pub(super) sequence: i64,
}

/// The property's text.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
    topics: Vec<TopicDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyed: Option<KeyedDocument>,
}

/// One topic: `[next offset, incarnation, key schema, value schema]` by partition.
#[derive(Debug, Serialize, Deserialize)]
struct TopicDocument {
    topic: Arc<str>,
    id: TopicId,
    partitions: BTreeMap<i32, (NextOffset, Incarnation, Option<i32>, Option<i32>)>,
}

fn topics(offsets: &Offsets) -> Vec<TopicDocument> {
    let mut topics: Vec<TopicDocument> = Vec::new();
    for (tp, position) in offsets {
        let schemas = position.schemas;
        let entry = (position.next, position.incarnation, schemas.key, schemas.value);
        let same = topics
            .iter_mut()
            .find(|known| known.topic == tp.topic && known.id == position.topic_id);
        match same {
            Some(known) => drop(known.partitions.insert(tp.partition, entry)),
            None => topics.push(TopicDocument {
                topic: tp.topic.clone(),
                id: position.topic_id.clone(),
                partitions: BTreeMap::from([(tp.partition, entry)]),
            }),
        }
    }
    topics
}

fn offsets(topics: Vec<TopicDocument>) -> Offsets {
    let mut offsets = Offsets::new();
    for TopicDocument { topic, id, partitions } in topics {
        for (partition, (next, incarnation, key, value)) in partitions {
            let schemas = SchemaIds { key, value };
            let position = Position { next, incarnation, topic_id: id.clone(), schemas };
            offsets.insert(TopicPartition::new(topic.clone(), partition), position);
        }
    }
    offsets
}

impl Stored {
    /// A partition of a table that is kept by key goes from one position to another.
    pub(super) fn go_by_key(&mut self, partition: i32, from: Option<&Position>, to: &Position) {
        if self.holder.is_none() {
            // What holds it may be a snapshot without rows, which must not look like a log.
            self.keyed.get_or_insert_default();
        }
        if let (Some(keyed), Some(from)) = (&mut self.keyed, from) {
            keyed.go(partition, from, to);
        }
    }

    /// The property's text.
    pub(super) fn property(&self) -> Result<String> {
        write(&self.document(self.holder))
    }

    /// The summary's text.
    pub(super) fn summary(&self) -> Result<String> {
        write(&self.document(None))
    }

    fn document(&self, holder: Option<Holder>) -> Document {
        let keyed = self.keyed.as_ref().map(|keyed| KeyedDocument {
            partitions: keyed.partitions,
            moves: MovesDocument::from(&keyed.moves),
            again: keyed.again.iter().map(|(of, again)| (*of, again.into())).collect(),
            former: keyed.former.clone(),
            rejected: keyed.rejected.iter().map(|(of, all)| (*of, all.into())).collect(),
        });
        Document { holder, topics: topics(&self.offsets), keyed }
    }
}

fn write(document: &Document) -> Result<String> {
    serde_json::to_string(document).map_err(|error| LakeError::internal("writing offsets", error))
}

fn parse(owner: &Owner, at: &str, text: &str) -> Result<Stored> {
    let document: Document = serde_json::from_str(text).map_err(|error| {
        let message = format!("{} in {at} cannot be read", owner.key);
        LakeError::new(Kind::Unfit, "offsets_unreadable", message)
            .caused_by(error)
            .hint("restore the table's property, or roll the table back to before it was changed")
    })?;
    let keyed = document.keyed.map(|keyed| Keyed {
        partitions: keyed.partitions,
        moves: Moves::from(keyed.moves),
        again: keyed.again.into_iter().map(|(of, again)| (of, again.into())).collect(),
        former: keyed.former,
        rejected: keyed.rejected.into_iter().map(|(of, all)| (of, all.into())).collect(),
    });
    Ok(Stored { offsets: offsets(document.topics), holder: document.holder, keyed })
}

/// Snapshots from main's newest to the oldest that is kept.
pub(super) fn lineage(metadata: &TableMetadata) -> impl Iterator<Item = &SnapshotRef> {
    std::iter::successors(metadata.current_snapshot(), |snapshot| {
        metadata.snapshot_by_id(snapshot.parent_snapshot_id()?)
    })
}

/// Whether a commit is in the table.
pub(super) fn has_commit(metadata: &TableMetadata, id: &str) -> bool {
    let is = |text: Option<&String>| text.is_some_and(|text| text == id);
    is(metadata.properties().get(COMMIT_ID))
        || lineage(metadata)
            .any(|snapshot| is(snapshot.summary().additional_properties.get(COMMIT_ID)))
}

/// What a table holds of a sink; `None` when nothing.
///
/// The property counts as long as main still has the snapshot that it belongs to. Where main was
/// taken back to before it, what counts is the newest snapshot of the sink that main has.
pub(super) fn read(metadata: &TableMetadata, owner: &Owner) -> Result<Option<Stored>> {
    let at = || format!("the metadata of table {}", metadata.uuid());
    let Some(text) = metadata.properties().get(&owner.key) else {
        return newest_summary(metadata, owner);
    };
    let stored = parse(owner, &at(), text)?;
    let Some(holder) = stored.holder else { return Ok(Some(stored)) };
    for snapshot in lineage(metadata) {
        if snapshot.snapshot_id() == holder.snapshot {
            return Ok(Some(stored));
        }
        if snapshot.sequence_number() < holder.sequence {
            return rolled_back(metadata, owner);
        }
    }
    // The chain ends before it comes to the holder. Where that was expired its data is in what is
    // newer; PyIceberg takes the parent off a snapshot whose parent it expires, so that the chain
    // itself does not tell. A holder that is still there is main's no more.
    let is_kept = metadata.snapshot_by_id(holder.snapshot).is_some();
    if is_kept || metadata.current_snapshot().is_none() {
        return rolled_back(metadata, owner);
    }
    Ok(Some(stored))
}

/// Files that changes of keys may yet be completed from, though no snapshot needs them: as the table
/// is, and as it would be if it were taken back to one of some snapshots.
pub(super) fn files_of_moves<'s>(
    metadata: &TableMetadata,
    owner: &Owner,
    snapshots: impl Iterator<Item = &'s SnapshotRef>,
) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut take = |at: &str, text: Option<&String>| {
        let stored = text.map(|text| parse(owner, at, text)).transpose()?;
        let keyed = stored.and_then(|stored| stored.keyed);
        files.extend(keyed.iter().flat_map(|keyed| keyed.moves.files()).map(ToString::to_string));
        Ok::<_, LakeError>(())
    };
    let at = format!("the metadata of table {}", metadata.uuid());
    take(&at, metadata.properties().get(&owner.key))?;
    for snapshot in snapshots {
        let at = format!("snapshot {}", snapshot.snapshot_id());
        take(&at, snapshot.summary().additional_properties.get(&owner.key))?;
    }
    Ok(files)
}

fn rolled_back(metadata: &TableMetadata, owner: &Owner) -> Result<Option<Stored>> {
    if let Some(stored) = newest_summary(metadata, owner)? {
        return Ok(Some(stored));
    }
    let message = format!(
        "table {} was taken back to before anything that {} wrote and kept offsets of",
        metadata.location(),
        owner.what
    );
    let error = LakeError::new(Kind::Replaced, "table_rolled_back", message);
    Err(error.hint("roll the table forward again, or rewind the topics that feed it"))
}

fn newest_summary(metadata: &TableMetadata, owner: &Owner) -> Result<Option<Stored>> {
    for snapshot in lineage(metadata) {
        let Some(text) = snapshot.summary().additional_properties.get(&owner.key) else { continue };
        let at = format!("snapshot {}", snapshot.snapshot_id());
        let holder =
            Holder { snapshot: snapshot.snapshot_id(), sequence: snapshot.sequence_number() };
        let stored = Stored { holder: Some(holder), ..parse(owner, &at, text)? };
        return Ok(Some(stored));
    }
    Ok(None)
}
