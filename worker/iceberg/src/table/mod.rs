//! A table: opened or created, its offsets read, its schema brought up to rows, its commits.

mod commit;
mod evolve;
mod fill;
mod index;
mod inspect;
mod live;
mod merge;
mod offsets;
mod read;
mod stage;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use cdc_shared::config::IcebergWriteMode as WriteMode;
use cdc_shared::offset::{Position, TopicPartition};
use iceberg::MetadataLocation;
use iceberg::compression::CompressionCodec;
use iceberg::io::FileIO;
use iceberg::spec::{
    FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};

pub use self::commit::{Commit, KeyedPart, Outcome, Part};
pub use self::index::PartitionIndex;
pub use self::inspect::SnapshotInfo;
pub use self::offsets::{Offsets, Owner};
use crate::catalog::{Catalog, TableName};
use crate::error::{Kind, LakeError, Result};

/// Property: old metadata files are removed when a commit makes them needless.
const DELETE_METADATA: &str = "write.metadata.delete-after-commit.enabled";

/// A catalog and a warehouse, as one sink uses them.
#[derive(Debug)]
pub struct Lake {
    catalog: Arc<dyn Catalog>,
    io: FileIO,
    warehouse: String,
    owner: Owner,
    /// Whether tables that are not there are made.
    may_create: bool,
    mode: WriteMode,
    tables: Mutex<HashMap<TableName, Arc<LakeTable>>>,
}

impl Lake {
    /// A lake with local files. Nothing is opened yet.
    ///
    /// # Errors
    /// A warehouse that is no local folder.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        warehouse: &str,
        owner: Owner,
        may_create: bool,
    ) -> Result<Self> {
        let warehouse = warehouse.trim_end_matches('/');
        if !warehouse.starts_with("file:///") && !warehouse.starts_with('/') {
            let message = format!("warehouse: `{warehouse}` is no local folder");
            let error = LakeError::new(Kind::Configuration, "configuration", message);
            return Err(error.hint("write file:///path/to/warehouse"));
        }
        Ok(Self {
            catalog,
            io: FileIO::new_with_fs(),
            warehouse: warehouse.to_owned(),
            owner,
            may_create,
            mode: WriteMode::Append,
            tables: Mutex::default(),
        })
    }

    /// What its tables are: change logs, where nothing else is said.
    #[must_use]
    pub fn in_mode(self, mode: WriteMode) -> Self {
        Self { mode, ..self }
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
        let probe = format!("{}/.cdc-probe-{}", self.warehouse, uuid::Uuid::new_v4());
        let doing = format!("writing to warehouse {}", self.warehouse);
        let proven = async {
            self.io.new_output(&probe)?.write(bytes::Bytes::new()).await?;
            self.io.delete(&probe).await
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
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeTable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A table's metadata and where it is.
#[derive(Clone)]
struct Loaded {
    location: String,
    metadata: Arc<TableMetadata>,
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
    /// it is missing. `false`: it holds another position by now.
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
        loop {
            let loaded = match self.load().await? {
                Some(loaded) => loaded,
                None if self.lake.may_create && expected.is_none() => {
                    self.create().await?;
                    continue;
                }
                None => return Err(self.missing()),
            };
            let stored = offsets::read(&loaded.metadata, &self.lake.owner)?;
            let mut stored = stored.unwrap_or_default();
            if stored.offsets.get(tp) != expected {
                return Ok(false);
            }
            stored.offsets.insert(tp.clone(), new.clone());
            let key = self.lake.owner.key().to_owned();
            let builder = loaded.builder();
            let properties = HashMap::from([(key, stored.property()?)]);
            let built = builder.set_properties(properties).and_then(TableMetadataBuilder::build);
            let built = built.map_err(|error| LakeError::internal("changing metadata", error))?;
            if self.swap(&loaded, built.metadata).await? {
                return Ok(true);
            }
        }
    }

    /// A commit of rows and positions.
    pub fn commit(self: &Arc<Self>, parts: Vec<Part>) -> Commit {
        Commit::new(self.clone(), parts)
    }

    /// The current metadata; `None` when there is no such table.
    async fn load(&self) -> Result<Option<Loaded>> {
        let Some(location) = self.lake.catalog.current(&self.name).await? else {
            return Ok(None);
        };
        if let Some(latest) = &*self.latest()
            && latest.location == location
        {
            return Ok(Some(latest.clone()));
        }
        let metadata =
            TableMetadata::read_from(&self.lake.io, &location).await.map_err(|error| {
                LakeError::warehouse(&format!("reading the metadata of table {}", self.name), error)
            })?;
        let loaded = Loaded { location, metadata: Arc::new(metadata) };
        *self.latest() = Some(loaded.clone());
        Ok(Some(loaded))
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

    /// Makes the table, with the columns that every row has. Somebody else may be faster.
    async fn create(&self) -> Result<()> {
        let lake = &self.lake;
        lake.catalog.create_namespace(&self.name.namespace).await?;
        let location = format!("{}/{}/{}", lake.warehouse, self.name.namespace, self.name.table);
        let internal = |error| LakeError::internal("making a table's metadata", error);
        let schema = evolve::first_schema(lake.mode).map_err(internal)?;
        let properties = HashMap::from([
            (DELETE_METADATA.to_owned(), "true".to_owned()),
            ("write.metadata.previous-versions-max".to_owned(), "100".to_owned()),
            ("write.parquet.compression-codec".to_owned(), "zstd".to_owned()),
        ]);
        let metadata = new_metadata(schema, location.clone(), properties).map_err(internal)?;
        let first = MetadataLocation::new_with_metadata(location, &metadata);
        self.write_metadata(&metadata, &first).await?;
        let first = first.to_string();
        if lake.catalog.create(&self.name, &first).await? {
            tracing::info!(table = %self.name, catalog = lake.place(), "table created");
        } else {
            self.discard([first]).await;
        }
        Ok(())
    }

    /// Makes `new` the table's metadata, unless it is another one by now than `from`.
    async fn swap(&self, from: &Loaded, new: TableMetadata) -> Result<bool> {
        let next = match MetadataLocation::from_str(&from.location) {
            Ok(location) => location.with_next_version(),
            // Named by somebody else, in another way.
            Err(_) => MetadataLocation::new_with_metadata(new.location(), &new),
        };
        let next = next.with_new_metadata(&new);
        self.write_metadata(&new, &next).await?;
        let location = next.to_string();
        if !self.lake.catalog.swap(&self.name, &from.location, &location).await? {
            self.discard([location]).await;
            return Ok(false);
        }
        let metadata = Arc::new(new);
        *self.latest() = Some(Loaded { location, metadata: metadata.clone() });
        self.discard(needless(&from.metadata, &metadata)).await;
        Ok(true)
    }

    /// Writes a metadata file, durably.
    async fn write_metadata(
        &self,
        metadata: &TableMetadata,
        location: &MetadataLocation,
    ) -> Result<()> {
        let json = serde_json::to_vec(metadata)
            .map_err(|error| LakeError::internal("writing metadata", error))?;
        let io = &self.lake.io;
        let written = async {
            if location.compression_codec() != CompressionCodec::None {
                return metadata.write_to(io, location).await;
            }
            // Closing it brings it to the disk.
            let mut writer = io.new_output(location.to_string())?.writer().await?;
            writer.write(json.into()).await?;
            writer.close().await
        };
        let doing = format!("writing the metadata of table {}", self.name);
        written.await.map_err(|error| LakeError::warehouse(&doing, error))
    }

    /// Removes files that nothing refers to, as far as that works.
    async fn discard(&self, files: impl IntoIterator<Item = String>) {
        for file in files {
            if let Err(error) = self.lake.io.delete(&file).await {
                tracing::debug!(file, %error, "a needless file is still there");
            }
        }
    }
}

impl Loaded {
    fn builder(&self) -> TableMetadataBuilder {
        let metadata = TableMetadata::clone(&self.metadata);
        metadata.into_builder(Some(self.location.clone()))
    }
}

fn new_metadata(
    schema: Schema,
    location: String,
    properties: HashMap<String, String>,
) -> iceberg::Result<TableMetadata> {
    let spec = UnboundPartitionSpec::builder().build();
    let order = SortOrder::unsorted_order();
    let version = FormatVersion::V2;
    let builder = TableMetadataBuilder::new(schema, spec, order, location, version, properties)?;
    Ok(builder.build()?.metadata)
}

/// Metadata files that the newer metadata does not keep any more, where the table wants that.
fn needless(old: &TableMetadata, new: &TableMetadata) -> Vec<String> {
    if new.properties().get(DELETE_METADATA).is_none_or(|wanted| wanted != "true") {
        return Vec::new();
    }
    let kept = |file: &String| new.metadata_log().iter().any(|log| log.metadata_file == *file);
    let files = old.metadata_log().iter().map(|log| log.metadata_file.clone());
    files.filter(|file| !kept(file)).collect()
}
