//! What a customer is expected to ask for: three quantiles, and others between them.
//!
//! The allocation takes a forecast as plain numbers, from whichever forecaster. A whole distribution would be more exact and ties
//! the two crates together; three quantiles are what gateways and the control plane report anyway.

use crate::numbers::clean;

/// Probabilities of the quantiles that an outlook holds.
const KNOWN: [f64; 3] = [0.5, 0.9, 0.99];

/// Demand on one resource, in tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// The 0.5, 0.9 and 0.99 quantiles of what is expected in the next cycle, denied demand included.
    pub quantiles_per_s: [f64; 3],
}

// === impl Outlook ===

impl Outlook {
    /// An outlook without a forecast: what was asked for will be asked for.
    #[must_use]
    pub fn of_demand(demand_per_s: f64) -> Self {
        Self {
            quantiles_per_s: [demand_per_s; 3],
        }
    }

    /// The same with clean numbers and quantiles in order: a higher one is at least the lower ones.
    pub(crate) fn clean(self) -> Self {
        let mut least = 0.0_f64;
        Self {
            quantiles_per_s: self.quantiles_per_s.map(|quantile| {
                least = least.max(clean(quantile));
                least
            }),
        }
    }

    /// The quantile at `probability`, on straight lines over `-ln(1 - p)` between those that are known: exact for exponential
    /// tails, and no quantile is made up beyond the known ones.
    #[must_use]
    pub fn at(&self, probability: f64) -> f64 {
        let place = |probability: f64| -(1.0 - probability).ln();
        let known = KNOWN.iter().zip(&self.quantiles_per_s);
        for ((low, at_low), (high, at_high)) in known.clone().zip(known.skip(1)) {
            if probability <= *low {
                return *at_low;
            }
            if probability <= *high {
                let part = (place(probability) - place(*low)) / (place(*high) - place(*low));
                return at_low + (at_high - at_low) * part;
            }
        }
        self.upper_per_s()
    }

    /// What it needs even if it turns out high: nothing below this is lent or released.
    #[must_use]
    pub fn upper_per_s(&self) -> f64 {
        let [.., upper] = self.quantiles_per_s;
        upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_between_the_known_ones_lie_on_an_exponential_tail() {
        let exponential = |probability: f64| -10.0 * (1.0 - probability).ln();
        let outlook = Outlook {
            quantiles_per_s: KNOWN.map(exponential),
        };
        for probability in [0.5, 0.6, 0.75, 0.9, 0.95, 0.99] {
            let found = outlook.at(probability);
            assert!(
                (found - exponential(probability)).abs() < 1e-9,
                "{probability}: {found}"
            );
        }
        assert_eq!(outlook.at(0.1), exponential(0.5));
        assert_eq!(outlook.at(0.9999), exponential(0.99));
        assert_eq!(outlook.at(f64::NAN), outlook.upper_per_s());
    }
}
