//! The proof: tables found, created when absent, judged, and the writing statement rehearsed.

use super::config::EventsOptions;
use super::name::{TableName, quote};
use super::table::{self, Found, Layout};
use super::target::{Connection, Target};
use super::{error, progress};
use crate::sink::SinkError;

/// Key of the advisory lock under which tables are created, so that workers that start together
/// do not trip over each other: "cdc-sink" in ASCII.
const CREATE_LOCK: i64 = 0x6364_632d_7369_6e6b;

/// Checks that the sink takes us. `may_create`: absent tables are created (before the first
/// success only; later a missing table is an operator's doing).
pub(super) async fn prove(target: &Target, may_create: bool) -> Result<(), SinkError> {
    let mut connection = target.connection("connecting").await?;
    let options = &target.options;
    let record = find(&mut connection, &options.progress).await?;
    if let Some(found) = record.as_ref() {
        progress::judge(&options.progress, found).map_err(|why| target.refused(why))?;
    } else {
        let create = progress::create_statement(&options.progress);
        make(&mut connection, &options.progress, &create, may_create).await?;
    }
    let create = table::create_statement(&options.target, options.upsert);
    let found = if let Some(found) = find(&mut connection, &options.target).await? {
        found
    } else {
        if record.is_some() && has_delivered(&mut connection).await? {
            return Err(lost(options, &create));
        }
        make(&mut connection, &options.target, &create, may_create).await?
    };
    let layout = table::judge(&options.target, &found, options.upsert);
    let layout = layout.map_err(|why| target.refused(why))?;
    let accepted = target.accept(layout);
    connection.rehearse(&accepted).await
}

/// Judges the events table again, creating nothing.
pub(super) async fn look_again(connection: &mut Connection<'_>) -> Result<Layout, SinkError> {
    let target = connection.target;
    let options = &target.options;
    let found = find(connection, &options.target).await?;
    let found = found
        .ok_or_else(|| lost(options, &table::create_statement(&options.target, options.upsert)))?;
    table::judge(&options.target, &found, options.upsert).map_err(|why| target.refused(why))
}

/// Looks a table up.
pub(super) async fn find(
    connection: &mut Connection<'_>,
    name: &TableName,
) -> Result<Option<Found>, SinkError> {
    let doing = format!("looking up table {name}");
    connection.run(&doing, async |client| table::find(client, name).await).await
}

async fn has_delivered(connection: &mut Connection<'_>) -> Result<bool, SinkError> {
    let options = &connection.target.options;
    let doing = format!("reading {}", options.progress);
    connection.run(&doing, async |client| progress::any(client, options).await).await
}

/// Creates a table, or finds the one that another worker made meanwhile.
async fn make(
    connection: &mut Connection<'_>,
    name: &TableName,
    create: &str,
    may_create: bool,
) -> Result<Found, SinkError> {
    let place = &connection.target.options.place;
    if !may_create {
        return Err(lost(&connection.target.options, create));
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
    tracing::info!(table = %name, at = %place, "table created");
    find(connection, name).await?.ok_or_else(|| lost(&connection.target.options, create))
}

/// A table that was there is gone.
fn lost(options: &EventsOptions, create: &str) -> SinkError {
    let why = format!(
        "table {} is gone, though this sink has delivered into it (by {})",
        options.target, options.progress
    );
    let cure = format!(
        "restore it; or, to go on without the rows delivered so far, create it empty: {create}"
    );
    SinkError {
        disposition: error::disposition("42P01"),
        ..error::refused(&options.place, "sqlstate_42P01", &why, cure)
    }
}
