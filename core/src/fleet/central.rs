//! The part of a bucket that no gateway holds.

use super::share::Reserved;
use crate::amount::{Micro, Rate};
use crate::bucket::Bucket;
use crate::time::TimeUs;

/// The whole of a contract's bucket, or of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Refill.
    pub rate: Rate,
    /// Depth.
    pub depth: Micro,
}

/// The central bucket. Refill and depth are what the shares left when it was last touched; leases that end meanwhile leave more, never
/// less, so that old figures waste a little and create nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Central {
    bucket: Bucket,
    at: TimeUs,
    rate: Rate,
    depth: Micro,
}

/// A central bucket as it is kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CentralRecord {
    /// Tokens in it; negative is debt.
    pub level: Micro,
    /// Refill.
    pub rate: Rate,
    /// Depth.
    pub depth: Micro,
}

// === impl Central ===

impl Central {
    /// A bucket that nobody holds a part of, with `level` tokens in it.
    #[must_use]
    pub const fn new(whole: Whole, level: Micro, now: TimeUs) -> Central {
        Central {
            bucket: Bucket::full(level),
            at: now,
            rate: whole.rate,
            depth: whole.depth,
        }
    }

    /// The form to be kept on disk.
    #[must_use]
    pub const fn to_record(&self) -> CentralRecord {
        CentralRecord {
            level: self.bucket.level,
            rate: self.rate,
            depth: self.depth,
        }
    }

    /// The bucket of a record, which refills from `now` on.
    #[must_use]
    pub const fn from_record(record: &CentralRecord, now: TimeUs) -> Central {
        Central {
            bucket: Bucket::full(record.level),
            at: now,
            rate: record.rate,
            depth: record.depth,
        }
    }

    /// Brings it up to `now`. Time never goes back.
    pub fn advance(&mut self, now: TimeUs) {
        self.bucket
            .refill(self.rate, self.depth, now.since(self.at));
        self.at = self.at.max(now);
    }

    /// From now on the bucket refills and holds what the shares leave of the whole. A level above that is lowered by the next
    /// [`Central::advance`].
    pub fn keep(&mut self, whole: Whole, shares: Reserved) {
        self.rate = whole.rate.minus(shares.rate);
        self.depth = whole.depth.minus(shares.cap).at_least_zero();
    }

    /// Nothing flows in before `at`, which may lie ahead: for so long what a share held may still be spent.
    pub fn pause_until(&mut self, at: TimeUs) {
        self.at = self.at.max(at);
    }

    /// Takes all tokens out.
    pub fn empty(&mut self) {
        self.bucket.level = self.bucket.level.min(Micro::ZERO);
    }

    /// Puts tokens in, as far as there is room.
    pub fn put(&mut self, tokens: Micro) {
        self.bucket.put(tokens, self.depth);
    }

    /// Tokens in it; negative is debt.
    #[must_use]
    pub const fn level(&self) -> Micro {
        self.bucket.level
    }

    pub(super) fn take(&mut self, tokens: Micro) {
        self.bucket.take(tokens);
    }
}
