//! What each customer is allocated in each cycle, and by which rule.
//!
//! A plan is made before anything is admitted: demand is known with what was denied, so that no allocation depends on what was made of the last one. Each
//! cycle sees the demand up to its start and the forecasts that were made then, and nothing later, which a test asks of every rule.

use super::demand::Demand;
use super::fair::max_min;
use super::market::Market;
use crate::pool::CYCLE_S;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Held, Lend, Outlook, Settings, Terms, allocate, credits_after};

/// How capacity is divided in a cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// By contract, for good.
    Static,
    /// By what was asked for in the last cycle, max-min fair by contract.
    Reactive,
    /// The same, of what is left beside all guarantees.
    ReactiveAboveGuarantees,
    /// By a quantile of the forecast.
    Quantile(f64),
    /// By what was asked for in the last cycle: first within the guarantee, then of what nobody asks for.
    Borrowing,
    /// Ours, with what it goes by.
    Ours(View, Settings),
}

/// A rule, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// How capacity is divided.
    pub rule: Rule,
    /// The part of it that is in no allocation.
    pub reserve_share: f64,
    /// Whether gateways keep a credit of each guarantee, so that a claim is never less than it. A lease is what was allocated.
    pub has_credit: bool,
}

/// What our allocation is told of the cycle that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The forecast with its quantiles.
    Forecast,
    /// Its median alone.
    Median,
    /// What was asked for in the last cycle.
    LastDemand,
}

/// Allocations, made by a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `[cycle][customer]`, in requests per second.
    allocated_per_s: Vec<Vec<f64>>,
    /// What is in no allocation, in requests per second.
    reserve_per_s: f64,
    /// What a claim is at least, by customer, in requests per second.
    credit_per_s: Vec<f64>,
}

/// Terms and forecasts of one market at one capacity.
pub(super) struct Planner<'a> {
    market: &'a Market,
    capacity_per_s: f64,
    unreserved_per_s: f64,
    pub(super) guarantees_per_s: Vec<f64>,
    contracts_per_s: Vec<f64>,
    pub(super) weights: Vec<f64>,
}

/// What our allocation carries from cycle to cycle.
pub(super) struct Carried {
    held: Vec<Held>,
    credits: Vec<f64>,
}

// === impl Plan ===

impl Plan {
    /// Divides `capacity_per_s` less the reserve in each cycle. `outlooks[cycle][customer]` is what was forecast of the cycle when it began.
    #[must_use]
    pub fn new(
        scheme: Scheme,
        market: &Market,
        demand: &Demand,
        outlooks: &[Vec<Outlook>],
        capacity_per_s: f64,
    ) -> Self {
        let Scheme {
            rule,
            reserve_share,
            has_credit,
        } = scheme;
        let planner = Planner::new(market, capacity_per_s, reserve_share);
        let mut carried = Carried::of(market);
        let cycles = (0..demand.cycles()).zip(outlooks).map(|(cycle, outlooks)| {
            let last = demand.before(cycle);
            match rule {
                Rule::Ours(view, mut settings) => {
                    settings.reserve_share = reserve_share;
                    planner.ours(view, &settings, &last, outlooks, &mut carried)
                }
                _ => planner.simple(rule, &last, outlooks),
            }
        });
        Self {
            allocated_per_s: cycles.collect(),
            reserve_per_s: capacity_per_s * reserve_share,
            credit_per_s: match has_credit {
                true => planner.guarantees_per_s,
                false => vec![0.0; market.buyers.len()],
            },
        }
    }

    /// What is allocated in a cycle.
    pub(crate) fn cycle(&self, cycle: usize) -> &[f64] {
        self.allocated_per_s.get(cycle).map_or(&[], Vec::as_slice)
    }

    /// What is claimed in a cycle.
    pub(crate) fn claims(&self, cycle: usize) -> Vec<f64> {
        let allocated = self.cycle(cycle).iter().zip(&self.credit_per_s);
        allocated.map(|(one, other)| one.max(*other)).collect()
    }

    /// What is leased in a cycle.
    pub(crate) fn leases(&self, cycle: usize, capacity_per_s: f64, weights: &[f64]) -> Vec<f64> {
        let unreserved_per_s = capacity_per_s - self.reserve_per_s;
        leased(self.cycle(cycle), unreserved_per_s, weights)
    }
}

/// What is in nobody's allocation, but for the reserve, is divided by contract. So all leave the same reserve.
pub(super) fn leased(allocated_per_s: &[f64], unreserved_per_s: f64, weights: &[f64]) -> Vec<f64> {
    let sum: f64 = allocated_per_s.iter().sum();
    let idle = (unreserved_per_s - sum).max(0.0);
    let all: f64 = weights.iter().sum();
    let each = allocated_per_s.iter().zip(weights);
    each.map(|(allocated, weight)| allocated + idle * weight / all.max(f64::MIN_POSITIVE))
        .collect()
}

// === impl Carried ===

impl Carried {
    /// Nothing was allocated yet.
    pub(super) fn of(market: &Market) -> Self {
        Self {
            held: vec![Held::default(); market.buyers.len()],
            credits: vec![0.0; market.buyers.len()],
        }
    }
}

// === impl Planner ===

impl<'a> Planner<'a> {
    pub(super) fn new(market: &'a Market, capacity_per_s: f64, reserve_share: f64) -> Self {
        let contracts = market.buyers.iter().map(|buyer| buyer.contract_per_s);
        Self {
            market,
            capacity_per_s,
            unreserved_per_s: capacity_per_s * (1.0 - reserve_share),
            guarantees_per_s: market.guarantees_per_s(capacity_per_s),
            contracts_per_s: contracts.collect(),
            weights: market.weights(),
        }
    }

    /// What a customer wants, within its contract.
    fn wants(&self, of: impl Iterator<Item = f64>) -> Vec<f64> {
        of.zip(&self.contracts_per_s)
            .map(|(want, contract)| want.min(*contract))
            .collect()
    }

    fn simple(&self, rule: Rule, last: &[f64], outlooks: &[Outlook]) -> Vec<f64> {
        let last = self.wants(last.iter().copied());
        match rule {
            Rule::Static => max_min(self.unreserved_per_s, &self.contracts_per_s, &self.weights),
            Rule::Quantile(level) => {
                let wants = self.wants(outlooks.iter().map(|outlook| outlook.at(level)));
                max_min(self.unreserved_per_s, &wants, &self.weights)
            }
            Rule::ReactiveAboveGuarantees => self.above(&self.guarantees_per_s, &last),
            Rule::Borrowing => {
                let guarantees = self.guarantees_per_s.iter().zip(&last);
                let within: Vec<f64> = guarantees.map(|(one, other)| one.min(*other)).collect();
                self.above(&within, &last)
            }
            Rule::Reactive | Rule::Ours(..) => max_min(self.unreserved_per_s, &last, &self.weights),
        }
    }

    /// The bases, and of what is left max-min fair parts of what is wanted beyond them.
    fn above(&self, bases: &[f64], wants: &[f64]) -> Vec<f64> {
        let sum: f64 = bases.iter().sum();
        let fits = (self.unreserved_per_s / sum.max(f64::MIN_POSITIVE)).min(1.0);
        let bases: Vec<f64> = bases.iter().map(|base| base * fits).collect();
        let more: Vec<f64> = wants
            .iter()
            .zip(&bases)
            .map(|(want, base)| (want - base).max(0.0))
            .collect();
        let given = max_min(self.unreserved_per_s - sum * fits, &more, &self.weights);
        bases
            .iter()
            .zip(given)
            .map(|(base, more)| base + more)
            .collect()
    }

    pub(super) fn ours(
        &self,
        view: View,
        settings: &Settings,
        last: &[f64],
        outlooks: &[Outlook],
        carried: &mut Carried,
    ) -> Vec<f64> {
        let terms = self.guarantees_per_s.iter().zip(&self.contracts_per_s);
        let terms = terms.zip(&self.weights);
        let told = last.iter().zip(outlooks);
        let carries = carried.held.iter().zip(&carried.credits);
        let customers: Vec<Customer> = self
            .market
            .buyers
            .iter()
            .zip(terms)
            .zip(told)
            .zip(carries)
            .map(
                |(((buyer, ((guarantee, contract), weight)), (last, outlook)), (held, credits))| {
                    Customer {
                        tier: buyer.tier,
                        priority: 0,
                        weight: *weight,
                        group: None,
                        terms: PerResource::only_first(Terms {
                            guarantee_per_s: *guarantee,
                            rate_per_s: *contract,
                            ceiling_per_s: *contract,
                            lend: Lend::Auto,
                        }),
                        outlook: PerResource::only_first(match view {
                            View::Forecast => *outlook,
                            View::Median => Outlook::of_demand(outlook.at(0.5)),
                            View::LastDemand => Outlook::of_demand(*last),
                        }),
                        headroom_per_s: PerResource::default(),
                        held: PerResource::only_first(*held),
                        credits: *credits,
                    }
                },
            )
            .collect();
        let capacity_per_s = PerResource::only_first(self.capacity_per_s);
        let allocation = allocate(&capacity_per_s, &customers, &[], settings);
        carried.credits = credits_after(&capacity_per_s, &customers, &allocation, CYCLE_S as f64);
        let parts = allocation.parts.iter();
        carried.held = parts
            .map(|parts| {
                let part = parts.at(ResourceIndex::FIRST);
                Held {
                    per_s: part.allocated_per_s(),
                    is_releasing: part.is_releasing,
                }
            })
            .collect();
        carried.held.iter().map(|held| held.per_s).collect()
    }
}
