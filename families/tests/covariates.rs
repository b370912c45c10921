//! Who sees that latency rises before demand does forecasts better than who does not, and what says nothing does no harm.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use forebay_families::{
    Arima, Boosting, BoostingWithCovariates, Frame, History, Learner, MixtureSettings, QUANTILES,
    RidgeRegression, RidgeWithCovariates, pinball, race,
};
use std::sync::Arc;

const CUSTOMERS: usize = 3;
const SEASON: usize = 48;
const STEPS: usize = 30 * SEASON;
const TEST_START: usize = 20 * SEASON;
const HORIZONS: usize = 4;
/// Steps by which latency is ahead of demand.
const LEAD: usize = 2;

/// Evenly from 0 to 1, another number for each place.
fn noise(place: usize) -> f64 {
    let hashed = (place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hashed ^ (hashed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) as f64 / u64::MAX as f64
}

/// How far a customer's demand is above the usual, in logarithms: waves without a pattern that last some steps.
fn waves(customer: usize) -> Vec<f64> {
    let mut wave = 0.0;
    (0..STEPS + LEAD)
        .map(|step| {
            wave = 0.7 * wave + 0.6 * (noise(customer * 100_000 + step) - 0.5);
            wave
        })
        .collect()
}

fn demand(customer: usize) -> Vec<f64> {
    let size = 4.0_f64.powi(customer as i32);
    let waves = waves(customer);
    (0..STEPS)
        .map(|step| {
            let day = (step % SEASON) as f64 / SEASON as f64 * std::f64::consts::TAU;
            let small = 0.9 + 0.2 * noise(5_000_000 + customer * STEPS + step);
            100.0 * size * (1.4 + day.sin()) * waves[step].exp() * small
        })
        .collect()
}

/// Milliseconds that are above the usual two steps before demand is; a tenth is not measured.
fn latency(customer: usize) -> Vec<f64> {
    let waves = waves(customer);
    (0..STEPS)
        .map(|step| {
            let place = 6_000_000 + customer * STEPS + step;
            match noise(place) < 0.1 {
                true => f64::NAN,
                false => 20.0 * (waves[step + LEAD] + 0.1 * noise(2 * place)).exp(),
            }
        })
        .collect()
}

/// wQL of what is deployed, of customers of whom this was measured beside demand.
fn wql(covariates: impl Fn(usize) -> Vec<Vec<f64>>) -> f64 {
    let histories: Vec<History> = (0..CUSTOMERS)
        .map(|customer| {
            let covariates = Arc::new(covariates(customer));
            History::new(0, 1_800, demand(customer)).with_covariates(covariates)
        })
        .collect();
    let frame = Frame {
        season: SEASON,
        long_season: None,
        horizons: HORIZONS,
        error_rows: 3 * SEASON,
    };
    let learners: [&dyn Learner; 5] = [
        &Boosting,
        &BoostingWithCovariates,
        &RidgeRegression,
        &RidgeWithCovariates,
        &Arima,
    ];
    let settings = MixtureSettings::default();
    let starts = [TEST_START; CUSTOMERS];
    let race = race(&histories, &frame, &starts, &learners, &settings);
    for entrant in &race.entrants {
        println!("{entrant:?}");
    }
    let (mut loss, mut all) = (0.0, 0.0);
    for (history, forecasts) in histories.iter().zip(&race.deployed) {
        for origin in TEST_START..STEPS - HORIZONS {
            for horizon in 1..=HORIZONS {
                let actual = history.known()[origin + horizon];
                let row = forecasts.as_ref().unwrap().of(origin, horizon);
                let losses = QUANTILES.iter().zip(row);
                loss += losses
                    .map(|(level, value)| pinball(*level, f64::from(*value), actual))
                    .sum::<f64>();
                all += actual;
            }
        }
    }
    2.0 * loss / QUANTILES.len() as f64 / all
}

#[test]
fn latency_that_rises_before_demand_lowers_the_loss_by_a_tenth_and_more() {
    let without = wql(|_| Vec::new());
    let with = wql(|customer| vec![latency(customer)]);
    println!("wQL {with:.4} with latency, {without:.4} without");
    assert!(with <= 0.9 * without, "{with} with, {without} without");
}

#[test]
fn covariates_that_say_nothing_cost_little() {
    let without = wql(|_| Vec::new());
    let noisy = |customer: usize, nth: usize| {
        let place = 9_000_000 + (3 * customer + nth) * STEPS;
        (0..STEPS).map(|step| noise(place + step)).collect()
    };
    // Noise, what never moves, what was never measured, and demand itself.
    let with = wql(|customer| {
        vec![
            noisy(customer, 0),
            noisy(customer, 1),
            vec![7.0; STEPS],
            vec![f64::NAN; STEPS],
            demand(customer),
        ]
    });
    println!("wQL {with:.4} with useless covariates, {without:.4} without");
    assert!(with <= 1.02 * without, "{with} with, {without} without");
}
