//! Hannan and Rissanen's two regressions for ARMA models: a long autoregression gives the shocks, and a second one on values and shocks gives the rest. Orders, and
//! whether differences are taken, are chosen by Akaike's criterion.
//!
//! Maximum likelihood was the worse alternative: it costs a thousand passes where this costs two, and explodes as often.

use crate::ridge::solve;

const LONG_ORDER_MOST: usize = 24;
/// Orders of values and shocks that are tried, beside the long autoregression.
const ORDERS: [(usize, usize); 8] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (3, 0),
    (5, 0),
    (0, 1),
    (1, 1),
    (2, 2),
];
/// Steps before the first that is fitted to have this much room beyond the long order.
const ROOM: usize = 5;
/// Held back a little, as a part of each variance: a silent customer has no variance at all.
const PENALTY: f64 = 1e-4;
const PENALTY_LEAST: f64 = 1e-9;
const VARIANCE_MIN: f64 = 1e-12;
/// The least width of what has been seen; how far from it forecasts may go, and how large a step or a shock may be, as a part of it.
const SPAN_MIN: f64 = 0.1;
const BEYOND: f64 = 0.5;
const STEP_MAX: f64 = 2.0;
/// Rows beyond two for each coefficient, which a regression needs.
const ROWS_LEAST: usize = 10;

/// A fitted model of values or of their differences.
#[derive(Debug)]
pub(crate) struct Model {
    is_differenced: bool,
    mean: f64,
    values: Vec<f64>,
    shocks: Vec<f64>,
    pub(crate) criterion: f64,
}

// === impl Model ===

impl Model {
    pub(crate) fn fitted(logs: &[f64], is_differenced: bool) -> Option<Self> {
        let series = series(logs, is_differenced);
        let mean = if is_differenced {
            0.0
        } else {
            series.iter().sum::<f64>() / series.len() as f64
        };
        let centred: Vec<f64> = series.iter().map(|value| value - mean).collect();
        let order = LONG_ORDER_MOST.min(centred.len() / 10);
        let long = regression(&centred, &[], order, 0, order)?;
        let shocks: Vec<f64> = (0..centred.len())
            .map(|at| match at < order {
                true => 0.0,
                false => {
                    centred[at]
                        - (0..order)
                            .map(|lag| long.0[lag] * centred[at - lag - 1])
                            .sum::<f64>()
                }
            })
            .collect();
        let start = order + ROOM;
        let mut best: Option<Self> = None;
        for (p, q) in ORDERS.into_iter().chain([(order, 0)]) {
            let Some((coefficients, variance)) = regression(&centred, &shocks, p, q, start) else {
                continue;
            };
            let rows = (centred.len() - start) as f64;
            // Per row: the differenced series has one less, which must not decide.
            let parameters = p + q + usize::from(!is_differenced);
            let criterion = variance.max(VARIANCE_MIN).ln() + 2.0 * parameters as f64 / rows;
            if best.as_ref().is_none_or(|best| criterion < best.criterion) {
                best = Some(Self {
                    is_differenced,
                    mean,
                    values: coefficients[..p].to_vec(),
                    shocks: coefficients[p..].to_vec(),
                    criterion,
                });
            }
        }
        best
    }

    /// Adds what is expected from the ends of all steps from `from` on. It stays within what was seen, from `low` to `high`, and half of that on either side.
    pub(crate) fn expect(
        &self,
        logs: &[f64],
        from: usize,
        horizons: usize,
        (low, high): (f64, f64),
        out: &mut Vec<f64>,
    ) {
        let centred: Vec<f64> = series(logs, self.is_differenced)
            .iter()
            .map(|value| value - self.mean)
            .collect();
        let span = (high - low).max(SPAN_MIN);
        let limit = STEP_MAX * span;
        let mut shocks = vec![0.0; centred.len()];
        for at in 0..centred.len() {
            let expected = self.next(&centred[..at], &shocks[..at]);
            shocks[at] = (centred[at] - expected).clamp(-limit, limit);
        }
        let mut values = Vec::new();
        let mut later = Vec::new();
        for (origin, now) in logs.iter().enumerate().skip(from) {
            let end = if self.is_differenced {
                origin
            } else {
                origin + 1
            };
            let keep = self.values.len().max(self.shocks.len()).min(end);
            values.clear();
            values.extend_from_slice(&centred[end - keep..end]);
            later.clear();
            later.extend_from_slice(&shocks[end - keep..end]);
            let mut log = *now;
            for _ in 0..horizons {
                let next = self.next(&values, &later).clamp(-limit, limit);
                values.push(next);
                later.push(0.0);
                log = if self.is_differenced {
                    log + next
                } else {
                    self.mean + next
                };
                log = log.clamp(low - BEYOND * span, high + BEYOND * span);
                out.push(log);
            }
        }
    }

    fn next(&self, values: &[f64], shocks: &[f64]) -> f64 {
        let of = |coefficients: &[f64], before: &[f64]| -> f64 {
            coefficients
                .iter()
                .zip(before.iter().rev())
                .map(|(c, v)| c * v)
                .sum()
        };
        of(&self.values, values) + of(&self.shocks, shocks)
    }
}

fn series(logs: &[f64], is_differenced: bool) -> Vec<f64> {
    match is_differenced {
        true => logs.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        false => logs.to_vec(),
    }
}

/// Least squares of values from `start` on by `p` values and `q` shocks before: coefficients, and the variance of what is left.
fn regression(
    values: &[f64],
    shocks: &[f64],
    p: usize,
    q: usize,
    start: usize,
) -> Option<(Vec<f64>, f64)> {
    let rows = values
        .len()
        .checked_sub(start)
        .filter(|rows| *rows > 2 * (p + q) + ROWS_LEAST)?;
    let width = p + q;
    let mut matrix = vec![0.0; width * width];
    let mut right = vec![0.0; width];
    let mut row = vec![0.0; width];
    let fill = |row: &mut [f64], at: usize| {
        for lag in 0..p {
            row[lag] = values[at - lag - 1];
        }
        for lag in 0..q {
            row[p + lag] = shocks[at - lag - 1];
        }
    };
    for (at, value) in values.iter().enumerate().skip(start) {
        fill(&mut row, at);
        for i in 0..width {
            right[i] += row[i] * value;
            for j in 0..=i {
                matrix[i * width + j] += row[i] * row[j];
            }
        }
    }
    for i in 0..width {
        matrix[i * width + i] += PENALTY * matrix[i * width + i] + PENALTY_LEAST;
    }
    let coefficients = solve(matrix, right)?;
    let mut squares = 0.0;
    for (at, value) in values.iter().enumerate().skip(start) {
        fill(&mut row, at);
        let expected: f64 = row.iter().zip(&coefficients).map(|(x, c)| x * c).sum();
        squares += (value - expected) * (value - expected);
    }
    Some((coefficients, squares / rows as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(place: u64) -> f64 {
        let hashed = place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hashed = (hashed ^ (hashed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (hashed ^ (hashed >> 32)) as f64 / u64::MAX as f64 - 0.5
    }

    #[test]
    fn an_autoregression_is_found_again_and_reaches_its_mean() {
        let (mut last, mut before) = (0.0, 0.0);
        let logs: Vec<f64> = (0..3_000)
            .map(|step| {
                let value = 0.9 * last - 0.5 * before + noise(step);
                (last, before) = (value, last);
                7.0 + value
            })
            .collect();
        let model = Model::fitted(&logs, false).unwrap();
        let mut ahead = Vec::new();
        model.expect(&logs, logs.len() - 1, 30, (5.0, 9.0), &mut ahead);
        let truth = [0.9 * last - 0.5 * before, 0.31 * last - 0.45 * before];
        for (found, truth) in ahead.iter().zip(truth) {
            assert!(
                (found - 7.0 - truth).abs() < 0.1,
                "{found} instead of {truth}"
            );
        }
        assert!((ahead[29] - 7.0).abs() < 0.05, "{}", ahead[29]);
    }

    #[test]
    fn shocks_of_which_a_part_comes_back_once_are_told_from_values() {
        let logs: Vec<f64> = (0..3_000)
            .map(|step| noise(step + 1) + 0.8 * noise(step))
            .collect();
        let model = Model::fitted(&logs, false).unwrap();
        let mut ahead = Vec::new();
        model.expect(&logs, logs.len() - 1, 2, (-1.0, 1.0), &mut ahead);
        let truth = 0.8 * noise(3_000);
        assert!(
            (ahead[0] - truth).abs() < 0.1,
            "{} instead of {truth}",
            ahead[0]
        );
        assert!(ahead[1].abs() < 0.1, "{}", ahead[1]);
    }

    #[test]
    fn too_few_values_are_none() {
        assert!(Model::fitted(&[1.0; 8], false).is_none());
        assert!(Model::fitted(&[], true).is_none());
    }
}
