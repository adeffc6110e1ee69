//! Waiting on conditions, never on time alone.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long most conditions may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(40);
/// Pause between two looks.
pub const LOOK: Duration = Duration::from_millis(50);

/// Looks until `look` gives `Ok`, and panics with the name and the latest `Err` after `within`.
pub async fn until<T, E: Debug>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("not within {within:?}: {what}; last seen: {seen:?}")
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Holds for `during`: panics as soon as `look` gives `Err`.
pub async fn stays<E: Debug>(
    what: &str,
    during: Duration,
    mut look: impl AsyncFnMut() -> Result<(), E>,
) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        if let Err(seen) = look().await {
            panic!("did not stay so: {what}; seen: {seen:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `Ok` when it holds, otherwise what was seen.
///
/// # Errors
/// What was seen.
pub fn check<T>(holds: bool, seen: T) -> Result<(), T> {
    if holds { Ok(()) } else { Err(seen) }
}
