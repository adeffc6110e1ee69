//! The rows of a table as a stream, each value as a text: for whoever compares them.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::TableIdent;
use iceberg::table::StaticTable;

use super::{LakeTable, Loaded};
use crate::error::{Kind, LakeError, Result};
use crate::text::text;

/// Rows that are in memory at a time, of each file that is read.
const BATCH: usize = 4096;

/// The live rows of a snapshot.
pub struct Scan {
    /// The snapshot; `None`: the table has none, and no rows.
    pub snapshot: Option<i64>,
    batches: BoxStream<'static, iceberg::Result<RecordBatch>>,
    columns: Vec<String>,
    place: String,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Some rows.
#[derive(Debug)]
pub struct ScannedRows {
    columns: Vec<(String, ArrayRef)>,
    rows: usize,
    place: String,
}

impl LakeTable {
    /// Reads columns of all rows that are live in main's newest snapshot.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn scan(&self, columns: &[String]) -> Result<Scan> {
        let Loaded { metadata, io, .. } = self.loaded().await?;
        let place = format!("reading table {}", self.name);
        let failed = |error| LakeError::warehouse(&place, error);
        let snapshot = metadata.current_snapshot_id();
        let name = TableIdent::from_strs([&self.name.namespace, &self.name.table]);
        let table =
            StaticTable::from_metadata(metadata.as_ref().clone(), name.map_err(failed)?, io);
        let table = table.await.map_err(failed)?;
        let scan =
            table.scan().with_batch_size(Some(BATCH)).select(columns).build().map_err(failed)?;
        let batches = scan.to_arrow().await.map_err(failed)?.boxed();
        let columns = columns.to_vec();
        Ok(Scan { snapshot, batches, columns, place })
    }

    /// Main's newest snapshot, and the most rows that it can have.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn newest(&self) -> Result<(Option<i64>, u64)> {
        let metadata = self.loaded().await?.metadata;
        let snapshot = metadata.current_snapshot();
        let rows = snapshot.and_then(|snapshot| {
            snapshot.summary().additional_properties.get("total-records")?.parse().ok()
        });
        Ok((metadata.current_snapshot_id(), rows.unwrap_or(0)))
    }
}

impl Scan {
    /// Some more rows, in no order; `None` at their end.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub async fn next(&mut self) -> Result<Option<ScannedRows>> {
        let batch = self.batches.try_next().await;
        let Some(batch) = batch.map_err(|error| LakeError::warehouse(&self.place, error))? else {
            return Ok(None);
        };
        let columns = self.columns.iter().map(|name| {
            let column = batch.column_by_name(name).cloned().ok_or_else(|| {
                let message = format!("{}: column {name} is not in what was read", self.place);
                LakeError::new(Kind::Internal, "internal", message)
            });
            Ok((name.clone(), column?))
        });
        let columns = columns.collect::<Result<_>>()?;
        Ok(Some(ScannedRows { columns, rows: batch.num_rows(), place: self.place.clone() }))
    }
}

impl ScannedRows {
    /// How many.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A value as PostgreSQL writes it; the columns are counted as they were asked for. `None`: NULL.
    ///
    /// # Errors
    /// A type that the sink does not write.
    pub fn text(&self, column: usize, row: usize) -> Result<Option<String>> {
        let Some((name, values)) = self.columns.get(column) else { return Ok(None) };
        text(values, row).map_err(|what| {
            let message = format!("{}: column {name} has type {what}", self.place);
            LakeError::new(Kind::Unfit, "table_unfit", message)
        })
    }

    /// All values of each row as Arrow shows them; `None`: NULL.
    pub(super) fn shown(&self) -> Result<Vec<Vec<Option<String>>>> {
        let options = FormatOptions::new();
        let formatters = self.columns.iter().map(|(_, values)| {
            let formatter = ArrayFormatter::try_new(values.as_ref(), &options)?;
            Ok((formatter, values))
        });
        let formatters = formatters.collect::<std::result::Result<Vec<_>, ArrowError>>();
        let formatters =
            formatters.map_err(|error| LakeError::internal("showing values", error))?;
        let shown = |row: usize| {
            let texts = formatters.iter().map(|(formatter, values)| {
                (!values.is_null(row)).then(|| formatter.value(row).to_string())
            });
            texts.collect()
        };
        Ok((0..self.rows).map(shown).collect())
    }

    /// An integer, or the microseconds of a timestamp. `None`: NULL, or none of these.
    pub fn number(&self, column: usize, row: usize) -> Option<i64> {
        let (_, values) = self.columns.get(column)?;
        if values.is_null(row) {
            return None;
        }
        match values.data_type() {
            DataType::Int32 => Some(values.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Some(values.as_primitive::<Int64Type>().value(row)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Some(values.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            _ => None,
        }
    }

    /// The elements of a list of texts; none where it is NULL or no such list.
    pub fn texts(&self, column: usize, row: usize) -> Vec<String> {
        let list = self.columns.get(column).and_then(|(_, values)| values.as_list_opt::<i32>());
        let Some(list) = list.filter(|list| list.is_valid(row)) else { return Vec::new() };
        let items = list.value(row);
        let items = items.as_string_opt::<i32>().into_iter().flatten().flatten();
        items.map(str::to_owned).collect()
    }
}
