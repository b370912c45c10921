//! The thread that studies and scores, for as long as its server leads.
//!
//! It holds the server only while it reads and while it publishes. What takes time in between is done at the lowest priority.

use super::worker::{Limits, Worker};
use crate::api::Server;
use crate::store::giving_way;
use std::sync::{Arc, Weak};
use std::thread::sleep;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often it looks for a new cycle. Nothing is waited for that a second would matter to.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Studies from now on, for as long as the server is there. The runtime waits for the thread when it ends: a store must not be open when the process does.
pub(crate) fn begin(server: &Arc<Server>, background: &Handle) {
    let server = Arc::downgrade(server);
    drop(background.spawn_blocking(move || work(&server)));
}

fn work(server: &Weak<Server>) {
    let mut worker = Worker::new(Limits::default());
    let mut heard = String::new();
    while let Some(news) = look(&mut worker, server) {
        if news != heard {
            if !news.is_empty() {
                tracing::warn!("no spillover is found: {news}");
            }
            heard = news;
        }
        sleep(LOOK_EVERY);
    }
}

/// Looks once, and says what went wrong. `None` when the server is gone.
fn look(worker: &mut Worker, server: &Weak<Server>) -> Option<String> {
    let here = server.upgrade()?;
    let due = match worker.gather(&here.plane) {
        Ok(Some(due)) => due,
        Ok(None) => return Some(String::new()),
        Err(_) if here.plane.is_stopped() => return Some(String::new()),
        Err(error) => return Some(error.to_string()),
    };
    drop(here);
    let reckoned = giving_way("spillover", || due.reckon());
    let here = server.upgrade()?;
    match reckoned {
        Ok(reckoned) => worker.publish(&here.plane, reckoned),
        Err(error) => return Some(error.to_string()),
    }
    Some(String::new())
}
