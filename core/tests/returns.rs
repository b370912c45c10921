//! What goes back: when an exchange is undone, when a chunk comes late, when an exemption has ended, when the host fails.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::chunk::{Amounts, Payer};
use forebay_core::ledger::PolicyCustomer;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::policy::{ContractIndex, Limits, PoolRule, Tier};
use forebay_core::{Micro, Policy, Rate, ResourceIndex};
use gateway::{FIRST, Gateway, Rival, contract, cost, customer, per_s, policy, tokens};
use proptest::prelude::*;

fn pooled(limits: Limits, capacity: u64) -> Policy {
    policy(
        &[Some(capacity)],
        vec![contract("gold", Tier::One, &[limits])],
    )
}

/// A stream of requests, so that the worker holds a chunk; what it holds.
fn grow_chunk(gateway: &mut Gateway, worker: usize, number: u64) -> Micro {
    for _ in 0..100 {
        assert!(
            gateway
                .request(worker, number, &cost(1))
                .unwrap()
                .is_admitted()
        );
        gateway.now = gateway.now.plus_us(1_000);
        let held = gateway.workers[worker].chunks[&number]
            .holdings
            .at(FIRST)
            .tokens();
        if held >= tokens(10) {
            return held;
        }
    }
    panic!("the chunk did not grow");
}

#[test]
fn a_draw_that_starts_again_leaves_the_pools_count_of_chunks_as_it_was() {
    let mut gateway = Gateway::new(
        pooled(Limits::plain(Rate::ZERO, tokens(1_000)), 1_000),
        2,
        &[0, 0],
    );
    grow_chunk(&mut gateway, 0, 0);
    grow_chunk(&mut gateway, 1, 1);
    gateway.data.rules = Some((gateway.policy.clone(), gateway.now));
    // The rival comes after the pool was written and before the page is.
    let rival = Rival {
        customer: 0,
        cost: cost(1),
    };
    gateway.data.rivals = [None, Some(rival)].into();
    assert!(gateway.request(0, 0, &cost(50)).unwrap().is_admitted());
    assert_eq!(gateway.data.admitted_by_rivals.len(), 1);
    let drawn = |worker: usize, number| {
        gateway.workers[worker].chunks[&number]
            .holdings
            .at(FIRST)
            .drawn
    };
    let in_chunks = drawn(0, 0).plus(drawn(1, 1));
    assert_eq!(
        gateway.pools().pools.at(FIRST).outstanding.total(),
        in_chunks
    );
}

#[test]
fn a_chunk_that_the_ledger_has_forgotten_brings_no_tokens_back() {
    let mut gateway = Gateway::new(pooled(Limits::plain(per_s(100), tokens(100)), 100), 2, &[0]);
    let held = grow_chunk(&mut gateway, 0, 0);
    assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    // The worker does not tick any more, as after a configuration update; meanwhile the buckets fill without its chunk.
    gateway.now = gateway.now.plus_us(3 * CHUNK_LIFE_US);
    assert!(gateway.request(1, 0, &cost(100)).unwrap().is_admitted());
    let before = gateway.entry(0);
    gateway.give_back(0, 0);
    let after = gateway.entry(0);
    assert_eq!(
        after.holdings.at(FIRST).contract.level,
        Micro::ZERO,
        "{held:?} came late"
    );
    assert_eq!(
        gateway.pools().pools.at(FIRST).bucket.level,
        Micro::ZERO,
        "{held:?} came late"
    );
    assert!(
        after.holdings.at(FIRST).admitted_cum > before.holdings.at(FIRST).admitted_cum,
        "its counts still count"
    );
}

/// Time that it takes after `busy_us` of a request every 20 ms until nothing is left to report of it.
fn reported_after_us(busy_us: u64) -> u64 {
    let mut gateway = Gateway::new(pooled(Limits::plain(per_s(20), tokens(20)), 1_000), 1, &[0]);
    let start = gateway.now;
    let mut asked = Micro::ZERO;
    while gateway.now.since(start) < busy_us {
        // More than it may have, so that denials are counted in the chunk as well.
        gateway.request(0, 0, &cost(1)).unwrap();
        asked = asked.plus(tokens(1));
        gateway.advance(20_000);
    }
    let ended_at = gateway.now;
    let reported = |gateway: &mut Gateway| gateway.entry(0).holdings.at(FIRST).demand_cum();
    while reported(&mut gateway) < asked.get().unsigned_abs() {
        gateway.advance(10_000);
        assert!(gateway.now.since(ended_at) < 1_000_000, "never reported");
    }
    gateway.now.since(ended_at)
}

#[test]
fn what_steady_traffic_has_asked_for_is_reported_soon_after_it_ends() {
    for busy_us in (1_500_000..1_700_000).step_by(20_000) {
        let after_us = reported_after_us(busy_us);
        assert!(after_us <= 300_000, "{after_us} us after {busy_us} us");
    }
}

#[test]
fn what_an_exempt_customer_used_is_no_debt_when_the_exemption_ends() {
    let mut gateway = Gateway::new(pooled(Limits::plain(per_s(1), tokens(10)), 1_000), 1, &[0]);
    let mut wanted = PolicyCustomer::plain(customer(0), ContractIndex(0));
    wanted.exempt = true;
    gateway.install(vec![wanted]);
    for _ in 0..100 {
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    }
    wanted.exempt = false;
    gateway.install(vec![wanted]);
    gateway.give_back_all();
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(10)
    );
    assert_eq!(
        gateway.pools().pools.at(FIRST).bucket.level,
        tokens(900),
        "the pool was used"
    );
}

/// What happens to a pool of [`POOL`] tokens that never refills. Customer 0 is exempt, customer 1 is not.
#[derive(Clone, Debug)]
enum Step {
    Request {
        worker: usize,
        number: u64,
        tokens: i64,
        /// Another worker draws for the customer between the two halves of the exchange.
        has_rival: bool,
    },
    /// The actual cost of a request becomes known.
    Settle {
        pick: prop::sample::Index,
        actual: i64,
    },
    GiveBack {
        worker: usize,
        number: u64,
    },
    /// The chunk makes room for another customer's.
    Evict {
        worker: usize,
        number: u64,
    },
}

const POOL: i64 = 20;

fn step() -> impl Strategy<Value = Step> {
    let (worker, number) = (0..2_usize, 0..2_u64);
    prop_oneof![
        6 => (worker.clone(), number.clone(), 1..30_i64, any::<bool>())
            .prop_map(|(worker, number, tokens, has_rival)| Step::Request { worker, number, tokens, has_rival }),
        4 => (any::<prop::sample::Index>(), 0..40_i64).prop_map(|(pick, actual)| Step::Settle { pick, actual }),
        1 => (worker.clone(), number.clone()).prop_map(|(worker, number)| Step::GiveBack { worker, number }),
        2 => (worker, number).prop_map(|(worker, number)| Step::Evict { worker, number }),
    ]
}

proptest! {
    #[test]
    fn no_more_comes_back_to_a_pool_than_it_has_paid(steps in prop::collection::vec(step(), 1..40), evicts in any::<bool>()) {
        let mut policy = pooled(Limits::plain(Rate::ZERO, tokens(1_000)), 0);
        policy.resources[0].pool = Some(PoolRule { capacity: Rate::ZERO, depth: tokens(POOL) });
        let mut gateway = Gateway::new(policy, 2, &[0, 0]);
        let mut customers = [0, 1].map(|number| PolicyCustomer::plain(customer(number), ContractIndex(0)));
        customers[0].exempt = true;
        gateway.install(customers.to_vec());
        let (mut used, mut charged) = ([0, 0], 0);
        let mut in_flight = Vec::new();
        for step in &steps {
            match *step {
                Step::Request { worker, number, tokens, has_rival } => {
                    gateway.data.rules = Some((gateway.policy.clone(), gateway.now));
                    let rival = has_rival.then_some(Rival { customer: number, cost: cost(1) });
                    gateway.data.rivals = [None, rival].into();
                    if gateway.request(worker, number, &cost(tokens)).unwrap().is_admitted() {
                        in_flight.push((worker, number, tokens));
                        used[number as usize] += tokens;
                        charged += tokens;
                    }
                    gateway.data.rivals.clear();
                    for _ in gateway.data.admitted_by_rivals.drain(..) {
                        used[number as usize] += 1;
                        charged += 1;
                    }
                }
                Step::Settle { pick, actual } if !in_flight.is_empty() => {
                    let (worker, number, estimate) = in_flight.swap_remove(pick.index(in_flight.len()));
                    gateway.settle(worker, number, FIRST, tokens(actual - estimate), Payer::Contract);
                    used[number as usize] += actual - estimate;
                    charged += (actual - estimate).max(0);
                }
                Step::Settle { .. } => {}
                Step::GiveBack { worker, number } => gateway.give_back(worker, number),
                Step::Evict { worker, number } => {
                    gateway.give_back(worker, number);
                    gateway.workers[worker].chunks.remove(&number);
                }
            }
        }
        gateway.give_back_all();
        if evicts {
            gateway.workers.iter_mut().for_each(|worker| worker.chunks.clear());
        }
        for (worker, number, estimate) in in_flight {
            gateway.settle(worker, number, FIRST, tokens(-estimate), Payer::Contract);
            used[number as usize] -= estimate;
        }
        gateway.give_back_all();
        let pool = *gateway.pools().pools.at(FIRST);
        // The pool pays until it owes its depth, and for the exempt customer alone it pays no less than nothing.
        prop_assert!(pool.unpaid >= Micro::ZERO && pool.unpaid <= tokens(used[0]), "{:?}", pool);
        prop_assert!(charged > 2 * POOL || pool.unpaid == Micro::ZERO, "{:?}", pool);
        prop_assert_eq!(pool.bucket.level, tokens(POOL - used[0] - used[1]).plus(pool.unpaid));
    }
}

proptest! {
    #[test]
    fn what_was_borrowed_comes_back_to_the_allowance(
        steps in prop::collection::vec((0..2_usize, prop::array::uniform2(0..6_i64), prop::option::of((any::<prop::sample::Index>(), 0..6_i64))), 1..40),
    ) {
        let limits = Limits { borrow_limit: tokens(15), ..Limits::plain(Rate::ZERO, tokens(20)) };
        let mut gateway = Gateway::new(policy(&[None, None], vec![contract("gold", Tier::One, &[limits; 2])]), 2, &[0]);
        let resources = || ResourceIndex::first(2);
        // Tokens by resource, paid by contract and allowance.
        let (mut contract, mut allowance) = ([0; 2], [0; 2]);
        let mut last_payers = [[Payer::Contract; 2]; 2];
        let mut in_flight = Vec::new();
        for (worker, costs, settles) in steps {
            let mut amounts = Amounts::default();
            for (resource, cost) in resources().zip(costs) {
                *amounts.at_mut(resource) = tokens(cost);
            }
            let is_admitted = gateway.request(worker, 0, &amounts).unwrap().is_admitted();
            for (resource, cost) in resources().zip(costs) {
                let payer = gateway.payer(worker, 0, resource);
                let last = &mut last_payers[worker][resource.position()];
                if !is_admitted || cost == 0 {
                    prop_assert_eq!(payer, *last, "what paid for an earlier request is forgotten");
                    continue;
                }
                *last = payer;
                let paid = if payer == Payer::Allowance { &mut allowance } else { &mut contract };
                paid[resource.position()] += cost;
                in_flight.push((worker, resource, cost, payer));
            }
            let Some((pick, actual)) = settles.filter(|_| !in_flight.is_empty()) else {
                continue;
            };
            let (worker, resource, estimate, payer) = in_flight.swap_remove(pick.index(in_flight.len()));
            let difference = actual.min(estimate) - estimate;
            gateway.settle(worker, 0, resource, tokens(difference), payer);
            let paid = if payer == Payer::Allowance { &mut allowance } else { &mut contract };
            paid[resource.position()] += difference;
        }
        gateway.give_back_all();
        for resource in resources() {
            let holding = *gateway.entry(0).holdings.at(resource);
            prop_assert_eq!(holding.contract.level, tokens(20 - contract[resource.position()]));
            prop_assert_eq!(holding.borrow.level, tokens(15 - allowance[resource.position()]));
        }
    }
}

#[test]
fn tokens_that_reached_the_pool_before_the_host_refused_are_not_in_the_chunk_too() {
    let give_back = |gateway: &mut Gateway| {
        let conditions = gateway.conditions();
        let Gateway {
            data,
            ledger,
            workers,
            ..
        } = gateway;
        let chunk = workers[0].chunks.get_mut(&0).unwrap();
        assert!(
            ledger
                .give_back(data, &conditions, &customer(0), chunk)
                .is_err()
        );
    };
    let draw = |gateway: &mut Gateway| assert!(gateway.request(0, 0, &cost(2_000)).is_err());
    for fails in [give_back as fn(&mut Gateway), draw] {
        let mut policy = pooled(Limits::plain(Rate::ZERO, tokens(1_000)), 0);
        policy.resources[0].pool = Some(PoolRule {
            capacity: Rate::ZERO,
            depth: tokens(1_000),
        });
        let mut gateway = Gateway::new(policy, 1, &[0]);
        grow_chunk(&mut gateway, 0, 0);
        let spent = |gateway: &mut Gateway| {
            let holding = *gateway.workers[0].chunks[&0].holdings.at(FIRST);
            Micro::new(
                gateway
                    .entry(0)
                    .holdings
                    .at(FIRST)
                    .admitted_cum
                    .cast_signed(),
            )
            .plus(holding.spent)
        };
        let all = spent(&mut gateway);
        // The pool is written; neither the page nor the pool again.
        gateway.data.fail_after = Some(1);
        fails(&mut gateway);
        gateway.data.fail_after = None;
        let pool = gateway.pools().pools.at(FIRST).bucket.level;
        let held = gateway.workers[0].chunks[&0].holdings.at(FIRST).tokens();
        assert!(
            pool.plus(held).plus(all) <= tokens(1_000),
            "{pool:?} in the pool, {held:?} in the chunk, {all:?} spent of 1000"
        );
    }
}
