//! What a law of division is, and the promise that holds for all of them.

use crate::division::claim::Claim;
use crate::division::round::Round;
use crate::numbers::clean;
use std::fmt::Debug;

/// A rule by which a rate is divided among gateways.
pub trait Law: Debug + Send + Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Writes one share per claim, in the order of the claims, into the empty `shares`. Callers use [`Law::divide`].
    fn split(&self, round: &Round, shares: &mut Vec<f64>);

    /// Divides `capacity_per_s` and leaves one share per claim in `shares`, in tokens per second. Whatever the numbers are, no share
    /// is negative and the shares, added up in their order, do not exceed the capacity.
    fn divide(&self, capacity_per_s: f64, claims: &[Claim], shares: &mut Vec<f64>) {
        let round = Round::new(capacity_per_s, claims);
        shares.clear();
        self.split(&round, shares);
        trim(round.capacity_per_s(), shares);
    }
}

/// Takes away what rounding has added. The shares are clean like what comes in, so that they come back as they are when they are held.
fn trim(capacity_per_s: f64, shares: &mut [f64]) {
    for share in shares.iter_mut() {
        *share = clean(*share);
    }
    let mut sum: f64 = shares.iter().sum();
    while sum > capacity_per_s {
        // Less than 1 after rounding, too, so each pass makes every share smaller.
        let factor = capacity_per_s / sum;
        for share in shares.iter_mut() {
            *share = clean(*share * factor);
        }
        sum = shares.iter().sum();
    }
}
