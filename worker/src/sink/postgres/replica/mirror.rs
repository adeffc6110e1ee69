//! The mirrors of a sink: looked up, created and brought up to a layout before its first rows.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cdc_shared::config::{PostgresSinkConfig, TruncateHandling};
use cdc_shared::offset::TopicPartition;
use deadpool_postgres::{Object, Transaction};
use tokio::sync::watch;

use super::evolve::{self, Evolution, Met, Obstacle, Recorded};
use super::history::{Between, History};
use super::layout::{Layout, LayoutOptions};
use super::record;
use super::statement::Accepted;
use super::types::{EnumType, TargetTypes, TypeOptions};
use crate::sink::SinkError;
use crate::sink::name::quote;
use crate::sink::postgres::config::Options;
use crate::sink::postgres::database::{Connection, Database};
use crate::sink::postgres::error;
use crate::sink::postgres::prove::{CREATE_LOCK, lost};
use crate::sink::postgres::table::{self, Found};

/// What all writers of a replica sink share.
#[derive(Debug)]
pub(super) struct Mirrors {
    /// Connections.
    pub(super) database: Database,
    /// How rows are laid out.
    layouts: RwLock<Arc<LayoutOptions>>,
    /// What a truncate does.
    pub(super) truncate: TruncateHandling,
    /// Whether missing schemas are created.
    create_schema: bool,
    /// What the topics' schemas were meanwhile.
    history: History,
    /// Told when what keys leave that change was saved, for the partitions that wait for it.
    pub(super) saves: watch::Sender<()>,
    /// Keys that have rejected records which stand, by partition, as far as they are durable.
    standing: Mutex<HashMap<TopicPartition, HashSet<Vec<u8>>>>,
    /// Mirrors that are ready, by topic and schemas.
    ready: Mutex<HashMap<Ready, Arc<Accepted>>>,
}

/// Topic, value schema, key schema.
type Ready = (Arc<str>, i32, i32);

/// What became of an attempt to make a mirror ready.
enum Prepared {
    Found(Box<Found>),
    Obstacle(Obstacle),
    /// The mirror was left in this older schema; what came between must be known.
    Jumps(i32),
    /// It is gone, or was replaced.
    Gone,
    Replaced(u32),
}

impl Mirrors {
    /// Reads settings and TLS files; connects later.
    pub(super) fn new(
        options: Options,
        layouts: LayoutOptions,
        config: &PostgresSinkConfig,
        history: History,
    ) -> Result<Self, SinkError> {
        Ok(Self {
            database: Database::new(options, config)?,
            layouts: RwLock::new(Arc::new(layouts)),
            truncate: config.truncate,
            create_schema: config.create_schema,
            history,
            saves: watch::Sender::new(()),
            standing: Mutex::default(),
            ready: Mutex::default(),
        })
    }

    /// How rows are laid out.
    pub(super) fn layouts(&self) -> Arc<LayoutOptions> {
        self.layouts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out which types the target has.
    pub(super) async fn look_for_types(
        &self,
        connection: &mut Connection<'_>,
    ) -> Result<(), SinkError> {
        let look = async |client: &mut Object| {
            let version = "SELECT pg_catalog.current_setting('server_version_num')::int4";
            let version = client.query_one(version, &[]).await?.try_get(0)?;
            let rows = client.query(TargetTypes::QUERY, &[]).await?;
            let pairs = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            let extensions: Result<_, tokio_postgres::Error> = pairs.collect();
            Ok(TargetTypes { version, extensions: extensions? })
        };
        let target = connection.run("looking for the types of extensions", look).await?;
        let mut layouts = self.layouts.write().unwrap_or_else(PoisonError::into_inner);
        let types = TypeOptions { target, ..layouts.types.clone() };
        *layouts = Arc::new(LayoutOptions { types, ..LayoutOptions::clone(&layouts) });
        Ok(())
    }

    /// The mirror for rows of a layout, brought up to it when this is the first time. `previous`:
    /// the schema of the partition's rows before these.
    pub(super) async fn accepted(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        layout: &Arc<Layout>,
        previous: Option<i32>,
    ) -> Result<Arc<Accepted>, SinkError> {
        let key = (tp.topic.clone(), layout.schema_id, layout.key_schema_id);
        // An old schema that comes again is a change of the table like any other.
        let is_change = previous.is_some_and(|previous| previous != layout.schema_id);
        if !is_change && let Some(accepted) = self.ready().get(&key) {
            return Ok(accepted.clone());
        }
        let found = self.prepare(connection, tp, layout, previous).await?;
        let options = &self.database.options;
        let accepted = Arc::new(Accepted::new(options, layout.clone(), &found));
        let mut ready = self.ready();
        // A change of the table makes what was accepted for other schemas stale.
        ready.retain(|(topic, ..), _| !is_change || *topic != tp.topic);
        ready.insert(key, accepted.clone());
        Ok(accepted)
    }

    /// Keys of a partition that have rejected records which stand.
    pub(super) fn standing(&self, tp: &TopicPartition) -> HashSet<Vec<u8>> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.get(tp).cloned().unwrap_or_default()
    }

    /// Changes them.
    pub(super) fn set_standing(
        &self,
        tp: &TopicPartition,
        change: impl FnOnce(&mut HashSet<Vec<u8>>),
    ) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        change(standing.entry(tp.clone()).or_default());
    }

    /// The mirror as it is, for rows of another schema than its latest.
    pub(super) async fn as_found(
        &self,
        connection: &mut Connection<'_>,
        layout: &Arc<Layout>,
    ) -> Result<Arc<Accepted>, SinkError> {
        let options = &self.database.options;
        let refused = |why: String| {
            let cure = "replay it once the mirror has the column (a later change of the table \
                        brings it), or cdc resync"
                .to_owned();
            Err(error::refused(&options.place, "mirror_behind", &why, cure))
        };
        let Some(found) = connection.find(&layout.target).await? else {
            return refused(format!("table {} is not there", layout.target));
        };
        let mut names = layout.names();
        if let Some(name) = names.find(|name| table::column_of(&found, name).is_none()) {
            return refused(format!("table {} has no column {name}", layout.target));
        }
        Ok(Arc::new(Accepted::new(options, layout.clone(), &found)))
    }

    /// The topic's mirror may be another by now.
    pub(super) fn forget(&self, topic: &str) {
        self.ready().retain(|(ready, ..), _| &**ready != topic);
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, HashMap<Ready, Arc<Accepted>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prepare(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        layout: &Layout,
        previous: Option<i32>,
    ) -> Result<Found, SinkError> {
        let mut between = None;
        let prepared = loop {
            match self.attempt(connection, tp, layout, previous, between.as_ref()).await? {
                Prepared::Jumps(older) => {
                    let newer = layout.schema_id;
                    between = Some(self.history.between(&tp.topic, older, newer).await?);
                }
                prepared => break prepared,
            }
        };
        let options = &self.database.options;
        let stop = |code: &str, why: &str, cure: String| {
            Err(error::refused(&options.place, code, why, cure))
        };
        match prepared {
            Prepared::Found(found) => Ok(*found),
            Prepared::Jumps(_) => Err(error::internal(&options.place, "a jump was not resolved")),
            Prepared::Obstacle(Obstacle { code, why, cure }) => stop(code, &why, cure),
            Prepared::Gone => Err(lost(options, &layout.target, &evolve::create(layout))),
            Prepared::Replaced(oid) => {
                let why = format!(
                    "table {} is another one than this sink has filled (its oid was {oid})",
                    layout.target
                );
                let cure = format!(
                    "restore the former table, or rewind the topic to have this one filled. If it \
                     is the same table, restored from a dump: UPDATE {} SET table_oid = NULL \
                     WHERE target_schema = '{}' AND target_table = '{}'",
                    record::table(options),
                    layout.target.schema,
                    layout.target.table
                );
                stop("table_replaced", &why, cure)
            }
        }
    }

    async fn attempt(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        layout: &Layout,
        previous: Option<i32>,
        between: Option<&Between>,
    ) -> Result<Prepared, SinkError> {
        let doing = format!("bringing table {} up to its source {}", layout.target, layout.source);
        let prepared = connection.run(&doing, async |client: &mut Object| {
            let transaction = client.transaction().await?;
            let lock = "SELECT pg_catalog.pg_advisory_xact_lock($1)";
            transaction.execute(lock, &[&CREATE_LOCK]).await?;
            let prepared = self.prepare_in(&transaction, tp, layout, previous, between).await?;
            if matches!(prepared, Prepared::Found(_)) {
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            Ok(prepared)
        });
        prepared.await.map_err(|why| with_statement(why, layout))
    }

    async fn prepare_in(
        &self,
        transaction: &Transaction<'_>,
        tp: &TopicPartition,
        layout: &Layout,
        previous: Option<i32>,
        between: Option<&Between>,
    ) -> Result<Prepared, tokio_postgres::Error> {
        let (options, target) = (&self.database.options, &layout.target);
        let recorded = record::read(transaction, options, tp, target).await?;
        if let Some(other) = record::other(transaction, options, tp, target).await? {
            return Ok(Prepared::Obstacle(Obstacle {
                code: "table_shared",
                why: format!("table {target} is already the mirror of {other}"),
                cure: format!(
                    "give one of them another target_table; if the other is gone for good: DELETE \
                     FROM {} WHERE target_schema = '{}' AND target_table = '{}'",
                    record::table(options),
                    target.schema,
                    target.table
                ),
            }));
        }
        let found = table::find(&**transaction, target).await?;
        let (mut statements, mut record) = match (&found, &recorded) {
            (None, Some(_)) => return Ok(Prepared::Gone),
            (Some(found), Some(Recorded { oid: Some(oid), .. })) if found.oid != *oid => {
                return Ok(Prepared::Replaced(*oid));
            }
            (None, None) => {
                (self.creation(transaction, layout).await?, evolve::first_record(layout))
            }
            (Some(found), _) => {
                let met = match (recorded.clone(), between) {
                    (Some(left), Some(between)) if between.older == left.schema_id => {
                        Some(between.replay(&left))
                    }
                    (Some(left), _) if left.schema_id < layout.schema_id => {
                        return Ok(Prepared::Jumps(left.schema_id));
                    }
                    (left, _) => left.map(Met::from),
                };
                match evolve::evolve(layout, found, met.as_ref(), previous) {
                    Ok(Evolution { statements, record }) => (statements, record),
                    Err(obstacle) => return Ok(Prepared::Obstacle(obstacle)),
                }
            }
        };
        let enums = missing_labels(transaction, layout).await?;
        // A schema that is made comes first, the table that needs the types last.
        let at = statements.iter().take_while(|s| s.starts_with("CREATE SCHEMA")).count();
        statements.splice(at..at, enums);
        for statement in &statements {
            tracing::info!(topic = %tp.topic, at = %options.place, statement, "mirror changed");
            transaction.batch_execute(statement).await?;
        }
        let found =
            if statements.is_empty() { found } else { table::find(&**transaction, target).await? };
        let Some(found) = found else { return Ok(Prepared::Gone) };
        record.oid = Some(found.oid);
        if recorded.as_ref() != Some(&record) {
            record::write(transaction, options, tp, target, &record).await?;
        }
        Ok(Prepared::Found(Box::new(found)))
    }

    async fn creation(
        &self,
        transaction: &Transaction<'_>,
        layout: &Layout,
    ) -> Result<Vec<String>, tokio_postgres::Error> {
        let schema = &layout.target.schema;
        let exists = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let mut statements = Vec::new();
        if self.create_schema && transaction.query_opt(exists, &[schema]).await?.is_none() {
            statements.push(format!("CREATE SCHEMA {}", quote(schema)));
        }
        statements.push(evolve::create(layout));
        Ok(statements)
    }
}

/// Statements that make the enum types of a layout, or add what they lack.
async fn missing_labels(
    transaction: &Transaction<'_>,
    layout: &Layout,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut statements: Vec<String> = Vec::new();
    let mut seen: Vec<&EnumType> = Vec::new();
    for wanted in layout.columns.iter().filter_map(|column| column.ty.enum_type()) {
        if seen.contains(&wanted) {
            continue;
        }
        seen.push(wanted);
        let sql = "SELECT (SELECT pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder) \
                   FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) FROM pg_catalog.pg_type t \
                   JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
                   WHERE n.nspname = $1 AND t.typname = $2";
        match transaction.query_opt(sql, &[&wanted.schema, &wanted.name]).await? {
            None => statements.push(wanted.create_sql()),
            Some(row) => {
                let found: Option<Vec<String>> = row.try_get(0)?;
                statements.extend(wanted.add_labels_sql(&found.unwrap_or_default()));
            }
        }
    }
    Ok(statements)
}

/// Without the right to change tables a person has to: the statement is named.
fn with_statement(why: SinkError, layout: &Layout) -> SinkError {
    match why.code.as_str() {
        "sqlstate_42501" => SinkError {
            hint: Some(format!(
                "grant the sink's user CREATE on the schema and ownership of the table, or run: {}",
                evolve::create(layout)
            )),
            ..why
        },
        "sqlstate_3F000" => SinkError {
            hint: Some(format!(
                "CREATE SCHEMA {}, or set create_schema: true",
                quote(&layout.target.schema)
            )),
            ..why
        },
        _ => why,
    }
}
