//! The task that begins cycles when they are due, for as long as its server leads.
//!
//! It looks several times a second: what a cycle is due for is in the state, and looking costs less than to be told by each of the places that change it.

use crate::api::Server;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Begins cycles from now on, for as long as the server is there.
pub(crate) fn begin(server: &Arc<Server>, background: &Handle) {
    let server = Arc::downgrade(server);
    drop(background.spawn(async move {
        let mut heard = String::new();
        while let Some(here) = server.upgrade() {
            let news = match here.plane.allocate_when_due().await {
                Ok(_) => String::new(),
                Err(_) if here.plane.is_stopped() => return,
                Err(error) => error.message,
            };
            drop(here);
            if news != heard && !news.is_empty() {
                tracing::warn!("nothing is allocated anew: {news}");
            }
            heard = news;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }));
}
