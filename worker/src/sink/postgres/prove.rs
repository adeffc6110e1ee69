//! The proof: tables found, created when absent, judged, and the writing statement rehearsed.

use super::config::Options;
use super::database::{Connection, Database};
use super::name::{TableName, quote};
use super::table::{self, Found, Layout};
use super::target::Target;
use super::{error, progress};
use crate::sink::SinkError;

/// Key of the advisory lock under which tables are created, so that workers that start together
/// do not trip over each other: "cdc-sink" in ASCII.
pub(super) const CREATE_LOCK: i64 = 0x6364_632d_7369_6e6b;

/// Checks that the sink takes us. `may_create`: absent tables are created (before the first
/// success only; later a missing table is an operator's doing).
pub(super) async fn prove(target: &Target, may_create: bool) -> Result<(), SinkError> {
    let mut connection = target.database.connection("connecting").await?;
    let options = &target.options;
    let had_record = prove_progress(&mut connection, may_create).await?;
    let create = table::create_statement(&options.target, options.upsert);
    let found = if let Some(found) = connection.find(&options.target).await? {
        found
    } else {
        if had_record && has_delivered(&mut connection).await? {
            return Err(lost(&options.common, &options.target, &create));
        }
        make(&mut connection, &options.target, &create, may_create).await?
    };
    let layout = table::judge(&options.target, &found, options.upsert);
    let layout = layout.map_err(|why| target.database.refused(why))?;
    let accepted = target.accept(layout);
    target.rehearse(&mut connection, &accepted).await
}

/// The table of the sink's own record: judged, or created. Says whether it was there.
pub(super) async fn prove_progress(
    connection: &mut Connection<'_>,
    may_create: bool,
) -> Result<bool, SinkError> {
    let database: &Database = connection.database;
    let name = &database.options.progress;
    if let Some(found) = connection.find(name).await? {
        progress::judge(name, &found).map_err(|why| database.refused(why))?;
        return Ok(true);
    }
    let create = progress::create_statement(name);
    make(connection, name, &create, may_create).await?;
    Ok(false)
}

/// Judges the events table again, creating nothing.
pub(super) async fn look_again(
    target: &Target,
    connection: &mut Connection<'_>,
) -> Result<Layout, SinkError> {
    let options = &target.options;
    let found = connection.find(&options.target).await?.ok_or_else(|| {
        let create = table::create_statement(&options.target, options.upsert);
        lost(&options.common, &options.target, &create)
    })?;
    table::judge(&options.target, &found, options.upsert)
        .map_err(|why| target.database.refused(why))
}

async fn has_delivered(connection: &mut Connection<'_>) -> Result<bool, SinkError> {
    let options = &connection.database.options;
    let doing = format!("reading {}", options.progress);
    connection.run(&doing, async |client| progress::any(client, options).await).await
}

/// Creates a table, or finds the one that another worker made meanwhile.
pub(super) async fn make(
    connection: &mut Connection<'_>,
    name: &TableName,
    create: &str,
    may_create: bool,
) -> Result<Found, SinkError> {
    let options = &connection.database.options;
    if !may_create {
        return Err(lost(options, name, create));
    }
    let doing = format!("creating table {name}");
    let made = connection.run(&doing, async |client| {
        let transaction = client.transaction().await?;
        transaction.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", &[&CREATE_LOCK]).await?;
        let exists = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
        if transaction.query_opt(exists, &[&name.schema]).await?.is_none() {
            let schema = format!("CREATE SCHEMA {}", quote(&name.schema));
            transaction.batch_execute(&schema).await?;
        }
        let known = "SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = $2";
        if transaction.query_opt(known, &[&name.schema, &name.table]).await?.is_none() {
            transaction.batch_execute(create).await?;
        }
        transaction.commit().await
    });
    made.await.map_err(|why| SinkError {
        hint: Some(format!("let the sink's user create it, or run as its owner: {create}")),
        ..why
    })?;
    tracing::info!(table = %name, at = %options.place, "table created");
    connection.find(name).await?.ok_or_else(|| lost(options, name, create))
}

/// A table that was there is gone.
pub(super) fn lost(options: &Options, table: &TableName, create: &str) -> SinkError {
    let why = format!(
        "table {table} is gone, though this sink has delivered into it (by {})",
        options.progress
    );
    let cure = format!(
        "restore it; or, to go on without the rows delivered so far, create it empty: {create}"
    );
    SinkError {
        disposition: error::disposition("42P01"),
        ..error::refused(&options.place, "sqlstate_42P01", &why, cure)
    }
}
