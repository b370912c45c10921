//! How long a sum of evidence stays below a threshold, in the mean: what thresholds are chosen by.
//!
//! Siegmund's approximation (Sequential Analysis, Springer 1985, ch. 2) for a one-sided CUSUM of normal values: with the drift `d` of its increments and
//! `b = h + 1.166`, the threshold plus the mean overshoot at both ends, it is `(exp(-2 d b) + 2 d b - 1) / (2 d²)`, and `b²` without drift. It is
//! within some percent of the exact integral equation (Brook and Evans, Biometrika 1972) and needs no table; simulating thresholds at start was the
//! slower and rougher alternative.

/// Twice the mean overshoot of a normal random walk over a boundary, in standard deviations.
const OVERSHOOT: f64 = 1.166;
/// Drifts this close to none are none: the formula divides by their square.
const DRIFT_MIN: f64 = 1e-4;
/// Thresholds beyond say nothing: alarms would be rarer than steps are counted.
const THRESHOLD_MAX: f64 = 1e3;
/// Halvings of an interval until a double cannot tell its ends apart.
const HALVINGS: u32 = 64;

/// Mean steps until a one-sided CUSUM with this allowance and threshold sounds an alarm, when the mean of its values, of standard deviation 1, is
/// `shift` from what is expected.
#[must_use]
pub fn run_length(shift: f64, allowance: f64, threshold: f64) -> f64 {
    let drift = shift - allowance;
    let boundary = threshold + OVERSHOOT;
    if drift.abs() < DRIFT_MIN {
        return boundary * boundary;
    }
    let reach = 2.0 * drift * boundary;
    ((-reach).exp() + reach - 1.0) / (2.0 * drift * drift)
}

/// The least threshold at which a one-sided CUSUM that nothing ails runs for so many steps in the mean.
#[must_use]
pub fn threshold(allowance: f64, steps: f64) -> f64 {
    let (mut low, mut high) = (0.0, THRESHOLD_MAX);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if run_length(0.0, allowance, middle) < steps {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One-sided run lengths of the CUSUM with allowance 0.5, by the integral equation: Montgomery, Introduction to Statistical Quality Control, two-sided
    /// 168 and 465 for thresholds 4 and 5, thus 336 and 930; and 8.38, 10.4 at a shift of 1.
    #[test]
    fn run_lengths_are_those_of_the_tables() {
        for (shift, limit, tabled) in [
            (0.0, 4.0, 336.0),
            (0.0, 5.0, 930.0),
            (1.0, 4.0, 8.38),
            (1.0, 5.0, 10.4),
            (0.5, 4.0, 26.6),
        ] {
            let found = run_length(shift, 0.5, limit);
            assert!(
                (found / tabled - 1.0).abs() < 0.02,
                "{found} instead of {tabled} at shift {shift}, threshold {limit}"
            );
        }
    }

    #[test]
    fn a_threshold_gives_the_run_length_that_was_asked_for() {
        for steps in [100.0, 1e4, 1e8] {
            let found = run_length(0.0, 0.5, threshold(0.5, steps));
            assert!((found / steps - 1.0).abs() < 1e-6, "{found} for {steps}");
        }
    }
}
