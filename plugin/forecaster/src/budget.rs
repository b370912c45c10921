//! How long one tick may work.
//!
//! The forecaster runs on Envoy's main thread, which also answers the admin page and applies configuration, or on a worker, whose requests
//! wait meanwhile: a tick that takes long is an Envoy that does not listen. All work is cut into units of some ten microseconds and the clock is read between units. Counting
//! units instead of time was worse: a unit costs three times more on a busy machine, exactly when it must not.

use crate::host::Host;

/// The end of the running tick.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    end_us: u64,
}

// === impl Budget ===

impl Budget {
    /// A budget of `limit_us` from now.
    pub fn start(host: &impl Host, limit_us: u32) -> Self {
        Self {
            end_us: host.monotonic_us().saturating_add(u64::from(limit_us)),
        }
    }

    /// A part of this budget: what runs first must leave time for what runs after.
    pub fn at_most(self, host: &impl Host, limit_us: u32) -> Self {
        Self {
            end_us: self
                .end_us
                .min(host.monotonic_us().saturating_add(u64::from(limit_us))),
        }
    }

    /// Whether another unit of work of about `unit_us` may start.
    pub fn allows(self, host: &impl Host, unit_us: u64) -> bool {
        host.monotonic_us().saturating_add(unit_us) <= self.end_us
    }
}
