//! The current metadata of a table: read, made, replaced.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use iceberg::compression::CompressionCodec;
use iceberg::io::FileIO;
use iceberg::spec::{
    FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuildResult,
    TableMetadataBuilder, UnboundPartitionSpec,
};
use iceberg::{MetadataLocation, TableUpdate};

use super::{LakeTable, evolve};
use crate::catalog::{Catalog, Pointers, RestCatalog};
use crate::error::{LakeError, Result};
use crate::warehouse::Properties;

/// Property: old metadata files are removed when a commit makes them needless.
const DELETE_METADATA: &str = "write.metadata.delete-after-commit.enabled";

/// A table's metadata, where it is, and the way to its files.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) location: String,
    pub(super) metadata: Arc<TableMetadata>,
    pub(super) io: FileIO,
}

/// Metadata that is to be a table's next, and what of it is new.
pub(super) struct Changed {
    pub(super) metadata: TableMetadata,
    changes: Vec<TableUpdate>,
}

impl Loaded {
    /// The metadata, to be changed.
    pub(super) fn unchanged(&self) -> Changed {
        Changed { metadata: TableMetadata::clone(&self.metadata), changes: Vec::new() }
    }
}

impl Changed {
    /// Changes it further. `from`: where the metadata that it replaces is, once for all changes.
    pub(super) fn change(
        self,
        from: Option<&Loaded>,
        how: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) -> iceberg::Result<Self> {
        let builder = self.metadata.into_builder(from.map(|from| from.location.clone()));
        let TableMetadataBuildResult { metadata, changes: more, .. } = how(builder)?.build()?;
        let mut changes = self.changes;
        changes.extend(more);
        Ok(Self { metadata, changes })
    }
}

impl LakeTable {
    /// The current metadata; `None` when there is no such table.
    pub(super) async fn load(&self) -> Result<Option<Loaded>> {
        let loaded = match &self.lake.catalog {
            Catalog::Pointers(pointers) => self.load_file(&**pointers).await?,
            Catalog::Rest(rest) => match rest.load(&self.name).await? {
                Some(table) => {
                    let io = self.lake.warehouse.files(table.metadata.location(), &table.files)?;
                    Some(Loaded { location: table.location, metadata: table.metadata, io })
                }
                None => None,
            },
        };
        if let Some(loaded) = &loaded {
            *self.latest() = Some(loaded.clone());
        }
        Ok(loaded)
    }

    async fn load_file(&self, pointers: &dyn Pointers) -> Result<Option<Loaded>> {
        let Some(location) = pointers.current(&self.name).await? else {
            return Ok(None);
        };
        if let Some(latest) = &*self.latest()
            && latest.location == location
        {
            return Ok(Some(latest.clone()));
        }
        let io = self.lake.warehouse.files(&location, &Properties::new())?;
        let metadata = TableMetadata::read_from(&io, &location).await.map_err(|error| {
            LakeError::warehouse(&format!("reading the metadata of table {}", self.name), error)
        })?;
        Ok(Some(Loaded { location, metadata: Arc::new(metadata), io }))
    }

    /// Makes the table, with the columns that every row has. Somebody else may be faster.
    pub(super) async fn create(&self) -> Result<()> {
        let lake = &self.lake;
        lake.catalog.create_namespace(&self.name.namespace).await?;
        let schema = evolve::first_schema(lake.mode)
            .map_err(|error| LakeError::internal("making a table's schema", error))?;
        let properties = [
            (DELETE_METADATA, "true"),
            ("write.metadata.previous-versions-max", "100"),
            ("write.parquet.compression-codec", "zstd"),
        ];
        let mut properties: HashMap<String, String> =
            properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let is_new = match &lake.catalog {
            Catalog::Pointers(pointers) => {
                self.create_file(&**pointers, schema, properties).await?
            }
            Catalog::Rest(rest) => {
                properties.insert("format-version".to_owned(), "2".to_owned());
                // The name of a warehouse says nothing of its files.
                let location = lake.root.contains("://").then(|| self.first_location());
                rest.create(&self.name, location, &schema, &properties).await?
            }
        };
        if is_new {
            tracing::info!(table = %self.name, catalog = lake.place(), "table created");
        }
        Ok(())
    }

    /// Where a new table goes.
    fn first_location(&self) -> String {
        format!("{}/{}/{}", self.lake.root, self.name.namespace, self.name.table)
    }

    async fn create_file(
        &self,
        pointers: &dyn Pointers,
        schema: Schema,
        properties: HashMap<String, String>,
    ) -> Result<bool> {
        let (lake, location) = (&self.lake, self.first_location());
        let io = lake.warehouse.files(&location, &Properties::new())?;
        let metadata = new_metadata(schema, location.clone(), properties)
            .map_err(|error| LakeError::internal("making a table's metadata", error))?;
        let first = MetadataLocation::new_with_metadata(location, &metadata);
        self.write_metadata(&io, &metadata, &first).await?;
        let first = first.to_string();
        let is_new = pointers.create(&self.name, &first).await?;
        if !is_new {
            discard(&io, [first]).await;
        }
        Ok(is_new)
    }

    /// Makes `new` the table's metadata, unless it is another one by now than `from`.
    pub(super) async fn swap(&self, from: &Loaded, new: Changed) -> Result<bool> {
        let swapped = match &self.lake.catalog {
            Catalog::Pointers(pointers) => self.swap_file(&**pointers, from, new.metadata).await?,
            Catalog::Rest(rest) => self.swap_rest(rest, from, &new.changes).await?,
        };
        let Some(loaded) = swapped else { return Ok(false) };
        *self.latest() = Some(loaded);
        Ok(true)
    }

    async fn swap_file(
        &self,
        pointers: &dyn Pointers,
        from: &Loaded,
        new: TableMetadata,
    ) -> Result<Option<Loaded>> {
        let next = match MetadataLocation::from_str(&from.location) {
            Ok(location) => location.with_next_version(),
            // Named by somebody else, in another way.
            Err(_) => MetadataLocation::new_with_metadata(new.location(), &new),
        };
        let next = next.with_new_metadata(&new);
        self.write_metadata(&from.io, &new, &next).await?;
        let location = next.to_string();
        if !pointers.swap(&self.name, &from.location, &location).await? {
            discard(&from.io, [location]).await;
            return Ok(None);
        }
        let metadata = Arc::new(new);
        discard(&from.io, needless(&from.metadata, &metadata)).await;
        Ok(Some(Loaded { location, metadata, io: from.io.clone() }))
    }

    async fn swap_rest(
        &self,
        rest: &RestCatalog,
        from: &Loaded,
        changes: &[TableUpdate],
    ) -> Result<Option<Loaded>> {
        let taken = rest.commit(&self.name, &from.metadata, changes).await?;
        Ok(taken.map(|table| Loaded {
            location: table.location,
            metadata: table.metadata,
            io: from.io.clone(),
        }))
    }

    /// Writes a metadata file, durably.
    async fn write_metadata(
        &self,
        io: &FileIO,
        metadata: &TableMetadata,
        location: &MetadataLocation,
    ) -> Result<()> {
        let json = serde_json::to_vec(metadata)
            .map_err(|error| LakeError::internal("writing metadata", error))?;
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
}

/// Removes files that nothing refers to, as far as that works.
pub(super) async fn discard(io: &FileIO, files: impl IntoIterator<Item = String>) {
    for file in files {
        if let Err(error) = io.delete(&file).await {
            tracing::debug!(file, %error, "a needless file is still there");
        }
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
