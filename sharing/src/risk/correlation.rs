//! Who rises with whom, and how many steps later: cross-correlations of normal scores, each with how likely chance alone makes it.
//!
//! Demand of one moment resembles that of the next, and two slow series that have nothing in common go up together for hours. The usual
//! test takes each step for a new proof and finds links everywhere; here the steps are counted as what they are worth (Bartlett 1946; Pyper and
//! Peterman 1998): `n / (1 + 2 sum r_x(k) r_y(k))`.

use crate::risk::matrix::Matrix;
use crate::risk::normal::two_sided_p;
use crate::risk::residuals::Residuals;

/// Autocorrelation is followed up to this part of the series at most.
const LONGEST_MEMORY_SHARE: usize = 5;

/// Fewer independent steps prove nothing.
const FEWEST: f64 = 10.0;

/// Cross-correlations of one ordered pair.
#[derive(Clone, Debug)]
pub struct Lagged {
    /// Whose steps come first.
    pub from: usize,
    /// Whose steps come as many steps later as the position says.
    pub to: usize,
    /// By lag in steps, from 0 on.
    pub correlations: Vec<f64>,
    /// For each of them, the probability of one at least as far from 0 between series that have nothing in common.
    pub p_values: Vec<f64>,
}

/// Cross-correlations of ordered pairs.
#[derive(Clone, Debug)]
pub struct Correlations {
    /// How many customers there are.
    pub customers: usize,
    /// All pairs that were asked for.
    pub pairs: Vec<Lagged>,
}

/// Correlates the given ordered pairs, at all lags up to `most_lag_steps`.
#[must_use]
pub fn correlate(
    residuals: &Residuals,
    pairs: &[(usize, usize)],
    most_lag_steps: usize,
) -> Correlations {
    let most_lag_steps = most_lag_steps.min(residuals.steps());
    let mut is_asked = vec![false; residuals.customers()];
    for (from, to) in pairs {
        for customer in [from, to] {
            if let Some(is_asked) = is_asked.get_mut(*customer) {
                *is_asked = true;
            }
        }
    }
    let memories: Vec<Vec<f64>> = is_asked
        .iter()
        .enumerate()
        .map(|(customer, is_asked)| {
            if *is_asked {
                memory(residuals, customer)
            } else {
                Vec::new()
            }
        })
        .collect();
    let is_whole: Vec<bool> = residuals
        .values
        .iter()
        .map(|values| values.iter().all(|value| !value.is_nan()))
        .collect();
    let pairs = pairs
        .iter()
        .filter(|(from, to)| from.max(to) < &memories.len())
        .map(|(from, to)| {
            let (from, to) = (*from, *to);
            let inflation = inflation(&memories[from], &memories[to]);
            let mut correlations = Vec::with_capacity(most_lag_steps + 1);
            let mut p_values = Vec::with_capacity(most_lag_steps + 1);
            for lag in 0..=most_lag_steps {
                let (correlation, count) = if is_whole[from] && is_whole[to] {
                    whole(&residuals.scores[from], &residuals.scores[to], lag)
                } else {
                    with_gaps(residuals, from, to, lag)
                };
                let count = count / inflation;
                correlations.push(correlation);
                p_values.push(if count < FEWEST {
                    1.0
                } else {
                    two_sided_p(
                        correlation.clamp(-0.999_999, 0.999_999).atanh() * (count - 3.0).sqrt(),
                    )
                });
            }
            Lagged {
                from,
                to,
                correlations,
                p_values,
            }
        })
        .collect();
    Correlations {
        customers: residuals.customers(),
        pairs,
    }
}

// === impl Correlations ===

impl Correlations {
    /// The matrix of one lag: row first, column as many steps later.
    #[must_use]
    pub fn matrix(&self, lag_steps: usize) -> Matrix {
        let mut matrix = Matrix::identity(self.customers);
        for pair in &self.pairs {
            if let Some(correlation) = pair.correlations.get(lag_steps) {
                *matrix.at_mut(pair.from, pair.to) = *correlation;
            }
        }
        matrix
    }
}

/// How many steps are worth one, for a pair.
pub(crate) fn inflation(left: &[f64], right: &[f64]) -> f64 {
    let common: f64 = left.iter().zip(right).map(|(l, r)| l * r).sum();
    (1.0 + 2.0 * common).max(1.0)
}

/// Autocorrelations from lag 1 on, up to where they are lost in chance.
pub(crate) fn memory(residuals: &Residuals, customer: usize) -> Vec<f64> {
    let steps = residuals.steps();
    let chance = 2.0 / (steps.max(1) as f64).sqrt();
    let mut memory = Vec::new();
    for lag in 1..=steps / LONGEST_MEMORY_SHARE {
        let (correlation, _) = with_gaps(residuals, customer, customer, lag);
        if correlation < chance {
            break;
        }
        memory.push(correlation);
    }
    memory
}

/// Correlation of two series without gaps, and the number of steps: scores have the mean 0 and nearly the variance 1.
fn whole(left: &[f32], right: &[f32], lag: usize) -> (f64, f64) {
    if lag >= left.len() {
        return (0.0, 0.0);
    }
    let right = &right[lag..];
    let left = &left[..right.len()];
    let (mut product, mut of_left, mut of_right) = ([0.0_f32; 8], [0.0_f32; 8], [0.0_f32; 8]);
    for (l, r) in left.chunks(8).zip(right.chunks(8)) {
        for (at, (l, r)) in l.iter().zip(r).enumerate() {
            product[at] += l * r;
            of_left[at] += l * l;
            of_right[at] += r * r;
        }
    }
    let sum = |parts: [f32; 8]| parts.iter().map(|part| f64::from(*part)).sum::<f64>();
    let variance = sum(of_left) * sum(of_right);
    let correlation = if variance > 0.0 {
        sum(product) / variance.sqrt()
    } else {
        0.0
    };
    (correlation, left.len() as f64)
}

/// The same over the steps at which both are known.
fn with_gaps(residuals: &Residuals, from: usize, to: usize, lag: usize) -> (f64, f64) {
    let later = |row: &'_ Vec<f32>| row.len().min(lag);
    let (known_from, known_to) = (&residuals.values[from], &residuals.values[to]);
    let (left, right) = (&residuals.scores[from], &residuals.scores[to]);
    let known = known_from.iter().zip(&known_to[later(known_to)..]);
    let scores = left.iter().zip(&right[later(right)..]);
    let mut count = 0.0;
    let mut sums = [0.0_f64; 5];
    for ((l, r), _) in scores
        .zip(known)
        .filter(|(_, (l, r))| !l.is_nan() && !r.is_nan())
    {
        let (l, r) = (f64::from(*l), f64::from(*r));
        count += 1.0;
        for (sum, value) in sums.iter_mut().zip([l, r, l * l, r * r, l * r]) {
            *sum += value;
        }
    }
    if count < FEWEST {
        return (0.0, count);
    }
    let [l, r, ll, rr, lr] = sums.map(|sum| sum / count);
    let variance = (ll - l * l) * (rr - r * r);
    let correlation = if variance > 0.0 {
        (lr - l * r) / variance.sqrt()
    } else {
        0.0
    };
    (correlation, count)
}
