//! The boosted family: one booster for each quantile, over all customers and steps ahead.

use crate::boosting::{Binner, Booster, BoostingSettings};
use crate::covariates::Eyes;
use crate::features::Seen;
use crate::forecasts::{QUANTILES, tidy};
use crate::parallel::in_parallel;
use crate::{Family, Forecasts, Frame, History, Learner};
use std::ops::RangeInclusive;

/// Names in tables.
const NAME: &str = "boosted";
const NAME_WITH_COVARIATES: &str = "boosted+cov";
/// Rows that are learned from; more cost time and gain little.
const ROWS_MOST: usize = 40_000;
/// With fewer there is nothing to learn.
const ROWS_LEAST: usize = 200;
/// How strongly large customers count: 0 = every customer the same, 1 = every token the same.
const SIZE_EXPONENT: f64 = 0.5;
/// Bounds of a row's weight.
const WEIGHT_MIN: f64 = 1e-3;
const WEIGHT_MAX: f64 = 1e3;
/// Demand moves by no more than this, in logarithms.
const DISTANCE_MAX: f64 = 8.0;

const SETTINGS: BoostingSettings = BoostingSettings {
    trees: 150,
    rate: 0.06,
    leaves: 24,
    leaf_rows: 60.0,
    feature_part: 0.7,
    row_part: 0.7,
};

/// Learns the boosted family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boosting;

/// Learns the boosted family that sees covariates as well; nothing where there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoostingWithCovariates;

#[derive(Debug)]
struct Boosted {
    eyes: Eyes,
    binner: Binner,
    /// One for each of [`QUANTILES`].
    boosters: Vec<Booster>,
}

/// Rows of features, what came, and how much each counts.
#[derive(Default)]
struct Lesson {
    rows: Vec<f64>,
    features: usize,
    targets: Vec<f64>,
    weights: Vec<f64>,
}

// === impl Boosting ===

impl Learner for Boosting {
    fn name(&self) -> &'static str {
        NAME
    }

    fn learn(
        &self,
        histories: &[History],
        ends: &[usize],
        frame: &Frame,
    ) -> Option<Box<dyn Family>> {
        learn(Eyes::OfDemand, histories, ends, frame)
    }
}

// === impl BoostingWithCovariates ===

impl Learner for BoostingWithCovariates {
    fn name(&self) -> &'static str {
        NAME_WITH_COVARIATES
    }

    fn learn(
        &self,
        histories: &[History],
        ends: &[usize],
        frame: &Frame,
    ) -> Option<Box<dyn Family>> {
        learn(Eyes::open(histories)?, histories, ends, frame)
    }
}

fn learn(
    eyes: Eyes,
    histories: &[History],
    ends: &[usize],
    frame: &Frame,
) -> Option<Box<dyn Family>> {
    let lesson = Lesson::of(eyes, histories, ends, frame)?;
    let binner = Binner::new(&lesson.rows, lesson.features);
    let data = binner.all(&lesson.rows);
    let boosters = in_parallel(&QUANTILES, |_, level| {
        Booster::learn(&data, &lesson.targets, &lesson.weights, *level, &SETTINGS)
    });
    Some(Box::new(Boosted {
        eyes,
        binner,
        boosters,
    }))
}

// === impl Lesson ===

impl Lesson {
    /// Steps evenly from all customers, as many as are wanted; `None` if there are too few.
    fn of(eyes: Eyes, histories: &[History], ends: &[usize], frame: &Frame) -> Option<Self> {
        let first = (frame.season / 2).max(12);
        let origins: Vec<(usize, usize)> = ends
            .iter()
            .enumerate()
            .flat_map(|(customer, end)| {
                let last = end.saturating_sub(frame.horizons);
                (first..last).map(move |origin| (customer, origin))
            })
            .collect();
        if origins.len() < ROWS_LEAST {
            return None;
        }
        let means: Vec<f64> = histories
            .iter()
            .zip(ends)
            .map(|(history, end)| history.mean(*end))
            .collect();
        let typical = means.iter().sum::<f64>() / means.len() as f64;
        let seen: Vec<Seen<'_>> = histories
            .iter()
            .map(|history| eyes.seen(history, frame))
            .collect();
        let wanted = (origins.len() * frame.horizons).min(ROWS_MOST);
        let mut lesson = Self::default();
        for row in 0..wanted {
            // Of each origin another step ahead, so that all horizons are learned alike.
            let (customer, origin) = origins[jittered(row, wanted, origins.len())];
            let horizon = 1 + spread_evenly(row) % frame.horizons;
            let known = histories[customer].known();
            let (now, then) = (known[origin], known[origin + horizon]);
            if now.is_nan() || then.is_nan() {
                continue;
            }
            let of_customer = &seen[customer];
            let before = lesson.rows.len();
            of_customer.features(origin, horizon, &mut lesson.rows);
            lesson.features = lesson.rows.len() - before;
            lesson.targets.push(of_customer.distance(origin, then));
            let size = (of_customer.scale(origin) / typical).powf(SIZE_EXPONENT);
            lesson.weights.push(size.clamp(WEIGHT_MIN, WEIGHT_MAX));
        }
        (lesson.targets.len() >= ROWS_LEAST).then_some(lesson)
    }
}

/// One of `len` things for the row of this number of `rows`, evenly but for a part of the distance: at even distances of a season, or of a part of it, only
/// some of its phases would be seen.
pub(crate) fn jittered(row: usize, rows: usize, len: usize) -> usize {
    let from = row * len / rows;
    let to = (row + 1) * len / rows;
    from + spread_evenly(row) % (to - from).max(1)
}

/// Numbers without a pattern that a season could have (Fibonacci hashing).
fn spread_evenly(row: usize) -> usize {
    ((row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

// === impl Boosted ===

impl Family for Boosted {
    fn name(&self) -> &'static str {
        match self.eyes {
            Eyes::OfDemand => NAME,
            Eyes::OfCovariates => NAME_WITH_COVARIATES,
        }
    }

    fn forecast(
        &self,
        history: &History,
        frame: &Frame,
        origins: RangeInclusive<usize>,
    ) -> Option<Forecasts> {
        let seen = self.eyes.seen(history, frame);
        let mut forecasts = Forecasts::none(&origins, frame.horizons);
        let (mut features, mut bins) = (Vec::new(), Vec::new());
        for origin in origins {
            let cells = forecasts.from_mut(origin).chunks_mut(QUANTILES.len());
            for (cells, horizon) in cells.zip(1..) {
                features.clear();
                bins.clear();
                seen.features(origin, horizon, &mut features);
                self.binner.row(&features, &mut bins);
                let mut quantiles = [0.0; QUANTILES.len()];
                for (quantile, booster) in quantiles.iter_mut().zip(&self.boosters) {
                    let distance = booster.forecast(&bins);
                    *quantile = seen.moved(origin, distance.clamp(-DISTANCE_MAX, DISTANCE_MAX));
                }
                tidy(&mut quantiles);
                for (cell, value) in cells.iter_mut().zip(quantiles) {
                    *cell = value as f32;
                }
            }
        }
        Some(forecasts)
    }
}
