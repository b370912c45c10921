//! Ridge regression that takes one observation after the other.
//!
//! The inverse is kept up to date by the formula of Sherman and Morrison, so an observation costs 25 products and no matrix is ever
//! inverted. Rounding adds up over very many of them; arms see a few thousand.

use crate::tuning::context::FEATURES;
use crate::tuning::kept::Words;

/// A linear model of a value, with how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ridge {
    /// Inverse of the identity plus the sum of outer products of features.
    inverse: [[f64; FEATURES]; FEATURES],
    /// Sum of features times values.
    sum: [f64; FEATURES],
}

// === impl Ridge ===

impl Default for Ridge {
    /// Knows nothing: expects 0.
    fn default() -> Self {
        let mut inverse = [[0.0; FEATURES]; FEATURES];
        for (place, row) in inverse.iter_mut().enumerate() {
            if let Some(cell) = row.get_mut(place) {
                *cell = 1.0;
            }
        }
        Self {
            inverse,
            sum: [0.0; FEATURES],
        }
    }
}

impl Ridge {
    pub(crate) fn learn(&mut self, features: &[f64; FEATURES], value: f64) {
        let moved = self.times(features);
        let scale = 1.0 + dot(features, &moved);
        for (row, left) in self.inverse.iter_mut().zip(moved) {
            for (cell, right) in row.iter_mut().zip(moved) {
                *cell -= left * right / scale;
            }
        }
        for (sum, feature) in self.sum.iter_mut().zip(features) {
            *sum += feature * value;
        }
    }

    /// What is expected.
    pub(crate) fn expects(&self, features: &[f64; FEATURES]) -> f64 {
        dot(&self.times(features), &self.sum)
    }

    /// How far off that may be, in units of the noise: the width of Li et al. (WWW 2010).
    pub(crate) fn width(&self, features: &[f64; FEATURES]) -> f64 {
        dot(features, &self.times(features)).max(0.0).sqrt()
    }

    pub(crate) fn put(&self, words: &mut Vec<u64>) {
        let numbers = self.inverse.iter().flatten().chain(&self.sum);
        words.extend(numbers.map(|number| number.to_bits()));
    }

    pub(crate) fn take(words: &mut Words<'_>) -> Option<Self> {
        let mut ridge = Self::default();
        let cells = ridge.inverse.iter_mut().flatten();
        for cell in cells.chain(&mut ridge.sum) {
            *cell = words.number()?;
        }
        Some(ridge)
    }

    fn times(&self, vector: &[f64; FEATURES]) -> [f64; FEATURES] {
        self.inverse.map(|row| dot(&row, vector))
    }
}

fn dot(left: &[f64; FEATURES], right: &[f64; FEATURES]) -> f64 {
    left.iter().zip(right).map(|(one, other)| one * other).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_and_what_was_seen_often_is_sure() {
        let plane = [0.5, -0.25, 0.125, 1.0, -1.0];
        let mut ridge = Ridge::default();
        let features = |step: u32| {
            let value = |prime: u32| f64::from(step * prime % 101) / 101.0;
            [1.0, value(3), value(17), value(29), value(43)]
        };
        let before = ridge.width(&features(7));
        for step in 0..20_000 {
            ridge.learn(&features(step), dot(&plane, &features(step)));
        }
        for step in 1..20 {
            let found = ridge.expects(&features(step));
            assert!(
                (found - dot(&plane, &features(step))).abs() < 0.01,
                "{step}: {found}"
            );
        }
        assert!(ridge.width(&features(7)) < 0.05 * before);
        // What was never seen is as unsure as at first, and expected to be nothing.
        assert_eq!(Ridge::default().expects(&features(7)), 0.0);
    }
}
