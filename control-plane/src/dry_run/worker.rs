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
        while let Some(here) = server.upgrade() {
            let counter = Arc::clone(&here);
            // A step of ten thousand customers takes a tenth of a second.
            let counting = tokio::task::spawn_blocking(move || counter.plane.count_dry_run());
            let counted = counting.await;
            // What fails is said there, once.
            if here.plane.watch_rollout().await.is_err() && here.plane.is_stopped() {
                return;
            }
            drop(here);
            if let Err(error) = counted {
                tracing::error!(%error, "the dry run has counted a step in part");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }));
}
