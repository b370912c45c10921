//! What a good quota server does without a forecast: it follows the last window.

use crate::division::law::Law;
use crate::division::round::Round;
use crate::water::{Vessel, fill};

/// Floors, then water-filling up to the demand, then the rest in proportion to the demand. It has the same floors as our own
/// law, so that a comparison shows what the forecast brings and not what the floors do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reactive;

// === impl Reactive ===

impl Law for Reactive {
    fn name(&self) -> &'static str {
        "reactive"
    }

    fn split(&self, round: &Round, shares: &mut Vec<f64>) {
        let served = serve_demand(round);
        let rest = (round.capacity_per_s() - served.iter().sum::<f64>()).max(0.0);
        let demand_per_s = round.sum(|claim| claim.demand_per_s);
        let per_demand = if demand_per_s > 0.0 {
            rest / demand_per_s
        } else {
            0.0
        };
        let claims = round.claims().iter();
        shares.extend(
            claims
                .zip(served)
                .map(|(claim, served)| served + claim.demand_per_s * per_demand),
        );
    }
}

/// Floors, then water-filling up to the demand. A floor above the demand stays.
pub(crate) fn serve_demand(round: &Round) -> Vec<f64> {
    let vessels: Vec<Vessel> = round
        .claims()
        .iter()
        .map(|claim| Vessel {
            lower_per_s: claim.floor_per_s,
            upper_per_s: claim.floor_per_s.max(claim.demand_per_s),
            weight: claim.weight,
        })
        .collect();
    fill(round.capacity_per_s(), &vessels)
}
