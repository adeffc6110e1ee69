//! A table of the source and its mirror in the target, compared row by row.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use crate::wait::{SOON, check, until};

/// Every row of a table as JSON text: columns by name, so that their order does not matter, and
/// numbers with every digit. Only these columns: one that the source dropped stays in the mirror.
///
/// # Errors
/// What the server says.
async fn rows(
    client: &Client,
    table: &str,
    columns: &[String],
) -> Result<BTreeSet<String>, String> {
    let sql = format!(
        "SELECT (SELECT jsonb_object_agg(key, value) FROM jsonb_each(to_jsonb(t)) \
         WHERE key = ANY ($1))::text FROM {table} AS t"
    );
    let rows = client.query(&sql, &[&columns]).await.map_err(|error| format!("{error:?}"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Names of a table's columns.
///
/// # Errors
/// What the server says.
pub async fn columns(client: &Client, table: &str) -> Result<Vec<String>, String> {
    let sql = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass \
               AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(sql, &[&table]).await.map_err(|error| format!("{error:?}"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Waits until a table and its mirror of the same name hold the same rows; gives their number.
pub async fn is_equal(source: &Client, target: &Client, table: &str, within: Duration) -> usize {
    until(&format!("the mirror of {table} is equal"), within, async || {
        let columns = columns(source, table).await?;
        let expected = rows(source, table, &columns).await?;
        let found = rows(target, table, &columns).await?;
        let sample = |rows: &BTreeSet<String>, others: &BTreeSet<String>| -> Vec<String> {
            let missing = rows.difference(others).take(3);
            missing.map(|row| row.chars().take(200).collect()).collect()
        };
        let seen = format!(
            "{} rows, {} in the mirror; only at the source: {:?}; only in the mirror: {:?}",
            expected.len(),
            found.len(),
            sample(&expected, &found),
            sample(&found, &expected)
        );
        check(expected == found, seen)?;
        Ok::<_, String>(found.len())
    })
    .await
}

/// Waits until every change of a primary key has both its halves. What is complete is swept after the
/// rows are committed, in a statement of its own, or with the next ones.
pub async fn nothing_is_left(pipeline_id: &str, target: &Client) {
    let left = format!("SELECT count(*) FROM {pipeline_id}.cdc_moved_rows");
    until("nothing is left of the handovers", SOON, async || {
        let left: i64 = target.query_one(&left, &[]).await.unwrap().get(0);
        check(left == 0, left)
    })
    .await;
}
