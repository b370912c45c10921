//! One customer's demand on a regular grid.

/// Demand of one tenant: `values[i]` is the amount of the step that starts at `start_s + i * step_s`.
///
/// A missing step is NaN rather than a second mask vector: a sum that forgets the mask then gives NaN, which is seen at
/// once, while a forgotten mask over zeros would only give a slightly wrong model.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The customer, as the file names it.
    pub tenant: String,
    /// Unix time of the first step's start, in seconds.
    pub start_s: i64,
    /// Length of a step, in seconds.
    pub step_s: u32,
    /// Amount per step; NaN where the file has no data.
    pub values: Vec<f64>,
}

impl Series {
    /// Unix time at which step `index` starts, in seconds.
    #[must_use]
    pub fn stamp_s(&self, index: usize) -> i64 {
        let steps = i64::try_from(index).unwrap_or(i64::MAX);
        self.start_s
            .saturating_add(steps.saturating_mul(i64::from(self.step_s)))
    }

    /// Steps, missing ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True for a series without a single step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Missing steps.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.values.iter().filter(|value| value.is_nan()).count()
    }

    /// The values with every gap carried forward from the step before it, and 0 before the first known step: what a
    /// forecaster that runs live sees.
    #[must_use]
    pub fn filled_forward(&self) -> Vec<f64> {
        let mut last = 0.0;
        self.values
            .iter()
            .map(|&value| {
                if !value.is_nan() {
                    last = value;
                }
                last
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_carried_forward_and_zero_before_the_first_value() {
        let series = Series {
            tenant: "a".into(),
            start_s: 600,
            step_s: 60,
            values: vec![f64::NAN, 3.0, f64::NAN, f64::NAN, 5.0],
        };
        assert_eq!(series.filled_forward(), [0.0, 3.0, 3.0, 3.0, 5.0]);
        assert_eq!(series.gaps(), 3);
        assert_eq!(series.stamp_s(4), 840);
    }
}
