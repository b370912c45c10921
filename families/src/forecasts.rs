//! A table of forecasts: one row of quantiles for each step of origin and each step ahead.

use std::ops::RangeInclusive;

/// Levels of the quantiles, ascending.
pub const QUANTILES: [f64; 4] = [0.1, 0.5, 0.9, 0.99];

/// Forecasts from the ends of successive steps; NaN where there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecasts {
    first: usize,
    horizons: usize,
    values: Vec<f32>,
}

// === impl Forecasts ===

impl Forecasts {
    /// No forecasts yet, of so many steps from each of these.
    #[must_use]
    pub fn none(origins: &RangeInclusive<usize>, horizons: usize) -> Self {
        let count = (origins.end() + 1).saturating_sub(*origins.start());
        Self {
            first: *origins.start(),
            horizons,
            values: vec![f32::NAN; count * horizons * QUANTILES.len()],
        }
    }

    /// Steps from whose ends there are forecasts.
    #[must_use]
    pub fn origins(&self) -> RangeInclusive<usize> {
        let count = self.values.len() / self.row_len().max(1);
        self.first..=(self.first + count).saturating_sub(1)
    }

    /// All quantiles from the end of a step, steps ahead outer.
    #[must_use]
    pub fn from(&self, origin: usize) -> &[f32] {
        let at = (origin - self.first) * self.row_len();
        &self.values[at..at + self.row_len()]
    }

    /// The same, to be written.
    pub fn from_mut(&mut self, origin: usize) -> &mut [f32] {
        let at = (origin - self.first) * self.row_len();
        let len = self.row_len();
        &mut self.values[at..at + len]
    }

    /// Quantiles of the step `horizon` steps (from 1) after the end of step `origin`.
    #[must_use]
    pub fn of(&self, origin: usize, horizon: usize) -> &[f32] {
        let row = self.from(origin);
        &row[(horizon - 1) * QUANTILES.len()..horizon * QUANTILES.len()]
    }

    /// Adds those from the steps that follow.
    pub fn append(&mut self, later: &Self) {
        self.values.extend_from_slice(&later.values);
    }

    /// Only those from step `first` on.
    #[must_use]
    pub fn since(mut self, first: usize) -> Self {
        let gone = (first - self.first) * self.row_len();
        self.values.drain(..gone);
        self.first = first;
        self
    }

    fn row_len(&self) -> usize {
        self.horizons * QUANTILES.len()
    }
}

/// Puts quantiles in order and above zero. A row with a NaN becomes one of NaN: half a forecast is none.
pub(crate) fn tidy(row: &mut [f64]) {
    if row.iter().any(|value| value.is_nan()) {
        row.fill(f64::NAN);
        return;
    }
    row.sort_unstable_by(f64::total_cmp);
    for value in row {
        *value = value.max(0.0);
    }
}
