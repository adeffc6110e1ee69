//! Rows of a plan as record batches, with the values that were not sent put in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, Schema as ArrowSchema};
use arrow_select::interleave::interleave;
use arrow_select::take::take;
use iceberg::io::FileIO;
use iceberg::spec::Schema;

use super::{read, write};
use crate::error::Result;
use crate::rows::Segment;
use crate::upsert::{Chosen, Plan, Short, Source, locate};

/// Rows of files, by what was asked for.
#[derive(Debug, Default)]
pub(super) struct Stored {
    files: HashMap<Arc<str>, (Vec<u32>, read::Columns)>,
}

/// What a file is asked for: rows and columns.
type Wanted = BTreeMap<Arc<str>, (BTreeSet<u32>, BTreeSet<i32>)>;

/// The segments of the parts of a plan.
pub(super) type Segments<'s> = &'s [Vec<Arc<Segment>>];

/// Name of a column that a row lacks.
fn name(segments: &[Arc<Segment>], row: usize, column: usize) -> Option<&str> {
    let (segment, _) = locate(segments, row)?;
    Some(&segment.layout.columns.get(column)?.name)
}

impl Stored {
    /// Reads what the rows of a plan lack. A row for which a file has no such column is given back.
    pub(super) async fn read(
        io: &FileIO,
        plan: &Plan,
        segments: Segments<'_>,
        schema: &Schema,
    ) -> Result<std::result::Result<Self, Short>> {
        let mut wanted = Wanted::new();
        for_each_stored(plan, segments, schema, |_, file, row, id| {
            let (rows, ids) = wanted.entry(file.clone()).or_default();
            rows.insert(row);
            ids.insert(id);
        });
        let mut stored = Self::default();
        for (file, (rows, ids)) in wanted {
            let (rows, ids): (Vec<_>, Vec<_>) =
                (rows.into_iter().collect(), ids.into_iter().collect());
            let columns = match read::read_rows(io, &file, &ids, &rows).await {
                Ok(columns) => columns,
                // Somebody has removed it.
                Err(error) => match io.exists(&*file).await {
                    Ok(false) => read::Columns::default(),
                    _ => return Err(error),
                },
            };
            stored.files.insert(file, (rows, columns));
        }
        let mut lacking = None;
        for_each_stored(plan, segments, schema, |short, file, row, id| {
            if stored.find(file, row, id).is_none() {
                lacking.get_or_insert(short);
            }
        });
        Ok(lacking.map_or(Ok(stored), Err))
    }

    /// A column of a file and the place of a row in it.
    fn find(&self, file: &Arc<str>, row: u32, id: i32) -> Option<(&ArrayRef, usize)> {
        let (rows, columns) = self.files.get(file)?;
        let (column, at) = (columns.get(&id)?, rows.binary_search(&row).ok()?);
        (at < column.len()).then_some((column, at))
    }
}

fn for_each_stored(
    plan: &Plan,
    segments: Segments<'_>,
    schema: &Schema,
    mut each: impl FnMut(Short, &Arc<str>, u32, i32),
) {
    for (part, (of_part, segments)) in plan.parts.iter().zip(segments).enumerate() {
        for Chosen { row, fills } in &of_part.rows {
            for (column, source) in fills {
                let field = name(segments, *row, *column);
                let field = field.and_then(|name| schema.field_by_name(name));
                if let (Source::File(file, at), Some(field)) = (source, field) {
                    each(Short { part, row: *row }, file, *at, field.id);
                }
            }
        }
    }
}

/// Makes the rows of one part.
pub(super) struct Filling<'f> {
    pub(super) plan: &'f Plan,
    pub(super) segments: Segments<'f>,
    pub(super) stored: &'f Stored,
    pub(super) schema: &'f Schema,
    pub(super) arrow: &'f Arc<ArrowSchema>,
}

impl Filling<'_> {
    /// The rows of a part, one batch for each of its segments.
    pub(super) fn batches(&self, part: usize) -> std::result::Result<Vec<RecordBatch>, ArrowError> {
        let (Some(of_part), Some(segments)) = (self.plan.parts.get(part), self.segments.get(part))
        else {
            return Ok(Vec::new());
        };
        let mut batches = Vec::new();
        let (mut start, mut rest) = (0, of_part.rows.as_slice());
        for segment in segments {
            let end = start + segment.rows;
            let (here, later) = rest.split_at(rest.partition_point(|chosen| chosen.row < end));
            if !here.is_empty() {
                batches.push(self.batch(segment, start, here)?);
            }
            (start, rest) = (end, later);
        }
        Ok(batches)
    }

    fn batch(
        &self,
        segment: &Segment,
        start: usize,
        rows: &[Chosen],
    ) -> std::result::Result<RecordBatch, ArrowError> {
        let numbers = rows.iter().map(|chosen| (chosen.row - start) as u32);
        let numbers = UInt32Array::from_iter_values(numbers);
        let columns = segment.columns.iter().map(|column| take(column, &numbers, None));
        let columns: std::result::Result<Vec<_>, _> = columns.collect();
        let plain = write::in_schema(segment, &columns?, rows.len(), self.arrow)?;
        let filled: BTreeSet<usize> =
            rows.iter().flat_map(|chosen| &chosen.fills).map(|(column, _)| *column).collect();
        let mut columns = plain.columns().to_vec();
        for column in filled {
            let Some(name) = segment.layout.columns.get(column).map(|column| &column.name) else {
                continue;
            };
            let at = self.arrow.index_of(name)?;
            if let Some(own) = columns.get_mut(at) {
                *own = self.column(own, name, column, rows)?;
            }
        }
        RecordBatch::try_new(self.arrow.clone(), columns)
    }

    /// A column with values from elsewhere where rows lack theirs.
    fn column(
        &self,
        own: &ArrayRef,
        name: &str,
        column: usize,
        rows: &[Chosen],
    ) -> std::result::Result<ArrayRef, ArrowError> {
        let mut arrays = vec![own.clone()];
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut picks = Vec::with_capacity(rows.len());
        for (at, chosen) in rows.iter().enumerate() {
            let fill = chosen.fills.iter().find(|(filled, _)| *filled == column);
            let Some((_, source)) = fill else {
                picks.push((0, at));
                continue;
            };
            let (array, key, row) = self.values(source, name).ok_or_else(lost)?;
            let number = if let Some(number) = known.get(&key) {
                *number
            } else {
                arrays.push(write::as_type(array, own.data_type())?);
                known.insert(key, arrays.len() - 1);
                arrays.len() - 1
            };
            picks.push((number, row));
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &picks)
    }

    /// The column that a value is in, with its place there.
    fn values(&self, source: &Source, name: &str) -> Option<(&ArrayRef, Key, usize)> {
        match source {
            Source::Batch { part, row } => {
                let (segment, at) = locate(self.segments.get(*part)?, *row)?;
                let column = segment.names().position(|known| known == name)?;
                Some((segment.columns.get(column)?, Key::Batch(*part, *row - at), at))
            }
            Source::File(file, row) => {
                let id = self.schema.field_by_name(name)?.id;
                let (column, at) = self.stored.find(file, *row, id)?;
                Some((column, Key::File(file.clone()), at))
            }
        }
    }
}

/// Where a column that values are taken from is: a segment by its first row, or a file.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Batch(usize, usize),
    File(Arc<str>),
}

fn lost() -> ArrowError {
    ArrowError::InvalidArgumentError("a value that a plan refers to is not there".to_owned())
}
