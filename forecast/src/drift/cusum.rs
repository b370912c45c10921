//! The two-sided CUSUM of standardized residuals (Page, Continuous Inspection Schemes, Biometrika 41, 1954).
//!
//! Two sums, of what residuals are above an allowance and below its opposite, which never fall below zero. An allowance of half a shift finds that
//! shift sooner than any other rule of as rare false alarms does (Moustakides, Annals of Statistics 1986); larger ones are found anyway.

use super::{Detector, Direction, Drift, threshold};
use serde::{Deserialize, Serialize};

/// A detector of shifts of the mean of residuals, in either direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    threshold: f64,
    up: Sum,
    down: Sum,
}

/// Evidence for a shift in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    evidence: f64,
    /// Values since there was none.
    steps: u32,
}

// === impl Cusum ===

impl Cusum {
    /// Half of the shift that is to be found: one standard deviation.
    pub const ALLOWANCE: f64 = 0.5;

    /// One false alarm in so many steps, in the mean, while residuals are independent, normal, and of mean 0 and standard deviation 1.
    #[must_use]
    pub fn new(false_alarm_steps: f64) -> Self {
        Self {
            // Each side has half of the false alarms.
            threshold: threshold(Self::ALLOWANCE, 2.0 * false_alarm_steps),
            up: Sum::default(),
            down: Sum::default(),
        }
    }

    /// What evidence has to exceed, in standard deviations.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }
}

impl Detector for Cusum {
    fn observe(&mut self, value: f64) -> Option<Drift> {
        if !value.is_finite() {
            return None;
        }
        self.up.add(value - Self::ALLOWANCE);
        self.down.add(-value - Self::ALLOWANCE);
        let (direction, sum) = if self.up.evidence > self.threshold {
            (Direction::Up, self.up)
        } else if self.down.evidence > self.threshold {
            (Direction::Down, self.down)
        } else {
            return None;
        };
        self.up = Sum::default();
        self.down = Sum::default();
        Some(Drift {
            direction,
            steps: sum.steps,
        })
    }
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, increment: f64) {
        self.evidence += increment;
        self.steps = self.steps.saturating_add(1);
        if self.evidence <= 0.0 {
            *self = Self::default();
        }
    }
}
