//! The scores of the reference scorer (`score.py` beside the data): pooled over tenants, origins and steps, or the
//! median tenant.

use super::protocol::{Cut, Scored};
use crate::output::figure;
use crate::recipe::QUANTILES;

/// Indexes in [`QUANTILES`].
const MEDIAN: usize = 1;
const NINE_TENTHS: usize = 2;
const NINETY_NINE: usize = 3;
/// Points from which on a single tenant's coverage is judged.
const JUDGED_POINTS_MIN: usize = 200;
/// Standard deviations that hold 95 % of a normal distribution.
const TWO_SIDED_95: f64 = 1.96;
/// An actual this close above a quantile still counts as covered, as in the reference, or this close as a part of it: forecasts have single precision.
const COVERAGE_SLACK: f64 = 1e-9;
const COVERAGE_SLACK_PART: f64 = 2e-7;

/// Above the rows of a table for people.
pub(crate) const TABLE_HEAD: &str = "| method | MASE | WAPE | WAPE med. tenant | wQL | wQL med. tenant | cov q0.9 % | cov q0.99 % |\n|---|---|---|---|---|---|---|---|";

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
    /// Share of actuals at or below each quantile.
    pub(crate) coverage: [f64; QUANTILES.len()],
    /// Of the tenants with enough points, the share whose coverage of the 0.9 quantile lies in the 95 % binomial interval around 0.9.
    pub(crate) honest: Option<f64>,
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

/// Scores forecasts for steps `1..=steps`. `forecast(tenant, origin, step)` is the row of quantiles that was made at the tenant's origin of that number for the step
/// `step` (from 0) after it; `None`, and a row with a NaN, is no forecast. `None` if nothing can be scored.
pub(crate) fn score<'a>(
    cut: &Cut,
    scored: &[Scored],
    steps: usize,
    forecast: impl Fn(usize, usize, usize) -> Option<&'a [f32]>,
) -> Option<Score> {
    let mut all = Sums::default();
    let (mut mase, mut wape, mut wql) = (Vec::new(), Vec::new(), Vec::new());
    let (mut judged, mut honest) = (0, 0);
    for (tenant, one) in scored.iter().enumerate() {
        let sums = Sums::of(one, steps, |origin, step| forecast(tenant, origin, step));
        if sums.points == 0 {
            continue;
        }
        all.add(&sums);
        if let Some(scale) = one.seasonal_error(cut).filter(|scale| *scale > 0.0) {
            mase.push(sums.error / sums.points as f64 / scale);
        }
        if sums.actual > 0.0 {
            wape.push(sums.error / sums.actual);
            wql.push(sums.wql());
        }
        if sums.points >= JUDGED_POINTS_MIN {
            judged += 1;
            honest += usize::from(sums.is_honest());
        }
    }
    (all.points > 0).then(|| Score {
        mase: mase.iter().sum::<f64>() / mase.len() as f64,
        wape: all.error / all.actual,
        wape_median: median(&mut wape),
        wql: all.wql(),
        wql_median: median(&mut wql),
        coverage: all
            .covered
            .map(|covered| covered as f64 / all.points as f64),
        honest: (judged > 0).then(|| f64::from(honest as u32) / f64::from(judged)),
        points: all.points,
        tenants: wape.len(),
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

// === impl Score ===

impl Score {
    /// Share of actuals at or below the 0.9 quantile.
    pub(crate) fn coverage_90(&self) -> f64 {
        self.coverage[NINE_TENTHS]
    }

    /// Share of actuals at or below the 0.99 quantile.
    pub(crate) fn coverage_99(&self) -> f64 {
        self.coverage[NINETY_NINE]
    }

    /// Of a row below [`TABLE_HEAD`], all but the method.
    pub(crate) fn cells(&self) -> String {
        let cells = [
            (self.mase, 3),
            (self.wape, 3),
            (self.wape_median, 3),
            (self.wql, 3),
            (self.wql_median, 3),
            (100.0 * self.coverage_90(), 1),
            (100.0 * self.coverage_99(), 1),
        ];
        cells
            .map(|(value, digits)| figure(value, digits))
            .join(" | ")
    }
}

// === impl Sums ===

impl Sums {
    fn of<'a>(
        scored: &Scored,
        steps: usize,
        forecast: impl Fn(usize, usize) -> Option<&'a [f32]>,
    ) -> Self {
        let mut sums = Self::default();
        for (nth, origin) in scored.origins.iter().enumerate() {
            for step in 0..steps {
                let actual = scored.series.values[origin + 1 + step];
                let Some(row) = forecast(nth, step) else {
                    continue;
                };
                if actual.is_nan() || row.iter().any(|value| value.is_nan()) {
                    continue;
                }
                sums.points += 1;
                sums.actual += actual;
                sums.error += (actual - f64::from(row[MEDIAN])).abs();
                for (i, (q, forecast)) in QUANTILES.iter().zip(row).enumerate() {
                    let (q, miss) = (f64::from(*q), actual - f64::from(*forecast));
                    sums.pinball[i] += (q * miss).max((q - 1.0) * miss);
                    sums.covered[i] +=
                        usize::from(miss <= COVERAGE_SLACK.max(COVERAGE_SLACK_PART * actual));
                }
            }
        }
        sums
    }

    /// Whether the coverage of the 0.9 quantile could be by chance what it is, were all points independent.
    fn is_honest(&self) -> bool {
        let level = f64::from(QUANTILES[NINE_TENTHS]);
        let points = self.points as f64;
        let deviation = (level * (1.0 - level) / points).sqrt();
        let coverage = self.covered[NINE_TENTHS] as f64 / points;
        (coverage - level).abs() <= TWO_SIDED_95 * deviation
    }

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
