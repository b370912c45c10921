//! Forecasts without a network: simple methods with the empirical quantiles of their own recent errors.
//!
//! They need no training, cannot blow up, and beat most learned models one step ahead, so they are what runs without a
//! model and they stay in the race beside one. They follow the reference scorer of the data set to the letter (gaps
//! carried forward, complete error rows only, linear interpolation between order statistics), so that the trainer's
//! table can be compared with published numbers.

use crate::grid::QuantileGrid;

const EWMA_ALPHA: f64 = 0.3;
/// The level ratio of [`Method::SeasonalLevel`] stays inside this: a quiet season must not multiply without bound.
const RATIO_MIN: f64 = 0.2;
const RATIO_MAX: f64 = 5.0;
/// Keeps the ratio of two silent seasons at one.
const LEVEL_EPSILON: f64 = 1e-9;
/// With this few complete error rows or fewer there is no spread: the quantiles of ten errors say nothing.
const ERROR_ROWS_MIN: usize = 10;

/// A simple method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The newest value.
    Last,
    /// The exponentially weighted mean, alpha 0.3.
    Ewma,
    /// The value at the same phase of the last complete season.
    SeasonalNaive,
    /// Seasonal naive times the change of level since one season before, trusted less at longer horizons.
    SeasonalLevel,
}

/// Computes [`Method`]s over a series; keeps its buffers between calls.
#[derive(Clone, Debug)]
pub struct Fallback {
    season_steps: usize,
    horizons: Vec<Horizon>,
    quantiles: Vec<f32>,
    error_rows: usize,
    levels: Vec<f64>,
    levels_of: usize,
    errors: Vec<f64>,
    column: Vec<f64>,
}

/// Steps ahead, and what only depends on them.
#[derive(Clone, Copy, Debug)]
struct Horizon {
    steps: usize,
    /// Trust in the change of level: 1 at short horizons, one half at long ones. Its power function would otherwise be
    /// called for every remembered error.
    trust: f64,
}

// === impl Horizon ===

impl Horizon {
    fn new(steps: usize) -> Self {
        Self {
            steps,
            trust: 0.5 + 0.5 * 0.8_f64.powf(steps as f64 / 3.0),
        }
    }
}

// === impl Method ===

impl Method {
    /// All methods, in a fixed order.
    pub const ALL: [Self; 4] = [
        Self::Last,
        Self::Ewma,
        Self::SeasonalNaive,
        Self::SeasonalLevel,
    ];

    /// The name that tables and metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Ewma => "ewma0.3",
            Self::SeasonalNaive => "snaive",
            Self::SeasonalLevel => "sn*level",
        }
    }
}

// === impl Fallback ===

impl Fallback {
    /// Forecasts of `horizons` steps ahead, with quantiles of the errors over the last `error_rows` steps.
    #[must_use]
    pub fn new(
        season_steps: usize,
        horizons: &[u32],
        quantiles: &[f32],
        error_rows: usize,
    ) -> Self {
        Self {
            season_steps: season_steps.max(1),
            horizons: horizons
                .iter()
                .map(|h| Horizon::new(usize::try_from(*h).unwrap_or(usize::MAX)))
                .collect(),
            quantiles: quantiles.to_vec(),
            error_rows,
            levels: Vec::new(),
            levels_of: 0,
            errors: Vec::new(),
            column: Vec::new(),
        }
    }

    /// Steps of history after which every method gives what it would give with all of the history.
    #[must_use]
    pub fn history_steps(&self) -> usize {
        // The oldest error row compares with a forecast made one last horizon earlier, which looks two seasons back.
        let last = self.horizons.last().map_or(0, |h| h.steps);
        self.season_steps
            .saturating_mul(2)
            .saturating_add(self.error_rows)
            .saturating_add(last)
    }

    /// Takes a series (oldest first, gaps carried forward) for the calls of [`Fallback::forecast`] that follow.
    pub fn observe(&mut self, series: &[f32]) {
        self.levels.clear();
        self.levels_of = series.len();
        let mut level: Option<f64> = None;
        for y in series {
            let y = f64::from(*y);
            let next = level.map_or(y, |l| EWMA_ALPHA * y + (1.0 - EWMA_ALPHA) * l);
            self.levels.push(next);
            level = Some(next);
        }
    }

    /// Writes `method`'s forecast from the end of `series`, the one that was last observed. False, with `out`
    /// untouched, when the history is too short for the method.
    pub fn forecast(&mut self, method: Method, series: &[f32], out: &mut QuantileGrid) -> bool {
        let Some(origin) = series.len().checked_sub(1) else {
            return false;
        };
        if self.levels_of != series.len() {
            self.observe(series);
        }
        if self
            .horizons
            .iter()
            .any(|h| self.point(method, series, origin, h).is_none())
        {
            return false;
        }
        let rows = self.collect_errors(method, series, origin);
        for (h, horizon) in self.horizons.iter().enumerate() {
            let Some(point) = self.point(method, series, origin, horizon) else {
                return false;
            };
            self.column.clear();
            if rows > ERROR_ROWS_MIN {
                self.column.extend(
                    self.errors
                        .iter()
                        .skip(h)
                        .step_by(self.horizons.len().max(1)),
                );
                self.column.sort_unstable_by(f64::total_cmp);
            }
            for (place, q) in out.horizon_mut(h).iter_mut().zip(&self.quantiles) {
                let spread = if *q == 0.5 {
                    0.0
                } else {
                    quantile_of_sorted(&self.column, f64::from(*q))
                };
                *place = (point + spread) as f32;
            }
        }
        out.tidy();
        true
    }

    /// Gathers the complete error rows of the last `error_rows` steps, horizons inner; the number of rows.
    fn collect_errors(&mut self, method: Method, series: &[f32], origin: usize) -> usize {
        let mut errors = std::mem::take(&mut self.errors);
        errors.clear();
        let mut rows = 0_usize;
        let first = origin.saturating_add(1).saturating_sub(self.error_rows);
        for step in first..=origin {
            let actual = f64::from(series.get(step).copied().unwrap_or(0.0));
            let before = errors.len();
            for horizon in &self.horizons {
                let point = step
                    .checked_sub(horizon.steps)
                    .and_then(|made_at| self.point(method, series, made_at, horizon));
                let Some(point) = point else { break };
                errors.push(actual - point);
            }
            if errors.len() == before.saturating_add(self.horizons.len()) {
                rows = rows.saturating_add(1);
            } else {
                errors.truncate(before);
            }
        }
        self.errors = errors;
        rows
    }

    /// The point forecast for `origin + horizon`; `None` where the history does not reach back far enough.
    fn point(
        &self,
        method: Method,
        series: &[f32],
        origin: usize,
        horizon: &Horizon,
    ) -> Option<f64> {
        let value = |step: usize| series.get(step).map(|y| f64::from(*y));
        let seasonal = || {
            let seasons = horizon.steps.div_ceil(self.season_steps);
            value(
                origin
                    .saturating_add(horizon.steps)
                    .checked_sub(self.season_steps.saturating_mul(seasons))?,
            )
        };
        let point = match method {
            Method::Last => value(origin)?,
            Method::Ewma => *self.levels.get(origin)?,
            Method::SeasonalNaive => seasonal()?,
            Method::SeasonalLevel => {
                let before = self.levels.get(origin.checked_sub(self.season_steps)?)?;
                let now = self.levels.get(origin)?;
                let ratio =
                    ((now + LEVEL_EPSILON) / (before + LEVEL_EPSILON)).clamp(RATIO_MIN, RATIO_MAX);
                seasonal()? * (1.0 + horizon.trust * (ratio - 1.0))
            }
        };
        Some(point.max(0.0))
    }
}

/// The `q` quantile of ascending values, linear between order statistics; 0 without values.
fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let position = q * last as f64;
    let below = position.floor() as usize;
    let Some(low) = sorted.get(below) else {
        return 0.0;
    };
    let high = sorted.get(below.saturating_add(1)).unwrap_or(low);
    low + (high - low) * (position - position.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(
        method: Method,
        season: usize,
        horizons: &[u32],
        rows: usize,
        series: &[f32],
    ) -> Option<QuantileGrid> {
        let quantiles = [0.1, 0.5, 0.9, 0.99];
        let mut fallback = Fallback::new(season, horizons, &quantiles, rows);
        let mut out = QuantileGrid::zeros(horizons.len(), quantiles.len());
        fallback.observe(series);
        fallback.forecast(method, series, &mut out).then_some(out)
    }

    /// A series with a season of 6, a trend and some unevenness, the same in the reference run.
    fn series() -> Vec<f32> {
        (0..60)
            .map(|i| (10 + (i % 6) * 3 + i / 10 + (i * i) % 7) as f32)
            .collect()
    }

    #[test]
    fn quantiles_interpolate_linearly_between_order_statistics() {
        assert_eq!(quantile_of_sorted(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile_of_sorted(&[1.0], 0.9), 1.0);
        assert_eq!(quantile_of_sorted(&[], 0.9), 0.0);
    }

    #[test]
    fn too_few_errors_give_a_point_without_spread() {
        let grid = forecast(Method::Last, 6, &[1], 50, &[3.0, 5.0, 4.0]).unwrap();
        assert_eq!(grid.values(), &[4.0; 4]);
    }

    #[test]
    fn a_seasonal_method_needs_a_season_of_history() {
        assert!(forecast(Method::SeasonalNaive, 6, &[1, 2], 20, &[1.0; 5]).is_none());
        assert!(forecast(Method::SeasonalNaive, 6, &[1, 2], 20, &[1.0; 6]).is_some());
        assert!(forecast(Method::SeasonalLevel, 6, &[1, 2], 20, &[1.0; 6]).is_none());
        assert!(forecast(Method::Last, 6, &[1], 20, &[]).is_none());
    }

    #[test]
    fn an_exact_season_is_forecast_exactly() {
        let series: Vec<f32> = (0..60).map(|i| (i % 6) as f32).collect();
        let grid = forecast(Method::SeasonalNaive, 6, &[1, 2, 7], 24, &series).unwrap();
        assert_eq!(grid.horizon(0), &[0.0; 4]);
        assert_eq!(grid.horizon(1), &[1.0; 4]);
        assert_eq!(grid.horizon(2), &[0.0; 4]);
    }

    #[test]
    fn forecasts_agree_with_the_reference_scorer() {
        let reference: [(Method, [f32; 12]); 4] = [
            (
                Method::Last,
                [
                    18.3, 32.0, 38.0, 38.0, 19.0, 32.0, 41.7, 42.77, 21.0, 32.0, 43.7, 44.77,
                ],
            ),
            (
                Method::Ewma,
                [
                    17.4561, 27.4756, 34.9849, 35.9377, 18.0602, 27.4756, 36.2125, 37.3229,
                    19.7333, 27.4756, 36.8624, 38.3502,
                ],
            ),
            (
                Method::SeasonalNaive,
                [
                    17.0, 19.0, 22.0, 23.0, 17.0, 19.0, 22.0, 23.0, 19.0, 21.0, 24.0, 25.0,
                ],
            ),
            (
                Method::SeasonalLevel,
                [
                    16.0635, 19.1678, 22.4237, 23.4505, 16.0279, 19.1620, 21.7021, 22.7532,
                    18.4087, 21.1731, 23.2114, 24.7445,
                ],
            ),
        ];
        for (method, expected) in reference {
            let grid = forecast(method, 6, &[1, 2, 3], 24, &series()).unwrap();
            for (ours, theirs) in grid.values().iter().zip(expected) {
                assert!(
                    (ours - theirs).abs() < 2e-4,
                    "{}: {ours} instead of {theirs}",
                    method.name()
                );
            }
        }
    }
}
