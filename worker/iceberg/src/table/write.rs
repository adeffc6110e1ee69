//! Data files: rows of several partitions and layouts in one Parquet file of the table's schema.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ListArray, MapArray, RecordBatch, StructArray, new_null_array};
use arrow_schema::{ArrowError, DataType, Schema as ArrowSchema};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::io::FileIO;
use iceberg::spec::{DataFile, Schema};
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{LakeError, Result};
use crate::rows::Segment;

/// Rows of one record batch.
const BATCH: usize = 1 << 16;

/// Writes segments into one file; nothing where they have no rows.
pub(super) async fn write(
    io: FileIO,
    path: String,
    schema: Arc<Schema>,
    spec_id: i32,
    segments: Vec<Arc<Segment>>,
) -> Result<Option<DataFile>> {
    let doing = format!("writing data file {path}");
    let runtime = tokio::runtime::Handle::current();
    // Compression takes long, and so do writes to a local disk.
    let written = tokio::task::spawn_blocking(move || {
        runtime.block_on(write_now(&io, &path, schema, spec_id, &segments))
    });
    let written = written.await.map_err(|error| LakeError::internal(&doing, error))?;
    written.map_err(|error| match error {
        WriteError::Iceberg(error) => LakeError::warehouse(&doing, error),
        WriteError::Arrow(error) => LakeError::internal(&doing, error),
        WriteError::Parquet(error) => LakeError::internal(&doing, error),
        WriteError::DataFile(error) => LakeError::internal(&doing, error),
    })
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
    path: &str,
    schema: Arc<Schema>,
    spec_id: i32,
    segments: &[Arc<Segment>],
) -> std::result::Result<Option<DataFile>, WriteError> {
    let level = ZstdLevel::try_new(3).map_err(WriteError::Parquet)?;
    // One row group per file: bounds of a column whose statistics were cut in one of several groups
    // would be taken from the others alone.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None)
        .set_created_by(concat!("cdc-platform ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let arrow = Arc::new(schema_to_arrow_schema(&schema)?);
    let mut writer =
        ParquetWriterBuilder::new(properties, schema).build(io.new_output(path)?).await?;
    for segment in segments {
        let whole = in_schema(segment, &arrow)?;
        for start in (0..whole.num_rows()).step_by(BATCH) {
            let rows = BATCH.min(whole.num_rows() - start);
            writer.write(&whole.slice(start, rows)).await?;
        }
    }
    let Some(mut file) = writer.close().await?.into_iter().next() else { return Ok(None) };
    file.partition_spec_id(spec_id).build().map(Some).map_err(WriteError::DataFile)
}

/// The rows in the columns of the table.
fn in_schema(
    segment: &Segment,
    schema: &Arc<ArrowSchema>,
) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let found = segment.names().zip(&segment.columns).find(|(name, _)| name == field.name());
        match found {
            Some((_, column)) => as_type(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), segment.rows)),
        }
    });
    let columns: std::result::Result<Vec<_>, _> = columns.collect();
    RecordBatch::try_new(schema.clone(), columns?)
}

/// A column as a type that holds its values, with the table's names and ids of its parts.
fn as_type(array: &ArrayRef, wanted: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
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
