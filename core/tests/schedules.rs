//! Properties over any schedule: several workers with chunks, draws that race, settlements, returns, restarts.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::chunk::{Amounts, Payer};
use forebay_core::policy::{Limits, PoolRule, Tier};
use forebay_core::{Micro, PerResource, Policy, Rate, ResourceIndex};
use gateway::{Gateway, Rival, contract, per_s, policy, tokens};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const WORKERS: usize = 3;
const CUSTOMERS: u64 = 3;
const RESOURCES: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Request {
        worker: usize,
        customer: u64,
        costs: [i64; RESOURCES],
        rivals: Vec<Option<(u64, i64)>>,
    },
    Settle {
        pick: usize,
        actual: i64,
    },
    /// Requests of one token at a steady pace, so that the worker gets a chunk.
    Stream {
        worker: usize,
        customer: u64,
        count: u32,
        gap_us: u64,
    },
    Advance {
        us: u64,
    },
    GiveBack {
        worker: usize,
        customer: u64,
    },
    Restart {
        worker: usize,
    },
    Trap {
        worker: usize,
        customer: u64,
        after_sets: u32,
    },
    Shadow {
        customer: u64,
        rate: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    let customer = 0..CUSTOMERS;
    let rivals = prop::collection::vec(prop::option::of((0..CUSTOMERS, 1..4_i64)), 0..3);
    prop_oneof![
        12 => (worker.clone(), customer.clone(), prop::array::uniform2(0..6_i64), rivals)
            .prop_map(|(worker, customer, costs, rivals)| Step::Request { worker, customer, costs, rivals }),
        3 => (any::<prop::sample::Index>(), 0..12_i64).prop_map(|(pick, actual)| Step::Settle { pick: pick.index(1 << 16), actual }),
        3 => (worker.clone(), customer.clone(), 1..40_u32, prop_oneof![0..2_000_u64, 0..40_000_u64])
            .prop_map(|(worker, customer, count, gap_us)| Step::Stream { worker, customer, count, gap_us }),
        6 => prop_oneof![0..3_000_u64, 0..450_000_u64, 0..3_000_000_u64].prop_map(|us| Step::Advance { us }),
        1 => (worker.clone(), customer.clone()).prop_map(|(worker, customer)| Step::GiveBack { worker, customer }),
        1 => worker.clone().prop_map(|worker| Step::Restart { worker }),
        1 => (worker, customer.clone(), 0..3_u32).prop_map(|(worker, customer, after_sets)| Step::Trap { worker, customer, after_sets }),
        1 => (customer, 0..40_u64).prop_map(|(customer, rate)| Step::Shadow { customer, rate }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..60_000_000_u64,
        1..20_i64,
        0..4_i64,
        0..=100_u64,
        0..4_i64,
    )
        .prop_map(|(rate, burst, debt, part, borrow)| Limits {
            rate: Rate::new(rate),
            burst: tokens(burst),
            guarantee: Rate::new(rate * part / 100),
            ceiling: Rate::new(rate + rate * borrow as u64 / 4),
            debt_limit: tokens(debt),
            borrow_limit: tokens(borrow),
        })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let contracts = prop::collection::vec(
        (1..=3_u8, prop::array::uniform2(limits())),
        CUSTOMERS as usize,
    );
    (
        contracts,
        prop::array::uniform2(prop::option::of(1..80_u64)),
    )
        .prop_map(|(contracts, capacities)| {
            let row = |(number, (tier, limits)): (usize, (u8, [Limits; RESOURCES]))| {
                contract(
                    &format!("contract-{number}"),
                    Tier::from_number(tier).unwrap(),
                    &limits,
                )
            };
            policy(
                &capacities,
                contracts.into_iter().enumerate().map(row).collect(),
            )
        })
}

/// What one customer was charged for one resource, over time.
#[derive(Clone, Debug, Default)]
struct Charges {
    events: Vec<(u64, i64)>,
}

struct InFlight {
    worker: usize,
    customer: u64,
    resource: ResourceIndex,
    estimate: i64,
    payer: Payer,
}

/// Runs a schedule and returns what everyone was charged, and the most requests of a customer that were in flight at once.
struct Run {
    gateway: Gateway,
    charges: Vec<PerResource<Charges>>,
    in_flight: Vec<InFlight>,
    most_in_flight: i64,
    /// A VM died: tokens and counts were lost.
    lossy: bool,
}

impl Run {
    fn new(policy: Policy) -> Run {
        let indexes: Vec<u16> = (0..CUSTOMERS as u16).collect();
        Run {
            gateway: Gateway::new(policy, WORKERS, &indexes),
            charges: (0..CUSTOMERS).map(|_| PerResource::default()).collect(),
            in_flight: Vec::new(),
            most_in_flight: 0,
            lossy: false,
        }
    }

    fn charge(&mut self, customer: u64, resource: ResourceIndex, micro: i64) {
        let now = self.gateway.now.0;
        self.charges[customer as usize]
            .at_mut(resource)
            .events
            .push((now, micro));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Request {
                worker,
                customer,
                costs,
                rivals,
            } => self.request(*worker, *customer, costs, rivals),
            Step::Settle { pick, actual } => self.settle(*pick, *actual),
            Step::Stream {
                worker,
                customer,
                count,
                gap_us,
            } => {
                for _ in 0..*count {
                    self.request(*worker, *customer, &[1, 1], &[]);
                    self.gateway.advance(*gap_us);
                }
            }
            Step::Advance { us } => self.gateway.advance(*us),
            Step::GiveBack { worker, customer } => self.gateway.give_back(*worker, *customer),
            Step::Restart { worker } => {
                self.gateway.restart(*worker);
                self.lossy = true;
            }
            Step::Trap {
                worker,
                customer,
                after_sets,
            } => {
                // The host refuses the worker's writes from some point on, and then its VM is gone.
                self.gateway.data.rivals.clear();
                let sets = *after_sets;
                self.gateway.data.fail_sets = if sets == 0 { 8 } else { 0 };
                if sets > 0 {
                    self.gateway.data.fail_after = Some(sets);
                }
                let amounts = amounts(&[1, 1]);
                if let Ok(verdict) = self.gateway.request(*worker, *customer, &amounts)
                    && verdict.is_admitted()
                {
                    for resource in ResourceIndex::first(RESOURCES) {
                        self.charge(*customer, resource, 1_000_000);
                    }
                }
                self.gateway.data.fail_sets = 0;
                self.gateway.data.fail_after = None;
                self.gateway.restart(*worker);
                self.lossy = true;
            }
            Step::Shadow { customer, rate } => {
                let policy = self.gateway.policy.clone();
                let (now, lease) = (self.gateway.now, self.gateway.ledger.state().lease);
                self.gateway.edit(*customer, |entry| {
                    entry.refill(&policy, &lease, now);
                    for resource in ResourceIndex::first(RESOURCES) {
                        entry.set_shadow(resource, per_s(*rate), 500_000);
                    }
                });
            }
        }
    }

    fn request(
        &mut self,
        worker: usize,
        customer: u64,
        costs: &[i64; RESOURCES],
        rivals: &[Option<(u64, i64)>],
    ) {
        let rival = |(customer, cost): (u64, i64)| Rival {
            customer,
            cost: amounts(&[cost, cost]),
        };
        self.gateway.data.rules = Some((self.gateway.policy.clone(), self.gateway.now));
        self.gateway.data.rivals = rivals.iter().map(|each| each.map(rival)).collect();
        let verdict = self
            .gateway
            .request(worker, customer, &amounts(costs))
            .unwrap();
        self.gateway.data.rivals.clear();
        for (rival, amounts) in core::mem::take(&mut self.gateway.data.admitted_by_rivals) {
            for resource in ResourceIndex::first(RESOURCES) {
                self.charge(rival, resource, amounts.at(resource).get());
            }
        }
        if !verdict.is_admitted() {
            return;
        }
        for (resource, cost) in ResourceIndex::first(RESOURCES).zip(costs) {
            self.charge(customer, resource, cost * 1_000_000);
            self.in_flight.push(InFlight {
                worker,
                customer,
                resource,
                estimate: *cost,
                payer: self.gateway.payer(worker, customer, resource),
            });
        }
        self.most_in_flight = self.most_in_flight.max(self.in_flight.len() as i64);
    }

    fn settle(&mut self, pick: usize, actual: i64) {
        if self.in_flight.is_empty() {
            return;
        }
        let request = self.in_flight.swap_remove(pick % self.in_flight.len());
        let difference = (actual - request.estimate) * 1_000_000;
        self.gateway.settle(
            request.worker,
            request.customer,
            request.resource,
            Micro::new(difference),
            request.payer,
        );
        self.charge(request.customer, request.resource, difference);
    }

    /// Charged in any window <= burst + rate x t + borrowing + debt limit + in flight x (max cost - estimate).
    fn check_bound(&self, settles: bool) {
        for (customer, per_resource) in self.charges.iter().enumerate() {
            for resource in ResourceIndex::first(RESOURCES) {
                let limits = *self.gateway.policy.contracts[customer].limits.at(resource);
                let events = &per_resource.at(resource).events;
                let unknown_at_start = if settles {
                    self.most_in_flight * 12_000_000
                } else {
                    0
                };
                let fixed = limits.burst.get()
                    + limits.debt_limit.get()
                    + limits.borrow_limit.get()
                    + unknown_at_start;
                for start in 0..events.len() {
                    let mut sum = 0;
                    for (at, micro) in &events[start..] {
                        sum += micro;
                        let dt_us = at - events[start].0;
                        // One micro-token for the remainder that the first refill of the window may carry in, per bucket.
                        let bound = fixed + limits.ceiling.amount_in(dt_us).get() + 2;
                        assert!(
                            sum <= bound,
                            "customer {customer} was charged {sum} in {dt_us} us, allowed is {bound}: {limits:?}"
                        );
                    }
                }
            }
        }
    }
}

fn amounts(costs: &[i64; RESOURCES]) -> Amounts {
    let mut amounts = Amounts::default();
    for (resource, cost) in ResourceIndex::first(RESOURCES).zip(costs) {
        *amounts.at_mut(resource) = tokens(*cost);
    }
    amounts
}

fn without_settlements(steps: Vec<Step>) -> Vec<Step> {
    steps
        .into_iter()
        .filter(|step| !matches!(step, Step::Settle { .. }))
        .collect()
}

proptest! {
    // A failing case is written beside this file with its seed, to be run first from then on.
    #![proptest_config(ProptestConfig {
        cases: 384,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_admits_more_than_the_bound_in_any_window(
        policy in any_policy(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(policy);
        for step in &without_settlements(steps) {
            run.step(step);
        }
        run.check_bound(false);
    }

    #[test]
    fn settlements_add_no_more_than_what_was_in_flight(
        policy in any_policy(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(policy);
        for step in &steps {
            run.step(step);
        }
        run.check_bound(true);
    }

    #[test]
    fn every_resource_is_charged_for_a_request_or_none_is(
        policy in any_policy(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(policy);
        for step in steps.iter().filter(|step| !matches!(step, Step::Restart { .. } | Step::Trap { .. })) {
            run.step(step);
        }
        run.gateway.give_back_all();
        for customer in 0..CUSTOMERS {
            let entry = run.gateway.entry(customer);
            for resource in ResourceIndex::first(RESOURCES) {
                let charged: i64 = run.charges[customer as usize].at(resource).events.iter().map(|(_, micro)| micro).sum();
                prop_assert_eq!(entry.holdings.at(resource).admitted_cum.cast_signed(), charged);
            }
        }
    }

    #[test]
    fn both_currencies_are_conserved_while_nothing_overflows(
        steps in prop::collection::vec(step(), 1..80),
        rates in prop::array::uniform2(1..60_000_000_u64),
    ) {
        // Buckets far deeper than anything that happens, and all of them empty at first: no cap ever cuts anything off.
        let deep = |rate| Limits::plain(Rate::new(rate), tokens(1_000_000));
        let rows = (0..CUSTOMERS).map(|row| contract(&format!("contract-{row}"), Tier::One, &rates.map(deep))).collect();
        let mut policy = policy(&[Some(1), Some(1)], rows);
        let capacity = Rate::new(50_000_001);
        for resource in &mut policy.resources {
            resource.pool = Some(forebay_core::policy::PoolRule { capacity, depth: tokens(1_000_000) });
        }
        let mut run = Run::new(policy);
        for customer in 0..CUSTOMERS {
            run.gateway.edit(customer, |entry| entry.holdings.iter_mut().for_each(|holding| holding.contract.level = tokens(20)));
        }
        let conditions = run.gateway.conditions();
        run.gateway.ledger.edit_pools(&mut run.gateway.data, &conditions, |pools| {
            pools.pools.iter_mut().for_each(|pool| pool.bucket.level = tokens(40));
        }).unwrap();
        for step in steps.iter().filter(|step| !matches!(step, Step::Restart { .. } | Step::Trap { .. })) {
            run.step(step);
        }
        let elapsed_us = run.gateway.now.since(gateway::START);
        let pools = run.gateway.pools();
        for resource in ResourceIndex::first(RESOURCES) {
            let mut charged_by_all = 0;
            let mut in_chunks = 0;
            for customer in 0..CUSTOMERS {
                let held: i64 = run.gateway.workers.iter().filter_map(|worker| worker.chunks.get(&customer)).map(|chunk| {
                    let holding = chunk.holdings.at(resource);
                    holding.tokens().plus(holding.refund).get()
                }).sum();
                let charged: i64 = run.charges[customer as usize].at(resource).events.iter().map(|(_, micro)| micro).sum();
                let level = run.gateway.entry(customer).holdings.at(resource).contract.level.get();
                let flowed = Rate::new(rates[resource.position()]).amount_in(elapsed_us).get();
                prop_assert_eq!(level + held + charged, 20_000_000 + flowed, "contract tokens of customer {}", customer);
                charged_by_all += charged;
                in_chunks += held;
            }
            let level = pools.pools.at(resource).bucket.level.get();
            prop_assert_eq!(level + in_chunks + charged_by_all, 40_000_000 + capacity.amount_in(elapsed_us).get(), "pool tokens");
            prop_assert_eq!(pools.pools.at(resource).outstanding.total() >= Micro::ZERO, true);
        }
    }

    #[test]
    fn tokens_that_lie_in_chunks_count_against_the_burst_in_any_window(
        rate in 10..400_u64,
        burst in 5..40_i64,
        steps in prop::collection::vec(pulse(), 1..60),
    ) {
        let limits = Limits::plain(per_s(rate), tokens(burst));
        let rows = (0..CUSTOMERS).map(|row| contract(&format!("contract-{row}"), Tier::One, &[limits; RESOURCES])).collect();
        let mut run = Run::new(policy(&[None, None], rows));
        for step in &steps {
            run.step(step);
        }
        run.check_bound(false);
    }

    #[test]
    fn with_an_ample_pool_shadow_buckets_change_no_admission(
        policy in any_policy(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let ample = |enabled| {
            let mut policy = policy.clone();
            policy.shadow.enabled = enabled;
            for resource in &mut policy.resources {
                let rule = PoolRule { capacity: Rate::MAX, depth: Micro::MAX };
                resource.pool = Some(rule);
            }
            // A debt is for foreseen requests only, so with a debt limit a forecast does change what a contract admits.
            for contract in &mut policy.contracts {
                contract.limits.iter_mut().for_each(|limits| limits.debt_limit = Micro::ZERO);
            }
            let mut run = Run::new(policy);
            for step in &steps {
                run.step(step);
            }
            run
        };
        let (on, off) = (ample(true), ample(false));
        for (on, off) in on.charges.iter().zip(&off.charges) {
            for resource in ResourceIndex::first(RESOURCES) {
                prop_assert_eq!(&on.at(resource).events, &off.at(resource).events);
            }
        }
    }
}

/// Bursts and pauses of one customer: chunks grow, the bucket fills while they lie there, and both are spent at once.
fn pulse() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        6 => (worker.clone(), 1..60_u32, prop_oneof![Just(0), 0..10_000_u64])
            .prop_map(|(worker, count, gap_us)| Step::Stream { worker, customer: 0, count, gap_us }),
        4 => (0..480_000_u64).prop_map(|us| Step::Advance { us }),
        1 => worker.prop_map(|worker| Step::Restart { worker }),
    ]
}
