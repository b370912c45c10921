//! Our own law: tokens lie where they are about to be asked for, and are moved only where that helps somebody.
//!
//! In order, as far as the capacity goes:
//! 1. every gateway has its floor;
//! 2. water-filling up to the demand that was measured;
//! 3. on up to the forecast, everybody by the same part of what it lacks;
//! 4. the rest in proportion to the need (the larger of demand and forecast).
//!
//! Measured demand comes before the forecast, because a forecast is an upper quantile: filled up to both at once, a gateway that needs
//! 700 and expects 900 at most would be denied some of its 700 for good, in favour of what the others expect at most and
//! never ask for. By the same part, because then it is about equally likely everywhere that the headroom does not suffice.
//!
//! The need is followed at once. The rest is what makes divisions restless, since every change of any need changes all of it, and
//! what makes them forget: it would leave a gateway in the same round as the demand does, and demand that alternates
//! between two gateways would always find the tokens at the other one. So the rest stays where it lies for as long as nobody is
//! short, and leaves by half in a round. After two rounds everybody has 3/4 of what step 4 says, and that is not short:
//! under unchanged claims nothing moves from then on. To go on by half until the end would be a little closer to step 4, and never
//! at rest. A gateway that needs nothing has its floor, at once.

use crate::division::law::Law;
use crate::division::reactive::serve_demand;
use crate::division::round::Round;

/// A share that falls short of the right one by less than this part is right enough.
const SHORT_OF_SHARE: f64 = 0.03;

/// The same for its part of the rest. Not below 1/4, see above: 1 - 3/4 and some room for a need that changes a little.
const SHORT_OF_REST: f64 = 0.3;

/// What of the way to the right division the rest goes in one round.
const STEP: f64 = 0.5;

/// What rounding can take from a share: grants are whole micro-tokens (in tokens per second), and floats have 53 bits (as a part).
const ROUNDING_PER_S: f64 = 1e-6;
const ROUNDING: f64 = 1e-9;

/// Floors, measured demand, forecast, rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forecast;

/// The division that the claims ask for, whatever is held.
struct Wanted {
    places: Vec<Place>,
}

/// One gateway in it. All in tokens per second.
struct Place {
    held: f64,
    need: f64,
    /// What it gets by steps 1 to 3.
    served: f64,
    /// What it gets by step 4.
    rest: f64,
    /// With less than this it is short.
    enough: f64,
}

// === impl Forecast ===

impl Law for Forecast {
    fn name(&self) -> &'static str {
        "forecast"
    }

    fn split(&self, round: &Round, shares: &mut Vec<f64>) {
        let wanted = Wanted::new(round);
        if wanted.is_met_by_what_is_held() {
            shares.extend(wanted.places.iter().map(|place| place.held));
        } else {
            wanted.approach(shares);
        }
    }
}

// === impl Wanted ===

impl Wanted {
    fn new(round: &Round) -> Self {
        let capacity = round.capacity_per_s();
        let demanded = serve_demand(round);
        let is_demand_met = round
            .claims()
            .iter()
            .zip(&demanded)
            .all(|(claim, demanded)| *demanded >= claim.demand_per_s);
        let headroom: Vec<f64> = round
            .claims()
            .iter()
            .zip(&demanded)
            .map(|(claim, demanded)| (claim.need_per_s() - demanded).max(0.0))
            .collect();
        let room = (capacity - demanded.iter().sum::<f64>()).max(0.0);
        let part = ratio(room, headroom.iter().sum()).min(1.0);
        let served: Vec<f64> = demanded
            .iter()
            .zip(&headroom)
            .map(|(demanded, headroom)| demanded + headroom * part)
            .collect();
        let rest = (capacity - served.iter().sum::<f64>()).max(0.0);
        let per_need = ratio(rest, round.sum(|claim| claim.need_per_s()));
        let places = round
            .claims()
            .iter()
            .zip(demanded.iter().zip(served))
            .map(|(claim, (demanded, served))| {
                let need = claim.need_per_s();
                let rest = need * per_need;
                let share = served + rest;
                // No measured demand that can be met is denied for the sake of quiet.
                let least = if is_demand_met {
                    *demanded
                } else {
                    claim.floor_per_s
                };
                Place {
                    held: claim.held_per_s,
                    need,
                    served,
                    rest,
                    enough: (share - (share * SHORT_OF_SHARE).max(rest * SHORT_OF_REST)).max(least),
                }
            })
            .collect();
        Self { places }
    }

    /// All is given out that can be, nobody is short, and nothing lies where nothing is needed.
    fn is_met_by_what_is_held(&self) -> bool {
        let held = self.sum(|place| place.held);
        let given_out = self.sum(|place| place.served + place.rest);
        let rounding_per_s = ROUNDING_PER_S * self.places.len() as f64 + ROUNDING * given_out;
        (held - given_out).abs() <= rounding_per_s
            && self.places.iter().all(|place| {
                !place.is_short_with(place.held)
                    && (place.need > 0.0 || !is_below(place.served, place.held))
            })
    }

    /// Meets every need, and moves of the rest no more than it has to.
    fn approach(&self, shares: &mut Vec<f64>) {
        let rest = self.sum(|place| place.rest);
        let surplus = self.sum(Place::surplus);
        let kept = ratio(rest, surplus).min(1.0);
        let per_need = ratio((rest - surplus).max(0.0), self.sum(|place| place.need));
        let stay = |place: &Place| place.surplus() * kept + place.need * per_need;
        let is_anybody_short = self
            .places
            .iter()
            .any(|place| place.is_short_with(place.served + stay(place)));
        let step = if is_anybody_short { STEP } else { 0.0 };
        shares.extend(self.places.iter().map(|place| {
            let stays = stay(place);
            place.served + stays + (place.rest - stays) * step
        }));
    }

    fn sum(&self, value: impl Fn(&Place) -> f64) -> f64 {
        self.places.iter().map(value).sum()
    }
}

// === impl Place ===

impl Place {
    /// What it holds beyond what it is served.
    fn surplus(&self) -> f64 {
        if self.need > 0.0 {
            (self.held - self.served).max(0.0)
        } else {
            0.0
        }
    }

    fn is_short_with(&self, share: f64) -> bool {
        is_below(share, self.enough)
    }
}

/// Whether more than rounding is missing.
fn is_below(share: f64, mark: f64) -> bool {
    share < mark * (1.0 - ROUNDING) - ROUNDING_PER_S
}

/// `part / whole`, and 0 of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
