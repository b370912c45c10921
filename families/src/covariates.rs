//! What else was measured beside demand (latency, CPU, memory, network), as the learned families see it: nothing of a step before it has ended.
//!
//! Families that see it are families of their own, beside those that do not, and enter the mixture by the same folds. To put it among the features of all was
//! the worse alternative: a covariate that says nothing costs trees a part of their splits, and nobody would have noticed.

use crate::features::Seen;
use crate::{Frame, History};

/// Steps back that are seen one by one, the newest first.
const LAGS: [usize; 5] = [0, 1, 2, 3, 6];
/// Steps of the newest mean.
const SHORT: usize = 6;
/// Least steps of the usual mean.
const USUAL_STEPS_MIN: usize = 24;
/// A value this small, as a part of the usual one, is not told apart from zero.
const FLOOR: f64 = 0.02;
const NOTHING: f64 = 1e-9;

/// What a learned family looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eyes {
    OfDemand,
    OfCovariates,
}

/// Sums over a covariate, so that its usual value costs no more than its newest one.
#[derive(Debug)]
pub(crate) struct SeenCovariate<'a> {
    values: &'a [f64],
    /// `[i]`: sum and number of the known values before `i`.
    sums: Vec<(f64, f64)>,
    usual_steps: usize,
}

// === impl Eyes ===

impl Eyes {
    /// `None` if nothing can be learned from covariates: there are none, or not the same ones of all customers.
    pub(crate) fn open(histories: &[History]) -> Option<Self> {
        let mut counts = histories.iter().map(|history| history.covariates().len());
        let first = counts.next()?;
        (first > 0 && counts.all(|count| count == first)).then_some(Self::OfCovariates)
    }

    pub(crate) fn seen<'a>(self, history: &'a History, frame: &'a Frame) -> Seen<'a> {
        let seen = Seen::new(history, frame);
        match self {
            Self::OfDemand => seen,
            Self::OfCovariates => seen.with_covariates(),
        }
    }
}

// === impl SeenCovariate ===

impl<'a> SeenCovariate<'a> {
    pub(crate) fn new(values: &'a [f64], frame: &Frame) -> Self {
        let mut sums = vec![(0.0, 0.0)];
        let (mut sum, mut count) = (0.0, 0.0);
        for value in values {
            if !value.is_nan() {
                sum += value;
                count += 1.0;
            }
            sums.push((sum, count));
        }
        Self {
            values,
            sums,
            usual_steps: frame.season.max(USUAL_STEPS_MIN),
        }
    }

    /// Mean of what is known of the `steps` values up to `at`; NaN of nothing.
    fn mean(&self, at: usize, steps: usize) -> f64 {
        let end = (at + 1).min(self.values.len());
        let from = (at + 1).saturating_sub(steps).min(end);
        let (sum, count) = self.sums[end];
        let (sum_before, count_before) = self.sums[from];
        (sum - sum_before) / (count - count_before)
    }

    /// How far it is from the usual, in logarithms: lately, and at each of some steps back; NaN where it was not measured. Always as many.
    pub(crate) fn features(&self, origin: usize, out: &mut Vec<f64>) {
        let usual = self.mean(origin, self.usual_steps);
        let floor = FLOOR * usual.abs() + NOTHING;
        let log = |value: f64| ((value + floor) / (usual + floor)).max(NOTHING).ln() + 0.0 * value;
        let lagged = |lag: usize| {
            let at = origin.checked_sub(lag);
            at.and_then(|at| self.values.get(at)).copied()
        };
        out.extend(LAGS.map(|lag| log(lagged(lag).unwrap_or(f64::NAN))));
        out.push(log(self.mean(origin, SHORT)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            season: 24,
            long_season: None,
            horizons: 3,
            error_rows: 50,
        }
    }

    fn features(values: &[f64], origin: usize) -> Vec<f64> {
        let mut out = Vec::new();
        SeenCovariate::new(values, &frame()).features(origin, &mut out);
        out
    }

    #[test]
    fn what_was_not_measured_is_unknown_and_the_rest_is_not() {
        let mut values = vec![2.0; 40];
        values[29] = f64::NAN;
        let seen = features(&values, 30);
        assert_eq!(seen.len(), LAGS.len() + 1);
        let unknown: Vec<bool> = seen.iter().map(|value| value.is_nan()).collect();
        assert_eq!(unknown, [false, true, false, false, false, false]);
        assert!(
            seen.iter()
                .all(|value| value.is_nan() || value.abs() < 1e-9)
        );
        assert!(
            features(&[f64::NAN; 40], 30)
                .iter()
                .all(|value| value.is_nan())
        );
        // It ends before demand does.
        assert!(features(&values[..20], 30)[0].is_nan());
    }

    #[test]
    fn what_comes_after_a_step_is_not_seen_at_it() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i % 7 + 1)).collect();
        let mut other = values.clone();
        other[31..].fill(1e6);
        let bits = |values: &[f64]| {
            let seen = features(values, 30);
            seen.into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(&values), bits(&other));
        assert_ne!(bits(&values), {
            other[30] = 1e6;
            bits(&other)
        });
    }

    #[test]
    fn customers_with_other_covariates_than_each_other_are_not_learned_from() {
        let history = |covariates: usize| {
            let values = vec![vec![1.0; 10]; covariates];
            History::new(0, 60, vec![1.0; 10]).with_covariates(std::sync::Arc::new(values))
        };
        assert_eq!(
            Eyes::open(&[history(2), history(2)]),
            Some(Eyes::OfCovariates)
        );
        assert_eq!(Eyes::open(&[history(2), history(1)]), None);
        assert_eq!(Eyes::open(&[history(0), history(0)]), None);
    }
}
