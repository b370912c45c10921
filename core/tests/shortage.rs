//! Who waits while a pool is short, and for how long: tiers, priorities, claims and guarantees.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::policy::{Limits, Tier};
use forebay_core::{Micro, Rate, Reason, TimeUs, Verdict};
use gateway::{FIRST, Gateway, admitted, contract, cost, per_s, policy, tokens};
use proptest::prelude::*;

const DEPTH: i64 = 1_000;
/// The customer that is denied.
const ASKS: u64 = 0;
const OTHER: u64 = 1;

/// One customer of each tier on a pool of 1000, each with a contract for all of it.
fn tiers() -> Gateway {
    let limits = Limits::plain(per_s(1_000), tokens(DEPTH));
    let contracts = vec![
        contract("one", Tier::One, &[limits]),
        contract("two", Tier::Two, &[limits]),
        contract("three", Tier::Three, &[limits]),
    ];
    Gateway::new(policy(&[Some(1_000)], contracts), 1, &[0, 1, 2])
}

fn set_pool(gateway: &mut Gateway, level: Micro) {
    let conditions = gateway.conditions();
    gateway
        .ledger
        .edit_pools(&mut gateway.data, &conditions, |pools| {
            pools.pools.at_mut(FIRST).bucket.level = level;
        })
        .unwrap();
}

fn claim(gateway: &mut Gateway, number: u64, rate: Rate, level: Option<Micro>) {
    let span_us = gateway.policy.shadow_span_us();
    gateway.edit(number, |entry| {
        entry.set_shadow(FIRST, rate, span_us);
        if let Some(level) = level {
            let holding = entry.holdings.at_mut(FIRST);
            holding.shadow.level = level.min(holding.shadow_depth());
        }
    });
}

#[test]
fn the_third_tier_gives_first_and_then_the_second() {
    // Taken at one moment, nothing flows: what a tier is left with is its floor.
    for (level, expected) in [
        (1_000, [true, true, true]),
        (251, [true, true, true]),
        (250, [true, true, false]),
        (101, [true, true, false]),
        (100, [true, false, false]),
        (1, [true, false, false]),
        (0, [false, false, false]),
    ] {
        let found = [0, 1, 2].map(|number| {
            let mut gateway = tiers();
            set_pool(&mut gateway, tokens(level));
            let verdict = gateway.request(0, number, &cost(1)).unwrap();
            verdict.is_admitted()
        });
        assert_eq!(found, expected, "at {level} of {DEPTH}");
    }
}

#[test]
fn when_demand_outgrows_the_pool_tiers_give_in_order_within_one_sync() {
    let mut gateway = tiers();
    // 3 x 900 tokens per second on 1000: everything is asked for at once, 20 ms at a time, tier 3 first.
    let mut denied_at: [Option<u64>; 3] = [None; 3];
    for turn in 0..50_u64 {
        for number in [2_u64, 1, 0] {
            for _ in 0..18 {
                let is_admitted = gateway.request(0, number, &cost(1)).unwrap().is_admitted();
                let first = &mut denied_at[usize::try_from(number).unwrap()];
                if !is_admitted && first.is_none() {
                    *first = Some(turn);
                }
            }
        }
        gateway.advance(20_000);
    }
    let [one, two, three] = denied_at.map(|turn| turn.unwrap_or(u64::MAX));
    assert!(three < two && two <= one, "{denied_at:?}");
    // From there on the third tier has nothing, and the first one all that it asks for, in any stretch of 250 ms.
    let mut served = [0; 3];
    for _ in 0..13 {
        for number in [2_u64, 1, 0] {
            for _ in 0..18 {
                let is_admitted = gateway.request(0, number, &cost(1)).unwrap().is_admitted();
                served[usize::try_from(number).unwrap()] += i32::from(is_admitted);
            }
        }
        gateway.advance(20_000);
    }
    let [one, two, three] = served;
    assert_eq!(three, 0, "{served:?}");
    assert!(one >= 225 && two < one, "{served:?}");
}

#[test]
fn who_is_beyond_a_claim_uses_what_others_leave_until_they_come() {
    let limits = Limits::plain(per_s(1_000), tokens(DEPTH));
    let contracts = vec![contract("any", Tier::One, &[limits])];
    let mut gateway = Gateway::new(policy(&[Some(1_000)], contracts), 1, &[0, 0]);
    claim(&mut gateway, ASKS, per_s(100), None);
    claim(&mut gateway, OTHER, per_s(800), None);
    gateway.scan_all();
    // The other's claims of half a second stay, all else is for whoever asks: a claim is no wall.
    let taken = admitted(&mut gateway, 0, ASKS);
    assert_eq!(taken, DEPTH - 400);
    assert_eq!(admitted(&mut gateway, 0, OTHER), 400);
}

#[test]
fn a_tier_is_told_to_wait_for_its_floor() {
    for (number, wait_us) in [(0, 5_000), (1, 105_000), (2, 255_000)] {
        let mut gateway = tiers();
        set_pool(&mut gateway, Micro::ZERO);
        let Verdict::Denied(denial) = gateway.request(0, number, &cost(5)).unwrap() else {
            panic!("customer {number} was admitted by an empty pool");
        };
        assert_eq!(denial.reason, Reason::Pool);
        assert_eq!(denial.retry_at, gateway.now.plus_us(wait_us), "{number}");
    }
}

/// Someone who asks for what the pool does not have, beside one other customer.
#[derive(Clone, Debug)]
struct Scene {
    tier: Tier,
    guarantee: u64,
    forecast: Option<u64>,
    others_guarantee: u64,
    others_forecast: Option<u64>,
    /// In thousandths of what there could be.
    pool: i64,
    claimed: i64,
    others_claimed: i64,
    contract: i64,
    cost: i64,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let tier = prop_oneof![Just(Tier::One), Just(Tier::Two), Just(Tier::Three)];
    let claims = (
        0..400_u64,
        prop::option::of(1..400_u64),
        0..400_u64,
        prop::option::of(1..400_u64),
    );
    let levels = (0..500_i64, 0..1_000_i64, 0..1_000_i64, 0..1_000_i64);
    (tier, claims, levels, 1..200_i64).prop_map(|(tier, claims, levels, cost)| Scene {
        tier,
        guarantee: claims.0,
        forecast: claims.1,
        // One of the two: the larger of both is not a straight line, and the pool's sum of what is protected is made of such lines.
        others_guarantee: if claims.3.is_some() { 0 } else { claims.2 },
        others_forecast: claims.3,
        pool: levels.0,
        claimed: levels.1,
        others_claimed: levels.2,
        contract: levels.3,
        cost,
    })
}

fn set_up(scene: &Scene) -> Gateway {
    let limits = |guarantee| Limits {
        guarantee: per_s(guarantee),
        ..Limits::plain(per_s(500), tokens(DEPTH))
    };
    let contracts = vec![
        contract("asks", scene.tier, &[limits(scene.guarantee)]),
        contract("other", Tier::One, &[limits(scene.others_guarantee)]),
    ];
    let mut gateway = Gateway::new(policy(&[Some(1_000)], contracts), 1, &[0, 1]);
    for (number, forecast, part) in [
        (ASKS, scene.forecast, scene.claimed),
        (OTHER, scene.others_forecast, scene.others_claimed),
    ] {
        if let Some(forecast) = forecast {
            claim(&mut gateway, number, per_s(forecast), None);
        }
        gateway.edit(number, |entry| {
            let holding = entry.holdings.at_mut(FIRST);
            for bucket in [&mut holding.shadow, &mut holding.credit] {
                bucket.level = Micro::new(bucket.level.get() / 1_000 * part);
            }
            if number == ASKS {
                holding.contract.level = Micro::new(DEPTH * 1_000 * scene.contract);
            }
        });
    }
    set_pool(&mut gateway, Micro::new(DEPTH * 1_000 * scene.pool));
    gateway.scan_all();
    gateway
}

/// Whether it is admitted at that time, if nobody has asked for anything before.
fn asks_at(scene: &Scene, at: TimeUs) -> bool {
    let mut gateway = set_up(scene);
    gateway.advance(at.since(gateway.now));
    // Sums of claims are set right by a scan of the pages, and may say a little too much before.
    gateway.scan_all();
    let verdict = gateway.request(0, ASKS, &cost(scene.cost)).unwrap();
    verdict.is_admitted()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_denied_request_is_admitted_at_the_promised_time_and_not_before(scene in scenes()) {
        let mut gateway = set_up(&scene);
        let verdict = gateway.request(0, ASKS, &cost(scene.cost)).unwrap();
        let Verdict::Denied(denial) = verdict else {
            return Ok(());
        };
        prop_assert!(denial.retry_at != TimeUs::NEVER, "all of it can come");
        let wait_us = denial.retry_at.since(gateway.now);
        prop_assert!(asks_at(&scene, denial.retry_at), "denied after {wait_us} us");
        // Two roundings of a micro-token at the slowest rate here.
        if wait_us > 10 {
            prop_assert!(!asks_at(&scene, TimeUs(denial.retry_at.0 - 10)), "admitted before {wait_us} us");
        }
        if wait_us > 1 {
            prop_assert!(!asks_at(&scene, gateway.now.plus_us(wait_us / 2)), "admitted after half of {wait_us} us");
        }
    }
}
