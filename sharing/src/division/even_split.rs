//! The same for everybody, by weight: what a fleet does when nobody knows where the demand is.

use crate::division::law::Law;
use crate::division::round::Round;

/// Capacity times weight over all weights. Knows neither demand nor floors.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvenSplit;

// === impl EvenSplit ===

impl Law for EvenSplit {
    fn name(&self) -> &'static str {
        "even_split"
    }

    fn split(&self, round: &Round, shares: &mut Vec<f64>) {
        let per_weight = round.capacity_per_s() / round.sum(|claim| claim.weight);
        shares.extend(round.claims().iter().map(|claim| claim.weight * per_weight));
    }
}
