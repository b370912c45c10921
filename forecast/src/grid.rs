//! Quantile forecasts as plain numbers: one value per (horizon, quantile).
//!
//! Kept flat, because ten thousand customers hold several of them and a vector of vectors would triple the allocations.

/// The quantile forecast of one customer: `values[h * quantiles + q]`, horizons outer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantileGrid {
    quantiles: usize,
    values: Vec<f32>,
}

/// The answer to a [`Batch`](crate::Batch): one grid per pushed row, in the order of pushing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantiles {
    rows: usize,
    row_len: usize,
    quantiles: usize,
    values: Vec<f32>,
}

/// The pinball (quantile) loss of forecasting `forecast` as quantile `q` when `actual` happened.
#[must_use]
pub fn pinball(q: f32, forecast: f32, actual: f32) -> f32 {
    let diff = actual - forecast;
    (q * diff).max((q - 1.0) * diff)
}

// === impl QuantileGrid ===

impl QuantileGrid {
    /// A grid of zeros.
    #[must_use]
    pub fn zeros(horizons: usize, quantiles: usize) -> Self {
        Self {
            quantiles,
            values: vec![0.0; horizons.saturating_mul(quantiles)],
        }
    }

    /// A grid from `values[h * quantiles + q]`. A trailing incomplete horizon is cut off.
    #[must_use]
    pub fn from_values(quantiles: usize, mut values: Vec<f32>) -> Self {
        let rest = values.len().checked_rem(quantiles).unwrap_or(values.len());
        values.truncate(values.len().saturating_sub(rest));
        Self { quantiles, values }
    }

    /// The number of horizons.
    #[must_use]
    pub fn horizons(&self) -> usize {
        self.values.len().checked_div(self.quantiles).unwrap_or(0)
    }

    /// The number of quantiles.
    #[must_use]
    pub fn quantiles(&self) -> usize {
        self.quantiles
    }

    /// The forecast of quantile number `q` at horizon number `h`; `None` outside the grid.
    #[must_use]
    pub fn get(&self, h: usize, q: usize) -> Option<f32> {
        self.horizon(h).get(q).copied()
    }

    /// All quantiles of horizon number `h`; empty outside the grid.
    #[must_use]
    pub fn horizon(&self, h: usize) -> &[f32] {
        let start = h.saturating_mul(self.quantiles);
        self.values
            .get(start..start.saturating_add(self.quantiles))
            .unwrap_or(&[])
    }

    /// All quantiles of horizon number `h`, to be changed; empty outside the grid.
    pub fn horizon_mut(&mut self, h: usize) -> &mut [f32] {
        let start = h.saturating_mul(self.quantiles);
        self.values
            .get_mut(start..start.saturating_add(self.quantiles))
            .unwrap_or(&mut [])
    }

    /// All values, horizons outer.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values to be changed, horizons outer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Sorts each horizon's quantiles and lifts negative ones to zero: what every consumer may rely on.
    pub fn tidy(&mut self) {
        let quantiles = self.quantiles.max(1);
        for horizon in self.values.chunks_mut(quantiles) {
            horizon.sort_unstable_by(f32::total_cmp);
            for value in horizon {
                *value = value.max(0.0);
            }
        }
    }
}

// === impl Quantiles ===

impl Quantiles {
    /// `values[row][horizon][quantile]`, flat.
    pub(crate) fn new(rows: usize, row_len: usize, quantiles: usize, values: Vec<f32>) -> Self {
        Self {
            rows,
            row_len,
            quantiles,
            values,
        }
    }

    /// The number of rows: as many as the batch had.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The values of one row, horizons outer; empty outside the batch.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        let start = row.saturating_mul(self.row_len);
        self.values
            .get(start..start.saturating_add(self.row_len))
            .unwrap_or(&[])
    }

    /// One row as a grid of its own.
    #[must_use]
    pub fn grid(&self, row: usize) -> QuantileGrid {
        QuantileGrid::from_values(self.quantiles, self.row(row).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_indexed_by_horizon_then_quantile() {
        let grid = QuantileGrid::from_values(2, vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(grid.horizons(), 2);
        assert_eq!(grid.get(1, 0), Some(3.0));
        assert_eq!(grid.horizon(0), &[1.0, 2.0]);
        assert_eq!(grid.get(2, 0), None);
        assert_eq!(grid.get(0, 2), None);
    }

    #[test]
    fn tidy_sorts_quantiles_and_removes_negative_tokens() {
        let mut grid = QuantileGrid::from_values(3, vec![3.0, -1.0, 2.0, 0.0, 5.0, 4.0]);
        grid.tidy();
        assert_eq!(grid.values(), &[0.0, 2.0, 3.0, 0.0, 4.0, 5.0]);
    }

    #[test]
    fn pinball_punishes_a_low_forecast_of_a_high_quantile_most() {
        assert!((pinball(0.9, 10.0, 20.0) - 9.0).abs() < 1e-6);
        assert!((pinball(0.9, 20.0, 10.0) - 1.0).abs() < 1e-6);
    }
}
