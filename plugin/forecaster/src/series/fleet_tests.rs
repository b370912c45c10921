//! Gateways that share one customer's traffic, and what each of them forecasts of the whole.
#![allow(
    clippy::print_stdout,
    reason = "a test that fails says how far off it was"
)]

use forebay_forecast::{Blender, SeriesWindow, Track, TrackSettings, pinball};

use super::one::{Counters, Series};

const STEP_US: u64 = 60_000_000;
const STEPS: i64 = 3_000;
/// What comes before is for learning.
const JUDGED_FROM: i64 = 1_000;
const STEPS_PER_DAY: i64 = 288;
const SHARES: [f32; 3] = [0.2, 0.3, 0.5];
const LEVELS: [f32; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
const SEED: u64 = 20_261;

/// What each gateway uses in each step.
fn days() -> Vec<[f32; 3]> {
    let mut state = SEED;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    let mut drift = 0.0_f32;
    let mut step_of = |step: i64| {
        let phase = (step % STEPS_PER_DAY) as f32 / STEPS_PER_DAY as f32 * std::f32::consts::TAU;
        drift = 0.9 * drift + 0.2 * (uniform() - 0.5);
        let all = 1_000.0 * (1.0 + 0.6 * phase.sin()) * (drift + 0.3 * (uniform() - 0.5)).exp();
        SHARES.map(|share| all * share * (0.9 + 0.2 * uniform()))
    };
    (0..STEPS).map(&mut step_of).collect()
}

fn settings(late_steps: usize) -> TrackSettings {
    let mut settings =
        TrackSettings::without_model(&[1], &LEVELS, usize::try_from(STEPS_PER_DAY).unwrap());
    settings.late_steps = late_steps;
    settings
}

/// Mean loss of the quantiles over the mean usage, of the steps that are judged.
#[derive(Debug, Default)]
struct Loss {
    loss: f64,
    usage: f64,
}

impl Loss {
    fn add(&mut self, step: i64, quantiles: &[f32], usage: f32) {
        if step >= JUDGED_FROM {
            let losses = LEVELS.iter().zip(quantiles);
            let sum: f32 = losses
                .map(|(level, said)| pinball(*level, *said, usage))
                .sum();
            self.loss += f64::from(sum / LEVELS.len() as f32);
            self.usage += f64::from(usage);
        }
    }

    fn ratio(&self) -> f64 {
        self.loss / self.usage
    }
}

/// Loss of a gateway's forecasts of the fleet's usage. The others' part of a step comes when the next one runs, or at once.
fn as_it_is(days: &[[f32; 3]], gateway: usize, is_at_once: bool) -> f64 {
    let mut blender = Blender::new(settings(1));
    let mut series = Series::new(blender.history_steps(), blender.settings(), 1);
    let mut loss = Loss::default();
    let mut demand_cum = 0;
    for (step, parts) in (0..STEPS).zip(days) {
        let at_us = u64::try_from(step).unwrap() * STEP_US;
        series.observe(&Counters {
            demand_cum,
            ..Counters::default()
        });
        let others = usize::try_from(step - 1).ok().and_then(|at| days.get(at));
        let others = others.map_or(0.0, |parts| parts.iter().sum::<f32>() - parts[gateway]);
        if is_at_once {
            series.add_others(step - 1, others);
        }
        series.roll(step, at_us, STEP_US, &mut blender);
        let (track, window) = series.track_and_window();
        let (grid, _) = blender.forecast(track, window, None, None);
        loss.add(step, grid.horizon(0), parts.iter().sum());
        series.add_others(step - 1, others);
        demand_cum += (f64::from(parts[gateway]) * 1e6) as u64;
    }
    loss.ratio()
}

/// The same for a gateway that takes its own part of the newest step for the whole of it, and learns from that.
fn from_its_own_part(days: &[[f32; 3]], gateway: usize) -> f64 {
    let mut blender = Blender::new(settings(0));
    let mut track = Track::new(blender.settings());
    let mut window = SeriesWindow::new(blender.history_steps());
    let mut loss = Loss::default();
    for (step, pair) in (1..STEPS).zip(days.windows(2)) {
        blender.mature(&mut track, Some(pair[0][gateway]));
        window.record(step - 1, Some(pair[0][gateway]));
        let (grid, _) = blender.forecast(&mut track, &window, None, None);
        loss.add(step, grid.horizon(0), pair[1].iter().sum());
        window.record(step - 1, Some(pair[0].iter().sum()));
    }
    loss.ratio()
}

#[test]
fn each_of_three_gateways_forecasts_the_whole_fleet() {
    let days = days();
    for (gateway, share) in SHARES.iter().enumerate() {
        let with = as_it_is(&days, gateway, false);
        let at_once = as_it_is(&days, gateway, true);
        let without = from_its_own_part(&days, gateway);
        println!(
            "seed {SEED}, share {share}: loss {with:.4}, told at once {at_once:.4}, from its own part {without:.4}"
        );
        assert!(
            with < 0.3 * without,
            "share {share}: {with:.4} against {without:.4}"
        );
        assert!(
            with < 1.2 * at_once,
            "share {share}: {with:.4} against {at_once:.4}"
        );
    }
}
