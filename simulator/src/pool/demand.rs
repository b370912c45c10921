//! What customers ask for within their contracts, in each sub-step: the same for all policies.
//!
//! The standard bucket stands before the pool: what it does not let through is denied by the contract, whatever the policy. Here it pays for what the
//! pool denies, too. Were it paid back, a policy that denies now would be asked for more later, and no two policies could be compared.

use super::arrivals::Arrivals;
use super::market::Market;
use super::{CYCLE_MINUTES, CYCLE_S};
use crate::random::Random;
use std::ops::Range;

/// Depth of a standard bucket, in seconds of its rate.
const BURST_S: f64 = 2.0;
/// And at least, in requests: less admits nobody.
const BURST_MIN: f64 = 1.0;

/// Demand of a part of a trace, of which the part before it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Seconds of a sub-step.
    pub sub_step_s: usize,
    /// Customers.
    pub customers: usize,
    /// Requests that were made, within contracts or not.
    pub offered: f64,
    /// `[sub-step][customer]`: requests within the contract.
    sub_steps: Vec<f32>,
    /// `[customer][cycle]`, from the start of the trace on: the same, in requests per second. What was denied is in it.
    usage_per_s: Vec<Vec<f64>>,
    /// Cycles before the part.
    first_cycle: usize,
}

/// A rate and a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandardBucket {
    rate_per_s: f64,
    depth: f64,
    level: f64,
}

// === impl Demand ===

impl Demand {
    /// Draws the requests of whole cycles of these minutes. The seed gives the same requests whatever the capacity and the policy.
    #[must_use]
    pub fn new(
        market: &Market,
        arrivals: Arrivals,
        minutes: Range<usize>,
        sub_step_s: usize,
        seed: u64,
    ) -> Self {
        let random = Random::new(seed).fork(2);
        let customers = market.buyers.len();
        let first_cycle = minutes.start / CYCLE_MINUTES;
        let cycles = minutes.len() / CYCLE_MINUTES;
        let of_cycle = CYCLE_S / sub_step_s;
        let mut demand = Self {
            sub_step_s,
            customers,
            offered: 0.0,
            sub_steps: vec![0.0; cycles * of_cycle * customers],
            usage_per_s: Vec::with_capacity(customers),
            first_cycle,
        };
        for (place, buyer) in market.buyers.iter().enumerate() {
            let mut random = random.fork(place as u64);
            let all = buyer.minutes();
            let before = all.chunks(CYCLE_MINUTES).take(first_cycle).map(|cycle| {
                let count = arrivals.of_cycle(cycle.iter().sum(), &mut random);
                (count / CYCLE_S as f64).min(buyer.contract_per_s)
            });
            let mut usage: Vec<f64> = before.collect();
            let from = first_cycle * CYCLE_MINUTES;
            let part = all
                .get(from..from + cycles * CYCLE_MINUTES)
                .unwrap_or_default();
            let mut counts = arrivals.of_sub_steps(part, sub_step_s, &mut random);
            demand.offered += counts.iter().map(|count| f64::from(*count)).sum::<f64>();
            police(&mut counts, buyer.contract_per_s, sub_step_s as f64);
            let means = counts.chunks(of_cycle).map(|cycle| {
                cycle.iter().map(|count| f64::from(*count)).sum::<f64>() / CYCLE_S as f64
            });
            usage.extend(means);
            demand.usage_per_s.push(usage);
            let column = demand
                .sub_steps
                .iter_mut()
                .skip(place)
                .step_by(customers.max(1));
            for (cell, count) in column.zip(counts) {
                *cell = count;
            }
        }
        demand
    }

    /// Cycles of the part.
    #[must_use]
    pub fn cycles(&self) -> usize {
        self.usage_per_s
            .first()
            .map_or(0, |usage| usage.len() - self.first_cycle)
    }

    /// What each customer has asked for in each cycle since the start of the trace, in requests per second, and where the part begins.
    #[must_use]
    pub fn usage_per_s(&self) -> (&[Vec<f64>], usize) {
        (&self.usage_per_s, self.first_cycle)
    }

    /// What was asked for in the cycle before cycle `cycle` of the part.
    pub(crate) fn before(&self, cycle: usize) -> Vec<f64> {
        let last = (self.first_cycle + cycle).checked_sub(1);
        self.usage_per_s
            .iter()
            .map(|usage| {
                last.and_then(|last| usage.get(last))
                    .copied()
                    .unwrap_or(0.0)
            })
            .collect()
    }

    /// Sub-steps of a cycle of the part, each with what every customer asks for.
    pub(crate) fn cycle(&self, cycle: usize) -> impl Iterator<Item = &[f32]> {
        let cells = CYCLE_S / self.sub_step_s * self.customers;
        let from = cycle * cells;
        let all = self.sub_steps.get(from..from + cells).unwrap_or_default();
        all.chunks_exact(self.customers.max(1))
    }
}

/// Leaves what a standard bucket lets through.
fn police(counts: &mut [f32], contract_per_s: f64, sub_step_s: f64) {
    let mut bucket = StandardBucket::of_contract(contract_per_s);
    for count in counts {
        *count = bucket.pass(f64::from(*count), sub_step_s) as f32;
    }
}

// === impl StandardBucket ===

impl StandardBucket {
    fn of_contract(rate_per_s: f64) -> Self {
        match rate_per_s > 0.0 {
            true => Self::full(rate_per_s, (BURST_S * rate_per_s).max(BURST_MIN)),
            false => Self::full(0.0, 0.0),
        }
    }

    pub(crate) const fn full(rate_per_s: f64, depth: f64) -> Self {
        Self {
            rate_per_s,
            depth,
            level: depth,
        }
    }

    /// What of the requests of a sub-step it lets through.
    pub(crate) fn pass(&mut self, asked: f64, sub_step_s: f64) -> f64 {
        let available = self.level + self.rate_per_s * sub_step_s;
        let passed = asked.min(available);
        self.level = (available - passed).min(self.depth);
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_lets_through_its_rate_and_a_burst_of_two_seconds() {
        let mut counts = [50.0, 10.0, 20.0, 0.0, 0.0, 0.0, 50.0];
        police(&mut counts, 10.0, 1.0);
        assert_eq!(counts, [30.0, 10.0, 10.0, 0.0, 0.0, 0.0, 30.0]);
    }
}
