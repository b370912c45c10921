//! Tokens and rates as integers: micro-tokens, and micro-tokens per second.
//!
//! Floating point would be shorter to write, but a bucket that is refilled a million times a day drifts, and two
//! workers that round differently no longer conserve tokens. All operations saturate: a hostile cost can
//! make a bucket useless for its owner, never wrap it round to full.

use crate::limits::{MAX_MICRO, MAX_REFILL_US, MAX_TOKENS, MICRO_PER_TOKEN, US_PER_S};

/// An amount of tokens in micro-tokens. Negative amounts are debts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micro(i64);

/// A refill rate in micro-tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

// === impl Micro ===

impl Micro {
    /// No tokens.
    pub const ZERO: Micro = Micro(0);
    /// The largest amount that a policy can name.
    pub const MAX: Micro = Micro(MAX_MICRO);

    /// `micro` micro-tokens.
    #[must_use]
    pub const fn new(micro: i64) -> Micro {
        Micro(micro)
    }

    /// Whole tokens; more than [`MAX_TOKENS`] count as that many.
    #[must_use]
    pub const fn from_tokens(tokens: u64) -> Micro {
        if tokens >= MAX_TOKENS {
            Micro::MAX
        } else {
            Micro((tokens as i64).saturating_mul(MICRO_PER_TOKEN))
        }
    }

    /// The amount in micro-tokens.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whole tokens, rounded down; a debt counts as none.
    #[must_use]
    pub const fn whole_tokens(self) -> u64 {
        if self.0 <= 0 {
            0
        } else {
            (self.0 / MICRO_PER_TOKEN).unsigned_abs()
        }
    }

    /// `self + other`, saturating.
    #[must_use]
    pub const fn plus(self, other: Micro) -> Micro {
        Micro(self.0.saturating_add(other.0))
    }

    /// `self - other`, saturating.
    #[must_use]
    pub const fn minus(self, other: Micro) -> Micro {
        Micro(self.0.saturating_sub(other.0))
    }

    /// The amount, or zero if it is negative.
    #[must_use]
    pub const fn at_least_zero(self) -> Micro {
        if self.0 < 0 { Micro::ZERO } else { self }
    }

    /// `self x numerator / denominator`, rounded down towards zero; zero if the denominator is zero.
    #[must_use]
    pub const fn share(self, numerator: u64, denominator: u64) -> Micro {
        let product = (self.0 as i128).saturating_mul(numerator as i128);
        match product.checked_div(denominator as i128) {
            Some(share) => Micro(clamp_i128(share)),
            None => Micro::ZERO,
        }
    }
}

// === impl Rate ===

impl Rate {
    /// No refill.
    pub const ZERO: Rate = Rate(0);
    /// The largest rate that a policy can name.
    pub const MAX: Rate = Rate(MAX_MICRO as u64);

    /// `micro_per_s` micro-tokens per second; more than [`Rate::MAX`] counts as that.
    #[must_use]
    pub const fn new(micro_per_s: u64) -> Rate {
        if micro_per_s > Rate::MAX.0 {
            Rate::MAX
        } else {
            Rate(micro_per_s)
        }
    }

    /// Whole tokens per second.
    #[must_use]
    pub const fn from_tokens_per_s(tokens_per_s: u64) -> Rate {
        Rate::new(tokens_per_s.saturating_mul(MICRO_PER_TOKEN as u64))
    }

    /// The rate in micro-tokens per second.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self + other`, at most [`Rate::MAX`].
    #[must_use]
    pub const fn plus(self, other: Rate) -> Rate {
        Rate::new(self.0.saturating_add(other.0))
    }

    /// `self - other`, at least zero.
    #[must_use]
    pub const fn minus(self, other: Rate) -> Rate {
        Rate(self.0.saturating_sub(other.0))
    }

    /// `self x numerator / denominator`, rounded down; zero if the denominator is zero.
    #[must_use]
    pub const fn share(self, numerator: u64, denominator: u64) -> Rate {
        let product = (self.0 as u128).saturating_mul(numerator as u128);
        match product.checked_div(denominator as u128) {
            Some(share) if share <= Rate::MAX.0 as u128 => Rate(share as u64),
            Some(_) => Rate::MAX,
            None => Rate::ZERO,
        }
    }

    /// What flows in `dt_us`, and the remainder that was carried from the last refill into the next, in millionths
    /// of a micro-token. So any way of cutting a span of time into refills gives the same sum.
    #[must_use]
    pub const fn over(self, dt_us: u64, carry: u32) -> (Micro, u32) {
        let dt_us = if dt_us > MAX_REFILL_US {
            MAX_REFILL_US
        } else {
            dt_us
        };
        // Below 2^64 the product takes one machine multiplication; the wide one costs a library call in wasm.
        if let Some(narrow) = self.0.checked_mul(dt_us)
            && let Some(sum) = narrow.checked_add(carry as u64)
        {
            let amount = sum / US_PER_S;
            return (Micro(amount as i64), (sum % US_PER_S) as u32);
        }
        let product = (self.0 as u128)
            .saturating_mul(dt_us as u128)
            .saturating_add(carry as u128);
        let amount = product / US_PER_S_WIDE;
        if amount > MAX_MICRO as u128 {
            return (Micro::MAX, 0);
        }
        (Micro(amount as i64), (product % US_PER_S_WIDE) as u32)
    }

    /// What flows in `dt_us`, rounded down.
    #[must_use]
    pub const fn amount_in(self, dt_us: u64) -> Micro {
        self.over(dt_us, 0).0
    }

    /// Microseconds until `amount` has flowed, rounded up; `None` if it never will.
    #[must_use]
    pub const fn us_until(self, amount: Micro) -> Option<u64> {
        if amount.0 <= 0 {
            return Some(0);
        }
        if self.0 == 0 {
            return None;
        }
        let product = (amount.0 as u128).saturating_mul(US_PER_S_WIDE);
        let us = product.div_ceil(self.0 as u128);
        if us > u64::MAX as u128 {
            None
        } else {
            Some(us as u64)
        }
    }
}

const US_PER_S_WIDE: u128 = US_PER_S as u128;

const fn clamp_i128(value: i128) -> i64 {
    if value > i64::MAX as i128 {
        i64::MAX
    } else if value < i64::MIN as i128 {
        i64::MIN
    } else {
        value as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_cut_into_pieces_refills_exactly_as_much_as_the_whole() {
        let rate = Rate::new(333_333);
        let whole = rate.amount_in(3_000_000);
        let (mut sum, mut carry) = (Micro::ZERO, 0);
        for _ in 0..3_000_000 / 7 {
            let (add, rest) = rate.over(7, carry);
            sum = sum.plus(add);
            carry = rest;
        }
        let (add, _) = rate.over(3_000_000 % 7, carry);
        assert_eq!(sum.plus(add), whole);
        assert_eq!(whole, Micro::new(999_999));
    }

    #[test]
    fn the_largest_rate_over_the_longest_time_stays_in_range() {
        assert_eq!(Rate::MAX.over(u64::MAX, 999_999).0, Micro::MAX);
    }

    #[test]
    fn the_time_until_an_amount_is_rounded_up() {
        assert_eq!(
            Rate::from_tokens_per_s(3).us_until(Micro::from_tokens(1)),
            Some(333_334)
        );
        assert_eq!(Rate::ZERO.us_until(Micro::from_tokens(1)), None);
        assert_eq!(Rate::ZERO.us_until(Micro::new(-5)), Some(0));
    }
}
