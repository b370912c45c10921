//! Mean and spread of what is usual, which follow slowly.
//!
//! A value far outside counts as one at the edge: an outage of an hour must not be what the next weeks are measured by.

use serde::{Deserialize, Serialize};

/// Values before the edge is known.
const CLIPPED_FROM: u32 = 30;
/// The edge, in standard deviations.
const EDGE: f64 = 3.0;
/// Spreads below are none: losses that hardly vary would make anything a deviation. Of logarithms, so this is a twentieth of a loss.
const DEVIATION_MIN: f64 = 0.05;

/// Of the values so far, the older ones by less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moments {
    mean: f64,
    variance: f64,
    count: u32,
}

// === impl Moments ===

impl Moments {
    /// Takes a value. All of the first `memory` values count the same, and then the weight of each fades over as many.
    pub(crate) fn learn(&mut self, value: f64, memory: u32) {
        let mut distance = value - self.mean;
        if self.count >= CLIPPED_FROM {
            let edge = EDGE * self.deviation();
            distance = distance.clamp(-edge, edge);
        }
        self.count = self.count.saturating_add(1).min(memory.max(1));
        let weight = 1.0 / f64::from(self.count);
        self.mean += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
    }

    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    pub(crate) fn deviation(&self) -> f64 {
        self.variance.sqrt().max(DEVIATION_MIN)
    }

    /// Values that it speaks of.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_moves_what_is_usual_by_as_much_as_other_rare_values_do() {
        let mut moments = Moments::default();
        for number in 0..400 {
            moments.learn(f64::from(number % 5), 400);
        }
        let before = moments;
        moments.learn(1e300, 400);
        assert!((moments.mean() - before.mean()).abs() < 0.02, "{moments:?}");
        assert!(moments.deviation() < 1.05 * before.deviation());
    }

    #[test]
    fn a_new_level_becomes_usual_in_the_end() {
        let mut moments = Moments::default();
        for _ in 0..200 {
            moments.learn(1.0, 200);
        }
        for _ in 0..5_000 {
            moments.learn(2.0, 200);
        }
        assert!((moments.mean() - 2.0).abs() < 0.1, "{moments:?}");
    }
}
