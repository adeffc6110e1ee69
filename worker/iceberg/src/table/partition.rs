//! Partitioned tables: the partitioning that a new table gets, and rows by their partitions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use cdc_shared::config::{PartitionField, PartitionTransform};
use futures::{StreamExt, TryStreamExt};
use iceberg::arrow::RecordBatchPartitionSplitter;
use iceberg::spec::{
    PartitionSpecRef, SchemaRef, Struct, TableMetadata, Transform, UnboundPartitionSpec,
};

use super::write::Batches;
use crate::catalog::TableName;
use crate::error::{Kind, LakeError, Result};

/// Rows of one partition.
pub(super) type Rows = (Struct, Vec<RecordBatch>);

/// The partitioning that a table is to get; `None` where it has it. A table that has rows keeps what
/// it has.
///
/// # Errors
/// Another one that a table with rows has, or one that no table of these columns can have.
pub(super) fn spec(
    table: &TableName,
    wanted: &[PartitionField],
    metadata: &TableMetadata,
) -> Result<Option<UnboundPartitionSpec>> {
    let schema = metadata.current_schema();
    let refuse = |message: String, hint: &str| {
        Err(LakeError::new(Kind::Unfit, "partitioning", message).hint(hint))
    };
    let mut fields = Vec::with_capacity(wanted.len());
    for field in wanted {
        let transform = transform(field.transform);
        let Some(column) = schema.field_by_name(&field.column) else {
            let message = format!("partition_by: table {table} has no column {}", field.column);
            return refuse(message, "correct partition_by");
        };
        if transform.result_type(&column.field_type).is_err() {
            let message = format!(
                "partition_by: {field} cannot be made of column {} of table {table}, which is {}",
                field.column, column.field_type
            );
            return refuse(message, "correct partition_by");
        }
        fields.push((column.id, name(field), transform));
    }
    let found = metadata.default_partition_spec();
    let has = found.fields().iter().map(|field| (field.source_id, field.transform));
    if has.eq(fields.iter().map(|(id, _, transform)| (*id, *transform))) {
        return Ok(None);
    }
    if has_rows(metadata) || !found.is_unpartitioned() {
        let message = format!("table {table} is partitioned otherwise than partition_by says");
        return refuse(
            message,
            "leave partition_by out: the table's own partitioning counts then, which any engine \
             changes for new rows; or fill a new table (another sink_id and table_name)",
        );
    }
    let spec = fields.into_iter().try_fold(UnboundPartitionSpec::builder(), |spec, field| {
        spec.add_partition_field(field.0, field.1, field.2)
    });
    let spec = spec.map_err(|error| {
        let message = format!("partition_by of table {table}");
        LakeError::new(Kind::Unfit, "partitioning", message).caused_by(error)
    });
    Ok(Some(spec?.build()))
}

/// Whether there may be files, so that what they are partitioned by matters.
fn has_rows(metadata: &TableMetadata) -> bool {
    metadata.current_snapshot().is_some_and(|snapshot| {
        let total = snapshot.summary().additional_properties.get("total-data-files");
        total.is_none_or(|total| total != "0")
    })
}

fn transform(wanted: PartitionTransform) -> Transform {
    match wanted {
        PartitionTransform::Identity => Transform::Identity,
        PartitionTransform::Bucket(buckets) => Transform::Bucket(buckets),
        PartitionTransform::Truncate(width) => Transform::Truncate(width),
        PartitionTransform::Year => Transform::Year,
        PartitionTransform::Month => Transform::Month,
        PartitionTransform::Day => Transform::Day,
        PartitionTransform::Hour => Transform::Hour,
    }
}

/// The names that Iceberg's Java and Spark give, as far as a manifest can have them.
fn name(field: &PartitionField) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let column: String = field.column.chars().map(plain).collect();
    let column = if is_name(&column) { column } else { format!("_{column}") };
    match field.transform {
        PartitionTransform::Identity => column,
        PartitionTransform::Bucket(_) => format!("{column}_bucket"),
        PartitionTransform::Truncate(_) => format!("{column}_trunc"),
        PartitionTransform::Year => format!("{column}_year"),
        PartitionTransform::Month => format!("{column}_month"),
        PartitionTransform::Day => format!("{column}_day"),
        PartitionTransform::Hour => format!("{column}_hour"),
    }
}

/// What Avro, in which manifests are, takes as a name. Readers refuse a manifest with another.
fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Rows by their partitions.
///
/// # Errors
/// Values that have no place in the partitioning.
pub(super) async fn split(
    schema: SchemaRef,
    spec: PartitionSpecRef,
    batches: Batches,
) -> Result<Vec<Rows>> {
    let runtime = tokio::runtime::Handle::current();
    let split =
        tokio::task::spawn_blocking(move || runtime.block_on(split_now(schema, spec, batches)));
    split.await.map_err(|error| LakeError::internal("splitting rows by partition", error))?
}

async fn split_now(
    schema: SchemaRef,
    spec: PartitionSpecRef,
    mut batches: Batches,
) -> Result<Vec<Rows>> {
    let internal = |error| LakeError::internal("splitting rows by partition", error);
    let splitter = RecordBatchPartitionSplitter::try_new_with_computed_values(schema, spec);
    let splitter = splitter.map_err(internal)?;
    let mut parts: HashMap<Struct, Vec<RecordBatch>> = HashMap::new();
    let failed = |error| LakeError::internal("rows of a table", error);
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        for (key, rows) in splitter.split(&batch).map_err(internal)? {
            parts.entry(key.data().clone()).or_default().push(rows);
        }
    }
    Ok(parts.into_iter().collect())
}

/// Batches that are there, as those that are made.
pub(super) fn batches(rows: Vec<RecordBatch>) -> Batches {
    futures::stream::iter(rows.into_iter().map(Ok)).boxed()
}

/// Partitionings that can be written.
pub(super) fn is_known(metadata: &TableMetadata) -> bool {
    let spec: &Arc<_> = metadata.default_partition_spec();
    spec.fields().iter().all(|field| field.transform != Transform::Unknown && is_name(&field.name))
}
