//! ARIMA for each customer alone, fitted anew each season to the logarithms of demand without its seasons.
//!
//! What a customer's own past says that a regression over all customers cannot: how quickly *its* shocks die away. A fit at each step would cost a thousand
//! times as much and could tell no more. Fits lie at whole seasons of the history, wherever forecasts begin, so a forecast is the same whoever asks.

use crate::errors::with_error_quantiles;
use crate::hannan_rissanen::Model;
use crate::profile::Profile;
use crate::{Family, Forecasts, Frame, History, Learner};
use std::ops::RangeInclusive;

const NAME: &str = "arima";
/// Seasons, and longer seasons, that the profile is of.
const SEASONS: usize = 14;
const LONG_SEASONS: usize = 4;
const STEPS_LEAST: usize = 400;
/// With fewer seasons nothing is fitted.
const SEASONS_LEAST: usize = 2;
/// The newest steps, which the model is fitted to.
const MODEL_STEPS_MOST: usize = 3_000;
/// Demand this small, as a part of its mean, is not told apart from zero.
const FLOOR: f64 = 0.02;
const NOTHING: f64 = 1e-9;
/// A forecast is no more than so many times the most that was seen in the window: fits to bursts explode now and then.
const CAP: f64 = 2.0;

/// The ARIMA family, which has nothing to learn from other customers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arima;

/// What is fitted to, and the steps after it that are forecast from.
struct Window {
    /// Number of the first step.
    first: usize,
    /// How many of the steps may be fitted to.
    fitted: usize,
    /// Logarithms of demand, less the profile.
    logs: Vec<f64>,
    profile: Profile,
    floor: f64,
    cap: f64,
}

// === impl Window ===

impl Window {
    /// To forecast from the ends of steps `fitted - 1..end`; `None` where the history is too short.
    fn new(history: &History, frame: &Frame, fitted: usize, end: usize) -> Option<Self> {
        if fitted < SEASONS_LEAST * frame.season {
            return None;
        }
        let long = LONG_SEASONS * frame.long_season.unwrap_or(0);
        let steps = (SEASONS * frame.season).max(long).max(STEPS_LEAST);
        let first = fitted.saturating_sub(steps);
        let known = &history.filled()[first..fitted];
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let most = known.iter().copied().fold(0.0, f64::max);
        let floor = FLOOR * mean + NOTHING;
        let values = &history.filled()[first..end];
        let mut logs: Vec<f64> = values.iter().map(|value| (value + floor).ln()).collect();
        let fitted = fitted - first;
        let profile = Profile::of(&logs[..fitted], first, frame.season, frame.long_season);
        for (log, step) in logs.iter_mut().zip(first..) {
            *log -= profile.at(step);
        }
        Some(Self {
            first,
            fitted,
            logs,
            profile,
            floor,
            cap: CAP * most,
        })
    }

    /// Adds the demand that is expected at all steps ahead from the ends of steps `origin..`, as numbered by the history; NaN if no model could be fitted.
    fn expect(&self, origin: usize, horizons: usize, out: &mut Vec<f64>) {
        let begin = self.fitted.saturating_sub(MODEL_STEPS_MOST);
        let known = &self.logs[begin..self.fitted];
        let models = [false, true].map(|is_differenced| Model::fitted(known, is_differenced));
        let by_criterion = |a: &&Model, b: &&Model| a.criterion.total_cmp(&b.criterion);
        let from = origin - self.first;
        let Some(model) = models.iter().flatten().min_by(by_criterion) else {
            out.resize(out.len() + (self.logs.len() - from) * horizons, f64::NAN);
            return;
        };
        let least = known.iter().copied().fold(f64::MAX, f64::min);
        let most = known.iter().copied().fold(f64::MIN, f64::max);
        let mut logs = Vec::new();
        let recent = &self.logs[begin..];
        model.expect(recent, from - begin, horizons, (least, most), &mut logs);
        let last = self.first + self.logs.len();
        let steps =
            (origin..last).flat_map(|origin| (1..=horizons).map(move |horizon| origin + horizon));
        let demand = |(step, log): (usize, &f64)| {
            ((log + self.profile.at(step)).exp() - self.floor).clamp(0.0, self.cap)
        };
        out.extend(steps.zip(&logs).map(demand));
    }
}

// === impl Arima ===

impl Arima {
    /// Points of all steps ahead from the ends of these steps; NaN where the history is too short.
    fn points(history: &History, frame: &Frame, origins: RangeInclusive<usize>) -> Vec<f64> {
        let (mut origin, last) = origins.into_inner();
        let mut points = Vec::with_capacity((last + 1 - origin) * frame.horizons);
        while origin <= last {
            let fitted = (origin + 1) / frame.season * frame.season;
            let end = last.min(fitted + frame.season - 2) + 1;
            match Window::new(history, frame, fitted, end) {
                None => points.resize(points.len() + (end - origin) * frame.horizons, f64::NAN),
                Some(window) => window.expect(origin, frame.horizons, &mut points),
            }
            origin = end;
        }
        points
    }
}

impl Family for Arima {
    fn name(&self) -> &'static str {
        NAME
    }

    fn forecast(
        &self,
        history: &History,
        frame: &Frame,
        origins: RangeInclusive<usize>,
    ) -> Option<Forecasts> {
        let first = (origins.start() + 1).saturating_sub(frame.error_rows + frame.horizons);
        let points = Self::points(history, frame, first..=*origins.end());
        let point = |origin: usize, horizon: usize| match origin.checked_sub(first) {
            Some(row) => points[row * frame.horizons + horizon - 1],
            None => f64::NAN,
        };
        Some(with_error_quantiles(history, frame, origins, point))
    }
}

impl Learner for Arima {
    fn name(&self) -> &'static str {
        NAME
    }

    fn learn(&self, _: &[History], _: &[usize], _: &Frame) -> Option<Box<dyn Family>> {
        Some(Box::new(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QUANTILES, SimpleFamily, pinball};

    const SEASON: usize = 24;

    fn frame() -> Frame {
        Frame {
            season: SEASON,
            long_season: None,
            horizons: 3,
            error_rows: 72,
        }
    }

    /// Evenly from -0.5 to 0.5, another number for each place.
    fn noise(place: u64) -> f64 {
        let hashed = place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hashed = (hashed ^ (hashed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (hashed ^ (hashed >> 32)) as f64 / u64::MAX as f64 - 0.5
    }

    /// Days whose logarithm swings by `swing`, and shocks of which 0.6 and -0.3 parts are left one and two steps later.
    fn days(swing: f64) -> History {
        let (mut last, mut before) = (0.0, 0.0);
        let values = (0..40 * SEASON as u64).map(|step| {
            let shock = 0.6 * last - 0.3 * before + noise(step);
            (last, before) = (shock, last);
            let day = (step % SEASON as u64) as f64 / SEASON as f64 * std::f64::consts::TAU;
            (3.0 + swing * day.sin() + shock).exp()
        });
        History::new(0, 3_600, values.collect())
    }

    /// One for each step ahead.
    fn losses(history: &History, family: &dyn Family) -> [f64; 3] {
        let last = history.len() - 4;
        let forecasts = family
            .forecast(history, &frame(), 20 * SEASON..=last)
            .unwrap();
        [1, 2, 3].map(|horizon| {
            let of = |origin: usize| -> f64 {
                let levels = QUANTILES.iter().zip(forecasts.of(origin, horizon));
                let actual = history.known()[origin + horizon];
                levels
                    .map(|(level, value)| pinball(*level, f64::from(*value), actual))
                    .sum()
            };
            (20 * SEASON..=last).map(of).sum()
        })
    }

    #[test]
    fn shocks_that_die_away_are_forecast_better_than_by_the_last_value_or_the_last_season() {
        for swing in [0.0, 0.8] {
            let history = days(swing);
            let found = losses(&history, &Arima);
            for simple in [SimpleFamily::Last, SimpleFamily::SeasonalNaive] {
                let of_simple = losses(&history, &simple);
                for (horizon, (found, simple)) in found.iter().zip(of_simple).enumerate() {
                    assert!(
                        *found < 0.9 * simple,
                        "{found} instead of {simple}, {} ahead, swing {swing}",
                        horizon + 1
                    );
                }
            }
        }
    }

    #[test]
    fn demand_that_doubles_each_step_and_then_stops_does_not_make_forecasts_explode() {
        let mut values: Vec<f64> = (0..10 * SEASON)
            .map(|step| 2.0_f64.powi((step % SEASON) as i32 + step as i32 / 24))
            .collect();
        values.extend([0.0; 3 * SEASON]);
        let most = values.iter().copied().fold(0.0, f64::max);
        let history = History::new(0, 3_600, values);
        let points = Arima::points(&history, &frame(), 2 * SEASON..=history.len() - 1);
        assert!(
            points
                .iter()
                .all(|point| (0.0..=CAP * most).contains(point))
        );
    }

    #[test]
    fn a_forecast_is_the_same_wherever_forecasts_begin() {
        let history = days(0.5);
        let all = Arima::points(&history, &frame(), 0..=history.len() - 1);
        for origin in [2 * SEASON - 1, 100, 300, 311, 312] {
            let one = Arima::points(&history, &frame(), origin..=origin);
            assert_eq!(one, all[origin * 3..(origin + 1) * 3], "from {origin}");
        }
        assert!(
            all[..(2 * SEASON - 1) * 3]
                .iter()
                .all(|point| point.is_nan())
        );
    }

    #[test]
    fn a_silent_customer_is_forecast_to_stay_silent() {
        let history = History::new(0, 3_600, vec![0.0; 10 * SEASON]);
        let points = Arima::points(&history, &frame(), 3 * SEASON..=history.len() - 1);
        assert!(points.iter().all(|point| point.abs() < 1e-9), "{points:?}");
    }
}
