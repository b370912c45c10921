//! What is wrong with data must not be wrong with forecasts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../src/noise.rs"]
mod noise;

use forebay_families::{
    Arima, Boosting, Frame, History, MixtureSettings, QUANTILES, RidgeRegression, pinball, race,
};
use noise::noise;

const CUSTOMERS: usize = 8;
const SEASON: usize = 48;
const STEPS: usize = 20 * SEASON;
const TEST_START: usize = 14 * SEASON;
const HORIZONS: usize = 4;
/// First of the seeds of gaps; those of demand are the customers'.
const GAPS: u64 = 1_000;

/// Days of another size for each customer, with noise that lasts some steps.
fn clean() -> Vec<Vec<f64>> {
    (0..CUSTOMERS)
        .map(|customer| {
            let size = 4.0_f64.powi(customer as i32 % 4);
            let mut drift = 1.0;
            (0..STEPS)
                .map(|step| {
                    drift = 1.0 + 0.8 * (drift - 1.0) + 0.3 * (noise(customer as u64, step) - 0.5);
                    let day = (step % SEASON) as f64 / SEASON as f64 * std::f64::consts::TAU;
                    100.0 * size * (1.4 + day.sin()) * drift.max(0.1)
                })
                .collect()
        })
        .collect()
}

/// wQL of what is deployed when `seen` is known, against what was true.
fn wql(seen: &[Vec<f64>], truth: &[Vec<f64>]) -> f64 {
    let histories: Vec<History> = seen
        .iter()
        .map(|values| History::new(0, 1_800, values.clone()))
        .collect();
    let frame = Frame {
        season: SEASON,
        long_season: None,
        horizons: HORIZONS,
        error_rows: 3 * SEASON,
    };
    let starts = [TEST_START; CUSTOMERS];
    let settings = MixtureSettings::default();
    let race = race(
        &histories,
        &frame,
        &starts,
        &[&Boosting, &RidgeRegression, &Arima],
        &settings,
    );
    let (mut loss, mut demand) = (0.0, 0.0);
    for (customer, forecasts) in race.deployed.iter().enumerate() {
        for origin in TEST_START..STEPS - HORIZONS {
            for horizon in 1..=HORIZONS {
                let actual = truth[customer][origin + horizon];
                let row = forecasts.as_ref().unwrap().of(origin, horizon);
                let losses = QUANTILES.iter().zip(row);
                loss += losses
                    .map(|(level, value)| pinball(*level, f64::from(*value), actual))
                    .sum::<f64>();
                demand += actual;
            }
        }
    }
    2.0 * loss / QUANTILES.len() as f64 / demand
}

#[test]
fn a_tenth_of_gaps_costs_little() {
    let truth = clean();
    let is_gap = |customer: usize, step: usize| noise(GAPS + customer as u64, step) < 0.1;
    let mut seen = truth.clone();
    for (customer, values) in seen.iter_mut().enumerate() {
        for (step, value) in values.iter_mut().enumerate() {
            if is_gap(customer, step) {
                *value = f64::NAN;
            }
        }
    }
    let (before, after) = (wql(&truth, &truth), wql(&seen, &truth));
    println!("wQL {before:.4} without gaps, {after:.4} with");
    assert!(
        after <= 1.05 * before,
        "{before} without gaps, {after} with"
    );
}
