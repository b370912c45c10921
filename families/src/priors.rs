//! What each family is worth before a customer has shown which suits it: how well it did for all customers together.

use crate::forecasts::QUANTILES;
use crate::{Forecasts, Frame, History, pinball};

/// A loss of 10 % above the best divides the weight by `exp(STRENGTH / 10)`: little, because a customer's own losses know better.
const STRENGTH: f64 = 2.0;
/// The least weight: what was worthless for all may be the best for one, or tomorrow.
const WEIGHT_MIN: f64 = 0.01;
/// How strongly large customers count.
const SIZE_EXPONENT: f64 = 0.75;

/// A weight for each family and step ahead.
#[derive(Clone, Debug, PartialEq)]
pub struct Priors {
    families: usize,
    /// `[horizon][family]`; empty: all the same.
    weights: Vec<f64>,
}

// === impl Priors ===

impl Priors {
    /// All families are worth the same.
    #[must_use]
    pub fn equal() -> Self {
        Self {
            families: 0,
            weights: Vec::new(),
        }
    }

    /// By the losses of forecasts `of[customer][family]`, from the first of their origins to before step `ends[customer]`. Customers count only where every
    /// family that anybody has forecasts of has one.
    #[must_use]
    pub fn learned(
        histories: &[History],
        frame: &Frame,
        of: &[Vec<Option<&Forecasts>>],
        ends: &[usize],
    ) -> Self {
        let families = of.first().map_or(0, Vec::len);
        let is_known = |family: usize| of.iter().any(|forecasts| forecasts[family].is_some());
        let known: Vec<bool> = (0..families).map(is_known).collect();
        // NaN: nobody has it.
        let first = known
            .iter()
            .map(|is_known| if *is_known { 0.0 } else { f64::NAN });
        let first: Vec<f64> = first.collect();
        let mut losses = first.repeat(frame.horizons);
        for ((history, forecasts), end) in histories.iter().zip(of).zip(ends) {
            let is_whole = forecasts
                .iter()
                .zip(&known)
                .all(|(of, known)| of.is_some() || !known);
            let mean = history.mean(*end);
            if !is_whole || mean <= 0.0 {
                continue;
            }
            let size = mean.powf(SIZE_EXPONENT) / mean;
            for horizon in 1..=frame.horizons {
                let of_horizon = &mut losses[(horizon - 1) * families..horizon * families];
                let of_customer: Vec<Option<f64>> = forecasts
                    .iter()
                    .map(|forecasts| Some(mean_loss(history, (*forecasts)?, horizon, *end)))
                    .collect();
                // A family without an outcome cannot be compared with one that has some.
                if of_customer.iter().flatten().any(|loss| loss.is_nan()) {
                    continue;
                }
                for (sum, loss) in of_horizon.iter_mut().zip(of_customer) {
                    *sum += size * loss.unwrap_or(0.0);
                }
            }
        }
        let weights = losses.chunks(families.max(1)).flat_map(|losses| {
            let best = losses.iter().copied().fold(f64::NAN, f64::min);
            let weight = move |loss: &f64| {
                let excess = (loss - best) / best.max(f64::MIN_POSITIVE);
                if excess.is_nan() {
                    1.0
                } else {
                    (-STRENGTH * excess).exp().max(WEIGHT_MIN)
                }
            };
            losses.iter().map(weight).collect::<Vec<_>>()
        });
        Self {
            families,
            weights: weights.collect(),
        }
    }

    /// The weight of a family at a step ahead (from 1).
    #[must_use]
    pub fn of(&self, horizon: usize, family: usize) -> f64 {
        let at = (horizon - 1) * self.families + family;
        self.weights.get(at).copied().unwrap_or(1.0)
    }
}

/// Mean pinball loss of the forecasts `horizon` steps ahead whose outcome lies before `end`; NaN without any.
fn mean_loss(history: &History, forecasts: &Forecasts, horizon: usize, end: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for origin in *forecasts.origins().start()..end.saturating_sub(horizon) {
        let actual = history.known()[origin + horizon];
        let row = forecasts.of(origin, horizon);
        if actual.is_nan() || row[0].is_nan() {
            continue;
        }
        let losses = QUANTILES.iter().zip(row);
        sum += losses
            .map(|(level, value)| pinball(*level, f64::from(*value), actual))
            .sum::<f64>();
        count += 1.0;
    }
    sum / count
}
