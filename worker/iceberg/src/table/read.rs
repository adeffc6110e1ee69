//! Columns of data files, by their ids.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_select::concat::concat;
use futures::TryStreamExt;
use iceberg::arrow::ArrowFileReader;
use iceberg::io::FileIO;
use iceberg::spec::{DataContentType, DataFileFormat};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use roaring::RoaringBitmap;

use super::index::{DELETED_PATH, DELETED_ROW};
use crate::error::{LakeError, Result};

/// Rows that are decoded at a time.
const BATCH: usize = 1 << 14;

/// What a file has of the columns asked for.
pub(super) type Columns = HashMap<i32, ArrayRef>;

/// A file that cannot be read, or not to its end.
pub(super) fn failed(
    path: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> LakeError {
    LakeError::warehouse(&format!("reading {path}"), error)
}

/// Opens columns of a file. `rows`: only these, in ascending order.
pub(super) async fn open(
    io: &FileIO,
    path: &str,
    ids: &[i32],
    rows: Option<&[u32]>,
) -> Result<ParquetRecordBatchStream<ArrowFileReader>> {
    let unavailable = |error| failed(path, error);
    let input = io.new_input(path).map_err(unavailable)?;
    let meta = input.metadata().await.map_err(unavailable)?;
    let reader = ArrowFileReader::new(meta, input.reader().await.map_err(unavailable)?);
    let broken = |error| failed(path, error);
    // The types are the table's, not those that a writer had in memory.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options);
    let builder = builder.await.map_err(broken)?;
    let roots = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
    let wanted = roots.filter(|(_, field)| {
        let info = field.get_basic_info();
        info.has_id() && ids.contains(&info.id())
    });
    let wanted: Vec<usize> = wanted.map(|(at, _)| at).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let total = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut builder = builder.with_projection(mask).with_batch_size(BATCH);
    if let Some(rows) = rows {
        let selection = RowSelection::from_consecutive_ranges(ranges(rows).into_iter(), total);
        builder = builder.with_row_selection(selection);
    }
    builder.build().map_err(broken)
}

/// Reads columns of a file and hands them out, some rows at a time, in order. `rows`: only these,
/// in ascending order.
pub(super) async fn read(
    io: &FileIO,
    path: &str,
    ids: &[i32],
    rows: Option<&[u32]>,
    mut take: impl FnMut(Columns, usize) -> Result<()>,
) -> Result<()> {
    let mut stream = open(io, path, ids, rows).await?;
    while let Some(batch) = stream.try_next().await.map_err(|error| failed(path, error))? {
        take(by_id(&batch), batch.num_rows())?;
    }
    Ok(())
}

/// Reads deletes by position: the file and the row of each. `false`: the file has other columns.
pub(super) async fn positions(
    io: &FileIO,
    path: &str,
    mut take: impl FnMut(&str, u32),
) -> Result<bool> {
    let mut fits = true;
    read(io, path, &[DELETED_PATH, DELETED_ROW], None, |columns, rows| {
        let paths = columns.get(&DELETED_PATH).and_then(|c| c.as_string_opt::<i32>());
        let numbers = columns.get(&DELETED_ROW);
        let numbers = numbers.and_then(|c| c.as_primitive_opt::<Int64Type>());
        let Some((paths, numbers)) = paths.zip(numbers) else {
            fits = false;
            return Ok(());
        };
        for row in 0..rows {
            if let Ok(number) = u32::try_from(numbers.value(row)) {
                take(paths.value(row), number);
            }
        }
        Ok(())
    })
    .await?;
    Ok(fits)
}

/// Deleted rows of data files, by their paths.
pub(super) type Gone = HashMap<Arc<str>, RoaringBitmap>;

/// Rows of some data files that are deleted by position. What is deleted by value counts as there.
/// `deletes`: path, content and format of each file of deletes. `unfit`: the error for one that cannot
/// be read, by its path and what is wrong.
pub(super) async fn gone<'f>(
    io: &FileIO,
    deletes: impl Iterator<Item = (&'f Arc<str>, DataContentType, DataFileFormat)>,
    files: &HashSet<Arc<str>>,
    unfit: impl Fn(&str, &str) -> LakeError,
) -> Result<Gone> {
    let mut gone = Gone::new();
    for (path, content, format) in deletes {
        if content != DataContentType::PositionDeletes {
            continue;
        }
        if format != DataFileFormat::Parquet {
            return Err(unfit(path, "holds deletes in a format that the sink cannot read"));
        }
        let fits = positions(io, path, |path, row| {
            if let Some(path) = files.get(path) {
                gone.entry(path.clone()).or_default().insert(row);
            }
        });
        if !fits.await? {
            return Err(unfit(path, "has other columns than deletes have"));
        }
    }
    Ok(gone)
}

/// What [`read`] hands out, at once.
pub(super) async fn read_rows(
    io: &FileIO,
    path: &str,
    ids: &[i32],
    rows: &[u32],
) -> Result<Columns> {
    let mut pieces: HashMap<i32, Vec<ArrayRef>> = HashMap::new();
    read(io, path, ids, Some(rows), |columns, _| {
        for (id, column) in columns {
            pieces.entry(id).or_default().push(column);
        }
        Ok(())
    })
    .await?;
    let whole = pieces.into_iter().map(|(id, pieces)| {
        let pieces: Vec<_> = pieces.iter().map(AsRef::as_ref).collect();
        let whole = concat(&pieces);
        whole.map(|whole| (id, whole)).map_err(|error| LakeError::internal("joining rows", error))
    });
    whole.collect()
}

fn ranges(rows: &[u32]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in rows {
        let row = *row as usize;
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

/// Columns by the ids of their fields.
pub(super) fn by_id(batch: &RecordBatch) -> Columns {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).filter_map(|(field, column)| {
        let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()?;
        Some((id, column.clone()))
    });
    columns.collect()
}
