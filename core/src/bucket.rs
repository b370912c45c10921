//! The bucket under every other: a level, a refill that carries its remainder, and a depth given from outside.
//!
//! Rate and depth are arguments, not fields: they come from the contract, the forecast or a grant, all of which change
//! while the level stays. A bucket that stored them would have to be found and rewritten at each policy change.

use crate::amount::{Micro, Rate};

/// A level of tokens (or of claims), and the part of a micro-token that the last refill left over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens in the bucket; negative is debt.
    pub level: Micro,
    /// Millionths of a micro-token carried to the next refill.
    pub carry: u32,
}

// === impl Bucket ===

impl Bucket {
    /// A bucket filled to `depth`.
    #[must_use]
    pub const fn full(depth: Micro) -> Bucket {
        Bucket {
            level: depth,
            carry: 0,
        }
    }

    /// Adds what flows in `dt_us`, up to `depth`. A level above the depth is lowered to it: a lowered limit binds at once.
    pub const fn refill(&mut self, rate: Rate, depth: Micro, dt_us: u64) {
        let (add, carry) = rate.over(dt_us, self.carry);
        let level = self.level.plus(add);
        if level.get() >= depth.get() {
            self.level = depth;
            self.carry = 0;
        } else {
            self.level = level;
            self.carry = carry;
        }
    }

    /// Takes `amount`, below zero if need be: the caller has tested.
    pub const fn take(&mut self, amount: Micro) {
        self.level = self.level.minus(amount);
    }

    /// Puts `amount` back, up to `depth`, and returns what there was no room for: a lowered depth leaves none for what was there before
    /// either. A negative amount (a debt that a worker brings) is charged in full.
    pub const fn put(&mut self, amount: Micro, depth: Micro) -> Micro {
        let level = self.level.plus(amount);
        let excess = level.minus(depth).at_least_zero();
        self.level = level.minus(excess);
        excess
    }

    /// Microseconds until the level reaches `amount`, if nothing is taken; `None` if it never will.
    #[must_use]
    pub const fn us_until(&self, amount: Micro, rate: Rate, depth: Micro) -> Option<u64> {
        if self.level.get() >= amount.get() {
            return Some(0);
        }
        if amount.get() > depth.get() {
            return None;
        }
        rate.us_until(amount.minus(self.level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::from_tokens_per_s(2);
    const DEPTH: Micro = Micro::from_tokens(10);

    #[test]
    fn a_refill_stops_at_the_depth_and_forgets_the_remainder() {
        let mut bucket = Bucket {
            level: Micro::from_tokens(9),
            carry: 999_999,
        };
        bucket.refill(RATE, DEPTH, 5_000_000);
        assert_eq!(bucket, Bucket::full(DEPTH));
    }

    #[test]
    fn a_lowered_depth_binds_at_the_next_refill() {
        let mut bucket = Bucket::full(DEPTH);
        bucket.refill(RATE, Micro::from_tokens(4), 0);
        assert_eq!(bucket.level, Micro::from_tokens(4));
    }

    #[test]
    fn what_is_put_back_stops_at_the_depth_but_a_debt_is_charged_in_full() {
        let mut bucket = Bucket {
            level: Micro::from_tokens(8),
            carry: 0,
        };
        bucket.put(Micro::from_tokens(5), DEPTH);
        assert_eq!(bucket.level, DEPTH);
        bucket.put(Micro::from_tokens(5).minus(Micro::from_tokens(25)), DEPTH);
        assert_eq!(bucket.level.get(), -10_000_000);
    }

    #[test]
    fn an_amount_deeper_than_the_bucket_never_comes() {
        let bucket = Bucket::default();
        assert_eq!(bucket.us_until(Micro::from_tokens(11), RATE, DEPTH), None);
        assert_eq!(
            bucket.us_until(Micro::from_tokens(10), RATE, DEPTH),
            Some(5_000_000)
        );
    }
}
