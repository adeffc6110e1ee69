//! The rows of one partition that are open: one row per change, in offset order.

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, BooleanArray};
use arrow_schema::ArrowError;
use cdc_shared::avro::Value;
use cdc_shared::envelope::{Envelope, Op, Placeholder};

use crate::column::ColumnBuilder;
use crate::error::{LakeError, Result};
use crate::layout::{Layout, META};
use crate::types::Fault;

/// Finished rows of one layout: its columns, then the columns that every row has.
#[derive(Debug)]
pub struct Segment {
    /// How they lie.
    pub layout: Arc<Layout>,
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) rows: usize,
}

impl Segment {
    /// Names of the columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.layout.columns.iter().map(|column| column.name.as_str()).chain(META)
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
}

/// See the module.
#[derive(Debug)]
pub struct Rows {
    topic: Arc<str>,
    partition: i32,
    closed: Vec<std::result::Result<Segment, ArrowError>>,
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
    ) -> std::result::Result<(), BadValue> {
        let is_same = self.open.as_ref().is_some_and(|open| Arc::ptr_eq(&open.layout, layout));
        if !is_same {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open::new(layout.clone()));
        open.push(offset, envelope, key, placeholder)
    }

    /// The rows, finished; none are left.
    ///
    /// # Errors
    /// When Arrow takes the columns for none, which they are not.
    pub fn finish(&mut self) -> Result<Vec<Segment>> {
        self.close();
        let segments: std::result::Result<_, _> = self.closed.drain(..).collect();
        segments.map_err(|error| LakeError::internal("finishing columns", error))
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
        }
    }

    fn push(
        &mut self,
        offset: i64,
        envelope: &Envelope<'_, '_>,
        key: Option<Value<'_, '_>>,
        placeholder: &Placeholder,
    ) -> std::result::Result<(), BadValue> {
        let layout = self.layout.clone();
        let pushed = match envelope.op() {
            Op::Delete => self.push_key(&layout, envelope, key),
            Op::Truncate | Op::Message => Ok(()),
            Op::Create | Op::Update | Op::Read => self.push_row(&layout, envelope, placeholder),
        };
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
        let mut missing: Vec<&str> = Vec::new();
        for ((column, builder), (source, value)) in
            layout.columns.iter().zip(&mut self.columns).zip(row.iter())
        {
            if placeholder.stands_in(source, &value) {
                missing.push(&column.name);
                builder.push_null();
            } else {
                let pushed = builder.push(&column.codec, value);
                pushed.map_err(|fault| (column.name.clone(), fault))?;
            }
        }
        let pushed = self.unavailable.push_texts(missing.into_iter());
        pushed.map_err(|fault| ("_cdc_unavailable".to_owned(), fault))
    }

    fn push_key(
        &mut self,
        layout: &Layout,
        envelope: &Envelope<'_, '_>,
        key: Option<Value<'_, '_>>,
    ) -> std::result::Result<(), (String, Fault)> {
        let key = key.and_then(|key| key.record());
        let before = layout.before(envelope);
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
    fn finish(
        mut self,
        topic: &str,
        partition: i32,
    ) -> std::result::Result<Option<Segment>, ArrowError> {
        let mut rows = self.rows;
        if rows == self.dead.len() {
            return Ok(None);
        }
        let mut topics = StringBuilder::with_capacity(rows, rows * topic.len());
        let mut partitions = Int32Builder::with_capacity(rows);
        for _ in 0..rows {
            topics.append_value(topic);
        }
        partitions.append_slice(&vec![partition; rows]);
        let mut columns = Vec::with_capacity(self.columns.len() + META.len());
        for column in &mut self.columns {
            columns.push(column.finish()?);
        }
        columns.push(Arc::new(topics.finish()));
        columns.push(Arc::new(partitions.finish()));
        columns.push(Arc::new(self.offsets.finish()));
        columns.push(Arc::new(self.ops.finish()));
        columns.push(self.stamps.finish()?);
        columns.push(self.unavailable.finish()?);
        if !self.dead.is_empty() {
            let mut alive = vec![true; rows];
            for row in &self.dead {
                if let Some(alive) = alive.get_mut(*row) {
                    *alive = false;
                }
            }
            rows -= self.dead.len();
            let alive = BooleanArray::from(alive);
            for column in &mut columns {
                *column = arrow_select::filter::filter(column, &alive)?;
            }
        }
        Ok(Some(Segment { layout: self.layout, columns, rows }))
    }
}
