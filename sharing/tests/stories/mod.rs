//! Outcomes, contexts and ranges as they are drawn, and a tuner that goes through them.

#![allow(dead_code, reason = "each test file uses its own part")]

use forebay_sharing::Settings;
use forebay_sharing::tuning::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

pub(crate) const CASES: u32 = 10_000;
pub(crate) const CYCLE_MS: u64 = 300_000;

pub(crate) fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/tuning.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    }
}

/// Ranges of all knobs around the defaults.
pub(crate) fn wide() -> Ranges {
    Knob::ALL
        .into_iter()
        .fold(Ranges::default(), |ranges, knob| {
            let (low, high) = knob.bounds();
            ranges.with(knob, low, high)
        })
}

pub(crate) fn rules(ranges: Ranges, seed: u64) -> Rules {
    Rules {
        ranges,
        features: Features::Linear,
        share: 0.05,
        loss_most: 0.05,
        seed,
    }
}

/// A cycle in which everything was admitted but for this part.
pub(crate) fn earning(reward: f64) -> Outcome {
    Outcome {
        asked: 100.0,
        admitted: 100.0 * reward,
        promised: 10.0,
        ..Outcome::default()
    }
}

/// From 0 up to 1, from a number.
pub(crate) fn uniform(number: u64) -> f64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

pub(crate) fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => 0.0..=1.0,
        3 => 0.0..1e6,
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(0.0)],
    ]
}

pub(crate) fn any_outcome() -> impl Strategy<Value = Option<Outcome>> {
    let good = (0.9..=1.0).prop_map(|reward| Some(earning(reward)));
    let any = [(); 6].map(|()| any_number()).prop_map(
        |[
            asked,
            admitted,
            over_admitted,
            false_rejected,
            promised,
            missed,
        ]| {
            Some(Outcome {
                asked,
                admitted,
                over_admitted,
                false_rejected,
                promised,
                missed,
            })
        },
    );
    prop_oneof![8 => good, 1 => any, 1 => Just(None)]
}

/// What is told after each cycle, and how long after the one before it was.
pub(crate) fn any_story() -> impl Strategy<Value = Vec<(Option<Outcome>, u64)>> {
    let gap = prop_oneof![9 => Just(CYCLE_MS), 1 => 0..100 * CYCLE_MS];
    // Repeated, so that stories are long and are made fast.
    (
        prop::collection::vec((any_outcome(), gap), 1..25),
        1..14_usize,
    )
        .prop_map(|(part, times)| part.repeat(times))
}

pub(crate) fn any_context() -> impl Strategy<Value = Context> {
    (any_number(), any_number(), any_number())
        .prop_map(|(load, spread, second)| Context::new(load, spread, second))
}

/// Values of a policy, and ranges that hold them.
pub(crate) fn any_ranges() -> impl Strategy<Value = (Settings, Ranges)> {
    let parts = [(); Knob::ALL.len()]
        .map(|()| prop::option::weighted(0.7, (0.0..=1.0, 0.0..=1.0, 0.0..=1.0)));
    parts.prop_map(|parts| {
        let mut settings = Settings::default();
        let mut ranges = Ranges::default();
        for (knob, part) in Knob::ALL.into_iter().zip(parts) {
            let Some((one, two, three)) = part else {
                continue;
            };
            let (least, most) = knob.bounds();
            let mut values = [one, two, three].map(|at: f64| least + at * (most - least));
            values.sort_by(f64::total_cmp);
            settings = knob.set(settings, values[1]);
            ranges = ranges.with(knob, values[0], values[2]);
        }
        (settings, ranges)
    })
}

/// Runs a story, and shows each decision before its outcome is told.
pub(crate) fn run(
    tuner: &mut Tuner,
    story: &[(Option<Outcome>, u64)],
    context: &Context,
    mut see: impl FnMut(&Decision, u64),
) {
    let mut now_ms = 0;
    for (outcome, gap_ms) in story {
        see(&tuner.choose(now_ms, context), now_ms);
        now_ms += gap_ms;
        tuner.observe(now_ms, outcome.as_ref());
    }
}
