//! Real servers for tests, private to this process.

pub(crate) mod applied;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod registry;

use std::future::Future;
use std::time::Duration;

/// Longest time that anything in a test may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits something that must come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(DEADLINE, future).await;
    ended.unwrap_or_else(|_| panic!("{what} did not happen within {DEADLINE:?}"))
}

/// Asks again until the answer is yes.
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
