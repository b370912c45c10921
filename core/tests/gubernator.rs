//! The bucket cases of gubernator's own test, under the names that they have there (gubernator-io/gubernator, Apache-2.0,
//! `functional_test.go`).
//!
//! Its "leaky bucket" is our standard bucket: it refills all the time, up to a burst, and a request that wants more than there is takes
//! nothing. Its "token bucket" fills at the end of a window instead; of those cases only what does not depend on that is here.
//! Left out: `TestDrainOverLimit`, because a denied request of ours takes nothing; the Gregorian windows; `TestMissingFields`, which
//! is a matter of a policy's reader; and the `Global` cases, which are about several gateways.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::chunk::Payer;
use forebay_core::limits::US_PER_S;
use forebay_core::policy::{Limits, Tier};
use forebay_core::{Rate, Verdict};
use gateway::{FIRST, Gateway, contract, cost, policy, tokens};

struct Case {
    name: &'static str,
    /// So many in so much time.
    limit: u64,
    duration_ms: u64,
    burst: i64,
    steps: &'static [Step],
}

struct Step {
    /// Time from the step before.
    after_ms: u64,
    /// Tokens wanted; fewer than none give back.
    hits: i64,
    is_under_limit: bool,
    remaining: i64,
}

/// So many hits are admitted.
const fn under(after_ms: u64, hits: i64, remaining: i64) -> Step {
    Step {
        after_ms,
        hits,
        is_under_limit: true,
        remaining,
    }
}

/// So many hits are denied.
const fn over(after_ms: u64, hits: i64, remaining: i64) -> Step {
    Step {
        after_ms,
        hits,
        is_under_limit: false,
        remaining,
    }
}

const MORE_THAN_AVAILABLE: &[Step] = &[
    under(0, 1_000, 1_000),
    over(0, 1_500, 1_000),
    under(0, 500, 500),
    under(0, 400, 100),
    under(0, 100, 0),
    over(0, 1, 0),
];

const CASES: &[Case] = &[
    Case {
        name: "TestOverTheLimit",
        limit: 2,
        duration_ms: 9_000,
        burst: 2,
        steps: &[under(0, 1, 1), under(0, 1, 0), over(0, 1, 0)],
    },
    Case {
        name: "TestTokenBucket",
        limit: 2,
        duration_ms: 5,
        burst: 2,
        steps: &[under(0, 1, 1), under(0, 1, 0), under(100, 1, 1)],
    },
    Case {
        name: "TestTokenBucketNegativeHits, but never above the burst",
        limit: 2,
        duration_ms: 5_000,
        burst: 2,
        steps: &[
            under(0, -1, 2),
            under(0, -1, 2),
            under(0, 2, 0),
            under(0, -1, 1),
        ],
    },
    Case {
        name: "TestTokenBucketRequestMoreThanAvailable",
        limit: 2_000,
        duration_ms: 1_000,
        burst: 2_000,
        steps: MORE_THAN_AVAILABLE,
    },
    Case {
        name: "TestLeakyBucketRequestMoreThanAvailable",
        limit: 2_000,
        duration_ms: 1_000,
        burst: 2_000,
        steps: MORE_THAN_AVAILABLE,
    },
    Case {
        name: "TestLeakyBucket",
        limit: 10,
        duration_ms: 30_000,
        burst: 10,
        steps: &[
            under(0, 1, 9),
            under(1_000, 1, 8),
            under(1_000, 1, 7),
            under(1_500, 0, 8),
            under(3_000, 0, 9),
            under(0, 9, 0),
            over(0, 1, 0),
            under(3_000, 0, 1),
            under(60_000, 0, 10),
            under(60_000, 10, 0),
            under(29_000, 9, 0),
            under(3_000, 1, 0),
        ],
    },
    Case {
        name: "TestLeakyBucketWithBurst",
        limit: 10,
        duration_ms: 30_000,
        burst: 20,
        steps: &[
            under(0, 1, 19),
            under(1_000, 1, 18),
            under(1_000, 1, 17),
            under(1_500, 0, 18),
            under(3_000, 0, 19),
            under(0, 19, 0),
            over(0, 1, 0),
            under(3_000, 0, 1),
            under(60_000, 0, 20),
        ],
    },
    Case {
        name: "TestLeakyBucketNegativeHits",
        limit: 10,
        duration_ms: 30_000,
        burst: 10,
        steps: &[
            under(0, 1, 9),
            under(0, -1, 10),
            under(0, 10, 0),
            under(0, -1, 1),
        ],
    },
];

impl Case {
    /// One customer of a stand-alone gateway. A rate is whole micro-tokens a second: rounded up, so that a token is there when it should be.
    fn gateway(&self) -> Gateway {
        let rate_micro = (self.limit * 1_000_000 * 1_000).div_ceil(self.duration_ms);
        let limits = Limits::plain(Rate::new(rate_micro), tokens(self.burst));
        Gateway::new(
            policy(&[None], vec![contract("gold", Tier::One, &[limits])]),
            1,
            &[0],
        )
    }
}

/// Whole tokens that are left, with nothing in the worker's chunk.
fn remaining(gateway: &mut Gateway) -> i64 {
    gateway.give_back(0, 0);
    let level = gateway.entry(0).holdings.at(FIRST).contract.level;
    level.get().div_euclid(1_000_000)
}

#[test]
fn buckets_answer_as_gubernators_do() {
    for case in CASES {
        let mut gateway = case.gateway();
        for (number, step) in case.steps.iter().enumerate() {
            gateway.advance(step.after_ms * US_PER_S / 1_000);
            let is_under_limit = if step.hits < 0 {
                gateway.settle(0, 0, FIRST, tokens(step.hits), Payer::Contract);
                true
            } else {
                let verdict = gateway.request(0, 0, &cost(step.hits)).unwrap();
                !matches!(verdict, Verdict::Denied(_))
            };
            let found = (is_under_limit, remaining(&mut gateway));
            assert_eq!(
                found,
                (step.is_under_limit, step.remaining),
                "{}, step {}",
                case.name,
                number + 1
            );
        }
    }
}
