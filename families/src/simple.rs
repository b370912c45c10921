//! Families that learn nothing: what was seen last, a season ago, or in the mean, each with the quantiles of its own recent errors.
//!
//! At short horizons the first two are hard to beat; a learned family that does not beat them is not worth its megabytes. They follow the reference
//! scorer of the data set to the letter, so that tables can be compared with published numbers.

use crate::errors::with_error_quantiles;
use crate::{Family, Forecasts, Frame, History};
use std::ops::RangeInclusive;

const EWMA_ALPHA: f64 = 0.3;
/// The change of level since one season before stays inside this: a quiet season must not multiply without bound.
const RATIO_MIN: f64 = 0.2;
const RATIO_MAX: f64 = 5.0;
/// Keeps the ratio of two silent seasons at one.
const LEVEL_EPSILON: f64 = 1e-9;
/// A longer season must have been seen this many times, by the whole history: a rule of the reference scorer that looks at how much is known, not at what.
const LONG_SEASONS_MIN: f64 = 2.2;

/// A family that learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimpleFamily {
    /// The newest value.
    Last,
    /// The exponentially weighted mean, alpha 0.3.
    Ewma,
    /// The value at the same phase of the last season.
    SeasonalNaive,
    /// The same, times the change of level since one season before, which is trusted less at longer horizons.
    SeasonalLevel,
    /// The value at the same phase of the last longer season.
    LongSeasonalNaive,
}

/// All of them.
pub const SIMPLE: [SimpleFamily; 5] = [
    SimpleFamily::Last,
    SimpleFamily::Ewma,
    SimpleFamily::SeasonalNaive,
    SimpleFamily::SeasonalLevel,
    SimpleFamily::LongSeasonalNaive,
];

// === impl SimpleFamily ===

impl Family for SimpleFamily {
    fn name(&self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Ewma => "ewma0.3",
            Self::SeasonalNaive => "snaive",
            Self::SeasonalLevel => "sn*level",
            Self::LongSeasonalNaive => "snaive-2",
        }
    }

    fn forecast(
        &self,
        history: &History,
        frame: &Frame,
        origins: RangeInclusive<usize>,
    ) -> Option<Forecasts> {
        let long = frame.long_season.unwrap_or(0);
        let is_long_enough = history.len() as f64 > LONG_SEASONS_MIN * long as f64;
        if *self == Self::LongSeasonalNaive && (long == 0 || !is_long_enough) {
            return None;
        }
        let levels = ewma(history.filled());
        let point =
            |origin: usize, horizon: usize| self.point(history, frame, &levels, origin, horizon);
        Some(with_error_quantiles(history, frame, origins, point))
    }
}

impl SimpleFamily {
    /// The forecast of step `origin + horizon`; NaN where the history does not reach back far enough.
    fn point(
        self,
        history: &History,
        frame: &Frame,
        levels: &[f64],
        origin: usize,
        horizon: usize,
    ) -> f64 {
        let usage = history.filled();
        match self {
            Self::Last => usage[origin],
            Self::Ewma => levels[origin],
            Self::SeasonalNaive => seasonal(usage, origin, horizon, frame.season),
            Self::LongSeasonalNaive => {
                let season = frame.long_season.unwrap_or(frame.season);
                seasonal(usage, origin, horizon, season)
            }
            Self::SeasonalLevel => {
                let Some(before) = origin.checked_sub(frame.season) else {
                    return f64::NAN;
                };
                let naive = seasonal(usage, origin, horizon, frame.season);
                naive * (1.0 + trust(horizon) * (level_ratio(levels, origin, before) - 1.0))
            }
        }
    }
}

/// Trust in a change of level: 1 at short horizons, one half at long ones.
pub(crate) fn trust(horizon: usize) -> f64 {
    0.5 + 0.5 * 0.8_f64.powf(horizon as f64 / 3.0)
}

/// How far the level has moved between two steps.
pub(crate) fn level_ratio(levels: &[f64], now: usize, before: usize) -> f64 {
    ((levels[now] + LEVEL_EPSILON) / (levels[before] + LEVEL_EPSILON)).clamp(RATIO_MIN, RATIO_MAX)
}

/// The exponentially weighted mean at each step.
pub(crate) fn ewma(usage: &[f64]) -> Vec<f64> {
    let mut level = usage.first().copied().unwrap_or(0.0);
    usage
        .iter()
        .map(|value| {
            level = EWMA_ALPHA * value + (1.0 - EWMA_ALPHA) * level;
            level
        })
        .collect()
}

/// The newest known value at the phase of step `origin + horizon`; NaN before the first season.
pub(crate) fn seasonal(usage: &[f64], origin: usize, horizon: usize, season: usize) -> f64 {
    let back = season * horizon.div_ceil(season);
    match (origin + horizon).checked_sub(back) {
        Some(step) => usage[step],
        None => f64::NAN,
    }
}
