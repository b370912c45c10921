//! Who pays for what a draw moves: claims, credit, the pool's sums, the floor of a tier; and who is forgotten first.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::ledger::{PolicyCustomer, Region};
use forebay_core::limits::MAX_OTHER_PAGE_ENTRIES;
use forebay_core::policy::{ContractIndex, Limits, Tier, Unknown};
use forebay_core::{Micro, Policy, Rate, Reason, Verdict};
use gateway::{FIRST, Gateway, contract, cost, customer, per_s, policy, tokens};

/// A guarantee of 40/s, of which a quarter of a second is credit: 10 tokens.
fn guaranteed() -> Limits {
    Limits {
        guarantee: per_s(40),
        ..Limits::plain(per_s(100), tokens(1_000))
    }
}

fn pooled(tier: Tier, limits: Limits, capacity: u64) -> Policy {
    policy(&[Some(capacity)], vec![contract("gold", tier, &[limits])])
}

/// A forecast of `rate`, of which the bucket holds half a second.
fn predict(gateway: &mut Gateway, number: u64, rate: u64) {
    gateway.edit(number, |entry| {
        entry.set_shadow(FIRST, per_s(rate), 500_000)
    });
    gateway.scan_all();
}

/// The pool's sums as they run, and as a lap of the scan finds them.
fn sums(gateway: &mut Gateway) -> [(Micro, Micro); 2] {
    let levels = |gateway: &mut Gateway| {
        let pool = *gateway.pools().pools.at(FIRST);
        (pool.protected.bucket.level, pool.credit.bucket.level)
    };
    let running = levels(gateway);
    gateway.scan_all();
    [running, levels(gateway)]
}

#[test]
fn what_is_paid_is_no_longer_protected() {
    let mut gateway = Gateway::new(pooled(Tier::One, guaranteed(), 1_000), 1, &[0, 0]);
    gateway.scans = false;
    predict(&mut gateway, 0, 60);
    for amount in [4, 4, 9, 15, 1] {
        for number in [0, 1] {
            gateway.request(0, number, &cost(amount)).unwrap();
            let [running, found] = sums(&mut gateway);
            assert_eq!(running, found, "{amount} of customer {number}");
        }
    }
    // A chunk on the claim, and its way back.
    for _ in 0..30 {
        gateway.now = gateway.now.plus_us(1_000);
        gateway.scan_all();
        gateway.request(0, 0, &cost(1)).unwrap();
        let [running, found] = sums(&mut gateway);
        assert_eq!(running, found);
    }
    gateway.give_back_all();
    let [running, found] = sums(&mut gateway);
    assert_eq!(running, found, "given back");
}

#[test]
fn a_guaranteed_request_pays_with_its_claim_too() {
    let mut gateway = Gateway::new(pooled(Tier::One, guaranteed(), 1_000), 1, &[0]);
    predict(&mut gateway, 0, 60);
    assert_eq!(gateway.request(0, 0, &cost(8)).unwrap(), Verdict::Shadow);
    let holding = *gateway.entry(0).holdings.at(FIRST);
    assert_eq!(
        (holding.credit.level, holding.shadow.level),
        (tokens(2), tokens(22))
    );
}

#[test]
fn a_chunk_on_the_claim_takes_what_the_credit_protects_and_brings_the_claim_back() {
    let mut gateway = Gateway::new(pooled(Tier::One, guaranteed(), 1_000), 1, &[0]);
    predict(&mut gateway, 0, 200);
    let (mut drawn, mut credit) = (Micro::ZERO, Micro::ZERO);
    while drawn == Micro::ZERO {
        gateway.now = gateway.now.plus_us(100);
        credit = gateway.entry(0).holdings.at(FIRST).credit.level;
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
        drawn = gateway.workers[0].chunks[&0].holdings.at(FIRST).claimed;
    }
    let holding = *gateway.entry(0).holdings.at(FIRST);
    assert_eq!(
        holding.credit.level,
        credit.minus(tokens(1)).minus(drawn),
        "what the credit protected lies in the chunk now"
    );
    let before = holding.shadow.level;
    gateway.give_back(0, 0);
    let after = gateway.entry(0).holdings.at(FIRST).shadow.level;
    assert_eq!(after.minus(before), drawn, "the claim is there again");
}

#[test]
fn a_tier_leaves_its_floor_in_the_pool() {
    for (tier, admitted) in [(Tier::One, 100), (Tier::Two, 90), (Tier::Three, 75)] {
        let limits = Limits::plain(per_s(1_000), tokens(1_000));
        let mut gateway = Gateway::new(pooled(tier, limits, 100), 1, &[0]);
        assert!(
            gateway
                .request(0, 0, &cost(admitted))
                .unwrap()
                .is_admitted()
        );
        let Verdict::Denied(denial) = gateway.request(0, 0, &cost(1)).unwrap() else {
            panic!("{tier:?} may not take the floor");
        };
        assert_eq!(denial.reason, Reason::Pool);
    }
}

#[test]
fn exempt_customers_let_the_pool_owe_no_more_than_its_depth() {
    let mut gateway = Gateway::new(
        pooled(Tier::One, Limits::plain(per_s(1), tokens(10)), 100),
        1,
        &[0],
    );
    let mut wanted = PolicyCustomer::plain(customer(0), ContractIndex(0));
    wanted.exempt = true;
    gateway.install(vec![wanted]);
    for _ in 0..3 {
        for _ in 0..200 {
            assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
        }
        gateway.give_back_all();
        let level = gateway.pools().pools.at(FIRST).bucket.level;
        assert!(level >= tokens(-100), "{level:?}");
    }
}

fn strangers(rate: Rate) -> Gateway {
    let policy = Policy {
        unknown: Unknown::DefaultContract(ContractIndex(0)),
        ..policy(
            &[None],
            vec![contract(
                "gold",
                Tier::One,
                &[Limits::plain(rate, tokens(100))],
            )],
        )
    };
    Gateway::new(policy, 1, &[])
}

/// Who is on the page of strangers.
fn is_remembered(gateway: &mut Gateway, number: u64) -> bool {
    let view = gateway
        .ledger
        .view_page(&mut gateway.data, Region::Other, 0)
        .unwrap();
    view.find(&customer(number)).is_some()
}

#[test]
fn the_stranger_that_was_unused_for_longest_is_forgotten_first() {
    let mut gateway = strangers(per_s(1));
    let all = u64::from(MAX_OTHER_PAGE_ENTRIES);
    for number in 0..all {
        gateway.now = gateway.now.plus_us(1_000);
        gateway.request(0, number, &cost(1)).unwrap();
    }
    // Their chunks go back in another order, and each return is a use.
    for number in (0..all).map(|number| (number + 5) % all) {
        gateway.now = gateway.now.plus_us(1_000);
        gateway.give_back(0, number);
    }
    gateway.request(0, 99, &cost(1)).unwrap();
    assert!(is_remembered(&mut gateway, 99));
    let forgotten: Vec<u64> = (0..all)
        .filter(|number| !is_remembered(&mut gateway, *number))
        .collect();
    assert_eq!(forgotten, [5]);
}

#[test]
fn a_stranger_whose_tokens_lie_in_a_chunk_is_not_forgotten() {
    let mut gateway = strangers(per_s(100));
    let mut held = Micro::ZERO;
    while held == Micro::ZERO {
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
        gateway.now = gateway.now.plus_us(1_000);
        held = gateway.workers[0].chunks[&0].holdings.at(FIRST).drawn;
    }
    for number in 1..=40 {
        gateway.now = gateway.now.plus_us(1_000);
        gateway.request(0, number, &cost(1)).unwrap();
    }
    assert!(is_remembered(&mut gateway, 0));
}
