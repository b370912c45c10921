//! Ridge regression on the same features as the boosted family, one for each step ahead.
//!
//! The field's sanity check: on cloud traces an online ridge has beaten every pretrained network that was tried (Toner et al., arXiv 2502.12944). It
//! extrapolates where trees cannot, which is a virtue for growth and a vice for outages.

use crate::boosted::jittered;
use crate::covariates::Eyes;
use crate::errors::with_error_quantiles;
use crate::features::Seen;
use crate::parallel::in_parallel;
use crate::{Family, Forecasts, Frame, History, Learner};
use std::ops::RangeInclusive;

const NAME: &str = "ridge";
const NAME_WITH_COVARIATES: &str = "ridge+cov";
/// Rows that each step ahead is learned from.
const ROWS_MOST: usize = 4_000;
const ROWS_LEAST: usize = 400;
/// How much a coefficient is held back, as a part of the number of rows: features are as wide as their standard deviation.
const PENALTY: f64 = 0.003;
/// A feature counts no further than so many standard deviations from its mean.
const WIDTHS_MAX: f64 = 4.0;
/// Demand moves by no more than this, in logarithms.
const DISTANCE_MAX: f64 = 3.0;

/// Learns the ridge family.
#[derive(Clone, Copy, Debug, Default)]
pub struct RidgeRegression;

/// Learns the ridge family that sees covariates as well; nothing where there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct RidgeWithCovariates;

#[derive(Debug)]
struct Ridge {
    eyes: Eyes,
    /// One for each step ahead.
    lines: Vec<Line>,
}

/// A linear function of features that have been centred and scaled.
#[derive(Clone, Debug)]
struct Line {
    means: Vec<f64>,
    widths: Vec<f64>,
    coefficients: Vec<f64>,
    intercept: f64,
}

// === impl RidgeRegression ===

impl Learner for RidgeRegression {
    fn name(&self) -> &'static str {
        NAME
    }

    fn learn(
        &self,
        histories: &[History],
        ends: &[usize],
        frame: &Frame,
    ) -> Option<Box<dyn Family>> {
        learn(Eyes::OfDemand, histories, ends, frame)
    }
}

// === impl RidgeWithCovariates ===

impl Learner for RidgeWithCovariates {
    fn name(&self) -> &'static str {
        NAME_WITH_COVARIATES
    }

    fn learn(
        &self,
        histories: &[History],
        ends: &[usize],
        frame: &Frame,
    ) -> Option<Box<dyn Family>> {
        learn(Eyes::open(histories)?, histories, ends, frame)
    }
}

fn learn(
    eyes: Eyes,
    histories: &[History],
    ends: &[usize],
    frame: &Frame,
) -> Option<Box<dyn Family>> {
    let seen: Vec<Seen<'_>> = histories
        .iter()
        .map(|history| eyes.seen(history, frame))
        .collect();
    let horizons: Vec<usize> = (1..=frame.horizons).collect();
    let lines = in_parallel(&horizons, |_, horizon| {
        let first = frame.season;
        let origins: Vec<(usize, usize)> = ends
            .iter()
            .enumerate()
            .flat_map(|(customer, end)| {
                let known = histories[customer].known();
                (first..end.saturating_sub(*horizon))
                    .filter(|origin| !(known[*origin] + known[origin + horizon]).is_nan())
                    .map(move |origin| (customer, origin))
            })
            .collect();
        let count = origins.len().min(ROWS_MOST);
        if count < ROWS_LEAST {
            return None;
        }
        let (mut rows, mut targets) = (Vec::new(), Vec::with_capacity(count));
        for row in 0..count {
            let (customer, origin) = origins[jittered(row, count, origins.len())];
            seen[customer].features(origin, *horizon, &mut rows);
            let then = histories[customer].known()[origin + horizon];
            let distance = seen[customer].distance(origin, then);
            targets.push(distance.clamp(-DISTANCE_MAX, DISTANCE_MAX));
        }
        Line::learn(rows, &targets)
    });
    let lines: Option<Vec<Line>> = lines.into_iter().collect();
    Some(Box::new(Ridge {
        eyes,
        lines: lines?,
    }))
}

// === impl Ridge ===

impl Family for Ridge {
    fn name(&self) -> &'static str {
        match self.eyes {
            Eyes::OfDemand => NAME,
            Eyes::OfCovariates => NAME_WITH_COVARIATES,
        }
    }

    fn forecast(
        &self,
        history: &History,
        frame: &Frame,
        origins: RangeInclusive<usize>,
    ) -> Option<Forecasts> {
        let seen = self.eyes.seen(history, frame);
        let first = (origins.start() + 1)
            .saturating_sub(frame.error_rows + frame.horizons)
            .max(frame.season);
        let mut features = Vec::new();
        let points: Vec<f64> = (first..=*origins.end())
            .flat_map(|origin| (1..=frame.horizons).map(move |horizon| (origin, horizon)))
            .map(|(origin, horizon)| {
                features.clear();
                seen.features(origin, horizon, &mut features);
                let distance = self.lines[horizon - 1].at(&features);
                seen.moved(origin, distance.clamp(-DISTANCE_MAX, DISTANCE_MAX))
            })
            .collect();
        let point = |origin: usize, horizon: usize| match origin.checked_sub(first) {
            Some(row) => points[row * frame.horizons + horizon - 1],
            None => f64::NAN,
        };
        Some(with_error_quantiles(history, frame, origins, point))
    }
}

// === impl Line ===

impl Line {
    /// Least squares with a penalty, by the normal equations. `None` if they cannot be solved.
    fn learn(mut rows: Vec<f64>, targets: &[f64]) -> Option<Self> {
        let width = rows.len() / targets.len();
        let column = |rows: &[f64], feature: usize| -> Vec<f64> {
            let all = rows.iter().skip(feature).step_by(width).copied();
            all.filter(|value| !value.is_nan()).collect()
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let columns: Vec<Vec<f64>> = (0..width).map(|feature| column(&rows, feature)).collect();
        let means: Vec<f64> = columns.iter().map(|values| mean(values)).collect();
        let widths: Vec<f64> = columns
            .iter()
            .zip(&means)
            .map(|(values, centre)| {
                let squares: Vec<f64> =
                    values.iter().map(|v| (v - centre) * (v - centre)).collect();
                mean(&squares).sqrt().max(1e-6)
            })
            .collect();
        let intercept = mean(targets);
        let mut line = Self {
            means,
            widths,
            coefficients: Vec::new(),
            intercept,
        };
        for row in rows.chunks_mut(width) {
            line.centre(row);
        }
        let mut matrix = vec![0.0; width * width];
        let mut right = vec![0.0; width];
        for (row, target) in rows.chunks(width).zip(targets) {
            for (i, a) in row.iter().enumerate() {
                right[i] += a * (target - intercept);
                for (cell, b) in matrix[i * width..=i * width + i].iter_mut().zip(row) {
                    *cell += a * b;
                }
            }
        }
        for i in 0..width {
            matrix[i * width + i] += PENALTY * targets.len() as f64;
        }
        line.coefficients = solve(matrix, right)?;
        Some(line)
    }

    /// Centres and scales a row; what is not known is as usual.
    fn centre(&self, row: &mut [f64]) {
        for ((value, mean), width) in row.iter_mut().zip(&self.means).zip(&self.widths) {
            *value = match value.is_nan() {
                true => 0.0,
                false => ((*value - mean) / width).clamp(-WIDTHS_MAX, WIDTHS_MAX),
            };
        }
    }

    fn at(&self, features: &[f64]) -> f64 {
        let mut row = features.to_vec();
        self.centre(&mut row);
        let sum: f64 = row.iter().zip(&self.coefficients).map(|(x, c)| x * c).sum();
        self.intercept + sum
    }
}

/// Solves a symmetric positive definite system, of which the lower half is given, by Cholesky's decomposition.
pub(crate) fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let left = matrix[i * n + j] - known;
            matrix[i * n + j] = match i == j {
                true if left > 0.0 => left.sqrt(),
                true => return None,
                false => left / matrix[j * n + j],
            };
        }
    }
    for i in 0..n {
        let known: f64 = (0..i).map(|k| matrix[i * n + k] * right[k]).sum();
        right[i] = (right[i] - known) / matrix[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| matrix[k * n + i] * right[k]).sum();
        right[i] = (right[i] - known) / matrix[i * n + i];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_and_an_unknown_feature_counts_as_usual() {
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for i in 0..1_000_u32 {
            let (a, b) = (f64::from(i % 17), f64::from(i % 23));
            rows.extend([a, b]);
            targets.push(2.0 * a - 0.5 * b + 3.0);
        }
        let line = Line::learn(rows, &targets).unwrap();
        assert!((line.at(&[4.0, 6.0]) - 8.0).abs() < 0.1);
        let usual = line.at(&[f64::NAN, 6.0]);
        assert!((usual - line.at(&[line.means[0], 6.0])).abs() < 1e-9);
    }

    #[test]
    fn a_system_without_a_solution_is_none() {
        assert_eq!(
            solve(vec![4.0, 0.0, 2.0, 5.0], vec![8.0, 10.0]),
            Some(vec![1.25, 1.5])
        );
        assert_eq!(solve(vec![0.0], vec![1.0]), None);
    }
}
