//! Quantiles around a point forecast: those of its own errors over the steps before.
//!
//! The errors of a window are kept sorted while it moves on: sorting them anew for each step took a hundred times as long.

use crate::forecasts::{QUANTILES, tidy};
use crate::{Forecasts, Frame, History};
use std::ops::RangeInclusive;

/// With this few errors or fewer there is no spread: the quantiles of ten errors say nothing.
const ERROR_ROWS_MIN: usize = 10;
/// Number of the median among the quantiles.
const MEDIAN: usize = 1;

/// The errors of the newest steps, by size, for each step ahead.
struct SortedErrors(Vec<Vec<f64>>);

// === impl SortedErrors ===

impl SortedErrors {
    fn add(&mut self, row: &[f64]) {
        for (sorted, error) in self.0.iter_mut().zip(row) {
            let at = sorted.partition_point(|value| value < error);
            sorted.insert(at, *error);
        }
    }

    fn remove(&mut self, row: &[f64]) {
        for (sorted, error) in self.0.iter_mut().zip(row) {
            let at = sorted.partition_point(|value| value < error);
            sorted.remove(at);
        }
    }
}

/// Forecasts of a point, which may be NaN, with the quantiles of its errors. The median is the point itself.
pub(crate) fn with_error_quantiles(
    history: &History,
    frame: &Frame,
    origins: RangeInclusive<usize>,
    point: impl Fn(usize, usize) -> f64,
) -> Forecasts {
    let point = |origin, horizon| point(origin, horizon).max(0.0) + nan(point(origin, horizon));
    // What was found at a step of the forecasts made for it, one for each step ahead; only complete rows count.
    let row = |step: usize| -> Option<Vec<f64>> {
        (1..=frame.horizons)
            .map(|horizon| {
                let made_at = step.checked_sub(horizon)?;
                let error = history.filled()[step] - point(made_at, horizon);
                (!error.is_nan()).then_some(error)
            })
            .collect()
    };
    let mut errors = SortedErrors(vec![Vec::new(); frame.horizons]);
    let mut forecasts = Forecasts::none(&origins, frame.horizons);
    let begin = (origins.start() + 1).saturating_sub(frame.error_rows);
    for step in begin..=*origins.end() {
        if let Some(row) = row(step) {
            errors.add(&row);
        }
        if let Some(gone) = step.checked_sub(frame.error_rows)
            && gone >= begin
            && let Some(row) = row(gone)
        {
            errors.remove(&row);
        }
        if step < *origins.start() {
            continue;
        }
        let cells = forecasts.from_mut(step).chunks_mut(QUANTILES.len());
        for ((cells, sorted), horizon) in cells.zip(&errors.0).zip(1..) {
            let point = point(step, horizon);
            let mut quantiles = QUANTILES.map(|level| match sorted.len() > ERROR_ROWS_MIN {
                true => point + quantile_of_sorted(sorted, level),
                false => point,
            });
            quantiles[MEDIAN] = point;
            tidy(&mut quantiles);
            for (cell, value) in cells.iter_mut().zip(quantiles) {
                *cell = value as f32;
            }
        }
    }
    forecasts
}

/// `f64::max` drops a NaN; this puts it back.
fn nan(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { 0.0 }
}

/// The quantile of ascending values, linear between order statistics; 0 without values.
fn quantile_of_sorted(sorted: &[f64], level: f64) -> f64 {
    let position = level * sorted.len().saturating_sub(1) as f64;
    let below = position.floor() as usize;
    let Some(low) = sorted.get(below) else {
        return 0.0;
    };
    let high = sorted.get(below + 1).unwrap_or(low);
    low + (high - low) * (position - position.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_linearly_between_order_statistics() {
        assert_eq!(quantile_of_sorted(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile_of_sorted(&[1.0], 0.9), 1.0);
        assert_eq!(quantile_of_sorted(&[], 0.9), 0.0);
    }

    #[test]
    fn a_window_that_moves_has_the_errors_that_one_sorted_anew_would_have() {
        let values: Vec<f64> = (0..200).map(|i| f64::from((i * 37) % 101)).collect();
        let history = History::new(0, 60, values.clone());
        let frame = Frame {
            season: 10,
            long_season: None,
            horizons: 2,
            error_rows: 30,
        };
        let last = |origin: usize, _| values[origin];
        let moved = with_error_quantiles(&history, &frame, 50..=199, last);
        for origin in [50, 51, 120, 199] {
            let anew = with_error_quantiles(&history, &frame, origin..=origin, last);
            assert_eq!(moved.from(origin), anew.from(origin), "from {origin}");
        }
    }
}
