//! Who knows what is to come forecasts better than who does not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../src/noise.rs"]
mod noise;

use forebay_families::{
    Agenda, Boosting, Event, Frame, History, MixtureSettings, QUANTILES, RidgeRegression, pinball,
    race,
};
use noise::noise;
use std::sync::Arc;

const CUSTOMERS: usize = 3;
const SEASON: usize = 48;
const STEP_S: u32 = 1_800;
const STEPS: usize = 42 * SEASON;
const TEST_START: usize = 28 * SEASON;
const HORIZONS: usize = 4;
const DAY_S: i64 = 86_400;
/// Seeds of what is made up.
const SALE: u64 = 1;
const RELEASE: u64 = 2;
const SALES: u64 = 3;
const RELEASES: u64 = 4;
const HOLIDAYS: u64 = 5;
const DRIFT: u64 = 6;

/// A sale in the afternoon every third day or so, a release that keeps customers away at any hour, and a holiday now and then.
fn planted() -> Vec<(Event, f64)> {
    let hour_s = 3_600;
    (1..42_usize)
        .flat_map(|day| {
            let starts_s = day as i64 * DAY_S;
            let sale_s = starts_s + (12 + (noise(SALE, day) * 6.0) as i64) * hour_s;
            let release_s = starts_s + (noise(RELEASE, day) * 20.0) as i64 * hour_s;
            let sale = Event::new("sale", sale_s, sale_s + 3 * hour_s);
            let release = Event::new("release", release_s, release_s + 2 * hour_s);
            let holiday = Event {
                lead_s: Some(0),
                decay_s: Some(0),
                ..Event::new("holiday", starts_s, starts_s + DAY_S)
            };
            [
                (noise(SALES, day) < 0.35).then_some((sale, 2.5)),
                (noise(RELEASES, day) < 0.25).then_some((release, 0.4)),
                (noise(HOLIDAYS, day) < 0.15).then_some((holiday, 0.5)),
            ]
        })
        .flatten()
        .collect()
}

fn demand(planted: &[(Event, f64)]) -> Vec<Vec<f64>> {
    (0..CUSTOMERS)
        .map(|customer| {
            let size = 4.0_f64.powi(customer as i32 % 3);
            let mut drift = 1.0;
            (0..STEPS)
                .map(|step| {
                    drift = 1.0
                        + 0.8 * (drift - 1.0)
                        + 0.3 * (noise(DRIFT + customer as u64, step) - 0.5);
                    let day = (step % SEASON) as f64 / SEASON as f64 * std::f64::consts::TAU;
                    let at_s = step as i64 * i64::from(STEP_S);
                    let felt = planted
                        .iter()
                        .filter(|(event, _)| (event.starts_s..event.ends_s).contains(&at_s));
                    let factor: f64 = felt.map(|(_, factor)| factor).product();
                    100.0 * size * (1.4 + day.sin()) * drift.max(0.1) * factor
                })
                .collect()
        })
        .collect()
}

/// wQL of what is deployed, of customers who have this agenda.
fn wql(demand: &[Vec<f64>], agenda: Agenda) -> f64 {
    let agenda = Arc::new(agenda);
    let histories: Vec<History> = demand
        .iter()
        .map(|values| History::new(0, STEP_S, values.clone()).with_agenda(Arc::clone(&agenda)))
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
        &[&Boosting, &RidgeRegression],
        &settings,
    );
    let (mut loss, mut all) = (0.0, 0.0);
    for (customer, forecasts) in race.deployed.iter().enumerate() {
        for origin in TEST_START..STEPS - HORIZONS {
            for horizon in 1..=HORIZONS {
                let actual = demand[customer][origin + horizon];
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
fn events_that_are_known_lower_the_loss_by_a_tenth_and_more() {
    let planted = planted();
    let demand = demand(&planted);
    let unknown = wql(&demand, Agenda::default());
    let known = wql(
        &demand,
        Agenda::new(planted.into_iter().map(|(event, _)| event)),
    );
    println!("wQL {known:.4} with events known, {unknown:.4} unknown");
    assert!(known <= 0.9 * unknown, "{known} known, {unknown} unknown");
}

#[test]
fn events_at_random_times_that_do_nothing_cost_little() {
    let demand = demand(&[]);
    let nothing = wql(&demand, Agenda::default());
    let noise = wql(
        &demand,
        Agenda::new(planted().into_iter().map(|(event, _)| event)),
    );
    println!("wQL {noise:.4} with events that do nothing, {nothing:.4} without");
    // Some of what chance makes is believed: to believe less costs more where there is something.
    assert!(noise <= 1.05 * nothing, "{noise} with, {nothing} without");
}
