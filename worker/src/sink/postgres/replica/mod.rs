//! The `postgres` sink in `write_mode: replica`: a typed mirror of the source's tables, exactly
//! once.
//!
//! One topic is one table at the source and one in the target. The rows of a batch and the sink's
//! own record of its progress are one transaction, guarded by a compare-and-set on that record
//! (`statement.rs`); so whatever is repeated, by us after a lost answer or by a second live copy of
//! this worker, has no second effect.
//!
//! ```text
//! Change ─▸ writer.rs ─▸ segment.rs (cells, folded by key) ─▸ deliver.rs ─▸ statement.rs
//!              │ layout.rs, types/ (once per schema)            │ mirror.rs, evolve.rs (the table)
//!              └ naming.rs                                      └ several.rs, moved.rs (changes of a key)
//! ```
//!
//! Four tables of the sink stand beside each other: the progress table, `cdc_mirrors` (which table
//! is the mirror of what, and how far its columns are), `cdc_moved_rows` (values on their way from
//! a row's old key to its new one), `cdc_rejected_keys` (what a dead letter that is sent again must
//! not overwrite).
//!
//! PostgreSQL 12 or later.

mod deliver;
mod evolve;
mod fresh;
mod history;
mod layout;
mod mirror;
mod moved;
mod naming;
mod param;
mod record;
mod rejected;
mod segment;
mod several;
mod statement;
pub mod types;
mod whole;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cdc_shared::config::{
    Consistency, EnumHandling as ConfigEnums, PipelineConfig, PostgresSinkConfig,
};
use cdc_shared::envelope::Placeholder;
use cdc_shared::offset::{Position, TopicPartition};

use self::history::History;
use self::layout::LayoutOptions;
use self::mirror::Mirrors;
use self::naming::{NamePattern, SourceTable};
use self::types::{EnumHandling, TargetTypes, TypeOptions};
use self::whole::WholeWriter;
use self::writer::ReplicaWriter;
use super::config::{Options, place};
use super::name::TableName;
use super::{error, prove};
use crate::sink::whole::WholeSink;
use crate::sink::{BatchLimits, PartitionWriter, Sink, SinkError, Standing, retry};

/// Schema of what stands in none of its own.
const DEFAULT_SCHEMA: &str = "public";

/// Settings of the sessions. Joins with the rows of a batch go through the key's index, however
/// large the table is or its statistics make it look; and values are read back as they were
/// written.
const SESSION: &[&str] = &[
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "enable_seqscan = off",
    "plan_cache_mode = force_generic_plan",
    "jit = off",
    "timezone = 'UTC'",
    "datestyle = 'ISO, YMD'",
    "intervalstyle = 'postgres'",
    "extra_float_digits = 1",
];

/// The replica sink; see the module.
#[derive(Debug)]
pub struct PostgresReplica {
    mirrors: Arc<Mirrors>,
    placeholder: Arc<Placeholder>,
    /// `consistency: transaction`.
    whole: bool,
    /// Whether the sink was proven once. From then on no table of its own is created again.
    proven: AtomicBool,
}

impl PostgresReplica {
    /// Reads the settings and the TLS files. Connects later, in [`Sink::prove`].
    ///
    /// # Errors
    /// A table name or TLS file that cannot be used ([`crate::sink::Disposition::Fatal`]).
    pub fn new(
        pipeline: &PipelineConfig,
        sink_id: &str,
        config: &PostgresSinkConfig,
    ) -> Result<Self, SinkError> {
        let names = NamePattern::parse(config.target_table(), DEFAULT_SCHEMA)
            .map_err(|why| error::configuration(&place(config), &format!("target_table: {why}")))?;
        let schema = names.fixed_schema().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
        let mut options = Options::new(&pipeline.pipeline_id, sink_id, config, &schema)?;
        options.session = SESSION;
        let layouts = LayoutOptions {
            names,
            // What the target has is found out by the proof.
            types: TypeOptions::new(&pipeline.source, EnumHandling::Text, TargetTypes::default()),
            creates_enums: config.enums == ConfigEnums::Create,
        };
        let history = History::new(pipeline).map_err(|why| {
            error::configuration(&place(config), &format!("schema registry: {why}"))
        })?;
        Ok(Self {
            mirrors: Arc::new(Mirrors::new(options, layouts, config, history)?),
            placeholder: Arc::new(Placeholder::new(&pipeline.source.unavailable_placeholder)),
            whole: config.consistency == Consistency::Transaction,
            proven: AtomicBool::new(false),
        })
    }
}

/// The mirror of a table at the source.
///
/// # Errors
/// What is wrong with `target_table`, or with the name that it gives.
pub(super) fn mirror_of(
    config: &PostgresSinkConfig,
    schema: &str,
    table: &str,
) -> Result<TableName, String> {
    let source = SourceTable { schema: schema.to_owned(), table: table.to_owned() };
    NamePattern::parse(config.target_table(), DEFAULT_SCHEMA)
        .map_err(|why| format!("target_table: {why}"))?
        .of(&source)
}

/// The sink's own record.
///
/// # Errors
/// What is wrong with the settings that name it.
pub(super) fn progress_table(config: &PostgresSinkConfig) -> Result<TableName, String> {
    let pattern = NamePattern::parse(config.target_table(), DEFAULT_SCHEMA)
        .map_err(|why| format!("target_table: {why}"))?;
    let schema = pattern.fixed_schema().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
    TableName::parse(&config.progress_table, &schema)
}

#[async_trait]
impl Sink for PostgresReplica {
    async fn prove(&self) -> Result<(), SinkError> {
        let may_create = !self.proven.load(Ordering::Acquire);
        let database = &self.mirrors.database;
        let mut connection = database.connection("connecting").await?;
        prove::prove_progress(&mut connection, may_create).await?;
        let options = &database.options;
        for (table, create) in [
            (record::table(options), record::create_statement(options)),
            (moved::table(options), moved::create_statement(options)),
            (rejected::table(options), rejected::create_statement(options)),
        ] {
            if connection.find(&table).await?.is_none() {
                prove::make(&mut connection, &table, &create, may_create).await?;
            }
        }
        connection.rehearse_progress().await?;
        self.mirrors.look_for_types(&mut connection).await?;
        if self.whole {
            rejected::forget_all(&mut connection).await?;
        }
        self.proven.store(true, Ordering::Release);
        Ok(())
    }

    fn keeps_position(&self) -> bool {
        true
    }

    async fn read_position(&self, tp: &TopicPartition) -> Result<Option<Position>, SinkError> {
        let doing = format!("reading the position of {tp}");
        let mut connection = self.mirrors.database.connection(&doing).await?;
        let found = connection.read_or_absent(tp).await?;
        if let Some(at) = &found {
            self.mirrors.load_standing(&mut connection, tp, at).await?;
        }
        Ok(found)
    }

    async fn replace_position(
        &self,
        tp: &TopicPartition,
        expected: Option<&Position>,
        new: &Position,
    ) -> Result<bool, SinkError> {
        let doing = format!("writing the position of {tp}");
        self.mirrors.database.connection(&doing).await?.replace(tp, expected, new).await
    }

    fn writer(
        &self,
        tp: TopicPartition,
        start: Position,
        trouble: retry::TroubleReporter,
    ) -> Box<dyn PartitionWriter> {
        let (mirrors, placeholder) = (self.mirrors.clone(), self.placeholder.clone());
        Box::new(ReplicaWriter::new(mirrors, placeholder, tp, start, trouble))
    }

    async fn standing(
        &self,
        tp: &TopicPartition,
        at: &Position,
        offset: i64,
    ) -> Result<Standing, SinkError> {
        self.mirrors.fate_of(tp, at, offset).await
    }

    fn replay(
        &self,
        tp: TopicPartition,
        at: &Position,
        _offset: i64,
        trouble: retry::TroubleReporter,
    ) -> Option<Box<dyn PartitionWriter>> {
        let (mirrors, placeholder) = (self.mirrors.clone(), self.placeholder.clone());
        let writer = ReplicaWriter::new(mirrors, placeholder, tp, at.clone(), trouble);
        (!self.whole).then(|| Box::new(writer.for_a_letter()) as Box<dyn PartitionWriter>)
    }

    fn batch_limits(&self) -> BatchLimits {
        self.mirrors.database.options.limits
    }

    fn whole(&self) -> Option<Box<dyn WholeSink>> {
        let writer = WholeWriter::new(self.mirrors.clone(), self.placeholder.clone());
        self.whole.then(|| Box::new(writer) as Box<dyn WholeSink>)
    }
}
