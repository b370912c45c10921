//! How likely a customer is to be quiet, as usual, busy, or to spike: what a person decides by, where a quantile is what a bucket is sized by.
//!
//! Usual is what the customer itself did lately: below its 0.1 quantile is low, above the 0.9 one high, above the 0.99 one a spike. So a forecast that
//! knows nothing says 10, 80, 9 and 1 %, and whatever a forecast is worth shows against that.

use crate::forecasts::QUANTILES;

/// The classes, by how much is asked for.
pub const SCENARIOS: [&str; 4] = ["low", "normal", "high", "spike"];
const CLASSES: usize = SCENARIOS.len();
/// Levels of the bounds between them.
const LEVELS: [f64; CLASSES - 1] = [0.1, 0.9, 0.99];
/// What is likely when nothing is known.
pub const CLIMATE: [f64; CLASSES] = [0.1, 0.8, 0.09, 0.01];
/// With fewer values the outermost bound means nothing.
const VALUES_MIN: usize = 100;

/// Bounds between the classes of one customer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenarios([f64; CLASSES - 1]);

// === impl Scenarios ===

impl Scenarios {
    /// By the demand of late; gaps are left out. `None` if there is too little of it, or if it never changes.
    #[must_use]
    pub fn of(demand: &[f64]) -> Option<Self> {
        let mut known: Vec<f64> = demand
            .iter()
            .copied()
            .filter(|value| !value.is_nan())
            .collect();
        if known.len() < VALUES_MIN {
            return None;
        }
        known.sort_unstable_by(f64::total_cmp);
        let bounds = LEVELS.map(|level| known[(level * (known.len() - 1) as f64).round() as usize]);
        (bounds[0] < bounds[1] && bounds[1] < bounds[2]).then_some(Self(bounds))
    }

    /// Number of the class of a demand.
    #[must_use]
    pub fn class(&self, demand: f64) -> usize {
        self.0.iter().filter(|bound| demand > **bound).count()
    }

    /// How likely each class is by a forecast of [`QUANTILES`]: they add up to 1.
    #[must_use]
    pub fn probabilities(&self, forecast: &[f32]) -> [f64; CLASSES] {
        let below = self.0.map(|bound| probability_below(forecast, bound));
        let mut probabilities = [0.0; CLASSES];
        let mut before = 0.0;
        for (probability, below) in probabilities.iter_mut().zip(below.into_iter().chain([1.0])) {
            *probability = f64::max(below - before, 0.0);
            before = before.max(below);
        }
        probabilities
    }
}

/// How likely demand is to be at most `bound`: linear between quantiles, from 0 on, and with an exponential tail beyond the last, which falls
/// as it did between the last two.
fn probability_below(forecast: &[f32], bound: f64) -> f64 {
    let mut from = (0.0, 0.0);
    for (level, quantile) in QUANTILES.iter().zip(forecast) {
        let (level, quantile) = (*level, f64::from(*quantile));
        if bound < quantile {
            let (low, before) = from;
            return before + (level - before) * (bound - low) / (quantile - low);
        }
        from = (quantile, level);
    }
    let (upper, outer) = (QUANTILES.len() - 2, QUANTILES.len() - 1);
    let width = f64::from(forecast[outer]) - f64::from(forecast[upper]);
    let fall = (1.0 - QUANTILES[upper]) / (1.0 - QUANTILES[outer]);
    let beyond = (bound - f64::from(forecast[outer])) / width.max(f64::MIN_POSITIVE);
    1.0 - (1.0 - QUANTILES[outer]) * fall.powf(-beyond)
}

/// Ranked probability score of a forecast when the class `came`: 0 is best; a class that is near is less wrong than one that is far.
#[must_use]
pub fn ranked_probability_score(probabilities: &[f64; CLASSES], came: usize) -> f64 {
    let mut sum = 0.0;
    let mut score = 0.0;
    for (class, probability) in probabilities.iter().enumerate().take(CLASSES - 1) {
        sum += probability;
        let is_reached = f64::from(u8::from(came <= class));
        score += (sum - is_reached) * (sum - is_reached);
    }
    score / (CLASSES - 1) as f64
}

/// Brier score of the same, over all classes: 0 is best, 2 worst.
#[must_use]
pub fn brier_score(probabilities: &[f64; CLASSES], came: usize) -> f64 {
    let errors = probabilities
        .iter()
        .enumerate()
        .map(|(class, probability)| {
            let outcome = f64::from(u8::from(class == came));
            (probability - outcome) * (probability - outcome)
        });
    errors.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_are_by_what_was_usual_lately() {
        let demand: Vec<f64> = (0..=1_000).map(f64::from).collect();
        let scenarios = Scenarios::of(&demand).unwrap();
        let classes = [50.0, 100.0, 500.0, 950.0, 2_000.0].map(|demand| scenarios.class(demand));
        assert_eq!(classes, [0, 0, 1, 2, 3]);
        assert_eq!(Scenarios::of(&[5.0; 500]), None);
        assert_eq!(Scenarios::of(&demand[..50]), None);
    }

    #[test]
    fn a_forecast_of_the_usual_says_what_is_usual() {
        let demand: Vec<f64> = (0..=1_000).map(f64::from).collect();
        let scenarios = Scenarios::of(&demand).unwrap();
        let said = scenarios.probabilities(&[100.0, 500.0, 900.0, 990.0]);
        for (said, usual) in said.iter().zip(CLIMATE) {
            assert!((said - usual).abs() < 1e-9, "{said} {usual}");
        }
        let busy = scenarios.probabilities(&[950.0, 1_500.0, 2_000.0, 3_000.0]);
        assert!(busy[3] > 0.85, "{busy:?}");
    }

    #[test]
    fn near_misses_cost_less_than_far_ones() {
        let sure_of_high = [0.0, 0.0, 1.0, 0.0];
        let [far, near, hit] = [0, 1, 2].map(|came| ranked_probability_score(&sure_of_high, came));
        assert!(far > near && near > hit && hit == 0.0);
        assert_eq!(brier_score(&sure_of_high, 0), 2.0);
    }

    proptest! {
        #[test]
        fn probabilities_add_up(mut row in prop::array::uniform4(0.0..1e5_f32), bounds in prop::array::uniform3(0.0..1e5_f64)) {
            row.sort_unstable_by(f32::total_cmp);
            let mut bounds = bounds;
            bounds.sort_unstable_by(f64::total_cmp);
            let said = Scenarios(bounds).probabilities(&row);
            prop_assert!(said.iter().all(|one| (0.0..=1.0).contains(one)), "{said:?}");
            prop_assert!((said.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{said:?}");
        }
    }
}
