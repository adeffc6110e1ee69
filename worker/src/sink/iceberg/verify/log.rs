//! The rows that a change log leads to: of each key the newest, unless that is a delete.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use cdc_iceberg::ScannedRows;

use super::kept::{Kept, Part};
use super::rows::{LakeSide, TableRows, key_hash};
use crate::sink::verify::TaskFailure;
use crate::sink::verify::hash::{hash, row_text};
use crate::sink::verify::query::Key;
use crate::sink::verify::rows::{Look, Version};

/// What a log says of each change, beside the row.
pub(super) const OF_LOG: [&str; 6] =
    ["_cdc_topic", "_cdc_partition", "_cdc_offset", "_cdc_ts", "_cdc_op", "_cdc_unavailable"];

/// See the module.
#[derive(Debug)]
pub(super) struct LogRows {
    pub(super) rows: TableRows,
    /// Changes of other topics are those of other tables.
    pub(super) topic: String,
}

/// Which change it is, and what of it counts.
#[derive(Clone, Debug)]
struct Found<T> {
    partition: i64,
    offset: i64,
    at: i64,
    /// It is a delete.
    is_gone: bool,
    what: T,
}

/// What a row of the log says of the table.
enum Said<T> {
    /// It is another table's.
    Nothing,
    Truncate,
    Change(Found<T>),
}

impl<T> Found<T> {
    /// Whether another change of the key is newer. All are in one partition, unless the number of
    /// partitions has changed; then the source's time tells.
    fn is_older(&self, other: &Self) -> bool {
        if self.partition == other.partition {
            self.offset < other.offset
        } else {
            (self.at, self.offset) < (other.at, other.offset)
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.partition, self.offset) == (other.partition, other.offset)
    }
}

impl LogRows {
    fn meta(&self, at: usize) -> usize {
        self.rows.meta.get(at).copied().flatten().unwrap_or(usize::MAX)
    }

    fn said<T>(&self, rows: &ScannedRows, row: usize, what: T) -> cdc_iceberg::Result<Said<T>> {
        if rows.text(self.meta(0), row)?.as_deref() != Some(self.topic.as_str()) {
            return Ok(Said::Nothing);
        }
        let number = |at: usize| rows.number(self.meta(at), row).unwrap_or(0);
        let op = rows.text(self.meta(4), row)?;
        if op.as_deref() == Some("t") {
            return Ok(Said::Truncate);
        }
        let is_gone = op.as_deref() == Some("d");
        let (partition, offset, at) = (number(1), number(2), number(3));
        Ok(Said::Change(Found { partition, offset, at, is_gone, what }))
    }

    /// Places of the columns whose values were not sent.
    fn unknown(&self, rows: &ScannedRows, row: usize) -> Vec<usize> {
        let names = rows.texts(self.meta(5), row);
        let places = self.rows.columns.iter().enumerate();
        let unknown = places.filter(|(_, column)| names.contains(&column.name));
        unknown.map(|(at, _)| at).collect()
    }

    /// The newest change of each of some keys, with what `make` makes of it and how often it is there.
    async fn of_keys<T: Send>(
        &self,
        keys: &[&Key],
        make: impl Fn(&ScannedRows, usize) -> cdc_iceberg::Result<T> + Send + Sync,
    ) -> Result<HashMap<usize, (T, u64)>, TaskFailure> {
        let join = |one: &mut Option<Found<(T, u64)>>, other: Option<Found<(T, u64)>>| match (
            one.as_mut(),
            other,
        ) {
            (Some(known), Some(other)) if known.is_same(&other) => known.what.1 += 1,
            (Some(known), Some(other)) if known.is_older(&other) => *known = other,
            (None, Some(other)) => *one = Some(other),
            _ => {}
        };
        let make = |rows: &ScannedRows, row| {
            Ok(match self.said(rows, row, (make(rows, row)?, 1))? {
                Said::Change(found) => Some(found),
                Said::Nothing | Said::Truncate => None,
            })
        };
        let found = self.rows.of_keys(keys, make, join).await?;
        let live = found.into_iter().filter_map(|(place, found)| Some((place, found?)));
        let live = live.filter(|(_, found)| !found.is_gone);
        Ok(live.map(|(place, found)| (place, found.what)).collect())
    }
}

#[async_trait]
impl LakeSide for LogRows {
    async fn most_rows(&self) -> Result<u64, TaskFailure> {
        self.rows.most_rows().await
    }

    async fn kept(&self, part: Part) -> Result<(Kept, u64), TaskFailure> {
        type Newest = HashMap<i64, Found<Option<i64>>>;
        let (newest, truncates) = self
            .rows
            .scan(
                || (Newest::new(), 0_u64),
                |(newest, truncates), rows, row| {
                    let found = match self.said(rows, row, None)? {
                        Said::Change(found) => found,
                        Said::Truncate => {
                            *truncates += 1;
                            return Ok(true);
                        }
                        Said::Nothing => return Ok(true),
                    };
                    let Some(key) = self.rows.key(rows, row)? else { return Ok(true) };
                    let key = key_hash(&key);
                    if !part.has(key) {
                        return Ok(true);
                    }
                    let known = newest.get_mut(&key);
                    if known.as_ref().is_some_and(|known| !known.is_older(&found)) {
                        if let Some(known) = known
                            && known.is_same(&found)
                        {
                            // The same change twice is not equal to anything.
                            known.what = None;
                        }
                        return Ok(true);
                    }
                    let is_whole = self.unknown(rows, row).is_empty();
                    let cells = self.rows.cells(rows, row)?;
                    let content = is_whole.then(|| hash(row_text(&cells).as_bytes()));
                    newest.insert(key, Found { what: content, ..found });
                    Ok(true)
                },
            )
            .await?;
        if truncates > 0 {
            let message = format!(
                "the change log of {} has {truncates} TRUNCATEs: which rows came before them it does \
                 not say",
                self.topic
            );
            return Err(TaskFailure::failed(message).hint("such a log is not compared"));
        }
        let mut kept = Kept::default();
        for (key, found) in newest.into_iter().filter(|(_, found)| !found.is_gone) {
            match found.what {
                Some(content) => kept.add(key, content),
                // It is looked at, whatever the source has.
                None => kept.add_unknown(key),
            }
        }
        kept.sort();
        Ok((kept, 0))
    }

    async fn keys(&self, hashes: &[i64], limit: usize) -> Result<HashSet<Key>, TaskFailure> {
        self.rows.keys(hashes, limit).await
    }
}

#[async_trait]
impl Look for LogRows {
    async fn look_up(&self, keys: &[&Key]) -> Result<HashMap<usize, Version>, TaskFailure> {
        let make = |rows: &ScannedRows, row| {
            let unknown = self.unknown(rows, row);
            Ok(Version { unknown, ..self.rows.version(rows, row)? })
        };
        let found = self.of_keys(keys, make).await?.into_iter();
        Ok(found.map(|(place, (version, copies))| (place, Version { copies, ..version })).collect())
    }

    async fn values(
        &self,
        keys: &[&Key],
        longest: usize,
    ) -> Result<HashMap<usize, Vec<Option<String>>>, TaskFailure> {
        let make = |rows: &ScannedRows, row| self.rows.shown(rows, row, longest);
        let found = self.of_keys(keys, make).await?.into_iter();
        Ok(found.map(|(place, (cells, _))| (place, cells)).collect())
    }

    /// Each change says which it is.
    fn looks(&self) -> u8 {
        2
    }
}
