//! Columns under construction: cells are written straight into Arrow's buffers.

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int32Builder, Int64Builder, LargeBinaryBuilder, NullBufferBuilder,
    StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{Array, ArrayRef, ListArray, MapArray, StructArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields};
use cdc_shared::avro::Value;
use std::sync::Arc;

use crate::encode;
use crate::types::{Codec, Fault};

/// Largest content of a column of texts: Arrow counts their bytes in 31 bits.
pub(crate) const MOST_BYTES: usize = i32::MAX as usize;

/// One column under construction.
#[derive(Debug)]
pub(crate) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u32, u32),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, bool),
    Uuid(FixedSizeBinaryBuilder),
    Bytes(LargeBinaryBuilder),
    Text(StringBuilder),
    List(Box<Many>),
    Map(Box<Many>, StringBuilder),
    Struct(Vec<(String, ColumnBuilder)>, NullBufferBuilder),
}

/// A column of several values per row.
#[derive(Debug)]
pub(crate) struct Many {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    items: ColumnBuilder,
}

impl Many {
    fn new(items: ColumnBuilder) -> Self {
        Self { offsets: vec![0], nulls: NullBufferBuilder::new(0), items }
    }

    fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Ends the row with what its items have got.
    fn close(&mut self, valid: bool) {
        let end = self.items.rows();
        self.items.settle(end);
        self.offsets.push(end as i32);
        self.nulls.append(valid);
    }
}

/// Appends a text or bytes, unless the column were too long then.
macro_rules! push_bytes {
    ($builder:expr, $bytes:expr) => {{
        let bytes = $bytes;
        if $builder.values_slice().len() + bytes.len() > $crate::column::MOST_BYTES {
            return Err(Fault::TOO_LONG);
        }
        $builder.append_value(bytes);
    }};
}
pub(crate) use push_bytes;

impl ColumnBuilder {
    /// For the values of a codec; `names` are the fields' of a record.
    pub(crate) fn new(codec: &Codec, names: &crate::types::FieldType) -> Self {
        use crate::types::FieldType;
        match (codec, names) {
            (Codec::List(item), FieldType::List(ty)) => {
                Self::List(Box::new(Many::new(Self::new(item, ty))))
            }
            (Codec::Map(value), FieldType::Map(ty)) => {
                Self::Map(Box::new(Many::new(Self::new(value, ty))), StringBuilder::new())
            }
            (Codec::Struct(codecs), FieldType::Struct(fields)) => {
                let fields = codecs.iter().zip(fields);
                let fields = fields.map(|(codec, (name, ty))| (name.clone(), Self::new(codec, ty)));
                Self::Struct(fields.collect(), NullBufferBuilder::new(0))
            }
            _ => Self::simple(codec),
        }
    }

    fn simple(codec: &Codec) -> Self {
        match codec {
            Codec::Bool => Self::Bool(BooleanBuilder::new()),
            Codec::Int => Self::Int(Int32Builder::new()),
            Codec::Long => Self::Long(Int64Builder::new()),
            Codec::Float => Self::Float(Float32Builder::new()),
            Codec::Double => Self::Double(Float64Builder::new()),
            Codec::Decimal(_, precision, scale) => {
                let ty = DataType::Decimal128(*precision as u8, *scale as i8);
                let builder = Decimal128Builder::new().with_data_type(ty);
                Self::Decimal(builder, *precision, *scale)
            }
            Codec::Date => Self::Date(Date32Builder::new()),
            Codec::Time(_) => Self::Time(Time64MicrosecondBuilder::new()),
            Codec::Timestamp(_, zoned) => Self::timestamp(*zoned),
            Codec::Uuid => Self::Uuid(FixedSizeBinaryBuilder::new(16)),
            Codec::Bytes | Codec::Encoded(_) => Self::Bytes(LargeBinaryBuilder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// A column of timestamps.
    pub(crate) fn timestamp(zoned: bool) -> Self {
        let builder = TimestampMicrosecondBuilder::new();
        let builder = if zoned { builder.with_timezone("+00:00") } else { builder };
        Self::Timestamp(builder, zoned)
    }

    /// A column of lists of texts.
    pub(crate) fn texts() -> Self {
        Self::List(Box::new(Many::new(Self::Text(StringBuilder::new()))))
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        use arrow_array::builder::ArrayBuilder;
        match self {
            Self::Bool(builder) => builder.len(),
            Self::Int(builder) => builder.len(),
            Self::Long(builder) => builder.len(),
            Self::Float(builder) => builder.len(),
            Self::Double(builder) => builder.len(),
            Self::Decimal(builder, ..) => builder.len(),
            Self::Date(builder) => builder.len(),
            Self::Time(builder) => builder.len(),
            Self::Timestamp(builder, _) => builder.len(),
            Self::Uuid(builder) => builder.len(),
            Self::Bytes(builder) => builder.len(),
            Self::Text(builder) => builder.len(),
            Self::List(many) | Self::Map(many, _) => many.rows(),
            Self::Struct(fields, nulls) => {
                fields.iter().map(|(_, field)| field.rows()).max().unwrap_or(nulls.len())
            }
        }
    }

    /// Appends a row of null.
    pub(crate) fn push_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Long(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Decimal(builder, ..) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder, _) => builder.append_null(),
            Self::Uuid(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::List(many) | Self::Map(many, _) => many.close(false),
            Self::Struct(fields, nulls) => {
                for (_, field) in fields {
                    field.push_null();
                }
                nulls.append_null();
            }
        }
    }

    /// Makes the column, which a row that failed halfway may have left behind, `rows` long.
    pub(crate) fn settle(&mut self, rows: usize) {
        match self {
            Self::Map(many, keys) => {
                use arrow_array::builder::ArrayBuilder;
                let entries = many.items.rows().max(keys.len());
                many.items.settle(entries);
                while keys.len() < entries {
                    keys.append_value("");
                }
                while many.rows() < rows {
                    many.close(false);
                }
            }
            Self::Struct(fields, nulls) => {
                for (_, field) in fields {
                    field.settle(rows);
                }
                while nulls.len() < rows {
                    nulls.append_null();
                }
            }
            _ => {
                while self.rows() < rows {
                    self.push_null();
                }
            }
        }
    }

    /// Appends a value.
    pub(crate) fn push(&mut self, codec: &Codec, value: Value<'_, '_>) -> Result<(), Fault> {
        if value.is_null() {
            self.push_null();
            return Ok(());
        }
        match (&mut *self, codec) {
            (Self::List(many), Codec::List(codec)) => {
                for item in value.items().ok_or(Fault::OTHER_KIND)? {
                    many.items.push(codec, item)?;
                }
                many.close(true);
                Ok(())
            }
            (Self::Map(many, keys), Codec::Map(codec)) => {
                for (key, item) in value.entries().ok_or(Fault::OTHER_KIND)? {
                    push_bytes!(keys, key);
                    many.items.push(codec, item)?;
                }
                many.close(true);
                Ok(())
            }
            (Self::Struct(fields, nulls), Codec::Struct(codecs)) => {
                let row = value.record().ok_or(Fault::OTHER_KIND)?;
                for ((_, field), (codec, (_, value))) in
                    fields.iter_mut().zip(codecs.iter().zip(row.iter()))
                {
                    field.push(codec, value)?;
                }
                nulls.append_non_null();
                Ok(())
            }
            (builder, codec) => encode::simple(builder, codec, value),
        }
    }

    /// Appends a list of texts; an empty one as null.
    pub(crate) fn push_texts<'t>(
        &mut self,
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<(), Fault> {
        let Self::List(many) = self else { return Err(Fault::OTHER_KIND) };
        let Self::Text(builder) = &mut many.items else { return Err(Fault::OTHER_KIND) };
        let mut any = false;
        for text in texts {
            push_bytes!(builder, text);
            any = true;
        }
        many.close(any);
        Ok(())
    }

    /// The finished column. The builder is as new then.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Long(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, ..) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder, _) => Arc::new(builder.finish()),
            Self::Uuid(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::List(many) => {
                let items = many.items.finish()?;
                let field = Arc::new(Field::new("element", items.data_type().clone(), true));
                let (offsets, nulls) = many.ends();
                Arc::new(ListArray::try_new(field, offsets, items, nulls)?)
            }
            Self::Map(many, keys) => {
                let (keys, values) = (keys.finish(), many.items.finish()?);
                let fields = Fields::from(vec![
                    Field::new("key", DataType::Utf8, false),
                    Field::new("value", values.data_type().clone(), true),
                ]);
                let entries = StructArray::try_new(fields, vec![Arc::new(keys), values], None)?;
                let field = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
                let (offsets, nulls) = many.ends();
                Arc::new(MapArray::try_new(field, offsets, entries, nulls, false)?)
            }
            Self::Struct(fields, nulls) => {
                let mut arrays = Vec::with_capacity(fields.len());
                let mut types = Vec::with_capacity(fields.len());
                for (name, field) in fields {
                    let array = field.finish()?;
                    types.push(Field::new(name.as_str(), array.data_type().clone(), true));
                    arrays.push(array);
                }
                Arc::new(StructArray::try_new(types.into(), arrays, nulls.finish())?)
            }
        })
    }
}

impl Many {
    fn ends(&mut self) -> (OffsetBuffer<i32>, Option<arrow_buffer::NullBuffer>) {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), self.nulls.finish())
    }
}
