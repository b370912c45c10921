//! The last word over a forecast: never more than a multiple of what was seen, never more than the contract allows.
//!
//! Networks and trends extrapolate; a blow-up would reserve the pool for one customer. Any bound that follows the
//! customer's own past is enough, and a factor over the trailing maximum is the one that an operator can picture.

use crate::grid::QuantileGrid;

/// The bound `factor x trailing maximum`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cap {
    /// Forecasts stay at or below this many times the largest usage in the window.
    pub factor: f32,
}

// === impl Cap ===

impl Default for Cap {
    fn default() -> Self {
        Self { factor: 3.0 }
    }
}

impl Cap {
    /// Caps all values. `trailing_max` is the largest usage of the window (`None`: nothing was seen, so nothing is
    /// forecast); `ceiling` is what the contract allows in one step, when there is a contract.
    pub fn apply(&self, grid: &mut QuantileGrid, trailing_max: Option<f32>, ceiling: Option<f32>) {
        let seen = trailing_max.map_or(0.0, |max| max * self.factor);
        let bound = ceiling.map_or(seen, |ceiling| ceiling.min(seen)).max(0.0);
        for value in grid.values_mut() {
            // A NaN compares false with everything and must not pass as "below the bound".
            *value = if value.is_nan() {
                0.0
            } else {
                value.clamp(0.0, bound)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capped(values: Vec<f32>, max: Option<f32>, ceiling: Option<f32>) -> Vec<f32> {
        let mut grid = QuantileGrid::from_values(values.len(), values);
        Cap { factor: 2.0 }.apply(&mut grid, max, ceiling);
        grid.values().to_vec()
    }

    #[test]
    fn forecasts_stay_below_the_trailing_maximum_and_the_contract() {
        assert_eq!(capped(vec![5.0, 50.0], Some(10.0), None), [5.0, 20.0]);
        assert_eq!(capped(vec![5.0, 50.0], Some(10.0), Some(12.0)), [5.0, 12.0]);
    }

    #[test]
    fn nothing_seen_means_nothing_reserved_and_nonsense_is_nothing() {
        assert_eq!(capped(vec![5.0], None, Some(12.0)), [0.0]);
        assert_eq!(
            capped(vec![f32::NAN, f32::INFINITY, -1.0], Some(10.0), None),
            [0.0, 20.0, 0.0]
        );
    }
}
