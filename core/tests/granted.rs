//! What was granted is somewhere: in the bucket, in a worker's chunk, spent, or given back. Nothing refills here, so that the sum of
//! what was moved must agree with the rest at any time.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::grant::{Grant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::policy::{Limits, Tier};
use forebay_core::{Micro, Rate, TimeUs};
use gateway::{FIRST, Gateway, Rival, contract, cost, policy, tokens};
use proptest::prelude::*;

const WORKERS: usize = 2;
const DEPTH: i64 = 60;

#[derive(Clone, Debug)]
enum Step {
    /// The sum of all grants changes by so much, and the depth becomes `cap`.
    Grant {
        change: i64,
        cap: i64,
    },
    GrantPool {
        change: i64,
        cap: i64,
    },
    Request {
        worker: usize,
        tokens: i64,
        rivals: Vec<Option<i64>>,
    },
    Stream {
        worker: usize,
        count: u32,
        gap_us: u64,
    },
    Settle {
        worker: usize,
        difference: i64,
    },
    Advance {
        us: u64,
    },
    GiveBack {
        worker: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    let grant = || (-10..30_i64, 0..DEPTH);
    prop_oneof![
        3 => grant().prop_map(|(change, cap)| Step::Grant { change, cap }),
        2 => grant().prop_map(|(change, cap)| Step::GrantPool { change, cap }),
        5 => (worker.clone(), 0..6_i64, prop::collection::vec(prop::option::of(1..4_i64), 0..3))
            .prop_map(|(worker, tokens, rivals)| Step::Request { worker, tokens, rivals }),
        5 => (worker.clone(), 1..40_u32, 0..2_000_u64)
            .prop_map(|(worker, count, gap_us)| Step::Stream { worker, count, gap_us }),
        2 => (worker.clone(), -8..8_i64).prop_map(|(worker, difference)| Step::Settle { worker, difference }),
        2 => (0..450_000_u64).prop_map(|us| Step::Advance { us }),
        2 => worker.prop_map(|worker| Step::GiveBack { worker }),
    ]
}

struct Run {
    gateway: Gateway,
    granted: u64,
    granted_pool: u64,
}

impl Run {
    fn new() -> Run {
        let limits = Limits::plain(Rate::ZERO, tokens(DEPTH));
        let rows = vec![contract("gold", Tier::One, &[limits])];
        let mut gateway = Gateway::new(policy(&[Some(DEPTH as u64)], rows), WORKERS, &[0]);
        let lease = Lease::Granted {
            from: gateway.now,
            until: TimeUs(u64::MAX / 2),
            fallback_until: TimeUs(u64::MAX / 2),
            void_before: TimeUs(0),
        };
        gateway
            .ledger
            .edit_state(&mut gateway.data, |state| state.lease = lease)
            .unwrap();
        let mut run = Run {
            gateway,
            granted: 0,
            granted_pool: 0,
        };
        run.step(&Step::Grant { change: 0, cap: 0 });
        run.step(&Step::GrantPool { change: 0, cap: 0 });
        run
    }

    fn step(&mut self, step: &Step) {
        let gateway = &mut self.gateway;
        match *step {
            Step::Grant { change, cap } => {
                self.granted = self.granted.wrapping_add_signed(change * 1_000_000);
                let grant = grant(self.granted, cap);
                let (policy, now) = (gateway.policy.clone(), gateway.now);
                let lease = gateway.ledger.state().lease;
                gateway.edit(0, |entry| {
                    entry.apply_grant(FIRST, &grant, &policy, &lease, now)
                });
            }
            Step::GrantPool { change, cap } => {
                self.granted_pool = self.granted_pool.wrapping_add_signed(change * 1_000_000);
                let grant = grant(self.granted_pool, cap);
                let conditions = gateway.conditions();
                gateway
                    .ledger
                    .edit_pools(&mut gateway.data, &conditions, |pools| {
                        let (policy, lease, now) =
                            (conditions.policy, conditions.lease, conditions.now);
                        pools.apply_grant(FIRST, &grant, policy, &lease, now);
                    })
                    .unwrap();
            }
            Step::Request {
                worker,
                tokens,
                ref rivals,
            } => {
                let rival = |tokens| Rival {
                    customer: 0,
                    cost: cost(tokens),
                };
                gateway.data.rules = Some((gateway.policy.clone(), gateway.now));
                gateway.data.rivals = rivals.iter().map(|each| each.map(rival)).collect();
                gateway.request(worker, 0, &cost(tokens)).unwrap();
                gateway.data.rivals.clear();
            }
            Step::Stream {
                worker,
                count,
                gap_us,
            } => {
                for _ in 0..count {
                    gateway.request(worker, 0, &cost(1)).unwrap();
                    gateway.advance(gap_us);
                }
            }
            Step::Settle { worker, difference } => {
                gateway.settle(worker, 0, FIRST, tokens(difference));
            }
            Step::Advance { us } => gateway.advance(us),
            Step::GiveBack { worker } => gateway.give_back(worker, 0),
        }
    }

    fn check(&mut self) {
        let (mut held, mut spent) = (Micro::ZERO, Micro::ZERO);
        for chunk in self.gateway.workers.iter().flat_map(|w| w.chunks.values()) {
            let holding = chunk.holdings.at(FIRST);
            held = held.plus(holding.tokens()).plus(holding.refund);
            spent = spent.plus(holding.spent);
        }
        let entry = self.gateway.entry(0);
        let holding = entry.holdings.at(FIRST);
        let in_use = held.plus(spent);
        let found = holding.contract.level.plus(in_use).get() + holding.admitted_cum.cast_signed();
        assert_eq!(
            holding.moved_cum.cast_signed(),
            found,
            "contract tokens: {held:?} in chunks, {holding:?}"
        );
        let pools = self.gateway.pools();
        let pool = pools.pools.at(FIRST);
        let found = pool.bucket.level.plus(in_use).get() + pool.spent_cum.cast_signed();
        assert_eq!(
            pool.moved_cum.cast_signed(),
            found,
            "pool tokens: {held:?} in chunks, {pool:?}"
        );
        for (level, cap) in [
            (holding.contract.level, holding.terms.cap),
            (pool.bucket.level, pool.granted.unwrap_or_default().cap),
        ] {
            assert!(level <= cap, "{level:?} in a bucket of {cap:?}");
        }
    }
}

fn grant(granted_cum: u64, cap: i64) -> Grant {
    Grant {
        terms: GrantTerms {
            cap: tokens(cap),
            ..GrantTerms::default()
        },
        granted_cum,
        ..Grant::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_token_that_was_moved_is_in_one_place(steps in prop::collection::vec(step(), 1..80)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            run.check();
        }
    }
}
