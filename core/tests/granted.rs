//! What was granted, and nothing else, is in the bucket, in a worker's chunk, spent, or given back.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::chunk::Payer;
use forebay_core::draw::Conditions;
use forebay_core::grant::{Grant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::ledger::{Ledger, LedgerSize, MemoryData, Mode};
use forebay_core::policy::{Limits, Tier};
use forebay_core::{Micro, Policy, Rate, TimeUs, Verdict};
use gateway::{FIRST, Gateway, Rival, admitted, contract, cost, per_s, policy, tokens};
use proptest::prelude::*;

const WORKERS: usize = 2;
const DEPTH: i64 = 60;

/// What happens to a customer and a pool without any refill, so that the sum of what was moved must agree with the rest at any time.
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
    let change = || (-10..30_i64, 0..DEPTH);
    prop_oneof![
        3 => change().prop_map(|(change, cap)| Step::Grant { change, cap }),
        2 => change().prop_map(|(change, cap)| Step::GrantPool { change, cap }),
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
        let lease = Lease::Waiting.renewed(gateway.now, TimeUs(u64::MAX / 2), TimeUs(u64::MAX / 2));
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
                let grant = sum(self.granted, cap);
                let (policy, now) = (gateway.policy.clone(), gateway.now);
                let lease = gateway.ledger.state().lease;
                gateway.edit(0, |entry| {
                    entry.apply_grant(FIRST, &grant, &policy, &lease, now)
                });
            }
            Step::GrantPool { change, cap } => {
                self.granted_pool = self.granted_pool.wrapping_add_signed(change * 1_000_000);
                let grant = sum(self.granted_pool, cap);
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
                gateway.settle(worker, 0, FIRST, tokens(difference), Payer::Contract);
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

fn sum(granted_cum: u64, cap: i64) -> Grant {
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

fn plain(rate: u64, burst: i64) -> Policy {
    policy(
        &[None],
        vec![contract(
            "gold",
            Tier::One,
            &[Limits::plain(per_s(rate), tokens(burst))],
        )],
    )
}

fn granted(rate: u64, burst: i64) -> Gateway {
    let mut gateway = Gateway::new(plain(rate, burst), 1, &[0]);
    let (now, until) = (gateway.now, gateway.now.plus_us(5_000_000));
    let lease = Lease::Waiting.renewed(now, until, until.plus_us(10_000_000));
    gateway
        .ledger
        .edit_state(&mut gateway.data, |state| state.lease = lease)
        .unwrap();
    gateway
}

fn grant(gateway: &mut Gateway, grant: Grant) {
    let (policy, now, lease) = (
        gateway.policy.clone(),
        gateway.now,
        gateway.ledger.state().lease,
    );
    gateway.edit(0, |entry| {
        entry.apply_grant(FIRST, &grant, &policy, &lease, now)
    });
}

#[test]
fn with_a_control_plane_a_customer_holds_what_was_granted_and_nothing_else() {
    let mut gateway = granted(10, 50);
    assert_eq!(gateway.ledger.state().mode(), Mode::Granted);
    assert_eq!(admitted(&mut gateway, 0, 0), 0);
    let terms = GrantTerms {
        rate: per_s(5),
        cap: tokens(20),
        fallback_rate: per_s(1),
    };
    let first = Grant {
        terms,
        granted_cum: 8_000_000,
        ..Grant::default()
    };
    grant(&mut gateway, first);
    grant(&mut gateway, first);
    gateway.restart(0);
    assert_eq!(
        admitted(&mut gateway, 0, 0),
        8,
        "the repeated grant moved nothing"
    );
    gateway.advance(1_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 5);
    // 4 s of the lease are left, then the fallback rate flows for 10 s, then nothing.
    gateway.advance(4_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 20);
    gateway.advance(9_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 9);
    // What is left when the fallback ends has been counted as spent by the control plane.
    gateway.advance(1_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 0);
    let verdict = gateway.request(0, 0, &cost(1)).unwrap();
    assert!(
        matches!(verdict, Verdict::Denied(denial) if denial.retry_at == TimeUs::NEVER),
        "{verdict:?}"
    );
}

#[test]
fn a_customer_of_whom_nothing_lies_here_may_try_again_while_the_control_plane_can_move_something() {
    let mut gateway = granted(10, 50);
    let retry_at = |gateway: &mut Gateway| match gateway.request(0, 0, &cost(1)).unwrap() {
        Verdict::Denied(denial) => denial.retry_at,
        verdict => panic!("{verdict:?}"),
    };
    let a_token_later = gateway.now.plus_us(100_000);
    assert_eq!(retry_at(&mut gateway), a_token_later);
    gateway.advance(5_000_000);
    assert_eq!(retry_at(&mut gateway), TimeUs::NEVER);
}

#[test]
fn an_operators_credit_moves_once_and_never_above_the_cap() {
    let mut gateway = granted(10, 50);
    let terms = GrantTerms {
        rate: Rate::ZERO,
        cap: tokens(20),
        fallback_rate: Rate::ZERO,
    };
    grant(
        &mut gateway,
        Grant {
            terms,
            granted_cum: 5_000_000,
            ..Grant::default()
        },
    );
    let credited = Grant {
        terms,
        granted_cum: 5_000_000,
        adjust_cum: 100_000_000,
        ..Grant::default()
    };
    for _ in 0..3 {
        grant(&mut gateway, credited);
    }
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).moved_cum,
        20_000_000,
        "what did not fit has gone back"
    );
    assert_eq!(admitted(&mut gateway, 0, 0), 20);
    // Long enough for the spent chunk to be forgotten.
    gateway.advance(4_500_000);
    let taken_back = Grant {
        granted_cum: 5_000_000_u64.wrapping_sub(85_000_000),
        ..credited
    };
    grant(&mut gateway, taken_back);
    assert_eq!(
        admitted(&mut gateway, 0, 0),
        0,
        "what the control plane has taken back is not here too"
    );
}

#[test]
fn what_a_lowered_depth_has_no_room_for_goes_back_and_chunks_stay_out() {
    let mut gateway = granted(0, 50);
    let sum = Grant {
        terms: GrantTerms {
            cap: tokens(50),
            ..GrantTerms::default()
        },
        granted_cum: 40_000_000,
        ..Grant::default()
    };
    grant(&mut gateway, sum);
    gateway.edit(0, |entry| {
        let holding = entry.holdings.at_mut(FIRST);
        holding.contract.take(tokens(16));
        holding.outstanding.lend(tokens(16));
    });
    let lower = Grant {
        terms: GrantTerms {
            cap: tokens(10),
            ..GrantTerms::default()
        },
        ..sum
    };
    grant(&mut gateway, lower);
    let holding = *gateway.entry(0).holdings.at(FIRST);
    assert_eq!(
        (holding.contract.level, holding.moved_cum),
        (Micro::ZERO, 16_000_000),
        "the chunk fills the depth and more, and what lay beside it has gone back"
    );
}

#[test]
fn an_entry_that_gave_everything_back_is_not_taken_for_a_new_one() {
    let mut gateway = granted(5, 50);
    let with = |rate, cap, granted_cum| Grant {
        terms: GrantTerms {
            rate: per_s(rate),
            cap: tokens(cap),
            fallback_rate: Rate::ZERO,
        },
        granted_cum,
        base_cum: 5_000_000,
        ..Grant::default()
    };
    grant(&mut gateway, with(5, 50, 5_000_000));
    gateway.advance(1_000_000);
    grant(&mut gateway, with(0, 0, 5_000_000));
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).moved_cum,
        0,
        "what has flowed goes back like what was moved"
    );
    grant(&mut gateway, with(0, 50, 3_000_000));
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(3)
    );
}

#[test]
fn a_pool_of_the_gateways_own_has_nothing_to_give_back() {
    let limits = Limits::plain(per_s(10), tokens(50));
    let rows = vec![contract("gold", Tier::One, &[limits])];
    let mut gateway = Gateway::new(policy(&[Some(100)], rows), 1, &[0]);
    let conditions = Conditions {
        lease: Lease::Waiting.renewed(
            gateway.now,
            gateway.now.plus_us(5_000_000),
            gateway.now.plus_us(5_000_000),
        ),
        ..gateway.conditions()
    };
    let mut pools = gateway.pools();
    assert_eq!(pools.pools.at(FIRST).bucket.level, tokens(100));
    let grant = Grant {
        terms: GrantTerms {
            cap: tokens(40),
            ..GrantTerms::default()
        },
        granted_cum: 30_000_000,
        ..Grant::default()
    };
    pools.apply_grant(
        FIRST,
        &grant,
        conditions.policy,
        &conditions.lease,
        gateway.now,
    );
    let pool = pools.pools.at(FIRST);
    assert_eq!(
        (pool.bucket.level, pool.moved_cum),
        (tokens(30), 30_000_000)
    );
}

#[test]
fn with_a_control_plane_the_pool_holds_what_was_granted_and_nothing_else() {
    let gold = contract(
        "gold",
        Tier::One,
        &[Limits::plain(per_s(10), tokens(1_000))],
    );
    let mut gateway = Gateway::new(policy(&[Some(100)], vec![gold]), 1, &[]);
    gateway.data.inner = MemoryData::default();
    let size = LedgerSize {
        max_policy_customers: 32,
        max_other_customers: 4,
    };
    gateway.ledger = Ledger::seed(
        &mut gateway.data,
        size,
        &gateway.policy,
        Lease::Waiting,
        gateway.now,
    )
    .unwrap();
    let level = |gateway: &mut Gateway| gateway.pools().pools.at(FIRST).bucket.level;
    // As a stand-alone gateway sees it, where no missing grant hides what is there.
    let conditions = Conditions {
        lease: Lease::StandAlone,
        ..gateway.conditions()
    };
    let seeded = gateway
        .ledger
        .pools(&mut gateway.data, &conditions)
        .unwrap();
    assert_eq!(seeded.pools.at(FIRST).bucket.level, Micro::ZERO);
    let until = gateway.now.plus_us(5_000_000);
    gateway
        .ledger
        .edit_state(&mut gateway.data, |state| {
            state.lease = state.lease.renewed(gateway.now, until, until);
        })
        .unwrap();
    gateway.now = gateway.now.plus_us(200_000);
    assert_eq!(level(&mut gateway), Micro::ZERO, "the lease brings no rate");
    let grant = Grant {
        terms: GrantTerms {
            rate: per_s(40),
            cap: tokens(60),
            fallback_rate: per_s(0),
        },
        granted_cum: 30_000_000,
        ..Grant::default()
    };
    let conditions = gateway.conditions();
    let (policy, lease, now) = (conditions.policy, conditions.lease, conditions.now);
    gateway
        .ledger
        .edit_pools(&mut gateway.data, &conditions, |pools| {
            pools.apply_grant(FIRST, &grant, policy, &lease, now);
        })
        .unwrap();
    assert_eq!(level(&mut gateway), tokens(30));
    gateway.now = gateway.now.plus_us(500_000);
    assert_eq!(level(&mut gateway), tokens(50));
    gateway.now = gateway.now.plus_us(500_000);
    assert_eq!(level(&mut gateway), tokens(60));
}

#[test]
fn a_lease_that_is_renewed_late_takes_nothing_from_customers_that_were_idle() {
    let mut gateway = granted(10, 50);
    let first = Grant {
        terms: GrantTerms {
            rate: per_s(10),
            cap: tokens(50),
            fallback_rate: per_s(1),
        },
        ..Grant::default()
    };
    grant(&mut gateway, first);
    // Idle for 3 of the 5 s of the lease, for 2 s of its fallback and for half a second of the next lease.
    gateway.advance(2_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 20);
    gateway.advance(5_000_000);
    let now = gateway.now;
    gateway
        .ledger
        .edit_state(&mut gateway.data, |state| {
            state.lease = state
                .lease
                .renewed(now, now.plus_us(5_000_000), now.plus_us(15_000_000));
        })
        .unwrap();
    gateway.advance(500_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 30 + 2 + 5);
}

#[test]
fn what_a_pool_is_granted_or_gets_back_when_its_lease_is_over_is_void_at_once() {
    let limits = Limits::plain(per_s(10), tokens(50));
    let rows = vec![contract("gold", Tier::One, &[limits])];
    let mut gateway = Gateway::new(policy(&[Some(100)], rows), 1, &[0]);
    let now = gateway.now;
    let is_over = Lease::Waiting.renewed(now, now, now);
    let conditions = gateway.conditions();
    let mut pools = gateway.pools();
    let grant = Grant {
        terms: GrantTerms {
            rate: per_s(40),
            cap: tokens(40),
            fallback_rate: per_s(40),
        },
        granted_cum: 30_000_000,
        ..Grant::default()
    };
    pools.apply_grant(FIRST, &grant, conditions.policy, &is_over, now);
    // The next lease begins in the same microsecond.
    let renewed = is_over.renewed(now, now.plus_us(5_000_000), now.plus_us(5_000_000));
    pools.refill(conditions.policy, &renewed, now.plus_us(1_000_000));
    let pool = pools.pools.at(FIRST);
    assert_eq!((pool.bucket.level, pool.granted), (Micro::ZERO, None));
}
