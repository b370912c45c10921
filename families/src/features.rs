//! What a learned family sees of a history when it forecasts one step ahead.
//!
//! Everything is a logarithm of demand over a trailing mean, and told as a distance from the newest value: then one family serves customers of any
//! size, and says how far demand will move rather than where it will be, which wins at short horizons.

use crate::covariates::SeenCovariate;
use crate::simple::{ewma, level_ratio, seasonal, trust};
use crate::{Frame, History};

/// Demand this small, as a part of the trailing mean, is not told apart from zero.
const FLOOR: f64 = 0.02;
/// Keeps logarithms finite for customers that were never seen.
const NOTHING: f64 = 1e-9;
/// Least steps of the trailing mean.
const SCALE_STEPS_MIN: usize = 24;
const SCALE_MIN: f64 = 1e-6;

/// Steps back that are seen one by one.
const LAGS: [usize; 13] = [1, 2, 3, 4, 5, 6, 8, 11, 15, 23, 35, 47, 59];
/// Steps of trailing means.
const MEANS: [usize; 5] = [3, 6, 12, 24, 48];
/// Steps of trailing extremes and spreads.
const SHORT: usize = 6;
const LONG: usize = 24;
/// Steps over which silence is counted.
const SILENCE: [usize; 2] = [12, 60];
/// Seasons whose same phase is averaged.
const PROFILE_SEASONS: usize = 7;
/// Periods of timers, in steps.
const PERIODS: [usize; 4] = [5, 10, 15, 30];

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;
/// 1970 began on a Thursday; weeks begin on a Sunday here.
const FIRST_WEEKDAY: i64 = 4;

/// Sums over a history, so that a feature of a thousand steps costs as much as one of three.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    history: &'a History,
    frame: &'a Frame,
    levels: Vec<f64>,
    /// Mean demand of the steps up to each.
    scales: Vec<f64>,
    usage: Sums,
    silence: Sums,
    logs: Sums,
    squares: Sums,
    /// Empty where nobody asks for them.
    covariates: Vec<SeenCovariate<'a>>,
}

/// Running sums: `0[i]` is of the values before `i`.
#[derive(Debug)]
struct Sums(Vec<f64>);

// === impl Sums ===

impl Sums {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let sums = values.map(|value| {
            sum += value;
            sum
        });
        Self(std::iter::once(0.0).chain(sums).collect())
    }

    /// Mean of the `steps` values up to `at`, or of as many as there are.
    fn mean(&self, at: usize, steps: usize) -> f64 {
        let from = (at + 1).saturating_sub(steps);
        (self.0[at + 1] - self.0[from]) / (at + 1 - from) as f64
    }
}

// === impl Seen ===

impl<'a> Seen<'a> {
    pub(crate) fn new(history: &'a History, frame: &'a Frame) -> Self {
        let values = history.filled();
        let usage = Sums::of(values.iter().copied());
        let steps = frame.season.max(SCALE_STEPS_MIN);
        let scales: Vec<f64> = (0..values.len())
            .map(|at| usage.mean(at, steps).max(SCALE_MIN))
            .collect();
        let log = |(value, scale): (&f64, &f64)| (value + FLOOR * scale + NOTHING).ln();
        let logs: Vec<f64> = values.iter().zip(&scales).map(log).collect();
        Self {
            history,
            frame,
            levels: ewma(values),
            silence: Sums::of(
                values
                    .iter()
                    .map(|value| f64::from(u8::from(*value == 0.0))),
            ),
            squares: Sums::of(logs.iter().map(|log| log * log)),
            logs: Sums::of(logs.into_iter()),
            scales,
            usage,
            covariates: Vec::new(),
        }
    }

    /// With what else was measured among its features.
    pub(crate) fn with_covariates(self) -> Self {
        let covariates = self.history.covariates().iter();
        Self {
            covariates: covariates
                .map(|values| SeenCovariate::new(values, self.frame))
                .collect(),
            ..self
        }
    }

    /// Mean demand per step lately.
    pub(crate) fn scale(&self, origin: usize) -> f64 {
        self.scales[origin]
    }

    /// How far, in logarithms, demand has moved when it becomes `usage`; [`Seen::moved`] is the way back.
    pub(crate) fn distance(&self, origin: usize, usage: f64) -> f64 {
        let floor = self.floor(origin);
        ((usage + floor) / (self.history.filled()[origin] + floor)).ln()
    }

    /// Demand that has moved so far, in logarithms, from that of `origin`.
    pub(crate) fn moved(&self, origin: usize, distance: f64) -> f64 {
        let floor = self.floor(origin);
        ((self.history.filled()[origin] + floor) * distance.exp() - floor).max(0.0)
    }

    fn floor(&self, origin: usize) -> f64 {
        FLOOR * self.scales[origin] + NOTHING
    }

    /// Adds the features of the forecast of step `origin + horizon` to others; always as many, NaN where nothing is known.
    pub(crate) fn features(&self, origin: usize, horizon: usize, out: &mut Vec<f64>) {
        let usage = self.history.filled();
        let frame = self.frame;
        let floor = self.floor(origin);
        let log = |value: f64| ((value + floor) / (self.scales[origin] + floor)).ln();
        let now = log(usage[origin]);
        let at = |step: Option<usize>| match step {
            Some(step) if step <= origin => log(usage[step]),
            _ => f64::NAN,
        };

        out.extend([horizon as f64, now]);
        out.extend(LAGS.map(|lag| at(origin.checked_sub(lag)) - now));
        out.extend(MEANS.map(|steps| log(self.usage.mean(origin, steps)) - now));
        for steps in [SHORT, LONG] {
            let recent = &usage[(origin + 1).saturating_sub(steps)..=origin];
            let most = recent.iter().copied().fold(0.0, f64::max);
            let least = recent.iter().copied().fold(f64::MAX, f64::min);
            out.extend([log(most) - now, log(least) - now]);
        }
        out.extend([SHORT, LONG, frame.season].map(|steps| self.spread(origin, steps)));
        out.extend(SILENCE.map(|steps| self.silence.mean(origin, steps)));

        // The same phase one and more seasons ago, and how demand moved from the phase of the origin to it then.
        let then = |season: usize, more: usize| {
            let back = season * (horizon.div_ceil(season) + more);
            let step = (origin + horizon).checked_sub(back);
            let before = origin.checked_sub(back);
            (step, at(step), at(before))
        };
        let (step, last_season, before) = then(frame.season, 0);
        let beside = [
            step.and_then(|step| step.checked_sub(1)),
            step.map(|step| step + 1),
        ];
        let beside = beside.map(at).iter().sum::<f64>() / 2.0;
        out.extend([last_season - now, beside - now, last_season - before]);
        let (_, season_before, before) = then(frame.season, 1);
        out.extend([season_before - now, season_before - before]);
        out.push(self.profile(&at, origin, horizon) - now);
        let moved = origin
            .checked_sub(frame.season)
            .map_or(f64::NAN, |before| level_ratio(&self.levels, origin, before));
        let naive = seasonal(usage, origin, horizon, frame.season);
        let of_level = naive * (1.0 + trust(horizon) * (moved - 1.0));
        out.extend([moved.ln(), log(of_level) - now]);
        match frame.long_season {
            Some(season) => {
                let (_, then, before) = then(season, 0);
                out.extend([then - now, then - before]);
            }
            None => out.extend([f64::NAN; 2]),
        }
        let period = |steps: usize| (origin + horizon).checked_sub(steps * horizon.div_ceil(steps));
        out.extend(PERIODS.map(|steps| at(period(steps)) - now));

        let begins_s =
            self.history.start_s + (origin + horizon) as i64 * i64::from(self.history.step_s);
        out.push(begins_s.rem_euclid(DAY_S) as f64);
        out.push((begins_s.div_euclid(DAY_S) + FIRST_WEEKDAY).rem_euclid(7) as f64);
        out.push(begins_s.rem_euclid(HOUR_S) as f64);
        out.push(self.scales[origin].ln());
        for covariate in &self.covariates {
            covariate.features(origin, out);
        }
    }

    /// Standard deviation of the logarithm of demand.
    fn spread(&self, origin: usize, steps: usize) -> f64 {
        let mean = self.logs.mean(origin, steps);
        (self.squares.mean(origin, steps) - mean * mean)
            .max(0.0)
            .sqrt()
    }

    /// Mean over the last seasons of the phase that is forecast.
    fn profile(&self, at: &impl Fn(Option<usize>) -> f64, origin: usize, horizon: usize) -> f64 {
        let season = self.frame.season;
        let first = horizon.div_ceil(season);
        let seasons = first..first + PROFILE_SEASONS;
        let seen = seasons
            .map(|seasons| at((origin + horizon).checked_sub(season * seasons)))
            .filter(|value| !value.is_nan());
        let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        match count > 0.0 {
            true => sum / count,
            false => f64::NAN,
        }
    }
}
