//! The task that has customers watched, for as long as its server leads.
//!
//! It looks several times in each step whether one was closed: looking costs less than to be told by each sync.

use crate::api::Server;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often it looks: twice in each step, and no more seldom or often than this.
const LOOK_EVERY_MOST: Duration = Duration::from_millis(500);
const LOOK_EVERY_LEAST: Duration = Duration::from_millis(25);

/// Watches from now on, for as long as the server is there.
pub(crate) fn begin(server: &Arc<Server>, background: &Handle) {
    let half_a_step = Duration::from_millis(u64::from(server.plane.settings().step_ms) / 2);
    let look_every = half_a_step.clamp(LOOK_EVERY_LEAST, LOOK_EVERY_MOST);
    let server = Arc::downgrade(server);
    drop(background.spawn(async move {
        let mut heard = String::new();
        while let Some(here) = server.upgrade() {
            let news = match here.plane.watch_customers().await {
                Ok(()) => String::new(),
                Err(_) if here.plane.is_stopped() => return,
                Err(error) => error.message,
            };
            drop(here);
            if news != heard && !news.is_empty() {
                tracing::warn!("what is usual for customers is not written down: {news}");
            }
            heard = news;
            tokio::time::sleep(look_every).await;
        }
    }));
}
