//! Several families as one: weighed for each customer, step ahead and quantile by the losses of late, and calibrated by how often the mixture was right.
//!
//! No family wins everywhere: a timer is best left to the seasonal naive, a smooth service to its last value, a bursty customer to the boosted
//! family. Weights fall exponentially with a family's discounted loss, at a rate that the losses set themselves ([`Hedge`]), so they do not depend on the
//! customer's size. Where a customer has shown little yet, [`Priors`] say what was good for all.
//!
//! **What holds of the blend**, before calibration: one half of the weights at a quantile goes by that quantile's own loss, the other by all four together. The pinball
//! loss is convex, so the sum over quantiles of the blend's discounted losses is above any family's by no more than half of the bound in [`Hedge`] for all four
//! together and half of the bounds for each, whatever comes. Weights by one loss, half its own and half that of all four, were the worse alternative, without such a bound:
//! a family may be followed for its other quantiles.
//!
//! Calibration is adaptive conformal inference (Gibbs and Candès, NeurIPS 2021) on each quantile's distance from the median: after each outcome a
//! quantile moves out when it was missed and in when it was not, by steps whose balance is the level. A fixed split-conformal offset was the worse
//! alternative: coverage of the 0.9 quantile drifts to 80 % within weeks.
//!
//! Steps small enough to lose little leave a customer off its level for long. So the 0.9 quantile is pulled back as well, by how many standard deviations the
//! customer's own coverage is off since its beginning, which fades as outcomes become many: the proportional part beside the integral one, as in conformal PID control (Angelopoulos, Candès and
//! Tibshirani, NeurIPS 2023), which calls ours a quantile tracker. Tracking with steps three times as large did as much for coverage and cost twice the loss.

use crate::forecasts::{QUANTILES, tidy};
use crate::hedge::Hedge;
use crate::{Forecasts, Frame, History, Priors, pinball};
use std::collections::VecDeque;

const LEVELS: usize = QUANTILES.len();
const MEDIAN: usize = 1;
/// Losses that weights go by: of each quantile, and of all.
const JUDGES: usize = LEVELS + 1;

/// How quickly a mixture learns and forgets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureSettings {
    /// Part of a loss that is kept per step.
    pub discount: f64,
    /// Part of the weights at a quantile that goes by the losses of all of them; the rest goes by its own.
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
    /// `[horizon][judge]`: each quantile's own loss, then that of all of them.
    hedges: Vec<Hedge>,
    /// `[horizon]`: the weights, `[judge][family]`, of forecasts whose outcomes are still to come.
    given: Vec<VecDeque<Vec<f64>>>,
    /// `[horizon][level]`: distances that quantiles are moved by.
    offsets: Vec<f64>,
    /// Outcomes of each horizon.
    outcomes: Vec<f64>,
    /// How many of them lay above the pulled quantile, less those that should have.
    excess: Vec<f64>,
    /// Discounted mean demand.
    scale: f64,
}

/// Levels that calibration aims at when it hears of outcomes at once, and when it hears of them so many steps late: an offset that follows outcomes
/// lags behind them, which costs the outermost quantile most.
const AIMS: [f64; LEVELS] = [0.1, 0.5, 0.9, 0.992];
const LATE_AIMS: [f64; LEVELS] = [0.1, 0.5, 0.9, 0.998];
const LATE_STEPS: f64 = 12.0;
/// Standard deviation of whether the 0.9 quantile covers an outcome, which rates are in units of: outcomes beside the outermost quantile are rare, so each has
/// to say more, but no more than so many times.
const NINE_TENTHS_DEVIATION: f64 = 0.3;
const RARITY_MAX: f64 = 3.0;
const LATE_RARITY_MAX: f64 = 8.0;
/// The quantile whose coverage is promised to each customer: it moves faster than the others, by this factor.
const PULLED: usize = 2;
const PULLED_RATE: f64 = 5.0 / 3.0;
/// The outermost quantile's outcomes are rare, so that nobody can wait as long.
const OUTERMOST: usize = 3;
const OUTERMOST_PATIENCE: f64 = 0.5;
/// Distances, in units of the rate, by which it is pulled for each standard deviation that coverage is off, and the most of those. A few outcomes say
/// little: some are added to their number.
const PULL: f64 = 5.0;
const PULL_DEVIATIONS_MAX: f64 = 4.0;
const PULL_PATIENCE: f64 = 20.0;
/// Offsets stay within these: an outage must not wind them up.
const OFFSET_MIN: f64 = -2.0;
const OFFSET_MAX: f64 = 4.0;
/// Forecasts this close below an outcome, as a part of it, count as right: they are stored in single precision.
const SLACK: f64 = 2e-7;

/// How fast calibration may go so many steps ahead: as many forecasts are under way that have not heard of a miss yet, and each miss among them moves the quantile again.
fn pace(horizon: usize) -> f64 {
    (LATE_STEPS / horizon as f64).min(1.0)
}

// === impl MixtureSettings ===

impl Default for MixtureSettings {
    fn default() -> Self {
        Self {
            discount: 0.99,
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
        hedges: vec![Hedge::new(families.len(), settings.discount); frame.horizons * JUDGES],
        given: vec![VecDeque::new(); frame.horizons],
        offsets: vec![0.0; frame.horizons * LEVELS],
        outcomes: vec![0.0; frame.horizons],
        excess: vec![0.0; frame.horizons],
        scale: f64::NAN,
    };
    let mut mixed = Forecasts::none(&origins, frame.horizons);
    let first = *origins.start();
    for origin in origins {
        let actual = history.known()[origin];
        if !actual.is_nan() {
            learned.see(actual, settings);
        }
        for horizon in 1..=frame.horizons.min(origin - first) {
            let made_at = origin - horizon;
            if actual.is_nan() {
                learned.given[horizon - 1].pop_front();
            } else {
                learned.weigh(horizon, families, made_at, actual, priors);
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
    fn see(&mut self, actual: f64, settings: &MixtureSettings) {
        self.scale = match self.scale.is_nan() {
            true => actual,
            false => settings.discount * self.scale + (1.0 - settings.discount) * actual,
        };
    }

    /// Tells the weights of a step ahead what came of the forecasts that were made for it.
    fn weigh(
        &mut self,
        horizon: usize,
        families: &[Option<&Forecasts>],
        made_at: usize,
        actual: f64,
        priors: &Priors,
    ) {
        let Some(given) = self.given[horizon - 1].pop_front() else {
            return;
        };
        let count = families.len();
        let mut losses = vec![f64::NAN; JUDGES * count];
        for (family, forecasts) in families.iter().enumerate() {
            let Some(row) = forecasts.map(|forecasts| forecasts.of(made_at, horizon)) else {
                continue;
            };
            if row[0].is_nan() {
                continue;
            }
            let mut all = 0.0;
            for ((judge, level), forecast) in QUANTILES.iter().enumerate().zip(row) {
                let loss = pinball(*level, f64::from(*forecast), actual);
                losses[judge * count + family] = loss;
                all += loss;
            }
            losses[LEVELS * count + family] = all;
        }
        let prior = |family: usize| priors.of(horizon, family);
        let hedges = &mut self.hedges[(horizon - 1) * JUDGES..horizon * JUDGES];
        for (judge, hedge) in hedges.iter_mut().enumerate() {
            let of = judge * count..(judge + 1) * count;
            hedge.learn(prior, &given[of.clone()], &losses[of]);
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
        let lateness = (horizon as f64 / LATE_STEPS).min(1.0);
        let between = |early: f64, late: f64| early + (late - early) * lateness;
        let rarity_max = between(RARITY_MAX, LATE_RARITY_MAX);
        let offsets = &mut self.offsets[(horizon - 1) * LEVELS..horizon * LEVELS];
        for (level, (offset, forecast)) in offsets.iter_mut().zip(given).enumerate() {
            let aim = between(AIMS[level], LATE_AIMS[level]);
            let (faster, patience) = match level {
                PULLED => (PULLED_RATE, 1.0),
                OUTERMOST => (1.0, OUTERMOST_PATIENCE),
                _ => (1.0, 1.0),
            };
            let seen = *outcomes / (*outcomes + patience * settings.calibration_patience);
            let rate = settings.calibration_rate * faster * seen * pace(horizon);
            let is_covered = actual * (1.0 - SLACK) <= f64::from(*forecast);
            let toward = if is_covered { aim - 1.0 } else { aim };
            let rarity = (NINE_TENTHS_DEVIATION / (aim * (1.0 - aim)).sqrt()).min(rarity_max);
            *offset = (*offset + rate * rarity * toward).clamp(OFFSET_MIN, OFFSET_MAX);
            if level == PULLED {
                self.excess[horizon - 1] += toward;
            }
        }
    }

    /// What is added to an offset because coverage has been off.
    fn pull(&self, horizon: usize, settings: &MixtureSettings) -> f64 {
        let outcomes = self.outcomes[horizon - 1] + PULL_PATIENCE;
        let deviations = self.excess[horizon - 1] / (NINE_TENTHS_DEVIATION * outcomes.sqrt());
        let most = PULL_DEVIATIONS_MAX;
        PULL * settings.calibration_rate * pace(horizon) * deviations.clamp(-most, most)
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
        let count = rows.len();
        let mut given = vec![0.0; JUDGES * count];
        let prior = |family: usize| priors.of(horizon, family);
        let is_present = |family: usize| rows[family].is_some();
        let hedges = &self.hedges[(horizon - 1) * JUDGES..horizon * JUDGES];
        for (hedge, weights) in hedges.iter().zip(given.chunks_mut(count)) {
            hedge.weights(prior, is_present, weights);
        }
        if rows.iter().any(Option::is_some) {
            for (level, quantile) in quantiles.iter_mut().enumerate() {
                let own = &given[level * count..(level + 1) * count];
                let all = &given[LEVELS * count..];
                let weights = own
                    .iter()
                    .zip(all)
                    .map(|(own, all)| settings.shared * all + (1.0 - settings.shared) * own);
                let known = rows.iter().zip(weights);
                *quantile = known
                    .filter_map(|(row, weight)| Some(weight * f64::from((*row)?[level])))
                    .sum();
            }
        }
        self.given[horizon - 1].push_back(given);
        quantiles
    }

    fn shift(&self, horizon: usize, quantiles: &mut [f64], settings: &MixtureSettings) {
        let median = quantiles[MEDIAN];
        let floor = settings.distance_floor * self.scale.max(0.0);
        let offsets = &self.offsets[(horizon - 1) * LEVELS..horizon * LEVELS];
        for (level, (quantile, offset)) in quantiles.iter_mut().zip(offsets).enumerate() {
            // The median minimises the loss; it promises no coverage.
            if level != MEDIAN {
                let pull = match level {
                    PULLED => self.pull(horizon, settings),
                    _ => 0.0,
                };
                let offset = (offset + pull).clamp(OFFSET_MIN, OFFSET_MAX);
                *quantile += offset * ((*quantile - median).abs() + floor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;
    use crate::{Family, SIMPLE};
    use proptest::prelude::*;

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

    /// Customers with noise of their own, whose size changes: coverage of each is nearer to nine tenths than chance alone would leave it.
    #[test]
    fn each_customer_is_covered_nine_times_in_ten() {
        const CUSTOMERS: u64 = 40;
        const FIRST: usize = 30;
        let frame = Frame {
            horizons: 1,
            ..frame()
        };
        let settings = MixtureSettings::default();
        let (mut squares, mut chance) = (0.0, 0.0);
        for customer in 0..CUSTOMERS {
            let spell = 100 + 3 * customer as usize;
            let values = (0..900).map(|step| {
                let size = f64::from(1 << (step / spell % 4));
                100.0 + size * noise(customer, step)
            });
            let history = History::new(0, 60, values.collect());
            let last = history.len() - 1;
            let of = |family: &crate::SimpleFamily| family.forecast(&history, &frame, FIRST..=last);
            let forecasts: Vec<Forecasts> = SIMPLE.iter().filter_map(of).collect();
            let families: Vec<Option<&Forecasts>> = forecasts.iter().map(Some).collect();
            let mixed = mix(&history, &frame, &families, &Priors::equal(), &settings).unwrap();
            let is_covered = |origin: &usize| {
                history.known()[origin + 1] <= f64::from(mixed.of(*origin, 1)[PULLED])
            };
            let outcomes = (last - FIRST) as f64;
            let covered = (FIRST..last).filter(is_covered).count() as f64;
            squares += (covered / outcomes - 0.9).powi(2);
            chance += 0.9 * 0.1 / outcomes;
        }
        let spread = (squares / chance).sqrt();
        println!("deviations are {spread:.2} times those of chance");
        assert!(spread <= 0.25, "{spread}");
    }

    /// What each quantile of a row loses, and their sum.
    fn losses_of(row: &[f32], actual: f64) -> [f64; JUDGES] {
        let mut losses = [0.0; JUDGES];
        for (judge, (level, value)) in QUANTILES.iter().zip(row).enumerate() {
            losses[judge] = pinball(*level, f64::from(*value), actual);
            losses[LEVELS] += losses[judge];
        }
        losses
    }

    proptest! {
        /// Whatever families forecast and whatever comes.
        #[test]
        fn no_sequence_makes_the_blend_lose_more_than_the_bound(
            steps in prop::collection::vec(
                ((0.0..1.0_f64, -3.0..4.0_f64), prop::array::uniform3(prop::array::uniform4(-3.0..4.0_f64))),
                20..120,
            ),
        ) {
            let size = |power: f64| 10_f64.powf(power);
            let actuals = steps.iter().map(|((is_zero, power), _)| if *is_zero < 0.3 { 0.0 } else { size(*power) });
            let history = History::new(0, 60, actuals.collect());
            let frame = Frame { horizons: 1, ..frame() };
            let last = history.len() - 1;
            let of = |family: usize| {
                let mut forecasts = Forecasts::none(&(0..=last), 1);
                for (origin, (_, families)) in steps.iter().enumerate() {
                    let mut row = families[family].map(size);
                    tidy(&mut row);
                    for (cell, value) in forecasts.from_mut(origin).iter_mut().zip(row) {
                        *cell = value as f32;
                    }
                }
                forecasts
            };
            let forecasts = [of(0), of(1), of(2)];
            let families = forecasts.each_ref().map(Some);
            let settings = MixtureSettings { calibration_rate: 0.0, ..MixtureSettings::default() };
            let mixed = mix(&history, &frame, &families, &Priors::equal(), &settings).unwrap();
            let mut spreads = [0.0_f64; JUDGES];
            let mut excess = [0.0; 3];
            for origin in 0..last {
                let actual = history.known()[origin + 1];
                let of_families = forecasts.each_ref().map(|of| losses_of(of.of(origin, 1), actual));
                for (judge, spread) in spreads.iter_mut().enumerate() {
                    let losses = || of_families.iter().map(|losses| losses[judge]);
                    *spread = spread.max(losses().fold(0.0, f64::max) - losses().fold(f64::MAX, f64::min));
                }
                let blend = losses_of(mixed.of(origin, 1), actual)[LEVELS];
                // Two gaps, each at most so many spreads.
                let gaps = (1.0 + 3_f64.ln() / 4.0) / (1.0 - settings.discount * settings.discount);
                let bound = spreads.iter().sum::<f64>() * gaps.sqrt();
                for (excess, losses) in excess.iter_mut().zip(of_families) {
                    *excess = settings.discount * *excess + blend - losses[LEVELS];
                    prop_assert!(*excess <= bound * (1.0 + 1e-5) + 1e-6, "{} above {bound}", excess);
                }
            }
        }
    }

    /// Two families that never move, and demand that is always at the one which the median is further from.
    #[test]
    fn demand_that_shuns_the_forecast_gains_no_more_than_the_bound() {
        let frame = Frame {
            horizons: 1,
            ..frame()
        };
        let settings = MixtureSettings {
            calibration_rate: 0.0,
            shared: 0.0,
            ..MixtureSettings::default()
        };
        let gap = 0.5 * ((1.0 + 2_f64.ln() / 4.0) / (1.0 - settings.discount.powi(2))).sqrt();
        let mut values = vec![0.0];
        let mut excess = [0.0; 2];
        for _ in 0..200 {
            let history = History::new(0, 60, values.clone());
            let origins = 0..=history.len() - 1;
            let forecasts = [0.0_f32, 1.0].map(|value| {
                let mut forecasts = Forecasts::none(&origins, 1);
                origins
                    .clone()
                    .for_each(|origin| forecasts.from_mut(origin).fill(value));
                forecasts
            });
            let families = forecasts.each_ref().map(Some);
            let mixed = mix(&history, &frame, &families, &Priors::equal(), &settings).unwrap();
            let median = f64::from(mixed.from(history.len() - 1)[MEDIAN]);
            let actual = if median < 0.5 { 1.0 } else { 0.0 };
            for (excess, family) in excess.iter_mut().zip([0.0, 1.0]) {
                let more = pinball(0.5, median, actual) - pinball(0.5, family, actual);
                *excess = settings.discount * *excess + more;
                assert!(*excess <= 2.0 * gap, "{excess} above {}", 2.0 * gap);
            }
            values.push(actual);
        }
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
