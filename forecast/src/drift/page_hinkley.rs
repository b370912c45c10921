//! The Page-Hinkley test for a rise of a loss (Page, Biometrika 41, 1954; Hinkley, Inference about the change-point from cumulative sum tests, Biometrika 58, 1971).
//!
//! The sum of what losses are above their own mean so far and an allowance; an alarm when it is far above the least that it ever was. As usually given, allowance
//! and threshold are in units of the loss, so every series needs others. Here both are in standard deviations that are learned along with the mean, so that
//! the theory of the CUSUM says what they have to be.
//!
//! A new mean is learned after each alarm, and a drift that is slower than learning is never found: [`super::Cusum`] does not forget what it expects.

use super::{Detector, Direction, Drift, threshold};
use serde::{Deserialize, Serialize};

/// Values that mean and spread are learned from before anything counts: the mean of a hundred is known to a tenth of a standard deviation, a fifth of the allowance.
const LEARNED_MIN: u32 = 100;

/// Larger values count as this: the squares of more would overflow, and nothing would be found ever after.
const VALUE_MAX: f64 = 1e140;

/// A detector of rises of a loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageHinkley {
    threshold: f64,
    learned: Moments,
    /// The sum above its least so far, and values since that.
    evidence: f64,
    steps: u32,
}

/// Mean and spread of what was seen (Welford, Technometrics 1962): sums of squares lose all digits when losses are nearly the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moments {
    count: u32,
    mean: f64,
    squares: f64,
}

// === impl PageHinkley ===

impl PageHinkley {
    /// Half of the rise that is to be found: one standard deviation.
    pub const ALLOWANCE: f64 = 0.5;

    /// One false alarm in so many steps, in the mean, while losses are independent and normal. Those of heavy tails have more.
    #[must_use]
    pub fn new(false_alarm_steps: f64) -> Self {
        Self {
            threshold: threshold(Self::ALLOWANCE, false_alarm_steps),
            learned: Moments::default(),
            evidence: 0.0,
            steps: 0,
        }
    }

    /// What evidence has to exceed, in standard deviations.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }
}

impl Detector for PageHinkley {
    fn observe(&mut self, value: f64) -> Option<Drift> {
        if !value.is_finite() {
            return None;
        }
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        let before = self.learned;
        self.learned.add(value);
        if before.count < LEARNED_MIN {
            return None;
        }
        let deviation = before.deviation();
        // Losses that were all the same have no spread to measure in.
        if deviation <= 0.0 {
            return None;
        }
        self.evidence += (value - before.mean) / deviation - Self::ALLOWANCE;
        self.steps = self.steps.saturating_add(1);
        if self.evidence <= 0.0 {
            self.evidence = 0.0;
            self.steps = 0;
        }
        if self.evidence <= self.threshold {
            return None;
        }
        let steps = self.steps;
        *self = Self {
            threshold: self.threshold,
            learned: Moments::default(),
            evidence: 0.0,
            steps: 0,
        };
        Some(Drift {
            direction: Direction::Up,
            steps,
        })
    }
}

// === impl Moments ===

impl Moments {
    fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let from_old = value - self.mean;
        self.mean += from_old / f64::from(self.count);
        self.squares += from_old * (value - self.mean);
    }

    fn deviation(&self) -> f64 {
        (self.squares / f64::from(self.count.max(1))).sqrt()
    }
}
