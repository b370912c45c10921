//! How often a gateway may sync.
//!
//! One gateway that syncs in a tight loop, by a defect or on purpose, would keep the lock and the disk busy for all the others. A right
//! one syncs at most twenty times a second, whatever happens, so the cap is above that and never met.
//!
//! Counted is by the name that the gateway gives itself: all share one token. Whoever makes names up is stopped by the bound on names.

use forebay_core::time::TimeUs;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Names that are remembered at once: four times as many as there may be gateways. A name is forgotten when its burst is whole again.
const MAX_NAMES: usize = 4_096;

/// Seconds of the rate that may come at once.
const BURST_S: u64 = 2;

const US_PER_S: u64 = 1_000_000;

/// Caps the syncs of each gateway.
#[derive(Debug)]
pub struct Throttle {
    /// Time that one sync takes up.
    interval_us: u64,
    /// Time that may be taken up in advance.
    ahead_most_us: u64,
    /// Hash of a name -> until when its syncs have taken up the time. Hashes, because a name may be as long as a body.
    taken_until: Mutex<HashMap<u64, u64>>,
    hasher: RandomState,
    refused: AtomicU64,
}

// === impl Throttle ===

impl Throttle {
    /// A cap of so many syncs a second, of which twice as many may come at once.
    #[must_use]
    pub fn new(most_per_s: u32) -> Self {
        let interval_us = US_PER_S / u64::from(most_per_s.max(1));
        Self {
            interval_us,
            ahead_most_us: (BURST_S * US_PER_S).saturating_sub(interval_us),
            taken_until: Mutex::default(),
            hasher: RandomState::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// Lets a sync through.
    ///
    /// # Errors
    /// When there were too many: the microseconds until there may be one again.
    pub fn admit(&self, gateway: &str, now: TimeUs) -> Result<(), u64> {
        let name = self.hasher.hash_one(gateway);
        let outcome = {
            let mut names = self
                .taken_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if names.len() >= MAX_NAMES && !names.contains_key(&name) {
                names.retain(|_, until| *until > now.0);
            }
            // More than a burst is never taken up in advance, so another clock has said that.
            let latest = now.0.saturating_add(BURST_S * US_PER_S);
            let until = names.get(&name).filter(|until| **until <= latest);
            let until = until.copied().unwrap_or(0).max(now.0);
            let ahead_us = until - now.0;
            if ahead_us > self.ahead_most_us {
                Err(ahead_us - self.ahead_most_us)
            } else if names.len() >= MAX_NAMES && !names.contains_key(&name) {
                Err(US_PER_S)
            } else {
                names.insert(name, until.saturating_add(self.interval_us));
                Ok(())
            }
        };
        if outcome.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Syncs refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
