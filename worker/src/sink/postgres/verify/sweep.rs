//! Removes what the source does not have from the mirror.
//!
//! A row is removed only while it is still the version that was judged: had the sink written it
//! since, because the source has the key again, it would be another. What is missing or differs is
//! not written from here: a row read now and written a moment later could bring back one that was
//! deleted in between. A snapshot of the connector writes it in the stream's order.

use super::compare::Comparison;
use crate::sink::verify::failure::{self, TaskFailure};
use crate::sink::verify::query::Key;
use crate::sink::verify::side::{borrowed, columns};

/// Rows that are removed in one statement.
const AT_ONCE: usize = 1000;

/// Removes the extra rows that a comparison found.
///
/// # Errors
/// The mirror does not answer, or does not let us.
pub(super) async fn sweep(comparison: &mut Comparison<'_>) -> Result<(), TaskFailure> {
    let ghosts = comparison.judge.ghosts.take().unwrap_or_default();
    let plan = &comparison.plan.mirror;
    let (table, sql) = (&plan.table, plan.remove());
    for part in ghosts.chunks(AT_ONCE) {
        comparison.judge.tell.step(&format!(
            "{}: removing {} rows",
            comparison.judge.report.table,
            ghosts.len()
        ));
        let keys: Vec<&Key> = part.iter().map(|(key, _)| key).collect();
        let mut arrays = columns(&keys, plan.key.len());
        arrays.push(part.iter().map(|(_, version)| version.as_str()).collect());
        let mirror = comparison.side;
        let removed = mirror.client.execute(&sql, &borrowed(&arrays)).await.map_err(|error| {
            failure::database(&mirror.place, &format!("remove rows of {table}"), &error)
        })?;
        comparison.judge.report.removed += removed;
    }
    Ok(())
}
