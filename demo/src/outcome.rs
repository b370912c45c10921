//! What a run came to, per customer and as a whole.
//!
//! Figures count from the end of the warm-up; over-admission is looked for in the whole run.

use std::collections::BTreeMap;

use crate::client::{Answer, Outcome};
use crate::contract_check::{Admitted, Attempt, denied_in_contract, over_admission};
use crate::scenario::{Customer, Role, Scenario};

/// One customer's part of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CustomerOutcome {
    /// Its name.
    pub name: &'static str,
    /// What part it played.
    pub role: Role,
    /// Requests sent.
    pub offered: u64,
    /// Requests admitted within the forecast.
    pub shadow: u64,
    /// Requests admitted by the standard bucket.
    pub standard: u64,
    /// Requests served by the upstream.
    pub served: u64,
    /// Requests denied, for whatever reason.
    pub denied: u64,
    /// Requests denied that the contract alone would have admitted.
    pub denied_in_contract: u64,
    /// Requests without an answer that counts.
    pub failed: u64,
    /// Tokens by which some interval exceeds the contract.
    pub over_admission: f64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunOutcome {
    /// In the scenario's order.
    pub customers: Vec<CustomerOutcome>,
    /// Latency of served requests from when they were due.
    pub latency_p50_ms: f64,
    /// The same, 99th percentile.
    pub latency_p99_ms: f64,
    /// Requests that the gateway admitted and the upstream turned away.
    pub overloaded: u64,
    /// Shadow refills that came from the network, and from the fallback.
    pub refills: Refills,
}

/// Where the shadow refills of a run came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refills {
    /// The model's forecast.
    pub network: u64,
    /// The trailing quantiles.
    pub fallback: u64,
}

impl Refills {
    /// What came after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            network: self.network.saturating_sub(earlier.network),
            fallback: self.fallback.saturating_sub(earlier.fallback),
        }
    }
}

impl RunOutcome {
    /// Sums up the answers of a run.
    pub(crate) fn new(scenario: &Scenario, answers: &[Answer], refills: Refills) -> Self {
        let from_us = scenario.warm_up_us();
        let mut by_customer: BTreeMap<usize, Vec<&Answer>> = BTreeMap::new();
        for answer in answers {
            by_customer.entry(answer.customer).or_default().push(answer);
        }
        let customers = scenario
            .customers
            .iter()
            .enumerate()
            .map(|(i, customer)| {
                CustomerOutcome::new(
                    customer,
                    by_customer.get(&i).map_or(&[], Vec::as_slice),
                    from_us,
                )
            })
            .collect();
        let mut latency_us: Vec<u64> = answers
            .iter()
            .filter(|a| a.due_us >= from_us && a.outcome.is_served())
            .map(|a| a.answered_us.saturating_sub(a.due_us))
            .collect();
        latency_us.sort_unstable();
        Self {
            customers,
            latency_p50_ms: percentile_ms(&latency_us, 50),
            latency_p99_ms: percentile_ms(&latency_us, 99),
            overloaded: answers
                .iter()
                .filter(|a| a.due_us >= from_us && a.outcome == Outcome::Overloaded)
                .count() as u64,
            refills,
        }
    }

    /// Sum of a figure over all customers.
    pub(crate) fn total(&self, figure: impl Fn(&CustomerOutcome) -> u64) -> u64 {
        self.customers.iter().map(figure).sum()
    }

    /// Sum of a figure over the customers that a forecast can know.
    pub(crate) fn steady(&self, figure: impl Fn(&CustomerOutcome) -> u64) -> u64 {
        self.customers
            .iter()
            .filter(|c| c.role == Role::Steady)
            .map(figure)
            .sum()
    }

    /// The worst excess over a contract.
    pub(crate) fn over_admission(&self) -> f64 {
        self.customers
            .iter()
            .map(|c| c.over_admission)
            .fold(0.0, f64::max)
    }
}

impl CustomerOutcome {
    fn new(customer: &Customer, answers: &[&Answer], from_us: u64) -> Self {
        let count = |wanted: fn(Outcome) -> bool| {
            answers
                .iter()
                .filter(|a| a.due_us >= from_us && wanted(a.outcome))
                .count() as u64
        };
        let admitted: Vec<Admitted> = answers
            .iter()
            .filter(|a| a.outcome.is_admitted())
            .map(|a| Admitted {
                sent_us: a.sent_us,
                answered_us: a.answered_us,
            })
            .collect();
        // What failed is neither: it may or may not have been charged.
        let attempts: Vec<Attempt> = answers
            .iter()
            .filter(|a| a.outcome != Outcome::Failed)
            .map(|a| Attempt {
                sent_us: a.sent_us,
                admitted: a.outcome.is_admitted(),
            })
            .collect();
        Self {
            name: customer.name,
            role: customer.role,
            offered: count(|_| true),
            shadow: count(|o| o == Outcome::ServedShadow),
            standard: count(|o| o == Outcome::ServedStandard),
            served: count(Outcome::is_served),
            denied: count(Outcome::is_denied),
            denied_in_contract: denied_in_contract(
                &attempts,
                customer.rate_per_s,
                customer.burst,
                from_us,
            ),
            failed: count(|o| o == Outcome::Failed),
            over_admission: over_admission(&admitted, customer.rate_per_s, customer.burst),
        }
    }
}

fn percentile_ms(sorted_us: &[u64], percent: usize) -> f64 {
    let index = sorted_us.len().saturating_sub(1) * percent / 100;
    sorted_us.get(index).map_or(0.0, |us| *us as f64 / 1_000.0)
}
