//! What may befall the first start of a MySQL or MariaDB connector and is put right by another one.
//!
//! A snapshot lists the tables of the whole server, locks them all, notes its place in the binlog
//! and reads the definition of each (`BinlogSnapshotChangeEventSource` of Debezium 3.6, with the
//! schema history that `deploy` sets). Three things end it though nothing is wrong with the
//! pipeline: a table of others that is dropped in between; a lock that others hold for longer than
//! `snapshot.lock.timeout.ms`; and what the second leaves behind, an offset without a place, by
//! which the connector refuses every later start.

use std::time::Duration;

use cdc_shared::config::{PipelineConfig, SourceType};

use crate::cli::Failure;
use crate::connect::{Connect, ConnectorStatus, Settled};

/// How often the connector is started.
const STARTS: usize = 5;

/// How a connector that failed is brought to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    /// By a start; why, if that is known.
    Again(Option<String>),
    /// By a start without the offset that it left; why.
    Anew(&'static str),
}

impl Mend {
    /// What a start can do for a connector in this state.
    pub(crate) fn of(config: &PipelineConfig, status: &ConnectorStatus) -> Self {
        match status.settled() {
            Settled::Failed(reason) => Self::of_reason(config, &reason),
            _ => Self::Again(None),
        }
    }

    fn of_reason(config: &PipelineConfig, reason: &str) -> Self {
        if config.source.source_type == SourceType::Postgres {
            return Self::Again(None);
        }
        if reason.contains("Source offset 'file' parameter is missing") {
            return Self::Anew("its first start ended before it had a place in the binlog");
        }
        // `deploy` has seen that the user may lock the server; locking each table is what the
        // connector tries after that took too long.
        if reason.contains("does not have the 'LOCK TABLES' privilege") {
            return Self::Anew("the server's tables could not be locked, others hold a lock");
        }
        Self::Again(of_others(config, reason).map(|what| {
            format!(
                "{what}, which is not of this pipeline, was dropped while the connector read the \
                 definitions of the server's tables"
            )
        }))
    }

    /// What is to be told, when the failure is one that a start puts right.
    pub(crate) fn told(&self) -> Option<String> {
        match self {
            Self::Again(why) => why.as_ref().map(|why| format!("again: {why}")),
            Self::Anew(why) => Some(format!("from nothing: {why}")),
        }
    }

    /// Does it. To be run to its end: between its steps the connector is stopped.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub(crate) async fn start(&self, connect: &Connect, name: &str) -> Result<(), Failure> {
        match self {
            Self::Again(_) => connect.restart_failed(name).await,
            Self::Anew(_) => {
                let forgotten = connect.forget_offsets(name).await;
                // In any case: a connector that is stopped is taken for one that is meant to be.
                connect.resume(name).await.and(forgotten)
            }
        }
    }
}

/// Waits until the connector runs, and starts it again where that is all that it takes.
///
/// # Errors
/// As [`Connect::wait_running`].
pub(super) async fn wait_running(
    connect: &Connect,
    config: &PipelineConfig,
    (limit, settle): (Duration, Duration),
    former: Option<&ConnectorStatus>,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), Failure> {
    let name = config.connector_name();
    let mut former = former.cloned();
    for _ in 1..STARTS {
        let ended = connect.wait_running(&name, limit, settle, former.as_ref()).await;
        let Err(failure) = ended else { return Ok(()) };
        let status = connect.status(&name).await?.unwrap_or_default();
        let mend = Mend::of(config, &status);
        let Some(told) = mend.told() else { return Err(failure) };
        progress(&format!("starting the connector {told}"));
        mend.start(connect, &name).await?;
        former = Some(status);
    }
    connect.wait_running(&name, limit, settle, former.as_ref()).await
}

/// The database or table that a connector did not find, when it is none of the pipeline's.
fn of_others(config: &PipelineConfig, reason: &str) -> Option<String> {
    let tables = &config.source.tables;
    if let Some(database) = quoted(reason, "Unknown database '", "'") {
        let is_ours = database == config.source.database
            || tables.iter().any(|table| table.split('.').next() == Some(database));
        return (!is_ours).then(|| format!("database {database}"));
    }
    let table = quoted(reason, "Table '", "' doesn't exist")?;
    (!tables.iter().any(|ours| ours == table)).then(|| format!("table {table}"))
}

fn quoted<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PipelineConfig {
        let mut config = PipelineConfig::default();
        config.source.source_type = SourceType::Mysql;
        config.source.database = "shop".into();
        config.source.tables = vec!["shop.orders".into(), "billing.bills".into()];
        config
    }

    #[test]
    fn only_what_others_dropped_is_passed_over() {
        let config = config();
        let unknown = |name: &str| {
            let reason = format!(
                "ConnectException: An exception occurred in the change event producer.\n  \
                 because: DebeziumException: java.sql.SQLSyntaxErrorException: Unknown database \
                 '{name}'"
            );
            of_others(&config, &reason)
        };
        assert_eq!(unknown("scratch").as_deref(), Some("database scratch"));
        assert_eq!([unknown("shop"), unknown("billing")], [None, None]);
        let missing = |name: &str| {
            let reason = format!("SQLSyntaxErrorException: (conn=7) Table '{name}' doesn't exist");
            of_others(&config, &reason)
        };
        assert_eq!(missing("shop.scratch").as_deref(), Some("table shop.scratch"));
        assert_eq!(missing("shop.orders"), None);
    }

    #[test]
    fn an_offset_goes_only_when_it_has_no_place() {
        let mut config = config();
        let of = |config: &PipelineConfig, reason: &str| Mend::of_reason(config, reason);
        let file = "ConnectException: Source offset 'file' parameter is missing";
        let lock = "DebeziumException: User does not have the 'LOCK TABLES' privilege required to \
                    obtain a consistent snapshot by preventing concurrent writes to tables.";
        let dropped = "SQLSyntaxErrorException: Unknown database 'scratch'";
        assert!(matches!(of(&config, file), Mend::Anew(_)));
        assert!(matches!(of(&config, lock), Mend::Anew(_)));
        assert!(matches!(of(&config, dropped), Mend::Again(Some(_))));
        let denied = of(&config, "ConnectException: Access denied for user 'cdc'@'%'");
        assert_eq!((denied.told(), denied), (None, Mend::Again(None)));
        config.source.source_type = SourceType::Postgres;
        for reason in [file, lock, dropped] {
            assert_eq!(of(&config, reason), Mend::Again(None));
        }
    }
}
