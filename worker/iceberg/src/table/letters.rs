//! Dead letters that are written again: records that the table has passed.

use cdc_shared::offset::TopicPartition;

use super::commit::Reached;
use super::commit::{Commit, Outcome, Part};
use super::entries::Live;
use super::offsets::{self, Keyed, Stored};
use super::read::Gone;
use super::records::Records;
use super::{LakeTable, Loaded};
use crate::error::Result;
use crate::upsert::{LetterFate, Note, locate};

impl Commit {
    /// Parts that are letters and whose outcome is not known, with the offsets of their records.
    fn letters(&self) -> Vec<(usize, i64)> {
        let pending = self.pending().into_iter();
        pending.filter_map(|at| Some((at, self.parts.get(at)?.letter?))).collect()
    }

    /// Letters whose rows are in the change log need nothing more. Asked in every attempt: what it sees
    /// is what it commits to.
    pub(super) async fn settle_logged(&mut self, loaded: &Loaded) -> Result<()> {
        for (at, offset) in self.letters() {
            let Some(part) = self.parts.get(at) else { continue };
            if self.table.has_row(loaded, &part.tp, offset).await? {
                let outcome = Outcome::Durable(part.covers.clone(), part.rows());
                self.settle_one(at, outcome);
            }
        }
        Ok(())
    }

    /// Letters that a table kept by key has, or that do not stand any more.
    pub(super) fn settle_known(&mut self, stored: &Stored) {
        for (at, offset) in self.letters() {
            let Some(part) = self.parts.get(at) else { continue };
            let outcome = match fate(stored.keyed.as_ref(), part, offset) {
                Some(LetterFate::Stands) => continue,
                Some(LetterFate::Replayed) => Outcome::Durable(part.covers.clone(), part.rows()),
                _ => Outcome::Moved,
            };
            self.settle_one(at, outcome);
        }
    }

    /// Puts down what of a table's rejected records is rejected, settled and written again by a commit
    /// that brings parts to these positions.
    pub(super) fn note_rejected(&self, stored: &mut Stored, reached: &Reached) {
        let Some(keyed) = &mut stored.keyed else { return };
        for (at, position, _) in reached {
            let Some(part) = self.parts.get(*at) else { continue };
            if let Some(offset) = part.letter {
                if let Some(rejected) = keyed.rejected.get_mut(&part.tp.partition) {
                    rejected.replayed(offset, part.is_whole(0));
                }
                continue;
            }
            let rejected = keyed.rejected.get(&part.tp.partition);
            let notes =
                part.notes(position.next.get(), rejected.is_some_and(|all| !all.is_empty()));
            if !notes.is_empty() {
                keyed.rejected.entry(part.tp.partition).or_default().note(&notes);
            }
        }
    }
}

fn fate(keyed: Option<&Keyed>, part: &Part, offset: i64) -> Option<LetterFate> {
    keyed?.rejected.get(&part.tp.partition)?.fate(offset)
}

impl Part {
    /// Whether a row leaves nothing of what its key had before.
    fn is_whole(&self, row: usize) -> bool {
        locate(&self.segments, row)
            .is_some_and(|(segment, row)| !segment.marks.missing.contains_key(&row))
    }

    /// What there is to note below an offset, in order. `stand`: whether records stand already.
    fn notes(&self, below: i64, stand: bool) -> Vec<Note> {
        let Some(keyed) = &self.keyed else { return Vec::new() };
        let range = self.expected.next.get()..below;
        let given_up = keyed.given_up.iter().filter(|(offset, _)| range.contains(offset));
        let mut notes: Vec<Note> =
            given_up.map(|(offset, key)| Note::Rejected { offset: *offset, key: *key }).collect();
        if notes.is_empty() && !stand {
            return notes;
        }
        let offsets = self.segments.iter().flat_map(|segment| segment.offsets());
        let settled = offsets.zip(&*keyed.keys).enumerate();
        let settled = settled.filter(|(_, (offset, _))| range.contains(offset));
        notes.extend(settled.map(|(row, (offset, key))| Note::Settled {
            offset: *offset,
            key: *key,
            whole: self.is_whole(row),
        }));
        notes.sort_by_key(Note::offset);
        notes
    }
}

impl LakeTable {
    /// What became of a record that the sink has rejected; `None`: it is not remembered.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn letter(&self, tp: &TopicPartition, offset: i64) -> Result<Option<LetterFate>> {
        let loaded = self.loaded().await?;
        let stored = offsets::read(&loaded.metadata, &self.lake.owner)?;
        let keyed = stored.and_then(|stored| stored.keyed);
        Ok(keyed.and_then(|keyed| keyed.rejected.get(&tp.partition)?.fate(offset)))
    }

    /// Whether the change log has the row of a record.
    async fn has_row(&self, loaded: &Loaded, tp: &TopicPartition, offset: i64) -> Result<bool> {
        let mut searched = self.searched.lock().await;
        let live = Live::load(loaded, &searched).await.map_err(|error| self.unreadable(error))?;
        *searched = live;
        let records = Records { tp, offsets: offset..offset.saturating_add(1) };
        if self.rows_of(loaded, &searched, &records, &Gone::new()).await?.is_empty() {
            return Ok(false);
        }
        let gone = self.gone(loaded, &searched).await?;
        let found = self.rows_of(loaded, &searched, &records, &gone).await?;
        Ok(found.iter().any(|found| !found.offsets.is_empty()))
    }
}
