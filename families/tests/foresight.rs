//! What nobody knew yet moves no forecast, however many events there are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../src/noise.rs"]
mod noise;

use forebay_families::{
    Agenda, Event, Frame, History, Learner, MixtureSettings, RidgeRegression, race,
};
use noise::noise;
use proptest::prelude::*;
use std::sync::Arc;

const SEASON: usize = 24;
const STEPS: usize = 30 * SEASON;
const TEST_START: usize = 20 * SEASON;
const STEP_S: i64 = 3_600;

/// A sale every other day, and what it does.
fn sales() -> Vec<Event> {
    let starts = (1..STEPS as i64 / 48).map(|nth| (48 * nth + 7 * nth % 24) * STEP_S);
    let sales = starts.map(|starts_s| Event::new("sale", starts_s, starts_s + 4 * STEP_S));
    sales.collect()
}

fn demand(seed: u64) -> Vec<f64> {
    let sales = sales();
    let of_step = |step: usize| {
        let day = (step % SEASON) as f64 / SEASON as f64 * std::f64::consts::TAU;
        let at_s = step as i64 * STEP_S;
        let is_sale = sales
            .iter()
            .any(|sale| (sale.starts_s..sale.ends_s).contains(&at_s));
        let factor = if is_sale { 2.0 } else { 1.0 };
        10.0 * (1.5 + day.sin()) * (0.8 + 0.4 * noise(seed, step)) * factor
    };
    (0..STEPS).map(of_step).collect()
}

/// The bits of all that is deployed from the steps before `cut`.
fn forecasts(seed: u64, events: Vec<Event>, cut: usize) -> Vec<u32> {
    let history = History::new(0, STEP_S as u32, demand(seed));
    let history = history.with_agenda(Arc::new(Agenda::new(events)));
    let frame = Frame {
        season: SEASON,
        long_season: None,
        horizons: 4,
        error_rows: 48,
    };
    let learners: [&dyn Learner; 1] = [&RidgeRegression];
    let settings = MixtureSettings::default();
    let race = race(&[history], &frame, &[TEST_START], &learners, &settings);
    let deployed = race.deployed[0].as_ref().unwrap();
    let rows = (TEST_START..=cut).flat_map(|origin| deployed.from(origin).to_vec());
    rows.map(f32::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// More than can count at one step, all of them before the known ones: they take nobody's place.
    #[test]
    fn events_that_nobody_knows_of_yet_move_no_forecast(
        seed in 0..1_000_u64,
        cut in TEST_START + 10..STEPS - 10,
        late in 9..30_usize,
    ) {
        let known_s = Some((cut as i64 + 1) * STEP_S + 1);
        let crowd = (0..late as i64).map(|nth| Event {
            known_s,
            factor: Some(3.0),
            ..Event::new("sale", nth, STEPS as i64 * STEP_S + nth)
        });
        let before = forecasts(seed, sales(), cut);
        prop_assert_eq!(before, forecasts(seed, sales().into_iter().chain(crowd).collect(), cut));
    }

    /// What falls through later is counted on until then, and what fell through before is not.
    #[test]
    fn plans_that_fall_through_later_move_no_forecast_before(
        seed in 0..1_000_u64,
        cut in TEST_START + 10..STEPS - 10,
    ) {
        let next_s = (cut as i64 + 3) * STEP_S;
        let planned = Event::new("sale", next_s, next_s + 4 * STEP_S);
        let with = |known_until_s| {
            let event = Event { known_until_s, ..planned.clone() };
            forecasts(seed, sales().into_iter().chain([event]).collect(), cut)
        };
        prop_assert_eq!(with(None), with(Some((cut as i64 + 2) * STEP_S)));
        // That one was taken back before it could be counted on anywhere.
        let forgotten = with(Some((TEST_START as i64 - 100) * STEP_S));
        prop_assert_eq!(&forgotten, &forecasts(seed, sales(), cut));
        prop_assert_ne!(forgotten, with(None));
    }
}
