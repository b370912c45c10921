//! Starts real Redis processes for tests and benches: one node, or a cluster of three masters with a replica each.
//!
//! A server on a fixed port of the machine was the worse alternative: tests could neither run beside each other nor kill it.

// A failed step must stop the run: the reader of a test log needs the first cause.
#![allow(clippy::indexing_slicing)]

mod cluster;
mod node;

pub use cluster::Cluster;
pub use node::Node;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Looks until a condition holds.
fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            bail!("waited {limit:?} in vain until {what}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
