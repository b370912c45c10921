//! A model that keeps the contract loads, agrees with a forward pass in plain Rust, and keeps its rows apart.

// A step that fails must stop the test, in its helpers too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod fixture;

use fixture::*;
use forebay_forecast::{
    Blender, Limits, Model, ModelError, SeriesWindow, Source, Track, TrackSettings,
};

fn load(rows: usize) -> Model {
    Model::load(&bytes(&good()), &Limits::default(), rows).unwrap()
}

/// A customer with a season of 16 steps, `scale` tokens large.
fn customer(scale: f32, steps: i64) -> SeriesWindow {
    let mut window = SeriesWindow::new(64);
    for step in 0..steps {
        window.record(step, Some(scale * (2.0 + ((step % 16) as f32 / 2.5).sin())));
    }
    window
}

#[test]
fn the_golden_output_of_the_plain_forward_pass_is_met() {
    for rows in [1, 2, 3, 4, 64] {
        let model = load(rows);
        assert!(
            model.check().golden_difference < 1e-5,
            "batch {rows}: {:?}",
            model.check()
        );
    }
}

#[test]
fn loading_tells_what_the_model_costs() {
    let check = *load(64).check();
    assert_eq!(check.nodes, 24);
    assert!(check.weights > 200 && check.weights < 300, "{check:?}");
    assert!(
        check.flops_per_row > 1_000 && check.flops_per_row < 20_000,
        "{check:?}"
    );
}

#[test]
fn a_forecast_does_not_depend_on_the_calls_before_it() {
    let mut model = load(4);
    let spec = model.spec().clone();
    let mut batch = model.batch();
    batch.push(&spec, &customer(10.0, 60)).unwrap();
    let first = model.run(&batch).unwrap();
    let mut other = model.batch();
    other.push(&spec, &customer(1_000.0, 60)).unwrap();
    model.run(&other).unwrap();
    assert_eq!(model.run(&batch).unwrap(), first);
}

#[test]
fn customers_of_any_size_get_a_forecast_of_their_size() {
    let mut model = load(4);
    let spec = model.spec().clone();
    let mut batch = model.batch();
    // Both large enough for the mask of the season, which this small network scales too, to vanish.
    for scale in [1e4, 1e10] {
        batch.push(&spec, &customer(scale, 60)).unwrap();
    }
    let answer = model.run(&batch).unwrap();
    assert_eq!(answer.rows(), 2);
    for (small, large) in answer.row(0).iter().zip(answer.row(1)) {
        assert!((large / small / 1e6 - 1.0).abs() < 1e-3, "{small} {large}");
    }
}

#[test]
fn the_network_takes_part_in_the_blend_and_wins_only_if_it_deserves_it() {
    let mut model = load(1);
    let spec = model.spec().clone();
    let mut blender = Blender::new(TrackSettings::for_model(&spec));
    let mut track = Track::new(blender.settings());
    let mut window = SeriesWindow::new(blender.history_steps());
    let mut errors = (0.0, 0.0);
    for step in 0..400_i64 {
        // A perfect season: seasonal naive is exact, the untrained network is not.
        let usage = 100.0 + 50.0 * ((step % 16) as f32 / 2.5).sin();
        window.record(step, Some(usage));
        blender.mature(&mut track, Some(usage));
        let mut batch = model.batch();
        batch.push(&spec, &window).unwrap();
        let answer = model.run(&batch).unwrap();
        let (grid, source) = blender.forecast(&mut track, &window, Some(answer.row(0)), None);
        assert_eq!(source, Source::Network);
        let next = 100.0 + 50.0 * (((step + 1) % 16) as f32 / 2.5).sin();
        if step >= 300 {
            errors.0 += (grid.get(0, 1).unwrap() - next).abs();
            errors.1 += (answer.row(0)[1] - next).abs();
        }
    }
    assert!(
        errors.0 < 0.05 * errors.1,
        "blend {}, network {}",
        errors.0,
        errors.1
    );
}

/// Error of the blended median one step ahead, after some learning, when usage is known `late_steps` later than a forecast needs it.
fn error_on_a_perfect_season(late_steps: usize) -> f32 {
    let usage_of = |step: i64| 100.0 + 50.0 * ((step % 16) as f32 / 2.5).sin();
    let mut settings = TrackSettings::without_model(&[1, 3], &[0.1, 0.5, 0.9], 16);
    settings.late_steps = late_steps;
    let mut blender = Blender::new(settings);
    let mut track = Track::new(blender.settings());
    let mut window = SeriesWindow::new(blender.history_steps());
    let mut error = 0.0;
    for step in 0..300_i64 {
        window.record(step, Some(usage_of(step)));
        blender.mature(&mut track, window.back(late_steps));
        let (grid, _) = blender.forecast(&mut track, &window, None, None);
        if step >= 200 {
            error += (grid.get(0, 1).unwrap() - usage_of(step + 1)).abs();
        }
    }
    error
}

#[test]
fn usage_that_is_known_late_teaches_the_same_as_usage_that_is_known_at_once() {
    let at_once = error_on_a_perfect_season(0);
    for late_steps in [1, 2] {
        let late = error_on_a_perfect_season(late_steps);
        assert!(
            late < 1.5 * at_once + 1.0,
            "{late_steps} steps late: {late} against {at_once}"
        );
    }
}

#[test]
fn without_a_model_the_simple_methods_serve_and_without_history_nothing_is_claimed() {
    let mut blender = Blender::new(TrackSettings::without_model(
        &[1, 2, 3],
        &[0.1, 0.5, 0.9],
        16,
    ));
    let mut track = Track::new(blender.settings());
    let mut window = SeriesWindow::new(blender.history_steps());
    let (grid, source) = blender.forecast(&mut track, &window, None, None);
    assert_eq!(source, Source::Nothing);
    assert!(grid.values().iter().all(|value| *value == 0.0));
    window.record(0, Some(7.0));
    blender.mature(&mut track, Some(7.0));
    let (grid, source) = blender.forecast(&mut track, &window, None, Some(5.0));
    assert_eq!(source, Source::Fallback);
    assert!(
        grid.values().iter().all(|value| *value == 5.0),
        "capped at the contract: {grid:?}"
    );
}

#[test]
fn a_row_of_nonsense_from_the_network_is_not_used() {
    let mut blender = Blender::new(TrackSettings::without_model(&[1], &[0.1, 0.5, 0.9], 16));
    let mut track = Track::new(blender.settings());
    let window = customer(10.0, 40);
    for row in [&[f32::NAN, 1.0, 2.0][..], &[1.0]] {
        let (grid, source) = blender.forecast(&mut track, &window, Some(row), None);
        assert_eq!(source, Source::Fallback);
        assert!(grid.values().iter().all(|value| value.is_finite()));
    }
}

#[test]
fn a_batch_of_no_rows_or_too_many_is_refused() {
    for rows in [0, 100_000] {
        let error = Model::load(&bytes(&good()), &Limits::default(), rows).unwrap_err();
        assert!(matches!(error, ModelError::BatchRows { .. }), "{error}");
    }
}
