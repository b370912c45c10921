//! The thread that forecasts, for as long as its server leads.
//!
//! It holds the server only while it looks and while it publishes. What takes time in between is done at the lowest priority and ends soon after the server has.

use super::worker::{Limits, Worker};
use crate::api::Server;
use crate::store::giving_way;
use std::sync::{Arc, Weak};
use std::thread::sleep;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often it looks whether a step was closed: twice in each, and no more seldom or often than this.
const LOOK_EVERY_MOST: Duration = Duration::from_millis(100);
const LOOK_EVERY_LEAST: Duration = Duration::from_millis(25);

/// Forecasts from now on, for as long as the server is there. The runtime waits for the thread when it ends: a store must not be open when the process does.
pub(crate) fn begin(server: &Arc<Server>, background: &Handle) {
    let server = Arc::downgrade(server);
    drop(background.spawn_blocking(move || work(&server)));
}

fn work(server: &Weak<Server>) {
    let Some(step_ms) = server.upgrade().map(|here| here.plane.settings().step_ms) else {
        return;
    };
    let half_a_step = Duration::from_millis(u64::from(step_ms) / 2);
    let look_every = half_a_step.clamp(LOOK_EVERY_LEAST, LOOK_EVERY_MOST);
    let mut worker = Worker::new(Limits::default());
    let mut heard = String::new();
    while let Some(news) = look(&mut worker, server) {
        if news != heard {
            if !news.is_empty() {
                tracing::warn!("nothing is forecast: {news}");
            }
            heard = news;
        }
        sleep(look_every);
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
    // Surveys make pauses of their own.
    let began = here.plane.now().mono;
    drop(here);
    let is_wanted = || server.strong_count() > 0;
    let pass = giving_way("forecasts", || worker.forecast(&due, &is_wanted));
    let here = server.upgrade()?;
    worker.took(began, here.plane.now().mono);
    match pass {
        Ok(Some(pass)) => worker.publish(&here.plane, pass),
        Ok(None) => {}
        Err(error) => return Some(error.to_string()),
    }
    Some(String::new())
}
