//! The rows of a table, read as a stream each time: it has no order and no index.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use cdc_iceberg::{Kind, LakeError, LakeTable, ScannedRows};

use super::forms::OfTable;
use super::kept::{Kept, Part};
use crate::sink::verify::TaskFailure;
use crate::sink::verify::hash::{hash, row_text};
use crate::sink::verify::query::Key;
use crate::sink::verify::rows::{Look, Version};

/// How often a scan begins anew because files of its snapshot have gone meanwhile.
const SCANS: u32 = 10;
/// What tells one writing of a row from another.
pub(super) const WRITTEN: [&str; 2] = ["_cdc_partition", "_cdc_offset"];

/// A column of the table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Its place among those that are read; `None` where the table lacks it.
    place: Option<usize>,
    of_table: OfTable,
}

/// The rows that a table, read as it is, has of its source.
#[async_trait]
pub(super) trait LakeSide: Look {
    /// Most rows that the table can have.
    async fn most_rows(&self) -> Result<u64, TaskFailure>;

    /// Hashes of the rows of a part, and how many rows have no key.
    async fn kept(&self, part: Part) -> Result<(Kept, u64), TaskFailure>;

    /// Keys with some of these hashes, which are sorted, at most `limit`.
    async fn keys(&self, hashes: &[i64], limit: usize) -> Result<HashSet<Key>, TaskFailure>;
}

/// See the module.
#[derive(Debug)]
pub(super) struct TableRows {
    table: Arc<LakeTable>,
    /// Names of what is read: first the key's columns, then all.
    names: Vec<String>,
    key: Vec<Column>,
    pub(super) columns: Vec<Column>,
    /// Places of what says where a row came from.
    pub(super) meta: Vec<Option<usize>>,
}

impl TableRows {
    /// `there`: names of the table's columns.
    pub(super) fn new(
        table: Arc<LakeTable>,
        there: &HashSet<&str>,
        key: &[(String, OfTable)],
        columns: &[(String, OfTable)],
        meta: &[&str],
    ) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut place = |name: &str| {
            if !there.contains(name) {
                return None;
            }
            let found = names.iter().position(|known| known == name);
            Some(found.unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            }))
        };
        let mut column = |(name, of_table): &(String, OfTable)| Column {
            name: name.clone(),
            place: place(name),
            of_table: *of_table,
        };
        let key = key.iter().map(&mut column).collect();
        let columns = columns.iter().map(&mut column).collect();
        let meta = meta.iter().map(|name| place(name)).collect();
        Self { table, names, key, columns, meta }
    }

    /// Reads all rows, until `take` has enough.
    pub(super) async fn scan<T: Send>(
        &self,
        begin: impl Fn() -> T + Send + Sync,
        take: impl Fn(&mut T, &ScannedRows, usize) -> cdc_iceberg::Result<bool> + Send + Sync,
    ) -> Result<T, TaskFailure> {
        self.scan_columns(self.names.len(), begin, take).await
    }

    /// The same, of the first so many columns.
    async fn scan_columns<T: Send>(
        &self,
        width: usize,
        begin: impl Fn() -> T + Send + Sync,
        take: impl Fn(&mut T, &ScannedRows, usize) -> cdc_iceberg::Result<bool> + Send + Sync,
    ) -> Result<T, TaskFailure> {
        for _ in 1..SCANS {
            let (snapshot, error) = match self.try_scan(width, &begin, &take).await {
                Ok(found) => return Ok(found),
                Err(failed) => failed,
            };
            let is_overtaken = error.kind == Kind::Unavailable
                && self.table.newest().await.map_err(failure)?.0 != snapshot;
            if !is_overtaken {
                return Err(failure(error));
            }
        }
        self.try_scan(width, &begin, &take).await.map_err(|(_, error)| failure(error))
    }

    /// An error comes with the snapshot that was read.
    async fn try_scan<T: Send>(
        &self,
        width: usize,
        begin: &(impl Fn() -> T + Sync),
        take: &(impl Fn(&mut T, &ScannedRows, usize) -> cdc_iceberg::Result<bool> + Sync),
    ) -> Result<T, (Option<i64>, LakeError)> {
        let mut found = begin();
        let scan = self.table.scan(self.names.get(..width).unwrap_or_default()).await;
        let mut scan = scan.map_err(|error| (None, error))?;
        let snapshot = scan.snapshot;
        while let Some(rows) = scan.next().await.map_err(|error| (snapshot, error))? {
            for row in 0..rows.len() {
                if !take(&mut found, &rows, row).map_err(|error| (snapshot, error))? {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// `None`: a column of the key has no value.
    pub(super) fn key(&self, rows: &ScannedRows, row: usize) -> cdc_iceberg::Result<Option<Key>> {
        let texts = self.key.iter().map(|column| text(column, rows, row));
        texts.collect::<cdc_iceberg::Result<Option<Key>>>()
    }

    pub(super) fn cells(
        &self,
        rows: &ScannedRows,
        row: usize,
    ) -> cdc_iceberg::Result<Vec<Option<String>>> {
        self.columns.iter().map(|column| text(column, rows, row)).collect()
    }

    /// The texts of a row, each with so many characters at most.
    pub(super) fn shown(
        &self,
        rows: &ScannedRows,
        row: usize,
        longest: usize,
    ) -> cdc_iceberg::Result<Vec<Option<String>>> {
        let short = |text: String| text.chars().take(longest).collect();
        Ok(self.cells(rows, row)?.into_iter().map(|cell| cell.map(short)).collect())
    }

    /// The rows of some keys, by their key's place.
    pub(super) async fn of_keys<T: Send>(
        &self,
        keys: &[&Key],
        make: impl Fn(&ScannedRows, usize) -> cdc_iceberg::Result<T> + Send + Sync,
        join: impl Fn(&mut T, T) + Send + Sync,
    ) -> Result<HashMap<usize, T>, TaskFailure> {
        let places: HashMap<&Key, usize> =
            keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        self.scan(HashMap::new, |found, rows, row| {
            let key = self.key(rows, row)?;
            let Some(place) = key.and_then(|key| places.get(&key)) else { return Ok(true) };
            let row = make(rows, row)?;
            match found.entry(*place) {
                std::collections::hash_map::Entry::Occupied(mut other) => {
                    join(other.get_mut(), row);
                }
                std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(row)),
            }
            Ok(true)
        })
        .await
    }

    /// Where the row came from and what it holds: another whenever it is written.
    pub(super) fn version(&self, rows: &ScannedRows, row: usize) -> cdc_iceberg::Result<Version> {
        let cells = self.cells(rows, row)?;
        let mut version = hash(row_text(&cells).as_bytes()).to_string();
        for place in self.meta.iter().flatten() {
            version.push(' ');
            version.push_str(&rows.text(*place, row)?.unwrap_or_default());
        }
        let of = |cell: &Option<String>| cell.as_ref().map(|text| hash(text.as_bytes()));
        Ok(Version {
            version,
            cells: cells.iter().map(of).collect(),
            copies: 1,
            unknown: Vec::new(),
        })
    }
}

fn text(column: &Column, rows: &ScannedRows, row: usize) -> cdc_iceberg::Result<Option<String>> {
    let Some(place) = column.place else { return Ok(None) };
    Ok(rows.text(place, row)?.map(|text| column.of_table.text(text)))
}

/// The hash of a key.
pub(super) fn key_hash(key: &Key) -> i64 {
    let key: Vec<Option<String>> = key.iter().cloned().map(Some).collect();
    hash(row_text(&key).as_bytes())
}

pub(super) fn failure(error: LakeError) -> TaskFailure {
    TaskFailure { message: error.message, hint: error.hint, not_reached: false }
}

#[async_trait]
impl LakeSide for TableRows {
    async fn most_rows(&self) -> Result<u64, TaskFailure> {
        Ok(self.table.newest().await.map_err(failure)?.1)
    }

    async fn kept(&self, part: Part) -> Result<(Kept, u64), TaskFailure> {
        let begin = || (Kept::default(), 0_u64);
        let (mut kept, keyless) = self
            .scan(begin, |(kept, keyless), rows, row| {
                let Some(key) = self.key(rows, row)? else {
                    *keyless += 1;
                    return Ok(true);
                };
                let key = key_hash(&key);
                if part.has(key) {
                    let cells = self.cells(rows, row)?;
                    kept.add(key, hash(row_text(&cells).as_bytes()));
                }
                Ok(true)
            })
            .await?;
        kept.sort();
        Ok((kept, keyless))
    }

    async fn keys(&self, hashes: &[i64], limit: usize) -> Result<HashSet<Key>, TaskFailure> {
        // What is read first are the key's columns.
        let width = self.key.iter().filter_map(|column| column.place).max().map_or(0, |at| at + 1);
        self.scan_columns(width, HashSet::new, |found: &mut HashSet<Key>, rows, row| {
            let Some(key) = self.key(rows, row)? else { return Ok(true) };
            if hashes.binary_search(&key_hash(&key)).is_ok() {
                found.insert(key);
            }
            Ok(found.len() < limit)
        })
        .await
    }
}

#[async_trait]
impl Look for TableRows {
    async fn look_up(&self, keys: &[&Key]) -> Result<HashMap<usize, Version>, TaskFailure> {
        // Rows come in no order: of several the one with the smallest version stands for all.
        let join = |one: &mut Version, other: Version| {
            let copies = one.copies + other.copies;
            if other.version < one.version {
                *one = other;
            }
            one.copies = copies;
        };
        self.of_keys(keys, |rows, row| self.version(rows, row), join).await
    }

    async fn values(
        &self,
        keys: &[&Key],
        longest: usize,
    ) -> Result<HashMap<usize, Vec<Option<String>>>, TaskFailure> {
        let make = |rows: &ScannedRows, row| self.shown(rows, row, longest);
        self.of_keys(keys, make, |_, _| {}).await
    }

    /// Each row says what wrote it.
    fn looks(&self) -> u8 {
        2
    }
}
