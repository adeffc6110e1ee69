//! Parts of a commit to a table that is kept by key whose records come again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use cdc_shared::offset::Position;

use super::Loaded;
use super::commit::{Commit, Outcome, Reached};
use super::index::Indexed;
use super::offsets::{Keyed, Stored};
use super::read;
use crate::error::{Kind, LakeError, Result};
use crate::rows::Segment;
use crate::upsert::{Again, KeyHash, Returning};

/// What a partition is on its way to, with the offsets of the stored rows of the keys in some rows.
pub(super) async fn returning(
    loaded: &Loaded,
    keyed: Option<&Keyed>,
    partition: i32,
    segments: &[Arc<Segment>],
    indexed: Option<&Indexed>,
) -> Result<Option<Returning>> {
    let Some(keyed) = keyed else { return Ok(None) };
    let Some(again) = keyed.again.get(&partition).cloned() else { return Ok(None) };
    let mut returning = Returning { again, ..Returning::default() };
    let column = loaded.metadata.current_schema().field_by_name("_cdc_offset");
    // Where rows are left of a former topic, their offsets say nothing.
    let says = !keyed.former.contains(&partition);
    if let (Some(indexed), Some(column), true) = (indexed, column, says) {
        returning.stored = stored(loaded, segments, indexed, column.id).await?;
    }
    Ok(Some(returning))
}

/// Offsets of the stored rows of keys.
async fn stored(
    loaded: &Loaded,
    segments: &[Arc<Segment>],
    indexed: &Indexed,
    column: i32,
) -> Result<HashMap<KeyHash, i64>> {
    let hashes: BTreeSet<KeyHash> =
        segments.iter().flat_map(|segment| segment.marks.hashes.iter().copied()).collect();
    let mut files: BTreeMap<u32, BTreeMap<u32, KeyHash>> = BTreeMap::new();
    for hash in hashes {
        if let Some(place) = indexed.keys.get(hash) {
            files.entry(place.file).or_default().insert(place.row, hash);
        }
    }
    let mut stored = HashMap::new();
    for (file, rows) in files {
        let Some(path) = indexed.files.get(file as usize) else { continue };
        let numbers: Vec<u32> = rows.keys().copied().collect();
        let columns = read::read_rows(&loaded.io, path, &[column], &numbers).await?;
        let offsets = columns.get(&column).map(ArrayRef::as_ref);
        let offsets = offsets.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let Some(offsets) = offsets else { continue };
        for (at, hash) in rows.into_values().enumerate() {
            if at < offsets.len() && offsets.is_valid(at) {
                stored.insert(hash, offsets.value(at));
            }
        }
    }
    Ok(stored)
}

/// Most rows of a partition that are left out at a time: they stand in the table's property.
const MOST: usize = 10_000;

impl Commit {
    /// What is left of the way once a part is at a position; `Err`: not all rows came that are owed, or
    /// too many are.
    fn rest(
        &self,
        again: Again,
        position: &Position,
    ) -> std::result::Result<Option<Again>, LakeError> {
        if position.next.get() < again.until && again.owed.len() <= MOST {
            return Ok(Some(again));
        }
        let Some(first) = again.owed.values().min() else { return Ok(None) };
        let message = format!(
            "{} rows of table {} are not whole: changes that came again, the first at offset {first}, \
             left out large values that did not change, and neither the row nor its delete has come",
            again.owed.len(),
            self.table.name
        );
        Err(LakeError::new(Kind::Unfit, "rows_incomplete", message).hint(
            "rewind to before those rows were created (--to beginning, if the log still has them); or \
             --to end, and fetch them by a new snapshot of the table (cdc snapshot FILE --table)",
        ))
    }

    /// What is on its way to where it was, after a commit that brings parts to these positions with so
    /// much owed. A part that may not go there is settled, and given.
    pub(super) fn ways(
        &mut self,
        stored: &Stored,
        reached: &Reached,
        owed: &BTreeMap<usize, BTreeMap<KeyHash, i64>>,
    ) -> std::result::Result<BTreeMap<i32, Again>, usize> {
        let mut ways = stored.keyed.as_ref().map(|keyed| keyed.again.clone()).unwrap_or_default();
        for (at, position, _) in reached {
            let Some(part) = self.parts.get(*at) else { continue };
            let partition = part.tp.partition;
            let Some(mut again) = ways.get(&partition).cloned() else { continue };
            if let Some(owed) = owed.get(at) {
                again.owed.clone_from(owed);
            }
            match self.rest(again, position) {
                Ok(Some(again)) => drop(ways.insert(partition, again)),
                Ok(None) => drop(ways.remove(&partition)),
                Err(error) => {
                    self.settle_one(*at, Outcome::Stopped(error));
                    return Err(*at);
                }
            }
        }
        Ok(ways)
    }
}
