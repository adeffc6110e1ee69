//! Which rows of a change log are those of some records: by the columns that say it, in the files whose
//! bounds do not rule it out.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use cdc_shared::offset::TopicPartition;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataFile, DataFileFormat, Datum, PrimitiveLiteral, TableMetadata};
use roaring::{RoaringBitmap, RoaringTreemap};

use super::entries::{Entry, Live};
use super::read::{Columns, Gone};
use super::{LakeTable, Loaded, read};
use crate::error::{Kind, LakeError, Result};

/// Files that are read at a time.
const AT_ONCE: usize = 8;

/// Records of a partition.
pub(super) struct Records<'r> {
    pub(super) tp: &'r TopicPartition,
    pub(super) offsets: Range<i64>,
}

/// Their rows in one file.
pub(super) struct Found {
    pub(super) entry: Arc<Entry>,
    pub(super) rows: RoaringBitmap,
    /// Offsets of those that are not deleted.
    pub(super) offsets: RoaringTreemap,
    /// Whether one of these is there twice.
    pub(super) is_ambiguous: bool,
}

/// Ids of the columns that say which record a row is of.
struct Ids {
    topic: i32,
    partition: i32,
    offset: i32,
}

impl Ids {
    fn all(&self) -> [i32; 3] {
        [self.topic, self.partition, self.offset]
    }

    /// Whether a file can have rows of records, by its bounds.
    fn may_hold(&self, file: &DataFile, records: &Records<'_>) -> bool {
        let number = |bounds: &HashMap<i32, Datum>, id: i32| match bounds.get(&id)?.literal() {
            PrimitiveLiteral::Int(number) => Some(i64::from(*number)),
            PrimitiveLiteral::Long(number) => Some(*number),
            _ => None,
        };
        let overlaps = |id: i32, wanted: Range<i64>| {
            number(file.lower_bounds(), id).is_none_or(|lower| lower < wanted.end)
                && number(file.upper_bounds(), id).is_none_or(|upper| upper >= wanted.start)
        };
        let partition = i64::from(records.tp.partition);
        overlaps(self.partition, partition..partition + 1)
            && overlaps(self.offset, records.offsets.clone())
    }

    /// Calls `take` with row and offset of each row of the records among some rows. Rows that somebody
    /// else has added say nothing of a record.
    fn each(&self, columns: &Columns, records: &Records<'_>, mut take: impl FnMut(u32, i64)) {
        let column = |id: i32| columns.get(&id).map(ArrayRef::as_ref);
        let topics = column(self.topic).and_then(|column| column.as_string_opt::<i32>());
        let partitions =
            column(self.partition).and_then(|column| column.as_primitive_opt::<Int32Type>());
        let offsets = column(self.offset).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(topics), Some(partitions), Some(offsets)) = (topics, partitions, offsets) else {
            return;
        };
        for row in 0..offsets.len() {
            let is_of = partitions.is_valid(row)
                && partitions.value(row) == records.tp.partition
                && offsets.is_valid(row)
                && records.offsets.contains(&offsets.value(row))
                && topics.is_valid(row)
                && *topics.value(row) == *records.tp.topic;
            if is_of {
                take(row as u32, offsets.value(row));
            }
        }
    }
}

impl LakeTable {
    /// The rows of records, file by file, those that are deleted by position left out of the offsets as
    /// far as `gone` has them.
    pub(super) async fn rows_of(
        &self,
        loaded: &Loaded,
        live: &Live,
        records: &Records<'_>,
        gone: &Gone,
    ) -> Result<Vec<Found>> {
        let ids = self.ids(&loaded.metadata)?;
        let held = live.data.iter().filter(|entry| ids.may_hold(&entry.file, records));
        let searches: Vec<_> =
            held.map(|entry| self.search(loaded, entry, &ids, records, gone)).collect();
        let found = futures::stream::iter(searches).buffered(AT_ONCE);
        let found: Vec<Found> = found.try_collect().await?;
        Ok(found.into_iter().filter(|found| !found.rows.is_empty()).collect())
    }

    async fn search(
        &self,
        loaded: &Loaded,
        entry: &Arc<Entry>,
        ids: &Ids,
        records: &Records<'_>,
        gone: &Gone,
    ) -> Result<Found> {
        if entry.file.file_format() != DataFileFormat::Parquet {
            return Err(self.unsearchable(&format!(
                "file {} is not in the format Parquet, so which records are in it",
                entry.path
            )));
        }
        let gone = gone.get(&entry.path);
        let mut found = Found {
            entry: entry.clone(),
            rows: RoaringBitmap::new(),
            offsets: RoaringTreemap::new(),
            is_ambiguous: false,
        };
        let mut first = 0;
        read::read(&loaded.io, &entry.path, &ids.all(), None, |columns, rows| {
            ids.each(&columns, records, |row, offset| {
                let row = first + row;
                found.rows.insert(row);
                if !gone.is_some_and(|gone| gone.contains(row)) {
                    found.is_ambiguous |= !found.offsets.insert(offset.unsigned_abs());
                }
            });
            first += rows as u32;
            Ok(())
        })
        .await?;
        Ok(found)
    }

    fn ids(&self, metadata: &TableMetadata) -> Result<Ids> {
        let schema = metadata.current_schema();
        let id = |name: &str| {
            let id = schema.field_by_name(name).map(|field| field.id);
            id.ok_or_else(|| {
                let why = format!("its column {name} is gone, so which records are in it");
                self.unsearchable(&why)
            })
        };
        Ok(Ids {
            topic: id("_cdc_topic")?,
            partition: id("_cdc_partition")?,
            offset: id("_cdc_offset")?,
        })
    }

    fn unsearchable(&self, why: &str) -> LakeError {
        let message = format!("table {}: {why} cannot be seen", self.name);
        LakeError::new(Kind::Unfit, "table_unfit", message)
            .hint("roll the table back to before it was changed")
    }

    /// Rows that are deleted by position. What is deleted by value counts as there.
    pub(super) async fn gone(&self, loaded: &Loaded, live: &Live) -> Result<Gone> {
        let known: HashSet<Arc<str>> = live.data.iter().map(|entry| entry.path.clone()).collect();
        let deletes = live.deletes.iter();
        let deletes =
            deletes.map(|entry| (&entry.path, entry.file.content_type(), entry.file.file_format()));
        read::gone(&loaded.io, deletes, &known, |path, _| {
            self.unsearchable(&format!(
                "{path} is no file of deletes that the sink knows, so which rows are left"
            ))
        })
        .await
    }
}
