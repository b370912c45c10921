//! Waiting for a condition, with a bound: a fixed sleep is either too short on a busy machine or wasted on a
//! quiet one.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Calls `look` until it yields something; panics with `what` when `limit` has passed.
pub async fn until<T, F, Fut>(what: impl Display, limit: Duration, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}
