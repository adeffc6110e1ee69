//! Puts right what a comparison found.

use super::compare::Comparison;
use super::failure::TaskFailure;

/// Removes the mirror's extra rows and writes anew what is missing or differs.
///
/// # Errors
/// A database that does not answer.
pub(super) async fn repair(comparison: &mut Comparison<'_>) -> Result<(), TaskFailure> {
    let _ = comparison;
    Err(TaskFailure::failed("resync is not built yet"))
}
