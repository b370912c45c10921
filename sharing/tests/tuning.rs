//! Tuning: what must hold for every sequence of outcomes, and what it is for.

mod stories;

use forebay_sharing::Settings;
use forebay_sharing::tuning::{
    Arms, Context, Decision, EXPLORED_MOST, Features, Hold, Knob, Learned, Logged, Outcome, Ranges,
    Rules, Tuner, TuningError, WINDOW, WORDS_MOST, best_features, doubly_robust,
    inverse_propensity,
};
use proptest::prelude::*;
use stories::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_value_is_ever_outside_the_range_that_was_named_for_it(
        (own, ranges) in any_ranges(),
        story in any_story(),
        context in any_context(),
        seed in any::<u64>(),
    ) {
        let mut tuner = Tuner::new(&own, &rules(ranges, seed)).unwrap();
        run(&mut tuner, &story, &context, |decision, _| {
            let named: Vec<_> = ranges.iter().collect();
            let mut moved = 0;
            for knob in Knob::ALL {
                let value = knob.of(&decision.settings);
                let range = named.iter().find(|(other, _)| *other == knob);
                match range {
                    Some((_, range)) => assert!((range.low..=range.high).contains(&value)),
                    None => assert_eq!(value, knob.of(&own)),
                }
                moved += usize::from(value != knob.of(&own));
            }
            assert!(moved <= 1 && (moved == 1) == (decision.arm > 0), "{decision:?}");
            assert_eq!(decision.settings.with_credits, own.with_credits);
            assert!(decision.propensity > 0.0 && decision.propensity <= 1.0);
        });
    }

    #[test]
    fn of_any_hundred_decisions_in_a_row_at_most_five_explore(
        story in any_story(),
        context in any_context(),
        share in 0.0..=0.05,
        seed in any::<u64>(),
    ) {
        // All is well, so that nothing else holds it back, but for what the story has of other things.
        let mut tuner = Tuner::new(&Settings::default(), &Rules { share, loss_most: 0.5, ..rules(wide(), seed) }).unwrap();
        let mut explored = Vec::new();
        run(&mut tuner, &story, &context, |decision, _| explored.push(decision.arm > 0));
        let most = ((share * f64::from(WINDOW)) + 1e-9) as usize;
        assert!(most <= EXPLORED_MOST as usize);
        for window in explored.windows(WINDOW as usize) {
            assert!(window.iter().filter(|explores| **explores).count() <= most);
        }
        assert!(explored.iter().take(WINDOW as usize).filter(|explores| **explores).count() <= most);
    }

    #[test]
    fn however_bad_arms_are_no_more_is_lost_than_may_be(
        own in prop::collection::vec(0.0..=1.0_f64, 1..40),
        worse_by in 0.0..=1.0_f64,
        is_silent in any::<bool>(),
        times in 1..12_usize,
        loss_most in 0.001..=0.5_f64,
        seed in any::<u64>(),
    ) {
        let mut tuner = Tuner::new(&Settings::default(), &Rules { loss_most, ..rules(wide(), seed) }).unwrap();
        let (mut earned, mut by_policy) = (0.0, 0.0);
        for (cycle, reward) in own.repeat(times).into_iter().enumerate() {
            let decision = tuner.choose(cycle as u64 * CYCLE_MS, &Context::default());
            let explores = decision.arm > 0;
            let got = if explores { reward * (1.0 - worse_by) } else { reward };
            let told = earning(got);
            // Not even "nobody has told".
            if !(explores && is_silent) {
                tuner.observe(cycle as u64 * CYCLE_MS, Some(&told));
            }
            earned += got;
            by_policy += reward;
            assert!(earned >= (1.0 - loss_most) * by_policy - 1e-6, "cycle {cycle}: {earned} of {by_policy}");
        }
    }

    #[test]
    fn a_broken_promise_ends_exploring_at_once_and_for_the_time_that_it_says(
        story in any_story(),
        breaks_every in 1..4_usize,
        seed in any::<u64>(),
    ) {
        let mut tuner = Tuner::new(&Settings::default(), &Rules { loss_most: 0.5, ..rules(wide(), seed) }).unwrap();
        let (mut now_ms, mut until_ms, mut explored) = (0, 0, 0_usize);
        for (outcome, gap_ms) in &story {
            let decision = tuner.choose(now_ms, &Context::default());
            assert!(decision.arm == 0 || now_ms >= until_ms);
            if now_ms < until_ms {
                assert_eq!(decision.hold, Some(Hold::Paused { until_ms }));
            }
            now_ms += gap_ms;
            let mut outcome = *outcome;
            if decision.arm > 0 {
                explored += 1;
                if explored.is_multiple_of(breaks_every) {
                    let whole = outcome.get_or_insert_with(|| earning(1.0));
                    match explored.is_multiple_of(2) {
                        true => whole.missed = 1.0,
                        false => whole.over_admitted = 1.0,
                    }
                }
            }
            let observed = tuner.observe(now_ms, outcome.as_ref());
            let breaks = decision.arm > 0 && outcome.is_some_and(|outcome| outcome.breaks_promise());
            assert_eq!(observed.fallback.is_some(), breaks);
            if let Some(fallback) = observed.fallback {
                assert_eq!(fallback.arm, decision.arm);
                assert!(fallback.until_ms >= now_ms + 3_600_000);
                until_ms = fallback.until_ms;
            }
        }
    }

    #[test]
    fn without_ranges_or_with_no_share_every_cycle_goes_by_the_policy(
        (own, ranges) in any_ranges(),
        story in any_story(),
        context in any_context(),
        has_share in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let off = match has_share {
            true => rules(Ranges::default(), seed),
            false => Rules { share: 0.0, ..rules(ranges, seed) },
        };
        let mut tuner = Tuner::new(&own, &off).unwrap();
        run(&mut tuner, &story, &context, |decision, _| {
            assert_eq!((decision.arm, decision.settings, decision.propensity), (0, own, 1.0));
            assert_eq!(decision.hold, Some(Hold::Off));
        });
    }

    #[test]
    fn the_same_calls_give_the_same_decisions(
        (own, ranges) in any_ranges(),
        story in any_story(),
        context in any_context(),
        seed in any::<u64>(),
    ) {
        let make = || Tuner::new(&own, &rules(ranges, seed)).unwrap();
        let (mut one, mut other) = (make(), make());
        let mut decisions = Vec::new();
        run(&mut one, &story, &context, |decision, _| decisions.push(format!("{decision:?}")));
        let mut again = decisions.iter();
        run(&mut other, &story, &context, |decision, _| {
            assert_eq!(Some(&format!("{decision:?}")), again.next());
        });
        // Not by comparison: what was never compared has no interval, which is no number.
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    /// Put away after each decision and each outcome, and taken up by one that knows nothing and has another seed.
    #[test]
    fn whoever_was_put_away_and_taken_up_goes_on_as_if_nothing_had_been(
        (own, ranges) in any_ranges(),
        story in any_story(),
        context in any_context(),
        seed in any::<u64>(),
    ) {
        let fresh = |seed| Tuner::new(&own, &rules(ranges, seed)).unwrap();
        let again = |tuner: &Tuner| {
            let words = tuner.words();
            assert!(words.len() <= WORDS_MOST);
            let taken = fresh(seed ^ 1).taking_up(&words).unwrap();
            assert_eq!(taken.words(), words);
            taken
        };
        let (mut one, mut other) = (fresh(seed), again(&fresh(seed)));
        let mut now_ms = 0;
        for (outcome, gap_ms) in &story {
            assert_eq!(one.choose(now_ms, &context), other.choose(now_ms, &context));
            other = again(&other);
            now_ms += gap_ms;
            assert_eq!(one.observe(now_ms, outcome.as_ref()), other.observe(now_ms, outcome.as_ref()));
            other = again(&other);
        }
        assert_eq!(one.words(), other.words());
    }

    /// Words that are cut or have others in their place are refused, or read as a tuner that keeps the bounds.
    #[test]
    fn damaged_words_are_refused_or_harmless(
        story in any_story(),
        seed in any::<u64>(),
        at in any::<prop::sample::Index>(),
        by in any::<u64>(),
        is_cut in any::<bool>(),
    ) {
        let fresh = || Tuner::new(&Settings::default(), &rules(wide(), seed)).unwrap();
        let mut tuner = fresh();
        run(&mut tuner, &story, &Context::default(), |_, _| ());
        let mut words = tuner.words();
        let at = at.index(words.len());
        if is_cut {
            words.truncate(at);
        } else {
            words[at] = by;
        }
        match fresh().taking_up(&words) {
            Err(error) => assert_eq!(error, TuningError::Kept),
            Ok(mut taken) => {
                assert!(!is_cut);
                let mut explored = 0;
                for cycle in 0..u64::from(WINDOW) {
                    let decision = taken.choose(cycle * CYCLE_MS, &Context::default());
                    explored += u32::from(decision.arm > 0);
                    taken.observe(cycle * CYCLE_MS, Some(&earning(1.0)));
                }
                assert!(explored <= EXPLORED_MOST);
            }
        }
    }
}

#[test]
fn other_ranges_or_a_lost_history_give_no_more_to_explore() {
    let explored = |mut tuner: Tuner, cycles: u64| {
        let mut explored = 0;
        for cycle in 0..cycles {
            let decision = tuner.choose(cycle * CYCLE_MS, &Context::default());
            explored += u32::from(decision.arm > 0);
            tuner.observe(cycle * CYCLE_MS, Some(&earning(1.0)));
        }
        (explored, tuner)
    };
    let fast = |ranges, seed| {
        let rules = Rules {
            loss_most: 0.5,
            ..rules(ranges, seed)
        };
        Tuner::new(&Settings::default(), &rules).unwrap()
    };
    let narrow = Ranges::default().with(Knob::ReserveShare, 0.1, 0.4);
    for seed in 0..200 {
        let (before, tuner) = explored(fast(wide(), seed), 60);
        let other = fast(narrow, seed).taking_up(&tuner.words()).unwrap();
        let (after, _) = explored(other, 39);
        assert!(before + after <= EXPLORED_MOST, "{seed}: {before} {after}");
        // Within the window nothing, and then it goes on.
        let (lost, tuner) = explored(
            fast(wide(), seed).careful(),
            u64::from(WINDOW) - EXPLORED_MOST as u64,
        );
        assert_eq!(lost, 0, "{seed}");
        let (later, _) = explored(tuner, 500);
        assert!(later > 0, "{seed}");
    }
}

/// Runs a tuner in a world that gives each arm a mean reward, with noise.
fn learn(
    tuner: &mut Tuner,
    cycles: u64,
    mean: impl Fn(usize, f64) -> f64,
) -> (Vec<Logged>, Vec<Decision>) {
    let (mut log, mut decisions) = (Vec::new(), Vec::new());
    for cycle in 0..cycles {
        let load = uniform(3 * cycle);
        let now_ms = cycle * CYCLE_MS;
        let decision = tuner.choose(now_ms, &Context::new(load, 0.2, 0.0));
        let noise = 0.04 * (uniform(3 * cycle + 1) - 0.5);
        let reward = mean(decision.arm, load) + noise;
        let observed = tuner.observe(now_ms, Some(&earning(reward)));
        log.extend(observed.logged);
        decisions.push(decision);
    }
    (log, decisions)
}

#[test]
fn each_arm_is_as_likely_by_chance_and_a_number_has_always_the_same() {
    let arms = Arms::around(&Settings::default(), &wide()).unwrap();
    let mut counts = vec![0; arms.len()];
    for number in 0..8_000 {
        let arm = arms.by_chance(3, number);
        assert_eq!(arm, arms.by_chance(3, number));
        counts[arm] += 1;
    }
    let fair = 8_000 / arms.len();
    assert!(
        counts
            .iter()
            .all(|count| fair * 8 / 10 < *count && *count < fair * 12 / 10),
        "{counts:?}"
    );
}

#[test]
fn while_nothing_is_lost_nearly_all_that_may_be_explored_is_and_every_arm() {
    let mut tuner = Tuner::new(&Settings::default(), &rules(wide(), 1)).unwrap();
    let (_, decisions) = learn(&mut tuner, 10_000, |_, _| 0.95);
    let explored = decisions.iter().filter(|decision| decision.arm > 0).count();
    assert!((300..=500).contains(&explored), "{explored}");
    for arm in 1..tuner.arms().len() {
        let tried = decisions.iter().any(|decision| decision.arm == arm);
        assert!(tried, "{arm}");
    }
    // As often as it is said to be.
    let likely: f64 = decisions
        .iter()
        .map(|decision| match decision.arm {
            0 => 1.0 - decision.propensity,
            _ => 0.05,
        })
        .sum();
    assert!(
        (likely - explored as f64).abs() < 80.0,
        "{likely} {explored}"
    );
}

#[test]
fn a_good_year_does_not_pay_for_a_bad_week() {
    let rules = Rules {
        loss_most: 0.001,
        ..rules(wide(), 4)
    };
    let mut tuner = Tuner::new(&Settings::default(), &rules).unwrap();
    // Nothing is ever lost in it: rewards end at 1.
    learn(&mut tuner, 30_000, |_, _| 1.02);
    let (_, decisions) = learn(&mut tuner, 1_000, |arm, _| match arm {
        0 => 0.97,
        _ => 0.02,
    });
    let explored = decisions.iter().filter(|decision| decision.arm > 0).count();
    assert!((1..=4).contains(&explored), "{explored}");
}

#[test]
fn each_pause_is_twice_as_long_as_the_one_before_up_to_a_week() {
    let rules = Rules {
        loss_most: 0.5,
        ..rules(wide(), 5)
    };
    let mut tuner = Tuner::new(&Settings::default(), &rules).unwrap();
    let mut hours = Vec::new();
    let mut now_ms = 0;
    while hours.len() < 10 {
        let decision = tuner.choose(now_ms, &Context::default());
        let mut outcome = earning(0.99);
        outcome.missed = if decision.arm > 0 { 0.1 } else { 0.0 };
        let observed = tuner.observe(now_ms, Some(&outcome));
        hours.extend(
            observed
                .fallback
                .map(|fallback| (fallback.until_ms - now_ms) / 3_600_000),
        );
        now_ms += CYCLE_MS;
        assert!(now_ms < 1_000 * 24 * 3_600_000, "{hours:?}");
    }
    assert_eq!(hours, [1, 2, 4, 8, 16, 32, 64, 128, 168, 168]);
}

#[test]
fn an_arm_that_is_better_is_named_and_never_taken_for_good() {
    let mut tuner = Tuner::new(&Settings::default(), &rules(wide(), 2)).unwrap();
    assert_eq!(tuner.better(), None);
    let (log, decisions) = learn(&mut tuner, 20_000, |arm, _| match arm {
        4 => 0.93,
        _ => 0.90,
    });
    assert_eq!(tuner.better(), Some(4));
    let effect = tuner.evidence()[4].effect();
    assert!(
        (effect.mean - 0.03).abs() <= 2.0 * effect.ci95,
        "{effect:?}"
    );
    let tried = decisions
        .iter()
        .filter(|decision| decision.arm == 4)
        .count();
    let explored = decisions.iter().filter(|decision| decision.arm > 0).count();
    assert!(2 * tried > explored, "{tried} of {explored}");
    assert!(explored <= 1_000);
    // What is logged says the same of always choosing it.
    let of_log = inverse_propensity(&log, |_| 4);
    assert!(
        (of_log.mean - 0.03).abs() <= 2.0 * of_log.ci95,
        "{of_log:?}"
    );
}

#[test]
fn where_no_arm_is_better_none_is_named() {
    for seed in 0..20 {
        let mut tuner = Tuner::new(&Settings::default(), &rules(wide(), seed)).unwrap();
        learn(
            &mut tuner,
            5_000,
            |arm, _| if arm == 0 { 0.93 } else { 0.92 },
        );
        assert_eq!(tuner.better(), None, "{seed}");
    }
}

/// Decisions by chance, one arm as likely as another, in a world in which arm 1 is better in a full pool and worse in an empty one.
fn log_by_chance(count: u64, from: u64) -> Vec<Logged> {
    let each = from..from + count;
    each.map(|number| {
        let load = uniform(5 * number);
        let arm = (uniform(5 * number + 1) * 3.0) as usize;
        let noise = 0.04 * (uniform(5 * number + 2) - 0.5);
        Logged {
            context: Context::new(load, 0.2, 0.0),
            arm,
            propensity: 1.0 / 3.0,
            reward: crossing(arm, load) + noise,
        }
    })
    .collect()
}

fn crossing(arm: usize, load: f64) -> f64 {
    match arm {
        1 => 0.90 + 0.10 * (load - 0.5),
        2 => 0.89,
        _ => 0.90,
    }
}

#[test]
fn off_line_the_context_is_used_where_it_helps_and_estimates_hold_what_is_true() {
    let log = log_by_chance(5_000, 0);
    let (features, _) = best_features(&log, 3);
    assert_ne!(features, Features::Constant);
    let learned = Learned::from_log(features, 3, &log);
    let chosen = |load: f64| learned.surest(&Context::new(load, 0.2, 0.0));
    assert_eq!([0.1, 0.3, 0.7, 0.9].map(chosen), [0, 0, 1, 1]);

    // Its true gain, over loads that are all as likely.
    let steps = 1_000;
    let loads = (0..steps).map(|step| (f64::from(step) + 0.5) / f64::from(steps));
    let truth: f64 = loads
        .map(|load| crossing(chosen(load), load) - crossing(0, load))
        .sum::<f64>()
        / f64::from(steps);
    assert!(truth > 0.01, "{truth}");
    let mut held = 0;
    for part in 1..=40 {
        let fresh = log_by_chance(1_000, part * 10_000);
        let choose = |context: &Context| learned.surest(context);
        let robust = doubly_robust(&fresh, &learned, choose);
        let weighted = inverse_propensity(&fresh, choose);
        assert!(robust.ci95 < 0.2 * weighted.ci95, "{robust:?} {weighted:?}");
        held += usize::from((robust.mean - truth).abs() <= robust.ci95);
    }
    assert!(held >= 34, "{held} of 40");
}

#[test]
fn an_estimate_is_right_if_the_propensities_are_whatever_the_model_believes() {
    // The second arm is chosen far less often than the first, and is worse: who takes what is logged at its face value sees neither.
    let each = 0..20_000_u64;
    let log: Vec<Logged> = each
        .map(|number| {
            let is_second = uniform(3 * number) < 0.1;
            let noise = 0.04 * (uniform(3 * number + 1) - 0.5);
            Logged {
                context: Context::new(0.5, 0.2, 0.0),
                arm: usize::from(is_second),
                propensity: if is_second { 0.1 } else { 0.9 },
                reward: noise + if is_second { 0.80 } else { 0.90 },
            }
        })
        .collect();
    let believes = [
        Learned::nothing(Features::Constant, 2),
        Learned::from_log(Features::Constant, 2, &log),
    ];
    for learned in believes {
        let found = doubly_robust(&log, &learned, |_| 1);
        assert!((found.mean + 0.10).abs() <= 2.0 * found.ci95, "{found:?}");
        assert!(found.ci95 < 0.02, "{found:?}");
    }
    // Decisions that could not have been made otherwise say nothing.
    let mut forced = log.clone();
    forced.iter_mut().for_each(|logged| logged.propensity = 1.0);
    assert!(inverse_propensity(&forced, |_| 1).mean.is_nan());
    // It is never better than what it is compared with by itself.
    let same = doubly_robust(&log, &Learned::nothing(Features::Constant, 2), |_| 0);
    assert_eq!(same.mean, 0.0);
}

#[test]
fn what_a_short_and_noisy_log_seems_to_teach_is_not_taken_for_a_gain() {
    // No arm differs from another, and rewards have so much noise that some seem to.
    let of_log = |seed: u64| {
        let each = (0..90_u64).map(|number| {
            let at = 7 * (1_000 * seed + number);
            Logged {
                context: Context::new(uniform(at), 0.2, 0.0),
                arm: (uniform(at + 1) * 9.0) as usize,
                propensity: 1.0 / 9.0,
                reward: uniform(at + 2),
            }
        });
        let log: Vec<Logged> = each.collect();
        best_features(&log, 9).1.mean
    };
    let logs = 200;
    let mean = (1..=logs).map(of_log).sum::<f64>() / logs as f64;
    assert!(mean < 0.1, "{mean}");
}

#[test]
fn an_arm_that_was_hardly_seen_is_not_followed_however_good_it_looks() {
    let seen = |count: usize| {
        let mut learned = Learned::nothing(Features::Constant, 3);
        let context = Context::default();
        for arm in [0, 1] {
            (0..count).for_each(|_| learned.learn(&context, arm, 0.9 + 0.02 * arm as f64));
        }
        learned.surest(&context)
    };
    assert_eq!([0, 1, 3, 200].map(seen), [0, 0, 0, 1]);
}

#[test]
fn where_the_context_tells_nothing_no_arm_is_chosen_by_it() {
    let mut log = log_by_chance(3_000, 7);
    for (number, logged) in log.iter_mut().enumerate() {
        let noise = 0.04 * (uniform(5 * number as u64 + 3) - 0.5);
        logged.reward = 0.9 + noise - if logged.arm == 0 { 0.0 } else { 0.01 };
    }
    let (features, gain) = best_features(&log, 3);
    assert_eq!((features, gain.mean), (Features::Constant, 0.0));
    let learned = Learned::from_log(features, 3, &log);
    assert_eq!(learned.surest(&Context::new(0.9, 0.2, 0.0)), 0);
}

#[test]
fn what_cannot_be_is_refused_with_what_it_is() {
    let own = Settings::default();
    let with =
        |low, high| Arms::around(&own, &Ranges::default().with(Knob::ReserveShare, low, high));
    let knob = Knob::ReserveShare;
    for (low, high) in [
        (0.3, 0.2),
        (-0.1, 0.3),
        (0.1, 0.6),
        (f64::NAN, 0.3),
        (0.1, f64::NAN),
    ] {
        let found = with(low, high).unwrap_err().to_string();
        assert!(found.starts_with("range of reserve_share: "), "{found}");
        assert!(found.contains("not within 0 to 0.5"), "{found}");
    }
    for (low, high) in [(0.0, 0.2), (0.3, 0.5)] {
        let expected = TuningError::Own {
            knob,
            low,
            high,
            own: 0.25,
        };
        assert_eq!(with(low, high), Err(expected));
    }
    let values =
        |arms: &Arms| -> Vec<f64> { arms.iter().map(|arm| knob.of(&arm.settings)).collect() };
    assert_eq!(values(&with(0.1, 0.4).unwrap()), [0.25, 0.1, 0.4]);
    // An end that is the policy's own value is no arm.
    assert_eq!(values(&with(0.25, 0.4).unwrap()), [0.25, 0.4]);
    for share in [-0.01, 0.06, f64::NAN] {
        let tuner = Tuner::new(
            &own,
            &Rules {
                share,
                ..rules(wide(), 1)
            },
        );
        let text = tuner.unwrap_err().to_string();
        assert!(text.starts_with("explored share: "), "{text}");
    }
    for loss_most in [0.0, 0.6, f64::NAN] {
        let tuner = Tuner::new(
            &own,
            &Rules {
                loss_most,
                ..rules(wide(), 1)
            },
        );
        let text = tuner.unwrap_err().to_string();
        assert!(text.starts_with("loss: "), "{text}");
    }
}

#[test]
fn a_reward_is_goodput_less_what_must_not_be() {
    let outcome = Outcome {
        asked: 1_000.0,
        admitted: 950.0,
        promised: 400.0,
        ..Outcome::default()
    };
    let near = |outcome: Outcome, expected: f64| {
        let reward = outcome.reward().unwrap();
        assert!((reward - expected).abs() < 1e-12, "{outcome:?}: {reward}");
    };
    near(outcome, 0.95);
    near(
        Outcome {
            missed: 2.0,
            ..outcome
        },
        0.90,
    );
    near(
        Outcome {
            false_rejected: 30.0,
            ..outcome
        },
        0.92,
    );
    near(
        Outcome {
            over_admitted: 50.0,
            ..outcome
        },
        0.90,
    );
    near(
        Outcome {
            missed: 400.0,
            ..outcome
        },
        0.0,
    );
    for asked in [0.0, -1.0, f64::NAN] {
        assert_eq!(Outcome { asked, ..outcome }.reward(), None);
    }
    assert!(!outcome.breaks_promise());
    assert!(
        Outcome {
            missed: 0.1,
            ..outcome
        }
        .breaks_promise()
    );
    assert!(
        Outcome {
            over_admitted: 0.1,
            ..outcome
        }
        .breaks_promise()
    );
    assert_eq!(
        Outcome {
            missed: f64::NAN,
            ..outcome
        }
        .reward(),
        None
    );
}
