//! The scores of the reference scorer (`score.py` beside the data): pooled over tenants, origins and steps, or the
//! median tenant.

use forebay_forecast::QuantileGrid;

use super::protocol::Scored;
use crate::recipe::{QUANTILES, Recipe};

/// Index of the median in [`QUANTILES`].
const MEDIAN: usize = 1;
/// An actual this close above a quantile still counts as covered, as in the reference.
const COVERAGE_SLACK: f64 = 1e-9;

/// Scores of one method for steps `1..=steps`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Score {
    /// Mean absolute error over that of the seasonal naive before the test span; mean over tenants.
    pub(crate) mase: f64,
    /// Sum of absolute errors / sum of actuals.
    pub(crate) wape: f64,
    /// Its median over tenants.
    pub(crate) wape_median: f64,
    /// Mean over quantiles of 2 x pinball loss / sum of actuals.
    pub(crate) wql: f64,
    /// Its median over tenants.
    pub(crate) wql_median: f64,
    /// Share of actuals at or below the 0.9 quantile.
    pub(crate) coverage_90: f64,
    /// Share of actuals at or below the 0.99 quantile.
    pub(crate) coverage_99: f64,
    /// Actuals that were scored.
    pub(crate) points: usize,
    /// Tenants that were scored.
    pub(crate) tenants: usize,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    error: f64,
    actual: f64,
    pinball: [f64; QUANTILES.len()],
    covered: [usize; QUANTILES.len()],
    points: usize,
}

/// Scores forecasts: one list per tenant, one grid per origin. `None` if nothing can be scored.
pub(crate) fn score(
    recipe: &Recipe,
    scored: &[Scored],
    forecasts: &[Vec<QuantileGrid>],
    steps: usize,
) -> Option<Score> {
    let mut all = Sums::default();
    let (mut mase, mut wape, mut wql) = (Vec::new(), Vec::new(), Vec::new());
    for (one, grids) in scored.iter().zip(forecasts) {
        let sums = tenant(one, grids, steps);
        if sums.points == 0 {
            continue;
        }
        all.add(&sums);
        if let Some(scale) = one.seasonal_error(recipe).filter(|scale| *scale > 0.0) {
            mase.push(sums.error / sums.points as f64 / scale);
        }
        if sums.actual > 0.0 {
            wape.push(sums.error / sums.actual);
            wql.push(sums.wql());
        }
    }
    (all.points > 0).then(|| Score {
        mase: mase.iter().sum::<f64>() / mase.len() as f64,
        wape: all.error / all.actual,
        wape_median: median(&mut wape),
        wql: all.wql(),
        wql_median: median(&mut wql),
        coverage_90: all.covered[2] as f64 / all.points as f64,
        coverage_99: all.covered[3] as f64 / all.points as f64,
        points: all.points,
        tenants: wape.len(),
    })
}

fn tenant(scored: &Scored, grids: &[QuantileGrid], steps: usize) -> Sums {
    let mut sums = Sums::default();
    for (origin, grid) in scored.origins.iter().zip(grids) {
        for step in 0..steps {
            let actual = scored.series.values[origin + 1 + step];
            let row = grid.horizon(step);
            if actual.is_nan() || row.len() < QUANTILES.len() || row.iter().any(|v| v.is_nan()) {
                continue;
            }
            sums.points += 1;
            sums.actual += actual;
            sums.error += (actual - f64::from(row[MEDIAN])).abs();
            for (i, (q, forecast)) in QUANTILES.iter().zip(row).enumerate() {
                let (q, miss) = (f64::from(*q), actual - f64::from(*forecast));
                sums.pinball[i] += (q * miss).max((q - 1.0) * miss);
                sums.covered[i] += usize::from(miss <= COVERAGE_SLACK);
            }
        }
    }
    sums
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, other: &Self) {
        self.error += other.error;
        self.actual += other.actual;
        self.points += other.points;
        for i in 0..QUANTILES.len() {
            self.pinball[i] += other.pinball[i];
            self.covered[i] += other.covered[i];
        }
    }

    fn wql(&self) -> f64 {
        let mean = self.pinball.iter().sum::<f64>() / QUANTILES.len() as f64;
        2.0 * mean / self.actual
    }
}
