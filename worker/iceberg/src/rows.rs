//! The rows of one partition that are open: one row per change, in offset order.

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, Int64Builder, StringBuilder};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow_schema::ArrowError;
use cdc_shared::avro::Value;
use cdc_shared::config::IcebergWriteMode as WriteMode;
use cdc_shared::envelope::{Envelope, Op, Placeholder};

use crate::column::ColumnBuilder;
use crate::error::{LakeError, Result};
use crate::layout::{Layout, META, meta};
use crate::types::Fault;
use crate::upsert::{Half, Marks, Move, hashes};

/// Finished rows of one layout: its columns, then the columns that every row has.
#[derive(Debug)]
pub struct Segment {
    /// How they lie.
    pub layout: Arc<Layout>,
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) rows: usize,
    /// Of a table that is kept by key.
    pub(crate) marks: Marks,
}

impl Segment {
    /// Names of the columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let columns = self.layout.columns.iter().map(|column| column.name.as_str());
        columns.chain(meta(self.layout.mode).iter().copied())
    }

    /// Kafka offsets of the rows.
    pub(crate) fn offsets(&self) -> &[i64] {
        let at = self.names().position(|name| name == "_cdc_offset");
        let offsets = at.and_then(|at| self.columns.get(at)?.as_any().downcast_ref::<Int64Array>());
        offsets.map_or(&[], |offsets| offsets.values())
    }

    /// Kafka offset of a row.
    pub(crate) fn offset(&self, row: usize) -> Option<i64> {
        self.offsets().get(row).copied()
    }
}

/// A value that its column does not hold.
#[derive(Debug, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct BadValue {
    /// Stable code.
    pub code: &'static str,
    column: String,
    what: &'static str,
}

/// Open rows of one layout.
#[derive(Debug)]
struct Open {
    layout: Arc<Layout>,
    columns: Vec<ColumnBuilder>,
    offsets: Int64Builder,
    ops: StringBuilder,
    stamps: ColumnBuilder,
    unavailable: ColumnBuilder,
    rows: usize,
    /// Rows that were refused halfway; they are left out.
    dead: Vec<usize>,
    marks: Marks,
}

/// See the module.
#[derive(Debug)]
pub struct Rows {
    topic: Arc<str>,
    partition: i32,
    closed: Vec<Result<Segment>>,
    open: Option<Open>,
}

impl Rows {
    /// No rows of a partition.
    pub fn new(topic: Arc<str>, partition: i32) -> Self {
        Self { topic, partition, closed: Vec::new(), open: None }
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.closed.clear();
        self.open = None;
    }

    /// Takes one change: its row after it, or its key and, as far as known, the row before it.
    /// `half`: it is one of a change of the primary key, and values can be missing from the other.
    ///
    /// # Errors
    /// A value that its column does not hold. The rows are as before then.
    pub fn push(
        &mut self,
        layout: &Arc<Layout>,
        offset: i64,
        envelope: &Envelope<'_, '_>,
        key: Option<Value<'_, '_>>,
        placeholder: &Placeholder,
        half: Option<(Half, Move)>,
    ) -> std::result::Result<(), BadValue> {
        let is_same = self.open.as_ref().is_some_and(|open| Arc::ptr_eq(&open.layout, layout));
        if !is_same {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open::new(layout.clone()));
        open.push(offset, envelope, key, placeholder, half)
    }

    /// The rows, finished; none are left.
    ///
    /// # Errors
    /// When Arrow takes the columns for none, which they are not.
    pub fn finish(&mut self) -> Result<Vec<Segment>> {
        self.close();
        self.closed.drain(..).collect()
    }

    /// Finishes what is open.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.extend(open.finish(&self.topic, self.partition).transpose());
        }
    }
}

impl Open {
    fn new(layout: Arc<Layout>) -> Self {
        let columns = layout.columns.iter();
        let columns = columns.map(|column| ColumnBuilder::new(&column.codec, &column.ty));
        Self {
            columns: columns.collect(),
            layout,
            offsets: Int64Builder::new(),
            ops: StringBuilder::new(),
            stamps: ColumnBuilder::timestamp(true),
            unavailable: ColumnBuilder::texts(),
            rows: 0,
            dead: Vec::new(),
            marks: Marks::default(),
        }
    }

    fn push(
        &mut self,
        offset: i64,
        envelope: &Envelope<'_, '_>,
        key: Option<Value<'_, '_>>,
        placeholder: &Placeholder,
        half: Option<(Half, Move)>,
    ) -> std::result::Result<(), BadValue> {
        let layout = self.layout.clone();
        let pushed = match envelope.op() {
            Op::Delete => self.push_key(&layout, envelope, key),
            Op::Truncate | Op::Message => Ok(()),
            Op::Create | Op::Update | Op::Read => self.push_row(&layout, envelope, placeholder),
        };
        if layout.mode == WriteMode::Upsert {
            self.marks.deleted.push(envelope.op() == Op::Delete);
            self.marks.moves.extend(half.map(|half| (self.rows, half)));
        }
        self.push_stamp(envelope);
        self.offsets.append_value(offset);
        self.ops.append_value(envelope.op().code());
        self.rows += 1;
        let rows = self.rows;
        self.columns.iter_mut().for_each(|column| column.settle(rows));
        self.stamps.settle(rows);
        self.unavailable.settle(rows);
        pushed.map_err(|(column, Fault { code, what })| {
            self.dead.push(rows - 1);
            BadValue { code, column, what }
        })
    }

    fn push_row(
        &mut self,
        layout: &Layout,
        envelope: &Envelope<'_, '_>,
        placeholder: &Placeholder,
    ) -> std::result::Result<(), (String, Fault)> {
        let row = envelope.after().ok_or_else(|| ("after".to_owned(), Fault::OTHER_KIND))?;
        let mut missing: Vec<(usize, &str)> = Vec::new();
        for (at, ((column, builder), (source, value))) in
            layout.columns.iter().zip(&mut self.columns).zip(row.iter()).enumerate()
        {
            if placeholder.stands_in(source, &value) {
                missing.push((at, &column.name));
                builder.push_null();
            } else {
                let pushed = builder.push(&column.codec, value);
                pushed.map_err(|fault| (column.name.clone(), fault))?;
            }
        }
        if layout.mode == WriteMode::Upsert && !missing.is_empty() {
            if let Some((_, name)) = missing.iter().find(|(at, _)| layout.is_of_key(*at)) {
                return Err(((*name).to_owned(), Fault::OTHER_KIND));
            }
            let columns = missing.iter().map(|(at, _)| *at).collect();
            self.marks.missing.insert(self.rows, columns);
        }
        let names = missing.into_iter().map(|(_, name)| name);
        let pushed = self.unavailable.push_texts(names);
        pushed.map_err(|fault| ("_cdc_unavailable".to_owned(), fault))
    }

    fn push_key(
        &mut self,
        layout: &Layout,
        envelope: &Envelope<'_, '_>,
        key: Option<Value<'_, '_>>,
    ) -> std::result::Result<(), (String, Fault)> {
        let key = key.and_then(|key| key.record());
        // Where rows are kept by key, the key says enough.
        let is_log = layout.mode == WriteMode::Append;
        let before = is_log.then(|| layout.before(envelope)).flatten();
        for (at, (column, builder)) in layout.columns.iter().zip(&mut self.columns).enumerate() {
            let of_key = layout.key.iter().find(|of_key| of_key.column == at).zip(key).and_then(
                |(of_key, key)| {
                    let name = envelope.table_columns().get(at)?.name.as_str();
                    Some((&of_key.codec, key.get(key.position(name)?)?))
                },
            );
            let of_row = || Some((&column.codec, before?.get(at)?));
            if let Some((codec, value)) = of_key.or_else(of_row) {
                let pushed = builder.push(codec, value);
                pushed.map_err(|fault| (column.name.clone(), fault))?;
            }
        }
        Ok(())
    }

    fn push_stamp(&mut self, envelope: &Envelope<'_, '_>) {
        let millis = || envelope.source_ts_ms().and_then(|millis| millis.checked_mul(1000));
        if let (Some(micros), ColumnBuilder::Timestamp(builder, _)) =
            (envelope.source_ts_us().or_else(millis), &mut self.stamps)
        {
            builder.append_value(micros);
        }
    }

    /// The rows that were not refused; `None` when there are none.
    fn finish(mut self, topic: &str, partition: i32) -> Result<Option<Segment>> {
        let rows = self.rows - self.dead.len();
        if rows == 0 {
            return Ok(None);
        }
        let internal = |error| LakeError::internal("finishing columns", error);
        let mut columns = self.finish_columns(topic, partition).map_err(internal)?;
        if !self.dead.is_empty() {
            let mut alive = vec![true; self.rows];
            for row in &self.dead {
                if let Some(alive) = alive.get_mut(*row) {
                    *alive = false;
                }
            }
            if self.layout.mode == WriteMode::Upsert {
                self.marks.keep(&alive);
            }
            let alive = BooleanArray::from(alive);
            for column in &mut columns {
                *column = arrow_select::filter::filter(column, &alive).map_err(internal)?;
            }
        }
        if self.layout.mode == WriteMode::Upsert {
            let of_key = |of_key: &crate::layout::KeyColumn| columns.get(of_key.column).cloned();
            let key: Vec<_> = self.layout.key.iter().filter_map(of_key).collect();
            self.marks.hashes = hashes(&key).map_err(|error| LakeError::internal("keys", error))?;
        }
        Ok(Some(Segment { layout: self.layout, columns, rows, marks: self.marks }))
    }

    fn finish_columns(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
        let mut topics = StringBuilder::with_capacity(self.rows, self.rows * topic.len());
        let mut partitions = Int32Builder::with_capacity(self.rows);
        for _ in 0..self.rows {
            topics.append_value(topic);
        }
        partitions.append_slice(&vec![partition; self.rows]);
        let mut columns = Vec::with_capacity(self.columns.len() + META.len());
        for column in &mut self.columns {
            columns.push(column.finish()?);
        }
        columns.push(Arc::new(topics.finish()));
        columns.push(Arc::new(partitions.finish()));
        columns.push(Arc::new(self.offsets.finish()));
        if self.layout.mode == WriteMode::Append {
            columns.push(Arc::new(self.ops.finish()));
            columns.push(self.stamps.finish()?);
            columns.push(self.unavailable.finish()?);
        }
        Ok(columns)
    }
}
