//! One run: the demand of a part of a trace against one pool.

use super::aimd::Aimd;
use super::central::{Counter, Oracle, Plain};
use super::claims::Claims;
use super::demand::Demand;
use super::figures::{PoolFigures, Score};
use super::guard::{Guard, PoolBucket};
use super::leases::Leases;
use super::market::Market;
use super::plan::Plan;

/// What an allocation means within a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// It is its owner's alone.
    Leases,
    /// Its owner goes first.
    Claims,
}

/// Ways to decide without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CentralName {
    /// Max-min fair, knowing all that is asked for in a sub-step.
    Oracle,
    /// One counter for all, asked for each request.
    Counter,
    /// The same with everybody's guarantee, and tiers.
    CounterWithGuarantees,
    /// Limits that fall under overload and rise without.
    Aimd,
    /// Contracts, and nothing in front of the pool.
    Plain,
}

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub enum Decider<'a> {
    /// Allocations.
    Allocated(Mechanism, &'a Plan),
    /// Nobody beforehand.
    Central(CentralName),
}

// === impl Mechanism ===

impl Mechanism {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Claims, Self::Leases];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Claims => "claims",
        }
    }
}

// === impl CentralName ===

impl CentralName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Oracle,
        Self::Counter,
        Self::CounterWithGuarantees,
        Self::Aimd,
        Self::Plain,
    ];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oracle => "oracle",
            Self::Counter => "counter",
            Self::CounterWithGuarantees => "counter_with_guarantees",
            Self::Aimd => "aimd",
            Self::Plain => "plain_bucket",
        }
    }
}

/// Runs the demand against a pool. It takes no chances: the same arguments give the same figures, to the last bit.
#[must_use]
pub fn run(
    market: &Market,
    demand: &Demand,
    capacity_per_s: f64,
    decider: Decider<'_>,
) -> PoolFigures {
    let mut score = Score::new(market, capacity_per_s, demand.sub_step_s);
    drive(
        market,
        demand,
        capacity_per_s,
        decider,
        |asked, denied, served| {
            score.see(asked, denied, served);
        },
    );
    let claims = score.beyond() as f64;
    let messages = match decider {
        Decider::Allocated(..) => (demand.cycles() * demand.customers) as f64 + claims,
        Decider::Central(name) => match name {
            CentralName::Oracle => f64::NAN,
            CentralName::Counter | CentralName::CounterWithGuarantees => demand.offered,
            CentralName::Aimd | CentralName::Plain => 0.0,
        },
    };
    score.figures(messages, demand.offered)
}

/// Runs the demand and shows each sub-step: what was asked for, what of it was denied, and the sums.
pub(crate) fn drive(
    market: &Market,
    demand: &Demand,
    capacity_per_s: f64,
    decider: Decider<'_>,
    see: impl FnMut(&[f32], &[f64], super::guard::Served),
) {
    let sub_step_s = demand.sub_step_s as f64;
    let pool = PoolBucket::full(capacity_per_s);
    let weights = market.weights();
    let nothing = |_: usize| None;
    match decider {
        Decider::Allocated(Mechanism::Claims, plan) => drive_with(
            Claims::new(market, capacity_per_s, sub_step_s),
            demand,
            |cycle| Some(plan.claims(cycle)),
            see,
        ),
        Decider::Allocated(Mechanism::Leases, plan) => drive_with(
            Leases::new(demand.customers, capacity_per_s, sub_step_s),
            demand,
            |cycle| Some(plan.leases(cycle, capacity_per_s, &weights)),
            see,
        ),
        Decider::Central(CentralName::CounterWithGuarantees) => drive_with(
            Claims::new(market, capacity_per_s, sub_step_s),
            demand,
            |cycle| (cycle == 0).then(|| market.guarantees_per_s(capacity_per_s)),
            see,
        ),
        Decider::Central(CentralName::Oracle) => {
            let oracle = Oracle {
                sub_step_s,
                pool,
                weights,
            };
            drive_with(oracle, demand, nothing, see);
        }
        Decider::Central(CentralName::Counter) => {
            drive_with(Counter { sub_step_s, pool }, demand, nothing, see);
        }
        Decider::Central(CentralName::Aimd) => {
            drive_with(
                Aimd::new(market, capacity_per_s, sub_step_s),
                demand,
                nothing,
                see,
            );
        }
        Decider::Central(CentralName::Plain) => drive_with(Plain, demand, nothing, see),
    }
}

fn drive_with(
    mut guard: impl Guard,
    demand: &Demand,
    allocated_per_s: impl Fn(usize) -> Option<Vec<f64>>,
    mut see: impl FnMut(&[f32], &[f64], super::guard::Served),
) {
    let mut denied = vec![0.0; demand.customers];
    for cycle in 0..demand.cycles() {
        if let Some(allocated) = allocated_per_s(cycle) {
            guard.allocate(&allocated);
        }
        for asked in demand.cycle(cycle) {
            let served = guard.serve(asked, &mut denied);
            see(asked, &denied, served);
        }
    }
}
