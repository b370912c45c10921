//! Where values usually are and how far apart: a running median and a running median of absolute deviations.
//!
//! By steps of a size that does not depend on the value, so one that is a million times too large moves them no further than any other. Mean and
//! variance were the worse alternative: an attack would be usual as soon as it is large enough.

use serde::{Deserialize, Serialize};

/// Of a normal distribution, standard deviations for each median of absolute deviations.
const NORMAL: f64 = 1.4826;
/// No spread is smaller: a customer that is as regular as a clock is not unusual when it is late.
const SPREAD_LEAST: f64 = 0.08;
const SPREAD_MOST: f64 = 10.0;
/// The first steps are larger.
const FIRST: f64 = 4.0;
/// And no larger than this.
const RATE_MOST: f64 = 0.25;
/// The middle begins at the first value, and no further away: a logarithm.
const FIRST_MOST: f64 = 10.0;

/// The middle and the spread of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Robust {
    middle: f32,
    spread: f32,
    /// Values that were taken.
    seen: u32,
}

// === impl Robust ===

impl Default for Robust {
    fn default() -> Self {
        Self {
            middle: 0.0,
            spread: 0.5,
            seen: 0,
        }
    }
}

impl Robust {
    pub(crate) fn middle(self) -> f64 {
        f64::from(self.middle)
    }

    /// How many standard deviations of a normal distribution a value is above what is usual.
    pub(crate) fn z(self, value: f64) -> f64 {
        (value - self.middle()) / (NORMAL * f64::from(self.spread).max(SPREAD_LEAST))
    }

    /// Values that were taken: a sign may be known of for less long than its customer.
    pub(crate) fn seen(self) -> u32 {
        self.seen
    }

    /// Takes a value. `share`: how much of what is new is believed.
    pub(crate) fn learn(&mut self, value: f64, rate: f64, share: f64) {
        if self.seen == 0 {
            self.middle = value.clamp(-FIRST_MOST, FIRST_MOST) as f32;
        }
        let first = (FIRST / (f64::from(self.seen) + FIRST)).min(RATE_MOST);
        self.seen = self.seen.saturating_add(1);
        let rate = share * rate.max(first);
        let (middle, spread) = (f64::from(self.middle), f64::from(self.spread));
        let away = value - middle;
        // Not by more than it is away: a constant would be jumped around for ever.
        let step = (rate * spread.max(SPREAD_LEAST)).min(away.abs());
        self.middle = (middle + step.copysign(away)) as f32;
        let grown = spread * (rate * if away.abs() > spread { 1.0 } else { -1.0 }).exp();
        self.spread = grown.clamp(SPREAD_LEAST, SPREAD_MOST) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_huge_values_moves_middle_and_spread_no_further_than_a_third_of_large_ones() {
        let learned = |outlier: f64| {
            let mut robust = Robust::default();
            for seen in 0..20_000_u32 {
                let value = match seen % 3 {
                    0 => outlier,
                    1 => 1.0,
                    _ => 1.4,
                };
                robust.learn(value, 0.001, 1.0);
            }
            robust
        };
        assert_eq!(learned(1e12), learned(20.0));
        assert!((0.9..1.6).contains(&learned(1e12).middle()));
    }

    #[test]
    fn what_is_never_different_has_a_spread_all_the_same() {
        let mut robust = Robust::default();
        (0..5_000).for_each(|_| robust.learn(3.0, 0.001, 1.0));
        assert!((robust.middle() - 3.0).abs() < 0.01);
        assert!(robust.z(3.1) < 1.0);
        assert!(robust.z(4.1) > 5.0);
    }

    #[test]
    fn the_middle_begins_at_the_first_value_if_that_can_be_real() {
        let first = |value: f64| {
            let mut robust = Robust::default();
            robust.learn(value, 0.001, 1.0);
            robust.middle()
        };
        assert_eq!((first(3.5), first(-3.5)), (3.5, -3.5));
        assert!(first(1e12) < 12.0);
    }
}
