//! What PostgreSQL says of itself, of a slot and of a publication.

use serde::Serialize;
use tokio_postgres::{Client, Error};

/// The server and our rights on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Such as `150012`.
    pub version: i32,
    /// `logical` is needed.
    pub wal_level: String,
    /// Most replication slots.
    pub max_slots: i32,
    /// Slots that exist.
    pub slots: i64,
    /// Most WAL senders.
    pub max_senders: i32,
    /// WAL senders at work.
    pub senders: i64,
    /// Whether our user may replicate.
    pub may_replicate: bool,
    /// Whether our user may create a publication in this database.
    pub may_create: bool,
    /// Whether the server is a standby.
    pub standby: bool,
    /// `max_slot_wal_keep_size` in MB; -1 is without limit.
    pub wal_keep_mb: i64,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Output plugin; empty for a physical slot.
    pub plugin: String,
    /// The database it belongs to; empty for a physical slot.
    pub database: String,
    /// Process that uses it now.
    pub active_pid: Option<i32>,
    /// `application_name` of that process.
    pub used_by: Option<String>,
    /// Bytes of WAL that the server keeps for it.
    pub retained_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved`, `lost`; empty before PostgreSQL 13.
    pub wal_status: String,
}

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// Its name.
    pub name: String,
    /// Role that owns it.
    pub owner: String,
    /// Whether our user may change it.
    pub ours_to_change: bool,
    /// `FOR ALL TABLES`.
    pub all_tables: bool,
    /// Operations it leaves out.
    pub left_out: Vec<String>,
    /// Its tables, `schema.table`.
    pub tables: Vec<String>,
}

pub(super) async fn server(client: &Client) -> Result<Server, Error> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('wal_level'), \
             current_setting('max_replication_slots')::int, \
             (SELECT count(*) FROM pg_replication_slots), \
             current_setting('max_wal_senders')::int, \
             (SELECT count(*) FROM pg_stat_get_wal_senders()), \
             (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
               OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'rds_replication' \
                          AND pg_has_role(current_user, r.oid, 'member')), \
             has_database_privilege(current_database(), 'CREATE'), pg_is_in_recovery(), \
             coalesce((SELECT setting::bigint FROM pg_settings \
                       WHERE name = 'max_slot_wal_keep_size'), -1)",
            &[],
        )
        .await?;
    Ok(Server {
        version: row.try_get(0)?,
        wal_level: row.try_get(1)?,
        max_slots: row.try_get(2)?,
        slots: row.try_get(3)?,
        max_senders: row.try_get(4)?,
        senders: row.try_get(5)?,
        may_replicate: row.try_get(6)?,
        may_create: row.try_get(7)?,
        standby: row.try_get(8)?,
        wal_keep_mb: row.try_get(9)?,
    })
}

pub(super) async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, Error> {
    let row = client
        .query_opt(
            "SELECT coalesce(s.plugin, '')::text, coalesce(s.database, '')::text, s.active_pid, \
             a.application_name, \
             pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                             ELSE pg_current_wal_lsn() END, s.restart_lsn)::bigint, \
             coalesce(to_jsonb(s) ->> 'wal_status', '') \
             FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid \
             WHERE s.slot_name = $1",
            &[&name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Slot {
        name: name.to_owned(),
        plugin: row.try_get(0)?,
        database: row.try_get(1)?,
        active_pid: row.try_get(2)?,
        used_by: row.try_get(3)?,
        retained_bytes: row.try_get(4)?,
        wal_status: row.try_get(5)?,
    }))
}

pub(super) async fn publication(client: &Client, name: &str) -> Result<Option<Publication>, Error> {
    let row = client
        .query_opt(
            "SELECT p.pubowner::regrole::text, pg_has_role(current_user, p.pubowner, 'USAGE'), \
             p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, \
             ARRAY(SELECT t.schemaname || '.' || t.tablename FROM pg_publication_tables t \
                   WHERE t.pubname = p.pubname ORDER BY 1) \
             FROM pg_publication p WHERE p.pubname = $1",
            &[&name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut left_out = Vec::new();
    for (index, operation) in [(3, "insert"), (4, "update"), (5, "delete"), (6, "truncate")] {
        if !row.try_get::<_, bool>(index)? {
            left_out.push(operation.to_owned());
        }
    }
    Ok(Some(Publication {
        name: name.to_owned(),
        owner: row.try_get(0)?,
        ours_to_change: row.try_get(1)?,
        all_tables: row.try_get(2)?,
        left_out,
        tables: row.try_get(7)?,
    }))
}
