//! From shares to what is granted: whole micro-tokens, rounded down, and never more in all than there is.
//!
//! A float of 53 bits cannot hold every rate of the core (60 bits), so that shares within a capacity may round to integers
//! beyond it. The bound is therefore kept once more, exactly, in integers.

use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::{Micro, Rate};

/// Micro-tokens in a token.
const MICRO: f64 = MICRO_PER_TOKEN as f64;

/// A rate in tokens per second, as a claim has it.
#[must_use]
pub fn to_per_s(rate: Rate) -> f64 {
    rate.get() as f64 / MICRO
}

/// The rates to grant, one per share. Together they are at most `capacity`, and a rate that came from [`to_per_s`] comes
/// back as it was (up to 9 thousand million tokens per second).
#[must_use]
pub fn to_rates(shares_per_s: &[f64], capacity: Rate) -> Vec<Rate> {
    down(shares_per_s, capacity.get()).map(Rate::new).collect()
}

/// The same for shares of an amount, in tokens: a burst, for instance, that is divided like its rate.
#[must_use]
pub fn to_amounts(shares: &[f64], amount: Micro) -> Vec<Micro> {
    down(shares, amount.at_least_zero().get().unsigned_abs())
        .map(|micro| Micro::new(i64::try_from(micro).unwrap_or(i64::MAX)))
        .collect()
}

fn down(shares: &[f64], capacity_micro: u64) -> impl Iterator<Item = u64> {
    let mut left = capacity_micro;
    shares.iter().map(move |share| {
        // Without the factor a rate that was held as an integer could lose a micro-token in each round.
        let micro = (share * MICRO * (1.0 + 2.0 * f64::EPSILON)) as u64;
        let granted = micro.min(left);
        left = left.saturating_sub(granted);
        granted
    })
}
