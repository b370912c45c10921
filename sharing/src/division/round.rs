//! The door: what comes in is numbers that a gateway has reported, and one of them may be nonsense.
//!
//! A law sees only a [`Round`], and a round can only be made of clean numbers. Were each law to check for itself, the one
//! that forgets would turn a single NaN into a NaN for every gateway.

use crate::division::claim::Claim;
use crate::numbers::{clean, clean_weight};

/// A capacity and the claims on it, in numbers that can be reckoned with: finite, not negative, floors together within
/// the capacity, weights positive.
#[derive(Clone, Debug)]
pub struct Round {
    capacity_per_s: f64,
    claims: Vec<Claim>,
}

// === impl Round ===

impl Round {
    /// Cleans the numbers. Not a number, infinite and negative count as 0; floors that exceed the capacity are scaled to it.
    #[must_use]
    pub fn new(capacity_per_s: f64, claims: &[Claim]) -> Self {
        let capacity_per_s = clean(capacity_per_s);
        let mut claims: Vec<Claim> = claims
            .iter()
            .map(|claim| Claim {
                demand_per_s: clean(claim.demand_per_s),
                forecast_per_s: claim.forecast_per_s.map(clean),
                held_per_s: clean(claim.held_per_s),
                floor_per_s: clean(claim.floor_per_s),
                weight: clean_weight(claim.weight),
            })
            .collect();
        let floors_per_s: f64 = claims.iter().map(|claim| claim.floor_per_s).sum();
        if floors_per_s > capacity_per_s {
            for claim in &mut claims {
                claim.floor_per_s *= capacity_per_s / floors_per_s;
            }
        }
        Self {
            capacity_per_s,
            claims,
        }
    }

    /// What there is to divide, in tokens per second.
    #[must_use]
    pub fn capacity_per_s(&self) -> f64 {
        self.capacity_per_s
    }

    /// The claims, in the order in which they came.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The sum of one value over the claims.
    #[must_use]
    pub fn sum(&self, value: impl Fn(&Claim) -> f64) -> f64 {
        self.claims.iter().map(value).sum()
    }
}
