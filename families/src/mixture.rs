//! Several families as one: weighed for each customer, step ahead and quantile by the losses of late, and calibrated by how often the mixture was right.
//!
//! No family wins everywhere: a timer is best left to the seasonal naive, a smooth service to its last value, a bursty customer to the boosted
//! family. Weights fall exponentially with a family's discounted loss above the best one's, as a part of that, so they do not depend on the
//! customer's size. Where a customer has shown little yet, [`Priors`] say what was good for all.
//!
//! Calibration is adaptive conformal inference (Gibbs and Candès, NeurIPS 2021) on each quantile's distance from the median: after each outcome a
//! quantile moves out when it was missed and in when it was not, by steps whose balance is the level. A fixed split-conformal offset was the worse
//! alternative: coverage of the 0.9 quantile drifts to 80 % within weeks.

use crate::forecasts::{QUANTILES, tidy};
use crate::{Forecasts, Frame, History, Priors, pinball};

const LEVELS: usize = QUANTILES.len();
const MEDIAN: usize = 1;

/// How quickly a mixture learns and forgets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureSettings {
    /// Part of a loss that is kept per step.
    pub discount: f64,
    /// A loss of 10 % above the best divides the weight by `exp(sharpness / 10)`.
    pub sharpness: f64,
    /// Part that all quantiles' losses have in the weights at one quantile; its own has the rest.
    pub shared: f64,
    /// Distances that a miss of a sure quantile moves it, once much has been seen.
    pub calibration_rate: f64,
    /// Outcomes after which half of that rate is reached: who has shown little is left as all others are.
    pub calibration_patience: f64,
    /// Least distance from the median, as a part of mean demand: exact forecasts are calibrated as well.
    pub distance_floor: f64,
}

/// What one customer has taught.
struct Learned {
    families: usize,
    /// `[horizon][family][level]`: discounted losses; NaN before the first.
    losses: Vec<f64>,
    /// `[horizon][level]`: distances that quantiles are moved by.
    offsets: Vec<f64>,
    /// Outcomes of each horizon.
    outcomes: Vec<f64>,
    /// Discounted mean demand.
    scale: f64,
}

/// Levels that calibration aims at when it hears of outcomes at once, and when it hears of them so many steps late: an offset that follows outcomes
/// lags behind them, which costs the outermost quantile most.
const AIMS: [f64; LEVELS] = [0.1, 0.5, 0.903, 0.992];
const LATE_AIMS: [f64; LEVELS] = [0.1, 0.5, 0.903, 0.998];
const LATE_STEPS: f64 = 12.0;
/// Standard deviation of whether the 0.9 quantile covers an outcome, which rates are in units of: outcomes beside the outermost quantile are rare, so each has
/// to say more, but no more than so many times.
const NINE_TENTHS_DEVIATION: f64 = 0.3;
const RARITY_MAX: f64 = 3.0;
const LATE_RARITY_MAX: f64 = 8.0;
/// Offsets stay within these: an outage must not wind them up.
const OFFSET_MIN: f64 = -2.0;
const OFFSET_MAX: f64 = 4.0;
/// Forecasts this close below an outcome, as a part of it, count as right: they are stored in single precision.
const SLACK: f64 = 2e-7;

// === impl MixtureSettings ===

impl Default for MixtureSettings {
    fn default() -> Self {
        Self {
            discount: 0.99,
            sharpness: 6.0,
            shared: 0.5,
            calibration_rate: 0.06,
            calibration_patience: 200.0,
            distance_floor: 0.01,
        }
    }
}

/// The mixture of families' forecasts of one customer; `None` is a family without any. It learns from the first origin on, and each forecast only
/// from what was known by then.
#[must_use]
pub fn mix(
    history: &History,
    frame: &Frame,
    families: &[Option<&Forecasts>],
    priors: &Priors,
    settings: &MixtureSettings,
) -> Option<Forecasts> {
    let origins = families.iter().flatten().next()?.origins();
    let mut learned = Learned {
        families: families.len(),
        losses: vec![f64::NAN; frame.horizons * families.len() * LEVELS],
        offsets: vec![0.0; frame.horizons * LEVELS],
        outcomes: vec![0.0; frame.horizons],
        scale: f64::NAN,
    };
    let mut mixed = Forecasts::none(&origins, frame.horizons);
    let first = *origins.start();
    for origin in origins {
        let actual = history.known()[origin];
        if !actual.is_nan() {
            learned.see(actual, settings);
            for horizon in 1..=frame.horizons.min(origin - first) {
                let made_at = origin - horizon;
                learned.weigh(horizon, families, made_at, actual, settings);
                learned.calibrate(horizon, mixed.of(made_at, horizon), actual, settings);
            }
        }
        let row = mixed.from_mut(origin).chunks_mut(LEVELS);
        for (cells, horizon) in row.zip(1..) {
            let mut quantiles = learned.blend(horizon, families, origin, priors, settings);
            learned.shift(horizon, &mut quantiles, settings);
            tidy(&mut quantiles);
            for (cell, value) in cells.iter_mut().zip(quantiles) {
                *cell = value as f32;
            }
        }
    }
    Some(mixed)
}

// === impl Learned ===

impl Learned {
    fn loss(&mut self, horizon: usize, family: usize) -> &mut [f64] {
        let at = ((horizon - 1) * self.families + family) * LEVELS;
        &mut self.losses[at..at + LEVELS]
    }

    fn see(&mut self, actual: f64, settings: &MixtureSettings) {
        self.scale = match self.scale.is_nan() {
            true => actual,
            false => settings.discount * self.scale + (1.0 - settings.discount) * actual,
        };
    }

    fn weigh(
        &mut self,
        horizon: usize,
        families: &[Option<&Forecasts>],
        made_at: usize,
        actual: f64,
        settings: &MixtureSettings,
    ) {
        for (family, forecasts) in families.iter().enumerate() {
            let Some(row) = forecasts.map(|forecasts| forecasts.of(made_at, horizon)) else {
                continue;
            };
            if row[0].is_nan() {
                continue;
            }
            let losses = self.loss(horizon, family);
            for ((kept, level), forecast) in losses.iter_mut().zip(QUANTILES).zip(row) {
                let loss = pinball(level, f64::from(*forecast), actual);
                *kept = match kept.is_nan() {
                    true => loss,
                    false => settings.discount * *kept + (1.0 - settings.discount) * loss,
                };
            }
        }
    }

    fn calibrate(
        &mut self,
        horizon: usize,
        given: &[f32],
        actual: f64,
        settings: &MixtureSettings,
    ) {
        if given[0].is_nan() {
            return;
        }
        let outcomes = &mut self.outcomes[horizon - 1];
        *outcomes += 1.0;
        let seen = *outcomes / (*outcomes + settings.calibration_patience);
        let rate = settings.calibration_rate * seen;
        let offsets = &mut self.offsets[(horizon - 1) * LEVELS..horizon * LEVELS];
        let lateness = (horizon as f64 / LATE_STEPS).min(1.0);
        let between = |early: f64, late: f64| early + (late - early) * lateness;
        let rarity_max = between(RARITY_MAX, LATE_RARITY_MAX);
        let aims = AIMS.iter().zip(LATE_AIMS);
        for ((offset, (early, late)), forecast) in offsets.iter_mut().zip(aims).zip(given) {
            let aim = between(*early, late);
            let is_covered = actual * (1.0 - SLACK) <= f64::from(*forecast);
            let toward = if is_covered { aim - 1.0 } else { aim };
            let rarity = (NINE_TENTHS_DEVIATION / (aim * (1.0 - aim)).sqrt()).min(rarity_max);
            *offset = (*offset + rate * rarity * toward).clamp(OFFSET_MIN, OFFSET_MAX);
        }
    }

    /// Weighted quantiles, not calibrated yet.
    fn blend(
        &mut self,
        horizon: usize,
        families: &[Option<&Forecasts>],
        origin: usize,
        priors: &Priors,
        settings: &MixtureSettings,
    ) -> [f64; LEVELS] {
        let rows: Vec<Option<&[f32]>> = families
            .iter()
            .map(|forecasts| {
                let row = forecasts.map(|forecasts| forecasts.of(origin, horizon));
                row.filter(|row| !row[0].is_nan())
            })
            .collect();
        let mut quantiles = [f64::NAN; LEVELS];
        for (level, quantile) in quantiles.iter_mut().enumerate() {
            let losses: Vec<f64> = (0..rows.len())
                .map(|family| {
                    let losses = self.loss(horizon, family);
                    let all = losses.iter().sum::<f64>() / LEVELS as f64;
                    settings.shared * all + (1.0 - settings.shared) * losses[level]
                })
                .collect();
            let present = rows.iter().zip(&losses).filter(|(row, _)| row.is_some());
            let best = present.map(|(_, loss)| *loss).fold(f64::NAN, f64::min);
            let (mut sum, mut weights) = (0.0, 0.0);
            for (family, (row, loss)) in rows.iter().zip(&losses).enumerate() {
                let Some(row) = row else { continue };
                // Who has not been scored counts as good as the best.
                let excess = match loss.is_nan() || best.is_nan() {
                    true => 0.0,
                    false => (loss - best) / best.max(f64::MIN_POSITIVE),
                };
                let weight = priors.of(horizon, family) * (-settings.sharpness * excess).exp();
                sum += weight * f64::from(row[level]);
                weights += weight;
            }
            *quantile = sum / weights;
        }
        quantiles
    }

    fn shift(&self, horizon: usize, quantiles: &mut [f64], settings: &MixtureSettings) {
        let median = quantiles[MEDIAN];
        let floor = settings.distance_floor * self.scale.max(0.0);
        let offsets = &self.offsets[(horizon - 1) * LEVELS..horizon * LEVELS];
        for (level, (quantile, offset)) in quantiles.iter_mut().zip(offsets).enumerate() {
            // The median minimises the loss; it promises no coverage.
            if level != MEDIAN {
                *quantile += offset * ((*quantile - median).abs() + floor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, SIMPLE};

    fn frame() -> Frame {
        Frame {
            season: 10,
            long_season: None,
            horizons: 3,
            error_rows: 50,
        }
    }

    fn mixed(history: &History, settings: &MixtureSettings) -> (Vec<Forecasts>, Forecasts) {
        let frame = frame();
        let last = history.len() - 1;
        let forecasts: Vec<Forecasts> = SIMPLE
            .iter()
            .filter_map(|family| family.forecast(history, &frame, 30..=last))
            .collect();
        let families: Vec<Option<&Forecasts>> = forecasts.iter().map(Some).collect();
        let mixed = mix(history, &frame, &families, &Priors::equal(), settings).unwrap();
        (forecasts, mixed)
    }

    fn loss(history: &History, forecasts: &Forecasts, from: usize) -> f64 {
        let mut sum = 0.0;
        for origin in from..history.len() - 3 {
            for horizon in 1..=3 {
                let actual = history.known()[origin + horizon];
                let row = forecasts.of(origin, horizon);
                sum += QUANTILES
                    .iter()
                    .zip(row)
                    .map(|(level, value)| pinball(*level, f64::from(*value), actual))
                    .sum::<f64>();
            }
        }
        sum
    }

    #[test]
    fn a_timer_is_left_to_the_family_that_knows_its_period() {
        let values = (0..600).map(|i| if i % 10 == 3 { 50.0 } else { 1.0 });
        let history = History::new(0, 60, values.collect());
        let (families, mixed) = mixed(&history, &MixtureSettings::default());
        let last_value = loss(&history, &families[0], 400);
        assert!(loss(&history, &mixed, 400) < 0.02 * last_value);
    }

    #[test]
    fn the_nine_tenths_quantile_covers_nine_tenths_although_all_families_are_too_sure() {
        // Noise whose size doubles every 60 steps and falls back: trailing errors come too late.
        let noise =
            |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1 << 24) as f64;
        let values = (0..6_000_u64).map(|i| 100.0 + noise(i) * f64::from(1 << (i / 60 % 4)));
        let history = History::new(0, 60, values.collect());
        let (_, mixed) = mixed(&history, &MixtureSettings::default());
        let covered = (1_000..5_990)
            .filter(|origin| history.known()[origin + 1] <= f64::from(mixed.of(*origin, 1)[2]))
            .count();
        assert!((4_440..=4_540).contains(&covered), "{covered} of 4990");
    }

    #[test]
    fn a_gap_teaches_nothing_and_stops_nothing() {
        let mut values: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        values[100..140].fill(f64::NAN);
        let history = History::new(0, 60, values);
        let (_, mixed) = mixed(&history, &MixtureSettings::default());
        let is_whole = |row: &[f32]| row.iter().all(|value| value.is_finite());
        assert!((30..200).all(|origin| is_whole(mixed.from(origin))));
    }
}
