//! A table: opened or created, its offsets read, its schema brought up to rows, its commits.

mod again;
mod commit;
mod current;
mod entries;
mod evolve;
mod fill;
mod index;
mod inspect;
mod letters;
mod live;
mod merge;
mod next;
mod offsets;
mod partition;
mod read;
mod records;
mod saved;
mod scan;
mod stage;
mod take_back;
mod upkeep;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdc_shared::config::{IcebergConfig, IcebergWriteMode as WriteMode, PartitionField};
use cdc_shared::offset::{Position, TopicPartition};

pub use self::commit::{Commit, KeyedPart, Outcome, Part};
use self::current::Loaded;
use self::entries::Live;
pub use self::index::PartitionIndex;
pub use self::inspect::SnapshotInfo;
pub use self::offsets::{Offsets, Owner};
pub use self::scan::{Scan, ScannedRows};
use self::stage::Added;
use self::take_back::goes_back;
pub use self::upkeep::{Clean, Cleaned, Compact, Compacted, Expire, Expired};
use crate::catalog::{Catalog, TableName};
use crate::error::{Kind, LakeError, Result};
use crate::warehouse::{Properties, Warehouse};

/// A catalog and a warehouse, as one sink uses them.
#[derive(Debug)]
pub struct Lake {
    catalog: Catalog,
    warehouse: Warehouse,
    /// Where new tables go; a REST catalog knows that itself.
    root: String,
    owner: Owner,
    /// Whether tables that are not there are made.
    may_create: bool,
    mode: WriteMode,
    /// How tables that are made are partitioned.
    partition_by: Vec<PartitionField>,
    tables: Mutex<HashMap<TableName, Arc<LakeTable>>>,
}

impl Lake {
    /// The lake of a configuration, in its catalog. Nothing is opened yet.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(catalog: Catalog, config: &IcebergConfig, owner: Owner) -> Result<Self> {
        let root = config.warehouse.trim_end_matches('/').to_owned();
        let warehouse = Warehouse::new(config.catalog_properties.clone(), config.tls.clone());
        if !matches!(catalog, Catalog::Rest(_)) {
            warehouse.files(&root, &Properties::new())?;
        }
        let partition_by = config.partition_by.iter().map(|text| PartitionField::parse(text));
        let partition_by = partition_by.collect::<std::result::Result<_, _>>().map_err(|why| {
            let message = format!("partition_by: {why}");
            LakeError::new(Kind::Configuration, "configuration", message)
        })?;
        Ok(Self {
            catalog,
            warehouse,
            root,
            owner,
            may_create: config.auto_create_table,
            mode: config.write_mode,
            partition_by,
            tables: Mutex::default(),
        })
    }

    /// Catalog, for messages.
    pub fn place(&self) -> &str {
        self.catalog.place()
    }

    /// Reaches catalog and warehouse.
    ///
    /// # Errors
    /// What cannot be reached.
    pub async fn prove(&self, namespace: &str) -> Result<()> {
        self.catalog.prove().await?;
        if self.may_create {
            self.catalog.create_namespace(namespace).await?;
        }
        let vended = match &self.catalog {
            Catalog::Pointers(_) => Properties::new(),
            // The name of a warehouse says nothing of its files, and where the catalog gives the
            // keys it gives them with a table.
            Catalog::Rest(rest) => match rest.files().await? {
                files if self.warehouse.is_reachable(&self.root, &files) => files,
                _ => return Ok(()),
            },
        };
        let io = self.warehouse.files(&self.root, &vended)?;
        let probe = format!("{}/.cdc-probe-{}", self.root, uuid::Uuid::new_v4());
        let doing = format!("writing to warehouse {}", self.root);
        let proven = async {
            io.new_output(&probe)?.write(bytes::Bytes::new()).await?;
            io.delete(&probe).await
        };
        proven.await.map_err(|error| LakeError::warehouse(&doing, error))
    }

    /// A table by its name; it may not be there.
    pub fn table(self: &Arc<Self>, name: &TableName) -> Arc<LakeTable> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(name.clone()).or_insert_with(|| {
            Arc::new(LakeTable {
                lake: self.clone(),
                name: name.clone(),
                latest: Mutex::default(),
                read: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
                manifests: tokio::sync::Mutex::default(),
                searched: tokio::sync::Mutex::default(),
            })
        });
        table.clone()
    }
}

/// One table of a lake. Its commits take turns within the process.
pub struct LakeTable {
    lake: Arc<Lake>,
    name: TableName,
    latest: Mutex<Option<Loaded>>,
    /// The table whose positions were read last. A commit goes to no other of that name.
    read: Mutex<Option<uuid::Uuid>>,
    turn: tokio::sync::Mutex<()>,
    manifests: tokio::sync::Mutex<live::Manifests>,
    /// What was read to look rows up.
    searched: tokio::sync::Mutex<Live>,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LakeTable {
    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// What the table holds of a partition; `None` when nothing, or when there is no table and one
    /// may be made.
    ///
    /// # Errors
    /// What cannot be read, or the table that is missing.
    pub async fn position(&self, tp: &TopicPartition) -> Result<Option<Position>> {
        let Some(loaded) = self.load().await? else {
            return if self.lake.may_create { Ok(None) } else { Err(self.missing()) };
        };
        let stored = offsets::read(&loaded.metadata, &self.lake.owner)?;
        *self.read() = Some(loaded.metadata.uuid());
        Ok(stored.and_then(|stored| stored.offsets.get(tp).cloned()))
    }

    /// Replaces what the table holds of a partition, if that is `expected`. Makes the table where
    /// it is missing. Rows of a change log that come again then are taken away by the same commit.
    /// `false`: it holds another position by now.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub async fn replace_position(
        &self,
        tp: &TopicPartition,
        expected: Option<&Position>,
        new: &Position,
    ) -> Result<bool> {
        let _turn = self.turn.lock().await;
        let id = uuid::Uuid::new_v4().to_string();
        // Removed once it is sure that they were not taken, as in a commit of rows.
        let mut doubtful: Vec<String> = Vec::new();
        let mut read = Live::default();
        loop {
            let loaded = match self.load().await? {
                Some(loaded) => loaded,
                None if self.lake.may_create && expected.is_none() => {
                    self.create().await?;
                    continue;
                }
                None => return Err(self.missing()),
            };
            if !doubtful.is_empty() && offsets::has_commit(&loaded.metadata, &id) {
                return Ok(true);
            }
            current::discard(&loaded.io, doubtful.drain(..)).await;
            let stored = offsets::read(&loaded.metadata, &self.lake.owner)?;
            let mut stored = stored.unwrap_or_default();
            if stored.offsets.get(tp) != expected {
                return Ok(false);
            }
            stored.offsets.insert(tp.clone(), new.clone());
            if self.lake.mode == WriteMode::Upsert {
                stored.go_by_key(tp.partition, expected, new);
            }
            let back = expected.filter(|expected| goes_back(expected, new));
            let taken = match (self.lake.mode, back) {
                (WriteMode::Append, Some(from)) => {
                    self.take_back(&loaded, tp, (from, new), &read).await?
                }
                _ => None,
            };
            let added = Added { taken: taken.as_ref(), ..Added::NONE };
            let next = self.next(&loaded, loaded.unchanged(), stored, added, &id).await?;
            if self.swap(&loaded, next.changed).await? {
                return Ok(true);
            }
            doubtful = next.files;
            if let Some(taken) = taken {
                doubtful.extend(taken.files());
                read = taken.into_live();
            }
        }
    }

    /// A commit of rows and positions.
    pub fn commit(self: &Arc<Self>, parts: Vec<Part>) -> Commit {
        Commit::new(self.clone(), parts)
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Option<Loaded>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Option<uuid::Uuid>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self) -> LakeError {
        let message = format!("table {} is not in catalog {}", self.name, self.lake.place());
        let hint = if self.lake.may_create {
            "restore the table; it is not made again behind what was read already"
        } else {
            "create the table, or set auto_create_table: true"
        };
        LakeError::new(Kind::Missing, "table_missing", message).hint(hint)
    }

    /// Of a commit that was tried so often.
    fn contended(&self, turns: u32) -> LakeError {
        let message =
            format!("{turns} times in a row others committed to table {} first", self.name);
        LakeError::new(Kind::Contended, "commit_contended", message)
    }

    fn unreadable(&self, error: iceberg::Error) -> LakeError {
        LakeError::warehouse(&format!("reading the manifests of table {}", self.name), error)
    }
}

/// Lets whoever committed first go on, before the next attempt.
async fn give_way(turn: u32) {
    let longest = 10 << turn.min(6);
    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=longest))).await;
}
