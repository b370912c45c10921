//! What must hold for priorities that move, whatever happens to whom.

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::priority::{Kept, Prioritize, Raise};
use forebay_sharing::{Customer, Lend, Outlook, Settings, Terms, allocate};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const FIRST: ResourceIndex = ResourceIndex::FIRST;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// So much of a guarantee of 10/s is asked for in a minute, and so much of it denied.
fn minute(demand: f64, denied: f64) -> Kept {
    Kept::of(MINUTE_MS, 10.0, demand, denied)
}

fn settings() -> impl Strategy<Value = Prioritize> {
    (0_u8..=255, 0.001..0.5, 1_u64..10_000_000).prop_map(|(most, error_budget, half_life_ms)| {
        Prioritize {
            most,
            error_budget,
            half_life_ms,
        }
    })
}

/// Any number, nonsense among them.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..1_000.0,
        1 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(-5.0),
        1 => Just(f64::MAX),
    ]
}

/// Times between 0 and two hours, and what was told of each: silence, or demand and what of it was denied.
fn told() -> impl Strategy<Value = Vec<(u64, Option<(f64, f64)>)>> {
    let one = (0_u64..7_200_000, prop::option::of((number(), number())));
    prop::collection::vec(one, 0..40)
}

fn after(settings: &Prioritize, told: &[(u64, Option<(f64, f64)>)]) -> Raise {
    let mut now_ms = 1_000_000_000;
    told.iter()
        .fold(Raise::default(), |raise, (passed_ms, kept)| {
            now_ms += passed_ms;
            let kept = kept.map(|(demand, denied)| minute(demand, denied));
            raise.after(settings, now_ms, kept.as_ref())
        })
}

fn customer(tier: Tier, priority: u8, (guarantee_per_s, asks_per_s): (f64, f64)) -> Customer {
    Customer {
        tier,
        priority,
        weight: 1.0,
        group: None,
        terms: PerResource::only_first(Terms {
            guarantee_per_s,
            rate_per_s: 100.0,
            ceiling_per_s: 150.0,
            lend: Lend::Auto,
        }),
        outlook: PerResource::only_first(Outlook::of_demand(asks_per_s)),
        headroom_per_s: PerResource::default(),
        held: PerResource::default(),
        credits: 0.0,
    }
}

/// What each has, in tokens per second.
fn allocated(capacity_per_s: f64, customers: &[Customer]) -> Vec<f64> {
    let capacity_per_s = PerResource::only_first(capacity_per_s);
    let given = allocate(&capacity_per_s, customers, &[], &Settings::default());
    given
        .parts
        .iter()
        .map(|parts| parts.at(FIRST).allocated_per_s())
        .collect()
}

fn tier() -> impl Strategy<Value = Tier> {
    prop_oneof![Just(Tier::One), Just(Tier::Two), Just(Tier::Three)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_priority_is_never_lowered_nor_raised_by_more_than_the_most(
        settings in settings(), told in told(), of_policy: u8,
    ) {
        let raise = after(&settings, &told);
        prop_assert!(raise.steps <= settings.most, "{raise:?}");
        prop_assert!(raise.exact >= 0.0 && raise.exact <= f64::from(settings.most), "{raise:?}");
        for burnt in [raise.burn.short, raise.burn.long] {
            prop_assert!((0.0..=1.0).contains(&burnt), "{raise:?}");
        }
        let priority = raise.priority(of_policy);
        prop_assert!(priority >= of_policy);
        prop_assert!(priority - of_policy <= settings.most);
    }

    #[test]
    fn it_comes_back_to_the_policy_s_and_never_rises_in_silence(
        settings in settings(), told in told(), looks in prop::collection::vec(1_u64..DAY_MS, 1..20),
    ) {
        let mut raise = after(&settings, &told);
        for look_ms in looks {
            let next = raise.after(&settings, raise.at_ms + look_ms, None);
            prop_assert!(next.steps <= raise.steps && next.exact <= raise.exact, "{raise:?} {next:?}");
            raise = next;
        }
        // Of 255 less than a twentieth is left after 13 half-lives, and of a window that burns nothing after a day.
        let later_ms = raise.at_ms + 2 * DAY_MS;
        let raise = raise.after(&settings, later_ms, None);
        let raise = raise.after(&settings, later_ms + 13 * settings.half_life_ms, None);
        prop_assert!(raise.is_over(), "{raise:?}");
        prop_assert_eq!(raise.priority(7), 7);
    }

    #[test]
    fn the_same_gives_the_same_and_how_often_one_looks_in_silence_changes_no_window(
        settings in settings(), told in told(), silence_ms in 0_u64..7_200_000,
    ) {
        let raise = after(&settings, &told);
        prop_assert_eq!(raise, after(&settings, &told));
        let now_ms = raise.at_ms + silence_ms;
        let once = raise.after(&settings, now_ms, None);
        let half = raise.after(&settings, raise.at_ms + silence_ms / 2, None);
        let twice = half.after(&settings, now_ms, None);
        prop_assert!((once.burn.long - twice.burn.long).abs() < 1e-6, "{once:?} {twice:?}");
        prop_assert!((once.burn.short - twice.burn.short).abs() < 1e-6, "{once:?} {twice:?}");
    }

    #[test]
    fn under_the_same_again_and_again_it_rises_and_does_not_flap(
        settings in settings(), demand in 0.0..2_000.0, denied in 0.0..2_000.0,
    ) {
        let mut raise = Raise::default();
        for number in 1..=240 {
            let next = raise.after(&settings, number * MINUTE_MS, Some(&minute(demand, denied)));
            prop_assert!(next.steps >= raise.steps, "{number}: {raise:?} {next:?}");
            raise = next;
        }
    }

    #[test]
    fn no_raise_takes_anything_from_a_higher_tier(
        capacity_per_s in 1.0..500.0,
        all in prop::collection::vec((tier(), 0_u8..4, 0_u8..=255, (0.0..30.0, 0.0..200.0)), 1..8),
    ) {
        let of_policy: Vec<Customer> = all.iter().map(|(tier, priority, _, terms)| customer(*tier, *priority, *terms)).collect();
        let before = allocated(capacity_per_s, &of_policy);
        for raised in [Tier::Two, Tier::Three] {
            let moved: Vec<Customer> = all.iter().map(|(tier, priority, steps, terms)| {
                let raise = Raise { steps: if *tier == raised { *steps } else { 0 }, ..Raise::default() };
                customer(*tier, raise.priority(*priority), *terms)
            }).collect();
            let after = allocated(capacity_per_s, &moved);
            for (place, (tier, ..)) in all.iter().enumerate() {
                if tier.number() < raised.number() {
                    prop_assert!((before[place] - after[place]).abs() < 1e-6, "{place}: {before:?} {after:?}");
                }
            }
        }
    }

    #[test]
    fn who_is_raised_has_no_less_than_before(
        capacity_per_s in 1.0..500.0,
        all in prop::collection::vec((tier(), 0_u8..4, (0.0..30.0, 0.0..200.0)), 1..8),
        steps in 1_u8..5,
    ) {
        let mut customers: Vec<Customer> = all.iter().map(|(tier, priority, terms)| customer(*tier, *priority, *terms)).collect();
        let before = allocated(capacity_per_s, &customers);
        customers[0].priority = Raise { steps, ..Raise::default() }.priority(customers[0].priority);
        let after = allocated(capacity_per_s, &customers);
        prop_assert!(after[0] >= before[0] - 1e-6, "{before:?} {after:?}");
    }
}

#[test]
fn a_guarantee_that_is_denied_in_full_raises_at_once_and_one_that_is_kept_does_not() {
    let settings = Prioritize::default();
    // 600 tokens are guaranteed in a minute. What goes beyond them may be denied.
    let kept = Raise::default().after(&settings, MINUTE_MS, Some(&minute(2_000.0, 1_400.0)));
    assert!(kept.is_over(), "{kept:?}");
    let denied = Raise::default().after(&settings, MINUTE_MS, Some(&minute(2_000.0, 2_000.0)));
    assert_eq!(denied.steps, 2, "{denied:?}");
    // In an hour one minute is a sixtieth: 16.7 times a budget of a thousandth.
    let rate = denied.burn.rate(settings.error_budget);
    assert!((16.0..17.0).contains(&rate), "{rate}");
}

#[test]
fn what_stays_within_the_budget_raises_nobody_however_long_it_lasts() {
    let settings = Prioritize {
        error_budget: 0.01,
        ..Prioritize::default()
    };
    let mut raise = Raise::default();
    for number in 1..=1_440 {
        // Of 600 tokens 5 are denied, which is 0.8 %.
        raise = raise.after(&settings, number * MINUTE_MS, Some(&minute(600.0, 5.0)));
    }
    assert_eq!((raise.steps, raise.exact), (0, 0.0), "{raise:?}");
    for number in 1_441..=1_442 {
        raise = raise.after(&settings, number * MINUTE_MS, Some(&minute(600.0, 600.0)));
    }
    assert_eq!(raise.steps, 1, "{raise:?}");
}

#[test]
fn a_step_goes_later_than_it_came() {
    let settings = Prioritize {
        most: 4,
        error_budget: 0.01,
        half_life_ms: 900_000,
    };
    let mut raise = Raise::default().after(&settings, MINUTE_MS, Some(&minute(600.0, 600.0)));
    let mut came_at = Vec::new();
    let mut went_at = Vec::new();
    for number in 2..=300 {
        let kept = (number < 20).then(|| minute(600.0, 600.0));
        let next = raise.after(&settings, number * MINUTE_MS, kept.as_ref());
        if next.steps > raise.steps {
            came_at.push(next.exact);
        }
        if next.steps < raise.steps {
            went_at.push(next.exact);
        }
        raise = next;
    }
    assert!(
        !came_at.is_empty() && went_at.len() == 4,
        "{came_at:?} {went_at:?}"
    );
    for (exact, step) in went_at.iter().zip([4.0, 3.0, 2.0, 1.0]) {
        assert!(*exact < step - 0.5 + 1e-9, "step {step} went at {exact}");
    }
    assert!(raise.is_over() || raise.steps == 0, "{raise:?}");
}

#[test]
fn a_clock_that_is_set_back_changes_nothing() {
    let settings = Prioritize::default();
    let raise = Raise::default().after(&settings, DAY_MS, Some(&minute(600.0, 600.0)));
    assert_eq!(raise.after(&settings, 5, Some(&minute(600.0, 0.0))), raise);
    assert_eq!(raise.after(&settings, 5, None), raise);
}
