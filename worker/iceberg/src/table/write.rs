//! Data files: rows of several partitions and layouts in one Parquet file of the table's schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Int64Array, ListArray, MapArray, RecordBatch, StringArray, StructArray,
    new_null_array,
};
use arrow_schema::{ArrowError, DataType, Schema as ArrowSchema};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, NestedField, PrimitiveType, Schema, Struct, TableMetadata, Type,
};
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{DEFAULT_STATISTICS_TRUNCATE_LENGTH, WriterProperties};

use super::index::{DELETED_PATH, DELETED_ROW};
use crate::error::{LakeError, Result};
use crate::rows::Segment;

/// Rows of one record batch.
const BATCH: usize = 1 << 16;

/// What is written into one file.
pub(super) struct Content {
    pub(super) path: String,
    pub(super) schema: Arc<Schema>,
    pub(super) spec_id: i32,
    pub(super) kind: DataContentType,
    /// Of the partition that its rows are of.
    pub(super) values: Struct,
}

impl Content {
    /// Rows of a table.
    pub(super) fn data(path: String, metadata: &TableMetadata) -> Self {
        Self {
            path,
            schema: metadata.current_schema().clone(),
            spec_id: metadata.default_partition_spec_id(),
            kind: DataContentType::Data,
            values: Struct::empty(),
        }
    }
}

/// The table's columns as Arrow has them.
pub(super) fn arrow(schema: &Schema) -> Result<Arc<ArrowSchema>> {
    let arrow = schema_to_arrow_schema(schema);
    arrow.map(Arc::new).map_err(|error| LakeError::internal("columns of a table", error))
}

/// Batches that are made one after the other.
pub(super) type Batches = BoxStream<'static, std::result::Result<RecordBatch, ArrowError>>;

/// Writes rows into one file; nothing where there are none.
pub(super) async fn write(
    io: FileIO,
    content: Content,
    batches: Batches,
) -> Result<Option<DataFile>> {
    let doing = format!("writing file {}", content.path);
    let runtime = tokio::runtime::Handle::current();
    // Compression takes long, and so do writes to a local disk.
    let written =
        tokio::task::spawn_blocking(move || runtime.block_on(write_now(&io, content, batches)));
    let written = written.await.map_err(|error| LakeError::internal(&doing, error))?;
    written.map_err(|error| match error {
        WriteError::Iceberg(error) => LakeError::warehouse(&doing, error),
        WriteError::Arrow(error) => LakeError::internal(&doing, error),
        WriteError::Parquet(error) => LakeError::internal(&doing, error),
        WriteError::DataFile(error) => LakeError::internal(&doing, error),
    })
}

/// The rows of segments, in the table's columns.
pub(super) fn rows_of(segments: Vec<Arc<Segment>>, arrow: Arc<ArrowSchema>) -> Batches {
    let batches = segments
        .into_iter()
        .map(move |segment| in_schema(&segment, &segment.columns, segment.rows, &arrow));
    futures::stream::iter(batches).boxed()
}

/// Writes a file of deletes by position, in the order of files and rows. `name`: before the end of its
/// name; `spec_id` and `values`: the partitioning of the files that it is about, and their partition.
pub(super) async fn deletes(
    io: &FileIO,
    metadata: &TableMetadata,
    name: uuid::Uuid,
    (spec_id, values): (i32, Struct),
    deletes: BTreeMap<Arc<str>, Vec<u32>>,
) -> Result<Option<DataFile>> {
    let (schema, batches) = deletes_of(deletes)?;
    let content = Content {
        path: format!("{}/data/{name}-deletes.parquet", metadata.location()),
        schema,
        spec_id,
        kind: DataContentType::PositionDeletes,
        values,
    };
    write(io.clone(), content, batches).await
}

fn deletes_of(deletes: BTreeMap<Arc<str>, Vec<u32>>) -> Result<(Arc<Schema>, Batches)> {
    let internal = |error| LakeError::internal("making the schema of deletes", error);
    let required =
        |id, name: &str, ty| Arc::new(NestedField::required(id, name, Type::Primitive(ty)));
    let schema = Schema::builder()
        .with_fields([
            required(DELETED_PATH, "file_path", PrimitiveType::String),
            required(DELETED_ROW, "pos", PrimitiveType::Long),
        ])
        .build()
        .map_err(internal)?;
    let arrow = arrow(&schema)?;
    let batches = deletes.into_iter().map(move |(path, rows)| {
        let paths = StringArray::from_iter_values(rows.iter().map(|_| path.as_ref()));
        let rows = Int64Array::from_iter_values(rows.iter().map(|row| i64::from(*row)));
        RecordBatch::try_new(arrow.clone(), vec![Arc::new(paths), Arc::new(rows)])
    });
    Ok((Arc::new(schema), futures::stream::iter(batches).boxed()))
}

enum WriteError {
    Iceberg(iceberg::Error),
    Arrow(ArrowError),
    Parquet(parquet::errors::ParquetError),
    DataFile(iceberg::spec::DataFileBuilderError),
}

impl From<iceberg::Error> for WriteError {
    fn from(error: iceberg::Error) -> Self {
        Self::Iceberg(error)
    }
}

impl From<ArrowError> for WriteError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

async fn write_now(
    io: &FileIO,
    content: Content,
    mut batches: Batches,
) -> std::result::Result<Option<DataFile>, WriteError> {
    let statistics = match content.kind {
        DataContentType::Data => DEFAULT_STATISTICS_TRUNCATE_LENGTH,
        _ => None,
    };
    let level = ZstdLevel::try_new(3).map_err(WriteError::Parquet)?;
    // One row group per file: bounds of a column whose statistics were cut in one of several groups
    // would be taken from the others alone.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None)
        // Paths of a warehouse begin alike: cut, they would not tell apart what deletes are for.
        .set_statistics_truncate_length(statistics)
        .set_created_by(concat!("cdc-platform ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let output = io.new_output(&content.path)?;
    let mut writer = ParquetWriterBuilder::new(properties, content.schema).build(output).await?;
    while let Some(whole) = batches.try_next().await? {
        for start in (0..whole.num_rows()).step_by(BATCH) {
            let rows = BATCH.min(whole.num_rows() - start);
            writer.write(&whole.slice(start, rows)).await?;
        }
    }
    let Some(mut file) = writer.close().await?.into_iter().next() else { return Ok(None) };
    file.partition_spec_id(content.spec_id)
        .content(content.kind)
        .partition(content.values)
        .build()
        .map(Some)
        .map_err(WriteError::DataFile)
}

/// Rows with a segment's columns in the columns of the table.
pub(super) fn in_schema(
    segment: &Segment,
    columns: &[ArrayRef],
    rows: usize,
    schema: &Arc<ArrowSchema>,
) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let found = segment.names().zip(columns).find(|(name, _)| name == field.name());
        match found {
            Some((_, column)) => as_type(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows)),
        }
    });
    let columns: std::result::Result<Vec<_>, _> = columns.collect();
    RecordBatch::try_new(schema.clone(), columns?)
}

/// A column as a type that holds its values, with the table's names and ids of its parts.
pub(super) fn as_type(
    array: &ArrayRef,
    wanted: &DataType,
) -> std::result::Result<ArrayRef, ArrowError> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    let any = array.as_any();
    Ok(match wanted {
        DataType::List(field) => {
            let list = any.downcast_ref::<ListArray>().ok_or_else(other)?;
            let (_, offsets, values, nulls) = list.clone().into_parts();
            let values = as_type(&values, field.data_type())?;
            Arc::new(ListArray::try_new(field.clone(), offsets, values, nulls)?)
        }
        DataType::Struct(fields) => {
            let rows = any.downcast_ref::<StructArray>().ok_or_else(other)?;
            let columns = rows.columns().iter().zip(fields);
            let columns = columns.map(|(column, field)| as_type(column, field.data_type()));
            let columns: std::result::Result<Vec<_>, _> = columns.collect();
            let nulls = rows.nulls().cloned();
            Arc::new(StructArray::try_new(fields.clone(), columns?, nulls)?)
        }
        DataType::Map(field, sorted) => {
            let map = any.downcast_ref::<MapArray>().ok_or_else(other)?;
            let (_, offsets, entries, nulls, _) = map.clone().into_parts();
            let entries: ArrayRef = Arc::new(entries);
            let entries = as_type(&entries, field.data_type())?;
            let entries = entries.as_any().downcast_ref::<StructArray>().ok_or_else(other)?;
            let (field, entries) = (field.clone(), entries.clone());
            Arc::new(MapArray::try_new(field, offsets, entries, nulls, *sorted)?)
        }
        wanted => arrow_cast::cast(array, wanted)?,
    })
}

fn other() -> ArrowError {
    ArrowError::SchemaError("a column is of another kind than the table's".to_owned())
}
