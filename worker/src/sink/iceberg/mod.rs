//! The `iceberg` sink: a change log, one row per change (`write_mode: append`), or the rows of the
//! source as they are (`write_mode: upsert`), exactly once.
//!
//! The rows of a flush and the offsets that they reach are one snapshot of the table, guarded by a
//! compare-and-set on the offsets that the table holds (`cdc_iceberg`); so whatever is repeated, by
//! us after a lost answer or by a second live copy of this worker, has no second effect.
//!
//! ```text
//! Change ─▸ writer.rs (per partition: cells into columns) ─▸ committer.rs (per table: one commit
//!              │ layout, once per schema                      for all partitions that flush)
//!              └ naming.rs (which table)
//! ```
//!
//! Tombstones are no changes and leave no row. A truncate is a row without values in a change log; a
//! table of rows stops at it.

mod committer;
mod error;
mod naming;
mod upkeep;
pub mod verify;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use cdc_iceberg::{Catalog, Lake, LetterFate, Owner, PartitionIndex, TypeOptions};
use cdc_shared::config::{
    IcebergConfig, IcebergWriteMode, PipelineConfig, SinkConfig, TruncateHandling,
};
use cdc_shared::envelope::Placeholder;
use cdc_shared::offset::{Position, TopicPartition};

use self::committer::Committer;
use self::error::sink_error;
use self::naming::Naming;
use self::writer::LakeWriter;
use super::{BatchLimits, PartitionWriter, Sink, SinkError, Standing, retry};

/// Least time between two commits that do nothing but move offsets.
const POSITION_INTERVAL: Duration = Duration::from_secs(60);

/// What all writers of a sink share.
#[derive(Debug)]
struct Shared {
    types: TypeOptions,
    placeholder: Placeholder,
    limits: BatchLimits,
    mode: IcebergWriteMode,
    truncate: TruncateHandling,
}

/// The sink; see the module.
#[derive(Debug)]
pub struct IcebergSink {
    lake: Arc<Lake>,
    naming: Naming,
    shared: Arc<Shared>,
    /// One per table, by its topic: a topic feeds one table.
    committers: Mutex<HashMap<cdc_iceberg::TableName, Arc<Committer>>>,
    /// Where the rows of partitions are, as their writers know.
    indexes: Mutex<HashMap<TopicPartition, Weak<PartitionIndex>>>,
}

impl IcebergSink {
    /// Reads the settings. Opens nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be used ([`super::Disposition::Fatal`]).
    pub fn new(
        pipeline: &PipelineConfig,
        sink: &SinkConfig,
        config: &IcebergConfig,
    ) -> Result<Self, SinkError> {
        let catalog = Catalog::new(config);
        let catalog = catalog.map_err(|error| sink_error("opening the catalog", error))?;
        Self::with_catalog(pipeline, sink, config, catalog)
    }

    /// The same with a catalog that is already there.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_catalog(
        pipeline: &PipelineConfig,
        sink: &SinkConfig,
        config: &IcebergConfig,
        catalog: Catalog,
    ) -> Result<Self, SinkError> {
        let owner = Owner::new(&pipeline.pipeline_id, &sink.sink_id);
        let lake = Lake::new(catalog, config, owner);
        let lake = lake.map_err(|error| sink_error("opening the warehouse", error))?;
        let limits = BatchLimits {
            rows: config.batch_size.max(1) as usize,
            bytes: usize::try_from(config.target_file_size).unwrap_or(usize::MAX),
            age: config.flush_interval(),
        };
        Ok(Self {
            lake: Arc::new(lake),
            naming: Naming::new(pipeline, sink, config),
            shared: Arc::new(Shared {
                types: TypeOptions::new(&pipeline.source),
                placeholder: Placeholder::new(&pipeline.source.unavailable_placeholder),
                limits,
                mode: config.write_mode,
                truncate: config.truncate,
            }),
            committers: Mutex::default(),
            indexes: Mutex::default(),
        })
    }

    fn open(
        &self,
        tp: TopicPartition,
        start: Position,
        trouble: retry::TroubleReporter,
    ) -> LakeWriter {
        let table = self.table(&tp.topic);
        let mut committers = self.committers.lock().unwrap_or_else(PoisonError::into_inner);
        let committer = committers
            .entry(table.name().clone())
            .or_insert_with(|| Committer::start(table.clone(), self.shared.limits.rows));
        let (shared, committer) = (self.shared.clone(), committer.clone());
        LakeWriter::new(shared, table, committer, tp, start, trouble)
    }

    fn indexes(&self) -> MutexGuard<'_, HashMap<TopicPartition, Weak<PartitionIndex>>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, topic: &str) -> Arc<cdc_iceberg::LakeTable> {
        self.lake.table(&self.naming.table(topic))
    }
}

#[async_trait]
impl Sink for IcebergSink {
    async fn prove(&self) -> Result<(), SinkError> {
        let proven = self.lake.prove(self.naming.namespace()).await;
        proven.map_err(|error| sink_error("proving the sink", error))
    }

    fn keeps_position(&self) -> bool {
        true
    }

    async fn read_position(&self, tp: &TopicPartition) -> Result<Option<Position>, SinkError> {
        let position = self.table(&tp.topic).position(tp).await;
        position.map_err(|error| sink_error(&format!("reading the position of {tp}"), error))
    }

    async fn replace_position(
        &self,
        tp: &TopicPartition,
        expected: Option<&Position>,
        new: &Position,
    ) -> Result<bool, SinkError> {
        let replaced = self.table(&tp.topic).replace_position(tp, expected, new).await;
        replaced.map_err(|error| sink_error(&format!("writing the position of {tp}"), error))
    }

    fn writer(
        &self,
        tp: TopicPartition,
        start: Position,
        trouble: retry::TroubleReporter,
    ) -> Box<dyn PartitionWriter> {
        let writer = self.open(tp.clone(), start, trouble);
        if let Some(index) = writer.index() {
            self.indexes().insert(tp, Arc::downgrade(index));
        }
        Box::new(writer)
    }

    async fn standing(
        &self,
        tp: &TopicPartition,
        _at: &Position,
        offset: i64,
    ) -> Result<Standing, SinkError> {
        if self.shared.mode == IcebergWriteMode::Append {
            return Ok(Standing::Stands);
        }
        let fate = self.table(&tp.topic).letter(tp, offset).await;
        let fate = fate.map_err(|error| sink_error("reading rejected records", error))?;
        Ok(match fate {
            None => Standing::Superseded("the sink does not remember that it rejected it".into()),
            Some(LetterFate::Stands) => Standing::Stands,
            Some(LetterFate::Replayed) => Standing::Replayed,
            Some(LetterFate::Partly(by)) => Standing::Superseded(format!(
                "a later change at offset {by} wrote a part of the row: a new snapshot of the table \
                 puts it right"
            )),
            Some(LetterFate::Superseded(by)) => {
                Standing::Superseded(format!("something newer of its key came at offset {by}"))
            }
        })
    }

    fn replay(
        &self,
        tp: TopicPartition,
        at: &Position,
        offset: i64,
        trouble: retry::TroubleReporter,
    ) -> Option<Box<dyn PartitionWriter>> {
        let index = self.indexes().get(&tp).and_then(Weak::upgrade);
        Some(Box::new(self.open(tp, at.clone(), trouble).for_letter(offset, index)))
    }

    fn batch_limits(&self) -> BatchLimits {
        self.shared.limits
    }

    fn position_interval(&self) -> Duration {
        self.shared.limits.age.max(POSITION_INTERVAL)
    }
}
