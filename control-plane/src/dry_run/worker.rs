//! The task that counts a step for the candidate policy when it has been closed, and takes a policy back that a gateway refuses, for as
//! long as its server leads.

use crate::api::Server;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks from now on, for as long as the server is there.
pub(crate) fn begin(server: &Arc<Server>, background: &Handle) {
    let server = Arc::downgrade(server);
    drop(background.spawn(async move {
        let mut heard = String::new();
        while let Some(here) = server.upgrade() {
            let counter = Arc::clone(&here);
            // A step of ten thousand customers takes a tenth of a second.
            let counting = tokio::task::spawn_blocking(move || counter.plane.count_dry_run());
            let counted = counting.await;
            let news = match here.plane.watch_rollout().await {
                Ok(_) => String::new(),
                Err(_) if here.plane.is_stopped() => return,
                Err(error) => error.message,
            };
            drop(here);
            if let Err(error) = counted {
                tracing::error!(%error, "the dry run has counted a step in part");
            }
            if news != heard && !news.is_empty() {
                tracing::warn!("a policy that a gateway refuses is not taken back: {news}");
            }
            heard = news;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }));
}
