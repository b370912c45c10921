//! When a step of two models that run beside one another counts, and when it does not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

#[path = "../../../forecast/tests/fixture/mod.rs"]
mod fixture;
mod world;

use forebay_core::ledger::CustomerHash;
use forebay_core::resource::ResourceIndex;
use forebay_forecast::{Limits, Model, SeriesWindow, Source};
use forebay_forecaster::challenger::{Duel, Pace, SAMPLE_MOST, Unfit};
use forebay_forecaster::inference::BATCH_ROWS;
use forebay_forecaster::series::{Forecast, SeriesKey};

use world::World;

/// More units of work than a round of these tests has.
const UNITS_MOST: u32 = 200;

struct Ring {
    duel: Duel,
    challenger: Model,
    world: World,
}

impl Ring {
    fn new() -> Self {
        let (champion, challenger) = (load("step_s", "600"), load("family", "\"another\""));
        Self {
            duel: between(&champion, &challenger, 500).unwrap(),
            challenger,
            world: World::new(),
        }
    }

    /// Lets the challenger work for so many units in a step; returns how many it took.
    fn work(&mut self, step: i64, units_most: u32) -> u32 {
        self.duel.tick(step);
        let mut units = 0;
        while units < units_most && self.duel.may_start(|_| true) {
            assert_eq!(
                self.duel.work(&self.world, &mut self.challenger),
                Pace::Worked
            );
            units += 1;
        }
        units
    }

    fn see(&mut self, number: u8, step: i64) {
        self.duel
            .see(&key(number), &window(number, step - 1), step, None);
    }

    /// Step `finished` is over, and it is known what was used in the one before.
    fn turn(&mut self, number: u8, finished: i64) {
        let judged = (forecast(finished - 1), 25.0);
        self.duel.turn(&key(number), Some(&judged), None);
    }

    fn counted(&self) -> u64 {
        self.duel.to_wire().map_or(0, |(challenger, champion)| {
            assert_eq!(challenger.matured, champion.matured);
            challenger.matured
        })
    }
}

fn load(field: &str, value: &str) -> Model {
    let mut model = fixture::good();
    fixture::set_metadata(&mut model, field, value);
    Model::load(&fixture::bytes(&model), &Limits::default(), BATCH_ROWS).unwrap()
}

fn between(champion: &Model, challenger: &Model, kept_steps: usize) -> Result<Duel, Unfit> {
    Duel::between(champion, challenger, &[7; 32], 2.0, kept_steps)
}

fn key(number: u8) -> SeriesKey {
    SeriesKey {
        customer: CustomerHash([number; 16]),
        resource: ResourceIndex::FIRST,
    }
}

/// Customers differ, so that none is taken for another one.
fn window(number: u8, newest: i64) -> SeriesWindow {
    let mut window = SeriesWindow::new(64);
    for back in (0..40_u8).rev() {
        let usage = f32::from(number) * (10.0 + f32::from(back % 5));
        window.record(newest - i64::from(back), Some(usage));
    }
    window
}

fn forecast(step: i64) -> Forecast {
    Forecast {
        step,
        low: 10.0,
        median: 20.0,
        high: 30.0,
        claim: 30.0,
        source: Source::Network,
    }
}

#[test]
fn a_step_that_both_have_forecast_counts_once_its_usage_is_known() {
    let mut ring = Ring::new();
    for step in 10..15 {
        ring.see(1, step);
        assert!(ring.work(step, UNITS_MOST) > 2);
        assert_eq!(ring.work(step, UNITS_MOST), 0, "one round in a step");
        ring.turn(1, step);
    }
    // Of the last step only the usage is missing; before the first there was none of the challenger's.
    assert_eq!(ring.counted(), 4);
}

#[test]
fn a_step_that_the_champion_forecasts_again_knowing_more_does_not_count() {
    let mut ring = Ring::new();
    for step in 10..15 {
        ring.see(1, step);
        ring.work(step, UNITS_MOST);
        if step == 12 {
            ring.see(1, step);
        }
        ring.turn(1, step);
    }
    assert_eq!(ring.counted(), 3);
}

#[test]
fn a_round_that_is_not_finished_in_its_step_does_not_count_and_leaves_nothing_to_the_next_one() {
    let scores_with = |units_of_one_step| {
        let mut ring = Ring::new();
        for step in 10..15 {
            ring.see(1, step);
            ring.see(2, step);
            let is_short = step == 12;
            ring.work(
                step,
                if is_short {
                    units_of_one_step
                } else {
                    UNITS_MOST
                },
            );
            ring.turn(1, step);
            ring.turn(2, step);
        }
        assert_eq!(ring.counted(), 2 * 3);
        ring.duel.to_wire()
    };
    let never_begun = scores_with(0);
    // A row, both rows, and both rows with the network.
    for units in [1, 2, 3] {
        assert_eq!(scores_with(units), never_begun, "{units}");
    }
}

#[test]
fn what_was_forecast_for_one_step_is_not_judged_by_another() {
    let mut ring = Ring::new();
    ring.see(1, 10);
    ring.work(10, UNITS_MOST);
    // Nobody looked for three steps.
    ring.turn(1, 13);
    ring.turn(1, 14);
    assert_eq!(ring.counted(), 0);
}

#[test]
fn the_sample_is_one_batch_and_who_is_gone_gives_his_place_back() {
    let mut ring = Ring::new();
    let rows = |ring: &mut Ring, step| {
        let units = ring.work(step, 10 * UNITS_MOST);
        // Each row is pushed and blended, and the network runs once.
        (units - 1) / 2
    };
    for number in 0..200 {
        ring.see(number, 10);
    }
    assert_eq!(rows(&mut ring, 10), u32::try_from(SAMPLE_MOST).unwrap());
    for step in 11..40 {
        for number in 0..3 {
            ring.see(number, step);
        }
        // Until those that are gone are dropped the round waits for them, for some ticks.
        for _ in 0..30 {
            ring.work(step, UNITS_MOST);
        }
    }
    for number in 0..3 {
        ring.see(number, 40);
    }
    assert_eq!(rows(&mut ring, 40), 3, "it waits for nobody");
}

#[test]
fn models_that_cannot_forecast_from_the_same_are_not_compared() {
    let (champion, other) = (load("step_s", "600"), load("step_s", "60"));
    let unfit = between(&champion, &other, 500).unwrap_err();
    assert!(matches!(unfit, Unfit::Steps { .. }), "{unfit}");
    let unfit = between(&champion, &champion, 3).unwrap_err();
    assert!(matches!(unfit, Unfit::History { .. }), "{unfit}");
}
