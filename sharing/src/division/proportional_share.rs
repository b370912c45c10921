//! Doorman's PROPORTIONAL_SHARE (youtube/doorman, doc/algorithms.md), as a baseline.

use crate::division::law::Law;
use crate::division::round::Round;

/// Everybody gets what it wants while that fits. Otherwise everybody gets at most its even share, and what the modest leave
/// of theirs tops up the others in proportion to what they lack. Doorman's subclients are the weights; floors and forecasts are unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProportionalShare;

// === impl ProportionalShare ===

impl Law for ProportionalShare {
    fn name(&self) -> &'static str {
        "proportional_share"
    }

    fn split(&self, round: &Round, shares: &mut Vec<f64>) {
        if round.sum(|claim| claim.demand_per_s) <= round.capacity_per_s() {
            shares.extend(round.claims().iter().map(|claim| claim.demand_per_s));
            return;
        }
        let per_weight = round.capacity_per_s() / round.sum(|claim| claim.weight);
        let left = round.sum(|claim| (claim.weight * per_weight - claim.demand_per_s).max(0.0));
        let lacking = round.sum(|claim| (claim.demand_per_s - claim.weight * per_weight).max(0.0));
        let topped_up = if lacking > 0.0 { left / lacking } else { 0.0 };
        shares.extend(round.claims().iter().map(|claim| {
            let even = claim.weight * per_weight;
            even.min(claim.demand_per_s) + (claim.demand_per_s - even).max(0.0) * topped_up
        }));
    }
}
