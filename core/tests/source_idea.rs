//! The pseudocode that the shadow bucket comes from, as golden cases.
//!
//! ```text
//! if shadow_tokens >= request_tokens:  deduct from shadow and from standard; SUCCESS
//! else if standard has the tokens:     deduct from standard; raise the prediction; SUCCESS
//! else:                                FAILURE
//! ```
//! We differ in one point, on purpose: the pseudocode deducts from both buckets after looking at one, and may so overdraw the
//! standard bucket without bound. We look at both; `debt_limit` says how far a foreseen request may overdraw.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::policy::{Limits, Tier};
use forebay_core::{Rate, Verdict};
use gateway::{FIRST, Gateway, contract, cost, per_s, policy, tokens};

struct Golden {
    shadow: i64,
    standard: i64,
    debt_limit: i64,
    request: i64,
    verdict: &'static str,
    shadow_after: i64,
    standard_after: i64,
    deviation: i64,
}

const GOLDEN: &[Golden] = &[
    // Scenario 1: enough shadow tokens. Both buckets pay.
    Golden {
        shadow: 10,
        standard: 100,
        debt_limit: 0,
        request: 10,
        verdict: "shadow",
        shadow_after: 0,
        standard_after: 90,
        deviation: 0,
    },
    Golden {
        shadow: 10,
        standard: 100,
        debt_limit: 0,
        request: 3,
        verdict: "shadow",
        shadow_after: 7,
        standard_after: 97,
        deviation: 0,
    },
    // Scenario 2: too few. The standard bucket pays, the deviation is told.
    Golden {
        shadow: 10,
        standard: 100,
        debt_limit: 0,
        request: 11,
        verdict: "standard",
        shadow_after: 10,
        standard_after: 89,
        deviation: 11,
    },
    Golden {
        shadow: 0,
        standard: 100,
        debt_limit: 0,
        request: 100,
        verdict: "standard",
        shadow_after: 0,
        standard_after: 0,
        deviation: 100,
    },
    // Neither has them.
    Golden {
        shadow: 10,
        standard: 20,
        debt_limit: 0,
        request: 21,
        verdict: "contract",
        shadow_after: 10,
        standard_after: 20,
        deviation: 0,
    },
    Golden {
        shadow: 0,
        standard: 0,
        debt_limit: 0,
        request: 1,
        verdict: "contract",
        shadow_after: 0,
        standard_after: 0,
        deviation: 0,
    },
    // Where the pseudocode would overdraw the standard bucket: refused, unless the policy allows the debt.
    Golden {
        shadow: 10,
        standard: 5,
        debt_limit: 0,
        request: 10,
        verdict: "contract",
        shadow_after: 10,
        standard_after: 5,
        deviation: 0,
    },
    Golden {
        shadow: 10,
        standard: 5,
        debt_limit: 5,
        request: 10,
        verdict: "shadow",
        shadow_after: 0,
        standard_after: -5,
        deviation: 0,
    },
    Golden {
        shadow: 10,
        standard: 5,
        debt_limit: 4,
        request: 10,
        verdict: "contract",
        shadow_after: 10,
        standard_after: 5,
        deviation: 0,
    },
    Golden {
        shadow: 9,
        standard: 5,
        debt_limit: 50,
        request: 10,
        verdict: "contract",
        shadow_after: 9,
        standard_after: 5,
        deviation: 0,
    },
];

#[test]
fn the_pseudocode_holds_with_both_buckets_checked() {
    for (number, golden) in GOLDEN.iter().enumerate() {
        let limits = Limits {
            debt_limit: tokens(golden.debt_limit),
            ..Limits::plain(Rate::ZERO, tokens(100))
        };
        let mut gateway = Gateway::new(
            policy(&[Some(1_000)], vec![contract("gold", Tier::One, &[limits])]),
            1,
            &[0],
        );
        gateway.edit(0, |entry| {
            entry.set_shadow(FIRST, per_s(20), 500_000);
            let holding = entry.holdings.at_mut(FIRST);
            holding.shadow.level = tokens(golden.shadow);
            holding.contract.level = tokens(golden.standard);
        });
        let verdict = gateway.request(0, 0, &cost(golden.request)).unwrap();
        let entry = gateway.entry(0);
        let holding = entry.holdings.at(FIRST);
        assert_eq!(verdict.word(), golden.verdict, "case {number}");
        assert_eq!(
            holding.shadow.level,
            tokens(golden.shadow_after),
            "shadow bucket of case {number}"
        );
        assert_eq!(
            holding.contract.level,
            tokens(golden.standard_after),
            "standard bucket of case {number}"
        );
        assert_eq!(
            holding.deviation_cum,
            golden.deviation as u64 * 1_000_000,
            "deviation of case {number}"
        );
    }
}

#[test]
fn a_soft_reservation_deducts_nothing_from_the_pool() {
    let limits = Limits::plain(per_s(100), tokens(100));
    let mut gateway = Gateway::new(
        policy(&[Some(1_000)], vec![contract("gold", Tier::One, &[limits])]),
        1,
        &[0, 0],
    );
    let before = gateway.pools().pools.at(FIRST).bucket.level;
    gateway.edit(0, |entry| entry.set_shadow(FIRST, per_s(100), 500_000));
    gateway.scan_all();
    assert_eq!(gateway.pools().pools.at(FIRST).bucket.level, before);
    assert_eq!(
        gateway.pools().pools.at(FIRST).protected.bucket.level,
        tokens(50)
    );
}

#[test]
fn what_a_predicted_customer_does_not_use_is_there_for_others_at_once() {
    // Scenario 3: the claim is on the pool, not out of it; unused claims leave the pool full.
    let limits = Limits::plain(per_s(1_000), tokens(1_000));
    let mut gateway = Gateway::new(
        policy(&[Some(100)], vec![contract("gold", Tier::One, &[limits])]),
        1,
        &[0, 0],
    );
    gateway.edit(0, |entry| entry.set_shadow(FIRST, per_s(100), 500_000));
    gateway.scan_all();
    let mut admitted = 0;
    for _ in 0..10_000 {
        admitted += i64::from(gateway.request(0, 1, &cost(1)).unwrap().is_admitted());
        gateway.advance(1_000);
    }
    assert!(
        admitted >= 50 + 1_000 - 2,
        "capacity 100/s for 10 s and half of the pool's depth, not {admitted}"
    );
    assert_eq!(
        gateway.request(0, 0, &cost(1)).unwrap(),
        Verdict::Shadow,
        "and its owner still has priority"
    );
}
