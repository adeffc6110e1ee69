//! What the sinks of this folder need to know, checked once.

use std::time::Duration;

use cdc_shared::config::PostgresSinkConfig;

use super::error::{self, Place};
use super::name::TableName;
use crate::sink::{BatchLimits, SinkError};

/// Schema of a target table that names none.
const DEFAULT_SCHEMA: &str = "public";

/// The settings that both modes share, parsed.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Pipeline, part of the identity of the progress record: pipelines may share a database.
    pub(super) pipeline_id: String,
    /// Sink, the other part.
    pub(super) sink_id: String,
    /// Where the sink's own record is.
    pub(super) progress: TableName,
    /// When a batch is closed.
    pub(super) limits: BatchLimits,
    /// Longest time to connect.
    pub(super) connect_timeout: Duration,
    /// `statement_timeout` of the sessions.
    pub(super) statement_timeout: Duration,
    /// `lock_timeout` of the sessions.
    pub(super) lock_timeout: Duration,
    /// `idle_in_transaction_session_timeout` of the sessions.
    pub(super) idle_timeout: Duration,
    /// First schema of the sessions' `search_path`, before `public`.
    pub(super) search_schema: String,
    /// Further settings of the sessions: `name = value`.
    pub(super) session: &'static [&'static str],
    /// Most connections.
    pub(super) max_connections: usize,
    /// Server and database, for messages.
    pub(super) place: Place,
}

impl Options {
    /// Takes the settings over. `schema`: where the progress table is unless its name says so.
    ///
    /// # Errors
    /// A table name that cannot be read ([`crate::sink::Disposition::Fatal`]).
    pub(super) fn new(
        pipeline_id: &str,
        sink_id: &str,
        config: &PostgresSinkConfig,
        schema: &str,
    ) -> Result<Self, SinkError> {
        let place = place(config);
        let progress = TableName::parse(&config.progress_table, schema)
            .map_err(|why| error::configuration(&place, &format!("progress_table: {why}")))?;
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        Ok(Self {
            pipeline_id: pipeline_id.to_owned(),
            sink_id: sink_id.to_owned(),
            progress,
            limits: BatchLimits {
                rows: config.batch_size.max(1) as usize,
                bytes: usize::try_from(config.batch_max_bytes).unwrap_or(usize::MAX),
                age: config.flush_interval(),
            },
            connect_timeout: millis(config.connect_timeout_ms),
            statement_timeout: millis(config.statement_timeout_ms),
            lock_timeout: millis(config.lock_timeout_ms),
            idle_timeout: millis(config.idle_in_transaction_timeout_ms),
            search_schema: schema.to_owned(),
            session: &[],
            max_connections: config.max_connections.max(1) as usize,
            place,
        })
    }
}

/// Server and database of a configuration.
pub(super) fn place(config: &PostgresSinkConfig) -> Place {
    Place { host: config.host.clone(), port: config.port, database: config.database.clone() }
}

/// The settings of one events sink, parsed.
#[derive(Clone, Debug)]
pub(super) struct EventsOptions {
    /// What both modes share.
    pub(super) common: Options,
    /// Where the rows go.
    pub(super) target: TableName,
    /// Whether a row that is already there is replaced.
    pub(super) upsert: bool,
}

impl EventsOptions {
    /// Takes the settings over.
    ///
    /// # Errors
    /// A table name that cannot be read ([`crate::sink::Disposition::Fatal`]).
    pub(super) fn new(
        pipeline_id: &str,
        sink_id: &str,
        config: &PostgresSinkConfig,
    ) -> Result<Self, SinkError> {
        let target = TableName::parse(config.target_table(), DEFAULT_SCHEMA)
            .map_err(|why| error::configuration(&place(config), &format!("target_table: {why}")))?;
        let common = Options::new(pipeline_id, sink_id, config, &target.schema)?;
        if target == common.progress {
            let why = format!("target_table and progress_table are both {target}");
            return Err(error::configuration(&common.place, &why));
        }
        Ok(Self { common, target, upsert: config.upsert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Disposition;

    #[test]
    fn the_progress_table_stands_beside_the_target() {
        let config = PostgresSinkConfig {
            target_table: Some("lake.events".to_owned()),
            ..PostgresSinkConfig::default()
        };
        let options = EventsOptions::new("p", "s", &config).unwrap();
        assert_eq!(options.common.progress.to_string(), r#""lake"."cdc_offsets""#);
    }

    #[test]
    fn one_table_cannot_be_both() {
        let config = PostgresSinkConfig {
            target_table: Some("cdc_offsets".to_owned()),
            ..PostgresSinkConfig::default()
        };
        let error = EventsOptions::new("p", "s", &config).unwrap_err();
        assert_eq!(error.disposition, Disposition::Fatal);
        assert!(error.message.contains("both"), "{}", error.message);
    }
}
