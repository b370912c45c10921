//! Doorman's FAIR_SHARE (youtube/doorman, doc/algorithms.md), as a baseline.

use crate::division::law::Law;
use crate::division::round::Round;
use crate::water::{Vessel, fill};

/// As many as possible get all that they want, and the others the same, by weight. Doorman's subclients are the weights; floors
/// and forecasts are unknown. This is the documented law; doorman's code gives up after two rounds of passing on what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct FairShare;

// === impl FairShare ===

impl Law for FairShare {
    fn name(&self) -> &'static str {
        "fair_share"
    }

    fn split(&self, round: &Round, shares: &mut Vec<f64>) {
        let vessels: Vec<Vessel> = round
            .claims()
            .iter()
            .map(|claim| Vessel {
                lower_per_s: 0.0,
                upper_per_s: claim.demand_per_s,
                weight: claim.weight,
            })
            .collect();
        shares.extend(fill(round.capacity_per_s(), &vessels));
    }
}
