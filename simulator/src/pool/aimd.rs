//! Additive increase, multiplicative decrease: each customer has a limit that falls when the upstream is overloaded, and else rises.

use super::guard::{Guard, PoolBucket, Served};
use super::market::Market;

/// What a limit rises by in a second, as a part of the contract.
const INCREASE_PER_S: f64 = 0.01;
/// What is left of it after an overload.
const DECREASE: f64 = 0.9;
/// Up to so many contracts: bursts pass.
const CONTRACTS_MAX: f64 = 3.0;

/// Limits that follow overload.
#[derive(Clone, Debug)]
pub(crate) struct Aimd {
    sub_step_s: f64,
    pool: PoolBucket,
    /// Contract and limit, in requests per second.
    limits_per_s: Vec<(f64, f64)>,
}

// === impl Aimd ===

impl Aimd {
    pub(crate) fn new(market: &Market, capacity_per_s: f64, sub_step_s: f64) -> Self {
        let limits = market.buyers.iter().map(|buyer| {
            let contract = buyer.contract_per_s;
            (contract, CONTRACTS_MAX * contract)
        });
        Self {
            sub_step_s,
            pool: PoolBucket::full(capacity_per_s),
            limits_per_s: limits.collect(),
        }
    }
}

impl Guard for Aimd {
    fn allocate(&mut self, _: &[f64]) {}

    fn serve(&mut self, demand: &[f32], denied: &mut [f64]) -> Served {
        let mut served = Served::default();
        let customers = demand.iter().zip(&self.limits_per_s);
        for ((demand, (_, limit)), denied) in customers.zip(denied.iter_mut()) {
            let demand = f64::from(*demand);
            // One request always passes: a limit below it would shut out who asks rarely.
            let admitted = demand.min((limit * self.sub_step_s).max(1.0));
            *denied = demand - admitted;
            served.is_short |= *denied > 0.0;
            served.admitted += admitted;
        }
        let is_overloaded = served.admitted > self.pool.available(self.sub_step_s);
        for ((contract, limit), demand) in self.limits_per_s.iter_mut().zip(demand) {
            if !is_overloaded {
                let increased = *limit + INCREASE_PER_S * self.sub_step_s * *contract;
                *limit = increased.min(CONTRACTS_MAX * *contract);
            } else if *demand > 0.0 {
                // From what it asks for: a limit that does not bind would have to fall for minutes first.
                *limit = limit.min(f64::from(*demand) / self.sub_step_s) * DECREASE;
            }
        }
        self.pool.spend(served.admitted, self.sub_step_s);
        served
    }
}
