//! A token bucket that remembers when it was looked at.

use forebay_core::bucket::Bucket;
use forebay_core::{Micro, Rate, TimeUs};

/// What a request costs.
pub(crate) const COST: Micro = Micro::from_tokens(1);

/// A bucket and the time of its level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedBucket {
    bucket: Bucket,
    at: TimeUs,
}

// === impl TimedBucket ===

impl TimedBucket {
    pub(crate) const fn full(depth: Micro, now: TimeUs) -> Self {
        Self {
            bucket: Bucket::full(depth),
            at: now,
        }
    }

    /// The level at `now`.
    pub(crate) fn level(&mut self, rate: Rate, depth: Micro, now: TimeUs) -> Micro {
        self.bucket.refill(rate, depth, now.since(self.at));
        self.at = self.at.max(now);
        self.bucket.level
    }

    /// Takes the cost of a request if it is there, and returns whether it was.
    pub(crate) fn take(&mut self, rate: Rate, depth: Micro, now: TimeUs) -> bool {
        let is_there = self.level(rate, depth, now) >= COST;
        if is_there {
            self.bucket.take(COST);
        }
        is_there
    }

    /// Takes so much, below zero if need be.
    pub(crate) fn charge(&mut self, amount: Micro) {
        self.bucket.take(amount);
    }
}
