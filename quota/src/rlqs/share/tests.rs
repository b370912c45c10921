#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

mod world;

use super::*;
use proptest::prelude::*;
use world::{Ledger, World};

#[test]
fn an_envoy_that_asks_for_more_than_the_contract_is_served_the_contract() {
    for report_every in [10, 50] {
        let mut world = World::new(100, 50);
        world.run(200, 300, report_every);
        let before = world.envoy.all_allowed;
        world.run(100, 300, report_every);
        let served = world.envoy.all_allowed - before;
        assert!(
            (930..=1_005).contains(&served),
            "{served} in 10 s, reports every {report_every}"
        );
        assert!(world.ledger.lacked > 0, "the demand is known");
    }
}

#[test]
fn what_an_idle_envoy_cannot_use_goes_back() {
    let mut world = World::new(100, 50);
    world.run(100, 80, 10);
    world.run(600, 0, 10);
    let paid_before = world.ledger.paid;
    world.run(100, 0, 10);
    let moved = world.ledger.paid - paid_before;
    assert!(
        moved.abs() <= 10_000_000,
        "{moved} micro-tokens in 10 s of silence"
    );
    assert!(
        world.ledger.level >= world.ledger.depth / 2 - 10_000_000,
        "{} is left",
        world.ledger.level
    );
}

#[test]
fn an_envoy_is_told_nothing_new_while_nothing_changes_but_that_it_still_holds() {
    let mut world = World::new(100, 50);
    world.run(300, 60, 10);
    let mut heard = 0;
    for _ in 0..80 {
        world.now_us += CYCLE_US;
        world.ledger.refill(CYCLE_US);
        let told = world.share.cycle(
            world.ledger.standing(),
            1_000,
            TTL_US,
            TimeUs(world.now_us),
            &mut world.ledger,
        );
        heard += u32::from(told.is_some());
    }
    assert!((1..=3).contains(&heard), "{heard} assignments in 8 s");
}

#[test]
fn who_is_barred_is_denied_and_who_is_free_is_admitted() {
    let mut ledger = Ledger::new(100, 50);
    let mut share = Share::new(Micro::ZERO, TimeUs(0));
    let mut cycle = |standing, us| share.cycle(standing, PPM, TTL_US, TimeUs(us), &mut ledger);
    assert_eq!(cycle(Standing::Barred, 1), Some((Told::Deny, 8)));
    assert_eq!(cycle(Standing::Barred, 2), None);
    assert_eq!(cycle(Standing::Free, 3), Some((Told::Allow, 8)));
    assert!(ledger.paid == 0);
}

#[test]
fn a_bucket_of_one_token_is_assigned_too() {
    let mut world = World::new(1, 1);
    world.run(600, 10, 10);
    assert!(
        (45..=61).contains(&world.envoy.all_allowed),
        "{} in a minute",
        world.envoy.all_allowed
    );
}

#[test]
fn an_envoy_that_is_gone_is_charged_for_what_it_was_told() {
    let mut world = World::new(100, 50);
    world.run(100, 300, 10);
    world.share.end(TimeUs(world.now_us), &mut world.ledger);
    let ends_us = world.envoy.ends_us;
    while world.now_us < ends_us + 1_000_000 {
        world.now_us += 5_000;
        world.envoy.request(world.now_us);
    }
    assert!(world.envoy.all_allowed as i64 * 1_000_000 <= world.ledger.paid);
}

#[test]
fn whatever_could_not_be_paid_an_envoy_is_served_again_soon_after() {
    for cycles in [10, 100, 1_000, 10_000] {
        let mut world = World::new(100, 50);
        world.run(200, 300, 50);
        world.ledger.refuses = true;
        world.run(cycles, 300, 50);
        world.ledger.refuses = false;
        world.ledger.level = world.ledger.depth;
        world.run(100, 300, 50);
        let before = world.envoy.all_allowed;
        world.run(100, 300, 50);
        let served = world.envoy.all_allowed - before;
        assert!(
            served >= 900,
            "{served} in 10 s, 10 s after {cycles} cycles"
        );
    }
}

#[test]
fn an_envoy_that_comes_back_is_not_charged_twice_for_what_it_used() {
    let mut world = World::new(100, 50);
    world.run(240, 300, 50);
    let estate = world.share.end(TimeUs(world.now_us), &mut world.ledger);
    let paid = world.ledger.paid;
    world.share = Share::new(estate.credit, TimeUs(world.now_us));
    world.share.report(
        world.envoy.report(4_000_000),
        TimeUs(world.now_us),
        &mut world.ledger,
    );
    assert_eq!(world.ledger.paid, paid, "all of it was paid before");
}

#[test]
fn a_dry_run_makes_no_debt() {
    let mut world = World::new(100, 50);
    world
        .share
        .cycle(Standing::Free, PPM, TTL_US, TimeUs(1), &mut world.ledger);
    for report in 1..100 {
        let used = Used {
            allowed: 10_000,
            denied: 0,
            elapsed_us: 5_000_000,
        };
        world
            .share
            .report(used, TimeUs(report * 5_000_000), &mut world.ledger);
    }
    assert!(world.ledger.level >= 0, "{}", world.ledger.level);
}

#[test]
fn what_a_bucket_that_is_forgotten_held_goes_back() {
    let mut world = World::new(100, 50);
    world.run(200, 20, 50);
    world.run(200, 0, 50);
    world.share.forget(&mut world.ledger);
    let used = i64::try_from(world.envoy.all_allowed).unwrap() * 1_000_000;
    assert!(
        (world.ledger.paid - used).abs() < 1_000,
        "{} paid, {used} used",
        world.ledger.paid
    );
}

#[test]
fn an_envoy_that_reports_nothing_and_not_since_when_is_idle() {
    let mut world = World::new(100, 50);
    world.run(100, 80, 50);
    let nothing = Used {
        allowed: 0,
        denied: 0,
        elapsed_us: 0,
    };
    world
        .share
        .report(nothing, TimeUs(world.now_us + 5_000_000), &mut world.ledger);
    assert_eq!(world.share.demand(), Some(Rate::ZERO));
}

#[test]
fn a_bucket_that_was_small_grows_with_its_part_while_it_is_used() {
    let mut world = World::new(100, 1);
    world.run(100, 300, 50);
    world.ledger.depth = 50_000_000;
    world.run(100, 300, 50);
    let Some(Told::Bucket(terms)) = world.envoy.told else {
        panic!("{:?}", world.envoy.told);
    };
    assert_eq!(terms.max_tokens, 50);
}

#[test]
fn a_bucket_that_was_small_grows_although_others_leave_less_than_all_of_it() {
    let mut world = World::new(100, 50);
    // Others ask for nearly all of it, and then leave nearly all of it.
    for (part_ppm, cycles) in [(20_000, 200), (980_000, 400)] {
        for cycle in 1..=cycles {
            world.ledger.level = world.ledger.level.min(30_000_000);
            world.ledger.refill(CYCLE_US);
            // Clients that ask at the same time waste what flows into a bucket of one token.
            for _ in 0..5 {
                world.now_us += CYCLE_US / 5;
                for _ in 0..6 {
                    world.envoy.request(world.now_us);
                }
            }
            if cycle % 50 == 0 {
                world.report(50 * CYCLE_US);
            }
            world.cycle(world.ledger.standing(), part_ppm);
        }
    }
    let Some(Told::Bucket(terms)) = world.envoy.told else {
        panic!("{:?}", world.envoy.told);
    };
    assert!(terms.max_tokens >= 30, "{terms:?}");
}

#[test]
fn an_envoy_that_was_idle_is_served_again_with_its_first_report() {
    let mut world = World::new(100, 50);
    world.run(100, 80, 50);
    world.run(600, 0, 50);
    world.run(60, 300, 50);
    let before = world.envoy.all_allowed;
    world.run(100, 300, 50);
    let served = world.envoy.all_allowed - before;
    assert!(served >= 900, "{served} in 10 s");
}

#[test]
fn a_burst_comes_back_while_nobody_asks() {
    let mut world = World::new(1, 50);
    for minute in 0..10 {
        let before = world.envoy.all_allowed;
        world.run(10, 50, 50);
        world.run(590, 0, 50);
        let served = world.envoy.all_allowed - before;
        // The bucket begins with half of what is there, and grows.
        assert!(minute < 2 || served >= 45, "{served} in minute {minute}");
    }
}

#[test]
fn what_was_allowed_before_a_policy_began_to_bind_makes_no_debt() {
    let mut world = World::new(100, 50);
    world
        .share
        .cycle(Standing::Free, PPM, TTL_US, TimeUs(1), &mut world.ledger);
    world.share.cycle(
        world.ledger.standing(),
        PPM,
        TTL_US,
        TimeUs(4_000_000),
        &mut world.ledger,
    );
    let used = Used {
        allowed: 5_000,
        denied: 0,
        elapsed_us: 5_000_000,
    };
    world
        .share
        .report(used, TimeUs(5_000_000), &mut world.ledger);
    assert!(world.ledger.level >= 0, "{}", world.ledger.level);
}

#[test]
fn what_cannot_be_told_for_long_enough_is_not_paid() {
    let mut world = World::new(100, 50);
    for cycle in 1..100 {
        let now = TimeUs(cycle * CYCLE_US);
        assert_eq!(
            world.share.cycle(
                world.ledger.standing(),
                PPM,
                1_900_000,
                now,
                &mut world.ledger
            ),
            None
        );
    }
    assert_eq!(world.ledger.paid, 0);
}

#[test]
fn what_was_used_before_a_bucket_shrank_is_not_charged_twice() {
    let mut world = World::new(1, 50);
    // The bucket begins with half of what is there, and has grown and filled by now.
    world.run(2_000, 0, 50);
    // Most of it is used at once, and no report says so before it is made small.
    for _ in 0..45 {
        world.envoy.request(world.now_us);
    }
    let paid = world.ledger.paid;
    world.ledger.depth = 5_000_000;
    world.run(30, 0, 1_000);
    world.report(3_000_000);
    let more = world.ledger.paid - paid;
    assert!(more < 5_000_000, "{more} micro-tokens more");
    assert!(world.is_paid());
}

#[test]
fn buckets_that_envoy_would_take_for_the_same_differ_in_what_it_compares() {
    let slow = terms(10, Rate::from_tokens_per_s(1));
    let fast = terms(10, Rate::from_tokens_per_s(100));
    assert_eq!(slow.tokens_per_fill, fast.tokens_per_fill);
    assert_ne!(slow.fill_interval_nanos, fast.fill_interval_nanos);
}

#[derive(Clone, Debug)]
enum Event {
    Requests { count: u8 },
    Wait { ms: u16 },
    Report,
    Rate { per_s: u8 },
    Depth { tokens: u8 },
    Part { permille: u16 },
    Bar { barred: bool },
    Refuse { refuses: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u8..60).prop_map(|count| Event::Requests { count }),
        4 => (1_u16..2_500).prop_map(|ms| Event::Wait { ms }),
        3 => Just(Event::Report),
        1 => (0_u8..200).prop_map(|per_s| Event::Rate { per_s }),
        1 => (0_u8..200).prop_map(|tokens| Event::Depth { tokens }),
        1 => (1_u16..=1_000).prop_map(|permille| Event::Part { permille }),
        1 => any::<bool>().prop_map(|barred| Event::Bar { barred }),
        1 => any::<bool>().prop_map(|refuses| Event::Refuse { refuses }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    /// Whatever happens, an Envoy that hears at once has never admitted more than was paid.
    #[test]
    fn no_schedule_lets_an_envoy_admit_what_was_not_paid(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new(100, 50);
        let mut reported_us = 0;
        let (mut part, mut is_barred) = (PPM, false);
        for event in events {
            match event {
                Event::Requests { count } => {
                    for _ in 0..count {
                        world.now_us += 1_000;
                        world.ledger.refill(1_000);
                        world.envoy.request(world.now_us);
                    }
                }
                Event::Wait { ms } => {
                    world.now_us += u64::from(ms) * 1_000;
                    world.ledger.refill(u64::from(ms) * 1_000);
                }
                Event::Report => {
                    world.report(world.now_us - reported_us);
                    reported_us = world.now_us;
                }
                Event::Rate { per_s } => world.ledger.rate = per_s.into(),
                Event::Depth { tokens } => {
                    world.ledger.depth = i64::from(tokens) * 1_000_000;
                    world.ledger.level = world.ledger.level.min(world.ledger.depth);
                }
                Event::Part { permille } => part = u64::from(permille) * 1_000,
                Event::Bar { barred } => is_barred = barred,
                Event::Refuse { refuses } => world.ledger.refuses = refuses,
            }
            let standing = if is_barred { Standing::Barred } else { world.ledger.standing() };
            world.cycle(standing, part);
            prop_assert!(
                world.is_paid(),
                "{} tokens out, {} paid", world.out(), world.ledger.paid
            );
        }
    }
}
